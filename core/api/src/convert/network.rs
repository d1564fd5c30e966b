//! Nodes, pools and blocks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as KubernetesNode;
use model::NodeName;
use model::network::{Block, EncapMode, Node, Pool};

use super::labels;
use crate::FieldError;
use crate::NumOrString;
use crate::net::{address, prefix};
use crate::v3::node::{NodeAddress, NodeStatus, NodeWireguardSpec, OrchRef};
use crate::v3::{self, NodeBgpSpec, NodeSpec, ipam};

/// By this annotation a node says that it runs our agent.
pub const AGENT_ANNOTATION: &str = "projectcalico.org/agent";
const AGENT: &str = "agent";

/// Reads an annotation of ours.
fn note<'a>(node: &'a KubernetesNode, name: &str) -> Option<&'a str> {
    let notes = node.metadata.annotations.as_ref()?;
    let text = notes.get(&format!("projectcalico.org/{name}"))?.trim();
    (!text.is_empty()).then_some(text)
}

/// A node, from the annotations of the core Node. Without an address annotation, the node's
/// internal address counts. Malformed annotations are left out and told.
pub fn node(given: &KubernetesNode) -> super::Converted<Node> {
    let mut errors = Vec::new();
    let mut addresses = Vec::new();
    for name in ["IPv4Address", "IPv6Address"] {
        match note(given, name).map(prefix) {
            Some(Ok(net)) => addresses.push(net),
            Some(Err(e)) => errors.push(bad(name, e)),
            None => addresses.extend(internal_address(given, name == "IPv4Address")),
        }
    }
    let mut ip = |name: &str| match note(given, name).map(address) {
        Some(Err(e)) => {
            errors.push(bad(name, e));
            None
        }
        other => other.and_then(Result::ok),
    };
    let vxlan: Vec<IpAddr> =
        ["IPv4VXLANTunnelAddr", "IPv6VXLANTunnelAddr"].into_iter().filter_map(&mut ip).collect();
    let ipip_address = ip("IPv4IPIPTunnelAddr");
    let mut mac = |name: &str| {
        let text = note(given, name)?;
        let parsed = parse_mac(text);
        if parsed.is_none() {
            errors.push(bad(name, format!("{text:?} is no MAC address")));
        }
        parsed
    };
    let value = Node {
        addresses,
        vxlan_addresses: vxlan,
        vxlan_mac_v4: mac("VXLANTunnelMACAddr"),
        vxlan_mac_v6: mac("VXLANTunnelMACAddrV6"),
        ipip_address,
        upstream: note(given, AGENT).is_none()
            && ["IPv4Address", "IPv6Address"].iter().any(|name| note(given, name).is_some()),
        labels: labels(given.metadata.labels.iter().flatten()),
    };
    super::Converted { value, errors }
}

fn bad(name: &str, e: String) -> FieldError {
    FieldError::new(format!("metadata.annotations[projectcalico.org/{name}]"), e)
}

fn internal_address(node: &KubernetesNode, v4: bool) -> Option<IpNet> {
    let all = node.status.as_ref()?.addresses.as_ref()?;
    let internal = all.iter().filter(|a| a.type_ == "InternalIP");
    internal
        .filter_map(|a| a.address.parse::<IpAddr>().ok())
        .find(|ip| ip.is_ipv4() == v4)
        .map(IpNet::from)
}

pub(super) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte =
            parts.next().filter(|p| p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok())?;
    }
    parts.next().is_none().then_some(mac)
}

/// The core Node as the `Node` that users of `projectcalico.org/v3` see.
pub fn node_view(given: &KubernetesNode) -> v3::Node {
    let text = |name: &str| note(given, name).unwrap_or_default().to_owned();
    let name = given.metadata.name.as_deref().unwrap_or_default();
    let bgp = NodeBgpSpec {
        as_number: note(given, "ASNumber").map(NumOrString::from),
        ipv4_address: text("IPv4Address"),
        ipv6_address: text("IPv6Address"),
        ipv4_ipip_tunnel_addr: text("IPv4IPIPTunnelAddr"),
        route_reflector_cluster_id: text("RouteReflectorClusterID"),
    };
    let wireguard = NodeWireguardSpec {
        interface_ipv4_address: text("IPv4WireguardInterfaceAddr"),
        interface_ipv6_address: text("IPv6WireguardInterfaceAddr"),
    };
    let mut addresses: Vec<NodeAddress> = [&bgp.ipv4_address, &bgp.ipv6_address]
        .into_iter()
        .filter(|a| !a.is_empty())
        .map(|a| NodeAddress { address: a.clone(), kind: "CalicoNodeIP".into() })
        .collect();
    let status = given.status.as_ref();
    for known in status.and_then(|s| s.addresses.as_ref()).into_iter().flatten() {
        if matches!(known.type_.as_str(), "InternalIP" | "ExternalIP") {
            let (address, kind) = (known.address.clone(), known.type_.clone());
            addresses.push(NodeAddress { address, kind });
        }
    }
    let published = NodeStatus {
        wireguard_public_key: text("WireguardPublicKey"),
        wireguard_public_key_v6: text("WireguardPublicKeyV6"),
        pod_cidrs: given.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default(),
    };
    let mut view = v3::Node::new(
        name,
        NodeSpec {
            bgp: (bgp != NodeBgpSpec::default()).then_some(bgp),
            ipv4_vxlan_tunnel_addr: text("IPv4VXLANTunnelAddr"),
            vxlan_tunnel_mac_addr: text("VXLANTunnelMACAddr"),
            ipv6_vxlan_tunnel_addr: text("IPv6VXLANTunnelAddr"),
            vxlan_tunnel_mac_addr_v6: text("VXLANTunnelMACAddrV6"),
            orch_refs: vec![OrchRef { node_name: name.into(), orchestrator: "k8s".into() }],
            wireguard: (wireguard != NodeWireguardSpec::default()).then_some(wireguard),
            addresses,
            interfaces: note(given, "Interfaces")
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
        },
    );
    view.status = (published != NodeStatus::default()).then_some(published);
    view.metadata.labels.clone_from(&given.metadata.labels);
    view.metadata.annotations.clone_from(&given.metadata.annotations);
    view.metadata.uid.clone_from(&given.metadata.uid);
    view.metadata.resource_version.clone_from(&given.metadata.resource_version);
    view.metadata.creation_timestamp.clone_from(&given.metadata.creation_timestamp);
    view
}

