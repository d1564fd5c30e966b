//! Host endpoints: which interface is whose, and their chains (2.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use model::endpoint::HostTarget;
use model::output::LocalHost;
use model::{Action, IfaceName};

use crate::endpoint::Walk;
use crate::group::ActingTier;
use crate::name::{self, Direction};
use crate::needed::{Owner, Part};
use crate::object::{Chain, Name, Rule, Verdict, Way};

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

/// A place on a packet's way where host endpoints' policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostHook {
    /// Before connection tracking, on arrival.
    RawIn,
    /// Before connection tracking, from processes of the host.
    RawOut,
    /// Before destination NAT.
    PreDnat,
    /// To processes of the host.
    In,
    /// From processes of the host.
    Out,
    /// Through the host, by the interface of arrival.
    ForwardIn,
    /// Through the host, by the interface of departure.
    ForwardOut,
}

impl HostHook {
    pub(crate) const ALL: [Self; 7] = [
        Self::RawIn,
        Self::RawOut,
        Self::PreDnat,
        Self::In,
        Self::Out,
        Self::ForwardIn,
        Self::ForwardOut,
    ];

    /// The map from interfaces to chains; the chain that looks into it is named after it.
    pub(crate) fn map(self) -> &'static str {
        match self {
            Self::RawIn => "host-raw-in",
            Self::RawOut => "host-raw-out",
            Self::PreDnat => "host-pre-dnat",
            Self::In => "host-in",
            Self::Out => "host-out",
            Self::ForwardIn => "host-fwd-in",
            Self::ForwardOut => "host-fwd-out",
        }
    }

    /// The chain that finds the host endpoint.
    pub(crate) fn stage(self) -> Name {
        format!("{}-hook", self.map()).into()
    }

    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::RawIn | Self::PreDnat | Self::In | Self::ForwardIn => Direction::Ingress,
            Self::RawOut | Self::Out | Self::ForwardOut => Direction::Egress,
        }
    }

    /// The interface that counts.
    pub(crate) fn way(self) -> Way {
        self.direction().choose(Way::In, Way::Out)
    }

    /// Whether the `*` host endpoint acts here.
    pub(crate) fn knows_wildcard(self) -> bool {
        !matches!(self, Self::RawIn | Self::RawOut)
    }

    /// Whether the `*` host endpoint acts here on packets of pods' interfaces, too.
    pub(crate) fn sees_pods(self) -> bool {
        matches!(self, Self::PreDnat | Self::ForwardIn | Self::ForwardOut)
    }

    /// Ports that stay open; forwarded traffic knows none.
    pub(crate) fn failsafe(self) -> Option<&'static str> {
        match self {
            Self::RawIn => Some(FAILSAFE_RAW_IN),
            Self::RawOut => Some(FAILSAFE_RAW_OUT),
            Self::PreDnat | Self::In => Some(FAILSAFE_IN),
            Self::Out => Some(FAILSAFE_OUT),
            Self::ForwardIn | Self::ForwardOut => None,
        }
    }

    /// Chain of a host endpoint's policy.
    pub(crate) fn chain(self, name: &Arc<str>) -> Name {
        let prefix = match self {
            Self::RawIn => "fhraw-",
            Self::RawOut => "thraw-",
            Self::PreDnat => "fhpre-",
            Self::In => "fh-",
            Self::Out => "th-",
            Self::ForwardIn => "fhfw-",
            Self::ForwardOut => "thfw-",
        };
        name::host(prefix, name)
    }

    /// The tiers that are asked. Before NAT and before connection tracking a tier has no end: what
    /// no policy decided goes on.
    fn tiers(self, host: &LocalHost) -> Vec<ActingTier> {
        let (tiers, open) = match self {
            Self::RawIn | Self::RawOut => (&host.untracked, true),
            Self::PreDnat => (&host.pre_dnat, true),
            Self::In | Self::Out => (&host.normal, false),
            Self::ForwardIn | Self::ForwardOut => (&host.forward, false),
        };
        let mut acting = ActingTier::of(tiers, self.direction());
        for tier in acting.iter_mut().filter(|_| open) {
            tier.default_action = Action::Pass;
        }
        acting
    }

    /// Whether a host endpoint has something to say here.
    pub(crate) fn concerns(self, host: &LocalHost) -> bool {
        match self {
            Self::RawIn | Self::RawOut | Self::PreDnat => !self.tiers(host).is_empty(),
            Self::In | Self::Out | Self::ForwardIn | Self::ForwardOut => true,
        }
    }

    /// The policies and profiles that a host endpoint's chain leads to.
    pub(crate) fn needs(self, host: &LocalHost) -> Vec<Part> {
        let tiers = self.tiers(host);
        let policies = tiers.iter().flat_map(|tier| tier.policies.iter());
        let policies = policies.cloned().map(Owner::Policy);
        let profiles = host.endpoint.profiles.iter().filter(|_| self.knows_profiles());
        let profiles = profiles.cloned().map(Owner::Profile);
        policies.chain(profiles).map(|owner| (owner, self.direction())).collect()
    }

    /// Whether profiles are asked where no tier acts.
    fn knows_profiles(self) -> bool {
        matches!(self, Self::In | Self::Out)
    }

    /// The rules of a host endpoint's chain.
    pub(crate) fn rules(self, host: &LocalHost, walk: &Walk<'_>) -> Chain {
        let mut rules: Vec<Rule> = Vec::new();
        // Before connection tracking there is no state that could be invalid.
        if !matches!(self, Self::RawIn | Self::RawOut) {
            rules.extend(walk.invalid());
        }
        let failsafe = self.failsafe();
        rules.extend(failsafe.map(|chain| Rule::new().verdict(Verdict::Jump(chain.into()))));
        let ends = !matches!(self, Self::RawIn | Self::RawOut | Self::PreDnat);
        rules.extend(walk.tiers(&self.tiers(host), ends));
        if self.knows_profiles() {
            rules.extend(walk.profiles(&host.endpoint.profiles));
        }
        Chain::regular(format!("host endpoint {}", host.endpoint.name), rules)
    }
}

/// Chains of failsafe ports: into the host and out of it, and the same before connection tracking,
/// where answers are not known as such.
pub(crate) const FAILSAFE_IN: &str = "failsafe-in";
pub(crate) const FAILSAFE_OUT: &str = "failsafe-out";
pub(crate) const FAILSAFE_RAW_IN: &str = "failsafe-raw-in";
pub(crate) const FAILSAFE_RAW_OUT: &str = "failsafe-raw-out";
