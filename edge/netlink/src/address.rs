//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::codec::{Attrs, Request, family, ip, u8_at, u32_at};
use crate::{Result, Socket};

const HEADER_LEN: usize = 8;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// Address and prefix length, host bits kept.
    pub net: IpNet,
    /// Valid in all the network, not on the link or host only.
    pub global: bool,
}

impl Address {
    /// Reads the payload of an `RTM_NEWADDR` or `RTM_DELADDR`.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let attrs = Attrs::after(payload, HEADER_LEN);
        // On point-to-point links IFA_ADDRESS is the far end and IFA_LOCAL ours.
        let own = attrs.clone().get(libc::IFA_LOCAL).or_else(|| attrs.get(libc::IFA_ADDRESS))?;
        Some(Self {
            index: u32_at(payload, 4)?,
            net: IpNet::new(ip(own)?, u8_at(payload, 1)?).ok()?,
            global: u8_at(payload, 3)? == libc::RT_SCOPE_UNIVERSE,
        })
    }
}

/// All addresses of the namespace, of both families.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>> {
    let request = Request::new("list addresses", libc::RTM_GETADDR, 0, &[0; HEADER_LEN]);
    socket.dump(&request, |m| {
        (m.kind == libc::RTM_NEWADDR).then(|| Address::parse(m.payload)).flatten()
    })
}

/// Request: add an address, or leave it if it is there. An IPv6 address is usable at once: no
/// duplicate address detection.
pub fn add(index: u32, net: IpNet) -> Request {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    build("add address", libc::RTM_NEWADDR, flags, index, net)
}

/// Request: remove an address.
pub fn delete(index: u32, net: IpNet) -> Request {
    build("delete address", libc::RTM_DELADDR, 0, index, net)
}

fn build(what: &'static str, kind: u16, flags: i32, index: u32, net: IpNet) -> Request {
    let nodad = if net.addr().is_ipv6() { libc::IFA_F_NODAD } else { 0 };
    let mut header = [0; HEADER_LEN];
    header[0] = family(net.addr());
    header[1] = net.prefix_len();
    header[2] = nodad as u8;
    header[3] = scope(net.addr());
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(what, kind, flags, &header)
        .attr_ip(libc::IFA_LOCAL, net.addr())
        .attr_ip(libc::IFA_ADDRESS, net.addr())
}

fn scope(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(a) if a.is_unicast_link_local() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    }
}
