//! BGP peers and settings.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{Errors, read, selector};
use crate::net::{address, duration, prefix};
use crate::v3::{BGPConfigurationSpec, BGPPeerSpec};

/// The address in `ADDRESS`, `IPv4:PORT` or `[IPv6]:PORT`.
fn peer_address(text: &str) -> Result<IpAddr, String> {
    let port = || text.parse::<SocketAddr>().ok().filter(|s| s.port() > 0).map(|s| s.ip());
    text.parse().ok().or_else(port).ok_or_else(|| {
        format!("{text:?} is no peer address (want ADDRESS, IPv4:PORT or [IPv6]:PORT)")
    })
}

pub(crate) fn peer(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(peer) = read::<BGPPeerSpec>(object, errors) else { return };
    let spec = &peer.spec;
    for (field, text) in [
        ("spec.nodeSelector", &spec.node_selector),
        ("spec.peerSelector", &spec.peer_selector),
        ("spec.localWorkloadSelector", &spec.local_workload_selector),
    ] {
        selector(field, text, errors);
    }
    for (field, number) in
        [("spec.asNumber", &spec.as_number), ("spec.localASNumber", &spec.local_as_number)]
    {
        if let Some(number) = number {
            errors.take(field, number.as_number());
        }
    }
    let exclusive = [
        ("spec.node", !spec.node.is_empty(), "nodeSelector", !spec.node_selector.is_empty()),
        ("spec.peerIP", !spec.peer_ip.is_empty(), "peerSelector", !spec.peer_selector.is_empty()),
        ("spec.asNumber", spec.as_number.is_some(), "peerSelector", !spec.peer_selector.is_empty()),
        (
            "spec.peerIP",
            !spec.peer_ip.is_empty(),
            "localWorkloadSelector",
            !spec.local_workload_selector.is_empty(),
        ),
        (
            "spec.peerSelector",
            !spec.peer_selector.is_empty(),
            "localWorkloadSelector",
            !spec.local_workload_selector.is_empty(),
        ),
        (
            "spec.keepOriginalNextHop",
            spec.keep_original_next_hop,
            "nextHopMode",
            spec.next_hop_mode.is_some(),
        ),
    ];
    for (field, one, rival, other) in exclusive {
        if one && other {
            errors.push(field, format!("cannot stand beside {rival}"));
        }
    }
    if spec.as_number.is_none() && !spec.local_workload_selector.is_empty() {
        errors.push("spec.asNumber", "is required beside localWorkloadSelector");
    }
    if spec.as_number.is_none() && !spec.peer_ip.is_empty() {
        errors.push("spec.asNumber", "is required beside peerIP");
    }
    let peer_ip = match spec.peer_ip.as_str() {
        "" => None,
        text => errors.take("spec.peerIP", peer_address(text)),
    };
    if !spec.reachable_by.is_empty() {
        if spec.peer_ip.is_empty() {
            errors.push("spec.reachableBy", "needs peerIP beside it");
        }
        let gateway = errors.take("spec.reachableBy", address(&spec.reachable_by));
        if let (Some(gateway), Some(peer)) = (gateway, peer_ip)
            && gateway.is_ipv4() != peer.is_ipv4()
        {
            errors.push("spec.reachableBy", "is of another IP version than peerIP");
        }
    }
    for (field, time) in [
        ("spec.maxRestartTime", &spec.max_restart_time),
        ("spec.keepaliveTime", &spec.keepalive_time),
    ] {
        if let Some(time) = time {
            errors.take(field, duration(time));
        }
    }
}

pub(crate) fn configuration(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<BGPConfigurationSpec>(object, errors) else { return };
    let spec = &given.spec;
    if let Some(number) = &spec.as_number {
        errors.take("spec.asNumber", number.as_number());
    }
    for (field, list) in [
        ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
        ("serviceExternalIPs", &spec.service_external_ips),
        ("serviceClusterIPs", &spec.service_cluster_ips),
    ] {
        for (i, block) in list.iter().enumerate() {
            errors.take(&format!("spec.{field}[{i}].cidr"), prefix(&block.cidr));
        }
    }
    for (i, community) in spec.communities.iter().enumerate() {
        if community.name.is_empty() {
            errors.push(format!("spec.communities[{i}].name"), "is required");
        }
        errors.take(&format!("spec.communities[{i}].value"), community_value(&community.value));
    }
    for (i, advertisement) in spec.prefix_advertisements.iter().enumerate() {
        let at = |part: &str| format!("spec.prefixAdvertisements[{i}].{part}");
        errors.take(&at("cidr"), prefix(&advertisement.cidr));
        for (j, word) in advertisement.communities.iter().enumerate() {
            let known = spec.communities.iter().any(|c| c.name == *word);
            if !known && community_value(word).is_err() {
                let message = format!("{word:?} is neither a community nor the name of one");
                errors.push(at(&format!("communities[{j}]")), message);
            }
        }
    }
    if !spec.communities.is_empty() && spec.prefix_advertisements.is_empty() {
        errors.push("spec.communities", "need at least one of prefixAdvertisements");
    }
    let mesh = spec.node_to_node_mesh_enabled != Some(false);
    for (field, set) in [
        ("spec.nodeMeshPassword", spec.node_mesh_password.is_some()),
        ("spec.nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.is_some()),
    ] {
        if set && !mesh {
            errors.push(field, "needs nodeToNodeMeshEnabled");
        }
        if set && given.name() != "default" {
            errors.push(field, "is for the object named default only");
        }
    }
}

fn community_value(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split(':').collect();
    let max = match parts.len() {
        2 => u64::from(u16::MAX),
        3 => u64::from(u32::MAX),
        _ => 0,
    };
    let ok = max > 0 && parts.iter().all(|p| p.parse::<u64>().is_ok_and(|n| n <= max));
    if ok {
        return Ok(());
    }
    Err(format!("{text:?} is no community (want aa:nn of 16 bits or aa:nn:mm of 32 bits each)"))
}
