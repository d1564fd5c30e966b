//! The packet's way: which endpoints it meets, in order (2.2, 2.3).

use std::sync::Arc;

use model::endpoint::HostTarget;
use model::{Action, HostEndpoint, IfaceName, NodeName, Protocol, WorkloadEndpoint};

use crate::decision::{Considered, Decision, Direction, Point, Reason, Step, Verdict};
use crate::endpoint::{Kind, Subject, decide};
use crate::judge::Judge;
use crate::packet::Packet;
use crate::view::{Failsafe, Overlay, View};

/// One question to a fresh [`Judge`]: see [`Judge::evaluate`].
pub fn evaluate(view: &View, packet: &Packet) -> Decision {
    Judge::new(view).evaluate(packet)
}

pub(crate) fn walk(judge: &Judge<'_>, packet: &Packet) -> Decision {
    let mut way = Way { judge, view: judge.view(), packet, steps: Vec::new() };
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
        judge.view().node_at(address).map_or(Self::Outside, Self::Node)
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
    view: &'a View,
    packet: &'a Packet,
    steps: Vec<Step>,
}

impl Way<'_, '_> {
    fn walk(&mut self) {
        let packet = self.packet;
        let (from, to) =
            (End::at(self.judge, packet.source), End::at(self.judge, packet.destination));
        let same_node = from.node().is_some() && from.node() == to.node();
        let tunnelled = self.view.overlay == Overlay::Tunnelled
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
        match &from {
            End::Pod(pod) => {
                self.wildcard_at_pod(&pod.node, Direction::Ingress);
                self.pod(pod, Direction::Egress);
                if !same_node {
                    self.host(&pod.node, Direction::Egress, Through::Forwarded { tunnelled });
                }
            }
            End::Node(node) => self.host(node, Direction::Egress, Through::Local { tunnelled }),
            End::Outside => self.nobody(Direction::Egress),
        }
        match &to {
            End::Pod(pod) => {
                if !same_node {
                    self.host(&pod.node, Direction::Ingress, Through::Forwarded { tunnelled });
                }
                self.pod(pod, Direction::Ingress);
                self.wildcard_at_pod(&pod.node, Direction::Egress);
            }
            End::Node(node) => {
                self.host(node, Direction::Ingress, Through::Local { tunnelled: false });
            }
            End::Outside => self.nobody(Direction::Ingress),
        }
    }

    /// The pod's egress policy, then the endpoint-to-host action (2.2). With `Pass` (RETURN) the
    /// host's other rules decide; a wildcard host endpoint, whose normal policy covers no workload
    /// interface, has nothing to say: allowed. Its policy before destination NAT sees the packet.
    fn pod_to_own_host(&mut self, pod: &WorkloadEndpoint) {
        if let Some(hep) = self.wildcard(&pod.node) {
            let subject = subject_of(&hep, false);
            let outcome = self.early(&subject, Direction::Ingress, &[Kind::PreDnat]);
            self.conclude(&subject, Direction::Ingress, outcome);
        }
        let always = self.packet.protocol == Protocol::ICMPV6
            && self.packet.icmp.is_some_and(|i| matches!(i.kind, 130..=133 | 135 | 136));
        if !always {
            self.pod(pod, Direction::Egress);
        }
        let verdict = match self.view.endpoint_to_host {
            Action::Deny if !always => Verdict::Deny,
            _ => Verdict::Allow,
        };
        self.plain(Point::Unprotected, Direction::Ingress, verdict, Reason::SameHost);
    }

    fn pod(&mut self, pod: &WorkloadEndpoint, direction: Direction) {
        let point = Point::Workload(pod.id.clone());
        let subject = Subject { labels: &pod.labels, profiles: &pod.profiles, point };
        let asked = (Kind::Workload, direction);
        let outcome = decide(self.judge, &subject, asked, self.packet, Vec::new());
        self.conclude(&subject, direction, outcome);
    }

    fn wildcard(&self, node: &NodeName) -> Option<Arc<HostEndpoint>> {
        let mut here = self.view.hosts.values().filter(|h| h.node == *node);
        here.find(|h| matches!(h.target, HostTarget::All)).cloned()
    }

    /// Forward policy of a wildcard host endpoint, and that before destination NAT, see packets by
    /// workload interfaces too (2.3).
    fn wildcard_at_pod(&mut self, node: &NodeName, direction: Direction) {
        let Some(hep) = self.wildcard(node) else { return };
        let subject = subject_of(&hep, true);
        let stages: &[Kind] = if direction == Direction::Ingress { &[Kind::PreDnat] } else { &[] };
        let outcome = self.early(&subject, direction, stages).or_else(|considered| {
            let asked = (Kind::HostForward, direction);
            decide(self.judge, &subject, asked, self.packet, considered)
        });
        self.conclude(&subject, direction, outcome);
    }

