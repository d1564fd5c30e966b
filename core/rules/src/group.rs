//! Chains that pods with the same policies share.
//!
//! A node has many pods and few kinds of them. One chain for each kind, named after what it does,
//! means that one more pod of a known kind adds elements to maps and no rule, and that the kernel,
//! which checks every way through a table whenever a verdict is added, has few ways to check.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::output::{EndpointTier, LocalWorkload, PolicyList};
use model::{Action, IpVersion, PolicyId, ProfileName, TierName, WorkloadId};

use crate::name::{self, Direction};
use crate::object::Name;

/// A tier that has a policy for a direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ActingTier {
    pub(crate) name: TierName,
    /// What happens to a packet that no policy decided.
    pub(crate) default_action: Action,
    /// In order; at least one.
    pub(crate) policies: PolicyList,
}

impl ActingTier {
    /// The tiers that act in a direction, in order.
    pub(crate) fn of(tiers: &[EndpointTier], direction: Direction) -> Vec<Self> {
        let acts = |t: &EndpointTier| {
            let policies = direction.choose(&t.ingress, &t.egress).clone();
            let (name, default_action) = (t.name.clone(), t.default_action);
            (!policies.is_empty()).then_some(Self { name, default_action, policies })
        };
        tiers.iter().filter_map(acts).collect()
    }
}

/// What decides about a pod's packets in one direction. Everything the chain is made from is in
/// here, and nothing else, so that equal kinds have one chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) direction: Direction,
    pub(crate) tiers: Vec<ActingTier>,
    pub(crate) profiles: Vec<ProfileName>,
}

impl Kind {
    pub(crate) fn of(workload: &LocalWorkload, direction: Direction) -> Self {
        let tiers = ActingTier::of(&workload.tiers, direction);
        Self { direction, tiers, profiles: workload.endpoint.profiles.clone() }
    }

    /// The chain's name: the first profile, which with Kubernetes is the namespace's, and a hash of
    /// the whole.
    pub(crate) fn chain(&self) -> Name {
        // A line for each thing and the length of each list keep different kinds different.
        let mut lines: Vec<String> = Vec::new();
        for tier in &self.tiers {
            let count = tier.policies.len();
            lines.push(format!("tier {} {:?} {count}", tier.name, tier.default_action));
            lines.extend(tier.policies.iter().map(PolicyId::to_string));
        }
        lines.extend(self.profiles.iter().map(|profile| format!("profile {profile}")));
        let hint = self.profiles.first().map_or("no-profile", ProfileName::as_str);
        name::workloads(self.direction, hint, &lines.join("\n"))
    }

    /// For people who read the table.
    pub(crate) fn comment(&self) -> String {
        let count: usize = self.tiers.iter().map(|t| t.policies.len()).sum();
        let tiers: Vec<_> = self.tiers.iter().map(|t| t.name.as_str()).collect();
        let profiles: Vec<_> = self.profiles.iter().map(ProfileName::as_str).collect();
        let list = |what: &str, names: &[&str]| {
            if names.is_empty() { String::new() } else { format!(", {what} {}", names.join(" ")) }
        };
        let word = self.direction.word();
        format!(
            "{word} of pods, policies {count}{}{}",
            list("tiers", &tiers),
            list("profiles", &profiles)
        )
    }

    pub(crate) fn lists_policy(&self, id: &PolicyId) -> bool {
        self.tiers.iter().any(|t| t.policies.contains(id))
    }
}

#[derive(Debug)]
struct Group {
    kind: Arc<Kind>,
    /// Pods of the kind that have addresses of a family: where there are none, the family's table
    /// has no chain.
    users: BTreeMap<IpVersion, BTreeSet<WorkloadId>>,
}

/// All kinds that local pods have. Names of kinds are chains' names.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<Name, Group>,
    /// The names of those: to make one means to read all policies of a kind.
    names: HashMap<Arc<Kind>, Name>,
    of: BTreeMap<WorkloadId, [Name; 2]>,
    dirty: BTreeSet<Name>,
}

impl Groups {
    /// Puts a pod where it belongs, for the families that it speaks.
    pub(crate) fn join(&mut self, workload: &LocalWorkload, versions: &[IpVersion]) {
        let id = &workload.endpoint.id;
        let kinds = Direction::ALL.map(|direction| Arc::new(Kind::of(workload, direction)));
        let names = [&kinds[0], &kinds[1]].map(|kind| match self.names.get(kind) {
            Some(name) => name.clone(),
            None => kind.chain(),
        });
        let before = self.of.insert(id.clone(), names.clone());
        for name in before.into_iter().flatten().filter(|old| !names.contains(old)) {
            self.leave_one(&name, id);
        }
        for (name, kind) in names.into_iter().zip(kinds) {
            let group = self.groups.entry(name.clone()).or_insert_with(|| {
                self.names.insert(kind.clone(), name.clone());
                Group { kind, users: BTreeMap::new() }
            });
            for version in versions {
                let users = group.users.entry(*version).or_default();
                if users.is_empty() {
                    self.dirty.insert(name.clone());
                }
                users.insert(id.clone());
            }
        }
    }

    /// Takes a pod out.
    pub(crate) fn leave(&mut self, id: &WorkloadId) {
        for name in self.of.remove(id).into_iter().flatten() {
            self.leave_one(&name, id);
        }
    }

    fn leave_one(&mut self, name: &Name, id: &WorkloadId) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let before = group.users.len();
        for users in group.users.values_mut() {
            users.remove(id);
        }
        group.users.retain(|_, users| !users.is_empty());
        if group.users.len() != before {
            self.dirty.insert(name.clone());
        }
        if group.users.is_empty() {
            self.names.remove(&group.kind);
            self.groups.remove(name);
        }
    }

    /// The chains of a pod: to it, and from it.
    pub(crate) fn chains(&self, id: &WorkloadId) -> Option<&[Name; 2]> {
        self.of.get(id)
    }

    /// The pods of these kinds.
    pub(crate) fn pods(&self, which: impl Fn(&Kind) -> bool) -> impl Iterator<Item = &WorkloadId> {
        let groups = self.groups.values().filter(move |g| which(&g.kind));
        groups.flat_map(|g| g.users.values().flatten())
    }

    /// Says that a policy came or went: chains that list it must be written again.
    pub(crate) fn policy_came_or_went(&mut self, id: &PolicyId) {
        let listing = self.groups.iter().filter(|(_, g)| g.kind.lists_policy(id));
        self.dirty.extend(listing.map(|(name, _)| name.clone()));
    }

    /// As for policies.
    pub(crate) fn profile_came_or_went(&mut self, id: &ProfileName) {
        let listing = self.groups.iter().filter(|(_, g)| g.kind.profiles.contains(id));
        self.dirty.extend(listing.map(|(name, _)| name.clone()));
    }

    /// Says that what chains are made from is another: all must be written again.
    pub(crate) fn write_all_again(&mut self) {
        self.dirty.extend(self.groups.keys().cloned());
    }

    /// What must be written, since the last call: the kind, or none where the chain goes.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.dirty)
    }

    /// The kind behind a chain in a family's table.
    pub(crate) fn kind(&self, name: &Name, version: IpVersion) -> Option<&Kind> {
        let group = self.groups.get(name)?;
        group.users.contains_key(&version).then_some(&*group.kind)
    }
}
