//! What every cluster has from its first moment.

use std::sync::Arc;

use serde_json::{Value, json};

use super::client::ensure;
use crate::api::Api;
use crate::rbac;
use crate::status::Result;

/// Tiers of a Calico cluster: name, order, default action.
const TIERS: [(&str, f64, &str); 3] = [
    ("kube-admin", 1_000.0, "Pass"),
    ("default", 1_000_000.0, "Deny"),
    ("kube-baseline", 10_000_000.0, "Pass"),
];

pub(super) async fn prepare(api: &Arc<Api>) -> Result<()> {
    let namespaces = api.builtin("", "namespaces");
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(api, &namespaces, &namespace).await?;
        ensure(api, &api.builtin("", "serviceaccounts"), &super::namespaces::account(name)).await?;
    }
    ensure(api, &api.builtin("", "services"), &service(api)).await?;
    let tiers = api.builtin("projectcalico.org", "tiers");
    for (name, order, action) in TIERS {
        let tier = json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier",
            "metadata": {"name": name}, "spec": {"order": order as i64, "defaultAction": action}});
        ensure(api, &tiers, &tier).await?;
    }
    let roles = api.builtin(rbac::GROUP, "clusterroles");
    let bindings = api.builtin(rbac::GROUP, "clusterrolebindings");
    for object in rbac::standard() {
        let resource = if object["kind"] == "ClusterRole" { &roles } else { &bindings };
        ensure(api, resource, &object).await?;
    }
    Ok(())
}

/// The service by which pods would find this server.
fn service(api: &Api) -> Value {
    let address = api.options.service_ranges.first().map(|r| r.first().to_string());
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]}})
}
