//! Which policies' and profiles' chains something leads to.
//!
//! The kernel goes through all chains of a table at every transaction, and through all rules whenever
//! one changes. So a family's table has the chain of a policy for a direction only if an endpoint of
//! that family has the policy in that direction.

use std::collections::HashMap;

use model::{IpVersion, PolicyId, ProfileName};

use crate::group::Kind;
use crate::name::Direction;
use crate::object::Name;

/// What has rules of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    Policy(PolicyId),
    Profile(ProfileName),
}

/// A chain of an owner.
pub(crate) type Part = (Owner, Direction);

/// What endpoints' chains lead to.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    of: HashMap<(Name, IpVersion), Vec<Part>>,
    counts: HashMap<(Part, IpVersion), u32>,
}

impl Needed {
    pub(crate) fn contains(&self, part: &(Part, IpVersion)) -> bool {
        self.counts.contains_key(part)
    }

    /// Says what a chain leads to; nothing if the chain goes. Returns whose chains are needed now
    /// and were not before, or the other way round.
    pub(crate) fn put(&mut self, chain: &Name, version: IpVersion, parts: Vec<Part>) -> Vec<Owner> {
        let mut turned = Vec::new();
        for part in &parts {
            let count = self.counts.entry((part.clone(), version)).or_default();
            *count += 1;
            if *count == 1 {
                turned.push(part.0.clone());
            }
        }
        let key = (chain.clone(), version);
        let before =
            if parts.is_empty() { self.of.remove(&key) } else { self.of.insert(key, parts) };
        for part in before.into_iter().flatten() {
            let owner = part.0.clone();
            let key = (part, version);
            let Some(count) = self.counts.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
                turned.push(owner);
            }
        }
        turned
    }
}

/// What the chain of a kind of pods leads to.
pub(crate) fn by(kind: &Kind) -> Vec<Part> {
    let policies =
        kind.tiers.iter().flat_map(|tier| tier.policies.iter()).cloned().map(Owner::Policy);
    let profiles = kind.profiles.iter().cloned().map(Owner::Profile);
    policies.chain(profiles).map(|owner| (owner, kind.direction)).collect()
}