    /// Before connection tracking and before NAT an explicit verdict is final, and silence is not;
    /// failsafe ports are not asked about, and where the packet goes is where it was sent.
    fn early(
        &self,
        subject: &Subject<'_>,
        direction: Direction,
        stages: &[Kind],
    ) -> Result<Step, Vec<Considered>> {
        let packet = self.packet.before_nat();
        let mut considered = Vec::new();
        for kind in stages {
            let failsafe = match kind {
                // An answer cannot be told from a question here.
                Kind::Untracked => {
                    self.is_failsafe(direction, &packet)
                        || self.answers_failsafe(direction, &packet)
                }
                _ => self.is_failsafe(direction, &packet),
            };
            if failsafe {
                continue;
            }
            match decide(self.judge, subject, (*kind, direction), &packet, considered) {
                Ok(step) => return Ok(step),
                Err(all) => considered = all,
            }
        }
        Err(considered)
    }

    /// What a process of the host sends to a service meets untracked policy before anybody translates
    /// it, that of the interface which leads to the service; whether that decides. Where the packet
    /// goes in the end may be no interface that has any: a pod's, or the host's own.
    fn decided_as_sent(&mut self, node: &NodeName) -> bool {
        if self.packet.original.is_none() {
            return false;
        }
        let hep = self.leads_to(node, self.packet.before_nat().destination);
        let hep = hep.and_then(|interface| self.endpoint_of(node, &interface));
        let Some(hep) = hep.filter(|hep| !matches!(hep.target, HostTarget::All)) else {
            return false;
        };
        let subject = subject_of(&hep, false);
        let outcome = self.early(&subject, Direction::Egress, &[Kind::Untracked]);
        let decided = outcome.is_ok();
        self.conclude(&subject, Direction::Egress, outcome);
        decided
    }

    /// A host endpoint's say. What the host itself sends to a service is judged as it is translated,
    /// by the interface that it leaves by then (2.3).
    fn host(&mut self, node: &NodeName, dir: Direction, through: Through) {
        let forwarded = matches!(through, Through::Forwarded { .. });
        let sent = dir == Direction::Egress && !forwarded;
        if sent && self.decided_as_sent(node) {
            return;
        }
        let Some(hep) = self.host_endpoint(node, through) else {
            if !forwarded {
                self.nobody(dir);
            }
            return;
        };
        let subject = subject_of(&hep, forwarded);
        let tracked = matches!(hep.target, HostTarget::All);
        let stages: &[Kind] = match (dir, tracked) {
            (Direction::Ingress, true) => &[Kind::PreDnat],
            (Direction::Ingress, false) => &[Kind::Untracked, Kind::PreDnat],
            // A packet that leaves without having started here passes no such hook on its way out,
            // and a wildcard endpoint has no untracked policy.
            (Direction::Egress, false) if sent && self.packet.original.is_none() => {
                &[Kind::Untracked]
            }
            (Direction::Egress, _) => &[],
        };
        let considered = match self.early(&subject, dir, stages) {
            Ok(step) => return self.steps.push(step),
            Err(considered) => considered,
        };
        let kind = if forwarded { Kind::HostForward } else { Kind::HostLocal };
        // Failsafe ports are about the host's own processes, not about traffic through it.
        if !forwarded && self.is_failsafe(dir, self.packet) {
            let (point, open) = (subject.point.clone(), Reason::Failsafe);
            return self.steps.push(Step::plain(point, dir, Verdict::Allow, open, considered));
        }
        let outcome = decide(self.judge, &subject, (kind, dir), self.packet, considered);
        self.conclude(&subject, dir, outcome);
    }

    /// Where rules were looked at and none decided, that is a step, too.
    fn conclude(
        &mut self,
        subject: &Subject<'_>,
        direction: Direction,
        outcome: Result<Step, Vec<Considered>>,
    ) {
        let undecided = |considered| {
            let point = subject.point.clone();
            Step::plain(point, direction, Verdict::Allow, Reason::Undecided, considered)
        };
        match outcome {
            Ok(step) => self.steps.push(step),
            Err(considered) if considered.is_empty() => {}
            Err(considered) => self.steps.push(undecided(considered)),
        }
    }

