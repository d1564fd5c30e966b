//! Endpoint slices: for each service with a selector, the addresses of the pods it selects, one slice
//! for each family.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Controller, client};
use crate::api::Api;
use crate::selectors::Filter;
use crate::status::{ApiError, Result};
use crate::storage::{Change, Object};

const SERVICES: &str = "core/services/";
const PODS: &str = "core/pods/";
const SLICES: &str = "discovery.k8s.io/endpointslices/";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The controller; its keys are `namespace/name` of services.
pub(super) struct Endpoints;

impl Controller for Endpoints {
    fn touched(&mut self, api: &Api, change: &Change) -> Vec<String> {
        let object = &change.object;
        if let Some(key) = object.key().strip_prefix(SERVICES) {
            return vec![key.to_owned()];
        }
        if object.key().starts_with(SLICES) {
            return owner(object.value()).into_iter().collect();
        }
        if !object.key().starts_with(PODS) {
            return Vec::new();
        }
        let namespace = object.value()["metadata"]["namespace"].as_str().unwrap_or_default();
        let prefix = format!("{SERVICES}{namespace}/");
        let services = api.storage.list(&prefix, None).map(|l| l.objects).unwrap_or_default();
        let selects = |service: &&Arc<Object>| {
            let states = [Some(object), change.previous.as_ref()];
            states.into_iter().flatten().any(|pod| selects(service.value(), pod.value()))
        };
        let keys = services.iter().filter(selects);
        keys.filter_map(|s| s.key().strip_prefix(SERVICES).map(str::to_owned)).collect()
    }

    fn all(&mut self, api: &Api) -> Vec<String> {
        let keys = |prefix| api.storage.list(prefix, None).map(|l| l.objects).unwrap_or_default();
        let services = keys(SERVICES);
        let slices = keys(SLICES);
        let own = services.iter().filter_map(|s| s.key().strip_prefix(SERVICES).map(str::to_owned));
        own.chain(slices.iter().filter_map(|s| owner(s.value()))).collect()
    }

    async fn settle(&mut self, api: &Arc<Api>, key: &str) -> Result<(), ApiError> {
        let service = api.storage.get(&format!("{SERVICES}{key}"));
        let namespace = key.split('/').next().unwrap_or_default();
        let wanted = service.as_ref().map(|s| slices(api, s.value())).unwrap_or_default();
        let resource = api.builtin("discovery.k8s.io", "endpointslices");
        for object in api.storage.list(&format!("{SLICES}{namespace}/"), None)?.objects {
            let ours = owner(object.value()).as_deref() == Some(key);
            let name = &object.value()["metadata"]["name"];
            if ours && !wanted.iter().any(|slice| slice["metadata"]["name"] == *name) {
                client::delete(api, &resource, &object, "Background").await?;
            }
        }
        for slice in wanted {
            keep(api, &slice).await?;
        }
        Ok(())
    }
}

/// The service of a slice of ours, as `namespace/name`.
fn owner(slice: &Value) -> Option<String> {
    let metadata = &slice["metadata"];
    let labels = &metadata["labels"];
    if labels["endpointslice.kubernetes.io/managed-by"] != MANAGER {
        return None;
    }
    let name = labels["kubernetes.io/service-name"].as_str()?;
    Some(format!("{}/{name}", metadata["namespace"].as_str()?))
}

fn selector(service: &Value) -> Option<&Map<String, Value>> {
    service["spec"]["selector"].as_object().filter(|map| !map.is_empty())
}

fn selects(service: &Value, pod: &Value) -> bool {
    selector(service).is_some_and(|map| Filter::from_map(map).matches(pod))
}

/// Creates or changes a slice to be as wanted.
async fn keep(api: &Arc<Api>, slice: &Value) -> Result<()> {
    let resource = api.builtin("discovery.k8s.io", "endpointslices");
    let text = |field: &str| slice["metadata"][field].as_str();
    let key = resource.key(text("namespace"), text("name").unwrap_or_default());
    let Some(before) = api.storage.get(&key) else {
        return client::ensure(api, &resource, slice).await;
    };
    let mut after = before.value().clone();
    for field in ["addressType", "ports", "endpoints"] {
        after[field] = slice[field].clone();
    }
    after["metadata"]["labels"] = slice["metadata"]["labels"].clone();
    if after == *before.value() {
        return Ok(());
    }
    let generation = after["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
    after["metadata"]["generation"] = generation.into();
    client::put(api, &before, after).await
}

/// The slices that a service should have.
fn slices(api: &Api, service: &Value) -> Vec<Value> {
    let Some(map) = selector(service) else { return Vec::new() };
    if service["metadata"].get("deletionTimestamp").is_some() {
        return Vec::new();
    }
    let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default();
    let filter = Filter::from_map(map);
    let listing = api.storage.list(&format!("{PODS}{namespace}/"), None);
    let mut pods = listing.map(|l| l.objects).unwrap_or_default();
    pods.retain(|pod| filter.matches(pod.value()));
    let families = service["spec"]["ipFamilies"].as_array().into_iter().flatten();
    families.filter_map(Value::as_str).map(|family| slice(service, family, &pods)).collect()
}

fn slice(service: &Value, family: &str, pods: &[Arc<Object>]) -> Value {
    let metadata = &service["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let declared = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let first = pods.first().map(|p| p.value());
    let ports: Vec<_> = declared.iter().filter_map(|port| target(port, first)).collect();
    let endpoints: Vec<_> = pods.iter().filter_map(|pod| endpoint(pod.value(), family)).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-{}", family.to_lowercase()), "namespace": metadata["namespace"],
            "labels": {"kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": MANAGER},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name,
                "uid": metadata["uid"], "controller": true, "blockOwnerDeletion": true}],
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    })
}

/// A service port as the pods have it: named target ports are looked up in the first pod.
fn target(port: &Value, pod: Option<&Value>) -> Option<Value> {
    let number = match &port["targetPort"] {
        Value::String(name) => {
            let containers = pod?["spec"]["containers"].as_array()?.iter();
            let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
            ports.find(|p| p["name"] == name.as_str())?["containerPort"].clone()
        }
        Value::Number(number) => number.clone().into(),
        _ => port["port"].clone(),
    };
    let name = port["name"].as_str().unwrap_or_default();
    Some(json!({"name": name, "port": number, "protocol": port["protocol"]}))
}

fn endpoint(pod: &Value, family: &str) -> Option<Value> {
    let status = &pod["status"];
    if matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let of_family = |ip: &&str| ip.contains(':') == (family == "IPv6");
    let listed = status["podIPs"].as_array().into_iter().flatten().filter_map(|p| p["ip"].as_str());
    let address = listed.chain(status["podIP"].as_str()).find(of_family)?;
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    let serving = status["conditions"].as_array().is_some_and(|all| all.iter().any(ready));
    let terminating = pod["metadata"].get("deletionTimestamp").is_some();
    let metadata = &pod["metadata"];
    Some(json!({
        "addresses": [address],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"],
            "uid": metadata["uid"]},
    }))
}
