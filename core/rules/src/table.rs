//! Wanted tables, and what changed in them since the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::IpVersion;

use crate::object::{Chain, Key, Name, Set, SetSpec, Verdict};

/// How a set differs from what it was when changes were last taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// It was made or removed.
    Whole,
    /// These keys changed; what each had before: `None` if it was not there.
    Elements(BTreeMap<Key, Option<Option<Verdict>>>),
}

/// What may differ since changes were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Chains that were put or removed.
    pub chains: BTreeSet<Name>,
    /// Sets that were put, removed or got other elements.
    pub sets: BTreeMap<Name, SetChange>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }
}

/// Everything that is wanted in one family's table `calico`.
#[derive(Clone, Debug, Default)]
pub struct Table {
    sets: BTreeMap<Name, Set>,
    chains: BTreeMap<Name, Arc<Chain>>,
    changes: Changes,
    /// Sets that were removed since changes were last taken, as they were then.
    gone: BTreeMap<Name, Set>,
}

impl Table {
    /// Wanted sets and maps.
    pub fn sets(&self) -> &BTreeMap<Name, Set> {
        &self.sets
    }

    /// Wanted chains.
    pub fn chains(&self) -> &BTreeMap<Name, Arc<Chain>> {
        &self.chains
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        self.gone.clear();
        std::mem::take(&mut self.changes)
    }

    /// Whether there is something for the kernel.
    pub fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Wants a chain.
    pub fn put_chain(&mut self, name: Name, chain: Chain) {
        if self.chains.get(&name).is_some_and(|old| **old == chain) {
            return;
        }
        self.changes.chains.insert(name.clone());
        self.chains.insert(name, Arc::new(chain));
    }

    /// Wants no such chain.
    pub fn remove_chain(&mut self, name: &Name) {
        if self.chains.remove(name).is_some() {
            self.changes.chains.insert(name.clone());
        }
    }

    /// Wants a set; keeps its elements if it exists with the same specification.
    pub fn put_set(&mut self, name: Name, spec: SetSpec) {
        if self.sets.get(&name).is_some_and(|old| old.spec == spec) {
            return;
        }
        // One that was the same when changes were last taken only lost its elements.
        let change = match self.gone.remove(&name) {
            Some(old) if old.spec == spec => {
                SetChange::Elements(old.elements.into_iter().map(|(k, v)| (k, Some(v))).collect())
            }
            _ => SetChange::Whole,
        };
        self.changes.sets.insert(name.clone(), change);
        self.sets.insert(name, Set { spec, elements: BTreeMap::new() });
    }

    /// Wants no such set.
    pub fn remove_set(&mut self, name: &Name) {
        let Some(mut set) = self.sets.remove(name) else { return };
        match self.changes.sets.insert(name.clone(), SetChange::Whole) {
            // It was not there when changes were last taken, or was another one.
            Some(SetChange::Whole) => return,
            Some(SetChange::Elements(keys)) => {
                for (key, before) in keys {
                    match before {
                        Some(verdict) => drop(set.elements.insert(key, verdict)),
                        None => drop(set.elements.remove(&key)),
                    }
                }
            }
            None => {}
        }
        self.gone.insert(name.clone(), set);
    }

    /// Wants `key` in the set `name`, which exists.
    pub fn put_element(&mut self, name: &Name, key: Key, verdict: Option<Verdict>) {
        let Some(set) = self.sets.get_mut(name) else { return };
        let before = set.elements.insert(key.clone(), verdict.clone());
        if before.as_ref() != Some(&verdict) {
            self.note(name, key, before);
        }
    }

    /// Wants these keys in the set `name`, which exists and is no map.
    pub fn put_elements(&mut self, name: &Name, keys: impl Iterator<Item = Key>) {
        let Some(set) = self.sets.get_mut(name) else { return };
        if self.changes.sets.get(name) == Some(&SetChange::Whole) {
            // It is told whole: nobody asks what changed in it.
            if set.elements.is_empty() {
                set.elements = keys.map(|key| (key, None)).collect();
            } else {
                set.elements.extend(keys.map(|key| (key, None)));
            }
            return;
        }
        for key in keys {
            self.put_element(name, key, None);
        }
    }

    /// Wants no such element.
    pub fn remove_element(&mut self, name: &Name, key: &Key) {
        let Some(set) = self.sets.get_mut(name) else { return };
        if let Some(before) = set.elements.remove(key) {
            self.note(name, key.clone(), Some(before));
        }
    }

    #[expect(clippy::option_option, reason = "outer: was it there; inner: only maps have verdicts")]
    fn note(&mut self, name: &Name, key: Key, before: Option<Option<Verdict>>) {
        let none = || SetChange::Elements(BTreeMap::new());
        if let SetChange::Elements(keys) =
            self.changes.sets.entry(name.clone()).or_insert_with(none)
        {
            // The first note has the value that the kernel has.
            keys.entry(key).or_insert(before);
        }
    }
}

/// Both families' tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    v4: Table,
    v6: Table,
}

impl Tables {
    /// The table of a family.
    pub fn of(&self, version: IpVersion) -> &Table {
        match version {
            IpVersion::V4 => &self.v4,
            IpVersion::V6 => &self.v6,
        }
    }

    /// The table of a family, to change it.
    pub fn of_mut(&mut self, version: IpVersion) -> &mut Table {
        match version {
            IpVersion::V4 => &mut self.v4,
            IpVersion::V6 => &mut self.v6,
        }
    }
}
