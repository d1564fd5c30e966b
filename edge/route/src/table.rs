//! The main routing table.
//!
//! Ours are: every route of protocol 80, and whatever points at a pod's interface or at a VXLAN
//! device of ours, except what the kernel or a router advertisement put there. Routes to local pods
//! are of protocol 3 (`boot`), as on every Calico node, the others of protocol 80; all have metric
//! 1024.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use model::{IfaceName, InSync, IpVersion, NextHop};
use netlink::route::{Hop, MAIN_TABLE, Proto};
use netlink::{Refusal, Request, Result, Route, Socket, route};

use crate::interfaces::Interfaces;
use crate::ledger::Ledger;

/// Metric of every route of ours.
pub const METRIC: u32 = 1024;

/// Destination and metric: what the kernel tells routes of a table apart by.
type Key = (IpNet, u32);

/// The rest of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    proto: Proto,
    hop: Hop,
}

/// Wanted and observed routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    wanted: BTreeMap<IpNet, NextHop>,
    by_iface: BTreeMap<IfaceName, BTreeSet<IpNet>>,
    unresolved: BTreeSet<IpNet>,
    ledger: Ledger<Key, Entry>,
    refused: BTreeMap<IpNet, String>,
}

impl RouteTable {
    /// Says where packets to `dst` should go; memory only.
    pub fn want(&mut self, dst: IpNet, hop: Option<NextHop>) {
        if self.wanted.get(&dst) == hop.as_ref() {
            return;
        }
        if let Some(iface) = self.wanted.get(&dst).and_then(NextHop::iface)
            && let Some(all) = self.by_iface.get_mut(iface)
        {
            all.remove(&dst);
            if all.is_empty() {
                self.by_iface.remove(&iface.clone());
            }
        }
        if let Some(iface) = hop.as_ref().and_then(NextHop::iface) {
            self.by_iface.entry(iface.clone()).or_default().insert(dst);
        }
        match hop {
            Some(hop) => drop(self.wanted.insert(dst, hop)),
            None => drop(self.wanted.remove(&dst)),
        }
        self.unresolved.insert(dst);
    }

    /// Routes can use that interface now.
    pub fn usable(&mut self, iface: &IfaceName) {
        self.unresolved.extend(self.by_iface.get(iface).into_iter().flatten());
    }

    /// Routes can no longer use that interface: the kernel has dropped them, and did not say so.
    pub fn unusable(&mut self, iface: &IfaceName) {
        for dst in self.by_iface.get(iface).into_iter().flatten() {
            self.ledger.observed_one((*dst, METRIC), None);
            self.unresolved.insert(*dst);
        }
    }

    /// Everything is looked up again with the next apply: interfaces were read back.
    pub fn resolve_all(&mut self) {
        self.unresolved.extend(self.wanted.keys());
    }

    /// A notification by somebody else: the route is there, or no longer.
    pub fn noticed(&mut self, route: &Route, there: bool, interfaces: &Interfaces) {
        if route.table != MAIN_TABLE {
            return;
        }
        let key = (route.dst, route.metric);
        let entry = (there && is_ours(route, interfaces)).then(|| entry(route));
        if !there && self.ledger.has(&key).is_some_and(|has| *has != self::entry(route)) {
            return; // the old half of a replacement whose new half we know
        }
        self.ledger.observed_one(key, entry);
    }

    /// Reads everything back.
    pub fn resync(&mut self, socket: &mut Socket, interfaces: &Interfaces) -> Result<()> {
        let mut found = BTreeMap::new();
        for version in IpVersion::ALL {
            let all = route::list(socket, version, MAIN_TABLE)?;
            let ours = all.iter().filter(|r| is_ours(r, interfaces));
            found.extend(ours.map(|r| ((r.dst, r.metric), entry(r))));
        }
        self.ledger.observed(found);
        Ok(())
    }

