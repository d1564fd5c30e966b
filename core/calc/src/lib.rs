//! The policy calculation: what this node must program, from the state of the whole cluster.
//!
//! Goes in: [`model::Update`]s, in any order, as often as wanted. Comes out of [`Calc::flush`]:
//! [`Output`]s, one at most for each key, in an order that a data plane can apply one by one.
//!
//! Invariants:
//! * Law 1: what downstream holds after a flush is a function of the objects alone, whichever way
//!   they came to be.
//! * Law 5: a policy comes after its sets, an endpoint after its policies and profiles, a route
//!   after its tunnel end; they go in reverse. A route whose node or tunnel end is unknown waits.
//! * Laws 7 and 8: work and memory follow the objects that changed, not the cluster, not the
//!   number of events.
//! * A policy is sent only if it selects an endpoint of this node (or asks to be everywhere).
//! * Fail closed: a profile that is listed but missing denies.
//!
//! Deliberately absent: the interfaces that host endpoints stand for (the data plane resolves
//! them, since only it sees interfaces), validation, clocks. Outputs may come before
//! [`Output::InSync`]; it is the consumer who must not sweep before it (law 3).
//!
//! Start reading at [`Calc`]; then `items` and `index` (who matches what), `sets`, `policies`,
//! `book` (their order), `classes` (endpoints with the same policies), `arrangement`, `endpoints`; `routes` and `nodes` stand by themselves.

mod arrangement;
mod bits;
mod book;
mod classes;
mod endpoints;
mod few;
mod groups;
mod index;
mod intern;
mod items;
mod kept;
mod nodes;
mod policies;
mod program;
mod routes;
mod scan;
mod sets;
mod slab;

use std::sync::Arc;

use model::network::Node;
use model::output::Output;
use model::policy::Profile;
use model::{NodeName, ProfileName, Update};

use endpoints::{Endpoint, Endpoints};
use items::{Item, ItemKey, Items};
use nodes::Nodes;
use policies::{Batch, Policies, Uses};
use routes::Routes;
use sets::Sets;

pub use nodes::derived_vtep_mac;

/// The calculation for one node.
pub struct Calc {
    node: NodeName,
    items: Items,
    sets: Sets,
    policies: Policies,
    endpoints: Endpoints,
    nodes: Nodes,
    routes: Routes,
    in_sync: Sync,
}

/// How far the in-sync marker has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Waiting,
    Due,
    Sent,
}

/// How much there is, for gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sets in use.
    pub sets: usize,
    /// Policies that downstream has.
    pub policies: usize,
    /// Endpoints of this node.
    pub endpoints: usize,
}

impl Calc {
    /// A calculation for `node` that knows of no objects.
    pub fn new(node: NodeName) -> Self {
        Self {
            items: Items::default(),
            sets: Sets::default(),
            policies: Policies::default(),
            endpoints: Endpoints::default(),
            nodes: Nodes::default(),
            routes: Routes::new(node.clone()),
            in_sync: Sync::Waiting,
            node,
        }
    }

