//! CustomResourceDefinitions take their objects along when they go.

use std::sync::Arc;

use serde_json::Value;

use super::{Controller, client};
use crate::api::Api;
use crate::status::{ApiError, Result};
use crate::storage::{Change, ChangeKind, Object};

const PREFIX: &str = "apiextensions.k8s.io/customresourcedefinitions/";

/// What holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The controller; its keys are names of definitions, `plural.group`.
pub(super) struct Definitions;

impl Controller for Definitions {
    fn touched(&mut self, api: &Api, change: &Change) -> Vec<String> {
        let key = change.object.key();
        if let Some(name) = key.strip_prefix(PREFIX) {
            return vec![name.to_owned()];
        }
        // A custom object that went may be the last one that its definition waited for.
        let mut parts = key.split('/');
        let (Some(group), Some(plural)) = (parts.next(), parts.next()) else { return Vec::new() };
        let name = format!("{plural}.{group}");
        let waits = change.kind == ChangeKind::Deleted
            && api.storage.get(&format!("{PREFIX}{name}")).is_some_and(|d| dying(&d));
        if waits { vec![name] } else { Vec::new() }
    }

    fn all(&mut self, api: &Api) -> Vec<String> {
        let objects = api.storage.list(PREFIX, None).map(|l| l.objects).unwrap_or_default();
        objects.iter().filter_map(|o| o.key().strip_prefix(PREFIX).map(str::to_owned)).collect()
    }

    async fn settle(&mut self, api: &Arc<Api>, key: &str) -> Result<(), ApiError> {
        let found = api.storage.get(&format!("{PREFIX}{key}")).filter(|d| dying(d));
        let Some(definition) = found else { return Ok(()) };
        let spec = &definition.value()["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
        let registry = api.registry();
        let resource = registry.resources.iter().find(|r| r.is(&group, &plural));
        if let Some(resource) = resource {
            for object in api.storage.list(&resource.prefix(), None)?.objects {
                if object.value()["metadata"].get("deletionTimestamp").is_none() {
                    client::delete(api, resource, &object, "Background").await?;
                }
            }
            if !api.storage.list(&resource.prefix(), None)?.objects.is_empty() {
                return Ok(()); // the deletion of the last of them comes back here
            }
        }
        client::release(api, &definition, CLEANUP).await
    }
}

fn dying(definition: &Object) -> bool {
    definition.value()["metadata"].get("deletionTimestamp").is_some()
}
