//! Host endpoints, workload endpoints and network sets.

use crate::meta::{Cluster, Namespaced, kind, part};
use crate::value::NumOrString;

part!(
    /// A labelled list of prefixes in a namespace.
    NetworkSetSpec {
        /// Prefixes or addresses.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        nets: Vec<String>,
    }
);
kind!(NetworkSetSpec, NetworkSet, "networksets", Namespaced);

part!(
    /// A labelled list of prefixes in no namespace.
    GlobalNetworkSetSpec {
        /// Prefixes or addresses.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        nets: Vec<String>,
    }
);
kind!(GlobalNetworkSetSpec, GlobalNetworkSet, "globalnetworksets", Cluster);

part!(
    /// A named port of an endpoint.
    #[schemars(extend("required" = ["name", "protocol", "port"]))]
    EndpointPort {
        /// The name that rules refer to.
        name: String,
        /// TCP, UDP or SCTP.
        protocol: NumOrString,
        /// Port number.
        #[schemars(range(min = 1, max = 65535))]
        port: i32,
    }
);

impl crate::meta::Absent for i32 {
    fn absent(&self) -> bool {
        *self == 0
    }
}

impl crate::meta::Absent for NumOrString {
    fn absent(&self) -> bool {
        false
    }
}

part!(
    /// A node's own interface, or all of them, under policy.
    HostEndpointSpec {
        /// The node.
        #[schemars(length(max = 253))]
        node: String,
        /// Name of the interface, or `*` for all that are no workload's.
        #[schemars(length(max = 15))]
        interface_name: String,
        /// Addresses that the interface is expected to have.
        #[serde(rename = "expectedIPs")]
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        expected_ips: Vec<String>,
        /// Profiles, in order of evaluation.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        profiles: Vec<String>,
        /// Named ports.
        #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
        ports: Vec<EndpointPort>,
    }
);
kind!(HostEndpointSpec, HostEndpoint, "hostendpoints", Cluster);

part!(
    /// A named port of a pod.
    WorkloadEndpointPort {
        /// The name that rules refer to.
        name: String,
        /// TCP, UDP or SCTP.
        protocol: NumOrString,
        /// Port number.
        port: i32,
        /// Port on the host that leads here.
        host_port: Option<i32>,
        /// Address on the host that leads here.
        #[serde(rename = "hostIP")]
        host_ip: String,
    }
);

part!(
    /// A one-to-one NAT of a pod.
    IPNAT {
        /// The pod's own address.
        #[serde(rename = "internalIP")]
        internal_ip: String,
        /// The address that leads to it.
        #[serde(rename = "externalIP")]
        external_ip: String,
    }
);

part!(
    /// A pod's interface. Derived from the Pod; on etcd it is stored.
    WorkloadEndpointSpec {
        /// `k8s`.
        orchestrator: String,
        /// Workload name, for orchestrators other than Kubernetes.
        workload: String,
        /// The node it runs on.
        node: String,
        /// Id of its sandbox container.
        #[serde(rename = "containerID")]
        container_id: String,
        /// Name of the pod.
        pod: String,
        /// Name of the interface in the pod.
        endpoint: String,
        /// Service account of the pod.
        service_account_name: String,
        /// Its addresses, as prefixes.
        ip_networks: Vec<String>,
        /// One-to-one NATs.
        #[serde(rename = "ipNATs")]
        ip_nats: Vec<IPNAT>,
        /// IPv4 gateway.
        #[serde(rename = "ipv4Gateway")]
        ipv4_gateway: String,
        /// IPv6 gateway.
        #[serde(rename = "ipv6Gateway")]
        ipv6_gateway: String,
        /// Profiles, in order of evaluation.
        profiles: Vec<String>,
        /// Host side of the interface pair.
        interface_name: String,
        /// MAC address of the interface.
        mac: String,
        /// Named ports.
        ports: Vec<WorkloadEndpointPort>,
        /// Prefixes that it may send from beyond its own addresses.
        allow_spoofed_source_prefixes: Vec<String>,
    }
);
kind!(WorkloadEndpointSpec, WorkloadEndpoint, "workloadendpoints", Namespaced);
