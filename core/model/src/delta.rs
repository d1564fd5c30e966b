//! Desired state against observed state, as a plan of operations, without I/O.

use std::collections::{BTreeMap, BTreeSet};

/// One operation that brings the kernel closer to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<K, V> {
    /// Create or replace.
    Put(K, V),
    /// Remove.
    Del(K),
}

/// Desired and observed state, and the keys at which they may differ.
///
/// Planning costs O(dirty log n), never O(n): law 8.
#[derive(Clone, Debug)]
pub struct Delta<K, V> {
    desired: BTreeMap<K, V>,
    kernel: BTreeMap<K, V>,
    dirty: BTreeSet<K>, // invariant: holds every key whose two sides differ, perhaps more
}

impl<K, V> Default for Delta<K, V> {
    fn default() -> Self {
        Self { desired: BTreeMap::new(), kernel: BTreeMap::new(), dirty: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Delta<K, V> {
    /// Says what `key` should be; `None` for absent. Memory only (law 2).
    pub fn want(&mut self, key: K, value: Option<V>) {
        self.dirty.insert(key.clone());
        match value {
            Some(v) => drop(self.desired.insert(key, v)),
            None => drop(self.desired.remove(&key)),
        }
    }

    /// Replaces the observed side by a full read-back: restart, resync and drift take this path.
    pub fn observed(&mut self, kernel: BTreeMap<K, V>) {
        self.kernel = kernel;
        self.dirty = self.desired.keys().chain(self.kernel.keys()).cloned().collect();
    }

    /// Corrects the observed side at one key, from a kernel notification.
    pub fn observed_one(&mut self, key: K, value: Option<V>) {
        self.dirty.insert(key.clone());
        match value {
            Some(v) => drop(self.kernel.insert(key, v)),
            None => drop(self.kernel.remove(&key)),
        }
    }

    /// Puts first, then removals, so that a replacement exists before the old entry goes.
    pub fn plan(&mut self) -> Vec<Op<K, V>> {
        self.dirty.retain(|k| self.desired.get(k) != self.kernel.get(k));
        let op = |k: &K| match self.desired.get(k) {
            Some(v) => Op::Put(k.clone(), v.clone()),
            None => Op::Del(k.clone()),
        };
        let (puts, dels): (Vec<_>, Vec<_>) =
            self.dirty.iter().map(op).partition(|o| matches!(o, Op::Put(..)));
        [puts, dels].concat()
    }

    /// Records that the kernel took `op`.
    pub fn accepted(&mut self, op: Op<K, V>) {
        match op {
            Op::Put(k, v) => drop(self.kernel.insert(k, v)),
            Op::Del(k) => drop(self.kernel.remove(&k)),
        }
    }

    /// What is wanted at `key`.
    pub fn desired(&self, key: &K) -> Option<&V> {
        self.desired.get(key)
    }

    /// Everything wanted, in key order.
    pub fn all_desired(&self) -> &BTreeMap<K, V> {
        &self.desired
    }

    /// Everything believed to be in the kernel, in key order.
    pub fn all_observed(&self) -> &BTreeMap<K, V> {
        &self.kernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Law 1: any history converges, and the second plan is empty.
        #[test]
        fn any_history_converges(
            start in prop::collection::btree_map(0u8..20, 0u8..4, 0..20),
            wants in prop::collection::vec((0u8..20, prop::option::of(0u8..4)), 0..60),
        ) {
            let mut delta = Delta::default();
            delta.observed(start.clone());
            let mut kernel = start;
            let mut model = BTreeMap::new();
            for (k, v) in wants {
                delta.want(k, v);
                match v { Some(v) => drop(model.insert(k, v)), None => drop(model.remove(&k)) }
                if k % 3 == 0 {
                    apply(&mut delta, &mut kernel);
                    prop_assert_eq!(&kernel, &model);
                }
            }
            apply(&mut delta, &mut kernel);
            prop_assert_eq!(&kernel, &model);
            prop_assert!(delta.plan().is_empty());
        }
    }

    fn apply(delta: &mut Delta<u8, u8>, kernel: &mut BTreeMap<u8, u8>) {
        for op in delta.plan() {
            match op.clone() {
                Op::Put(k, v) => drop(kernel.insert(k, v)),
                Op::Del(k) => drop(kernel.remove(&k)),
            }
            delta.accepted(op);
        }
    }
}
