//! Kubernetes NetworkPolicies: reading staged ones.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use crate::FieldError;
use crate::meta::Object;
use crate::v3::StagedKubernetesNetworkPolicySpec;

/// The Kubernetes policy inside a staged one.
pub(crate) fn staged(
    policy: &Object<StagedKubernetesNetworkPolicySpec>,
) -> Result<NetworkPolicy, FieldError> {
    let mut spec = serde_json::to_value(&policy.spec).unwrap_or_default();
    if let Value::Object(spec) = &mut spec {
        spec.remove("stagedAction");
    }
    let metadata = json!({ "name": policy.name(), "namespace": policy.namespace() });
    let whole = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    });
    serde_json::from_value(whole).map_err(|e| FieldError::new("spec", e.to_string()))
}
