//! Random clusters and packets, for tests against the executable specification (law 9).
//!
//! What goes in: a seed. What comes out: a [`policy::View`] of a small cluster with policies of every
//! shape, the [`model::Update`]s that tell a calculation about it in some order, random changes of
//! it, packets worth asking about, ever smaller views for a counterexample, and that as YAML.
//!
//! Invariants: a seed gives the same cluster, changes and packets everywhere; addresses, interfaces
//! and nodes are those of [`layout`], so that a test can lay the cables before it knows the policies;
//! no packet is the reverse of another one (source ports and destination ports are different
//! numbers), so that connection tracking never takes one for the answer to another. Every address has a
//! service in front of it, and some packets are sent to that.
//!
//! Deliberately absent: the calculation and the data plane, and who translates the destinations of
//! packets to services (the tests bring them).
//!
//! Start reading at [`cluster`], then [`sample`], then [`changes`].
#![expect(clippy::missing_panics_doc, reason = "literals parse; a test kit may panic")]

mod change;
mod dice;
mod generate;
pub mod layout;
mod objects;
mod packets;
mod rules;
mod shrink;

pub use change::changes;
pub use dice::Dice;
pub use generate::cluster;
pub use objects::{objects, yaml};
pub use packets::sample;
pub use shrink::smaller;

use std::sync::Arc;

use model::Update;
use policy::View;

/// The view as updates, in an order that the dice decide; in-sync comes last.
pub fn updates(view: &View, dice: &mut Dice) -> Vec<Update> {
    let mut all = Vec::new();
    all.extend(view.workloads.values().map(|w| Update::Workload(w.id.clone(), Some(w.clone()))));
    all.extend(view.hosts.values().map(|h| Update::Host(h.name.clone(), Some(h.clone()))));
    all.extend(view.policies.values().map(|p| Update::Policy(p.id.clone(), Some(p.clone()))));
    all.extend(view.tiers.values().map(|t| Update::Tier(t.name.clone(), Some(t.clone()))));
    all.extend(view.profiles.iter().map(|(n, p)| Update::Profile(n.clone(), Some(p.clone()))));
    let sets = view.network_sets.iter();
    all.extend(sets.map(|(n, s)| Update::NetworkSet(n.clone(), Some(s.clone()))));
    for (id, slices) in &view.services {
        let slice = |(name, backends): (&Arc<str>, &Arc<Vec<_>>)| {
            Update::ServiceSlice(name.clone(), id.clone(), Some(backends.clone()))
        };
        all.extend(slices.iter().map(slice));
    }
    dice.shuffle(&mut all);
    all.push(Update::InSync);
    all
}
