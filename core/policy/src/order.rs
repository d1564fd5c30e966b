//! The rules of one endpoint in one direction, in the order in which they are asked.

use std::ops::Range;

use model::{Action, PolicyId, Rule, TierName};

use crate::decision::{Direction, Reason};
use crate::endpoint::{Kind, Subject};
use crate::judge::Judge;

/// A rule, and whose it is.
#[derive(Debug)]
pub(crate) struct Placed<'v> {
    pub(crate) rule: &'v Rule,
    /// None for a profile's.
    pub(crate) policy: Option<&'v PolicyId>,
}

/// A tier, a profile, or the end. Pass leaves it, and the next one is asked.
#[derive(Debug)]
pub(crate) struct Stretch<'v> {
    /// Its rules.
    pub(crate) rules: Range<usize>,
    pub(crate) tier: Option<&'v TierName>,
    /// Why a packet is dropped about which none of them decides; if nothing, the next one is asked.
    pub(crate) otherwise: Option<Reason>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Order<'v> {
    /// Without those that log, which decide nothing.
    pub(crate) rules: Vec<Placed<'v>>,
    pub(crate) stretches: Vec<Stretch<'v>>,
    /// Whether there are rules, also such that log.
    pub(crate) has_rules: bool,
}

impl<'v> Order<'v> {
    /// What [`crate::endpoint::decide`] walks through.
    pub(crate) fn new(
        judge: &Judge<'v>,
        subject: &Subject<'_>,
        (kind, direction): (Kind, Direction),
    ) -> Self {
        let mut order = Self::default();
        let implicit_deny = !matches!(kind, Kind::PreDnat | Kind::Untracked);
        for (tier, policies) in judge.applied(subject, kind, direction).iter() {
            for policy in policies {
                order.add(direction.of(&policy.ingress, &policy.egress), Some(&policy.id));
            }
            let denies = implicit_deny && tier.default_action == Action::Deny;
            order.end(Some(&tier.name), denies.then_some(Reason::TierDefault));
        }
        if matches!(kind, Kind::Workload | Kind::HostLocal) {
            for name in subject.profiles {
                match judge.view().profiles.get(name) {
                    Some(profile) => {
                        order.add(direction.of(&profile.ingress, &profile.egress), None);
                        order.end(None, None);
                    }
                    // A profile that is listed but does not exist denies everything (2.1).
                    None => order.end(None, Some(Reason::Profile)),
                }
            }
            order.end(None, Some(Reason::NoProfile));
        }
        order
    }

    fn add(&mut self, rules: &'v [Rule], policy: Option<&'v PolicyId>) {
        self.has_rules |= !rules.is_empty();
        let decide = rules.iter().filter(|rule| rule.action != Action::Log);
        self.rules.extend(decide.map(|rule| Placed { rule, policy }));
    }

    fn end(&mut self, tier: Option<&'v TierName>, otherwise: Option<Reason>) {
        let start = self.stretches.last().map_or(0, |before| before.rules.end);
        self.stretches.push(Stretch { rules: start..self.rules.len(), tier, otherwise });
    }
}
