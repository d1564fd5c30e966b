//! The places on a packet's way where policy is asked: whose, at which stages (2.2, 2.3).

use std::net::IpAddr;

use model::endpoint::HostTarget;
use model::{HostEndpoint, IfaceName, NodeName, Protocol, WorkloadEndpoint};

use crate::decision::{Direction, Point};
use crate::endpoint::{Kind, Subject};
use crate::judge::Judge;
use crate::packet::Packet;
use crate::view::{Failsafe, View};

/// One endpoint that is asked about a packet.
pub(crate) struct Place<'v> {
    pub(crate) subject: Subject<'v>,
    pub(crate) direction: Direction,
    /// Asked first, about the packet before destination NAT; an explicit verdict is final, and silence
    /// is not.
    pub(crate) early: &'static [Kind],
    /// Asked when those before were silent.
    pub(crate) last: Option<Kind>,
}

/// How a packet passes a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// From or to a process of it.
    Local { tunnelled: bool },
    /// From or to a pod.
    Forwarded { tunnelled: bool },
}

/// Finds the places.
pub(crate) struct Finder<'a, 'v> {
    pub(crate) judge: &'a Judge<'v>,
    /// The packet's addresses: an interface that has one of them carries it.
    pub(crate) ends: &'a [IpAddr],
    /// Whether destination NAT changed the packet.
    pub(crate) translated: bool,
}

impl<'v> Finder<'_, 'v> {
    /// Where a pod's packet is judged on its way out; `through` says how it leaves the node, if it
    /// does.
    pub(crate) fn leaves(
        &self,
        pod: &'v WorkloadEndpoint,
        through: Option<Through>,
    ) -> impl Iterator<Item = Place<'v>> {
        let host = through.and_then(|through| self.host(&pod.node, Direction::Egress, through));
        let wildcard = self.wildcard_at_pod(&pod.node, Direction::Ingress);
        [wildcard, Some(at_pod(pod, Direction::Egress)), host].into_iter().flatten()
    }

    /// Where a packet to a pod is judged on its way in; `through` says how it came to the node, if
    /// it was not there before.
    pub(crate) fn arrives(
        &self,
        pod: &'v WorkloadEndpoint,
        through: Option<Through>,
    ) -> impl Iterator<Item = Place<'v>> {
        let host = through.and_then(|through| self.host(&pod.node, Direction::Ingress, through));
        let wildcard = self.wildcard_at_pod(&pod.node, Direction::Egress);
        [host, Some(at_pod(pod, Direction::Ingress)), wildcard].into_iter().flatten()
    }

    /// Forward policy of a wildcard host endpoint, and that before destination NAT, see packets by
    /// workload interfaces too (2.3).
    fn wildcard_at_pod(&self, node: &NodeName, direction: Direction) -> Option<Place<'v>> {
        let subject = subject_of(self.wildcard(node)?, true);
        let early: &[Kind] = if direction == Direction::Ingress { &[Kind::PreDnat] } else { &[] };
        Some(Place { subject, direction, early, last: Some(Kind::HostForward) })
    }

    /// The host endpoint of the interface that the packet uses at `node`. What a process of the host
    /// sends to a service met untracked policy before it was translated ([`Self::as_sent`]).
    pub(crate) fn host(
        &self,
        node: &NodeName,
        direction: Direction,
        through: Through,
    ) -> Option<Place<'v>> {
        let hep = self.endpoint_of(node, &self.interface(node, through)?)?;
        let forwarded = matches!(through, Through::Forwarded { .. });
        let early: &[Kind] = match (direction, &hep.target) {
            (Direction::Ingress, HostTarget::All) => &[Kind::PreDnat],
            (Direction::Ingress, _) => &[Kind::Untracked, Kind::PreDnat],
            // A packet that leaves without having started here passes no such hook on its way out,
            // and a wildcard endpoint has no untracked policy.
            (Direction::Egress, HostTarget::All) => &[],
            (Direction::Egress, _) if forwarded || self.translated => &[],
            (Direction::Egress, _) => &[Kind::Untracked],
        };
        let last = if forwarded { Kind::HostForward } else { Kind::HostLocal };
        Some(Place { subject: subject_of(hep, forwarded), direction, early, last: Some(last) })
    }

    /// The wildcard host endpoint before destination NAT, which sees a pod's packet to its own host.
    pub(crate) fn before_own_host(&self, node: &NodeName) -> Option<Place<'v>> {
        let subject = subject_of(self.wildcard(node)?, false);
        let direction = Direction::Ingress;
        Some(Place { subject, direction, early: &[Kind::PreDnat], last: None })
    }

    /// Untracked policy of the interface that leads to where a process of the host sends a packet,
    /// which a wildcard endpoint has none of.
    pub(crate) fn as_sent(&self, node: &NodeName) -> Option<Place<'v>> {
        let hep = self.endpoint_of(node, &self.carries(node)?)?;
        let subject = subject_of(hep, false);
        let untracked = !matches!(hep.target, HostTarget::All);
        let direction = Direction::Egress;
        untracked.then_some(Place { subject, direction, early: &[Kind::Untracked], last: None })
    }

    fn wildcard(&self, node: &NodeName) -> Option<&'v HostEndpoint> {
        let here = self.judge.hosts_on(node).iter().copied();
        here.into_iter().find(|h| matches!(h.target, HostTarget::All))
    }

    /// The host endpoint of an interface: one that names it, else one that expects one of its
    /// addresses, else a wildcard; of several the lowest name (2.3).
    fn endpoint_of(&self, node: &NodeName, uses: &IfaceName) -> Option<&'v HostEndpoint> {
        let interfaces = &self.judge.view().nodes.get(node)?.interfaces;
        let addresses = interfaces.iter().find(|(n, _)| n == uses).map(|(_, a)| a.as_slice());
        let addresses = addresses.unwrap_or_default();
        let here = || self.judge.hosts_on(node).iter().copied();
        let named = here().find(|h| matches!(&h.target, HostTarget::Iface(i) if i == uses));
        let expected = || {
            here().find(|h| {
                matches!(h.target, HostTarget::ByAddress)
                    && h.addresses.iter().any(|a| addresses.contains(a))
            })
        };
        named.or_else(expected).or_else(|| self.wildcard(node))
    }

    /// The interface that carries the packet at `node`: the tunnel device for encapsulated pod
    /// traffic; for a packet to one of the node's addresses the interface that has it; else the one
    /// that leads out.
    fn interface(&self, node: &NodeName, through: Through) -> Option<IfaceName> {
        let (Through::Forwarded { tunnelled } | Through::Local { tunnelled }) = through;
        if tunnelled {
            return "vxlan.calico".parse().ok();
        }
        self.carries(node)
    }

    fn carries(&self, node: &NodeName) -> Option<IfaceName> {
        let interfaces = &self.judge.view().nodes.get(node)?.interfaces;
        let has_end = |a: &Vec<IpAddr>| self.ends.iter().any(|e| a.contains(e));
        let owner = interfaces.iter().find(|(_, addresses)| has_end(addresses));
        owner.or_else(|| interfaces.first()).map(|(name, _)| name.clone())
    }
}

