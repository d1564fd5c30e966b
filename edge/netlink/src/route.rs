//! Routes.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::IpVersion;

use crate::codec::{Attrs, Request, family, family_of, ip, u8_at, u32_at};
use crate::{Error, Result, Socket};

const HEADER_LEN: usize = 12;
const RTNH_F_ONLINK: u32 = 4;
/// The table of ordinary routes.
pub const MAIN_TABLE: u32 = libc::RT_TABLE_MAIN as u32;

/// Who says that a route is there (`rtm_protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proto(pub u8);

impl Proto {
    /// Made by the kernel with an address.
    pub const KERNEL: Self = Self(libc::RTPROT_KERNEL);
    /// Set up at boot; also what `ip route add` writes.
    pub const BOOT: Self = Self(libc::RTPROT_BOOT);
    /// From a router advertisement.
    pub const RA: Self = Self(9);
    /// Calico's own.
    pub const CALICO: Self = Self(80);
}

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    /// To the link of that interface.
    Link(u32),
    /// To a neighbour.
    Gateway {
        /// Its address.
        via: IpAddr,
        /// Interface; `None` lets the kernel find it.
        index: Option<u32>,
        /// The neighbour is on that link, whatever the other routes say.
        onlink: bool,
    },
    /// Nowhere, silently.
    Blackhole,
    /// Something that we neither make nor read further: several next hops, unreachable, local.
    Other,
}

impl Hop {
    /// The interface, if there is one.
    pub fn index(&self) -> Option<u32> {
        match self {
            Self::Link(index) => Some(*index),
            Self::Gateway { index, .. } => *index,
            Self::Blackhole | Self::Other => None,
        }
    }
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Destination, masked.
    pub dst: IpNet,
    /// Table; ordinary routes are in [`MAIN_TABLE`].
    pub table: u32,
    /// Priority: the lower one wins.
    pub metric: u32,
    /// Who says so.
    pub proto: Proto,
    /// Next hop.
    pub hop: Hop,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

impl Route {
    /// Reads the payload of an `RTM_NEWROUTE` or `RTM_DELROUTE`. None if cut off, of another
    /// family, or a cached clone.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let version = match i32::from(u8_at(payload, 0)?) {
            libc::AF_INET => IpVersion::V4,
            libc::AF_INET6 => IpVersion::V6,
            _ => return None,
        };
        let flags = u32_at(payload, 8)?;
        if flags & libc::RTM_F_CLONED != 0 {
            return None;
        }
        let mut route = Self {
            dst: default_of(version),
            table: u8_at(payload, 4)?.into(),
            metric: 0,
            proto: Proto(u8_at(payload, 5)?),
            hop: Hop::Other,
            source: None,
        };
        let (mut via, mut index, mut single) = (None, None, true);
        for (kind, value) in Attrs::after(payload, HEADER_LEN) {
            match kind {
                libc::RTA_DST => route.dst = IpNet::new(ip(value)?, u8_at(payload, 1)?).ok()?,
                libc::RTA_TABLE => route.table = u32_at(value, 0)?,
                libc::RTA_PRIORITY => route.metric = u32_at(value, 0)?,
                libc::RTA_PREFSRC => route.source = ip(value),
                libc::RTA_GATEWAY => via = ip(value),
                libc::RTA_OIF => index = u32_at(value, 0),
                libc::RTA_MULTIPATH => single = false,
                _ => {}
            }
        }
        route.hop = match (u8_at(payload, 7)?, via, index) {
            (libc::RTN_BLACKHOLE, ..) => Hop::Blackhole,
            (libc::RTN_UNICAST, Some(via), index) if single => {
                Hop::Gateway { via, index, onlink: flags & RTNH_F_ONLINK != 0 }
            }
            (libc::RTN_UNICAST, None, Some(index)) if single => Hop::Link(index),
            _ => Hop::Other,
        };
        Some(route)
    }
}

fn default_of(version: IpVersion) -> IpNet {
    match version {
        IpVersion::V4 => Ipv4Net::default().into(),
        IpVersion::V6 => Ipv6Net::default().into(),
    }
}