    /// A failsafe port, or neighbour discovery: without that no IPv6 packet reaches a host, and no
    /// port would be safe.
    fn is_failsafe(&self, direction: Direction, p: &Packet) -> bool {
        if p.protocol == Protocol::ICMPV6 && p.icmp.is_some_and(|i| matches!(i.kind, 133..=136)) {
            return true;
        }
        let list = self.failsafe(direction);
        let far_end = far_end(direction, p);
        list.iter().any(|f| f.is(p.protocol, p.destination_port, far_end))
    }

    /// An answer from a failsafe port.
    fn answers_failsafe(&self, direction: Direction, p: &Packet) -> bool {
        let asked = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let far_end = far_end(direction, p);
        self.failsafe(asked).iter().any(|f| f.is(p.protocol, p.source_port, far_end))
    }

    fn failsafe(&self, direction: Direction) -> &[Failsafe] {
        match direction {
            Direction::Ingress => &self.view.failsafe_inbound,
            Direction::Egress => &self.view.failsafe_outbound,
        }
    }

    /// The host endpoint of the interface that the packet uses.
    fn host_endpoint(&self, node: &NodeName, through: Through) -> Option<Arc<HostEndpoint>> {
        let interface = self.interface(node, through)?;
        self.endpoint_of(node, &interface)
    }

    /// The host endpoint of an interface: one that names it, else one that expects one of its
    /// addresses, else a wildcard; of several the lowest name (2.3).
    fn endpoint_of(&self, node: &NodeName, uses: &IfaceName) -> Option<Arc<HostEndpoint>> {
        let interfaces = &self.view.nodes.get(node)?.interfaces;
        let empty = Vec::new();
        let addresses = interfaces.iter().find(|(n, _)| n == uses).map_or(&empty, |(_, a)| a);
        let here = || self.view.hosts.values().filter(|h| h.node == *node);
        let named = here().find(|h| matches!(&h.target, HostTarget::Iface(i) if i == uses));
        let expected = || {
            here().find(|h| {
                matches!(h.target, HostTarget::ByAddress)
                    && h.addresses.iter().any(|a| addresses.contains(a))
            })
        };
        let wildcard = || here().find(|h| matches!(h.target, HostTarget::All));
        named.or_else(expected).or_else(wildcard).cloned()
    }

    /// The interface that carries the packet at `node`: the tunnel device for encapsulated pod
    /// traffic; for a packet to one of the node's addresses the interface that has it; else the one
    /// that leads out.
    fn interface(&self, node: &NodeName, through: Through) -> Option<IfaceName> {
        let (Through::Forwarded { tunnelled } | Through::Local { tunnelled }) = through;
        if tunnelled {
            return "vxlan.calico".parse().ok();
        }
        let sent_to = self.packet.before_nat().destination;
        self.carries(node, [self.packet.source, self.packet.destination, sent_to])
    }

    /// The interface that the host's own packets to an address leave by, as routing has it first.
    fn leads_to(&self, node: &NodeName, destination: std::net::IpAddr) -> Option<IfaceName> {
        self.carries(node, [self.packet.source, destination, destination])
    }

    fn carries(&self, node: &NodeName, ends: [std::net::IpAddr; 3]) -> Option<IfaceName> {
        let interfaces = &self.view.nodes.get(node)?.interfaces;
        let has_end = |a: &Vec<std::net::IpAddr>| ends.iter().any(|e| a.contains(e));
        let owner = interfaces.iter().find(|(_, addresses)| has_end(addresses));
        owner.or_else(|| interfaces.first()).map(|(name, _)| name.clone())
    }

    fn nobody(&mut self, direction: Direction) {
        self.plain(Point::Unprotected, direction, Verdict::Allow, Reason::NotAnEndpoint);
    }

    fn plain(&mut self, point: Point, direction: Direction, verdict: Verdict, reason: Reason) {
        self.steps.push(Step::plain(point, direction, verdict, reason, Vec::new()));
    }
}

fn subject_of(hep: &HostEndpoint, forwarded: bool) -> Subject<'_> {
    let point = Point::Host(hep.name.clone(), forwarded);
    Subject { labels: &hep.labels, profiles: &hep.profiles, point }
}

fn far_end(direction: Direction, packet: &Packet) -> std::net::IpAddr {
    match direction {
        Direction::Ingress => packet.source,
        Direction::Egress => packet.destination,
    }
}

#[derive(Clone, Copy)]
enum Through {
    Local { tunnelled: bool },
    Forwarded { tunnelled: bool },
}
