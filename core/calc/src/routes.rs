//! Where prefixes are: pools, blocks, nodes and local workloads joined.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::network::{Block, EncapMode, Node, Pool};
use model::output::{Encap, Output, Route, RouteKind};
use model::{IpVersion, NodeName, WorkloadEndpoint, WorkloadId};

use crate::nodes::{self, Nodes};

/// Why somebody says that a prefix is somewhere. The least one wins; all are kept, so that the
/// result does not depend on the order in which they came (law 1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    rank: u8,
    kind: RouteKind,
    node: Option<NodeName>,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Workload(WorkloadId),
    Node,
    Block(IpNet),
    Pool(Arc<str>),
}

impl Claim {
    fn new(kind: RouteKind, node: Option<&NodeName>, source: Source) -> Self {
        // A pod's address beats a tunnel's, an own address of a node, its block and its pool.
        let rank = match kind {
            RouteKind::LocalWorkload => 0,
            RouteKind::RemoteTunnel => 1,
            RouteKind::RemoteHost => 2,
            RouteKind::RemoteWorkload => 3,
            RouteKind::LocalBlock => 4,
            RouteKind::Pool => 5,
        };
        Self { rank, kind, node: node.cloned(), source }
    }
}

/// All prefixes.
pub(crate) struct Routes {
    this: NodeName,
    pools: BTreeMap<Arc<str>, Pool>,
    blocks: HashMap<IpNet, Arc<Block>>,
    workloads: HashMap<WorkloadId, Vec<IpAddr>>,
    claims: BTreeMap<IpNet, Vec<Claim>>, // sorted, never empty
    by_node: HashMap<NodeName, BTreeMap<IpNet, u32>>, // prefixes claimed for other nodes, counted
    dirty: BTreeSet<IpNet>,
    emitted: BTreeMap<IpNet, Route>,
}

impl Routes {
    pub(crate) fn new(this: NodeName) -> Self {
        Self {
            this,
            pools: BTreeMap::new(),
            blocks: HashMap::new(),
            workloads: HashMap::new(),
            claims: BTreeMap::new(),
            by_node: HashMap::new(),
            dirty: BTreeSet::new(),
            emitted: BTreeMap::new(),
        }
    }

    pub(crate) fn set_pool(&mut self, name: Arc<str>, pool: Option<Pool>) {
        let new = pool.clone();
        let old = match pool {
            Some(pool) => self.pools.insert(name.clone(), pool),
            None => self.pools.remove(&name),
        };
        if old == new {
            return;
        }
        let claim = Claim::new(RouteKind::Pool, None, Source::Pool(name));
        let claims = |p: &Option<Pool>| -> Vec<(IpNet, Claim)> {
            p.iter().map(|p| (p.cidr.trunc(), claim.clone())).collect()
        };
        self.reclaim(claims(&old), claims(&new));
        for pool in old.iter().chain(&new) {
            self.touch_inside(pool.cidr.trunc());
        }
    }

    pub(crate) fn set_block(&mut self, cidr: IpNet, block: Option<Arc<Block>>) {
        let new = block.clone();
        let old = match block {
            Some(block) => self.blocks.insert(cidr, block),
            None => self.blocks.remove(&cidr),
        };
        let claims = |b: &Option<Arc<Block>>, routes: &Self| {
            b.as_deref().map(|b| routes.block_claims(cidr, b)).unwrap_or_default()
        };
        let (old, new) = (claims(&old, self), claims(&new, self));
        self.reclaim(old, new);
    }

    /// The block itself for the node that it is affine to, and each borrowed address for its own.
    fn block_claims(&self, key: IpNet, block: &Block) -> Vec<(IpNet, Claim)> {
        let mut claims = Vec::new();
        let source = || Source::Block(key);
        match &block.affinity {
            Some(node) if *node == self.this => {
                let claim = Claim::new(RouteKind::LocalBlock, None, source());
                claims.push((block.cidr.trunc(), claim));
            }
            Some(node) => {
                let claim = Claim::new(RouteKind::RemoteWorkload, Some(node), source());
                claims.push((block.cidr.trunc(), claim));
            }
            None => (),
        }
        for (address, node) in block.borrowed.iter().filter(|(_, node)| *node != self.this) {
            let claim = Claim::new(RouteKind::RemoteWorkload, Some(node), source());
            claims.push(((*address).into(), claim));
        }
        claims
    }