    /// Takes one change in. Says nothing yet: see [`Calc::flush`].
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Workload(id, workload) => {
                let local = workload.clone().filter(|w| w.node == self.node);
                self.routes.set_workload(&id, local.as_deref());
                let item = workload.as_deref().map(|w| self.items.make(w.into()));
                self.set_item(ItemKey::Workload(id), item, local.map(Endpoint::Workload));
            }
            Update::Host(name, host) => {
                let local = host.clone().filter(|h| h.node == self.node);
                let item = host.as_deref().map(|h| self.items.make(h.into()));
                self.set_item(ItemKey::Host(name), item, local.map(Endpoint::Host));
            }
            Update::NetworkSet(id, set) => {
                let item = set.as_deref().map(|s| self.items.make(s.into()));
                self.set_item(ItemKey::NetworkSet(id), item, None);
            }
            Update::Policy(id, policy) => {
                self.policies.set_policy(&id, policy.as_deref(), &mut self.items, &mut self.sets);
            }
            Update::Tier(name, tier) => self.policies.set_tier(name, tier),
            Update::Profile(name, profile) => self.set_profile(&name, profile),
            Update::ServiceSlice(slice, service, backends) => {
                self.sets.set_slice(slice, &service, backends);
            }
            Update::Node(name, node) => self.set_node(name, node),
            Update::Pool(name, pool) => self.routes.set_pool(name, pool),
            Update::Block(cidr, block) => self.routes.set_block(cidr, block),
            Update::InSync => {
                if self.in_sync == Sync::Waiting {
                    self.in_sync = Sync::Due;
                }
            }
        }
    }

    /// Everything that changed for downstream since the last flush, in the order in which it may
    /// be applied.
    pub fn flush(&mut self) -> Vec<Output> {
        let mut rules = Batch::default();
        self.policies.flush((&mut self.items, &mut self.sets), &mut rules);
        let (mut out, mut sets_gone) = (Vec::new(), Vec::new());
        self.sets.flush(&mut self.items, &mut out, &mut sets_gone);
        let mut endpoints = Batch::default();
        self.endpoints.flush(&self.items, &mut self.policies, &mut endpoints);
        let nodes = self.nodes.flush(&self.node);
        let (routes, routes_gone) = self.routes.flush(&self.nodes);
        let profiles_before_policies = rules.gone;
        out.splice(0..0, nodes.hosts);
        for part in [rules.puts, endpoints.puts, nodes.vteps, routes] {
            out.extend(part);
        }
        for part in
            [routes_gone, nodes.vteps_gone, endpoints.gone, profiles_before_policies, sets_gone]
        {
            out.extend(part);
        }
        if self.in_sync == Sync::Due {
            self.in_sync = Sync::Sent;
            out.push(Output::InSync);
        }
        out
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            sets: self.sets.len(),
            policies: self.policies.emitted(),
            endpoints: self.endpoints.len(),
        }
    }

    /// An item is new, changed or gone (`None`); `local` if it is an endpoint of this node.
    fn set_item(&mut self, key: ItemKey, item: Option<Item>, local: Option<Endpoint>) {
        let old = self.items.id(&key);
        if let (Some(id), Some(new)) = (old, &item)
            && *self.items.item(id) == *new
            && self.endpoints.get(id) == local.as_ref()
        {
            if let Some(again) = item {
                self.items.drop_item(again);
            }
            return;
        }
        if let Some(id) = old
            && let Some(endpoint) = self.endpoints.remove(id, &mut self.policies)
        {
            self.policies.remove(id, &self.items);
            for profile in endpoint.profiles() {
                self.policies.use_profile(profile, Uses::OneLess);
            }
        }
        let id = match (old, item) {
            (None, None) => return,
            (None, Some(item)) => {
                let id = self.items.insert(&key, item);
                self.sets.insert(id, &self.items);
                id
            }
            (Some(id), Some(item)) => {
                let before = self.sets.replace(id, item, &mut self.items);
                self.items.drop_item(before);
                id
            }
            (Some(id), None) => {
                self.sets.remove(id, &self.items);
                if let Some(item) = self.items.remove(&key) {
                    self.items.drop_item(item);
                }
                return;
            }
        };
        if let Some(endpoint) = local {
            self.policies.insert(id, endpoint.kind(), &self.items);
            for profile in endpoint.profiles() {
                self.policies.use_profile(profile, Uses::OneMore);
            }
            self.endpoints.insert(key, id, endpoint);
        }
    }

    fn set_profile(&mut self, name: &ProfileName, profile: Option<Arc<Profile>>) {
        let id = self.items.profile_id(name);
        if self.items.has_profile_labels(id, profile.as_ref().map(|p| &p.labels)) {
            self.items.set_profile(id, profile);
        } else {
            let members = self.sets.heirs(id, &self.items);
            let local = self.policies.heirs(id, &self.items);
            self.items.set_profile(id, profile);
            self.sets.rematch(&members, &self.items);
            self.policies.rematch(&local, &self.items);
        }
        self.policies.profile_changed(name);
    }

    fn set_node(&mut self, name: NodeName, node: Option<Arc<Node>>) {
        let old = self.nodes.set(name.clone(), node.clone());
        self.routes.set_node(&name, old.as_deref(), node.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::policy::{EntityMatch, Policy, PolicyId, PolicyKind, Rule, Stage};
    use model::{Action, Labels, NamedPort, Port, Protocol, WorkloadEndpoint, WorkloadId};
    use selector::Selector;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Arc::new(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    fn objects() -> [Update; 3] {
        let id = WorkloadId { namespace: "ns".into(), name: "pod".into() };
        let workload = WorkloadEndpoint {
            id: id.clone(),
            node: "here".into(),
            iface: "cali1".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            labels: labels(&[("app", "web")]),
            profiles: vec!["kns.ns".into()],
            ports: vec![NamedPort { name: "http".into(), protocol: Protocol::TCP, port: 80 }],
            allowed_sources: Vec::new(),
        };
        let profile = Profile { labels: labels(&[("team", "blue")]), ..Profile::default() };
        let selector = Selector::parse("team in {'blue', 'red'} && app != 'db'").unwrap();
        let source = EntityMatch {
            selector: Some(selector.clone()),
            ports: vec![Port::Range(1, 2), Port::Named("http".into())],
            ..EntityMatch::default()
        };
        let policy = Policy {
            id: PolicyId {
                name: "p".into(),
                namespace: "".into(),
                kind: PolicyKind::GlobalNetworkPolicy,
            },
            tier: "default".into(),
            order: None,
            selector,
            applies_ingress: true,
            applies_egress: false,
            ingress: vec![Rule { source, ..Rule::any(Action::Allow) }],
            egress: Vec::new(),
            stage: Stage::Normal,
            apply_on_forward: false,
            staged: false,
            everywhere: false,
        };
        [
            Update::Workload(id, Some(Arc::new(workload))),
            Update::Profile("kns.ns".into(), Some(Arc::new(profile))),
            Update::Policy(policy.id.clone(), Some(Arc::new(policy))),
        ]
    }

    fn without(update: &Update) -> Update {
        match update {
            Update::Workload(id, _) => Update::Workload(id.clone(), None),
            Update::Profile(name, _) => Update::Profile(name.clone(), None),
            Update::Policy(id, _) => Update::Policy(id.clone(), None),
            other => panic!("{other:?} is not among the objects"),
        }
    }

    /// Law 7: objects that are gone leave no text, no profile and no set behind, whichever goes
    /// first.
    #[test]
    fn nothing_is_left_behind() {
        for first in 0..3 {
            let mut calc = Calc::new("here".into());
            for object in objects() {
                calc.update(object);
            }
            let outputs = calc.flush();
            assert_eq!(calc.counts(), Counts { sets: 2, policies: 1, endpoints: 1 });
            assert_eq!(outputs.len(), 2 + 1 + 1 + 1 + 1, "{outputs:?}");
            for n in 0..3 {
                calc.update(without(&objects()[(first + n) % 3]));
                calc.flush();
            }
            assert!(calc.items.is_empty() && calc.policies.is_empty(), "{first} first");
            assert_eq!(calc.counts(), Counts { sets: 0, policies: 0, endpoints: 0 });
        }
    }
}
