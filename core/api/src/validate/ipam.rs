//! Pools and the state of address management.

use ipnet::IpNet;
use serde_json::Value;

use super::{Errors, read, read_old, selector};
use crate::net::prefix;
use crate::v3::ipam::{AllowedUse, EncapMode};
use crate::v3::{
    BlockAffinitySpec, IPAMBlockSpec, IPAMConfigurationSpec, IPAMHandleSpec, IPPoolSpec,
    IPReservationSpec,
};

pub(crate) fn pool(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let Some(pool) = read::<IPPoolSpec>(object, errors) else { return };
    let spec = &pool.spec;
    selector("spec.nodeSelector", &spec.node_selector, errors);
    selector("spec.namespaceSelector", &spec.namespace_selector, errors);
    if let Some(cidr) = errors.take("spec.cidr", prefix(&spec.cidr)) {
        range(cidr, spec, errors);
    }
    let enabled = |mode: Option<EncapMode>| mode.unwrap_or_default() != EncapMode::Never;
    if enabled(spec.ipip_mode) && enabled(spec.vxlan_mode) {
        errors.push("spec.vxlanMode", "cannot be on beside ipipMode (want Never for one of them)");
    }
    uses(spec, enabled(spec.ipip_mode) || enabled(spec.vxlan_mode), errors);
    if let Some(old) = read_old::<IPPoolSpec>(old) {
        unchanged(spec, &old.spec, errors);
    }
}

fn range(cidr: IpNet, spec: &IPPoolSpec, errors: &mut Errors) {
    let v4 = cidr.addr().is_ipv4();
    if cidr != cidr.trunc() {
        errors.push("spec.cidr", format!("{cidr} has host bits set (want {})", cidr.trunc()));
    }
    let local: IpNet =
        if v4 { "169.254.0.0/16" } else { "fe80::/10" }.parse().expect("a constant prefix");
    if local.contains(&cidr) || cidr.contains(&local) {
        errors.push("spec.cidr", format!("{cidr} overlaps the link-local range {local}"));
    }
    let (min, max, default) = if v4 { (20, 32, 26) } else { (116, 128, 122) };
    let size = spec.block_size.filter(|s| *s != 0).unwrap_or(default);
    if !(min..=max).contains(&size) {
        errors.push("spec.blockSize", format!("{size} is out of range (want {min} to {max})"));
    } else if i32::from(cidr.prefix_len()) > size && !spec.disabled {
        errors.push("spec.blockSize", format!("a block of /{size} does not fit into {cidr}"));
    }
    if !v4 && spec.ipip_mode.unwrap_or_default() != EncapMode::Never {
        errors.push("spec.ipipMode", "IP-in-IP is for IPv4 pools only (want Never)");
    }
}

fn uses(spec: &IPPoolSpec, encapsulated: bool, errors: &mut Errors) {
    let balancer = spec.allowed_uses.contains(&AllowedUse::LoadBalancer);
    if spec.allowed_uses.contains(&AllowedUse::Tunnel) && !spec.namespace_selector.is_empty() {
        errors.push(
            "spec.namespaceSelector",
            "tunnels are in no namespace (want allowedUses: [Workload] beside it)",
        );
    }
    if !balancer {
        return;
    }
    if spec.allowed_uses.len() > 1 {
        errors.push("spec.allowedUses", "LoadBalancer stands alone");
    }
    if encapsulated {
        errors.push("spec.vxlanMode", "a LoadBalancer pool has no encapsulation");
    }
    if spec.disable_bgp_export {
        errors.push("spec.disableBGPExport", "cannot be true in a LoadBalancer pool");
    }
    if !spec.node_selector.is_empty() && spec.node_selector != "all()" {
        errors.push("spec.nodeSelector", "must be all() in a LoadBalancer pool");
    }
}

fn unchanged(new: &IPPoolSpec, old: &IPPoolSpec, errors: &mut Errors) {
    if new.cidr != old.cidr {
        errors.push("spec.cidr", format!("cannot be changed (it is {})", old.cidr));
    }
    let default = if old.cidr.contains(':') { 122 } else { 26 };
    let size = |s: &IPPoolSpec| s.block_size.filter(|b| *b != 0).unwrap_or(default);
    if size(new) != size(old) {
        errors.push("spec.blockSize", format!("cannot be changed (it is {})", size(old)));
    }
    let balancer = |s: &IPPoolSpec| s.allowed_uses.contains(&AllowedUse::LoadBalancer);
    if balancer(new) != balancer(old) {
        errors.push("spec.allowedUses", "LoadBalancer cannot be added or taken away");
    }
}

pub(crate) fn reservation(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(reservation) = read::<IPReservationSpec>(object, errors) else { return };
    for (i, text) in reservation.spec.reserved_cidrs.iter().enumerate() {
        errors.take(&format!("spec.reservedCIDRs[{i}]"), prefix(text));
    }
}

pub(crate) fn configuration(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<IPAMConfigurationSpec>(object, errors) else { return };
    let spec = &given.spec;
    if given.name() != "default" {
        errors.push("metadata.name", "want default");
    }
    if !spec.strict_affinity && !spec.auto_allocate_blocks {
        errors.push("spec.autoAllocateBlocks", "cannot be false without strictAffinity");
    }
    if spec.max_blocks_per_host > 0 && !spec.strict_affinity {
        errors.push("spec.maxBlocksPerHost", "needs strictAffinity");
    }
}

pub(crate) fn block(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(block) = read::<IPAMBlockSpec>(object, errors) else { return };
    errors.take("spec.cidr", prefix(&block.spec.cidr));
    for (i, index) in block.spec.allocations.iter().enumerate() {
        if index.is_some_and(|n| n as usize >= block.spec.attributes.len()) {
            errors.push(format!("spec.allocations[{i}]"), "is no index into attributes");
        }
    }
}

pub(crate) fn handle(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(handle) = read::<IPAMHandleSpec>(object, errors) else { return };
    for cidr in handle.spec.block.keys() {
        errors.take(&format!("spec.block[{cidr}]"), prefix(cidr));
    }
}

pub(crate) fn affinity(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(affinity) = read::<BlockAffinitySpec>(object, errors) else { return };
    errors.take("spec.cidr", prefix(&affinity.spec.cidr));
    let states = ["confirmed", "pending", "pendingDeletion"];
    if !states.contains(&affinity.spec.state.as_str()) {
        let message = format!("{:?} is not one of {}", affinity.spec.state, states.join(", "));
        errors.push("spec.state", message);
    }
}
