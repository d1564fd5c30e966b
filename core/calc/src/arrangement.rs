//! Policies in tiers, as an endpoint has them.

use std::cmp::Ordering;

use model::output::{EndpointTier, PolicyList};
use model::policy::Stage;
use model::{PolicyId, TierName};

use crate::book::Book;
use crate::kept::KeptPolicy;

/// The kind of a local endpoint, as far as policies care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndpointKind {
    Workload,
    Host,
}

/// The tiers of endpoints that the same policies select. A workload has normal ones only.
#[derive(Clone, Default)]
pub(crate) struct Arrangement {
    pub(crate) normal: Vec<EndpointTier>,
    pub(crate) forward: Vec<EndpointTier>,
    pub(crate) pre_dnat: Vec<EndpointTier>,
    pub(crate) untracked: Vec<EndpointTier>,
}

impl Arrangement {
    /// Of policies that are in order.
    pub(crate) fn of(kind: EndpointKind, policies: &[&KeptPolicy], book: &Book) -> Self {
        let stage = |stage| tiers(policies, book, move |p| p.stage == stage);
        let normal = stage(Stage::Normal);
        match kind {
            EndpointKind::Workload => Self { normal, ..Self::default() },
            EndpointKind::Host => Self {
                normal,
                forward: tiers(policies, book, |p| p.stage == Stage::Normal && p.apply_on_forward),
                pre_dnat: stage(Stage::PreDnat),
                untracked: stage(Stage::Untracked),
            },
        }
    }

    /// A policy more, which must be in the book. Whether it acts anywhere here.
    pub(crate) fn insert(&mut self, kind: EndpointKind, policy: &KeptPolicy, book: &Book) -> bool {
        let mut changed = false;
        for tiers in self.lists(kind, policy) {
            changed |= insert(tiers, policy, book);
        }
        changed
    }

    /// A policy fewer, which must still be in the book. Whether it acted anywhere here.
    pub(crate) fn remove(&mut self, kind: EndpointKind, policy: &KeptPolicy, book: &Book) -> bool {
        let mut changed = false;
        for tiers in self.lists(kind, policy) {
            changed |= remove(tiers, policy, book);
        }
        changed
    }

    /// The lists that a policy belongs into.
    fn lists(
        &mut self,
        kind: EndpointKind,
        policy: &KeptPolicy,
    ) -> impl Iterator<Item = &mut Vec<EndpointTier>> {
        let (one, two) = match (policy.stage, kind) {
            _ if !acts(policy) => (None, None),
            (Stage::Normal, EndpointKind::Host) if policy.apply_on_forward => {
                (Some(&mut self.normal), Some(&mut self.forward))
            }
            (Stage::Normal, _) => (Some(&mut self.normal), None),
            // Workloads know no such policies.
            (Stage::PreDnat | Stage::Untracked, EndpointKind::Workload) => (None, None),
            (Stage::PreDnat, EndpointKind::Host) => (Some(&mut self.pre_dnat), None),
            (Stage::Untracked, EndpointKind::Host) => (Some(&mut self.untracked), None),
        };
        one.into_iter().chain(two)
    }
}

/// Staged policies do not act, and a tier without an acting policy does not end (2.1).
fn acts(policy: &KeptPolicy) -> bool {
    !policy.staged && (policy.applies_ingress || policy.applies_egress)
}

/// Arranges policies that are in order. Those of a tier that does not exist wait for it, as
/// upstream.
fn tiers(
    policies: &[&KeptPolicy],
    book: &Book,
    here: impl Fn(&KeptPolicy) -> bool,
) -> Vec<EndpointTier> {
    let acting: Vec<&KeptPolicy> =
        policies.iter().copied().filter(|p| acts(p) && here(p)).collect();
    let of_tier = |policies: &[&KeptPolicy]| {
        let (_, default_action) = book.tier(&policies[0].tier)?;
        let ids = |applies: fn(&KeptPolicy) -> bool| -> PolicyList {
            policies.iter().filter(|p| applies(p)).map(|p| p.id.clone()).collect()
        };
        Some(EndpointTier {
            name: policies[0].tier.clone(),
            default_action,
            ingress: ids(|p| p.applies_ingress),
            egress: ids(|p| p.applies_egress),
        })
    };
    acting.chunk_by(|a, b| a.tier == b.tier).filter_map(of_tier).collect()
}

fn insert(tiers: &mut Vec<EndpointTier>, policy: &KeptPolicy, book: &Book) -> bool {
    let Some((_, default_action)) = book.tier(&policy.tier) else { return false };
    let at = tier_place(tiers, &policy.tier, book);
    if tiers.get(at).is_none_or(|tier| tier.name != policy.tier) {
        let (ingress, egress) = (PolicyList::default(), PolicyList::default());
        let name = policy.tier.clone();
        tiers.insert(at, EndpointTier { name, default_action, ingress, egress });
    }
    for list in directions(&mut tiers[at], policy) {
        list.insert(policy_place(list, policy, book), policy.id.clone());
    }
    true
}

fn remove(tiers: &mut Vec<EndpointTier>, policy: &KeptPolicy, book: &Book) -> bool {
    let at = tier_place(tiers, &policy.tier, book);
    let Some(tier) = tiers.get_mut(at).filter(|tier| tier.name == policy.tier) else {
        return false;
    };
    for list in directions(tier, policy) {
        let place = policy_place(list, policy, book);
        debug_assert_eq!(list.get(place), Some(&policy.id), "lists are in the book's order");
        list.remove(place);
    }
    if tier.ingress.is_empty() && tier.egress.is_empty() {
        tiers.remove(at);
    }
    true
}

/// Where a tier is, or belongs.
fn tier_place(tiers: &[EndpointTier], name: &TierName, book: &Book) -> usize {
    tiers.partition_point(|tier| book.compare_tiers(&tier.name, name) == Ordering::Less)
}

/// Where in a tier's list a policy is, or belongs.
fn policy_place(list: &PolicyList, policy: &KeptPolicy, book: &Book) -> usize {
    let before = |other: &PolicyId| {
        book.policy(other).is_some_and(|other| book.compare(other, policy) == Ordering::Less)
    };
    list.partition_point(before)
}

fn directions<'a>(
    tier: &'a mut EndpointTier,
    policy: &KeptPolicy,
) -> impl Iterator<Item = &'a mut PolicyList> {
    let ingress = policy.applies_ingress.then_some(&mut tier.ingress);
    ingress.into_iter().chain(policy.applies_egress.then_some(&mut tier.egress))
}
