//! The state of the cluster, as the specification sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::policy::{NetworkSet, NetworkSetId, Profile, ServiceId, Tier};
use model::update::{Backend, Update};
use model::{
    Action, HostEndpoint, IfaceName, NodeName, Policy, PolicyId, ProfileName, Protocol, TierName,
    WorkloadEndpoint, WorkloadId,
};

/// A port that host policy never closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Port, host order.
    pub port: u16,
    /// The far end must be in it; `None` for any.
    pub net: Option<IpNet>,
}

impl Failsafe {
    /// Whether a packet with this port and far end is meant.
    pub(crate) fn is(&self, protocol: Protocol, port: u16, far_end: IpAddr) -> bool {
        self.protocol == protocol
            && self.port == port
            && self.net.is_none_or(|n| n.contains(&far_end))
    }
}

/// How packets between pods of different nodes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// As they are, through the nodes' own interfaces.
    #[default]
    Routed,
    /// Inside a tunnel: the nodes' own interfaces see the outer packet only.
    Tunnelled,
}

/// A node: who it is and how it is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its own interfaces, with their addresses. Traffic to other machines uses the one whose
    /// address is first.
    pub interfaces: Vec<(IfaceName, Vec<IpAddr>)>,
}

/// Everything that decides about packets.
#[derive(Clone, Debug)]
pub struct View {
    /// Pods' interfaces.
    pub workloads: BTreeMap<WorkloadId, Arc<WorkloadEndpoint>>,
    /// Host endpoints, by name.
    pub hosts: BTreeMap<Arc<str>, Arc<HostEndpoint>>,
    /// Policies of all kinds.
    pub policies: BTreeMap<PolicyId, Arc<Policy>>,
    /// Tiers. Policies of a tier that is not here do not act.
    pub tiers: BTreeMap<TierName, Tier>,
    /// Profiles.
    pub profiles: BTreeMap<ProfileName, Arc<Profile>>,
    /// Network sets.
    pub network_sets: BTreeMap<NetworkSetId, Arc<NetworkSet>>,
    /// Backends of services, by slice.
    pub services: BTreeMap<ServiceId, BTreeMap<Arc<str>, Arc<Vec<Backend>>>>,
    /// Nodes.
    pub nodes: BTreeMap<NodeName, NodeView>,
    /// How pods' packets travel between nodes.
    pub overlay: Overlay,
    /// Ports of hosts that stay reachable.
    pub failsafe_inbound: Vec<Failsafe>,
    /// Ports that hosts can always reach.
    pub failsafe_outbound: Vec<Failsafe>,
    /// What happens to a pod's packet to its own host after the pod's egress policy: `Allow`
    /// (ACCEPT), `Deny` (DROP), or `Pass` (RETURN: the host's own policy decides).
    pub endpoint_to_host: Action,
}

impl Default for View {
    fn default() -> Self {
        Self {
            workloads: BTreeMap::new(),
            hosts: BTreeMap::new(),
            policies: BTreeMap::new(),
            tiers: BTreeMap::new(),
            profiles: BTreeMap::new(),
            network_sets: BTreeMap::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            overlay: Overlay::Routed,
            failsafe_inbound: Vec::new(),
            failsafe_outbound: Vec::new(),
            endpoint_to_host: Action::Deny,
        }
    }
}

/// Labels of an object, its own first, then those of its profiles in order.
pub(crate) struct Inherited<'a> {
    own: &'a BTreeMap<Arc<str>, Arc<str>>,
    profiles: Vec<&'a Profile>,
}

impl<'a> Inherited<'a> {
    /// The value of a label.
    pub(crate) fn look(&self, key: &str) -> Option<&'a str> {
        let inherited = || self.profiles.iter().find_map(|p| BTreeMap::get(&p.labels, key));
        BTreeMap::get(self.own, key).or_else(inherited).map(AsRef::as_ref)
    }
}

impl selector::Labels for Inherited<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.look(key)
    }
}

/// Puts in or takes out.
fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl View {
    /// Takes in one change. Nodes, pools and blocks are left to the caller: which interfaces a node
    /// has, and how packets travel between nodes, no single one of them says.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Workload(id, value) => set(&mut self.workloads, id, value),
            Update::Host(name, value) => set(&mut self.hosts, name, value),
            Update::Policy(id, value) => set(&mut self.policies, id, value),
            Update::Tier(name, value) => set(&mut self.tiers, name, value),
            Update::Profile(name, value) => set(&mut self.profiles, name, value),
            Update::NetworkSet(id, value) => set(&mut self.network_sets, id, value),
            Update::ServiceSlice(slice, service, value) => {
                set(self.services.entry(service).or_default(), slice, value);
            }
            Update::Node(..) | Update::Pool(..) | Update::Block(..) | Update::InSync => {}
        }
    }

    /// What would be if staged policies were in force: each takes the place of the policy of its name,
    /// if there is one.
    pub fn enforce_staged(&mut self) {
        let staged = |p: &Arc<Policy>| p.staged.then(|| p.clone());
        let staged: Vec<_> = self.policies.values().filter_map(staged).collect();
        for policy in staged {
            self.policies.remove(&policy.id);
            let mut enforced = Policy { staged: false, ..(*policy).clone() };
            enforced.id.kind = policy.id.kind.enforced();
            self.policies.insert(enforced.id.clone(), Arc::new(enforced));
        }
    }

    /// The labels that selectors see.
    pub(crate) fn labels<'a>(
        &'a self,
        own: &'a model::Labels,
        profiles: &[ProfileName],
    ) -> Inherited<'a> {
        let profiles = profiles.iter().filter_map(|p| self.profiles.get(p).map(AsRef::as_ref));
        Inherited { own, profiles: profiles.collect() }
    }

    /// The pod that has `address`.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<WorkloadEndpoint>> {
        self.workloads.values().find(|w| w.addresses.contains(&address))
    }

    /// The node that has `address` on one of its own interfaces.
    pub fn node_at(&self, address: IpAddr) -> Option<&NodeName> {
        let has = |n: &NodeView| n.interfaces.iter().any(|(_, a)| a.contains(&address));
        self.nodes.iter().find(|(_, n)| has(n)).map(|(name, _)| name)
    }
}
