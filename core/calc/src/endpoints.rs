//! The endpoints of this node, and what downstream knows of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::output::{EndpointTier, LocalHost, LocalWorkload, Output};
use model::policy::Stage;
use model::{HostEndpoint, ProfileName, WorkloadEndpoint};

use crate::index::SelectorId;
use crate::items::{ItemId, ItemKey, Items};
use crate::policies::{Batch, EndpointKind, Policies};

/// An endpoint of this node.
#[derive(Clone)]
pub(crate) enum Endpoint {
    Workload(Arc<WorkloadEndpoint>),
    Host(Arc<HostEndpoint>),
}

impl Endpoint {
    pub(crate) fn kind(&self) -> EndpointKind {
        match self {
            Self::Workload(_) => EndpointKind::Workload,
            Self::Host(_) => EndpointKind::Host,
        }
    }

    pub(crate) fn profiles(&self) -> &[ProfileName] {
        match self {
            Self::Workload(e) => &e.profiles,
            Self::Host(e) => &e.profiles,
        }
    }
}

#[derive(PartialEq)]
enum Sent {
    Workload(Arc<LocalWorkload>),
    Host(Arc<LocalHost>),
}

#[derive(Default)]
pub(crate) struct Endpoints {
    local: BTreeMap<ItemKey, (ItemId, Endpoint)>,
    keys: HashMap<ItemId, ItemKey>,
    sent: BTreeMap<ItemKey, Sent>,
    dirty: BTreeSet<ItemKey>,
}

impl Endpoints {
    pub(crate) fn insert(&mut self, key: ItemKey, id: ItemId, endpoint: Endpoint) {
        self.keys.insert(id, key.clone());
        self.dirty.insert(key.clone());
        self.local.insert(key, (id, endpoint));
    }

    pub(crate) fn remove(&mut self, key: &ItemKey) -> Option<Endpoint> {
        let (id, endpoint) = self.local.remove(key)?;
        self.keys.remove(&id);
        self.dirty.insert(key.clone());
        Some(endpoint)
    }

    pub(crate) fn flush(&mut self, items: &Items, policies: &mut Policies, out: &mut Batch) {
        let touched = policies.take_touched(self.keys.keys().copied());
        self.dirty.extend(touched.iter().filter_map(|id| self.keys.get(id).cloned()));
        // Many endpoints are selected alike: each arrangement is made once in a flush.
        let mut arranged: HashMap<(EndpointKind, Vec<SelectorId>), Arrangement> = HashMap::new();
        for key in std::mem::take(&mut self.dirty) {
            let Some((id, endpoint)) = self.local.get(&key) else {
                if self.sent.remove(&key).is_some() {
                    out.gone.extend(gone(key));
                }
                continue;
            };
            let selectors = policies.selectors_of(*id, items);
            let arrangement = match arranged.entry((endpoint.kind(), selectors)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let (kind, selectors) = new.key();
                    let arrangement = Arrangement::of(*kind, selectors, policies);
                    new.insert(arrangement)
                }
            };
            let now = arrangement.on(endpoint);
            if self.sent.get(&key) != Some(&now) {
                out.puts.push(match &now {
                    Sent::Workload(w) => Output::Workload(w.clone()),
                    Sent::Host(h) => Output::Host(h.clone()),
                });
                self.sent.insert(key, now);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.local.len()
    }
}

fn gone(key: ItemKey) -> Option<Output> {
    match key {
        ItemKey::Workload(id) => Some(Output::WorkloadGone(id)),
        ItemKey::Host(name) => Some(Output::HostGone(name)),
        ItemKey::NetworkSet(_) => None, // is no endpoint
    }
}

/// The tiers of endpoints that the same selectors match. A workload has normal ones only.
#[derive(Default)]
struct Arrangement {
    normal: Vec<EndpointTier>,
    forward: Vec<EndpointTier>,
    pre_dnat: Vec<EndpointTier>,
    untracked: Vec<EndpointTier>,
}

impl Arrangement {
    fn of(kind: EndpointKind, selectors: &[SelectorId], policies: &Policies) -> Self {
        let list = policies.behind(selectors);
        let stage = |stage| policies.tiers(&list, move |p| p.stage == stage);
        let normal = stage(Stage::Normal);
        match kind {
            EndpointKind::Workload => Self { normal, ..Self::default() },
            EndpointKind::Host => Self {
                normal,
                forward: policies.tiers(&list, |p| p.stage == Stage::Normal && p.apply_on_forward),
                pre_dnat: stage(Stage::PreDnat),
                untracked: stage(Stage::Untracked),
            },
        }
    }

    /// An endpoint with everything that decides about its packets.
    fn on(&self, endpoint: &Endpoint) -> Sent {
        match endpoint {
            Endpoint::Workload(endpoint) => Sent::Workload(Arc::new(LocalWorkload {
                endpoint: endpoint.clone(),
                tiers: self.normal.clone(),
            })),
            Endpoint::Host(endpoint) => Sent::Host(Arc::new(LocalHost {
                endpoint: endpoint.clone(),
                normal: self.normal.clone(),
                forward: self.forward.clone(),
                pre_dnat: self.pre_dnat.clone(),
                untracked: self.untracked.clone(),
            })),
        }
    }
}
