//! Many questions about one view: what they have in common is worked out once.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use model::hash::FastMap;
use model::policy::{NetworkSet, NetworkSetId, Tier};
use model::{HostEndpoint, IpVersion, NodeName, Policy, WorkloadEndpoint};

use crate::decision::{Decision, Direction, Point};
use crate::endpoint::{self, Kind, Seen, Subject};
use crate::indexed::Index;
use crate::order::Order;
use crate::packet::Packet;
use crate::path;
use crate::standing::Standing;
use crate::view::View;

/// Tiers that act on an endpoint, in order, each with its policies in order.
pub(crate) type Applied<'a> = Vec<(&'a Tier, Vec<&'a Policy>)>;

/// A view under questioning.
///
/// The first question about an endpoint and direction looks for the policies that its labels leave;
/// later ones at those that apply. Memory grows with the endpoints and addresses that were asked about. The answers are
/// those of [`evaluate`](crate::evaluate), which is one question to a fresh judge.
#[derive(Debug)]
pub struct Judge<'a> {
    view: &'a View,
    workloads: FastMap<IpAddr, Vec<&'a WorkloadEndpoint>>,
    hosts: FastMap<IpAddr, Vec<&'a HostEndpoint>>,
    hosts_on: FastMap<&'a NodeName, Vec<&'a HostEndpoint>>,
    nodes: FastMap<IpAddr, &'a NodeName>,
    standing: OnceCell<Standing<'a>>,
    prefixes: OnceCell<Prefixes<'a>>,
    applied: RefCell<FastMap<(Point, Kind, Direction), Rc<Applied<'a>>>>,
    indexed: RefCell<FastMap<(Point, Kind, Direction), Rc<Index<'a>>>>,
    sets: RefCell<FastMap<IpAddr, Rc<[&'a NetworkSet]>>>,
}

impl<'a> Judge<'a> {
    /// Reads the endpoints' addresses; cost: one look at each.
    pub fn new(view: &'a View) -> Self {
        let mut workloads: FastMap<_, Vec<_>> = FastMap::default();
        for w in view.workloads.values() {
            for address in &w.addresses {
                workloads.entry(*address).or_default().push(w.as_ref());
            }
        }
        let mut hosts: FastMap<_, Vec<_>> = FastMap::default();
        let mut hosts_on: FastMap<_, Vec<_>> = FastMap::default();
        for h in view.hosts.values() {
            hosts_on.entry(&h.node).or_default().push(h.as_ref());
            for address in &h.addresses {
                hosts.entry(*address).or_default().push(h.as_ref());
            }
        }
        let mut nodes = FastMap::default();
        for (name, node) in &view.nodes {
            for address in node.interfaces.iter().flat_map(|(_, addresses)| addresses) {
                nodes.entry(*address).or_insert(name);
            }
        }
        Self {
            view,
            workloads,
            hosts,
            hosts_on,
            nodes,
            standing: OnceCell::new(),
            prefixes: OnceCell::new(),
            applied: RefCell::default(),
            indexed: RefCell::default(),
            sets: RefCell::default(),
        }
    }

    /// Says what happens to the first packet of a flow, and why.
    ///
    /// The packet meets, in this order, whatever of it exists: the source's own egress policy (pod
    /// or host), the source node's forward policy on the way out, the destination node's policy on
    /// the way in, the destination's own ingress policy; the forward policy of a wildcard host
    /// endpoint also before the first and after the last, where they are pods'. All must allow.
    pub fn evaluate(&self, packet: &Packet) -> Decision {
        path::walk(self, packet, Seen::All(Vec::new()))
    }

    /// What [`Self::evaluate`] says, but for the rules that it considered: for many packets.
    ///
    /// Cost: for an endpoint that was asked about before, and addresses and ports that it met, a few
    /// lookups and n / 64 steps, n the rules on it; else a look at each different side of them. Memory: n
    /// bits an address and port, and less than 16 MiB an endpoint and direction.
    pub fn decide(&self, packet: &Packet) -> Decision {
        path::walk(self, packet, Seen::Any(false))
    }

    pub(crate) fn view(&self) -> &'a View {
        self.view
    }

    /// All policies, in order.
    pub(crate) fn standing(&self) -> &Standing<'a> {
        self.standing.get_or_init(|| Standing::new(self.view))
    }

    /// Pods that have `address`, by name.
    pub(crate) fn workloads_at(&self, address: IpAddr) -> &[&'a WorkloadEndpoint] {
        self.workloads.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Host endpoints that expect `address`, by name.
    pub(crate) fn hosts_at(&self, address: IpAddr) -> &[&'a HostEndpoint] {
        self.hosts.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The node that has `address` on one of its own interfaces; of several the first by name.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<&'a NodeName> {
        self.nodes.get(&address).copied()
    }

    /// Host endpoints of a node, by name.
    pub(crate) fn hosts_on(&self, node: &NodeName) -> &[&'a HostEndpoint] {
        self.hosts_on.get(node).map_or(&[], Vec::as_slice)
    }

    /// Network sets that contain `address`, by name.
    pub(crate) fn sets_at(&self, address: IpAddr) -> Rc<[&'a NetworkSet]> {
        let look = || {
            let prefixes = self.prefixes.get_or_init(|| Prefixes::new(self.view));
            let sets: &'a BTreeMap<_, _> = &self.view.network_sets;
            let found = prefixes.containing(address);
            found.into_iter().filter_map(|id| sets.get(id).map(AsRef::as_ref)).collect()
        };
        self.sets.borrow_mut().entry(address).or_insert_with(look).clone()
    }

    /// What acts on `subject`.
    pub(crate) fn applied(
        &self,
        subject: &Subject<'_>,
        kind: Kind,
        direction: Direction,
    ) -> Rc<Applied<'a>> {
        let key = (subject.point.clone(), kind, direction);
        let look = || Rc::new(endpoint::tiers_for(self, subject, kind, direction));
        self.applied.borrow_mut().entry(key).or_insert_with(look).clone()
    }

    /// The same, prepared for many packets.
    pub(crate) fn indexed(
        &self,
        subject: &Subject<'_>,
        kind: Kind,
        direction: Direction,
    ) -> Rc<Index<'a>> {
        let key = (subject.point.clone(), kind, direction);
        let known = self.indexed.borrow().get(&key).cloned();
        known.unwrap_or_else(|| {
            let made = Rc::new(Index::new(Order::new(self, subject, (kind, direction))));
            self.indexed.borrow_mut().insert(key, made.clone());
            made
        })
    }
}

/// The prefixes of all network sets.
#[derive(Debug)]
struct Prefixes<'a> {
    /// Families and lengths that there are.
    lengths: BTreeSet<(IpVersion, u8)>,
    sets: FastMap<IpNet, Vec<&'a NetworkSetId>>,
}

impl<'a> Prefixes<'a> {
    fn new(view: &'a View) -> Self {
        let (mut lengths, mut sets) = (BTreeSet::new(), FastMap::<_, Vec<_>>::default());
        for (id, set) in &view.network_sets {
            for net in &set.nets {
                lengths.insert((IpVersion::of_net(net), net.prefix_len()));
                sets.entry(net.trunc()).or_default().push(id);
            }
        }
        Self { lengths, sets }
    }

    fn containing(&self, address: IpAddr) -> BTreeSet<&'a NetworkSetId> {
        let own = IpVersion::of(address);
        let lengths = self.lengths.iter().filter(|(version, _)| *version == own);
        let around = lengths.filter_map(|(_, length)| IpNet::new(address, *length).ok());
        around.filter_map(|net| self.sets.get(&net.trunc())).flatten().copied().collect()
    }
}
