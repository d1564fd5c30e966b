//! One next hop per prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::output::{Encap, Route, RouteKind};
use model::{IfaceName, IpVersion, NextHop, NodeName, WorkloadId};

use crate::drivers::Refused;
use crate::tunnels::device;

/// Chooses among a local pod, what the calculation says about the prefix, and nothing.
#[derive(Debug, Default)]
pub struct RouteManager {
    local: BTreeMap<IpNet, BTreeMap<WorkloadId, IfaceName>>,
    cluster: BTreeMap<IpNet, Route>,
    by_node: BTreeMap<NodeName, BTreeSet<IpNet>>,
    tunnel_addresses: BTreeMap<(NodeName, IpVersion), IpAddr>,
    refused: BTreeMap<IpNet, &'static str>,
    dirty: BTreeSet<IpNet>,
}

impl RouteManager {
    /// A local pod has (or no longer has) that address behind that interface.
    pub fn want_local(&mut self, id: &WorkloadId, address: IpAddr, iface: Option<&IfaceName>) {
        let dst = IpNet::from(address);
        let owners = self.local.entry(dst).or_default();
        match iface {
            Some(iface) => drop(owners.insert(id.clone(), iface.clone())),
            None => drop(owners.remove(id)),
        }
        if owners.is_empty() {
            self.local.remove(&dst);
        }
        self.dirty.insert(dst);
    }

    /// The calculation says where a prefix is, or that it is nowhere any more.
    pub fn want_cluster(&mut self, dst: IpNet, route: Option<&Route>) {
        if let Some(old) = self.cluster.remove(&dst)
            && let Some(node) = &old.node
            && let Some(all) = self.by_node.get_mut(node)
        {
            all.remove(&dst);
            if all.is_empty() {
                self.by_node.remove(node);
            }
        }
        if let Some(route) = route {
            if let Some(node) = &route.node {
                self.by_node.entry(node.clone()).or_default().insert(dst);
            }
            self.cluster.insert(dst, route.clone());
        }
        self.dirty.insert(dst);
    }

    /// The tunnel address of another node is known, or no longer.
    pub fn want_tunnel_address(
        &mut self,
        node: &NodeName,
        version: IpVersion,
        address: Option<IpAddr>,
    ) {
        let key = (node.clone(), version);
        let old = match address {
            Some(address) => self.tunnel_addresses.insert(key, address),
            None => self.tunnel_addresses.remove(&key),
        };
        if old != address {
            self.dirty.extend(self.by_node.get(node).into_iter().flatten());
        }
    }

