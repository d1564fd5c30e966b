//! `operator.tigera.io/v1` Installation: stored and validated; it takes effect with the operator.

use serde_json::{Map, Value};

use crate::meta::{Cluster, NoStatus, Object, Spec, part};

/// An object whose inside this project does not read yet.
pub type Opaque = Map<String, Value>;

/// The `Installation` kind.
pub type Installation = Object<InstallationSpec>;

part!(
    /// How Calico is installed.
    InstallationSpec {
        /// Variant of the product.
        variant: Option<String>,
        /// Registry of the images.
        registry: Option<String>,
        /// Path of the images in the registry.
        image_path: Option<String>,
        /// Prefix of image names.
        image_prefix: Option<String>,
        /// Secrets for pulling images.
        image_pull_secrets: Vec<Opaque>,
        /// When images are pulled.
        image_pull_policy: Option<String>,
        /// Provider of Kubernetes.
        kubernetes_provider: Option<String>,
        /// The CNI plugin.
        cni: Option<CniSpec>,
        /// Networking.
        calico_network: Option<CalicoNetworkSpec>,
        /// Ranges of service addresses.
        #[serde(rename = "serviceCIDRs")]
        service_cidrs: Vec<String>,
        /// Directory of flex volume plugins.
        flex_volume_path: Option<String>,
        /// Directory of kubelet plugins.
        kubelet_volume_plugin_path: Option<String>,
        /// Where certificates come from.
        certificate_management: Option<Opaque>,
        /// HTTP proxy of the components.
        proxy: Option<Opaque>,
        /// TLS cipher suites of the components.
        #[serde(rename = "tlsCipherSuites")]
        tls_cipher_suites: Vec<Opaque>,
        /// Settings for Azure.
        azure: Option<Opaque>,
        /// Settings for Windows nodes.
        windows_nodes: Option<Opaque>,
        /// Port of the node's metrics.
        #[schemars(range(min = 0, max = 65535))]
        node_metrics_port: Option<i32>,
        /// Port of Typha's metrics.
        #[schemars(range(min = 0, max = 65535))]
        typha_metrics_port: Option<i32>,
        /// Replicas of control plane components.
        #[schemars(range(min = 0, max = 1000))]
        control_plane_replicas: Option<i32>,
        /// Nodes of control plane components.
        control_plane_node_selector: Option<Opaque>,
        /// Tolerations of control plane components.
        control_plane_tolerations: Vec<Opaque>,
        /// How the node agent is updated.
        node_update_strategy: Option<Opaque>,
        /// Resources of components.
        component_resources: Vec<Opaque>,
        /// Logging.
        logging: Option<Opaque>,
        /// Affinity of Typha.
        typha_affinity: Option<Opaque>,
        /// Policies of the components themselves.
        network_policy: Option<Opaque>,
        /// Whether components run as other users than root.
        non_privileged: Option<String>,
        /// Whether FIPS mode is on.
        fips_mode: Option<String>,
        /// Overrides of the node agent.
        calico_node_daemon_set: Option<Opaque>,
        /// Overrides of the CSI driver.
        csi_node_driver_daemon_set: Option<Opaque>,
        /// Overrides of the controllers.
        calico_kube_controllers_deployment: Option<Opaque>,
        /// Overrides of Typha.
        typha_deployment: Option<Opaque>,
        /// Overrides of the Windows node agent.
        calico_node_windows_daemon_set: Option<Opaque>,
        /// Overrides of the Windows upgrade.
        calico_windows_upgrade_daemon_set: Option<Opaque>,
    }
);

impl Spec for InstallationSpec {
    const GROUP: &'static str = "operator.tigera.io";
    const VERSION: &'static str = "v1";
    const API_VERSION: &'static str = "operator.tigera.io/v1";
    const KIND: &'static str = "Installation";
    const PLURAL: &'static str = "installations";
    type Scope = Cluster;
    type Status = NoStatus;
}

part!(
    /// The CNI plugin.
    CniSpec {
        /// Which plugin.
        #[serde(rename = "type")]
        #[schemars(extend("enum" = ["Calico", "GKE", "AmazonVPC", "AzureVNET"]))]
        kind: Option<String>,
        /// Address management.
        ipam: Option<IpamTypeSpec>,
        /// Version of the CNI specification.
        spec_version: Option<String>,
        /// Directory of the binary.
        bin_dir: Option<String>,
        /// Directory of the configuration.
        conf_dir: Option<String>,
        /// How the plugin is installed.
        install_mode: Option<String>,
    }
);

