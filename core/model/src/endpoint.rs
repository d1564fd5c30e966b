//! Endpoints: the things that policy protects.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::Labels;
use crate::ids::{IfaceName, NodeName, ProfileName, WorkloadId};
use crate::policy::Protocol;

/// A port of an endpoint that rules can refer to by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: Arc<str>,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Port number, host order, 1 to 65535.
    pub port: u16,
}

/// A pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// Identity.
    pub id: WorkloadId,
    /// The node it runs on.
    pub node: NodeName,
    /// Host side of its interface pair.
    pub iface: IfaceName,
    /// Its addresses, of either family.
    pub addresses: Vec<IpAddr>,
    /// Its own labels, with the `projectcalico.org/...` ones.
    pub labels: Labels,
    /// Profiles, in order of evaluation; their labels are inherited.
    pub profiles: Vec<ProfileName>,
    /// Named ports.
    pub ports: Vec<NamedPort>,
    /// Source prefixes it may send from beyond its own addresses.
    pub allowed_sources: Vec<IpNet>,
}

/// A node's own interface (or all of them) as a policy target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Name of the resource.
    pub name: Arc<str>,
    /// The node.
    pub node: NodeName,
    /// Which interface.
    pub target: HostTarget,
    /// Addresses it is expected to have; they match selectors in rules.
    pub addresses: Vec<IpAddr>,
    /// Labels.
    pub labels: Labels,
    /// Profiles, in order.
    pub profiles: Vec<ProfileName>,
    /// Named ports.
    pub ports: Vec<NamedPort>,
}

/// How a host endpoint names its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostTarget {
    /// By name.
    Iface(IfaceName),
    /// Every interface that is no workload's (`*`).
    All,
    /// The interface that has one of the expected addresses.
    ByAddress,
}