/// All routes of a table and family.
pub fn list(socket: &mut Socket, version: IpVersion, table: u32) -> Result<Vec<Route>> {
    let mut header = [0; HEADER_LEN];
    header[0] = family_of(version);
    let request = Request::new("list routes", libc::RTM_GETROUTE, 0, &header)
        .attr_u32(libc::RTA_TABLE, table);
    let dumped = socket.dump(&request, |m| {
        let route = (m.kind == libc::RTM_NEWROUTE).then(|| Route::parse(m.payload)).flatten()?;
        (route.table == table).then_some(route)
    });
    match dumped {
        // A filter on a table that has never been used is an error to the kernel, not an empty one.
        Err(error) if error.is_missing() => Ok(Vec::new()),
        other => other,
    }
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leads {
    /// To a process of this host.
    Here,
    /// Out of the interface with that index.
    Out(u32),
    /// Nowhere.
    Nowhere,
}

/// Asks the kernel where a packet to an address would go.
pub fn leads(socket: &mut Socket, address: IpAddr) -> Result<Leads> {
    let mut header = [0; HEADER_LEN];
    header[0] = family(address);
    header[1] = if address.is_ipv4() { 32 } else { 128 };
    let request = Request::new("find a route", libc::RTM_GETROUTE, 0, &header)
        .attr_ip(libc::RTA_DST, address);
    let found = socket.get(&request, |m| {
        let out = Attrs::after(m.payload, HEADER_LEN).get(libc::RTA_OIF);
        let out = out.and_then(|value| u32_at(value, 0));
        Some(match (u8_at(m.payload, 7)?, out) {
            (libc::RTN_LOCAL, _) => Leads::Here,
            (libc::RTN_UNICAST, Some(index)) => Leads::Out(index),
            _ => Leads::Nowhere,
        })
    });
    match found {
        // That is how the kernel says that a route is missing, forbids or swallows.
        Err(Error::Refused { refusal, .. }) if refusal.is_no_route() => Ok(Leads::Nowhere),
        other => other,
    }
}

/// Request: put a route, in place of one with the same destination, table and metric.
pub fn put(route: &Route) -> Request {
    build("put route", libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, route)
}

/// Request: remove exactly this route.
pub fn delete(route: &Route) -> Request {
    build("delete route", libc::RTM_DELROUTE, 0, route)
}

fn build(what: &'static str, kind: u16, flags: i32, route: &Route) -> Request {
    let mut header = [0; HEADER_LEN];
    header[0] = family(route.dst.addr());
    header[1] = route.dst.prefix_len();
    header[4] = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    header[5] = route.proto.0;
    header[6] = match route.hop {
        Hop::Link(_) => libc::RT_SCOPE_LINK,
        Hop::Gateway { .. } | Hop::Blackhole => libc::RT_SCOPE_UNIVERSE,
        Hop::Other => libc::RT_SCOPE_NOWHERE,
    };
    header[7] = match route.hop {
        Hop::Blackhole => libc::RTN_BLACKHOLE,
        Hop::Other => libc::RTN_UNSPEC, // a removal that matches any type
        Hop::Link(_) | Hop::Gateway { .. } => libc::RTN_UNICAST,
    };
    if matches!(route.hop, Hop::Gateway { onlink: true, .. }) {
        header[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    }
    let mut request = Request::new(what, kind, flags, &header)
        .attr_ip(libc::RTA_DST, route.dst.network())
        .attr_u32(libc::RTA_TABLE, route.table);
    if route.metric != 0 {
        request = request.attr_u32(libc::RTA_PRIORITY, route.metric);
    }
    if let Some(source) = route.source {
        request = request.attr_ip(libc::RTA_PREFSRC, source);
    }
    if let Hop::Gateway { via, .. } = route.hop {
        request = request.attr_ip(libc::RTA_GATEWAY, via);
    }
    if let Some(index) = route.hop.index() {
        request = request.attr_u32(libc::RTA_OIF, index);
    }
    request
}
