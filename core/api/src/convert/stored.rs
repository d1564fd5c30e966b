//! Where there is no Kubernetes: workload endpoints and nodes that are objects of their own.

use std::sync::Arc;

use ipnet::IpNet;
use model::network::Node;
use model::{IfaceName, NamedPort, WorkloadEndpoint, WorkloadId};

use super::endpoint::{own_labels, port_view};
use super::network::{AGENT_ANNOTATION, parse_mac};
use super::{
    Converted, NAMESPACE_LABEL, ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL, escaped, labels,
};
use crate::FieldError;
use crate::net::{address, masked, prefix};
use crate::v3::{self, WorkloadEndpointSpec};

/// Whose an endpoint is, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointName {
    /// The node.
    pub node: String,
    /// `k8s`; `cni` for containers of which nothing but their id is known.
    pub orchestrator: String,
    /// The pod; the container where there is none.
    pub workload: String,
    /// The interface inside.
    pub endpoint: String,
}

impl EndpointName {
    /// Takes a name apart; none if it is not one of four parts.
    pub fn parse(name: &str) -> Option<Self> {
        // Inside a part dashes come in pairs; the one between parts is single.
        let unescaped = name.replace("--", "\n");
        let mut parts = unescaped.split('-').map(|part| part.replace('\n', "-"));
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (node, orchestrator, workload, endpoint) = (next()?, next()?, next()?, next()?);
        parts.next().is_none().then_some(Self { node, orchestrator, workload, endpoint })
    }
}

impl std::fmt::Display for EndpointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [&self.node, &self.orchestrator, &self.workload, &self.endpoint];
        f.write_str(&parts.map(|part| escaped(part)).join("-"))
    }
}

/// An endpoint. It is known by its own name, since a pod may have several, and on several nodes in turn.
///
/// # Errors
/// When its interface or one of its addresses is malformed.
pub fn workload_endpoint(given: &v3::WorkloadEndpoint) -> Result<WorkloadEndpoint, FieldError> {
    let spec = &given.spec;
    let iface: IfaceName = spec.interface_name.parse().map_err(|e: model::ids::BadIfaceName| {
        FieldError::new("spec.interfaceName", e.to_string())
    })?;
    let nets = |field: &str, texts: &[String]| -> Result<Vec<IpNet>, FieldError> {
        let at = |i: usize, e| FieldError::new(format!("spec.{field}[{i}]"), e);
        texts.iter().enumerate().map(|(i, text)| masked(text).map_err(|e| at(i, e))).collect()
    };
    let networks = nets("ipNetworks", &spec.ip_networks)?;
    let mut all = own_labels(given.labels());
    all.insert(NAMESPACE_LABEL, given.namespace());
    all.insert(ORCHESTRATOR_LABEL, &spec.orchestrator);
    if !spec.service_account_name.is_empty() {
        all.insert(SERVICE_ACCOUNT_LABEL, &spec.service_account_name);
    }
    Ok(WorkloadEndpoint {
        id: WorkloadId { namespace: given.namespace().into(), name: given.name().into() },
        node: spec.node.as_str().into(),
        iface,
        addresses: networks.iter().map(IpNet::addr).collect(),
        labels: labels(all),
        profiles: spec.profiles.iter().map(|p| p.as_str().into()).collect(),
        ports: spec.ports.iter().filter_map(port).collect(),
        allowed_sources: nets("allowSpoofedSourcePrefixes", &spec.allow_spoofed_source_prefixes)?,
    })
}

fn port(given: &v3::endpoint::WorkloadEndpointPort) -> Option<NamedPort> {
    let protocol = given.protocol.protocol().ok()?;
    let port = u16::try_from(given.port).ok().filter(|port| *port > 0)?;
    (!given.name.is_empty()).then(|| NamedPort { name: given.name.as_str().into(), protocol, port })
}

/// An endpoint as it is kept, under its own name. What the model does not know of is left empty.
pub fn endpoint_view(endpoint: &WorkloadEndpoint) -> v3::WorkloadEndpoint {
    let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect();
    let networks: Vec<IpNet> = endpoint.addresses.iter().map(|a| IpNet::from(*a)).collect();
    let spec = WorkloadEndpointSpec {
        node: endpoint.node.as_str().into(),
        ip_networks: texts(&networks),
        profiles: endpoint.profiles.iter().map(ToString::to_string).collect(),
        interface_name: endpoint.iface.as_str().into(),
        ports: endpoint.ports.iter().map(port_view).collect(),
        allow_spoofed_source_prefixes: texts(&endpoint.allowed_sources),
        ..WorkloadEndpointSpec::default()
    };
    let mut view =
        v3::WorkloadEndpoint::namespaced(&endpoint.id.namespace, &endpoint.id.name, spec);
    let text = |(k, v): (&Arc<str>, &Arc<str>)| (k.to_string(), v.to_string());
    view.metadata.labels = Some(endpoint.labels.iter().map(text).collect());
    view
}

