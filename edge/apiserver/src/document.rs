//! The OpenAPI documents of what is served, made when first asked for and kept until definitions change.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use openapi::document::{self, Resource};
pub(crate) use openapi::document::{V2_BINARY, V2_BINARY_ANSWER};

use crate::registry::Registry;

/// Documents already made, by path.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<HashMap<String, Bytes>>);

/// The document at `/openapi/` and `parts`.
pub(crate) fn find(registry: &Registry, parts: &[&str]) -> Option<Bytes> {
    let path = parts.join("/");
    let mut made = registry.documents.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(document) = made.get(&path) {
        return Some(document.clone());
    }
    let resources: Vec<_> = registry.resources.iter().map(|r| describe(r)).collect();
    let has = |group: &str, version: &str| {
        resources.iter().any(|r| r.group == group && r.version == version)
    };
    let schemas = &registry.schemas;
    let document = match parts {
        ["v2"] => document::v2(schemas, &resources),
        ["v3"] => document::v3_index(&resources, &registry.hash),
        ["v3", "api", version] if has("", version) => {
            document::v3(schemas, "", version, &resources)
        }
        ["v3", "apis", group, version] if has(group, version) => {
            document::v3(schemas, group, version, &resources)
        }
        _ => return None,
    };
    let document = Bytes::from(document.to_string());
    made.insert(path, document.clone());
    Some(document)
}

fn describe(resource: &crate::registry::Resource) -> Resource<'_> {
    Resource {
        group: &resource.group,
        version: &resource.version,
        kind: &resource.kind,
        plural: &resource.plural,
        namespaced: resource.namespaced,
        status: resource.status,
    }
}