    /// A node changed: `old` and `new` are its objects, and `new` is already what [`Nodes`] says.
    pub(crate) fn set_node(&mut self, name: &NodeName, old: Option<&Node>, new: Option<&Node>) {
        if *name == self.this {
            let subnets = |n: Option<&Node>| n.map(|n| n.addresses.clone());
            if subnets(old) != subnets(new) {
                // Whoever shares a subnet with us may have changed for every remote prefix.
                self.dirty.extend(self.by_node.values().flat_map(BTreeMap::keys));
            }
            return;
        }
        let claims = |node: Option<&Node>| node.map(|n| node_claims(name, n)).unwrap_or_default();
        self.reclaim(claims(old), claims(new));
        self.dirty.extend(self.by_node.get(name).into_iter().flat_map(BTreeMap::keys));
    }

    /// A local workload is new, changed or gone.
    pub(crate) fn set_workload(&mut self, id: &WorkloadId, workload: Option<&WorkloadEndpoint>) {
        if self.workloads.get(id) == workload.map(|w| &w.addresses) {
            return;
        }
        let old = match workload {
            Some(w) => self.workloads.insert(id.clone(), w.addresses.clone()),
            None => self.workloads.remove(id),
        };
        let claim = Claim::new(RouteKind::LocalWorkload, None, Source::Workload(id.clone()));
        let claims = |addresses: &[IpAddr]| -> Vec<(IpNet, Claim)> {
            addresses.iter().map(|a| ((*a).into(), claim.clone())).collect()
        };
        let old = claims(&old.unwrap_or_default());
        self.reclaim(old, claims(workload.map_or(&[], |w| &w.addresses)));
    }

    /// Replaces the claims that one object made.
    fn reclaim(&mut self, mut old: Vec<(IpNet, Claim)>, mut new: Vec<(IpNet, Claim)>) {
        for claims in [&mut old, &mut new] {
            claims.sort_unstable();
            claims.dedup();
        }
        for (dst, claim) in old.iter().filter(|c| new.binary_search(c).is_err()) {
            self.unclaim(*dst, claim);
        }
        for (dst, claim) in new.iter().filter(|c| old.binary_search(c).is_err()) {
            self.claim(*dst, claim);
        }
    }

    fn claim(&mut self, dst: IpNet, claim: &Claim) {
        let claims = self.claims.entry(dst).or_default();
        if let Err(at) = claims.binary_search(claim) {
            claims.insert(at, claim.clone());
        }
        if let Some(node) = &claim.node {
            *self.by_node.entry(node.clone()).or_default().entry(dst).or_insert(0) += 1;
        }
        self.dirty.insert(dst);
    }

    fn unclaim(&mut self, dst: IpNet, claim: &Claim) {
        if let Some(claims) = self.claims.get_mut(&dst) {
            claims.retain(|c| c != claim);
            if claims.is_empty() {
                self.claims.remove(&dst);
            }
        }
        if let Some(node) = &claim.node
            && let Some(prefixes) = self.by_node.get_mut(node)
        {
            if let Some(count) = prefixes.get_mut(&dst) {
                *count -= 1;
                if *count == 0 {
                    prefixes.remove(&dst);
                }
            }
            if prefixes.is_empty() {
                self.by_node.remove(node);
            }
        }
        self.dirty.insert(dst);
    }

    /// Everything inside a prefix depends on the pool that has it.
    fn touch_inside(&mut self, net: IpNet) {
        let first = IpNet::new_assert(net.network(), 0);
        let last = IpNet::from(net.broadcast());
        let inside = self.claims.range(first..=last).map(|(dst, _)| *dst);
        self.dirty.extend(inside.filter(|dst| net.contains(dst)));
    }

