//! A pod's own elements: its entries in the dispatch maps, its addresses, its extra sources.

use std::net::IpAddr;

use ipnet::IpNet;
use model::output::LocalWorkload;
use model::{IpVersion, WorkloadEndpoint};

use crate::fixed;
use crate::name::{self, Direction};
use crate::object::{Chain, Key, Name, Verdict};
use crate::table::Table;

/// Whether an endpoint has anything of that family. If not, its packets are an unknown pod's: dropped,
/// like those with a source that is not the pod's. Every chain costs whenever the kernel takes in a
/// transaction, because it checks all ways through a table.
pub(crate) fn speaks(endpoint: &WorkloadEndpoint, version: IpVersion) -> bool {
    let addresses = endpoint.addresses.iter().any(|a| IpVersion::of(*a) == version);
    addresses || endpoint.allowed_sources.iter().any(|n| IpVersion::of_net(n) == version)
}

/// Whether a pod is to be taken away first, because elements of it would stay.
pub(crate) fn moved(old: &LocalWorkload, new: &LocalWorkload) -> bool {
    let (a, b) = (&old.endpoint, &new.endpoint);
    a.iface != b.iface || a.addresses != b.addresses || a.allowed_sources != b.allowed_sources
}

/// Whether what decides about the pod's packets is another.
pub(crate) fn judged_otherwise(old: &LocalWorkload, new: &LocalWorkload) -> bool {
    moved(old, new) || old.tiers != new.tiers || old.endpoint.profiles != new.endpoint.profiles
}

/// Wants a pod's elements; `chains` are those to it and from it.
pub(crate) fn put(
    workload: &LocalWorkload,
    chains: &[Name; 2],
    version: IpVersion,
    table: &mut Table,
) {
    let endpoint = &workload.endpoint;
    if !speaks(endpoint, version) {
        return;
    }
    for (direction, chain) in Direction::ALL.into_iter().zip(chains) {
        let map = direction.choose(fixed::TO_PODS, fixed::FROM_PODS);
        let key = Key::Iface(endpoint.iface.clone());
        table.put_element(&map.into(), key, Some(Verdict::Goto(chain.clone())));
    }
    for address in of_family(endpoint, version) {
        let key = fixed::source_key(&endpoint.iface, address);
        table.put_element(&fixed::POD_SOURCES.into(), key, None);
    }
    let mine = endpoint.allowed_sources.iter().filter(|n| IpVersion::of_net(n) == version);
    let nets: Vec<IpNet> = mine.copied().collect();
    if nets.is_empty() {
        return;
    }
    let chain = name::extra_sources(&endpoint.iface);
    let comment = format!("allowed sources of pod {}", endpoint.id);
    table.put_chain(chain.clone(), Chain::regular(comment, fixed::extra_sources(nets)));
    let key = Key::Iface(endpoint.iface.clone());
    table.put_element(&fixed::POD_EXTRA_SOURCES.into(), key, Some(Verdict::Jump(chain)));
}

/// Wants nothing of it any more.
pub(crate) fn remove(workload: &LocalWorkload, table: &mut Table) {
    let endpoint = &workload.endpoint;
    let iface = Key::Iface(endpoint.iface.clone());
    for map in [fixed::FROM_PODS, fixed::TO_PODS, fixed::POD_EXTRA_SOURCES] {
        table.remove_element(&map.into(), &iface);
    }
    for address in &endpoint.addresses {
        let key = fixed::source_key(&endpoint.iface, *address);
        table.remove_element(&fixed::POD_SOURCES.into(), &key);
    }
    table.remove_chain(&name::extra_sources(&endpoint.iface));
}

fn of_family(endpoint: &WorkloadEndpoint, version: IpVersion) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().copied().filter(move |a| IpVersion::of(*a) == version)
}
