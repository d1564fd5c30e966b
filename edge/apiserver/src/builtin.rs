//! The fixed resources as tables.

use crate::registry::{Column, Origin, Resource};
use crate::schema::Shape;
use crate::view::View;

/// A row: group, version, kind, plural, namespaced, short names, field selectors.
struct Row(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
    &'static [&'static str],
);

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

#[rustfmt::skip]
const KUBERNETES: &[Row] = &[
    Row("", "v1", "Namespace", "namespaces", false, &["ns"], &["status.phase"]),
    Row("", "v1", "Node", "nodes", false, &["no"], &["spec.unschedulable"]),
    Row("", "v1", "Pod", "pods", true, &["po"], POD_FIELDS),
    Row("", "v1", "Service", "services", true, &["svc"], &["spec.clusterIP", "spec.type"]),
    Row("", "v1", "ServiceAccount", "serviceaccounts", true, &["sa"], &[]),
    Row("", "v1", "ConfigMap", "configmaps", true, &["cm"], &[]),
    Row("", "v1", "Secret", "secrets", true, &[], &["type"]),
    Row("", "v1", "Endpoints", "endpoints", true, &["ep"], &[]),
    Row("", "v1", "Event", "events", true, &["ev"], EVENT_FIELDS),
    Row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true, &[], &[]),
    Row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true, &["netpol"], &[]),
    Row("coordination.k8s.io", "v1", "Lease", "leases", true, &[], &[]),
    Row("events.k8s.io", "v1", "Event", "events", true, &["ev"], EVENT_FIELDS),
    Row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false, &["crd", "crds"], &[]),
    Row("operator.tigera.io", "v1", "Installation", "installations", false, &[], &[]),
];

/// Adds the schemas of Calico's kinds.
pub(crate) fn add_schemas(schemas: &mut openapi::Schemas) {
    for (kind, ..) in CALICO {
        let open = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        schemas.add("projectcalico.org", "v3", kind, open);
    }
}

/// Plurals of resources with a `status` subresource.
const WITH_STATUS: [&str; 6] =
    ["namespaces", "nodes", "pods", "services", "customresourcedefinitions", "installations"];

/// Kubernetes' own resources, and the operator's.
pub(crate) fn kubernetes() -> impl Iterator<Item = Resource> {
    KUBERNETES.iter().map(|row| {
        let Row(group, version, kind, plural, namespaced, shorts, fields) = *row;
        let origin = if group == "operator.tigera.io" { Origin::Calico } else { Origin::Builtin };
        let (home, view) = match group {
            "events.k8s.io" => ((String::new(), "events".to_owned()), View::Event),
            _ => ((group.to_owned(), plural.to_owned()), View::Same),
        };
        let categories: &[&str] = match plural {
            "pods" | "services" => &["all"],
            "customresourcedefinitions" => &["api-extensions"],
            _ => &[],
        };
        Resource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: strings(shorts),
            categories: strings(categories),
            namespaced,
            status: WITH_STATUS.contains(&plural),
            subresources: match plural {
                "pods" => vec!["binding", "eviction"],
                "namespaces" => vec!["finalize"],
                "serviceaccounts" => vec!["token"],
                _ => Vec::new(),
            },
            origin,
            home,
            view,
            columns: Vec::new(),
            fields: strings(fields),
            shape: Shape::default(),
        }
    })
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Calico's resources, all of group `projectcalico.org`.
pub(crate) fn calico() -> impl Iterator<Item = Resource> {
    CALICO.iter().map(|(kind, plural, namespaced, shorts)| {
        let node = *kind == "Node";
        let home = match node {
            true => (String::new(), "nodes".to_owned()),
            false => ("projectcalico.org".to_owned(), (*plural).to_owned()),
        };
        Resource {
            group: "projectcalico.org".into(),
            version: "v3".into(),
            kind: (*kind).into(),
            list_kind: format!("{kind}List"),
            plural: (*plural).into(),
            singular: kind.to_lowercase(),
            short_names: strings(shorts),
            categories: Vec::new(),
            namespaced: *namespaced,
            status: false,
            subresources: Vec::new(),
            origin: Origin::Calico,
            home,
            view: if node { View::CalicoNode } else { View::Same },
            columns: Vec::<Column>::new(),
            fields: strings(&["spec.tier"]),
            shape: Shape::default(),
        }
    })
}

#[rustfmt::skip]
const CALICO: &[(&str, &str, bool, &[&str])] = &[
    ("NetworkPolicy", "networkpolicies", true, &["cnp"]),
    ("GlobalNetworkPolicy", "globalnetworkpolicies", false, &["gnp", "cgnp"]),
    ("StagedNetworkPolicy", "stagednetworkpolicies", true, &["snp"]),
    ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", false, &["sgnp"]),
    ("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", true, &["sknp"]),
    ("Tier", "tiers", false, &[]),
    ("Profile", "profiles", false, &[]),
    ("NetworkSet", "networksets", true, &["netsets"]),
    ("GlobalNetworkSet", "globalnetworksets", false, &[]),
    ("HostEndpoint", "hostendpoints", false, &["hep", "heps"]),
    ("WorkloadEndpoint", "workloadendpoints", true, &["wep", "weps"]),
    ("BGPPeer", "bgppeers", false, &[]),
    ("BGPConfiguration", "bgpconfigurations", false, &["bgpconfig"]),
    ("BGPFilter", "bgpfilters", false, &[]),
    ("IPPool", "ippools", false, &[]),
    ("IPReservation", "ipreservations", false, &[]),
    ("IPAMConfiguration", "ipamconfigurations", false, &[]),
    ("IPAMBlock", "ipamblocks", false, &[]),
    ("IPAMHandle", "ipamhandles", false, &[]),
    ("BlockAffinity", "blockaffinities", false, &["affinity", "affinities"]),
    ("FelixConfiguration", "felixconfigurations", false, &["felixconfig", "felixconfigs"]),
    ("ClusterInformation", "clusterinformations", false, &["clusterinfo"]),
    ("KubeControllersConfiguration", "kubecontrollersconfigurations", false, &["kcconfig"]),
    ("CalicoNodeStatus", "caliconodestatuses", false, &["caliconodestatus"]),
    ("Node", "nodes", false, &[]),
];
