//! From what is wanted and what is there to the operations of one transaction, for one family.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use model::IpVersion;
use rules::object::{Fnv, Name, OnRefusal};
use rules::{Chain, Changes, SetChange, Table};

use crate::decode::Observed;
use crate::encode::{Header, RawElement, hook, raw_elements};

/// What this driver believes to be in the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) table: bool,
    /// With the fingerprint of the rules.
    pub(crate) chains: BTreeMap<String, u64>,
    /// With the sum of the elements: see [`crate::seal`].
    pub(crate) sets: BTreeMap<String, (Header, u64)>,
}

impl Known {
    /// As read, without knowing any rules or elements.
    pub(crate) fn of(observed: &Observed) -> Self {
        let set = |(name, header): (&String, &Header)| (name.clone(), (header.clone(), 0));
        Self {
            table: observed.table,
            chains: observed.chains.keys().map(|name| (name.clone(), 0)).collect(),
            sets: observed.sets.iter().map(set).collect(),
        }
    }
}

/// What the kernel refused, so that it is left out or closed when the transaction is built again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused {
    /// Chains that are in force as "drop everything".
    pub(crate) closed: BTreeMap<Name, String>,
    /// Optional rules that are left out: chain and index.
    pub(crate) omitted: BTreeMap<(Name, usize), String>,
    /// Sets that are left out.
    pub(crate) sets: BTreeMap<Name, String>,
}

impl Refused {
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.omitted.is_empty() && self.sets.is_empty()
    }
}

/// Elements to add to and remove from one set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ElementChange {
    pub(crate) add: Vec<RawElement>,
    pub(crate) del: Vec<RawElement>,
}

/// Elements as wholes, in order: an interval is its start and its end. The kernel takes and gives up
/// the two together only, one right after the other.
pub(crate) fn whole(elements: impl IntoIterator<Item = RawElement>) -> BTreeSet<Vec<RawElement>> {
    let mut sorted: Vec<RawElement> = elements.into_iter().collect();
    // Where one interval ends and the next one starts, the end comes first.
    sorted.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| b.end.cmp(&a.end)));
    let mut all: Vec<Vec<RawElement>> = Vec::with_capacity(sorted.len());
    for element in sorted {
        match all.last_mut() {
            Some(open) if element.end && open.len() == 1 && !open[0].end => open.push(element),
            _ => all.push(vec![element]),
        }
    }
    all.into_iter().collect()
}

/// One family's part of a transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The old table goes first: something in it cannot be changed in place.
    pub(crate) replace: bool,
    pub(crate) put_chains: BTreeSet<Name>,
    pub(crate) del_chains: BTreeSet<Name>,
    pub(crate) put_sets: BTreeSet<Name>,
    pub(crate) del_sets: BTreeSet<Name>,
    pub(crate) elements: BTreeMap<Name, ElementChange>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        !self.replace
            && self.put_chains.is_empty()
            && self.del_chains.is_empty()
            && self.put_sets.is_empty()
            && self.del_sets.is_empty()
            && self.elements.is_empty()
    }

    /// Everything, into a new table.
    pub(crate) fn fresh(table: &Table, replace: bool) -> Self {
        Self {
            replace,
            put_chains: table.chains().keys().cloned().collect(),
            put_sets: table.sets().keys().cloned().collect(),
            ..Self::default()
        }
    }

    /// What changed since the last time, all of which is known to be in the kernel.
    pub(crate) fn changes(table: &Table, known: &Known, changes: &Changes) -> Self {
        let mut plan = Self::default();
        for name in &changes.chains {
            if table.chains().contains_key(name) {
                plan.put_chains.insert(name.clone());
            } else if known.chains.contains_key(&**name) {
                plan.del_chains.insert(name.clone());
            }
        }
        for (name, change) in &changes.sets {
            match (table.sets().get(name), change) {
                (None, _) if known.sets.contains_key(&**name) => {
                    plan.del_sets.insert(name.clone());
                }
                (None, _) => {}
                (Some(set), SetChange::Elements(keys)) if known.sets.contains_key(&**name) => {
                    let change = plan.elements.entry(name.clone()).or_default();
                    for (key, before) in keys {
                        let now = set.elements.get(key);
                        if now == before.as_ref() {
                            continue;
                        }
                        if let Some(old) = before {
                            change.del.extend(raw_elements(key, old.as_ref()));
                        }
                        if let Some(new) = now {
                            change.add.extend(raw_elements(key, new.as_ref()));
                        }
                    }
                }
                (Some(_), _) => drop(plan.put_sets.insert(name.clone())),
            }
        }
        plan.elements.retain(|_, c| *c != ElementChange::default());
        plan
    }

    /// The difference between a table as read and as wanted. Elements of sets that exist are for
    /// the caller to compare. Leftovers go only with `sweep`.
    pub(crate) fn difference(
        table: &Table,
        (version, observed): (IpVersion, &Observed),
        refused: &Refused,
        sweep: bool,
    ) -> Self {
        if !observed.table {
            return Self::fresh(table, false);
        }
        let mut plan = Self::default();
        for (name, set) in table.sets() {
            match observed.sets.get(&**name) {
                None => drop(plan.put_sets.insert(name.clone())),
                Some(there) if *there == Header::of(&set.spec, version) => {}
                Some(_) => plan.replace = true,
            }
        }
        for (name, chain) in table.chains() {
            let effective = effective(name, chain, refused);
            match observed.chains.get(&**name) {
                None => drop(plan.put_chains.insert(name.clone())),
                Some(there) => {
                    let base = effective.base.map(hook);
                    let base = base.map(|(h, p, k)| (h, p, k.to_owned()));
                    plan.replace |= there.base != base;
                    let digests = effective.rules.iter().map(|r| Some(r.digest()));
                    if !there.rules.iter().copied().eq(digests) {
                        plan.put_chains.insert(name.clone());
                    }
                }
            }
        }
        if plan.replace {
            return Self::fresh(table, true);
        }
        if sweep {
            let chains = observed.chains.keys().filter(|n| !table.chains().contains_key(&***n));
            plan.del_chains = chains.map(|n| n.as_str().into()).collect();
            let sets = observed.sets.keys().filter(|n| !table.sets().contains_key(&***n));
            plan.del_sets = sets.map(|n| n.as_str().into()).collect();
        }
        plan
    }
}

/// The chain as it is sent: closed, or without the optional rules that the kernel refuses.
pub(crate) fn effective<'a>(name: &Name, chain: &'a Chain, refused: &Refused) -> Cow<'a, Chain> {
    if refused.is_empty() {
        return Cow::Borrowed(chain);
    }
    let broken = chain.sets().any(|s| refused.sets.contains_key(s));
    if refused.closed.contains_key(name) || (broken && chain.on_refusal == OnRefusal::Close) {
        return Cow::Owned(chain.closed());
    }
    let mut chain = chain.clone();
    let mut index = 0;
    chain.rules.retain(|_| {
        index += 1;
        !refused.omitted.contains_key(&(name.clone(), index - 1))
    });
    Cow::Owned(chain)
}

/// Equal for chains that need no writing.
pub(crate) fn fingerprint(chain: &Chain) -> u64 {
    let mut hasher = Fnv::default();
    chain.base.hash(&mut hasher);
    for rule in &chain.rules {
        rule.digest().hash(&mut hasher);
    }
    hasher.finish()
}
