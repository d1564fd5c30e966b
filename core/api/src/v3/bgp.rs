//! BGP: stored and validated; it takes effect with the BGP speaker.

use crate::meta::{Cluster, kind, part};
use crate::value::NumOrString;

part!(
    /// A BGP session of one, some or all nodes.
    BGPPeerSpec {
        /// The node that peers; all nodes if neither this nor `nodeSelector` is given.
        node: String,
        /// The nodes that peer.
        #[schemars(length(max = 1024))]
        node_selector: String,
        /// Address of the peer, with an optional port: `ADDRESS`, `IPv4:PORT` or `[IPv6]:PORT`.
        #[serde(rename = "peerIP")]
        peer_ip: String,
        /// The peer's AS number.
        as_number: Option<NumOrString>,
        /// AS number to use on this session instead of the node's own.
        #[serde(rename = "localASNumber")]
        local_as_number: Option<NumOrString>,
        /// The nodes to peer with.
        #[schemars(length(max = 1024))]
        peer_selector: String,
        /// Use `nextHopMode`.
        keep_original_next_hop: bool,
        /// How the next hop of announced routes is set.
        #[schemars(extend("enum" = ["Auto", "Self", "Keep"]))]
        next_hop_mode: Option<String>,
        /// Password of the session.
        password: Option<BGPPassword>,
        /// Whether the session is opened from the node's address.
        #[schemars(extend("enum" = ["UseNodeIP", "None"]))]
        source_address: Option<String>,
        /// Graceful restart timeout.
        max_restart_time: Option<String>,
        /// Time between keepalives.
        keepalive_time: Option<String>,
        /// How often the local AS may stand in the path of a received route.
        #[serde(rename = "numAllowedLocalASNumbers")]
        num_allowed_local_as_numbers: Option<i32>,
        /// Hops away at most (generalised TTL security).
        #[schemars(range(min = 0, max = 255))]
        ttl_security: Option<i32>,
        /// Gateway through which the peer is reached.
        reachable_by: String,
        /// Names of filters, in order.
        filters: Vec<String>,
        /// Whether the session back is made as well.
        #[schemars(extend("enum" = ["Auto", "Manual"]))]
        reverse_peering: Option<String>,
        /// Pods on the node to peer with.
        #[schemars(length(max = 1024))]
        local_workload_selector: String,
    }
);
kind!(BGPPeerSpec, BGPPeer, "bgppeers", Cluster);

part!(
    /// Where a password is kept.
    BGPPassword {
        /// Key of a Secret in the agent's namespace.
        secret_key_ref: Option<SecretKeyRef>,
    }
);

part!(
    /// Key of a Secret.
    #[schemars(extend("required" = ["key"]))]
    SecretKeyRef {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
        /// May be missing.
        optional: Option<bool>,
    }
);

part!(
    /// BGP for the whole cluster (`default`) or one node (`node.NAME`).
    BGPConfigurationSpec {
        /// Least severity that is logged.
        #[schemars(extend("enum" = ["Debug", "Info", "Warning", "Error", "Fatal"]))]
        log_severity_screen: Option<String>,
        /// Every node peers with every other.
        node_to_node_mesh_enabled: Option<bool>,
        /// AS number of nodes that have none of their own.
        as_number: Option<NumOrString>,
        /// Ranges of load balancer addresses to announce.
        #[serde(rename = "serviceLoadBalancerIPs")]
        service_load_balancer_ips: Vec<CidrBlock>,
        /// Ranges of external addresses to announce.
        #[serde(rename = "serviceExternalIPs")]
        service_external_ips: Vec<CidrBlock>,
        /// Ranges of cluster addresses to announce.
        #[serde(rename = "serviceClusterIPs")]
        service_cluster_ips: Vec<CidrBlock>,
        /// Whether load balancer ranges are announced as a whole.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        service_load_balancer_aggregation: Option<String>,
        /// Named communities.
        #[schemars(length(max = 500))]
        communities: Vec<Community>,
        /// Communities by prefix.
        #[schemars(length(max = 500))]
        prefix_advertisements: Vec<PrefixAdvertisement>,
        /// Port that BGP listens on.
        #[schemars(range(min = 1, max = 65535))]
        listen_port: Option<i32>,
        /// Password of the mesh.
        node_mesh_password: Option<BGPPassword>,
        /// Graceful restart timeout of the mesh.
        node_mesh_max_restart_time: Option<String>,
        /// Which addresses BGP listens on.
        #[schemars(extend("enum" = ["None", "NodeIP"]))]
        bind_mode: Option<String>,
        /// Interfaces whose addresses are not announced.
        ignored_interfaces: Vec<String>,
        /// IPv4 address that pods peer with.
        #[serde(rename = "localWorkloadPeeringIPV4")]
        local_workload_peering_ipv4: String,
        /// IPv6 address that pods peer with.
        #[serde(rename = "localWorkloadPeeringIPV6")]
        local_workload_peering_ipv6: String,
        /// Which routes between nodes BGP programs.
        #[schemars(extend("enum" = ["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"]))]
        program_cluster_routes: Option<String>,
        /// Kernel metric of IPv4 routes.
        #[serde(rename = "ipv4NormalRoutePriority")]
        ipv4_normal_route_priority: Option<i32>,
        /// Kernel metric of IPv6 routes.
        #[serde(rename = "ipv6NormalRoutePriority")]
        ipv6_normal_route_priority: Option<i32>,
    }
);
kind!(BGPConfigurationSpec, BGPConfiguration, "bgpconfigurations", Cluster);

part!(
    /// A prefix.
    CidrBlock {
        /// The prefix.
        cidr: String,
    }
);

part!(
    /// A community with a name.
    Community {
        /// The name.
        name: String,
        /// `aa:nn` or `aa:nn:mm`.
        value: String,
    }
);

part!(
    /// Communities of a prefix.
    PrefixAdvertisement {
        /// The prefix.
        cidr: String,
        /// Names or values.
        #[schemars(length(max = 50))]
        communities: Vec<String>,
    }
);
