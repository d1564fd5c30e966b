//! The cluster itself, and its controllers.

use std::collections::BTreeMap;

use crate::meta::{Cluster, kind, part};

part!(
    /// Facts about the cluster; the object is named `default`.
    ClusterInformationSpec {
        /// Random id of the cluster.
        #[serde(rename = "clusterGUID")]
        cluster_guid: String,
        /// Words that say what the cluster is made of.
        cluster_type: String,
        /// Version that the cluster runs.
        calico_version: String,
        /// False while the datastore is being migrated: nothing may be changed then.
        datastore_ready: Option<bool>,
        /// Variant of the product.
        variant: String,
    }
);
kind!(ClusterInformationSpec, ClusterInformation, "clusterinformations", Cluster);

part!(
    /// Settings of the controllers; the object is named `default`.
    #[schemars(extend("required" = ["controllers"]))]
    KubeControllersConfigurationSpec {
        /// Least severity that is logged.
        #[schemars(extend("enum" = ["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"]))]
        log_severity_screen: Option<String>,
        /// Whether health is served.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        health_checks: Option<String>,
        /// Time between compactions of etcd; 0 for never.
        #[serde(rename = "etcdV3CompactionPeriod")]
        etcd_v3_compaction_period: Option<String>,
        /// Port of the metrics server; 0 for none.
        #[schemars(range(min = 0, max = 65535))]
        prometheus_metrics_port: Option<i32>,
        /// Port for profiles; none if absent.
        #[schemars(range(min = 0, max = 65535))]
        debug_profile_port: Option<i32>,
        /// The controllers that run.
        controllers: ControllersConfig,
    }
);
kind!(
    KubeControllersConfigurationSpec,
    KubeControllersConfiguration,
    "kubecontrollersconfigurations",
    Cluster,
    KubeControllersConfigurationStatus
);

part!(
    /// The settings in force.
    KubeControllersConfigurationStatus {
        /// After environment variables were applied.
        running_config: Option<KubeControllersConfigurationSpec>,
        /// The variables that had an effect.
        environment_vars: BTreeMap<String, String>,
    }
);

part!(
    /// The controllers; an absent one does not run.
    ControllersConfig {
        /// Nodes, their labels, leaked addresses, automatic host endpoints.
        node: Option<NodeController>,
        /// Kubernetes policies into etcd.
        policy: Option<PlainController>,
        /// Pod labels into etcd.
        workload_endpoint: Option<PlainController>,
        /// Service accounts into etcd.
        service_account: Option<PlainController>,
        /// Namespaces into etcd.
        namespace: Option<PlainController>,
        /// Addresses of load balancers.
        load_balancer: Option<LoadBalancerController>,
        /// Renaming of policies.
        policy_migration: Option<MigrationController>,
    }
);

part!(
    /// A controller with a period only.
    PlainController {
        /// Time between full passes.
        reconciler_period: Option<String>,
    }
);

part!(
    /// The node controller.
    NodeController {
        /// Time between full passes.
        reconciler_period: Option<String>,
        /// Whether labels of Kubernetes nodes are copied.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        sync_labels: Option<String>,
        /// Automatic host endpoints.
        host_endpoint: Option<AutoHostEndpoint>,
        /// How long an address may look leaked before it is released.
        leak_grace_period: Option<String>,
    }
);

part!(
    /// Automatic host endpoints.
    AutoHostEndpoint {
        /// Whether every node gets one.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        auto_create: Option<String>,
        /// Whether the default one is made beside those of the templates.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        create_default_host_endpoint: Option<String>,
        /// More of them, by interface.
        templates: Vec<HostEndpointTemplate>,
    }
);

part!(
    /// A template of host endpoints.
    HostEndpointTemplate {
        /// End of the name.
        #[schemars(length(max = 253))]
        generate_name: String,
        /// Prefixes that the addresses must be in.
        #[serde(rename = "interfaceCIDRs")]
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        interface_cidrs: Vec<String>,
        /// Regular expression over interface names.
        interface_pattern: String,
        /// Labels of the host endpoints.
        labels: BTreeMap<String, String>,
        /// Annotations of the host endpoints.
        annotations: BTreeMap<String, String>,
        /// Nodes that get them.
        node_selector: String,
    }
);

part!(
    /// The load balancer controller.
    LoadBalancerController {
        /// Which services get addresses.
        #[serde(rename = "assignIPs")]
        #[schemars(extend("enum" = ["AllServices", "RequestedServicesOnly"]))]
        assign_ips: Option<String>,
    }
);

part!(
    /// The migration controller.
    MigrationController {
        /// Whether policies are renamed.
        #[schemars(extend("enum" = ["Enabled", "Disabled"]))]
        enabled: Option<String>,
    }
);
