//! What came out, and why.

use std::sync::Arc;

use model::policy::Stage;
use model::{Action, PolicyId, TierName};

/// Whether the packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It is dropped.
    Deny,
}

/// Which way a packet goes, seen from the endpoint whose policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl Direction {
    /// Of what is there for each direction, this one's.
    pub(crate) fn of<'a, T: ?Sized>(self, ingress: &'a T, egress: &'a T) -> &'a T {
        match self {
            Self::Ingress => ingress,
            Self::Egress => egress,
        }
    }
}

/// What decided. The words of [`Reason::as_str`] are an output format that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A rule of a policy.
    Rule,
    /// No policy of a tier decided, and the tier denies by default.
    TierDefault,
    /// A rule of a profile.
    Profile,
    /// No tier and no profile decided.
    NoProfile,
    /// A failsafe port.
    Failsafe,
    /// Traffic between a pod and a process on its own host, where policy is not asked.
    SameHost,
    /// No policy applies here.
    NotAnEndpoint,
    /// Policies were asked and none decided, where that lets the packet go on: traffic through a host,
    /// and policy before connection tracking or destination NAT.
    Undecided,
}

impl Reason {
    /// The word in JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::TierDefault => "tier-default",
            Self::Profile => "profile",
            Self::NoProfile => "no-profile",
            Self::Failsafe => "failsafe",
            Self::SameHost => "same-host",
            Self::NotAnEndpoint => "not-an-endpoint",
            Self::Undecided => "undecided",
        }
    }
}

/// A rule that was looked at, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Its tier; none for a profile's rule.
    pub tier: Option<TierName>,
    /// Its policy; none for a profile's rule.
    pub policy: Option<PolicyId>,
    /// Its profile; none for a policy's rule.
    pub profile: Option<Arc<str>>,
    /// Index in the object as the user wrote it, from 0.
    pub rule: u32,
    /// What it does on a match.
    pub action: Action,
    /// The field that failed to match; none for a match.
    pub failed: Option<&'static str>,
}

/// A place on the packet's way where policy is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A pod's interface.
    Workload(model::WorkloadId),
    /// A host endpoint: its name, and whether the packet is forwarded through the host.
    Host(Arc<str>, bool),
    /// A node or outside address that no host endpoint covers.
    Unprotected,
}

/// The answer at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub point: Point,
    /// Which way.
    pub direction: Direction,
    /// Which policies decided: a host endpoint's before connection tracking, those before
    /// destination NAT, or the normal ones.
    pub stage: Stage,
    /// The verdict there.
    pub verdict: Verdict,
    /// What decided.
    pub reason: Reason,
    /// The deciding tier, if one did.
    pub tier: Option<TierName>,
    /// The deciding policy, if one did.
    pub policy: Option<PolicyId>,
    /// The deciding rule's index in the object as written.
    pub rule: Option<u32>,
    /// Every rule looked at, in order, the deciding one last.
    pub considered: Vec<Considered>,
}

impl Step {
    /// An answer that no rule gave.
    pub(crate) fn plain(
        point: Point,
        direction: Direction,
        verdict: Verdict,
        reason: Reason,
        considered: Vec<Considered>,
    ) -> Self {
        let (stage, tier, policy, rule) = (Stage::Normal, None, None, None);
        Self { point, direction, stage, verdict, reason, tier, policy, rule, considered }
    }
}

/// The whole answer: allow only if every step allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// In the order in which the packet meets them; those behind one that denied say what they
    /// would have said.
    pub steps: Vec<Step>,
}

impl Decision {
    /// The step that decided in `direction`: the first that denied, else that of the packet's own
    /// end (the source's egress, the destination's ingress).
    pub fn of(&self, direction: Direction) -> Option<&Step> {
        let mut steps = self.steps.iter().filter(|s| s.direction == direction);
        let denied = steps.clone().find(|s| s.verdict == Verdict::Deny);
        denied.or_else(|| match direction {
            Direction::Egress => steps.next(),
            Direction::Ingress => steps.next_back(),
        })
    }
}
