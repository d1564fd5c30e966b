//! Host endpoints: which interface is whose, and their chains (2.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use model::IfaceName;
use model::endpoint::HostTarget;
use model::output::LocalHost;

use crate::endpoint::Walk;
use crate::fixed::HOST_MAPS;
use crate::group::ActingTier;
use crate::name::{self, Direction};
use crate::object::{Chain, Name, Rule, Verdict};

/// Which host endpoint each interface has: one that names it beats one that expects an address of
/// it, and of several the lowest name wins. The second is the wildcard's name.
pub(crate) fn resolve(
    hosts: &BTreeMap<Arc<str>, Arc<LocalHost>>,
    by_address: &BTreeMap<Arc<str>, Vec<IfaceName>>,
) -> (BTreeMap<IfaceName, Arc<str>>, Option<Arc<str>>) {
    let mut found = BTreeMap::new();
    let target = |h: &Arc<LocalHost>| h.endpoint.target.clone();
    for (name, host) in hosts {
        if let HostTarget::Iface(iface) = target(host) {
            found.entry(iface).or_insert_with(|| name.clone());
        }
    }
    for (name, host) in hosts {
        if target(host) == HostTarget::ByAddress {
            for iface in by_address.get(name).into_iter().flatten() {
                found.entry(iface.clone()).or_insert_with(|| name.clone());
            }
        }
    }
    let wildcard = hosts.iter().find(|(_, h)| target(h) == HostTarget::All);
    (found, wildcard.map(|(name, _)| name.clone()))
}

/// Chain of a host endpoint behind each of [`HOST_MAPS`].
pub(crate) fn chain_names(name: &Arc<str>) -> [Name; HOST_MAPS.len()] {
    [0, 1, 2, 3].map(|which| name::host(direction(which), is_forward(which), name))
}

/// The direction that a place of [`HOST_MAPS`] is about.
pub(crate) fn direction(which: usize) -> Direction {
    if which.is_multiple_of(2) { Direction::Ingress } else { Direction::Egress }
}

/// Whether a place of [`HOST_MAPS`] is about packets that pass through the host.
pub(crate) fn is_forward(which: usize) -> bool {
    which >= 2
}

/// The chain of a host endpoint behind the map `which` of [`HOST_MAPS`].
pub(crate) fn chain(which: usize, host: &LocalHost, walk: &Walk<'_>) -> Chain {
    let mut rules: Vec<Rule> = walk.invalid().into_iter().collect();
    if is_forward(which) {
        // Without a policy that acts on forwarded traffic, it passes.
        rules.extend(walk.tiers(&ActingTier::of(&host.forward, walk.direction)));
    } else {
        let failsafe = if which == 0 { "failsafe-in" } else { "failsafe-out" };
        rules.push(Rule::new().verdict(Verdict::Jump(failsafe.into())));
        rules.extend(walk.tiers(&ActingTier::of(&host.normal, walk.direction)));
        rules.extend(walk.profiles(&host.endpoint.profiles));
    }
    Chain::regular(format!("host endpoint {}", host.endpoint.name), rules)
}
