//! One endpoint, one direction: tiers in order, policies in order, rules in order; then profiles.

use std::sync::Arc;

use model::policy::{Profile, Stage, Tier};
use model::{Action, Labels, Policy, PolicyId, ProfileName, Rule, TierName};

use crate::decision::{Considered, Direction, Point, Reason, Step, Verdict};
use crate::judge::{Applied, Judge};
use crate::packet::Packet;
use crate::rule;

/// An endpoint of either kind, as far as policy is concerned.
pub(crate) struct Subject<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) profiles: &'a [ProfileName],
    pub(crate) point: Point,
}

/// Which policies are asked at this place, and what follows when none decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A pod: normal policies; then profiles; then drop.
    Workload,
    /// A host's own traffic: normal policies; then profiles; then drop.
    HostLocal,
    /// Traffic through a host: policies with `applyOnForward`; no profiles; allowed where no tier
    /// decides.
    HostForward,
    /// Before destination NAT: no implicit deny.
    PreDnat,
    /// Before connection tracking: no implicit deny.
    Untracked,
}

impl Kind {
    /// The stage that its policies are of.
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Workload | Self::HostLocal | Self::HostForward => Stage::Normal,
            Self::PreDnat => Stage::PreDnat,
            Self::Untracked => Stage::Untracked,
        }
    }

    fn asks(self, policy: &Policy) -> bool {
        match self {
            // A policy with applyOnForward acts on local traffic too.
            Self::Workload | Self::HostLocal => policy.stage == Stage::Normal,
            Self::HostForward => policy.stage == Stage::Normal && policy.apply_on_forward,
            Self::PreDnat => policy.stage == Stage::PreDnat,
            Self::Untracked => policy.stage == Stage::Untracked,
        }
    }
}

/// What was looked at before a decision.
pub(crate) enum Seen {
    /// Every rule, in order.
    All(Vec<Considered>),
    /// Only whether there was a rule.
    Any(bool),
}

impl Seen {
    /// Nothing yet, of the same kind.
    pub(crate) fn afresh(&self) -> Self {
        match self {
            Self::All(_) => Self::All(Vec::new()),
            Self::Any(_) => Self::Any(false),
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::All(rules) => rules.is_empty(),
            Self::Any(any) => !any,
        }
    }

    pub(crate) fn rules(self) -> Vec<Considered> {
        match self {
            Self::All(rules) => rules,
            Self::Any(_) => Vec::new(),
        }
    }
}

/// The answer of `subject`'s policies to `packet`. An error: nothing here has an opinion (only for the
/// host kinds without an implicit deny); what was seen, with what was `before`.
pub(crate) fn decide(
    judge: &Judge<'_>,
    subject: &Subject<'_>,
    (kind, direction): (Kind, Direction),
    packet: &Packet,
    before: Seen,
) -> Result<Step, Seen> {
    let considered = match before {
        Seen::All(considered) => considered,
        Seen::Any(any) => {
            let index = judge.indexed(subject, kind, direction);
            let decided = index.decide(judge, subject, (kind, direction), packet);
            return decided.ok_or(Seen::Any(any || index.has_rules()));
        }
    };
    let mut walk = Walk { judge, packet, direction, point: &subject.point, considered };
    for (tier, policies) in judge.applied(subject, kind, direction).iter() {
        match walk.tier(tier, policies, kind) {
            Outcome::Decided(step) => return Ok(Step { stage: kind.stage(), ..*step }),
            Outcome::Next => {}
        }
    }
    match kind {
        Kind::PreDnat | Kind::Untracked | Kind::HostForward => Err(Seen::All(walk.considered)),
        Kind::Workload | Kind::HostLocal => Ok(walk.profiles(subject)),
    }
}

