//! Answers, as scripts read them.

use std::net::IpAddr;

use model::policy::Stage;
use model::{Action, PolicyId, TierName};
use policy::{Decision, Direction, Point, Step, Verdict};
use serde::{Serialize, Serializer};

use crate::cluster::Cluster;

/// Values that are written as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<T>(pub T);

impl Serialize for Words<Verdict> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(verdict(self.0))
    }
}

pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// What was decided in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Half {
    /// `allow` or `deny`.
    pub verdict: Words<Verdict>,
    /// The deciding tier.
    pub tier: Option<String>,
    /// Kind of the deciding policy.
    pub kind: Option<&'static str>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub policy: Option<String>,
    /// The deciding rule, from 0, in the object as written.
    pub rule: Option<u32>,
    /// What decided.
    pub reason: &'static str,
    /// `untracked` or `pre-dnat` where policy of that kind decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
}

impl Half {
    fn of(step: &Step, cluster: &Cluster) -> Self {
        let policy = step.policy.as_ref();
        let rule = policy.cloned().zip(step.rule).map(|(id, rule)| (id, step.direction, rule));
        let malformed = rule.is_some_and(|rule| cluster.malformed.contains(&rule));
        // What denies in its place is no rule that anybody has written.
        let unread = policy.is_some_and(|id| cluster.unread.contains(id));
        Self {
            verdict: Words(step.verdict),
            tier: tier(step.tier.as_ref()),
            kind: policy.map(|p| p.kind.as_str()),
            namespace: policy.and_then(namespace),
            policy: policy.map(|p| p.name.to_string()),
            rule: step.rule.filter(|_| !unread),
            reason: if malformed || unread { "invalid" } else { step.reason.as_str() },
            stage: match step.stage {
                Stage::Normal => None,
                Stage::PreDnat => Some("pre-dnat"),
                Stage::Untracked => Some("untracked"),
            },
        }
    }
}

fn tier(name: Option<&TierName>) -> Option<String> {
    name.map(ToString::to_string)
}

fn namespace(policy: &PolicyId) -> Option<String> {
    (!policy.namespace.is_empty()).then(|| policy.namespace.to_string())
}

/// A rule that was looked at, or, without a policy, an end that was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// The endpoint: `namespace/pod`, `host:NAME`, or nothing for an address without one.
    pub at: Option<String>,
    /// Tier.
    pub tier: Option<String>,
    /// Kind of the policy.
    pub kind: Option<&'static str>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub policy: Option<String>,
    /// The profile, for a profile's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The rule, from 0.
    pub rule: u32,
    /// What it does on a match.
    pub action: &'static str,
    /// Whether it matched.
    pub matched: bool,
    /// The first field that did not match.
    pub failed: Option<&'static str>,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `allow` only if both directions allow, for every backend of a service.
    pub verdict: Words<Verdict>,
    /// At the source.
    pub egress: Option<Half>,
    /// At the destination.
    pub ingress: Option<Half>,
    /// Everything that was looked at, in order; only where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub considered: Vec<Considered>,
    /// One answer a backend, when a service was asked about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Backend>,
}

/// The answer for one backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Its address.
    pub to: IpAddr,
    /// Its port.
    pub port: u16,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

impl Answer {
    pub(crate) fn of(decision: &Decision, cluster: &Cluster, all: bool) -> Self {
        let half = |direction| decision.of(direction).map(|step| Half::of(step, cluster));
        Self {
            verdict: Words(decision.verdict),
            egress: half(Direction::Egress),
            ingress: half(Direction::Ingress),
            considered: if all { considered(decision) } else { Vec::new() },
            backends: Vec::new(),
        }
    }
}

fn considered(decision: &Decision) -> Vec<Considered> {
    let mut all = Vec::new();
    for step in &decision.steps {
        let at = match &step.point {
            Point::Workload(id) => Some(id.to_string()),
            Point::Host(name, _) => Some(format!("host:{name}")),
            Point::Unprotected => None,
        };
        let direction = match step.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        all.extend(step.considered.iter().map(|c| Considered {
            direction,
            at: at.clone(),
            tier: tier(c.tier.as_ref()),
            kind: c.policy.as_ref().map(|p| p.kind.as_str()),
            namespace: c.policy.as_ref().and_then(namespace),
            policy: c.policy.as_ref().map(|p| p.name.to_string()),
            profile: c.profile.as_ref().map(ToString::to_string),
            rule: c.rule,
            action: match c.action {
                Action::Allow => "Allow",
                Action::Deny => "Deny",
                Action::Log => "Log",
                Action::Pass => "Pass",
            },
            matched: c.failed.is_none(),
            failed: c.failed,
        }));
    }
    all
}