part!(
    /// Address management.
    IpamTypeSpec {
        /// Which plugin.
        #[serde(rename = "type")]
        kind: Option<String>,
    }
);

part!(
    /// Networking.
    CalicoNetworkSpec {
        /// Data plane.
        #[schemars(extend("enum" = ["Iptables", "BPF", "VPP", "Nftables"]))]
        linux_dataplane: Option<String>,
        /// Data plane of Windows nodes.
        windows_dataplane: Option<String>,
        /// Whether BGP runs.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        bgp: Option<String>,
        /// Whether the eBPF data plane starts without a service address of the API server.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        bpf_network_bootstrap: Option<String>,
        /// Whether kube-proxy is switched off by the operator.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        kube_proxy_management: Option<String>,
        /// Who programs routes between nodes.
        #[schemars(extend("enum" = ["BIRD", "Felix", "FelixIPIPOnly"]))]
        cluster_routing_mode: Option<String>,
        /// Whether forwarding is on in containers.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        container_ip_forwarding: Option<String>,
        /// Whether host ports work.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        host_ports: Option<String>,
        /// MTU of pods.
        #[schemars(range(min = 0, max = 65535))]
        mtu: Option<i32>,
        /// Several interfaces in a pod.
        #[schemars(extend("enum" = ["None", "Multus"]))]
        multi_interface_mode: Option<String>,
        /// How a node finds its IPv4 address.
        #[serde(rename = "nodeAddressAutodetectionV4")]
        node_address_autodetection_v4: Option<Autodetection>,
        /// How a node finds its IPv6 address.
        #[serde(rename = "nodeAddressAutodetectionV6")]
        node_address_autodetection_v6: Option<Autodetection>,
        /// Kind of the pods' interfaces.
        #[schemars(extend("enum" = ["Veth", "Netkit"]))]
        linux_pod_interface_type: Option<String>,
        /// How long a pod's start waits for its policy.
        linux_policy_setup_timeout_seconds: Option<i32>,
        /// Sysctls of pods.
        sysctl: Vec<SysctlSpec>,
        /// Address pools.
        #[schemars(length(max = 25))]
        ip_pools: Vec<InstallPool>,
    }
);

part!(
    /// A sysctl of pods.
    SysctlSpec {
        /// Name.
        key: String,
        /// Value.
        value: String,
    }
);

part!(
    /// How a node finds its own address; one of the fields.
    Autodetection {
        /// The first that is found.
        first_found: Option<bool>,
        /// From the Kubernetes node.
        #[schemars(extend("enum" = ["NodeInternalIP"]))]
        kubernetes: Option<String>,
        /// On an interface that matches.
        interface: Option<String>,
        /// On an interface that does not match.
        skip_interface: Option<String>,
        /// On the interface that leads there.
        can_reach: Option<String>,
        /// In these prefixes.
        cidrs: Vec<String>,
    }
);

part!(
    /// An address pool, in the operator's words.
    #[schemars(extend("required" = ["cidr"]))]
    InstallPool {
        /// Name of the pool.
        name: Option<String>,
        /// The range.
        cidr: String,
        /// Encapsulation.
        #[schemars(extend("enum" = ["IPIP", "IPIPCrossSubnet", "VXLAN", "VXLANCrossSubnet", "None"]))]
        encapsulation: Option<String>,
        /// Masquerade traffic that leaves the pools.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        nat_outgoing: Option<String>,
        /// Nodes that take addresses from this pool.
        node_selector: Option<String>,
        /// Prefix length of a block.
        #[schemars(range(min = 20, max = 128))]
        block_size: Option<i32>,
        /// Do not announce the pool over BGP.
        #[serde(rename = "disableBGPExport")]
        disable_bgp_export: Option<bool>,
        /// No new allocations.
        disable_new_allocations: Option<bool>,
        /// What the addresses are used for.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        allowed_uses: Vec<crate::v3::ipam::AllowedUse>,
        /// Whether addresses are given out without being asked for by pool.
        assignment_mode: Option<crate::v3::ipam::AssignmentMode>,
    }
);
