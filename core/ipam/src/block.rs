//! One block: allocate from the front of the free list, release to its back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::objects::{Attribute, Block, address_at, index_of};

/// A block that cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block does not hold the address.
    #[error("{0} is not in block {1}")]
    Outside(IpAddr, IpNet),
    /// Somebody has it.
    #[error("{0} is assigned already")]
    Taken(IpAddr),
    /// The lists inside contradict each other: written by something broken.
    #[error("block {0} is damaged: {1}")]
    Damaged(IpNet, &'static str),
    /// The caller's knowledge is older than the allocation.
    #[error("{0} was given to another owner meanwhile")]
    Stale(IpAddr),
}

/// What a release freed, per handle.
pub type Freed = BTreeMap<String, u64>;

impl Block {
    /// A new block of a node. Its sequence numbers start from the time, so that a block that is
    /// deleted and made again never repeats one.
    pub fn new(cidr: IpNet, node: Option<&str>, now: Timestamp) -> Self {
        let size = 1_usize << (cidr.max_prefix_len() - cidr.prefix_len());
        let seconds = Timestamp::from_second(now.as_second()).ok();
        Self {
            cidr: cidr.trunc(),
            affinity: node.map(|n| format!("host:{n}")),
            affinity_claim_time: node.and(seconds),
            allocations: vec![None; size],
            unallocated: (0..size).collect(),
            attributes: Vec::new(),
            sequence_number: u64::try_from(now.as_nanosecond()).unwrap_or(0),
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            strict_affinity: false,
        }
    }

    /// The lists agree with each other and with the size of the block.
    ///
    /// # Errors
    /// [`BlockError::Damaged`] if they do not; nothing must be allocated from it then.
    pub fn check(&self) -> Result<(), BlockError> {
        let damaged = |why| Err(BlockError::Damaged(self.cidr, why));
        let bits = self.cidr.max_prefix_len() - self.cidr.prefix_len();
        if bits > 16 || self.allocations.len() != 1 << bits {
            return damaged("the allocation list has another length than the block");
        }
        if self.allocations.iter().flatten().any(|i| *i >= self.attributes.len()) {
            return damaged("an allocation has no attributes");
        }
        let free: BTreeSet<_> = self.unallocated.iter().collect();
        let is_free = |i: &usize| matches!(self.allocations.get(*i), Some(None));
        if free.len() != self.unallocated.len() || !self.unallocated.iter().all(is_free) {
            return damaged("the free list names an address twice or one that is taken");
        }
        Ok(())
    }

    /// Whether the affinity is this node's.
    pub fn is_of(&self, node: &str) -> bool {
        self.affinity.as_deref().and_then(|a| a.strip_prefix("host:")) == Some(node)
    }

    /// Nothing of it is allocated.
    pub fn is_empty(&self) -> bool {
        self.allocations.iter().all(Option::is_none)
    }

    /// How many addresses can still be given out.
    pub fn free(&self, reserved: &[IpNet]) -> usize {
        self.unallocated.iter().filter(|i| !is_reserved(reserved, self.address(**i))).count()
    }

    /// Addresses that carry a handle, in order.
    pub fn addresses_of(&self, handle: &str) -> Vec<IpAddr> {
        let with = |i: &Option<usize>| {
            i.and_then(|i| self.attributes.get(i)).is_some_and(|a| a.is_of(handle))
        };
        let all = self.allocations.iter().enumerate();
        all.filter(|(_, i)| with(i)).map(|(at, _)| self.address(at)).collect()
    }

    /// Every allocated address with its attributes.
    pub fn allocated(&self) -> impl Iterator<Item = (IpAddr, &Attribute)> {
        let all = self.allocations.iter().enumerate();
        all.filter_map(|(at, i)| Some((self.address(at), self.attributes.get((*i)?)?)))
    }

    /// Takes up to `count` addresses, the longest free first; those reserved are passed over.
    ///
    /// # Errors
    /// [`BlockError::Damaged`].
    pub fn take(
        &mut self,
        count: usize,
        owner: &Attribute,
        reserved: &[IpNet],
    ) -> Result<Vec<IpAddr>, BlockError> {
        self.check()?;
        let usable = |i: &usize| !is_reserved(reserved, self.address(*i));
        let chosen: Vec<_> = self.unallocated.iter().copied().filter(usable).take(count).collect();
        for at in &chosen {
            self.give(*at, owner);
        }
        Ok(chosen.into_iter().map(|at| self.address(at)).collect())
    }

    /// Takes one given address, reserved or not.
    ///
    /// # Errors
    /// [`BlockError::Taken`], [`BlockError::Outside`], [`BlockError::Damaged`].
    pub fn take_exactly(&mut self, addr: IpAddr, owner: &Attribute) -> Result<(), BlockError> {
        self.check()?;
        let at = self.index(addr)?;
        if self.allocations[at].is_some() {
            return Err(BlockError::Taken(addr));
        }
        self.give(at, owner);
        Ok(())
    }

    /// Frees everything that carries the handle; how many that were.
    pub fn release_handle(&mut self, handle: &str) -> u64 {
        let ours: Vec<_> = self.addresses_of(handle);
        let indices = ours.iter().filter_map(|a| self.index(*a).ok()).collect();
        self.free_indices(&indices);
        indices.len() as u64
    }

