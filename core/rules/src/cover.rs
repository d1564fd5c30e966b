//! The largest members of a set of prefixes.
//!
//! An interval set of the kernel refuses elements that overlap. So only prefixes that lie in no
//! other member go there, and when one is removed, the members beneath take its place.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes of one family, and which of them are maximal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    members: BTreeSet<IpNet>,
    lengths: std::collections::BTreeMap<u8, u32>, // how many members of each prefix length
}

/// What changes among the maximal prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoverChange {
    /// Prefixes that became maximal.
    pub added: Vec<IpNet>,
    /// Prefixes that are no longer maximal, or gone.
    pub removed: Vec<IpNet>,
}

impl FromIterator<IpNet> for Cover {
    fn from_iter<T: IntoIterator<Item = IpNet>>(nets: T) -> Self {
        let members: BTreeSet<IpNet> = nets.into_iter().collect();
        let mut lengths = std::collections::BTreeMap::new();
        for net in &members {
            *lengths.entry(net.prefix_len()).or_default() += 1;
        }
        Self { members, lengths }
    }
}

impl Cover {
    /// Adds a masked prefix. Costs O(prefix lengths in use + members beneath it).
    pub fn insert(&mut self, net: IpNet) -> CoverChange {
        if !self.members.insert(net) {
            return CoverChange::default();
        }
        *self.lengths.entry(net.prefix_len()).or_default() += 1;
        if self.is_covered(&net) {
            return CoverChange::default();
        }
        CoverChange { added: vec![net], removed: self.maximal_beneath(&net) }
    }

    /// Removes a prefix.
    pub fn remove(&mut self, net: &IpNet) -> CoverChange {
        if !self.members.remove(net) {
            return CoverChange::default();
        }
        if let Some(count) = self.lengths.get_mut(&net.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&net.prefix_len());
            }
        }
        if self.is_covered(net) {
            return CoverChange::default();
        }
        CoverChange { added: self.maximal_beneath(net), removed: vec![*net] }
    }

    /// All members, maximal or not.
    pub fn members(&self) -> &BTreeSet<IpNet> {
        &self.members
    }

    /// Whether every member is a single address.
    pub fn only_addresses(&self) -> bool {
        let full = self.members.first().map_or(32, IpNet::max_prefix_len);
        self.lengths.keys().all(|l| *l == full)
    }

    /// The maximal members, in order.
    pub fn maximal(&self) -> Vec<IpNet> {
        let mut found: Vec<IpNet> = Vec::new();
        for net in &self.members {
            if !found.last().is_some_and(|last| last.contains(net)) {
                found.push(*net);
            }
        }
        found
    }

    fn is_covered(&self, net: &IpNet) -> bool {
        self.lengths.keys().take_while(|l| **l < net.prefix_len()).any(|l| {
            IpNet::new(net.addr(), *l).is_ok_and(|wider| self.members.contains(&wider.trunc()))
        })
    }

    /// Maximal members strictly inside `net`. Members sort by address, then by length, so a prefix
    /// comes right before everything inside it.
    fn maximal_beneath(&self, net: &IpNet) -> Vec<IpNet> {
        let single = |a: IpAddr| IpNet::from(a);
        let all = self.members.range(*net..=single(net.broadcast()));
        let mut found: Vec<IpNet> = Vec::new();
        for inner in all.filter(|n| *n != net) {
            if !found.last().is_some_and(|last| last.contains(inner)) {
                found.push(*inner);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that prefixes often lie in one another; the last lengths too.
        (any::<u8>(), 0u8..=8, any::<bool>()).prop_map(|(bits, len, low)| {
            let (addr, len) = if low {
                (u32::from(bits), if len == 0 { 0 } else { 24 + len })
            } else {
                (u32::from(bits) << 24, len)
            };
            IpNet::new(IpAddr::V4(addr.into()), len).unwrap().trunc()
        })
    }

    fn brute(members: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        let inside = |n: &IpNet| members.iter().any(|m| m != n && m.contains(n));
        members.iter().copied().filter(|n| !inside(n)).collect()
    }

    proptest! {
        /// Whatever the history, the changes add up to the members that lie in no other.
        #[test]
        fn the_changes_add_up(steps in prop::collection::vec((prefix(), any::<bool>()), 0..80)) {
            let (mut cover, mut members, mut kernel) =
                (Cover::default(), BTreeSet::new(), BTreeSet::new());
            for (net, add) in steps {
                let change = if add {
                    members.insert(net);
                    cover.insert(net)
                } else {
                    members.remove(&net);
                    cover.remove(&net)
                };
                for gone in &change.removed {
                    prop_assert!(kernel.remove(gone), "{gone} removed twice");
                }
                for new in &change.added {
                    prop_assert!(kernel.insert(*new), "{new} added twice");
                }
                prop_assert_eq!(&kernel, &brute(&members));
                prop_assert_eq!(cover.maximal(), kernel.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(&members.iter().copied().collect::<Cover>(), &cover);
            }
        }
    }

    #[test]
    fn removing_the_outer_prefix_uncovers_the_inner_ones() {
        let net = |s: &str| s.parse::<IpNet>().unwrap();
        let mut cover = Cover::default();
        for inner in ["10.1.0.0/16", "10.2.0.0/16", "10.2.3.0/24"] {
            cover.insert(net(inner));
        }
        let put = cover.insert(net("10.0.0.0/8"));
        assert_eq!(put.removed, [net("10.1.0.0/16"), net("10.2.0.0/16")]);
        let gone = cover.remove(&net("10.0.0.0/8"));
        assert_eq!(gone.added, [net("10.1.0.0/16"), net("10.2.0.0/16")]);
        assert_eq!(gone.removed, [net("10.0.0.0/8")]);
    }
}
