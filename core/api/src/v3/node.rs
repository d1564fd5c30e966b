//! The node, as a view of the core Node and its `projectcalico.org/` annotations.

use crate::meta::{Cluster, kind, part};
use crate::value::NumOrString;

part!(
    /// A node.
    NodeSpec {
        /// BGP and the node's own addresses.
        bgp: Option<NodeBgpSpec>,
        /// IPv4 address of the VXLAN device.
        #[serde(rename = "ipv4VXLANTunnelAddr")]
        ipv4_vxlan_tunnel_addr: String,
        /// MAC address of the IPv4 VXLAN device.
        #[serde(rename = "vxlanTunnelMACAddr")]
        vxlan_tunnel_mac_addr: String,
        /// IPv6 address of the VXLAN device.
        #[serde(rename = "ipv6VXLANTunnelAddr")]
        ipv6_vxlan_tunnel_addr: String,
        /// MAC address of the IPv6 VXLAN device.
        #[serde(rename = "vxlanTunnelMACAddrV6")]
        vxlan_tunnel_mac_addr_v6: String,
        /// What the orchestrator calls the node.
        orch_refs: Vec<OrchRef>,
        /// WireGuard.
        wireguard: Option<NodeWireguardSpec>,
        /// Addresses that clients reach the node at.
        addresses: Vec<NodeAddress>,
        /// The node's interfaces.
        interfaces: Vec<NodeInterface>,
    }
);
kind!(NodeSpec, Node, "nodes", Cluster, NodeStatus);

part!(
    /// BGP and the node's own addresses.
    NodeBgpSpec {
        /// AS number, if not the cluster's.
        as_number: Option<NumOrString>,
        /// IPv4 address and subnet.
        #[serde(rename = "ipv4Address")]
        ipv4_address: String,
        /// IPv6 address and subnet.
        #[serde(rename = "ipv6Address")]
        ipv6_address: String,
        /// IPv4 address of the IP-in-IP device.
        #[serde(rename = "ipv4IPIPTunnelAddr")]
        ipv4_ipip_tunnel_addr: String,
        /// Makes the node a route reflector of this cluster id.
        #[serde(rename = "routeReflectorClusterID")]
        route_reflector_cluster_id: String,
    }
);

part!(
    /// What an orchestrator calls the node.
    OrchRef {
        /// The name there.
        node_name: String,
        /// `k8s`.
        orchestrator: String,
    }
);

part!(
    /// WireGuard addresses.
    NodeWireguardSpec {
        /// IPv4 address of the device.
        #[serde(rename = "interfaceIPv4Address")]
        interface_ipv4_address: String,
        /// IPv6 address of the device.
        #[serde(rename = "interfaceIPv6Address")]
        interface_ipv6_address: String,
    }
);

part!(
    /// An address of the node.
    NodeAddress {
        /// The address, with or without prefix length.
        address: String,
        /// CalicoNodeIP, InternalIP or ExternalIP.
        #[serde(rename = "type")]
        kind: String,
    }
);

part!(
    /// An interface of the node.
    NodeInterface {
        /// Its name.
        name: String,
        /// Its addresses.
        addresses: Vec<String>,
    }
);

part!(
    /// What the node published.
    NodeStatus {
        /// Public key of the IPv4 WireGuard device.
        wireguard_public_key: String,
        /// Public key of the IPv6 WireGuard device.
        #[serde(rename = "wireguardPublicKeyV6")]
        wireguard_public_key_v6: String,
        /// Pod prefixes that Kubernetes gave the node.
        #[serde(rename = "podCIDRs")]
        pod_cidrs: Vec<String>,
    }
);
