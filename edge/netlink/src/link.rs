//! Interfaces.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use model::IfaceName;

use crate::codec::{Attrs, Message, Request, ip, text, u16_at, u32_at};
use crate::{Error, Mac, Result, Socket};

const HEADER_LEN: usize = 16;

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: IfaceName,
    /// Administratively up.
    pub up: bool,
    /// Up and with a carrier.
    pub running: bool,
    /// Loopback.
    pub loopback: bool,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// Hardware address, if it is one of six bytes.
    pub mac: Option<Mac>,
    /// Text stored with the interface.
    pub alias: Option<String>,
    /// `veth`, `vxlan`, `bridge` and so on; none for physical ones.
    pub kind: Option<String>,
    /// Of a VXLAN device.
    pub vxlan: Option<Vxlan>,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
}

/// The parts of a VXLAN device that cannot be changed after it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Underlay address of this node.
    pub local: Option<IpAddr>,
    /// Learns forwarding entries from packets.
    pub learning: bool,
}

impl Link {
    /// Reads the payload of an `RTM_NEWLINK` or `RTM_DELLINK`. None if cut off, or if the name is
    /// not one that we can work with.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let flags = u32_at(payload, 8)? as i32;
        let mut link = Self {
            index: u32_at(payload, 4)?,
            name: text(Attrs::after(payload, HEADER_LEN).get(libc::IFLA_IFNAME)?)?.parse().ok()?,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            mtu: 0,
            mac: None,
            alias: None,
            kind: None,
            vxlan: None,
            master: None,
        };
        for (kind, value) in Attrs::after(payload, HEADER_LEN) {
            match kind {
                libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
                libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
                libc::IFLA_IFALIAS => link.alias = text(value).map(str::to_owned),
                libc::IFLA_MASTER => link.master = u32_at(value, 0),
                libc::IFLA_LINKINFO => link.parse_info(value),
                _ => {}
            }
        }
        Some(link)
    }

    fn parse_info(&mut self, info: &[u8]) {
        self.kind = Attrs(info).get(libc::IFLA_INFO_KIND).and_then(text).map(str::to_owned);
        if self.kind.as_deref() == Some("vxlan") {
            self.vxlan = Attrs(info).get(libc::IFLA_INFO_DATA).and_then(Vxlan::parse);
        }
    }
}

impl Vxlan {
    fn parse(data: &[u8]) -> Option<Self> {
        let mut vxlan = Self { vni: 0, port: 0, local: None, learning: false };
        for (kind, value) in Attrs(data) {
            match kind {
                IFLA_VXLAN_ID => vxlan.vni = u32_at(value, 0)?,
                IFLA_VXLAN_PORT => vxlan.port = u16::from_be(u16_at(value, 0)?),
                IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => vxlan.local = ip(value),
                IFLA_VXLAN_LEARNING => vxlan.learning = value.first() == Some(&1),
                _ => {}
            }
        }
        Some(vxlan)
    }
}

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;

/// IPv4 settings of an interface, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Conf {
    /// `forwarding`.
    Forwarding = 1,
    /// `proxy_arp`.
    ProxyArp = 3,
    /// `rp_filter`.
    RpFilter = 8,
    /// `route_localnet`.
    RouteLocalnet = 26,
}

/// All interfaces of the namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>> {
    let request = Request::new("list links", libc::RTM_GETLINK, 0, &header(0, 0, 0));
    socket.dump(&request, |m| is_new(m).then(|| Link::parse(m.payload))?)
}

/// One interface by name.
pub fn get(socket: &mut Socket, name: &IfaceName) -> Result<Option<Link>> {
    let request = Request::new("get link", libc::RTM_GETLINK, 0, &header(0, 0, 0))
        .attr_str(libc::IFLA_IFNAME, name.as_str());
    match socket.get(&request, |m| is_new(m).then(|| Link::parse(m.payload))?) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// One interface by name, which must be there.
pub fn require(socket: &mut Socket, name: &IfaceName) -> Result<Link> {
    get(socket, name)?.ok_or_else(|| Error::NoLink(name.to_string()))
}

fn is_new(message: &Message<'_>) -> bool {
    message.kind == libc::RTM_NEWLINK
}

/// A pair of interfaces whose other end is made directly inside another namespace.
#[derive(Clone, Copy, Debug)]
pub struct VethPair<'a> {
    /// Name on this side.
    pub name: &'a IfaceName,
    /// Hardware address on this side.
    pub mac: Option<Mac>,
    /// Name on the other side.
    pub peer_name: &'a IfaceName,
    /// Hardware address on the other side; the kernel invents one if none is given.
    pub peer_mac: Option<Mac>,
    /// The other side's namespace.
    pub peer_netns: BorrowedFd<'a>,
    /// Of both ends, in bytes.
    pub mtu: u32,
}

