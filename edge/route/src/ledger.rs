//! Wanted and observed entries, and the right to remove.

use std::collections::{BTreeMap, BTreeSet};

use model::{Delta, InSync, Op};

/// A [`Delta`] that remembers which entries were wanted during this run: those may be removed at
/// any time, leftovers of earlier runs only with the witness (law 3).
#[derive(Debug)]
pub struct Ledger<K, V> {
    delta: Delta<K, V>,
    released: BTreeSet<K>,
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self { delta: Delta::default(), released: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Ledger<K, V> {
    /// Says what `key` should be; memory only.
    pub fn want(&mut self, key: K, value: Option<V>) {
        match (&value, self.delta.desired(&key)) {
            (Some(_), _) => drop(self.released.remove(&key)),
            (None, Some(_)) => drop(self.released.insert(key.clone())),
            (None, None) => {}
        }
        self.delta.want(key, value);
    }

    /// Replaces the observed side by a full read-back.
    pub fn observed(&mut self, kernel: BTreeMap<K, V>) {
        self.released.retain(|key| kernel.contains_key(key));
        self.delta.observed(kernel);
    }

    /// Corrects the observed side at one key.
    pub fn observed_one(&mut self, key: K, value: Option<V>) {
        if self.delta.all_observed().get(&key) == value.as_ref() {
            return;
        }
        if value.is_none() {
            self.released.remove(&key);
        }
        self.delta.observed_one(key, value);
    }

    /// What to put, and what to remove, by key.
    pub fn plan(&mut self, in_sync: Option<&InSync>) -> Plan<K, V> {
        let mut plan = Plan { puts: Vec::new(), removals: Vec::new() };
        for op in self.delta.plan() {
            match op {
                Op::Put(key, value) => plan.puts.push((key, value)),
                Op::Del(key) => {
                    if in_sync.is_none() && !self.released.contains(&key) {
                        continue;
                    }
                    let old = self.delta.all_observed().get(&key).cloned();
                    plan.removals.extend(old.map(|old| (key, old)));
                }
            }
        }
        plan
    }

    /// The kernel has taken a put.
    pub fn did_put(&mut self, key: K, value: V) {
        self.delta.accepted(Op::Put(key, value));
    }

    /// The kernel has taken a removal.
    pub fn did_remove(&mut self, key: K) {
        self.released.remove(&key);
        self.delta.accepted(Op::Del(key));
    }

    /// What is wanted at `key`.
    pub fn wanted(&self, key: &K) -> Option<&V> {
        self.delta.desired(key)
    }

    /// What the kernel has at `key`.
    pub fn has(&self, key: &K) -> Option<&V> {
        self.delta.all_observed().get(key)
    }

    /// Number of entries that the kernel has.
    pub fn len(&self) -> usize {
        self.delta.all_observed().len()
    }

    /// Whether the kernel has none.
    pub fn is_empty(&self) -> bool {
        self.delta.all_observed().is_empty()
    }
}

/// What to do, puts before removals.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan<K, V> {
    /// Create or replace.
    pub puts: Vec<(K, V)>,
    /// Remove; with what is there.
    pub removals: Vec<(K, V)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leftovers_wait_for_the_witness_but_what_we_gave_up_goes_at_once() {
        let mut ledger = Ledger::default();
        ledger.observed([(1, 'a'), (2, 'b')].into());
        ledger.want(2, Some('b'));
        ledger.want(2, None);
        assert_eq!(ledger.plan(None).removals, [(2, 'b')]);
        assert_eq!(ledger.plan(Some(&InSync::for_tests())).removals, [(1, 'a'), (2, 'b')]);
    }

    #[test]
    fn a_removal_that_others_made_first_leaves_no_right_behind() {
        let mut ledger = Ledger::default();
        ledger.want(1, Some('a'));
        ledger.did_put(1, 'a');
        ledger.want(1, None);
        ledger.observed_one(1, None);
        ledger.observed_one(1, Some('z')); // somebody else's
        assert!(ledger.plan(None).removals.is_empty());
    }

    proptest! {
        /// Law 1: whatever others did in between, the kernel ends as wanted.
        #[test]
        fn converges(
            steps in prop::collection::vec((0u8..8, prop::option::of(0u8..3), any::<bool>()), 0..60),
        ) {
            let mut ledger = Ledger::default();
            let (mut kernel, mut wanted) = (BTreeMap::new(), BTreeMap::new());
            for (key, value, ours) in steps {
                let side = if ours { &mut wanted } else { &mut kernel };
                match value {
                    Some(v) => drop(side.insert(key, v)),
                    None => drop(side.remove(&key)),
                }
                if ours { ledger.want(key, value) } else { ledger.observed_one(key, value) }
            }
            let plan = ledger.plan(Some(&InSync::for_tests()));
            for (key, value) in plan.puts {
                kernel.insert(key, value);
                ledger.did_put(key, value);
            }
            for (key, _) in plan.removals {
                kernel.remove(&key);
                ledger.did_remove(key);
            }
            prop_assert_eq!(kernel, wanted);
            let again = ledger.plan(Some(&InSync::for_tests()));
            prop_assert!(again.puts.is_empty() && again.removals.is_empty());
        }
    }
}
