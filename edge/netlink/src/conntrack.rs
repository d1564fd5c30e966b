//! Connection tracking entries: forgetting those of addresses that are gone, reading them, marking
//! them.
//!
//! An address may soon belong to another pod; it must not inherit the connections that policy
//! admitted for the old one. And what policy admitted once it may deny now: the mark says so to rules
//! that every packet meets.

use std::net::IpAddr;

use model::IpVersion;

use crate::codec::{Attrs, Request, family, family_of, ip, u8_at, u16_at, u32_at};
use crate::{Error, Result, Socket};

const CTNETLINK: u16 = 1 << 8; // NFNL_SUBSYS_CTNETLINK
const CTNETLINK_NEW: u16 = CTNETLINK;
const CTNETLINK_GET: u16 = CTNETLINK | 1;
const CTNETLINK_DELETE: u16 = CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Identifier, type and code; those of ICMPv6 follow.
const CTA_PROTO_ICMP: [u16; 3] = [4, 5, 6];
const CTA_PROTO_ICMPV6: [u16; 3] = [7, 8, 9];
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS: [u16; 2] = [4, 5];
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_F_IP_SRC: u32 = 1;
const HEADER_LEN: usize = 4;
const IPS_EXPECTED: u32 = 1;
const TCP_CLOSE: u8 = 8;
/// `IP_CT_TCP_FLAG_CLOSE_INIT`: a new connection may take the place.
const TCP_CLOSE_BEGUN: u8 = 4;

/// Reads and changes connection tracking entries, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack(Socket);

/// What the first packet of a flow had, or the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// From that port; 0 where the protocol has none.
    pub source_port: u16,
    /// To that port; 0 where the protocol has none.
    pub destination_port: u16,
    /// Identifier, type and code, of ICMP.
    pub icmp: Option<(u16, u8, u8)>,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The first packet.
    pub original: Tuple,
    /// Its answer: its source is where the first packet was sent after translation.
    pub reply: Tuple,
    /// The mark.
    pub mark: u32,
    /// State of a TCP connection, as the kernel counts them: 3 established, 7 waiting to be over.
    pub tcp_state: Option<u8>,
    /// It belongs to another flow, which announced it.
    pub expected: bool,
    /// It is of a zone of its own, whose addresses may mean something else.
    pub zoned: bool,
}

/// An end of a flow, by which the kernel can find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Who sent the first packet.
    Begins(IpAddr),
    /// Who answers it, behind destination NAT too.
    Answers(IpAddr),
}

impl Entry {
    /// Reads the payload of a message about an entry. None if cut off or not understood.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (mut original, mut reply) = (None, None);
        let (mut mark, mut expected, mut zoned, mut tcp_state) = (0, false, false, None);
        for (kind, value) in Attrs::after(payload, HEADER_LEN) {
            match kind {
                CTA_TUPLE_ORIG => original = Tuple::parse(value),
                CTA_TUPLE_REPLY => reply = Tuple::parse(value),
                CTA_MARK => mark = u32::from_be(u32_at(value, 0)?),
                CTA_STATUS => expected = u32::from_be(u32_at(value, 0)?) & IPS_EXPECTED != 0,
                CTA_ZONE => zoned = true,
                CTA_PROTOINFO => {
                    let tcp = Attrs(value).get(CTA_PROTOINFO_TCP);
                    let state = tcp.and_then(|tcp| Attrs(tcp).get(CTA_PROTOINFO_TCP_STATE));
                    tcp_state = state.and_then(|state| u8_at(state, 0));
                }
                _ => {}
            }
        }
        Some(Self { original: original?, reply: reply?, mark, tcp_state, expected, zoned })
    }
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut source, mut destination) = (None, None);
        for (kind, value) in Attrs(Attrs(bytes).get(CTA_TUPLE_IP)?) {
            match kind {
                CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = ip(value),
                CTA_IP_V4_DST | CTA_IP_V6_DST => destination = ip(value),
                _ => {}
            }
        }
        let mut tuple = Self {
            source: source?,
            destination: destination?,
            protocol: 0,
            source_port: 0,
            destination_port: 0,
            icmp: None,
        };
        let mut icmp = (None, None, None);
        for (kind, value) in Attrs(Attrs(bytes).get(CTA_TUPLE_PROTO)?) {
            let number = || u16_at(value, 0).map(u16::from_be);
            match kind {
                CTA_PROTO_NUM => tuple.protocol = u8_at(value, 0)?,
                CTA_PROTO_SRC_PORT => tuple.source_port = number()?,
                CTA_PROTO_DST_PORT => tuple.destination_port = number()?,
                4 | 7 => icmp.0 = number(),
                5 | 8 => icmp.1 = u8_at(value, 0),
                6 | 9 => icmp.2 = u8_at(value, 0),
                _ => {}
            }
        }
        if let (Some(id), Some(kind), Some(code)) = icmp {
            tuple.icmp = Some((id, kind, code));
        }
        Some(tuple)
    }

    fn put(&self, request: Request) -> Request {
        let (from, to) = match self.source {
            IpAddr::V4(_) => (CTA_IP_V4_SRC, CTA_IP_V4_DST),
            IpAddr::V6(_) => (CTA_IP_V6_SRC, CTA_IP_V6_DST),
        };
        request
            .nest(CTA_TUPLE_IP, |r| r.attr_ip(from, self.source).attr_ip(to, self.destination))
            .nest(CTA_TUPLE_PROTO, |r| {
                let r = r.attr_u8(CTA_PROTO_NUM, self.protocol);
                let Some((id, kind, code)) = self.icmp else {
                    return r
                        .attr_be16(CTA_PROTO_SRC_PORT, self.source_port)
                        .attr_be16(CTA_PROTO_DST_PORT, self.destination_port);
                };
                let v4 = self.source.is_ipv4();
                let names = if v4 { CTA_PROTO_ICMP } else { CTA_PROTO_ICMPV6 };
                r.attr_be16(names[0], id).attr_u8(names[1], kind).attr_u8(names[2], code)
            })
    }
}

