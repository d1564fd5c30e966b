//! The packet that is asked about.

use std::net::IpAddr;

use model::policy::Icmp;
use model::{IpVersion, Protocol};

/// The first packet of a flow, as routed: after destination NAT, before source NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Source port, host order; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port, host order; 0 where the protocol has none.
    pub destination_port: u16,
    /// Type and code of ICMP and ICMPv6 packets.
    pub icmp: Option<Icmp>,
    /// Destination address and port before destination NAT, if that changed them: what untracked
    /// and preDNAT policy sees.
    pub original: Option<(IpAddr, u16)>,
}

impl Packet {
    /// A packet of a protocol with ports, from an ephemeral source port.
    pub fn to_port(source: IpAddr, destination: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self {
            source,
            destination,
            protocol,
            source_port: 40_000,
            destination_port: port,
            icmp: None,
            original: None,
        }
    }

    /// An echo request of the family of the addresses.
    pub fn ping(source: IpAddr, destination: IpAddr) -> Self {
        let (protocol, kind) = match IpVersion::of(source) {
            IpVersion::V4 => (Protocol::ICMP, 8),
            IpVersion::V6 => (Protocol::ICMPV6, 128),
        };
        let icmp = Some(Icmp { kind, code: Some(0) });
        Self {
            source,
            destination,
            protocol,
            source_port: 0,
            destination_port: 0,
            icmp,
            original: None,
        }
    }

    /// The packet as it was before destination NAT.
    pub(crate) fn before_nat(&self) -> Self {
        let (destination, destination_port) =
            self.original.unwrap_or((self.destination, self.destination_port));
        Self { destination, destination_port, ..*self }
    }

    /// The family.
    pub fn version(&self) -> IpVersion {
        IpVersion::of(self.source)
    }
}
