//! What every cluster has from its first moment.

use std::sync::Arc;

use serde_json::{Value, json};

use super::client::{ensure, put};
use crate::api::Api;
use crate::rbac;
use crate::registry::Resource;
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
        complete(api, resource, &object).await?;
    }
    Ok(())
}

/// Adds what a standard role lacks that an earlier version made, unless it is marked to stay as it is.
async fn complete(api: &Arc<Api>, resource: &Resource, wanted: &Value) -> Result<()> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let Some(before) = api.storage.get(&resource.key(None, name)) else { return Ok(()) };
    let kept =
        &before.value()["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"];
    let mut after = before.value().clone();
    let (Some(rules), Some(wanted)) = (after["rules"].as_array_mut(), wanted["rules"].as_array())
    else {
        return Ok(());
    };
    let missing: Vec<_> = wanted.iter().filter(|rule| !rules.contains(rule)).cloned().collect();
    if missing.is_empty() || kept == "false" {
        return Ok(());
    }
    rules.extend(missing);
    put(api, &before, after).await
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
