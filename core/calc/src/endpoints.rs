//! The endpoints of this node, and what downstream knows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::output::{LocalHost, LocalWorkload, Output};
use model::{HostEndpoint, ProfileName, WorkloadEndpoint};

use crate::arrangement::{Arrangement, EndpointKind};
use crate::classes::ClassId;
use crate::items::{ItemId, ItemKey, Items};
use crate::policies::{Batch, Policies};
use model::hash::FastMap;

/// An endpoint of this node.
#[derive(Clone, PartialEq)]
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

    /// This endpoint with everything that decides about its packets.
    fn with(&self, tiers: &Arrangement) -> Sent {
        match self {
            Self::Workload(endpoint) => Sent::Workload(Arc::new(LocalWorkload {
                endpoint: endpoint.clone(),
                tiers: tiers.normal.clone(),
            })),
            Self::Host(endpoint) => Sent::Host(Arc::new(LocalHost {
                endpoint: endpoint.clone(),
                normal: tiers.normal.clone(),
                forward: tiers.forward.clone(),
                pre_dnat: tiers.pre_dnat.clone(),
                untracked: tiers.untracked.clone(),
            })),
        }
    }
}

#[derive(Clone)]
enum Sent {
    Workload(Arc<LocalWorkload>),
    Host(Arc<LocalHost>),
}

impl Sent {
    /// Whether sending the endpoint would say the same again.
    fn says(&self, endpoint: &Endpoint, tiers: &Arrangement) -> bool {
        match (self, endpoint) {
            (Self::Workload(sent), Endpoint::Workload(endpoint)) => {
                sent.endpoint == *endpoint && sent.tiers == tiers.normal
            }
            (Self::Host(sent), Endpoint::Host(endpoint)) => {
                sent.endpoint == *endpoint
                    && (&sent.normal, &sent.forward) == (&tiers.normal, &tiers.forward)
                    && (&sent.pre_dnat, &sent.untracked) == (&tiers.pre_dnat, &tiers.untracked)
            }
            _ => false,
        }
    }

    fn output(&self) -> Output {
        match self {
            Self::Workload(sent) => Output::Workload(sent.clone()),
            Self::Host(sent) => Output::Host(sent.clone()),
        }
    }
}

/// What is known of an endpoint beside itself.
#[derive(Default)]
struct Known {
    sent: Option<Sent>,
    class: Option<ClassId>, // as of the last flush
}

struct Local {
    key: ItemKey,
    endpoint: Endpoint,
    known: Known,
}

#[derive(Default)]
pub(crate) struct Endpoints {
    local: FastMap<ItemId, Local>,
    dirty: BTreeSet<ItemId>,
    gone: BTreeMap<ItemKey, Known>, // since the last flush
}

impl Endpoints {
    pub(crate) fn get(&self, id: ItemId) -> Option<&Endpoint> {
        self.local.get(&id).map(|local| &local.endpoint)
    }

    pub(crate) fn insert(&mut self, key: ItemKey, id: ItemId, endpoint: Endpoint) {
        let known = self.gone.remove(&key).unwrap_or_default();
        self.dirty.insert(id);
        self.local.insert(id, Local { key, endpoint, known });
    }

    pub(crate) fn remove(&mut self, id: ItemId, policies: &mut Policies) -> Option<Endpoint> {
        let Local { key, endpoint, known } = self.local.remove(&id)?;
        if let Some(class) = known.class {
            policies.leave_class(id, class);
        }
        self.dirty.remove(&id);
        self.gone.insert(key, known);
        Some(endpoint)
    }

    pub(crate) fn flush(&mut self, items: &Items, policies: &mut Policies, out: &mut Batch) {
        let fresh = std::mem::take(&mut self.dirty);
        let place = |id| self.local.get(&id).map(|l: &Local| (l.endpoint.kind(), l.known.class));
        let found = policies.arrange(fresh, place, items);
        let mut changed: Vec<ItemId> = Vec::new();
        for (id, class) in found {
            let Some(local) = self.local.get_mut(&id) else { continue };
            local.known.class = Some(class);
            let tiers = policies.arrangement(class);
            if local.known.sent.as_ref().is_none_or(|sent| !sent.says(&local.endpoint, tiers)) {
                local.known.sent = Some(local.endpoint.with(tiers));
                changed.push(id);
            }
        }
        let mut changed: Vec<&Local> = changed.iter().filter_map(|id| self.local.get(id)).collect();
        changed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let sent = changed.iter().filter_map(|local| local.known.sent.as_ref());
        out.puts.extend(sent.map(Sent::output));
        let gone = std::mem::take(&mut self.gone).into_iter();
        out.gone
            .extend(gone.filter(|(_, known)| known.sent.is_some()).filter_map(|(k, _)| gone_of(k)));
    }

    pub(crate) fn len(&self) -> usize {
        self.local.len()
    }
}

fn gone_of(key: ItemKey) -> Option<Output> {
    match key {
        ItemKey::Workload(id) => Some(Output::WorkloadGone(id)),
        ItemKey::Host(name) => Some(Output::HostGone(name)),
        ItemKey::NetworkSet(_) => None, // is no endpoint
    }
}
