//! Owners and dependents: what has lost all its owners goes, too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::{Controller, client};
use crate::api::Api;
use crate::registry::Resource;
use crate::status::{ApiError, Result};
use crate::storage::{Change, ChangeKind, Object};

/// The controller; its keys are storage keys of objects with owners, or of owners being deleted.
#[derive(Default)]
pub(super) struct Garbage {
    /// Keys of dependents by their owner's UID, as of the changes heard so far: a deletion must not
    /// look at every object there is.
    dependents: HashMap<String, BTreeSet<String>>,
    /// The owners that each key is noted under.
    noted: HashMap<String, Vec<String>>,
}

impl Garbage {
    fn note(&mut self, key: String, object: &Value) {
        self.forget(&key);
        let uids: Vec<String> =
            owners(object).filter_map(|o| o["uid"].as_str()).map(str::to_owned).collect();
        for uid in &uids {
            self.dependents.entry(uid.clone()).or_default().insert(key.clone());
        }
        if !uids.is_empty() {
            self.noted.insert(key, uids);
        }
    }

    fn forget(&mut self, key: &str) {
        for uid in self.noted.remove(key).into_iter().flatten() {
            if let Some(keys) = self.dependents.get_mut(&uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(&uid);
                }
            }
        }
    }
}

const HOLDS: [&str; 2] = ["foregroundDeletion", "orphan"];

impl Controller for Garbage {
    fn touched(&mut self, api: &Api, change: &Change) -> Vec<String> {
        let object = change.object.value();
        let key = change.object.key().to_string();
        let mut keys = Vec::new();
        if change.kind == ChangeKind::Deleted {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            keys.extend(self.dependents.get(uid).into_iter().flatten().cloned());
            self.forget(&key);
            keys.extend(
                owners(object)
                    .filter_map(|owner| find(api, object, owner))
                    .map(|o| o.key().to_string()),
            );
        } else {
            self.note(key.clone(), object);
            if interesting(object) {
                keys.push(key);
            }
        }
        keys
    }

    fn all(&mut self, api: &Api) -> Vec<String> {
        let objects = api.storage.list("", None).map(|l| l.objects).unwrap_or_default();
        *self = Self::default();
        for object in &objects {
            self.note(object.key().to_string(), object.value());
        }
        objects.iter().filter(|o| interesting(o.value())).map(|o| o.key().to_string()).collect()
    }

    async fn settle(&mut self, api: &Arc<Api>, key: &str) -> Result<(), ApiError> {
        let Some(object) = api.storage.get(key) else { return Ok(()) };
        if dying(object.value()) {
            return finish(api, &object).await;
        }
        abandon(api, &object).await
    }
}

fn interesting(object: &Value) -> bool {
    owners(object).next().is_some()
        || (dying(object) && HOLDS.iter().any(|hold| held(object, hold)))
}

fn dying(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

fn held(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|f| f.iter().any(|f| f == finalizer))
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

/// The resource that an object is stored as.
fn resource_of(api: &Api, object: &Object) -> Option<Arc<Resource>> {
    api.registry().stored().into_iter().find(|r| object.key().starts_with(&r.prefix()))
}

/// The owner that `object` means by `owner`, if it is there.
fn find(api: &Api, object: &Value, owner: &Value) -> Option<Arc<Object>> {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let resource = api.registry().by_kind(text("apiVersion"), text("kind"))?;
    let namespace = object["metadata"]["namespace"].as_str().filter(|_| resource.namespaced);
    let found = api.storage.get(&resource.key(namespace, text("name")))?;
    (found.value()["metadata"]["uid"] == owner["uid"]).then_some(found)
}

fn dependents(api: &Api, uid: &str) -> Vec<(bool, Arc<Object>)> {
    let objects = api.storage.list("", None).map(|l| l.objects).unwrap_or_default();
    let owned = |object: Arc<Object>| {
        let blocks = owners(object.value())
            .find(|owner| owner["uid"] == uid)
            .map(|owner| owner["blockOwnerDeletion"] == true)?;
        Some((blocks, object))
    };
    objects.into_iter().filter_map(owned).collect()
}

/// Deletes an object all of whose owners are gone; drops references to those that are gone otherwise.
async fn abandon(api: &Arc<Api>, object: &Object) -> Result<()> {
    let all: Vec<_> = owners(object.value()).cloned().collect();
    let kept: Vec<_> =
        all.iter().filter(|o| find(api, object.value(), o).is_some()).cloned().collect();
    // A kind that is not served (any more) says nothing about its objects.
    let registry = api.registry();
    let unknown = |o: &&Value| {
        let text = |field: &str| o[field].as_str().unwrap_or_default();
        registry.by_kind(text("apiVersion"), text("kind")).is_none()
    };
    if all.is_empty() || kept.len() == all.len() || all.iter().any(|o| unknown(&o)) {
        return foreground(api, object, &kept).await;
    }
    if kept.is_empty() {
        let Some(resource) = resource_of(api, object) else { return Ok(()) };
        return client::delete(api, &resource, object, "Background").await;
    }
    let mut after = object.value().clone();
    after["metadata"]["ownerReferences"] = kept.into();
    client::put(api, object, after).await
}

/// An owner that waits for its dependents takes those along that have no other owner.
async fn foreground(api: &Arc<Api>, object: &Object, kept: &[Value]) -> Result<()> {
    let waiting = |owner: &Value| {
        find(api, object.value(), owner)
            .is_some_and(|o| dying(o.value()) && held(o.value(), "foregroundDeletion"))
    };
    if kept.is_empty() || !kept.iter().all(waiting) {
        return Ok(());
    }
    let Some(resource) = resource_of(api, object) else { return Ok(()) };
    client::delete(api, &resource, object, "Foreground").await
}

/// Takes our finalizers off an object that is being deleted, when their condition holds.
async fn finish(api: &Arc<Api>, object: &Object) -> Result<()> {
    let uid = object.value()["metadata"]["uid"].as_str().unwrap_or_default();
    let dependents = dependents(api, uid);
    if held(object.value(), "orphan") {
        for (_, dependent) in dependents {
            let mut after = dependent.value().clone();
            let others: Vec<_> = owners(&after).filter(|o| o["uid"] != uid).cloned().collect();
            after["metadata"]["ownerReferences"] = others.into();
            client::put(api, &dependent, after).await?;
        }
        return client::release(api, object, "orphan").await;
    }
    if !held(object.value(), "foregroundDeletion") {
        return Ok(());
    }
    for (_, dependent) in &dependents {
        let kept: Vec<_> = owners(dependent.value()).cloned().collect();
        if !dying(dependent.value()) {
            foreground(api, dependent, &kept).await?;
        }
    }
    if dependents.iter().any(|(blocks, _)| *blocks) {
        return Ok(()); // the deletion of the last of them comes back here
    }
    client::release(api, object, "foregroundDeletion").await
}
