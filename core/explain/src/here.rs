//! A decision as one node must enforce it.

use model::NodeName;
use policy::{Decision, Point, Step, Verdict, View};

/// What one node has to say about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// Its verdict: what other nodes do before and after is theirs.
    pub verdict: Verdict,
    /// The step there that denies, else the last one in which a policy decided.
    pub decided: Option<Step>,
}

/// The part of a decision that is made on a node.
pub fn here(view: &View, decision: &Decision, node: &NodeName) -> Here {
    let is_here = |step: &&Step| match &step.point {
        Point::Workload(id) => view.workloads.get(id).is_some_and(|w| w.node == *node),
        Point::Host(name, _) => view.hosts.get(name).is_some_and(|h| h.node == *node),
        // Nobody but a pod's own host denies without an endpoint.
        Point::Unprotected => true,
    };
    let mut steps = decision.steps.iter().filter(is_here);
    let denied = steps.clone().find(|s| s.verdict == Verdict::Deny);
    let verdict = denied.map_or(Verdict::Allow, |s| s.verdict);
    let decided = denied.or_else(|| steps.rfind(|s| s.policy.is_some()));
    Here { verdict, decided: decided.cloned() }
}
