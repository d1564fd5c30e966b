//! Subresources: `status`, a pod's `binding` and `eviction`, a namespace's `finalize`, and what to use
//! instead of those that are not served.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, delete_one};
use super::modify::{self, replace};
use super::{Answer, Outcome, read};
use crate::api::{self, Api};
use crate::auth;
use crate::request::Call;
use crate::status::{ApiError, Result};
use crate::storage::StorageError;

pub(crate) async fn perform(api: &Arc<Api>, call: &Call, subresource: &str) -> Result<Outcome> {
    let resource = &call.resource;
    let served = resource.subresources.contains(&subresource);
    match (subresource, &call.method) {
        ("status", _) if !resource.status => Err(ApiError::no_such_resource()),
        ("status", &Method::GET) => read::get(api, call).await.map(Outcome::from),
        ("status" | "finalize", &Method::PUT) if served || subresource == "status" => {
            modify::update(api, call).await
        }
        ("status", &Method::PATCH) => modify::patch(api, call).await,
        ("binding", &Method::POST) if served => bind(api, call).await,
        ("eviction", &Method::POST) if served => evict(api, call).await,
        ("token", &Method::POST) if served => token(api, call),
        (other, _) => Err(instead(&resource.plural, other)),
    }
}

/// What to use instead of something that only a full Kubernetes serves.
fn instead(plural: &str, subresource: &str) -> ApiError {
    let first = subresource.split('/').next().unwrap_or_default();
    let (code, text) = match (plural, first) {
        ("pods", "exec" | "attach") => {
            (501, "exec and attach are not served here: use `calico sandbox exec POD -- CMD`")
        }
        ("pods", "log") => (
            501,
            "pod logs are not served here: use `calico sandbox logs NODE` for the agent of the pod's node",
        ),
        ("pods", "portforward") => (
            501,
            "port forwarding is not served here: use `calico sandbox exec POD -- CMD` or `calico sandbox probe`",
        ),
        ("pods" | "services" | "nodes", "proxy") => {
            (501, "proxying is not served here: use `calico sandbox probe`")
        }
        ("pods", "ephemeralcontainers" | "resize") => (
            501,
            "containers of a running pod cannot be changed here: delete the pod and create it again",
        ),
        (_, "scale") => (404, "scale is not served here: create the pods themselves"),
        ("pods", "binding" | "eviction")
        | ("namespaces", "finalize")
        | ("serviceaccounts", "token") => {
            return ApiError::method_not_allowed("this subresource");
        }
        _ => return ApiError::no_such_resource(),
    };
    ApiError::not_served(code, text)
}

/// Binds a pod to a node, once.
async fn bind(api: &Arc<Api>, call: &Call) -> Result<Outcome> {
    let body = call.parse_body()?.value;
    let name = call.name()?;
    let node = body["target"]["name"].as_str().filter(|node| !node.is_empty());
    let Some(node) = node else {
        return Err(ApiError::bad_request("a binding needs target.name, the name of a node"));
    };
    loop {
        let before = read::find(api, call)?;
        let mut after = before.value().clone();
        let why = match after["spec"]["nodeName"].as_str() {
            Some(bound) if !bound.is_empty() => {
                Some(format!("pod {name} is already assigned to node \"{bound}\""))
            }
            _ if after["metadata"].get("deletionTimestamp").is_some() => {
                Some(format!("pod {name} is being deleted, cannot be assigned to a host"))
            }
            _ => None,
        };
        if let Some(why) = why {
            return Err(ApiError::conflict("pods/binding", "", name, &why));
        }
        after["spec"]["nodeName"] = node.into();
        for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
            if !after["metadata"]["annotations"].is_object() {
                after["metadata"]["annotations"] = json!({});
            }
            after["metadata"]["annotations"][key] = value.clone();
        }
        scheduled(&mut after);
        if call.query.dry_run()? {
            break;
        }
        match replace(api, &before, after).await {
            Err(StorageError::Stale { .. }) => {}
            outcome => {
                outcome.map_err(|error| Api::refused(&call.resource, name, error))?;
                break;
            }
        }
    }
    Ok(done().into())
}

/// Notes in the status that the pod has a node.
fn scheduled(pod: &mut Value) {
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True",
        "lastProbeTime": null, "lastTransitionTime": api::now()}));
    pod["status"]["conditions"] = conditions.into();
}

/// No disruption budgets are kept, so an eviction is a deletion.
async fn evict(api: &Arc<Api>, call: &Call) -> Result<Outcome> {
    let body = call.parse_body()?.value;
    let mut pod = call.clone();
    pod.subresource = None;
    let options = DeleteOptions::from_value(&body["deleteOptions"], call)?;
    delete_one(api, &pod, &options).await?;
    Ok(done().into())
}

/// A token by which a service account is known to this server.
fn token(api: &Api, call: &Call) -> Result<Outcome> {
    let account = read::find(api, call)?;
    let mut request = call.parse_body()?.value;
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600).clamp(600, 1 << 32);
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    let namespace = call.namespace.as_deref().unwrap_or_default();
    let user = format!("system:serviceaccount:{namespace}:{}", call.name()?);
    let uid = account.value()["metadata"]["uid"].as_str().unwrap_or_default();
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["status"] = json!({
        "token": auth::issue(&api.options.token, &user, uid, until.as_second()),
        "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    Ok(Answer::Other(201, request).into())
}

fn done() -> Answer {
    Answer::Other(
        201,
        json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}
