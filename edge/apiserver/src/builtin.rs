//! The fixed resources as tables.

use api::Source;

use crate::derived::Origins;
use crate::rbac;
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
    Row(rbac::GROUP, "v1", "ClusterRole", "clusterroles", false, &[], &[]),
    Row(rbac::GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", false, &[], &[]),
    Row(rbac::GROUP, "v1", "Role", "roles", true, &[], &[]),
    Row(rbac::GROUP, "v1", "RoleBinding", "rolebindings", true, &[], &[]),
    Row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false, &["crd", "crds"], &[]),
];

/// Plurals of resources with a `status` subresource.
const WITH_STATUS: [&str; 5] =
    ["namespaces", "nodes", "pods", "services", "customresourcedefinitions"];

/// Kubernetes' own resources.
pub(crate) fn kubernetes() -> impl Iterator<Item = Resource> {
    KUBERNETES.iter().map(|row| {
        let Row(group, version, kind, plural, namespaced, shorts, fields) = *row;
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
            origin: Origin::Builtin,
            home,
            view,
            origins: Origins::Stored,
            columns: Vec::new(),
            fields: strings(fields),
            shape: Shape::default(),
        }
    })
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The resources of Calico and its operator.
pub(crate) fn calico() -> impl Iterator<Item = Resource> {
    kinds().map(|kind| {
        let node = kind.source == Source::Node;
        let home = if node { ("", "nodes") } else { (kind.group, kind.plural) };
        let home = (home.0.to_owned(), home.1.to_owned());
        let column = |c: &api::Column| Column {
            name: c.name.into(),
            kind: c.kind.into(),
            path: c.path.into(),
            priority: i64::from(c.wide),
        };
        Resource {
            group: kind.group.into(),
            version: kind.version.into(),
            kind: kind.kind.into(),
            list_kind: format!("{}List", kind.kind),
            plural: kind.plural.into(),
            singular: kind.singular.into(),
            short_names: strings(kind.short),
            categories: Vec::new(),
            namespaced: kind.namespaced,
            status: kind.status,
            subresources: Vec::new(),
            origin: Origin::Calico,
            home,
            view: if node { View::CalicoNode } else { View::Same },
            origins: match kind.source {
                Source::Pod => Origins::Pods,
                Source::Namespace => Origins::Profiles { stored: true },
                Source::Stored | Source::Kubernetes | Source::Node => Origins::Stored,
            },
            columns: kind.columns.iter().map(column).collect(),
            fields: if kind.plural.ends_with("policies") {
                strings(&["spec.tier"])
            } else {
                Vec::new()
            },
            shape: Shape { schema: None, calico: Some(kind) },
        }
    })
}

/// Calico's resources where there is no Kubernetes to derive any of them from: all are stored.
pub(crate) fn calico_alone() -> impl Iterator<Item = Resource> {
    own().map(|resource| Resource {
        home: (resource.group.clone(), resource.plural.clone()),
        view: View::Same,
        origins: Origins::Stored,
        ..resource
    })
}

/// Calico's resources beside a Kubernetes. Profiles are stored nowhere there.
pub(crate) fn calico_beside() -> impl Iterator<Item = Resource> {
    own().map(|resource| match resource.origins {
        Origins::Profiles { .. } => {
            Resource { origins: Origins::Profiles { stored: false }, ..resource }
        }
        _ => resource,
    })
}

fn own() -> impl Iterator<Item = Resource> {
    calico().filter(|resource| resource.group == "projectcalico.org")
}

/// Adds the schemas of those resources, and of others that the published documents here do not have.
pub(crate) fn add_schemas(schemas: &mut openapi::Schemas) {
    for (kind, schema) in rbac::schemas() {
        schemas.add(rbac::GROUP, "v1", kind, schema);
    }
    for kind in kinds() {
        if kind.status {
            schemas.add_with_status(kind.group, kind.version, kind.kind, kind.schema());
        } else {
            schemas.add(kind.group, kind.version, kind.kind, kind.schema());
        }
    }
}

fn kinds() -> impl Iterator<Item = &'static api::Kind> {
    api::kinds().iter().filter(|kind| kind.source != Source::Kubernetes)
}