/// A pod's own policy.
pub(crate) fn at_pod(pod: &WorkloadEndpoint, direction: Direction) -> Place<'_> {
    let point = Point::Workload(pod.id.clone());
    let subject = Subject { labels: &pod.labels, profiles: &pod.profiles, point };
    Place { subject, direction, early: &[], last: Some(Kind::Workload) }
}

fn subject_of(hep: &HostEndpoint, forwarded: bool) -> Subject<'_> {
    let point = Point::Host(hep.name.clone(), forwarded);
    Subject { labels: &hep.labels, profiles: &hep.profiles, point }
}

/// Whether early policy of this kind is not asked about the packet, because its port is a failsafe one.
/// Before connection tracking an answer cannot be told from a question.
pub(crate) fn is_exempt(view: &View, kind: Kind, direction: Direction, packet: &Packet) -> bool {
    is_failsafe(view, direction, packet)
        || (kind == Kind::Untracked && answers_failsafe(view, direction, packet))
}

/// A failsafe port, or neighbour discovery: without that no IPv6 packet reaches a host, and no
/// port would be safe.
pub(crate) fn is_failsafe(view: &View, direction: Direction, p: &Packet) -> bool {
    if p.protocol == Protocol::ICMPV6 && p.icmp.is_some_and(|i| matches!(i.kind, 133..=136)) {
        return true;
    }
    let far_end = far_end(direction, p);
    failsafe(view, direction).iter().any(|f| f.is(p.protocol, p.destination_port, far_end))
}

/// An answer from a failsafe port.
fn answers_failsafe(view: &View, direction: Direction, p: &Packet) -> bool {
    let asked = match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let far_end = far_end(direction, p);
    failsafe(view, asked).iter().any(|f| f.is(p.protocol, p.source_port, far_end))
}

fn failsafe(view: &View, direction: Direction) -> &[Failsafe] {
    match direction {
        Direction::Ingress => &view.failsafe_inbound,
        Direction::Egress => &view.failsafe_outbound,
    }
}

fn far_end(direction: Direction, packet: &Packet) -> IpAddr {
    match direction {
        Direction::Ingress => packet.source,
        Direction::Egress => packet.destination,
    }
}