    /// Frees one address. `sequence`, if given, must be the one of the allocation that the caller
    /// means. `Ok(None)`: nobody had it.
    ///
    /// # Errors
    /// [`BlockError::Outside`], [`BlockError::Stale`].
    pub fn release_address(
        &mut self,
        addr: IpAddr,
        sequence: Option<u64>,
    ) -> Result<Option<Attribute>, BlockError> {
        let at = self.index(addr)?;
        let Some(attribute) = self.allocations.get(at).copied().flatten() else { return Ok(None) };
        let current = self.sequence_number_for_allocation.get(&at.to_string());
        if sequence.is_some_and(|s| Some(&s) != current) {
            return Err(BlockError::Stale(addr));
        }
        let owner = self.attributes.get(attribute).cloned();
        self.free_indices(&BTreeSet::from([at]));
        Ok(Some(owner.unwrap_or_default()))
    }

    fn give(&mut self, at: usize, owner: &Attribute) {
        let known = self.attributes.iter().position(|a| a == owner);
        let attribute = known.unwrap_or_else(|| {
            self.attributes.push(owner.clone());
            self.attributes.len() - 1
        });
        self.allocations[at] = Some(attribute);
        self.unallocated.retain(|i| *i != at);
        self.sequence_number_for_allocation.insert(at.to_string(), self.sequence_number);
    }

    fn free_indices(&mut self, indices: &BTreeSet<usize>) {
        for at in indices {
            self.allocations[*at] = None;
            self.unallocated.push(*at);
            self.sequence_number_for_allocation.remove(&at.to_string());
        }
        self.drop_unused_attributes();
    }

    fn drop_unused_attributes(&mut self) {
        let used: BTreeSet<usize> = self.allocations.iter().flatten().copied().collect();
        let renumbered: BTreeMap<usize, usize> =
            used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        for slot in self.allocations.iter_mut().flatten() {
            *slot = renumbered[slot];
        }
        let mut index = 0..;
        self.attributes.retain(|_| index.next().is_some_and(|i| used.contains(&i)));
    }

    fn address(&self, at: usize) -> IpAddr {
        address_at(self.cidr, at as u128)
    }

    fn index(&self, addr: IpAddr) -> Result<usize, BlockError> {
        let at = index_of(self.cidr, addr).map(|i| i as usize);
        at.filter(|i| *i < self.allocations.len()).ok_or(BlockError::Outside(addr, self.cidr))
    }
}

impl Attribute {
    /// Whether it carries the handle. Some old writers left a carriage return and more behind it.
    pub fn is_of(&self, handle: &str) -> bool {
        self.handle.as_deref().and_then(|h| h.split('\r').next()) == Some(handle)
    }
}

fn is_reserved(reserved: &[IpNet], addr: IpAddr) -> bool {
    reserved.iter().any(|r| r.contains(&addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(handle: &str) -> Attribute {
        Attribute { handle: Some(handle.into()), ..Attribute::default() }
    }

    fn block() -> Block {
        Block::new("10.65.0.0/30".parse().unwrap(), Some("a"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn freed_addresses_come_back_last() {
        let mut b = block();
        let first = b.take(1, &owner("x"), &[]).unwrap();
        assert_eq!(first, ["10.65.0.0".parse::<IpAddr>().unwrap()]);
        assert_eq!(b.release_handle("x"), 1);
        let then = b.take(4, &owner("y"), &[]).unwrap();
        assert_eq!(then.last(), first.first());
        assert!(b.take(1, &owner("z"), &[]).unwrap().is_empty());
        assert_eq!(b.attributes.len(), 1, "attributes are shared");
        b.check().unwrap();
    }

    #[test]
    fn json_is_upstreams() {
        let mut b = block();
        b.take(1, &owner("net.x"), &[]).unwrap();
        let want = serde_json::json!({
            "cidr": "10.65.0.0/30", "affinity": "host:a",
            "affinityClaimTime": "1970-01-01T00:00:00Z",
            "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
            "attributes": [{"handle_id": "net.x"}],
            "sequenceNumber": 0, "sequenceNumberForAllocation": {"0": 0},
            "deleted": false, "strictAffinity": false,
        });
        assert_eq!(serde_json::to_value(&b).unwrap(), want);
    }

    #[test]
    fn late_release_does_not_hit_the_successor() {
        let mut b = block();
        let addr = b.take(1, &owner("x"), &[]).unwrap()[0];
        b.sequence_number = 7;
        b.release_address(addr, None).unwrap();
        b.take_exactly(addr, &owner("y")).unwrap();
        assert_eq!(b.release_address(addr, Some(0)), Err(BlockError::Stale(addr)));
        assert_eq!(b.release_address(addr, Some(7)), Ok(Some(owner("y"))));
        assert_eq!(b.release_address(addr, None), Ok(None));
    }

    #[test]
    fn damaged_blocks_are_refused() {
        for (what, break_it) in [
            ("short", (|b: &mut Block| b.allocations.truncate(1)) as fn(&mut Block)),
            ("taken and free", |b| b.allocations[0] = Some(0)),
            ("free twice", |b| b.unallocated.push(0)),
            ("no attributes", |b| {
                b.unallocated.remove(0);
                b.allocations[0] = Some(3);
            }),
        ] {
            let mut b = block();
            break_it(&mut b);
            assert!(b.take(1, &owner("x"), &[]).is_err(), "{what}");
        }
    }

    #[test]
    fn reserved_addresses_are_passed_over() {
        let mut b = block();
        let reserved = ["10.65.0.0/31".parse().unwrap()];
        assert_eq!(b.free(&reserved), 2);
        let got = b.take(4, &owner("x"), &reserved).unwrap();
        assert_eq!(got.len(), 2);
        assert!(got.iter().all(|a| !reserved[0].contains(a)));
    }
}
