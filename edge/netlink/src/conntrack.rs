//! Connection tracking entries of addresses that are gone.
//!
//! An address may soon belong to another pod; it must not inherit the connections that policy
//! admitted for the old one.

use std::net::IpAddr;

use crate::codec::{Request, family};
use crate::{Result, Socket};

const CTNETLINK_DELETE: u16 = (1 << 8) | 2; // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_F_IP_SRC: u32 = 1;

/// Deletes connection tracking entries, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack(Socket);

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
        let requests: Vec<_> = addresses
            .into_iter()
            .flat_map(|a| {
                [
                    delete(a, CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS),
                    delete(a, CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, CTA_FILTER_ORIG_FLAGS),
                ]
            })
            .collect();
        let answers = self.0.batch(&requests)?;
        for (request, answer) in requests.iter().zip(answers) {
            match answer {
                Err(refusal) if !refusal.is_missing() => {
                    return Err(crate::Error::Refused { what: request.what(), refusal });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Both directions' flags must be given, the unused one as 0.
fn delete(address: IpAddr, tuple: u16, used: u16, unused: u16) -> Request {
    let source = if address.is_ipv4() { CTA_IP_V4_SRC } else { CTA_IP_V6_SRC };
    Request::new("delete conntrack entries", CTNETLINK_DELETE, 0, &[family(address), 0, 0, 0])
        .nest(tuple, |r| r.nest(CTA_TUPLE_IP, |r| r.attr_ip(source, address)))
        .nest(CTA_FILTER, |r| r.attr_u32(used, CTA_FILTER_F_IP_SRC).attr_u32(unused, 0))
}
