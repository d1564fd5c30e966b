//! The packet's way: which endpoints it meets, in order (2.2, 2.3).

use model::{Action, NodeName, Protocol, WorkloadEndpoint};

use crate::decision::{Decision, Direction, Point, Reason, Step, Verdict};
use crate::endpoint::{Kind, Seen, decide};
use crate::judge::Judge;
use crate::packet::Packet;
use crate::place::{self, Finder, Place, Through};
use crate::view::{Overlay, View};

/// One question to a fresh [`Judge`]: see [`Judge::evaluate`].
pub fn evaluate(view: &View, packet: &Packet) -> Decision {
    Judge::new(view).evaluate(packet)
}

/// `seen` is what is kept of what was looked at.
pub(crate) fn walk(judge: &Judge<'_>, packet: &Packet, seen: Seen) -> Decision {
    let mut way = Way { judge, packet, seen, steps: Vec::new() };
    way.walk();
    let denied = way.steps.iter().any(|s| s.verdict == Verdict::Deny);
    let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
    Decision { verdict, steps: way.steps }
}

/// Where one end of the packet is.
enum End<'a> {
    /// A pod.
    Pod(&'a WorkloadEndpoint),
    /// A process of a node.
    Node(&'a NodeName),
    /// Anything that the view does not know.
    Outside,
}

impl<'a> End<'a> {
    fn at(judge: &Judge<'a>, address: std::net::IpAddr) -> Self {
        if let Some(pod) = judge.workloads_at(address).first() {
            return Self::Pod(pod);
        }
        judge.node_at(address).map_or(Self::Outside, Self::Node)
    }

    fn node(&self) -> Option<&'a NodeName> {
        match self {
            Self::Pod(pod) => Some(&pod.node),
            Self::Node(node) => Some(node),
            Self::Outside => None,
        }
    }
}

struct Way<'a, 'v> {
    judge: &'a Judge<'v>,
    packet: &'a Packet,
    seen: Seen,
    steps: Vec<Step>,
}