impl Conntrack {
    /// Opens the socket.
    pub fn open() -> Result<Self> {
        Socket::open_protocol(libc::NETLINK_NETFILTER).map(Self)
    }

    /// Forgets every connection that one of `addresses` opened or answers.
    ///
    /// Two searches per address find them all: as the sender of the first packet, and as the
    /// sender of replies (also behind destination NAT, where the first packet had another
    /// destination). The kernel filters (since Linux 5.8); older ones refuse.
    pub fn forget(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<()> {
        let delete = |end: End| end.filter("delete conntrack entries", CTNETLINK_DELETE);
        let ends = addresses.into_iter().flat_map(|a| [End::Begins(a), End::Answers(a)]);
        let requests: Vec<_> = ends.map(delete).collect();
        self.all_that_are_there(&requests).map(drop)
    }

    /// Hands every entry of a family to `each`: those of one end, or all. The kernel filters as for
    /// [`Self::forget`].
    pub fn list(
        &mut self,
        version: IpVersion,
        end: Option<End>,
        mut each: impl FnMut(Entry),
    ) -> Result<()> {
        let what = "list conntrack entries";
        let request = match end {
            Some(end) => end.filter(what, CTNETLINK_GET),
            None => Request::new(what, CTNETLINK_GET, 0, &[family_of(version), 0, 0, 0]),
        };
        self.0.dump(&request, |message| {
            if let Some(entry) = Entry::parse(message.payload) {
                each(entry);
            }
            None::<()>
        })?;
        Ok(())
    }

    /// Sets or clears bits of marks, and touches no other bit. How many entries were still there.
    pub fn mark(&mut self, entries: &[Entry], bits: u32, on: bool) -> Result<usize> {
        let value = if on { bits } else { 0 };
        let mark = |entry: &Entry| {
            update("mark a conntrack entry", entry)
                .attr(CTA_MARK, &value.to_be_bytes())
                .attr(CTA_MARK_MASK, &bits.to_be_bytes())
        };
        let requests: Vec<_> = entries.iter().map(mark).collect();
        self.all_that_are_there(&requests)
    }

    /// Says of TCP connections that they are over: an entry goes `seconds` after its last packet at
    /// the latest, and at once when a new connection has the same ports. How many were still there.
    pub fn close(&mut self, entries: &[Entry], seconds: u32) -> Result<usize> {
        let close = |entry: &Entry| {
            let flags = [TCP_CLOSE_BEGUN, TCP_CLOSE_BEGUN];
            update("close a conntrack entry", entry).attr(CTA_TIMEOUT, &seconds.to_be_bytes()).nest(
                CTA_PROTOINFO,
                |r| {
                    r.nest(CTA_PROTOINFO_TCP, |r| {
                        let r = r.attr_u8(CTA_PROTOINFO_TCP_STATE, TCP_CLOSE);
                        CTA_PROTOINFO_TCP_FLAGS.into_iter().fold(r, |r, dir| r.attr(dir, &flags))
                    })
                },
            )
        };
        let requests: Vec<_> = entries.iter().map(close).collect();
        self.all_that_are_there(&requests)
    }

    /// An entry that is gone is no failure. How many were not.
    fn all_that_are_there(&mut self, requests: &[Request]) -> Result<usize> {
        let mut there = 0;
        for (request, answer) in requests.iter().zip(self.0.batch(requests)?) {
            match answer {
                Ok(()) => there += 1,
                Err(refusal) if refusal.is_missing() => {}
                Err(refusal) => return Err(Error::Refused { what: request.what(), refusal }),
            }
        }
        Ok(there)
    }
}

fn update(what: &'static str, entry: &Entry) -> Request {
    let header = [family(entry.original.source), 0, 0, 0];
    let request = Request::new(what, CTNETLINK_NEW, 0, &header);
    request.nest(CTA_TUPLE_ORIG, |r| entry.original.put(r))
}

impl End {
    /// Its family.
    pub fn version(self) -> IpVersion {
        match self {
            Self::Begins(a) | Self::Answers(a) => IpVersion::of(a),
        }
    }

    /// Both directions' flags must be given, the unused one as 0.
    fn filter(self, what: &'static str, kind: u16) -> Request {
        let (address, tuple, used, unused) = match self {
            Self::Begins(a) => (a, CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS),
            Self::Answers(a) => (a, CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, CTA_FILTER_ORIG_FLAGS),
        };
        let source = if address.is_ipv4() { CTA_IP_V4_SRC } else { CTA_IP_V6_SRC };
        Request::new(what, kind, 0, &[family(address), 0, 0, 0])
            .nest(tuple, |r| r.nest(CTA_TUPLE_IP, |r| r.attr_ip(source, address)))
            .nest(CTA_FILTER, |r| r.attr_u32(used, CTA_FILTER_F_IP_SRC).attr_u32(unused, 0))
    }
}