/// A node that is an object of its own. Malformed fields are left out and told.
pub fn stored_node(given: &v3::Node) -> Converted<Node> {
    let mut errors = Vec::new();
    let spec = &given.spec;
    let bgp = spec.bgp.clone().unwrap_or_default();
    let mut read = |field: &str, text: &str, parse: fn(&str) -> Result<IpNet, String>| {
        let parsed = (!text.is_empty()).then(|| parse(text))?;
        parsed.map_err(|e| errors.push(FieldError::new(format!("spec.{field}"), e))).ok()
    };
    let alone = |text: &str| address(text).map(IpNet::from);
    let addresses: Vec<IpNet> = [
        read("bgp.ipv4Address", &bgp.ipv4_address, prefix),
        read("bgp.ipv6Address", &bgp.ipv6_address, prefix),
    ]
    .into_iter()
    .flatten()
    .collect();
    let vxlan_addresses = [
        read("ipv4VXLANTunnelAddr", &spec.ipv4_vxlan_tunnel_addr, alone),
        read("ipv6VXLANTunnelAddr", &spec.ipv6_vxlan_tunnel_addr, alone),
    ];
    let ipip = read("bgp.ipv4IPIPTunnelAddr", &bgp.ipv4_ipip_tunnel_addr, alone);
    let mut mac = |field: &str, text: &str| {
        let parsed = (!text.is_empty()).then(|| parse_mac(text))?;
        if parsed.is_none() {
            let error = format!("{text:?} is no MAC address");
            errors.push(FieldError::new(format!("spec.{field}"), error));
        }
        parsed
    };
    let notes = given.metadata.annotations.as_ref();
    let ours = notes.is_some_and(|notes| notes.contains_key(AGENT_ANNOTATION));
    let value = Node {
        upstream: !ours && !addresses.is_empty(),
        addresses,
        vxlan_addresses: vxlan_addresses.into_iter().flatten().map(|net| net.addr()).collect(),
        vxlan_mac_v4: mac("vxlanTunnelMACAddr", &spec.vxlan_tunnel_mac_addr),
        vxlan_mac_v6: mac("vxlanTunnelMACAddrV6", &spec.vxlan_tunnel_mac_addr_v6),
        ipip_address: ipip.map(|net| net.addr()),
        labels: labels(given.labels()),
    };
    Converted { value, errors }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_come_apart_as_they_were_joined() {
        let name = EndpointName {
            node: "rack-1".into(),
            orchestrator: "k8s".into(),
            workload: "web--0-a".into(),
            endpoint: "eth0".into(),
        };
        assert_eq!(name.to_string(), "rack--1-k8s-web----0--a-eth0");
        assert_eq!(EndpointName::parse(&name.to_string()), Some(name));
        for bad in ["", "a-k8s-b", "a-k8s-b-eth0-c", "a-k8s--eth0"] {
            assert_eq!(EndpointName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_endpoint_as_upstream_writes_it() {
        let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
            "metadata": {"name": "n-k8s-web-eth0", "namespace": "shop", "labels": {"app": "web",
                "pcns.tenant": "other", "pcsa.role": "admin"}},
            "spec": {"orchestrator": "k8s", "serviceAccountName": "sa", "node": "n", "pod": "web", "containerID": "c",
                "endpoint": "eth0", "ipNetworks": ["10.0.0.9/32", "fd00::9/128"],
                "profiles": ["kns.shop"], "interfaceName": "cali1", "mac": "66:bf:82:ee:01:02",
                "ports": [{"name": "http", "protocol": "TCP", "port": 80},
                          {"name": "", "protocol": "TCP", "port": 81}]}});
        let given: v3::WorkloadEndpoint = serde_json::from_value(object).unwrap();
        let endpoint = workload_endpoint(&given).unwrap();
        let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.9", "fd00::9"]);
        assert_eq!(&*endpoint.labels["projectcalico.org/namespace"], "shop");
        assert_eq!(&*endpoint.labels["projectcalico.org/orchestrator"], "k8s");
        assert_eq!(&*endpoint.labels["projectcalico.org/serviceaccount"], "sa");
        assert_eq!(endpoint.labels.len(), 4, "what is inherited cannot be pretended");
        assert_eq!((endpoint.ports.len(), endpoint.ports[0].port), (1, 80));
        let view = endpoint_view(&endpoint);
        assert_eq!(view.spec.ip_networks, given.spec.ip_networks);
        assert_eq!(workload_endpoint(&view).unwrap().addresses, endpoint.addresses);

        let mut bad = given;
        bad.spec.ip_networks[1] = "fd00::/x".into();
        assert_eq!(workload_endpoint(&bad).unwrap_err().field, "spec.ipNetworks[1]");
    }

    #[test]
    fn a_node_as_upstream_writes_it() {
        let object = json!({"metadata": {"name": "n", "labels": {"rack": "1"}}, "spec": {
            "bgp": {"ipv4Address": "10.0.0.11/24", "ipv6Address": "x", "ipv4IPIPTunnelAddr": "10.1.0.1"},
            "ipv4VXLANTunnelAddr": "10.1.0.2", "vxlanTunnelMACAddr": "66:bf:82:ee:01:02",
            "orchRefs": [{"nodeName": "n", "orchestrator": "k8s"}]}});
        let mut given: v3::Node = serde_json::from_value(object).unwrap();
        let Converted { value, errors } = stored_node(&given);
        assert_eq!(value.addresses, ["10.0.0.11/24".parse().unwrap()]);
        assert_eq!(value.vxlan_addresses, ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(value.vxlan_mac_v4.map(|mac| mac[0]), Some(0x66));
        assert_eq!(errors.iter().map(|e| &*e.field).collect::<Vec<_>>(), ["spec.bgp.ipv6Address"]);
        assert!(value.upstream);
        given.metadata.annotations = Some([(AGENT_ANNOTATION.into(), "x".into())].into());
        assert!(!stored_node(&given).value.upstream);
    }
}