impl<'v> Way<'_, 'v> {
    fn walk(&mut self) {
        let packet = self.packet;
        let (from, to) =
            (End::at(self.judge, packet.source), End::at(self.judge, packet.destination));
        let same_node = from.node().is_some() && from.node() == to.node();
        let tunnelled = self.judge.view().overlay == Overlay::Tunnelled
            && matches!((&from, &to), (End::Pod(_) | End::Node(_), End::Pod(_)));
        match (&from, &to) {
            // A pod's packet to itself never leaves it.
            (End::Pod(a), End::Pod(b)) if a.id == b.id => {
                for direction in [Direction::Egress, Direction::Ingress] {
                    let point = Point::Workload(a.id.clone());
                    self.plain(point, direction, Verdict::Allow, Reason::SameHost);
                }
                return;
            }
            // A process of the host reaches its own pods, whatever their ingress policy (2.1).
            (End::Node(node), End::Pod(pod)) if same_node => {
                if self.decided_as_sent(node) {
                    return;
                }
                let point = Point::Workload(pod.id.clone());
                return self.plain(point, Direction::Ingress, Verdict::Allow, Reason::SameHost);
            }
            (End::Pod(pod), End::Node(_)) if same_node => return self.pod_to_own_host(pod),
            // Loopback: no interface that a host endpoint could name.
            (End::Node(node), End::Node(_)) if same_node => {
                if self.decided_as_sent(node) {
                    return;
                }
                let point = Point::Unprotected;
                return self.plain(point, Direction::Ingress, Verdict::Allow, Reason::SameHost);
            }
            _ => {}
        }
        let ends = [packet.source, packet.destination, packet.before_nat().destination];
        let finder = self.finder(&ends);
        let through = (!same_node).then_some(Through::Forwarded { tunnelled });
        match &from {
            End::Pod(pod) => finder.leaves(pod, through).for_each(|place| {
                self.ask(&place);
            }),
            End::Node(node) if self.decided_as_sent(node) => {}
            End::Node(node) => self.host(&finder, node, Direction::Egress, tunnelled),
            End::Outside => self.nobody(Direction::Egress),
        }
        match &to {
            End::Pod(pod) => finder.arrives(pod, through).for_each(|place| {
                self.ask(&place);
            }),
            End::Node(node) => self.host(&finder, node, Direction::Ingress, false),
            End::Outside => self.nobody(Direction::Ingress),
        }
    }

    fn finder<'e>(&self, ends: &'e [std::net::IpAddr]) -> Finder<'e, 'v>
    where
        Self: 'e,
    {
        Finder { judge: self.judge, ends, translated: self.packet.original.is_some() }
    }

    /// The pod's egress policy, then the endpoint-to-host action (2.2). With `Pass` (RETURN) the
    /// host's other rules decide; a wildcard host endpoint, whose normal policy covers no workload
    /// interface, has nothing to say: allowed. Its policy before destination NAT sees the packet.
    fn pod_to_own_host(&mut self, pod: &WorkloadEndpoint) {
        if let Some(place) = self.finder(&[]).before_own_host(&pod.node) {
            self.ask(&place);
        }
        let always = self.packet.protocol == Protocol::ICMPV6
            && self.packet.icmp.is_some_and(|i| matches!(i.kind, 130..=133 | 135 | 136));
        if !always {
            self.ask(&place::at_pod(pod, Direction::Egress));
        }
        let verdict = match self.judge.view().endpoint_to_host {
            Action::Deny if !always => Verdict::Deny,
            _ => Verdict::Allow,
        };
        self.plain(Point::Unprotected, Direction::Ingress, verdict, Reason::SameHost);
    }

    /// What a process of the host sends to a service meets untracked policy before anybody translates
    /// it, that of the interface which leads to the service; whether that decides. Where the packet
    /// goes in the end may be no interface that has any: a pod's, or the host's own.
    fn decided_as_sent(&mut self, node: &NodeName) -> bool {
        let packet = self.packet;
        if packet.original.is_none() {
            return false;
        }
        let ends = [packet.source, packet.before_nat().destination];
        self.finder(&ends).as_sent(node).is_some_and(|place| self.ask(&place))
    }

    /// A host endpoint's say about its own processes. What they send to a service is judged as it is
    /// translated, by the interface that it leaves by then (2.3).
    fn host(&mut self, finder: &Finder<'_, 'v>, node: &NodeName, dir: Direction, tunnelled: bool) {
        match finder.host(node, dir, Through::Local { tunnelled }) {
            Some(place) => {
                self.ask(&place);
            }
            None => self.nobody(dir),
        }
    }

    /// Asks at one place; whether policy decided. Where rules were looked at and none decided, that is
    /// a step, too.
    fn ask(&mut self, place: &Place<'_>) -> bool {
        let (view, direction) = (self.judge.view(), place.direction);
        let sent = self.packet.before_nat();
        let mut seen = self.seen.afresh();
        // Before connection tracking and before NAT, where the packet goes is where it was sent.
        for kind in place.early {
            if place::is_exempt(view, *kind, direction, &sent) {
                continue;
            }
            match decide(self.judge, &place.subject, (*kind, direction), &sent, seen) {
                Ok(step) => {
                    self.steps.push(step);
                    return true;
                }
                Err(all) => seen = all,
            }
        }
        let point = place.subject.point.clone();
        // Failsafe ports are about the host's own processes, not about traffic through it.
        if place.last == Some(Kind::HostLocal) && place::is_failsafe(view, direction, self.packet) {
            let open = Reason::Failsafe;
            self.steps.push(Step::plain(point, direction, Verdict::Allow, open, seen.rules()));
            return true;
        }
        let outcome = match place.last {
            Some(kind) => decide(self.judge, &place.subject, (kind, direction), self.packet, seen),
            None => Err(seen),
        };
        match outcome {
            Ok(step) => {
                self.steps.push(step);
                return true;
            }
            Err(seen) if seen.is_nothing() => {}
            Err(seen) => {
                let (open, silent) = (Verdict::Allow, Reason::Undecided);
                self.steps.push(Step::plain(point, direction, open, silent, seen.rules()));
            }
        }
        false
    }

    fn nobody(&mut self, direction: Direction) {
        self.plain(Point::Unprotected, direction, Verdict::Allow, Reason::NotAnEndpoint);
    }

    fn plain(&mut self, point: Point, direction: Direction, verdict: Verdict, reason: Reason) {
        self.steps.push(Step::plain(point, direction, verdict, reason, Vec::new()));
    }
}
