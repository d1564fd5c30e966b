//! From objects of the API to the model that the calculation works on.
//!
//! Malformed parts fail closed: see [`Converted`], and [`closed`] for objects that cannot be read. What upstream calls its update processors is the
//! reference for how namespaces and service accounts become label selectors.

pub mod closed;
mod cluster_policy;
mod endpoint;
mod network;
mod policy;
mod rules;
mod selectors;
mod stored;
pub mod update;
mod view;

pub use cluster_policy::cluster_network_policy;
pub use endpoint::{
    CONTAINER_ID_ANNOTATION, INTERFACE_DIGITS, POD_IP_ANNOTATION, POD_IPS_ANNOTATION,
    default_allow_profile, endpoint_slice, escaped, global_network_set, host_endpoint,
    interface_name, interface_prefix, namespace_profile, network_set, pod, pod_of_endpoint,
    profile, profile_is_derived, profile_view, profiles_of_pod, service_account_profile,
    workload_view,
};
pub use network::{AGENT_ANNOTATION, annotations_of_node, block, node, node_view, pool};
pub use policy::{
    global_network_policy, kubernetes_network_policy, network_policy, staged_global_network_policy,
    staged_kubernetes_network_policy, staged_network_policy, tier,
};
pub use stored::{EndpointName, endpoint_view, stored_node, workload_endpoint};
pub use view::policy_view;

use crate::FieldError;

/// Label that carries the namespace of everything that is in one.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// Label that carries a pod's service account.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";
/// Label that says which orchestrator made an endpoint.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
/// Prefix of labels inherited from the namespace.
pub const NAMESPACE_PREFIX: &str = "pcns.";
/// Prefix of labels inherited from the service account.
pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";
/// Label, below either prefix, that carries the name of the namespace or service account.
pub const NAME_LABEL: &str = "projectcalico.org/name";
/// Prefix of profiles made from namespaces.
pub const NAMESPACE_PROFILE: &str = "kns.";
/// The profile that every cluster has, without an object behind it.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";
/// Prefix of profiles made from service accounts.
pub const SERVICE_ACCOUNT_PROFILE: &str = "ksa.";

/// A result, and what had to be left out of it.
///
/// A malformed Allow or Log rule is dropped; a malformed Deny or Pass rule becomes one that denies
/// everything. Kubernetes rules only allow, so a malformed one is dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted<T> {
    /// The result.
    pub value: T,
    /// What was malformed.
    pub errors: Vec<FieldError>,
}

/// Labels, shared.
pub(crate) fn labels<K: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> model::Labels {
    let shared = pairs.into_iter().map(|(k, v)| (k.as_ref().into(), v.as_ref().into()));
    std::sync::Arc::new(shared.collect())
}
