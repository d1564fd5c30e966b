//! Routes, tunnels and interfaces: what the managers ask of the drivers that talk to the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ids::IfaceName;

/// Prefix of the host side of every pod's interface.
pub const WORKLOAD_PREFIX: &str = "cali";

/// Where packets to a prefix go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// To the link of that interface: a local pod.
    Link(IfaceName),
    /// To a neighbour that the kernel finds by its other routes.
    Gateway(IpAddr),
    /// To a neighbour on the link of that interface, whatever the other routes say: a tunnel end.
    Onlink(IpAddr, IfaceName),
    /// Nowhere, silently.
    Blackhole,
}

impl NextHop {
    /// The interface that it needs, if it names one.
    pub fn iface(&self) -> Option<&IfaceName> {
        match self {
            Self::Link(iface) | Self::Onlink(_, iface) => Some(iface),
            Self::Gateway(_) | Self::Blackhole => None,
        }
    }
}

/// A VXLAN device of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub iface: IfaceName,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// In bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// This node's own (underlay) address.
    pub local: IpAddr,
    /// Address of the device.
    pub address: IpAddr,
}

/// The far end of a tunnel, as a neighbour of the tunnel's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelEnd {
    /// Hardware address of its device.
    pub mac: [u8; 6],
    /// Its (underlay) address.
    pub parent: IpAddr,
}

/// An interface of the node itself; those of pods are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInterface {
    /// Up and with a carrier.
    pub running: bool,
    /// In bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}
