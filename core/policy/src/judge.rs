//! Many questions about one view: what they have in common is worked out once.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use model::policy::{NetworkSet, Tier};
use model::{HostEndpoint, Policy, WorkloadEndpoint};

use crate::decision::{Decision, Direction, Point};
use crate::endpoint::{self, Kind, Subject};
use crate::packet::Packet;
use crate::path;
use crate::view::View;

/// Tiers that act on an endpoint, in order, each with its policies in order.
pub(crate) type Applied<'a> = Vec<(&'a Tier, Vec<&'a Policy>)>;

/// A view under questioning.
///
/// The first question about an endpoint and direction looks at every policy; later ones at those
/// that apply. Memory grows with the endpoints and addresses that were asked about. The answers are
/// those of [`evaluate`](crate::evaluate), which is one question to a fresh judge.
#[derive(Debug)]
pub struct Judge<'a> {
    view: &'a View,
    workloads: HashMap<IpAddr, Vec<&'a WorkloadEndpoint>>,
    hosts: HashMap<IpAddr, Vec<&'a HostEndpoint>>,
    applied: RefCell<HashMap<(Point, Kind, Direction), Rc<Applied<'a>>>>,
    sets: RefCell<HashMap<IpAddr, Rc<[&'a NetworkSet]>>>,
}

impl<'a> Judge<'a> {
    /// Reads the endpoints' addresses; cost: one look at each.
    pub fn new(view: &'a View) -> Self {
        let mut workloads: HashMap<_, Vec<_>> = HashMap::new();
        for w in view.workloads.values() {
            for address in &w.addresses {
                workloads.entry(*address).or_default().push(w.as_ref());
            }
        }
        let mut hosts: HashMap<_, Vec<_>> = HashMap::new();
        for h in view.hosts.values() {
            for address in &h.addresses {
                hosts.entry(*address).or_default().push(h.as_ref());
            }
        }
        Self { view, workloads, hosts, applied: RefCell::default(), sets: RefCell::default() }
    }

    /// Says what happens to the first packet of a flow, and why.
    ///
    /// The packet meets, in this order, whatever of it exists: the source's own egress policy (pod
    /// or host), the source node's forward policy on the way out, the destination node's policy on
    /// the way in, the destination's own ingress policy; the forward policy of a wildcard host
    /// endpoint also before the first and after the last, where they are pods'. All must allow.
    pub fn evaluate(&self, packet: &Packet) -> Decision {
        path::walk(self, packet)
    }

    pub(crate) fn view(&self) -> &'a View {
        self.view
    }

    /// Pods that have `address`, by name.
    pub(crate) fn workloads_at(&self, address: IpAddr) -> &[&'a WorkloadEndpoint] {
        self.workloads.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Host endpoints that expect `address`, by name.
    pub(crate) fn hosts_at(&self, address: IpAddr) -> &[&'a HostEndpoint] {
        self.hosts.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Network sets that contain `address`.
    pub(crate) fn sets_at(&self, address: IpAddr) -> Rc<[&'a NetworkSet]> {
        let look = || {
            let sets: &'a BTreeMap<_, _> = &self.view.network_sets;
            let all = sets.values().map(AsRef::as_ref);
            all.filter(|s: &&NetworkSet| s.nets.iter().any(|n| n.contains(&address))).collect()
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
        let look = || Rc::new(endpoint::tiers_for(self.view, subject, kind, direction));
        self.applied.borrow_mut().entry(key).or_insert_with(look).clone()
    }
}
