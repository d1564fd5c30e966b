//! Neighbours, proxied addresses and bridge forwarding entries.

use std::net::IpAddr;

use crate::codec::{Attrs, Request, family, ip, u8_at, u16_at, u32_at};
use crate::{Mac, Result, Socket};

const HEADER_LEN: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_PROXY: u8 = 0x08;
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// An entry of a neighbour or forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// Index of the interface.
    pub index: u32,
    /// What kind of entry.
    pub table: Table,
    /// The neighbour's address; of a forwarding entry, the tunnel's far end.
    pub address: Option<IpAddr>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Put there by somebody: neither learned nor mapped by the kernel itself.
    pub permanent: bool,
}

/// Which table an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Address to hardware address.
    Neighbour,
    /// Addresses that this node answers for.
    Proxy,
    /// Hardware address to tunnel end or bridge port.
    Forwarding,
}

impl Neighbour {
    /// Reads the payload of an `RTM_NEWNEIGH` or `RTM_DELNEIGH`.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (state, flags) = (u16_at(payload, 8)?, u8_at(payload, 10)?);
        let attrs = Attrs::after(payload, HEADER_LEN);
        let table = match (u8_at(payload, 0)?, flags & NTF_PROXY) {
            (AF_BRIDGE, _) => Table::Forwarding,
            (_, 0) => Table::Neighbour,
            _ => Table::Proxy,
        };
        Some(Self {
            index: u32_at(payload, 4)?,
            table,
            address: attrs.clone().get(NDA_DST).and_then(ip),
            mac: attrs.get(NDA_LLADDR).and_then(|v| v.try_into().ok()),
            permanent: state & NUD_PERMANENT != 0,
        })
    }
}

/// All entries of one interface in the neighbour or the forwarding table.
pub fn list(socket: &mut Socket, index: u32, table: Table) -> Result<Vec<Neighbour>> {
    let mut header = [0; HEADER_LEN];
    let request = match table {
        // The forwarding dump filters by interface in the header, the others by attribute.
        Table::Forwarding => {
            header[0] = AF_BRIDGE;
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            Request::new("list forwarding entries", libc::RTM_GETNEIGH, 0, &header)
        }
        Table::Neighbour | Table::Proxy => {
            header[10] = if table == Table::Proxy { NTF_PROXY } else { 0 };
            Request::new("list neighbours", libc::RTM_GETNEIGH, 0, &header)
                .attr_u32(NDA_IFINDEX, index)
        }
    };
    socket.dump(&request, |m| {
        let entry = (m.kind == libc::RTM_NEWNEIGH).then(|| Neighbour::parse(m.payload))??;
        (entry.index == index && entry.table == table).then_some(entry)
    })
}

const PUT: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// Request: put a permanent neighbour.
pub fn put(index: u32, address: IpAddr, mac: Mac) -> Request {
    let header = header(family(address), index, NUD_PERMANENT, 0);
    Request::new("put neighbour", libc::RTM_NEWNEIGH, PUT, &header)
        .attr_ip(NDA_DST, address)
        .attr(NDA_LLADDR, &mac)
}

/// Request: remove a neighbour.
pub fn delete(index: u32, address: IpAddr) -> Request {
    let header = header(family(address), index, 0, 0);
    Request::new("delete neighbour", libc::RTM_DELNEIGH, 0, &header).attr_ip(NDA_DST, address)
}

/// Request: answer for `address` on that interface.
pub fn put_proxy(index: u32, address: IpAddr) -> Request {
    let header = header(family(address), index, NUD_PERMANENT, NTF_PROXY);
    Request::new("put proxied address", libc::RTM_NEWNEIGH, PUT, &header).attr_ip(NDA_DST, address)
}

/// Request: no longer answer for `address` on that interface.
pub fn delete_proxy(index: u32, address: IpAddr) -> Request {
    let header = header(family(address), index, 0, NTF_PROXY);
    Request::new("delete proxied address", libc::RTM_DELNEIGH, 0, &header).attr_ip(NDA_DST, address)
}

/// Request: frames to `mac` leave the tunnel device towards `remote`.
pub fn put_forwarding(index: u32, mac: Mac, remote: IpAddr) -> Request {
    let header = header(AF_BRIDGE, index, NUD_PERMANENT | NUD_NOARP, NTF_SELF);
    Request::new("put forwarding entry", libc::RTM_NEWNEIGH, PUT, &header)
        .attr_ip(NDA_DST, remote)
        .attr(NDA_LLADDR, &mac)
}

/// Request: remove a forwarding entry.
pub fn delete_forwarding(index: u32, mac: Mac, remote: IpAddr) -> Request {
    let header = header(AF_BRIDGE, index, 0, NTF_SELF);
    Request::new("delete forwarding entry", libc::RTM_DELNEIGH, 0, &header)
        .attr_ip(NDA_DST, remote)
        .attr(NDA_LLADDR, &mac)
}

const RTM_SETNEIGHTBL: u16 = 67;
const NDTA_NAME: u16 = 1;
const NDTA_PARMS: u16 = 6;
const NDTPA_IFINDEX: u16 = 1;
const NDTPA_PROXY_DELAY: u16 = 13;

/// Request: answer at once for IPv4 addresses of others on that interface, not after a random
/// time (`proxy_delay` 0).
pub fn proxy_at_once(index: u32) -> Request {
    let header = [libc::AF_INET as u8, 0, 0, 0]; // struct ndtmsg
    Request::new("set proxy delay", RTM_SETNEIGHTBL, 0, &header)
        .attr_str(NDTA_NAME, "arp_cache")
        .nest(NDTA_PARMS, |r| {
            let delay = 0_u64.to_ne_bytes(); // milliseconds
            r.attr_u32(NDTPA_IFINDEX, index).attr(NDTPA_PROXY_DELAY, &delay)
        })
}

/// `struct ndmsg`.
fn header(family: u8, index: u32, state: u16, flags: u8) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..10].copy_from_slice(&state.to_ne_bytes());
    bytes[10] = flags;
    bytes
}
