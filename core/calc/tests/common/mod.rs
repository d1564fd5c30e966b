//! A data plane that only keeps what it is told, and minds the order in which it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::network::Node;
use model::output::{
    CalcPolicy, CalcProfile, CalcRule, Encap, EndpointTier, LocalHost, LocalWorkload, Member,
    Output, Route, SetId, SetKind, Vtep,
};
use model::{IpVersion, NodeName, PolicyId, ProfileName, WorkloadId};

/// Everything downstream holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Downstream {
    pub(crate) sets: BTreeMap<SetId, (SetKind, BTreeSet<Member>)>,
    pub(crate) policies: BTreeMap<PolicyId, Arc<CalcPolicy>>,
    pub(crate) profiles: BTreeMap<ProfileName, Arc<CalcProfile>>,
    pub(crate) workloads: BTreeMap<WorkloadId, Arc<LocalWorkload>>,
    pub(crate) hosts: BTreeMap<Arc<str>, Arc<LocalHost>>,
    pub(crate) routes: BTreeMap<IpNet, Route>,
    pub(crate) vteps: BTreeMap<(NodeName, IpVersion), Vtep>,
    pub(crate) this: Option<Arc<Node>>,
    pub(crate) addresses: BTreeMap<NodeName, Vec<IpAddr>>,
    pub(crate) in_sync: bool,
}

impl Downstream {
    /// Takes a batch in, one output after the other.
    ///
    /// # Panics
    /// When an output refers to what is not there, removes what is in use, or says nothing new.
    pub(crate) fn apply(&mut self, batch: &[Output]) {
        for output in batch {
            self.apply_one(output);
        }
    }

    fn apply_one(&mut self, output: &Output) {
        match output {
            Output::Set(id, kind, members) => {
                let set: BTreeSet<Member> = members.iter().copied().collect();
                assert_eq!(set.len(), members.len(), "members of {id} repeat");
                self.sets.insert(id.clone(), (*kind, set));
            }
            Output::SetDelta { id, added, removed } => {
                let (_, set) = self.sets.get_mut(id).unwrap_or_else(|| panic!("no set {id}"));
                assert!(!added.is_empty() || !removed.is_empty(), "empty delta of {id}");
                for m in added {
                    assert!(set.insert(*m), "{m:?} is in {id} already");
                }
                for m in removed {
                    assert!(set.remove(m), "{m:?} is not in {id}");
                }
            }
            Output::SetGone(id) => {
                assert!(self.sets.remove(id).is_some(), "no set {id}");
                for rule in self.rules() {
                    assert!(!uses(rule).any(|s| s == id), "{id} is in use");
                }
            }
            Output::Policy(policy) => {
                for rule in policy.ingress.iter().chain(&policy.egress) {
                    self.check_rule(rule);
                }
                self.policies.insert(policy.id.clone(), policy.clone());
            }
            Output::PolicyGone(id) => {
                assert!(self.policies.remove(id).is_some(), "no policy {id}");
                assert!(!self.tiers().any(|t| policies(t).any(|p| p == id)), "{id} is in use");
            }
            Output::Profile(profile) => {
                for rule in profile.ingress.iter().chain(&profile.egress) {
                    self.check_rule(rule);
                }
                self.profiles.insert(profile.name.clone(), profile.clone());
            }
            Output::ProfileGone(name) => {
                assert!(self.profiles.remove(name).is_some(), "no profile {name}");
                assert!(!self.workloads.values().any(|w| w.endpoint.profiles.contains(name)));
                assert!(!self.hosts.values().any(|h| h.endpoint.profiles.contains(name)));
            }
            Output::Workload(w) => {
                self.check_endpoint(&w.endpoint.profiles, w.tiers.iter());
                self.workloads.insert(w.endpoint.id.clone(), w.clone());
            }
            Output::WorkloadGone(id) => assert!(self.workloads.remove(id).is_some(), "no {id}"),
            Output::Host(h) => {
                self.check_endpoint(&h.endpoint.profiles, host_tiers(h));
                self.hosts.insert(h.endpoint.name.clone(), h.clone());
            }
            Output::HostGone(name) => assert!(self.hosts.remove(name).is_some(), "no {name}"),
            Output::Route(route) => {
                if route.encap == Encap::Vxlan
                    && let Some(node) = &route.node
                {
                    let version = IpVersion::of_net(&route.dst);
                    assert!(self.vteps.contains_key(&(node.clone(), version)), "{route:?}");
                }
                let old = self.routes.insert(route.dst, route.clone());
                assert_ne!(old.as_ref(), Some(route), "nothing new");
            }
            Output::RouteGone(dst) => assert!(self.routes.remove(dst).is_some(), "no {dst}"),
            Output::Vtep(vtep) => {
                self.vteps.insert((vtep.node.clone(), vtep.version), vtep.clone());
            }
            Output::VtepGone(node, version) => {
                assert!(self.vteps.remove(&(node.clone(), *version)).is_some(), "no {node}");
                let through = |r: &Route| {
                    r.node.as_ref() == Some(node)
                        && r.encap == Encap::Vxlan
                        && IpVersion::of_net(&r.dst) == *version
                };
                assert!(!self.routes.values().any(through), "{node} is in use");
            }
            Output::ThisNode(node) => self.this = Some(node.clone()),
            Output::HostAddresses(node, addresses) => {
                if addresses.is_empty() {
                    assert!(self.addresses.remove(node).is_some(), "no {node}");
                } else {
                    self.addresses.insert(node.clone(), addresses.clone());
                }
            }
            Output::InSync => {
                assert!(!self.in_sync, "in sync twice");
                self.in_sync = true;
            }
        }
    }

    fn rules(&self) -> impl Iterator<Item = &CalcRule> {
        let policies = self.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress));
        policies.chain(self.profiles.values().flat_map(|p| p.ingress.iter().chain(&p.egress)))
    }

    fn tiers(&self) -> impl Iterator<Item = &EndpointTier> {
        let workloads = self.workloads.values().flat_map(|w| w.tiers.iter());
        workloads.chain(self.hosts.values().flat_map(|h| host_tiers(h)))
    }

    fn check_rule(&self, rule: &CalcRule) {
        for id in uses(rule) {
            assert!(self.sets.contains_key(id), "rule before its set {id}");
        }
    }

    fn check_endpoint<'a>(
        &self,
        profiles: &[ProfileName],
        tiers: impl Iterator<Item = &'a EndpointTier>,
    ) {
        for name in profiles {
            assert!(self.profiles.contains_key(name), "endpoint before its profile {name}");
        }
        for tier in tiers {
            assert!(policies(tier).next().is_some(), "tier without a policy");
            for id in policies(tier) {
                assert!(self.policies.contains_key(id), "endpoint before its policy {id}");
                assert!(!self.policies[id].staged, "staged policies do not act");
            }
        }
    }
}

fn host_tiers(h: &LocalHost) -> impl Iterator<Item = &EndpointTier> {
    [&h.normal, &h.forward, &h.pre_dnat, &h.untracked].into_iter().flatten()
}

fn policies(tier: &EndpointTier) -> impl Iterator<Item = &PolicyId> {
    tier.ingress.iter().chain(&tier.egress)
}

/// The sets that a rule uses.
pub(crate) fn uses(rule: &CalcRule) -> impl Iterator<Item = &SetId> {
    [&rule.source, &rule.destination].into_iter().flat_map(|m| {
        [&m.sets, &m.not_sets, &m.port_sets, &m.not_port_sets, &m.service_sets]
            .into_iter()
            .flatten()
    })
}
