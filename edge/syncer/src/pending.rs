//! Updates that wait for the calculation, one per object.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use model::policy::{NetworkSetId, ServiceId};
use model::{NodeName, PolicyId, ProfileName, TierName, Update, WorkloadId};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Workload(WorkloadId),
    Host(Arc<str>),
    Policy(PolicyId),
    Tier(TierName),
    Profile(ProfileName),
    NetworkSet(NetworkSetId),
    ServiceSlice(Arc<str>, ServiceId),
    Node(NodeName),
    Pool(Arc<str>),
    Block(IpNet),
}

/// Coalesces by object: a later update replaces an earlier one that nobody has taken yet. Memory is
/// bounded by the number of objects, however fast they change.
#[derive(Debug, Default)]
pub struct Pending {
    updates: HashMap<Key, Update>,
    in_sync: bool,
}

impl Pending {
    /// Adds an update.
    pub fn push(&mut self, update: Update) {
        match key(&update) {
            Some(key) => drop(self.updates.insert(key, update)),
            None => self.in_sync = true,
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty() && !self.in_sync
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.updates.len() + usize::from(self.in_sync)
    }

    /// Takes all; the in-sync marker comes last.
    pub fn take(&mut self) -> Vec<Update> {
        let marker = std::mem::take(&mut self.in_sync).then_some(Update::InSync);
        // Not drain: a table that was big once should not stay so.
        std::mem::take(&mut self.updates).into_values().chain(marker).collect()
    }
}

fn key(update: &Update) -> Option<Key> {
    Some(match update {
        Update::Workload(id, _) => Key::Workload(id.clone()),
        Update::Host(name, _) => Key::Host(name.clone()),
        Update::Policy(id, _) => Key::Policy(id.clone()),
        Update::Tier(name, _) => Key::Tier(name.clone()),
        Update::Profile(name, _) => Key::Profile(name.clone()),
        Update::NetworkSet(id, _) => Key::NetworkSet(id.clone()),
        Update::ServiceSlice(name, service, _) => Key::ServiceSlice(name.clone(), service.clone()),
        Update::Node(name, _) => Key::Node(name.clone()),
        Update::Pool(name, _) => Key::Pool(name.clone()),
        Update::Block(cidr, _) => Key::Block(*cidr),
        Update::InSync => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let mut pending = Pending::default();
        let node = |some: bool| Update::Node("a".into(), some.then(Arc::default));
        for i in 0..1000 {
            pending.push(node(i % 2 == 0));
            pending.push(Update::Pool("p".into(), None));
        }
        pending.push(Update::InSync);
        pending.push(Update::Tier("t".into(), None));
        assert_eq!(pending.len(), 4);
        let all = pending.take();
        assert_eq!(all.last(), Some(&Update::InSync));
        assert!(all.contains(&node(false)) && pending.is_empty());
    }
}
