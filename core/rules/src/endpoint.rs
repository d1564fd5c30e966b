//! Tiers and profiles of an endpoint as rules (2.1).

use model::{Action, PolicyId, ProfileName};

use crate::config::{Marks, RulesConfig};
use crate::flow;
use crate::group::{ActingTier, Kind};
use crate::name::{self, Direction};
use crate::object::{Match, Rule, Statement, Verdict, state};
use crate::rule::deny;

/// Renders the walk of a packet through an endpoint's policy. The chain returns for an allowed
/// packet and drops a denied one.
pub(crate) struct Walk<'a> {
    pub(crate) config: &'a RulesConfig,
    pub(crate) direction: Direction,
    /// Whether the chain of a policy exists.
    pub(crate) has_policy: &'a dyn Fn(&PolicyId) -> bool,
    /// Whether the chain of a profile exists.
    pub(crate) has_profile: &'a dyn Fn(&ProfileName) -> bool,
}

impl Walk<'_> {
    /// Drops packets that connection tracking cannot place.
    pub(crate) fn invalid(&self) -> Option<Rule> {
        let rule = Rule::new().when(Match::State(state::INVALID)).counter();
        self.config.drop_invalid.then(|| rule.verdict(Verdict::Drop).comment("invalid"))
    }

    /// Everything about pods of a kind.
    pub(crate) fn kind(&self, kind: &Kind) -> Vec<Rule> {
        let mut rules: Vec<_> = self.invalid().into_iter().collect();
        rules.extend(self.tiers(&kind.tiers, true));
        rules.extend(self.profiles(&kind.profiles));
        rules
    }

    /// Tiers in order; afterwards nothing is decided, and the mark has neither bit of ours. `ends`: a
    /// tier that passes what it does not decide is told to collectors of flows as having done so.
    pub(crate) fn tiers(&self, tiers: &[ActingTier], ends: bool) -> Vec<Rule> {
        let Marks { accept, pass } = self.config.marks();
        let clear = || Rule::new().then(Statement::Mark { clear: accept | pass, set: 0 });
        let mut rules = vec![clear()];
        for tier in tiers {
            if rules.len() > 1 {
                rules.push(clear());
            }
            for (i, id) in tier.policies.iter().enumerate() {
                let undecided = Match::Mark { mask: accept | pass, set: false };
                let when = if i == 0 { vec![] } else { vec![undecided] };
                let verdict = if (self.has_policy)(id) {
                    Verdict::Jump(name::policy(self.direction, id))
                } else {
                    Verdict::Drop
                };
                let rule = Rule { when, ..Rule::default() }.verdict(verdict);
                rules.push(rule.comment(format!("tier {}", tier.name)));
            }
            rules.push(self.allowed());
            let action = tier.default_action;
            let show = flow::of_tier(self.config, self.direction, tier.name.as_str(), action);
            let undecided = Rule::new().when(Match::Mark { mask: pass, set: false });
            let end = format!("end of tier {}", tier.name);
            if action == Action::Deny {
                let mut rule = undecided.counter();
                rule.then.extend(show);
                rules.push(rule.then(deny(self.config)).comment(end));
            } else if let Some(show) = show.filter(|_| ends) {
                rules.push(undecided.then(show).comment(end));
            }
        }
        rules
    }

    /// Profiles in order, then the end.
    pub(crate) fn profiles(&self, profiles: &[ProfileName]) -> Vec<Rule> {
        let Marks { accept, .. } = self.config.marks();
        let mut rules = Vec::new();
        for (i, profile) in profiles.iter().enumerate() {
            let undecided = Match::Mark { mask: accept, set: false };
            let when = if i == 0 { vec![] } else { vec![undecided] };
            let verdict = if (self.has_profile)(profile) {
                Verdict::Jump(name::profile(self.direction, profile))
            } else {
                Verdict::Drop
            };
            rules.push(Rule { when, ..Rule::default() }.verdict(verdict));
        }
        if !profiles.is_empty() {
            rules.push(self.allowed());
        }
        let mut end = Rule::new().counter();
        end.then.extend(flow::of_nobody(self.config, self.direction));
        let end = end.then(deny(self.config));
        rules.push(end.comment("no profile allowed it"));
        rules
    }

    fn allowed(&self) -> Rule {
        let decided = Match::Mark { mask: self.config.marks().accept, set: true };
        Rule::new().when(decided).verdict(Verdict::Return)
    }
}