/// Tiers with at least one enforced policy for this endpoint and direction, in order, each with its
/// policies in order.
pub(crate) fn tiers_for<'a>(
    judge: &Judge<'a>,
    subject: &Subject<'_>,
    kind: Kind,
    direction: Direction,
) -> Applied<'a> {
    let labels = judge.view().labels(subject.labels, subject.profiles);
    let applies = |p: &Policy| match direction {
        Direction::Ingress => p.applies_ingress,
        Direction::Egress => p.applies_egress,
    };
    let mut tiers: Applied<'a> = Vec::new();
    for (tier, policy) in judge.standing().candidates(&labels) {
        if applies(policy) && kind.asks(policy) && policy.selector.matches(&labels) {
            match tiers.last_mut().filter(|(last, _)| last.name == tier.name) {
                Some((_, policies)) => policies.push(policy),
                None => tiers.push((tier, vec![policy])),
            }
        }
    }
    tiers
}

enum Outcome {
    Decided(Box<Step>),
    Next,
}

enum Walked {
    Stopped(Verdict, u32),
    Passed,
    Fell,
}

struct Origin<'a> {
    tier: Option<&'a TierName>,
    policy: Option<&'a PolicyId>,
    profile: Option<&'a str>,
}

/// The walk of one packet through one endpoint's rules in one direction.
struct Walk<'a, 'v> {
    judge: &'a Judge<'v>,
    packet: &'a Packet,
    direction: Direction,
    point: &'a Point,
    considered: Vec<Considered>,
}

impl Walk<'_, '_> {
    fn tier(&mut self, tier: &Tier, policies: &[&Policy], kind: Kind) -> Outcome {
        for policy in policies {
            let rules = self.direction.of(&policy.ingress, &policy.egress);
            let origin = Origin { tier: Some(&tier.name), policy: Some(&policy.id), profile: None };
            match self.rules(rules, &origin) {
                Walked::Stopped(verdict, rule) => {
                    let mut step = self.step(verdict, Reason::Rule);
                    step.tier = Some(tier.name.clone());
                    step.policy = Some(policy.id.clone());
                    step.rule = Some(rule);
                    return Outcome::Decided(Box::new(step));
                }
                Walked::Passed => return Outcome::Next,
                Walked::Fell => {}
            }
        }
        let implicit_deny = !matches!(kind, Kind::PreDnat | Kind::Untracked);
        if implicit_deny && tier.default_action == Action::Deny {
            let mut step = self.step(Verdict::Deny, Reason::TierDefault);
            step.tier = Some(tier.name.clone());
            return Outcome::Decided(Box::new(step));
        }
        Outcome::Next
    }

    fn profiles(&mut self, subject: &Subject<'_>) -> Step {
        // A profile that is listed but does not exist denies everything (2.1).
        let missing = Arc::new(Profile {
            ingress: vec![Rule::any(Action::Deny)],
            egress: vec![Rule::any(Action::Deny)],
            ..Profile::default()
        });
        for name in subject.profiles {
            let profile = self.judge.view().profiles.get(name).unwrap_or(&missing).clone();
            let rules = self.direction.of(&profile.ingress, &profile.egress);
            let origin = Origin { tier: None, policy: None, profile: Some(name.as_str()) };
            // After the last tier there is nothing to pass to: Pass ends this profile only.
            if let Walked::Stopped(verdict, rule) = self.rules(rules, &origin) {
                let mut step = self.step(verdict, Reason::Profile);
                step.rule = Some(rule);
                return step;
            }
        }
        self.step(Verdict::Deny, Reason::NoProfile)
    }

    fn rules(&mut self, rules: &[Rule], origin: &Origin<'_>) -> Walked {
        for r in rules {
            let result = rule::matches(self.judge, r, self.packet);
            self.considered.push(Considered {
                tier: origin.tier.cloned(),
                policy: origin.policy.cloned(),
                profile: origin.profile.map(Into::into),
                rule: r.origin,
                action: r.action,
                failed: result.err(),
            });
            if result.is_err() {
                continue;
            }
            match r.action {
                Action::Allow => return Walked::Stopped(Verdict::Allow, r.origin),
                Action::Deny => return Walked::Stopped(Verdict::Deny, r.origin),
                Action::Pass => return Walked::Passed,
                Action::Log => {}
            }
        }
        Walked::Fell
    }

    fn step(&mut self, verdict: Verdict, reason: Reason) -> Step {
        let considered = std::mem::take(&mut self.considered);
        Step::plain(self.point.clone(), self.direction, verdict, reason, considered)
    }
}