/// The annotations of the core Node that say what `node` says; `None` for those to remove. Labels
/// are the node's own and are written beside them.
pub fn annotations_of_node(node: &v3::Node) -> BTreeMap<String, Option<String>> {
    let spec = &node.spec;
    let bgp = spec.bgp.clone().unwrap_or_default();
    let wireguard = spec.wireguard.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let interfaces = match spec.interfaces.as_slice() {
        [] => String::new(),
        some => serde_json::to_string(some).unwrap_or_default(),
    };
    let as_number = bgp.as_number.map(|n| n.to_string()).unwrap_or_default();
    [
        ("IPv4Address", bgp.ipv4_address),
        ("IPv6Address", bgp.ipv6_address),
        ("IPv4IPIPTunnelAddr", bgp.ipv4_ipip_tunnel_addr),
        ("ASNumber", as_number),
        ("RouteReflectorClusterID", bgp.route_reflector_cluster_id),
        ("IPv4VXLANTunnelAddr", spec.ipv4_vxlan_tunnel_addr.clone()),
        ("VXLANTunnelMACAddr", spec.vxlan_tunnel_mac_addr.clone()),
        ("IPv6VXLANTunnelAddr", spec.ipv6_vxlan_tunnel_addr.clone()),
        ("VXLANTunnelMACAddrV6", spec.vxlan_tunnel_mac_addr_v6.clone()),
        ("WireguardPublicKey", status.wireguard_public_key),
        ("WireguardPublicKeyV6", status.wireguard_public_key_v6),
        ("IPv4WireguardInterfaceAddr", wireguard.interface_ipv4_address),
        ("IPv6WireguardInterfaceAddr", wireguard.interface_ipv6_address),
        ("Interfaces", interfaces),
    ]
    .into_iter()
    .map(|(name, text)| (format!("projectcalico.org/{name}"), (!text.is_empty()).then_some(text)))
    .collect()
}

/// A pool.
///
/// # Errors
/// When its range is malformed.
pub fn pool(pool: &v3::IPPool) -> Result<Pool, FieldError> {
    let spec = &pool.spec;
    let cidr = crate::net::masked(&spec.cidr).map_err(|e| FieldError::new("spec.cidr", e))?;
    Ok(Pool {
        cidr,
        ipip: encap(spec.ipip_mode),
        vxlan: encap(spec.vxlan_mode),
        nat_outgoing: spec.nat_outgoing,
        disabled: spec.disabled,
    })
}

fn encap(mode: Option<ipam::EncapMode>) -> EncapMode {
    match mode.unwrap_or_default() {
        ipam::EncapMode::Never => EncapMode::Never,
        ipam::EncapMode::Always => EncapMode::Always,
        ipam::EncapMode::CrossSubnet => EncapMode::CrossSubnet,
    }
}

/// A block; none if it is being deleted. Borrowed are the addresses whose owner's `node` is not
/// the node that the block is affine to.
///
/// # Errors
/// When its range is malformed.
pub fn block(block: &v3::IPAMBlock) -> Result<Option<Block>, FieldError> {
    let spec = &block.spec;
    if spec.deleted {
        return Ok(None);
    }
    let cidr = crate::net::masked(&spec.cidr).map_err(|e| FieldError::new("spec.cidr", e))?;
    let affinity: Option<NodeName> =
        spec.affinity.as_deref().and_then(|a| a.strip_prefix("host:")).map(NodeName::from);
    let mut borrowed = Vec::new();
    for (ordinal, attribute) in spec.allocations.iter().enumerate() {
        let attribute = attribute.and_then(|a| spec.attributes.get(a as usize));
        let Some(owner) = attribute.and_then(|a| a.secondary.get("node")) else { continue };
        if affinity.as_ref().map(NodeName::as_str) != Some(owner.as_str()) {
            borrowed.push((nth(cidr, ordinal as u128), NodeName::from(owner.as_str())));
        }
    }
    Ok(Some(Block { cidr, affinity, borrowed }))
}

fn nth(cidr: IpNet, n: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(base) => {
            IpAddr::V4(std::net::Ipv4Addr::from_bits(base.to_bits().wrapping_add(n as u32)))
        }
        IpAddr::V6(base) => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(base.to_bits().wrapping_add(n)))
        }
    }
}