/// Request: make the pair. Moving the peer afterwards would cost 16 ms of grace periods; this way
/// it costs 0.3 ms.
pub fn add_veth(pair: &VethPair<'_>) -> Request {
    let end = |r: Request, name: &IfaceName, mac: Option<Mac>| {
        // One queue, as pods have everywhere; the kernel's default is one for each processor.
        let r = r
            .attr_str(libc::IFLA_IFNAME, name.as_str())
            .attr_u32(libc::IFLA_MTU, pair.mtu)
            .attr_u32(libc::IFLA_NUM_TX_QUEUES, 1)
            .attr_u32(libc::IFLA_NUM_RX_QUEUES, 1);
        match mac {
            Some(mac) => r.mac(mac),
            None => r,
        }
    };
    let request = Request::new("add veth", libc::RTM_NEWLINK, CREATE, &header(0, 0, 0));
    end(request, pair.name, pair.mac).nest(libc::IFLA_LINKINFO, |r| {
        r.attr_str(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |r| {
            r.nest_after(VETH_INFO_PEER, &header(0, 0, 0), |r| {
                end(r, pair.peer_name, pair.peer_mac)
                    .attr_u32(libc::IFLA_NET_NS_FD, pair.peer_netns.as_raw_fd() as u32)
            })
        })
    })
}

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// Request: make a VXLAN device.
pub fn add_vxlan(name: &IfaceName, mac: Mac, mtu: u32, vxlan: &Vxlan) -> Request {
    Request::new("add vxlan", libc::RTM_NEWLINK, CREATE, &header(0, 0, 0))
        .attr_str(libc::IFLA_IFNAME, name.as_str())
        .attr_u32(libc::IFLA_MTU, mtu)
        .attr(libc::IFLA_ADDRESS, &mac)
        .nest(libc::IFLA_LINKINFO, |r| {
            r.attr_str(libc::IFLA_INFO_KIND, "vxlan").nest(libc::IFLA_INFO_DATA, |r| {
                let r = r
                    .attr_u32(IFLA_VXLAN_ID, vxlan.vni)
                    .attr_be16(IFLA_VXLAN_PORT, vxlan.port)
                    .attr_u8(IFLA_VXLAN_LEARNING, vxlan.learning.into());
                match vxlan.local {
                    Some(local @ IpAddr::V4(_)) => r.attr_ip(IFLA_VXLAN_LOCAL, local),
                    Some(local @ IpAddr::V6(_)) => r.attr_ip(IFLA_VXLAN_LOCAL6, local),
                    None => r,
                }
            })
        })
}

/// Request: change an interface; nothing yet. Chain the changes behind it.
pub fn change(index: u32) -> Request {
    Request::new("change link", libc::RTM_NEWLINK, 0, &header(index, 0, 0))
}

/// Request: change an interface known by name, as one that a request before it in the same batch
/// makes.
pub fn change_named(name: &IfaceName) -> Request {
    Request::new("change link", libc::RTM_NEWLINK, 0, &header(0, 0, 0)).rename(name)
}

/// Request: bring an interface up.
pub fn set_up(index: u32) -> Request {
    let up = libc::IFF_UP as u32;
    Request::new("set link up", libc::RTM_NEWLINK, 0, &header(index, up, up))
}

/// Request: take an interface down.
pub fn set_down(index: u32) -> Request {
    let up = libc::IFF_UP as u32;
    Request::new("set link down", libc::RTM_NEWLINK, 0, &header(index, 0, up))
}

/// Changes to chain behind [`change`], [`set_up`] or [`set_down`].
impl Request {
    /// A new name.
    pub fn rename(self, name: &IfaceName) -> Self {
        self.attr_str(libc::IFLA_IFNAME, name.as_str())
    }
    /// A new maximum transmission unit, in bytes.
    pub fn mtu(self, mtu: u32) -> Self {
        self.attr_u32(libc::IFLA_MTU, mtu)
    }
    /// A new hardware address.
    pub fn mac(self, mac: Mac) -> Self {
        self.attr(libc::IFLA_ADDRESS, &mac)
    }
    /// IPv4 settings of the interface, as `/proc/sys/net/ipv4/conf/<interface>` has them. A path in
    /// `/proc/sys` is looked up among those of all namespaces, which costs where there are many.
    pub fn ipv4_conf(self, settings: &[(Ipv4Conf, u32)]) -> Self {
        self.nest(libc::IFLA_AF_SPEC, |r| {
            r.nest(libc::AF_INET as u16, |r| {
                r.nest(IFLA_INET_CONF, |r| {
                    settings.iter().fold(r, |r, (key, value)| r.attr_u32(*key as u16, *value))
                })
            })
        })
    }
    /// A new text stored with the interface, up to 255 bytes.
    pub fn alias(self, alias: &str) -> Self {
        self.attr(libc::IFLA_IFALIAS, alias.as_bytes())
    }
}

/// Request: remove an interface (and the other end of a pair).
pub fn delete(index: u32) -> Request {
    Request::new("delete link", libc::RTM_DELLINK, 0, &header(index, 0, 0))
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}
