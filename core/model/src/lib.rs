//! The vocabulary of the agent: typed ids, the objects that flow through it, and the
//! desired-versus-observed diff that every driver uses.
//!
//! What goes in: nothing. What comes out: types.
//!
//! * [`update`]: what the syncer and the CNI server feed into the calculation, typed and parsed.
//! * [`policy`], [`endpoint`], [`network`]: the objects inside those updates.
//! * [`output`]: what the calculation says this node must program; [`policy_list`]: the policies of
//!   an endpoint.
//! * [`wiring`]: routes, tunnels and interfaces, as the managers want them and the drivers make them.
//! * [`hash`]: maps for keys of our own.
//! * [`delta`]: desired state against observed state; [`insync`]: the witness that the first
//!   snapshot is complete (law 3).
//!
//! Invariants: every value here is already valid (parsed at the edge); addresses and prefixes carry
//! either family, and no type is doubled for IPv6.
//!
//! Deliberately absent: wire formats (`api`), I/O, defaults, clocks.

pub mod delta;
pub mod endpoint;
pub mod hash;
pub mod ids;
pub mod insync;
pub mod network;
pub mod output;
pub mod policy;
pub mod policy_list;
pub mod update;
pub mod wiring;

pub use delta::{Delta, Op};
pub use endpoint::{HostEndpoint, NamedPort, WorkloadEndpoint};
pub use ids::{IfaceName, NodeName, ProfileName, TierName, WorkloadId};
pub use insync::InSync;
pub use policy::{Action, IpVersion, Policy, PolicyId, PolicyKind, Port, Protocol, Rule};
pub use update::Update;
pub use wiring::{HostInterface, NextHop, Tunnel, TunnelEnd};

/// Labels of an endpoint, set, namespace or node: sorted, shared.
pub type Labels =
    std::sync::Arc<std::collections::BTreeMap<std::sync::Arc<str>, std::sync::Arc<str>>>;
