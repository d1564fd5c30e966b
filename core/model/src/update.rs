//! What the calculation is fed: one typed change each. `None` means that the object is gone.
//!
//! Order matters only per key; any history of updates that ends in the same state gives the same
//! output (law 1).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::endpoint::{HostEndpoint, WorkloadEndpoint};
use crate::ids::{NodeName, ProfileName, TierName, WorkloadId};
use crate::network::{Block, Node, Pool};
use crate::policy::{
    NetworkSet, NetworkSetId, Policy, PolicyId, Profile, Protocol, ServiceId, Tier,
};

/// One change of the cluster's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A pod's interface, on any node.
    Workload(WorkloadId, Option<Arc<WorkloadEndpoint>>),
    /// A host endpoint, by resource name, on any node.
    Host(Arc<str>, Option<Arc<HostEndpoint>>),
    /// A policy of any kind.
    Policy(PolicyId, Option<Arc<Policy>>),
    /// A tier.
    Tier(TierName, Option<Tier>),
    /// A profile.
    Profile(ProfileName, Option<Arc<Profile>>),
    /// A network set.
    NetworkSet(NetworkSetId, Option<Arc<NetworkSet>>),
    /// One EndpointSlice: `(slice name, service)`, and its ready backends.
    ServiceSlice(Arc<str>, ServiceId, Option<Arc<Vec<Backend>>>),
    /// A node.
    Node(NodeName, Option<Arc<Node>>),
    /// An address pool, by resource name.
    Pool(Arc<str>, Option<Pool>),
    /// An address block.
    Block(IpNet, Option<Arc<Block>>),
    /// The first snapshot is complete.
    InSync,
}

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Address.
    pub address: IpAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Port, host order.
    pub port: u16,
}