    /// Makes the kernel so. Says whether something was changed.
    pub fn apply(
        &mut self,
        socket: &mut Socket,
        interfaces: &Interfaces,
        in_sync: Option<&InSync>,
    ) -> Result<bool> {
        for dst in std::mem::take(&mut self.unresolved) {
            let entry = self.wanted.get(&dst).and_then(|hop| resolve(hop, interfaces));
            self.refused.remove(&dst);
            self.ledger.want((dst, METRIC), entry);
        }
        let plan = self.ledger.plan(in_sync);
        let requests: Vec<Request> = plan
            .puts
            .iter()
            .map(|(key, entry)| route::put(&whole(*key, *entry)))
            .chain(plan.removals.iter().map(|(key, old)| route::delete(&whole(*key, *old))))
            .collect();
        if requests.is_empty() {
            return Ok(false);
        }
        let answers = socket.batch(&requests)?;
        let (puts, removals) = answers.split_at(plan.puts.len());
        for ((key, entry), answer) in plan.puts.into_iter().zip(puts) {
            match answer {
                Ok(()) => {
                    self.refused.remove(&key.0);
                    self.ledger.did_put(key, entry);
                }
                Err(refusal) => self.refuse(key, refusal),
            }
        }
        for ((key, _), answer) in plan.removals.into_iter().zip(removals) {
            match answer {
                Err(refusal) if !refusal.is_missing() => self.refuse(key, refusal),
                _ => self.ledger.did_remove(key),
            }
        }
        Ok(true)
    }

    fn refuse(&mut self, key: Key, refusal: &Refusal) {
        tracing::debug!(dst = %key.0, error = %refusal, "route refused");
        self.refused.insert(key.0, refusal.to_string());
    }

    /// Whether the kernel has the wanted route.
    pub fn has(&self, dst: &IpNet) -> bool {
        let key = (*dst, METRIC);
        let wanted = self.ledger.wanted(&key);
        wanted.is_some() && wanted == self.ledger.has(&key) && !self.unresolved.contains(dst)
    }

    /// Routes that the kernel refuses, and why.
    pub fn refused(&self) -> &BTreeMap<IpNet, String> {
        &self.refused
    }

    /// Number of routes of ours in the kernel.
    pub fn len(&self) -> usize {
        self.ledger.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ledger.is_empty()
    }
}

fn is_ours(route: &Route, interfaces: &Interfaces) -> bool {
    let foreign = [Proto::KERNEL, Proto::RA].contains(&route.proto);
    let ours = |name: &IfaceName| interfaces.is_workload(name) || crate::tunnel::is_tunnel(name);
    let iface = route.hop.index().and_then(|index| interfaces.name(index));
    route.proto == Proto::CALICO || (!foreign && iface.is_some_and(ours))
}

/// Which interface leads to an ordinary gateway is the kernel's choice, so it is not compared.
fn entry(route: &Route) -> Entry {
    let hop = match route.hop {
        Hop::Gateway { via, onlink: false, .. } => Hop::Gateway { via, index: None, onlink: false },
        hop => hop,
    };
    Entry { proto: route.proto, hop }
}

fn resolve(hop: &NextHop, interfaces: &Interfaces) -> Option<Entry> {
    let (proto, hop) = match hop {
        NextHop::Link(iface) => (Proto::BOOT, Hop::Link(interfaces.usable(iface)?)),
        NextHop::Gateway(via) => {
            (Proto::CALICO, Hop::Gateway { via: *via, index: None, onlink: false })
        }
        NextHop::Onlink(via, iface) => {
            let index = Some(interfaces.usable(iface)?);
            (Proto::CALICO, Hop::Gateway { via: *via, index, onlink: true })
        }
        NextHop::Blackhole => (Proto::CALICO, Hop::Blackhole),
    };
    Some(Entry { proto, hop })
}

fn whole((dst, metric): Key, entry: Entry) -> Route {
    Route { dst, table: MAIN_TABLE, metric, proto: entry.proto, hop: entry.hop, source: None }
}
