//! All policies and tiers, and the order in which policies act.

use std::cmp::Ordering;
use std::collections::HashMap;

use model::policy::Tier;
use model::{Action, PolicyId, TierName};

use crate::index::SelectorId;
use crate::kept::KeptPolicy;
use crate::sets::SetNumber;
use crate::slab::Slab;

/// Number of a policy.
pub(crate) type PolicyNumber = u32;

pub(crate) struct Entry {
    pub(crate) policy: KeptPolicy,
    pub(crate) selector: SelectorId,
    pub(crate) sets: Vec<SetNumber>, // one entry for each use
    pub(crate) emitted: bool,        // downstream has some version of it
    pub(crate) rules_changed: bool,  // and it is not this one
}

#[derive(Default)]
pub(crate) struct Book {
    entries: Slab<Entry>,
    by_id: HashMap<PolicyId, PolicyNumber>,
    tiers: HashMap<TierName, Tier>,
}

impl Book {
    pub(crate) fn number(&self, id: &PolicyId) -> Option<PolicyNumber> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn policy(&self, id: &PolicyId) -> Option<&KeptPolicy> {
        self.number(id).map(|number| &self[number].policy)
    }

    /// Takes a policy in that is not there.
    pub(crate) fn insert(&mut self, entry: Entry) -> PolicyNumber {
        let id = entry.policy.id.clone();
        let number = self.entries.insert(entry);
        self.by_id.insert(id, number);
        number
    }

    pub(crate) fn remove(&mut self, number: PolicyNumber) -> Option<Entry> {
        let entry = self.entries.remove(number)?;
        self.by_id.remove(&entry.policy.id);
        Some(entry)
    }

    /// A tier is new, changed or gone; whether that says anything new.
    pub(crate) fn set_tier(&mut self, name: TierName, tier: Option<Tier>) -> bool {
        let old = match tier {
            Some(tier) => self.tiers.insert(name.clone(), tier),
            None => self.tiers.remove(&name),
        };
        old.as_ref() != self.tiers.get(&name)
    }

    /// Order and default action of a tier. The built-in ones exist without their objects.
    pub(crate) fn tier(&self, name: &TierName) -> Option<(Option<f64>, Action)> {
        let tier = match self.tiers.get(name) {
            Some(tier) => (tier.order, tier.default_action),
            None => Tier::built_in(name.as_str()).map(|tier| (tier.order, tier.default_action))?,
        };
        Some(tier)
    }

    /// The order of tiers.
    pub(crate) fn compare_tiers(&self, a: &TierName, b: &TierName) -> Ordering {
        let order = |name| self.tier(name).and_then(|t| t.0);
        by_order(order(a), order(b)).then_with(|| a.cmp(b))
    }

    /// The order of evaluation: tier by order and name, then order, name, namespace, kind.
    pub(crate) fn compare(&self, a: &KeptPolicy, b: &KeptPolicy) -> Ordering {
        let tiers =
            if a.tier == b.tier { Ordering::Equal } else { self.compare_tiers(&a.tier, &b.tier) };
        tiers.then_with(|| by_order(a.order, b.order)).then_with(|| a.id.cmp(&b.id))
    }

    /// Where in a list in order a policy is, or belongs.
    pub(crate) fn place(&self, list: &[PolicyNumber], policy: &KeptPolicy) -> usize {
        list.partition_point(|n| self.compare(&self[*n].policy, policy) == Ordering::Less)
    }

    /// Puts policies in order. Parts that are in order already are found and merged.
    pub(crate) fn sort(&self, list: &mut [PolicyNumber]) {
        list.sort_by(|&a, &b| self.compare(&self[a].policy, &self[b].policy));
    }

    /// Number of policies that downstream has.
    pub(crate) fn emitted(&self) -> usize {
        self.by_id.values().filter(|n| self[**n].emitted).count()
    }
}

impl std::ops::Index<PolicyNumber> for Book {
    type Output = Entry;
    fn index(&self, number: PolicyNumber) -> &Entry {
        &self.entries[number]
    }
}

impl std::ops::IndexMut<PolicyNumber> for Book {
    fn index_mut(&mut self, number: PolicyNumber) -> &mut Entry {
        &mut self.entries[number]
    }
}

fn by_order(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.total_cmp(&b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}
