//! Nodes, the cluster, its controllers, the operator's Installation.

use serde_json::Value;

use super::{Errors, read, selector};
use crate::net::{address, prefix};
use crate::operator::InstallationSpec;
use crate::v3::{
    CalicoNodeStatusSpec, ClusterInformationSpec, KubeControllersConfigurationSpec, NodeSpec,
};

pub(crate) fn node(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(node) = read::<NodeSpec>(object, errors) else { return };
    let spec = &node.spec;
    if let Some(bgp) = &spec.bgp {
        if *bgp == crate::v3::NodeBgpSpec::default() {
            errors.push("spec.bgp", "is empty (want a field, or take it away)");
        }
        if let Some(number) = &bgp.as_number {
            errors.take("spec.bgp.asNumber", number.as_number());
        }
        for (field, text, v4) in
            [("ipv4Address", &bgp.ipv4_address, true), ("ipv6Address", &bgp.ipv6_address, false)]
        {
            if text.is_empty() {
                continue;
            }
            let field = format!("spec.bgp.{field}");
            if let Some(net) = errors.take(&field, prefix(text))
                && net.addr().is_ipv4() != v4
            {
                errors.push(field, format!("{text} is of the other IP version"));
            }
        }
        for (field, text) in [
            ("spec.bgp.ipv4IPIPTunnelAddr", &bgp.ipv4_ipip_tunnel_addr),
            ("spec.bgp.routeReflectorClusterID", &bgp.route_reflector_cluster_id),
        ] {
            family(field, text, true, errors);
        }
    }
    family("spec.ipv4VXLANTunnelAddr", &spec.ipv4_vxlan_tunnel_addr, true, errors);
    family("spec.ipv6VXLANTunnelAddr", &spec.ipv6_vxlan_tunnel_addr, false, errors);
    for (i, known) in spec.addresses.iter().enumerate() {
        errors.take(&format!("spec.addresses[{i}].address"), prefix(&known.address));
    }
}

/// An address of one IP version, or nothing.
fn family(field: &str, text: &str, v4: bool, errors: &mut Errors) {
    if text.is_empty() {
        return;
    }
    if let Some(ip) = errors.take(field, address(text))
        && ip.is_ipv4() != v4
    {
        errors.push(field, format!("{text} is not IPv{}", if v4 { 4 } else { 6 }));
    }
}

pub(crate) fn node_status(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<CalicoNodeStatusSpec>(object, errors) else { return };
    let spec = &given.spec;
    if spec.node.is_empty() {
        errors.push("spec.node", "is required");
    }
    if spec.classes.is_empty() {
        errors.push("spec.classes", "is required (want Agent, BGP, Routes or several of them)");
    }
    for (i, class) in spec.classes.iter().enumerate() {
        if spec.classes[..i].contains(class) {
            errors.push(format!("spec.classes[{i}]"), format!("{class:?} is there already"));
        }
    }
    if spec.update_period_seconds.is_none() {
        errors.push("spec.updatePeriodSeconds", "is required (0 for a single report)");
    }
}

pub(crate) fn cluster_information(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<ClusterInformationSpec>(object, errors) else { return };
    if given.name() != "default" {
        errors.push("metadata.name", "want default");
    }
}

pub(crate) fn controllers(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<KubeControllersConfigurationSpec>(object, errors) else { return };
    if given.name() != "default" {
        errors.push("metadata.name", "want default");
    }
    let node = given.spec.controllers.node.as_ref();
    let templates = node.and_then(|n| n.host_endpoint.as_ref()).map(|h| &h.templates);
    for (i, template) in templates.into_iter().flatten().enumerate() {
        let at = |part: &str| format!("spec.controllers.node.hostEndpoint.templates[{i}].{part}");
        selector(&at("nodeSelector"), &template.node_selector, errors);
        for (j, text) in template.interface_cidrs.iter().enumerate() {
            errors.take(&at(&format!("interfaceCIDRs[{j}]")), prefix(text));
        }
        if template.interface_cidrs.is_empty() && template.interface_pattern.is_empty() {
            errors.push(at("interfaceCIDRs"), "is required where interfacePattern is not given");
        }
    }
}

pub(crate) fn installation(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<InstallationSpec>(object, errors) else { return };
    if given.name() != "default" {
        errors.push("metadata.name", "want default");
    }
    let pools = given.spec.calico_network.as_ref().map(|n| &n.ip_pools);
    for (i, pool) in pools.into_iter().flatten().enumerate() {
        let at = |part: &str| format!("spec.calicoNetwork.ipPools[{i}].{part}");
        selector(&at("nodeSelector"), pool.node_selector.as_deref().unwrap_or_default(), errors);
        let Some(cidr) = errors.take(&at("cidr"), prefix(&pool.cidr)) else { continue };
        let v4 = cidr.addr().is_ipv4();
        let (min, max, default) = if v4 { (20, 32, 26) } else { (116, 128, 122) };
        let size = pool.block_size.unwrap_or(default);
        if !(min..=max).contains(&size) {
            errors.push(at("blockSize"), format!("{size} is out of range (want {min} to {max})"));
        }
        let ipip = pool.encapsulation.as_deref().is_some_and(|e| e.starts_with("IPIP"));
        if ipip && !v4 {
            errors.push(at("encapsulation"), "IP-in-IP is for IPv4 pools only");
        }
    }
    for (i, text) in given.spec.service_cidrs.iter().enumerate() {
        errors.take(&format!("spec.serviceCIDRs[{i}]"), prefix(text));
    }
}
