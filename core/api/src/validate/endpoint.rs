//! Network sets and endpoints.

use serde_json::Value;

use super::{Errors, read};
use crate::net::{address, prefix};
use crate::v3::{GlobalNetworkSetSpec, HostEndpointSpec, NetworkSetSpec, WorkloadEndpointSpec};

fn nets(list: &[String], errors: &mut Errors) {
    for (i, text) in list.iter().enumerate() {
        errors.take(&format!("spec.nets[{i}]"), prefix(text));
    }
}

pub(crate) fn network_set(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(set) = read::<NetworkSetSpec>(object, errors) else { return };
    nets(&set.spec.nets, errors);
}

pub(crate) fn global_network_set(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(set) = read::<GlobalNetworkSetSpec>(object, errors) else { return };
    nets(&set.spec.nets, errors);
    if set.labels().contains_key(crate::convert::NAMESPACE_LABEL) {
        errors.push(
            "metadata.labels[projectcalico.org/namespace]",
            "is reserved for what is in a namespace",
        );
    }
}

pub(crate) fn host_endpoint(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(endpoint) = read::<HostEndpointSpec>(object, errors) else { return };
    let spec = &endpoint.spec;
    if spec.node.is_empty() {
        errors.push("spec.node", "is required");
    }
    if spec.interface_name.is_empty() && spec.expected_ips.is_empty() {
        errors.push("spec.interfaceName", "is required where expectedIPs are not given");
    }
    if !spec.interface_name.is_empty() && spec.interface_name != "*" {
        let parsed = spec.interface_name.parse::<model::IfaceName>();
        errors.take("spec.interfaceName", parsed.map_err(|e| e.to_string()));
    }
    for (i, text) in spec.expected_ips.iter().enumerate() {
        errors.take(&format!("spec.expectedIPs[{i}]"), address(text));
    }
    for (i, port) in spec.ports.iter().enumerate() {
        let at = |part: &str| format!("spec.ports[{i}].{part}");
        if port.name.is_empty() {
            errors.push(at("name"), "is required");
        }
        let protocol = errors.take(&at("protocol"), port.protocol.protocol());
        if protocol.is_some_and(|p| !p.has_ports()) {
            errors.push(at("protocol"), "has no ports (want TCP, UDP or SCTP)");
        }
    }
}

pub(crate) fn workload_endpoint(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(endpoint) = read::<WorkloadEndpointSpec>(object, errors) else { return };
    for (i, text) in endpoint.spec.ip_networks.iter().enumerate() {
        errors.take(&format!("spec.ipNetworks[{i}]"), prefix(text));
    }
}
