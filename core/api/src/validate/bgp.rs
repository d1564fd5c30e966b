//! BGP peers and settings.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{Errors, read, selector};
use crate::net::{address, duration, prefix};
use crate::v3::bgp_filter::{BGPFilterOperation, BGPFilterRule};
use crate::v3::{BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec};
use crate::value::NumOrString;

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

pub(crate) fn filter(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(filter) = read::<BGPFilterSpec>(object, errors) else { return };
    let spec = &filter.spec;
    for (list, rules, v4) in [
        ("exportV4", &spec.export_v4, true),
        ("importV4", &spec.import_v4, true),
        ("exportV6", &spec.export_v6, false),
        ("importV6", &spec.import_v6, false),
    ] {
        for (i, rule) in rules.iter().enumerate() {
            filter_rule(&format!("spec.{list}[{i}]"), rule, v4, errors);
        }
    }
}

fn filter_rule(at: &str, rule: &BGPFilterRule, v4: bool, errors: &mut Errors) {
    let at = |part: &str| format!("{at}.{part}");
    if !rule.cidr.is_empty()
        && let Some(net) = errors.take(&at("cidr"), prefix(&rule.cidr))
        && net.addr().is_ipv4() != v4
    {
        errors.push(at("cidr"), format!("{} is of the other IP version", rule.cidr));
    }
    match (rule.cidr.is_empty(), rule.match_operator.is_some()) {
        (false, false) => errors.push(at("matchOperator"), "is required beside cidr"),
        (true, true) => errors.push(at("cidr"), "is required beside matchOperator"),
        _ => {}
    }
    if let Some(lengths) = &rule.prefix_length {
        if rule.cidr.is_empty() {
            errors.push(at("cidr"), "is required beside prefixLength");
        }
        let longest = if v4 { 32 } else { 128 };
        for (field, length) in [("min", lengths.min), ("max", lengths.max)] {
            if length.is_some_and(|l| l > longest) {
                errors.push(at(&format!("prefixLength.{field}")), format!("want 0 to {longest}"));
            }
        }
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.*-".contains(c);
    if rule.interface.len() > 15 || !rule.interface.chars().all(fits) {
        errors.push(
            at("interface"),
            format!(
                "{:?} is no interface (want up to 15 of letters, digits, \"_\", \".\", \"-\" and \"*\")",
                rule.interface
            ),
        );
    }
    for (i, value) in rule.communities.iter().flat_map(|c| &c.values).enumerate() {
        errors.take(&at(&format!("communities.values[{i}]")), community_value(value));
    }
    as_numbers(&at("asPathPrefix"), &rule.as_path_prefix, errors);
    if !rule.operations.is_empty() && rule.action != "Accept" {
        errors.push(at("operations"), "are for action Accept only");
    }
    for (i, operation) in rule.operations.iter().enumerate() {
        filter_operation(&at(&format!("operations[{i}]")), operation, errors);
    }
}

fn filter_operation(at: &str, operation: &BGPFilterOperation, errors: &mut Errors) {
    let BGPFilterOperation { add_community, prepend_as_path, set_priority } = operation;
    let given = [add_community.is_some(), prepend_as_path.is_some(), set_priority.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        errors.push(at, "want exactly one of addCommunity, prependASPath and setPriority");
    }
    if let Some(add) = add_community {
        errors.take(&format!("{at}.addCommunity.value"), community_value(&add.value));
    }
    if let Some(prepend) = prepend_as_path {
        as_numbers(&format!("{at}.prependASPath.prefix"), &prepend.prefix, errors);
        if prepend.prefix.is_empty() {
            errors.push(format!("{at}.prependASPath.prefix"), "is required");
        }
    }
    if set_priority.as_ref().is_some_and(|set| set.value.is_none()) {
        errors.push(format!("{at}.setPriority.value"), "is required");
    }
}

fn as_numbers(at: &str, numbers: &[NumOrString], errors: &mut Errors) {
    for (i, number) in numbers.iter().enumerate() {
        errors.take(&format!("{at}[{i}]"), number.as_number());
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
