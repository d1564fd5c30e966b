//! Settings of the controllers: variables, and fields of KubeControllersConfiguration. A field that no
//! variable stands for is named as its place in the spec.

use api::v3::felix::Kind::{Choice, Duration, Int, Text, TextList};
use api::v3::felix::Parameter;

use super::Group;

const SWITCH: &[&str] = &["Enabled", "Disabled"];

pub(super) const GROUPS: &[Group] = &[
    Group { title: "Controllers: variables", rows: VARIABLES },
    Group { title: "Controllers: KubeControllersConfiguration", rows: FIELDS },
];

#[rustfmt::skip] // a table: one row a line
const VARIABLES: &[Parameter] = &[
    Parameter::new("LOG_LEVEL", Choice(&["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"]), "Info", "Least severity that is logged.").at("logSeverityScreen"),
    Parameter::new("HEALTH_ENABLED", Choice(&["true", "false"]), "true", "Serve health; in the resource `Enabled` or `Disabled`.").at("healthChecks"),
    Parameter::new("COMPACTION_PERIOD", Duration, "10m", "Time between compactions of etcd; 0 for never.").at("etcdV3CompactionPeriod"),
    Parameter::new("ENABLED_CONTROLLERS", TextList, "", "The controllers that run: node, policy, namespace, serviceaccount, workloadendpoint, loadbalancer. In the resource those that are there.").at("controllers"),
    Parameter::new("RECONCILER_PERIOD", Duration, "5m", "Time between full passes of every controller; each has its own `reconcilerPeriod` in the resource."),
    Parameter::new("SYNC_NODE_LABELS", Choice(&["true", "false"]), "true", "Copy labels of Kubernetes nodes; in the resource `Enabled` or `Disabled`.").at("controllers.node.syncLabels"),
    Parameter::new("AUTO_HOST_ENDPOINTS", Choice(SWITCH), "Disabled", "Create a host endpoint for every node.").at("controllers.node.hostEndpoint.autoCreate"),
    Parameter::new("DATASTORE_TYPE", Choice(&["etcdv3", "kubernetes"]), "etcdv3", "Kind of datastore."),
    Parameter::new("KUBECONFIG", Text, "", "How the Kubernetes API is reached."),
    Parameter::new("WORKLOAD_ENDPOINT_WORKERS", Int(1, i64::MAX), "1", "Pods that are worked on at once."),
    Parameter::new("PROFILE_WORKERS", Int(1, i64::MAX), "1", "Namespaces and service accounts that are worked on at once."),
    Parameter::new("POLICY_WORKERS", Int(1, i64::MAX), "1", "Policies that are worked on at once."),
    Parameter::new("NODE_WORKERS", Int(1, i64::MAX), "1", "Nodes that are worked on at once."),
];

#[rustfmt::skip] // a table: one row a line
const FIELDS: &[Parameter] = &[
    Parameter::new("prometheusMetricsPort", Int(0, 65_535), "9094", "Port of the metrics server; 0 for none.").at("prometheusMetricsPort"),
    Parameter::new("debugProfilePort", Int(0, 65_535), "", "Port for profiles; none if not given.").at("debugProfilePort"),
    Parameter::new("controllers.node.reconcilerPeriod", Duration, "5m", "Time between full passes.").at("controllers.node.reconcilerPeriod"),
    Parameter::new("controllers.node.leakGracePeriod", Duration, "15m", "How long an address may look leaked before it is released; 0 for ever.").at("controllers.node.leakGracePeriod"),
    Parameter::new("controllers.node.hostEndpoint.createDefaultHostEndpoint", Choice(SWITCH), "Enabled", "Whether one of them is for all interfaces.").at("controllers.node.hostEndpoint.createDefaultHostEndpoint"),
    Parameter::new("controllers.policy.reconcilerPeriod", Duration, "5m", "Time between full passes.").at("controllers.policy.reconcilerPeriod"),
    Parameter::new("controllers.namespace.reconcilerPeriod", Duration, "5m", "Time between full passes.").at("controllers.namespace.reconcilerPeriod"),
    Parameter::new("controllers.serviceAccount.reconcilerPeriod", Duration, "5m", "Time between full passes.").at("controllers.serviceAccount.reconcilerPeriod"),
    Parameter::new("controllers.workloadEndpoint.reconcilerPeriod", Duration, "5m", "Time between full passes.").at("controllers.workloadEndpoint.reconcilerPeriod"),
    Parameter::new("controllers.policyMigration.enabled", Choice(SWITCH), "", "Whether policies get the names that they have in upstream's newer releases.").at("controllers.policyMigration.enabled"),
    Parameter::new("controllers.loadBalancer.assignIPs", Choice(&["AllServices", "RequestedServicesOnly"]), "AllServices", "Which services get an address.").at("controllers.loadBalancer.assignIPs"),
];
