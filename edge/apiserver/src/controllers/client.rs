//! Requests that controllers make: the same verbs that clients use, without HTTP.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, Method, header};
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::User;
use crate::registry::Resource;
use crate::request::{Call, Query};
use crate::status::Result;
use crate::storage::{Expect, Object};
use crate::verbs;

/// A call on `resource` by the server itself.
pub(super) fn call(method: Method, resource: &Arc<Resource>, object: &Value) -> Call {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let mut headers = HeaderMap::new();
    let agent = header::HeaderValue::from_static("calico-controllers");
    headers.insert(header::USER_AGENT, agent);
    let verb = if method == Method::DELETE { "delete" } else { "create" };
    Call {
        method,
        verb,
        tiers: None,
        user: Arc::new(User::server()),
        resource: resource.clone(),
        namespace: text("namespace").filter(|_| resource.namespaced),
        name: text("name"),
        subresource: None,
        query: Query::default(),
        headers,
        body: Bytes::new(),
    }
}

/// Creates `object` if there is none of its name.
pub(super) async fn ensure(api: &Arc<Api>, resource: &Arc<Resource>, object: &Value) -> Result<()> {
    let mut call = call(Method::POST, resource, object);
    if let Some(name) = call.name.take()
        && api.storage.get(&call.key(&name)).is_some()
    {
        return Ok(());
    }
    call.body = Bytes::from(object.to_string());
    match verbs::perform(api, &call).await {
        Err(error) if error.reason == "AlreadyExists" => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Deletes `object`, which may be gone already, with the policy given.
pub(super) async fn delete(
    api: &Arc<Api>,
    resource: &Arc<Resource>,
    object: &Object,
    policy: &str,
) -> Result<()> {
    let mut call = call(Method::DELETE, resource, object.value());
    let uid = &object.value()["metadata"]["uid"];
    let options = json!({"propagationPolicy": policy, "preconditions": {"uid": uid}});
    call.body = Bytes::from(options.to_string());
    match verbs::perform(api, &call).await {
        Err(error) if error.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Takes a finalizer off an object, which goes away if it was the last one.
pub(super) async fn release(api: &Arc<Api>, object: &Object, finalizer: &str) -> Result<()> {
    let mut after = object.value().clone();
    if let Some(list) = after["metadata"]["finalizers"].as_array_mut() {
        list.retain(|f| f != finalizer);
    }
    verbs::modify::replace(api, object, after).await.map(drop).map_err(Into::into)
}

/// Writes the next state of an object.
pub(super) async fn put(api: &Arc<Api>, before: &Object, after: Value) -> Result<()> {
    let expect = Expect::At(before.revision());
    api.put(before.key().clone(), expect, Some(after)).await.map(drop).map_err(Into::into)
}