    /// New and changed routes, and those that are gone.
    pub(crate) fn flush(&mut self, nodes: &Nodes) -> (Vec<Output>, Vec<Output>) {
        let (mut puts, mut gone) = (Vec::new(), Vec::new());
        for dst in std::mem::take(&mut self.dirty) {
            match self.resolve(dst, nodes) {
                Some(route) => {
                    if self.emitted.get(&dst) != Some(&route) {
                        puts.push(Output::Route(route.clone()));
                        self.emitted.insert(dst, route);
                    }
                }
                None => {
                    if self.emitted.remove(&dst).is_some() {
                        gone.push(Output::RouteGone(dst));
                    }
                }
            }
        }
        (puts, gone)
    }

    /// The route to a prefix; `None` as long as it lacks what it needs: its node's address, or its
    /// tunnel end if it is tunnelled by VXLAN (law 5).
    fn resolve(&self, dst: IpNet, nodes: &Nodes) -> Option<Route> {
        let claim = self.claims.get(&dst)?.first()?;
        let pool = match &claim.source {
            Source::Pool(name) => self.pools.get(name),
            _ => self.pool_of(&dst),
        };
        let mut route = Route {
            dst,
            kind: claim.kind,
            node: claim.node.clone(),
            node_address: None,
            same_subnet: false,
            encap: Encap::None,
            nat_outgoing: pool.is_some_and(|p| p.nat_outgoing),
        };
        if let Some(name) = &claim.node {
            let node = nodes.get(name)?;
            let version = IpVersion::of_net(&dst);
            let address = node.address(version)?.addr();
            let ours = nodes.get(&self.this).and_then(|n| n.address(version));
            route.node_address = Some(address);
            route.same_subnet = ours.is_some_and(|net| net.contains(&address));
            if claim.kind != RouteKind::RemoteHost {
                route.encap = pool.map_or(Encap::None, |p| encap(p, version, route.same_subnet));
            }
            if route.encap == Encap::Vxlan {
                nodes::vtep(name, node, version)?;
            }
        } else if claim.kind == RouteKind::Pool {
            let version = IpVersion::of_net(&dst);
            route.encap = pool.map_or(Encap::None, |p| encap(p, version, false));
        }
        Some(route)
    }

    /// The narrowest pool around a prefix; of equal ones the first by name.
    fn pool_of(&self, dst: &IpNet) -> Option<&Pool> {
        let around = self.pools.iter().filter(|(_, p)| p.cidr.trunc().contains(dst));
        let best = around.max_by_key(|(name, p)| (p.cidr.prefix_len(), std::cmp::Reverse(*name)));
        best.map(|(_, pool)| pool)
    }
}

/// A node's own and tunnel addresses.
fn node_claims(name: &NodeName, node: &Node) -> Vec<(IpNet, Claim)> {
    let claim = |kind| Claim::new(kind, Some(name), Source::Node);
    let own = node.addresses.iter().map(|n| (IpNet::from(n.addr()), claim(RouteKind::RemoteHost)));
    let tunnels = node.vxlan_addresses.iter().chain(&node.ipip_address);
    own.chain(tunnels.map(|a| (IpNet::from(*a), claim(RouteKind::RemoteTunnel)))).collect()
}

/// How packets of a pool reach a node. VXLAN and IP-in-IP exclude each other; IP-in-IP carries
/// IPv4 only.
fn encap(pool: &Pool, version: IpVersion, same_subnet: bool) -> Encap {
    let on = |mode| match mode {
        EncapMode::Never => false,
        EncapMode::Always => true,
        EncapMode::CrossSubnet => !same_subnet,
    };
    if on(pool.vxlan) {
        Encap::Vxlan
    } else if on(pool.ipip) && version == IpVersion::V4 {
        Encap::Ipip
    } else {
        Encap::None
    }
}
