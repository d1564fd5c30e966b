//! Namespaces: each has a `default` ServiceAccount, and takes its content with it when it goes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controller, client};
use crate::api::Api;
use crate::status::{ApiError, Result};
use crate::storage::{Change, ChangeKind};

const PREFIX: &str = "core/namespaces/";

/// The controller; its keys are names of namespaces.
pub(super) struct Namespaces;

impl Controller for Namespaces {
    fn touched(&mut self, api: &Api, change: &Change) -> Vec<String> {
        let key = change.object.key();
        if let Some(name) = key.strip_prefix(PREFIX) {
            return vec![name.to_owned()];
        }
        // Something left a namespace: it may be the last thing that the namespace waited for.
        let namespace = change.object.value()["metadata"]["namespace"].as_str();
        let account = key.starts_with("core/serviceaccounts/");
        let waits = |name: &&str| {
            api.storage.get(&format!("{PREFIX}{name}")).is_some_and(|n| dying(n.value()) || account)
        };
        let gone = change.kind == ChangeKind::Deleted;
        namespace.filter(|_| gone).filter(waits).map(str::to_owned).into_iter().collect()
    }

    fn all(&mut self, api: &Api) -> Vec<String> {
        let objects = api.storage.list(PREFIX, None).map(|l| l.objects).unwrap_or_default();
        objects.iter().filter_map(|o| o.key().strip_prefix(PREFIX).map(str::to_owned)).collect()
    }

    async fn settle(&mut self, api: &Arc<Api>, key: &str) -> Result<(), ApiError> {
        let Some(namespace) = api.storage.get(&format!("{PREFIX}{key}")) else { return Ok(()) };
        if !dying(namespace.value()) {
            return client::ensure(api, &api.builtin("", "serviceaccounts"), &account(key)).await;
        }
        if empty(api, key).await? > 0 {
            return Ok(()); // the deletion of the last of it comes back here
        }
        let mut after = namespace.value().clone();
        after["spec"] = json!({});
        crate::verbs::modify::replace(api, &namespace, after).await.map(drop).map_err(Into::into)
    }
}

fn dying(namespace: &Value) -> bool {
    namespace["metadata"].get("deletionTimestamp").is_some()
}

/// The ServiceAccount of pods that name none.
pub(super) fn account(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace}})
}

/// Deletes everything in a namespace. Returns how many objects are still there.
async fn empty(api: &Arc<Api>, namespace: &str) -> Result<usize> {
    let mut left = 0;
    for resource in api.registry().stored().iter().filter(|r| r.namespaced) {
        let prefix = format!("{}{namespace}/", resource.prefix());
        for object in api.storage.list(&prefix, None)?.objects {
            if object.value()["metadata"].get("deletionTimestamp").is_none() {
                client::delete(api, resource, &object, "Background").await?;
            }
        }
        left += api.storage.list(&prefix, None)?.objects.len();
    }
    Ok(left)
}