    /// What may have changed since the last call.
    pub fn drain(&mut self) -> Vec<(IpNet, Option<NextHop>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|dst| {
                self.refused.remove(&dst);
                let hop = match self.choose(&dst) {
                    Ok(hop) => hop,
                    Err(why) => {
                        self.refused.insert(dst, why);
                        None
                    }
                };
                (dst, hop)
            })
            .collect()
    }

    /// Prefixes that cannot be reached the way their pool wants.
    pub fn refused(&self) -> impl Iterator<Item = Refused> {
        let refused = |(dst, why): (&IpNet, &&str)| Refused {
            object: format!("route {dst}"),
            error: (*why).to_owned(),
        };
        self.refused.iter().map(refused)
    }

    fn choose(&self, dst: &IpNet) -> Result<Option<NextHop>, &'static str> {
        let local = self.local.get(dst).and_then(|owners| owners.values().next());
        if let Some(iface) = local {
            return Ok(Some(NextHop::Link(iface.clone())));
        }
        let Some(route) = self.cluster.get(dst) else { return Ok(None) };
        match route.kind {
            RouteKind::LocalBlock => Ok(Some(NextHop::Blackhole)),
            RouteKind::RemoteWorkload | RouteKind::RemoteTunnel => self.remote(route),
            // The kernel has its own routes to the others, and a pool is no destination.
            RouteKind::LocalWorkload | RouteKind::RemoteHost | RouteKind::Pool => Ok(None),
        }
    }

    fn remote(&self, route: &Route) -> Result<Option<NextHop>, &'static str> {
        let version = IpVersion::of_net(&route.dst);
        match (route.encap, route.same_subnet) {
            (Encap::Vxlan, _) => {
                let node = route.node.as_ref();
                let end = node.and_then(|n| self.tunnel_addresses.get(&(n.clone(), version)));
                // Not an error: the far node will publish its tunnel end.
                Ok(end.map(|end| NextHop::Onlink(*end, device(version))))
            }
            (Encap::None | Encap::Ipip, true) => Ok(route.node_address.map(NextHop::Gateway)),
            (Encap::None, false) => Err("the node is on another subnet and the pool is not \
                                         encapsulated: this needs BGP, which is not built yet"),
            (Encap::Ipip, false) => Err("IP-in-IP is not built yet: use VXLAN"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(kind: RouteKind, encap: Encap, same_subnet: bool) -> Route {
        Route {
            dst: dst(),
            kind,
            node: Some("far".into()),
            node_address: Some("192.0.2.2".parse().unwrap()),
            same_subnet,
            encap,
            nat_outgoing: false,
        }
    }

    fn dst() -> IpNet {
        "10.65.1.0/26".parse().unwrap()
    }

    fn hop(manager: &mut RouteManager) -> Option<NextHop> {
        let changes = manager.drain();
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes[0].1.clone()
    }

    #[test]
    fn the_calculation_decides_between_tunnel_neighbour_and_nothing() {
        let gateway = NextHop::Gateway("192.0.2.2".parse().unwrap());
        let end: IpAddr = "10.65.1.0".parse().unwrap();
        let onlink = NextHop::Onlink(end, "vxlan.calico".parse().unwrap());
        for (kind, encap, same_subnet, want) in [
            (RouteKind::RemoteWorkload, Encap::Vxlan, true, Some(onlink.clone())),
            (RouteKind::RemoteTunnel, Encap::Vxlan, false, Some(onlink)),
            (RouteKind::RemoteWorkload, Encap::None, true, Some(gateway.clone())),
            (RouteKind::RemoteWorkload, Encap::Ipip, true, Some(gateway)),
            (RouteKind::RemoteWorkload, Encap::None, false, None),
            (RouteKind::LocalBlock, Encap::Vxlan, true, Some(NextHop::Blackhole)),
            (RouteKind::Pool, Encap::Vxlan, false, None),
            (RouteKind::RemoteHost, Encap::None, true, None),
        ] {
            let mut manager = RouteManager::default();
            manager.want_tunnel_address(&"far".into(), IpVersion::V4, Some(end));
            let route = route(kind, encap, same_subnet);
            manager.want_cluster(dst(), Some(&route));
            assert_eq!(hop(&mut manager), want, "{route:?}");
        }
    }

    #[test]
    fn a_tunnel_route_waits_for_its_far_end() {
        let mut manager = RouteManager::default();
        let remote = route(RouteKind::RemoteWorkload, Encap::Vxlan, false);
        manager.want_cluster(dst(), Some(&remote));
        assert_eq!(hop(&mut manager), None);
        manager.want_tunnel_address(&"other".into(), IpVersion::V4, "10.65.2.0".parse().ok());
        manager.want_tunnel_address(&"far".into(), IpVersion::V6, "fd00::".parse().ok());
        let _ = manager.drain();
        manager.want_tunnel_address(&"far".into(), IpVersion::V4, "10.65.1.0".parse().ok());
        assert!(hop(&mut manager).is_some());
        manager.want_tunnel_address(&"far".into(), IpVersion::V4, None);
        assert_eq!(hop(&mut manager), None);
    }

    #[test]
    fn a_local_pod_wins_until_it_is_gone() {
        let mut manager = RouteManager::default();
        let address: IpAddr = "10.65.1.5".parse().unwrap();
        let dst = IpNet::from(address);
        let remote = Route { dst, ..route(RouteKind::RemoteWorkload, Encap::None, true) };
        let pod = |name: &str| WorkloadId { namespace: "ns".into(), name: name.into() };
        let iface = |name: &str| name.parse::<IfaceName>().unwrap();
        manager.want_cluster(dst, Some(&remote));
        manager.want_local(&pod("b"), address, Some(&iface("calib")));
        assert_eq!(hop(&mut manager), Some(NextHop::Link(iface("calib"))));
        manager.want_local(&pod("a"), address, Some(&iface("calia")));
        assert_eq!(hop(&mut manager), Some(NextHop::Link(iface("calia"))), "the first by name");
        manager.want_local(&pod("a"), address, None);
        assert_eq!(hop(&mut manager), Some(NextHop::Link(iface("calib"))));
        manager.want_local(&pod("b"), address, None);
        assert_eq!(hop(&mut manager), Some(NextHop::Gateway("192.0.2.2".parse().unwrap())));
        manager.want_cluster(dst, None);
        assert_eq!(hop(&mut manager), None);
        assert!(manager.by_node.is_empty() && manager.local.is_empty());
    }

    #[test]
    fn what_cannot_be_reached_is_reported_until_it_changes() {
        let mut manager = RouteManager::default();
        manager.want_cluster(dst(), Some(&route(RouteKind::RemoteWorkload, Encap::Ipip, false)));
        let _ = manager.drain();
        assert_eq!(manager.refused().next().unwrap().object, "route 10.65.1.0/26");
        manager.want_cluster(dst(), None);
        let _ = manager.drain();
        assert_eq!(manager.refused().count(), 0);
    }
}
