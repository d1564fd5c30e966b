//! The drivers as the apply loop sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::output::Output;
use model::{HostInterface, IfaceName, InSync, IpVersion, NextHop, Tunnel, TunnelEnd};

/// A driver could not do its work now; it has kept what is left to do and wants to be called again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DriverError(pub String);

/// An object that the kernel refuses. Policy objects are in force in their fail-closed form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Refused {
    /// The object, for example `GlobalNetworkPolicy default-deny` or `route 10.65.1.0/26`.
    pub object: String,
    /// Why.
    pub error: String,
}

/// What an apply achieved: all that was wanted is in the kernel, but for what is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Something in the kernel was changed.
    pub changed: bool,
    /// Everything that is refused now, not only what this apply tried.
    pub refused: Vec<Refused>,
}

/// Sets and rules.
pub trait Policies {
    /// Takes in what is wanted; memory only.
    ///
    /// Host endpoints arrive with a target of `Iface` or `All`: those found by address have been
    /// resolved, one object for each interface.
    fn feed(&mut self, outputs: &[Output]);

    /// Makes the kernel so; removes what an earlier run left only with the witness (law 3).
    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError>;
}

/// Routes, tunnels, neighbours, and the host's interfaces.
pub trait Network {
    /// Takes in the kernel's notifications; never waits. True if the host's own interfaces or
    /// their addresses have changed.
    fn poll(&mut self) -> Result<bool, DriverError>;

    /// The host's own interfaces: not those of pods.
    fn host_interfaces(&self) -> &BTreeMap<IfaceName, HostInterface>;

    /// Says where packets to `dst` should go; memory only.
    fn want_route(&mut self, dst: IpNet, hop: Option<NextHop>);

    /// Says what the tunnel device of that family should be; memory only.
    fn want_tunnel(&mut self, version: IpVersion, tunnel: Option<Tunnel>);

    /// Says who is behind `address` of a tunnel device; memory only.
    fn want_tunnel_end(&mut self, address: IpAddr, end: Option<TunnelEnd>);

    /// Whether the kernel has the wanted route to `dst`.
    fn has_route(&self, dst: &IpNet) -> bool;

    /// Makes the kernel so; removes what an earlier run left only with the witness (law 3).
    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError>;
}

/// Established connections.
pub trait Connections {
    /// Forgets every connection of these addresses, which belong to nobody any more.
    fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), DriverError>;
}
