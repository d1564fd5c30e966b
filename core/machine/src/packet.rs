//! A packet that is asked about, and its way through the host.

use std::net::IpAddr;

use crate::table::Hook;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDPLITE: u8 = 136;
const SCTP: u8 = 132;
const DCCP: u8 = 33;
const SYN: u8 = 2;

/// The first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port, where the protocol has ports.
    pub source_port: u16,
    /// Destination port, where the protocol has ports.
    pub destination_port: u16,
    /// Type and code of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
    /// Destination and port before they were translated, if they were.
    pub original: Option<(IpAddr, u16)>,
}

impl Packet {
    /// As it was before its destination was translated.
    pub(crate) fn before_translation(&self) -> Self {
        let (destination, destination_port) =
            self.original.unwrap_or((self.destination, self.destination_port));
        Self { destination, destination_port, original: None, ..*self }
    }

    /// The network header; nothing for bytes that the question leaves open.
    pub(crate) fn network(&self) -> Vec<Option<u8>> {
        let mut bytes;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes = vec![None; 20];
                bytes[0] = Some(0x45);
                bytes[7] = Some(0); // no fragment
                bytes[9] = Some(self.protocol);
                put(&mut bytes, 12, &source.octets());
                put(&mut bytes, 16, &destination.octets());
            }
            (source, destination) => {
                bytes = vec![None; 40];
                bytes[6] = Some(self.protocol);
                put(&mut bytes, 8, &sixteen(source));
                put(&mut bytes, 24, &sixteen(destination));
            }
        }
        bytes
    }

    /// The transport header; nothing for bytes that the question leaves open.
    pub(crate) fn transport(&self) -> Vec<Option<u8>> {
        let mut bytes = vec![None; 20];
        match self.protocol {
            TCP | UDP | UDPLITE | SCTP | DCCP => {
                put(&mut bytes, 0, &self.source_port.to_be_bytes());
                put(&mut bytes, 2, &self.destination_port.to_be_bytes());
                if self.protocol == TCP {
                    bytes[13] = Some(SYN);
                }
            }
            ICMP | ICMPV6 => {
                if let Some((kind, code)) = self.icmp {
                    put(&mut bytes, 0, &[kind, code]);
                }
            }
            _ => {}
        }
        bytes
    }

    /// What connection tracking makes of it.
    pub(crate) fn tracking(&self) -> Tracking {
        let Some((kind, _)) = self.icmp else { return Tracking::New };
        match (self.protocol, kind) {
            // Questions have flows.
            (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128 | 139) => Tracking::New,
            // Neighbour discovery and group membership have none.
            (ICMPV6, 130..=136 | 143) => Tracking::Untracked,
            // Answers to nothing and errors about nothing are not valid.
            (ICMP | ICMPV6, _) => Tracking::Invalid,
            _ => Tracking::New,
        }
    }
}

fn put(bytes: &mut [Option<u8>], at: usize, value: &[u8]) {
    for (byte, value) in bytes[at..].iter_mut().zip(value) {
        *byte = Some(*value);
    }
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// What connection tracking knows about a first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    New,
    Untracked,
    Invalid,
}

impl Tracking {
    /// The bit of the state, as `ct state` has it.
    pub(crate) fn bit(self) -> u32 {
        match self {
            Self::Invalid => 1,
            Self::New => 8,
            Self::Untracked => 64,
        }
    }
}

/// How a packet passes through the host, and what routing knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The interface it comes in by; nothing for a packet that starts here.
    pub input: Option<String>,
    /// The interface it leaves by; nothing for a packet that ends here.
    pub output: Option<String>,
    /// The interface that a packet of the host itself was routed to before its destination was
    /// translated; nothing if that is `output`, too.
    pub towards: Option<String>,
    /// The host's own addresses, each with its interface.
    pub local: Vec<(String, IpAddr)>,
}

impl Way {
    /// The hooks it passes, each with the interfaces that are known there.
    pub(crate) fn hooks(&self) -> Vec<(Hook, &str, &str)> {
        let towards = |output| self.towards.as_deref().unwrap_or(output);
        match (self.input.as_deref(), self.output.as_deref()) {
            (Some(i), Some(o)) => {
                let middle = [(Hook::Forward, i, o), (Hook::Postrouting, i, o)];
                [&[(Hook::Prerouting, i, "")][..], &middle].concat()
            }
            (Some(i), None) => vec![(Hook::Prerouting, i, ""), (Hook::Input, i, "")],
            (None, Some(o)) => vec![(Hook::Output, "", towards(o)), (Hook::Postrouting, "", o)],
            (None, None) => vec![
                (Hook::Output, "", towards("lo")),
                (Hook::Postrouting, "", "lo"),
                (Hook::Prerouting, "lo", ""),
                (Hook::Input, "lo", ""),
            ],
        }
    }
}
