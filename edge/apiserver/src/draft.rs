//! The way of a written object from the request's body to the form that is stored.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::admission;
use crate::api::Api;
use crate::registry::Resource;
use crate::request::Call;
use crate::status::{ApiError, Result};

/// How strictly fields are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    Ignore,
    Warn,
    Strict,
}

impl Strictness {
    pub(crate) fn of(call: &Call) -> Result<Self> {
        match call.query.get("fieldValidation") {
            None | Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(ApiError::bad_request(format!(
                "fieldValidation {other:?}: wanted Ignore, Warn or Strict"
            ))),
        }
    }
}

/// Checks that a body is an object of the resource, and reports unknown and duplicate fields: as an
/// error if strict, else into `warnings`.
pub(crate) fn check_body(
    call: &Call,
    body: &mut Value,
    duplicates: &[String],
    warnings: &mut Vec<String>,
) -> Result<()> {
    let resource = &call.resource;
    let Some(fields) = body.as_object_mut() else {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    };
    let wanted = [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())];
    for (field, wanted) in wanted {
        match fields.get(field).map(|v| v.as_str().unwrap_or_default()) {
            None | Some("") => drop(fields.insert(field.into(), wanted.into())),
            Some(got) if got == wanted => {}
            Some(got) => {
                return Err(ApiError::bad_request(format!(
                    "{field} in the data ({got}) does not match the expected {field} ({wanted})"
                )));
            }
        }
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    if !metadata.is_object() {
        return Err(ApiError::bad_request("metadata: wanted an object"));
    }
    check_metadata(metadata)?;
    let strictness = Strictness::of(call)?;
    if strictness == Strictness::Ignore {
        return Ok(());
    }
    let unknown = resource.shape.unknown_fields(body);
    let found: Vec<_> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .chain(unknown.iter().map(|path| format!("unknown field \"{path}\"")))
        .collect();
    if strictness == Strictness::Strict && !found.is_empty() {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            found.join(", "),
            kind = resource.kind,
            version = resource.version,
        )));
    }
    warnings.extend(found);
    Ok(())
}

/// The types inside metadata, which no schema of a custom resource describes.
fn check_metadata(metadata: &mut Value) -> Result<()> {
    let bad = |field: &str, wanted: &str| {
        Err(ApiError::bad_request(format!("metadata.{field}: wanted {wanted}")))
    };
    let Some(fields) = metadata.as_object_mut() else { return Ok(()) };
    fields.retain(|_, value| !value.is_null());
    for field in ["name", "generateName", "namespace", "uid", "resourceVersion"] {
        if fields.get(field).is_some_and(|value| !value.is_string()) {
            return bad(field, "a string");
        }
    }
    for field in ["labels", "annotations"] {
        match fields.get(field) {
            None => {}
            Some(Value::Object(map)) if map.values().all(Value::is_string) => {}
            Some(_) => return bad(field, "a map of strings (quote numbers and true or false)"),
        }
    }
    match fields.get("finalizers") {
        None => {}
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {}
        Some(_) => return bad("finalizers", "a list of strings"),
    }
    match fields.get("ownerReferences") {
        None => {}
        Some(Value::Array(items)) if items.iter().all(Value::is_object) => {}
        Some(_) => return bad("ownerReferences", "a list of objects"),
    }
    Ok(())
}

/// What makes a new object of a checked body.
pub(crate) fn for_create(api: &Api, call: &Call, mut shown: Value, time: &str) -> Result<Value> {
    let resource = &call.resource;
    let home = api.home(resource);
    admission::stamp_new(call, &mut shown, time)?;
    resource.shape.complete(&mut shown, None);
    judge(resource, &shown, None)?;
    let mut stored = resource.view.store(shown, None);
    if !Arc::ptr_eq(&home, resource) {
        home.shape.complete(&mut stored, None);
        judge(&home, &stored, None)?;
    }
    admission::create(api, &home, &mut stored)?;
    Ok(stored)
}

/// What makes the next state of the stored object `before` of a checked body.
pub(crate) fn for_update(
    api: &Api,
    call: &Call,
    before: &Value,
    mut shown: Value,
) -> Result<Value> {
    let resource = &call.resource;
    let home = api.home(resource);
    keep_system_metadata(&mut shown, &before["metadata"]);
    resource.shape.complete(&mut shown, Some(before).filter(|_| Arc::ptr_eq(&home, resource)));
    let old = (!Arc::ptr_eq(&home, resource))
        .then(|| resource.view.show(before, &resource.api_version(), &resource.kind));
    judge(resource, &shown, old.as_ref().or(Some(before)))?;
    let mut stored = resource.view.store(shown, Some(before));
    if !Arc::ptr_eq(&home, resource) {
        home.shape.complete(&mut stored, Some(before));
        judge(&home, &stored, Some(before))?;
    }
    admission::update(api, &home, before, &mut stored, call.subresource.as_deref())?;
    count_generation(&home, before, &mut stored);
    Ok(stored)
}

fn judge(resource: &Resource, object: &Value, old: Option<&Value>) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = admission::metadata_causes(resource, object);
    for cause in resource.shape.validate(object, old) {
        if !causes.iter().any(|c| c.field == cause.field && c.field.starts_with("metadata")) {
            causes.push(cause);
        }
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&resource.kind, &resource.group, name, &causes))
    }
}

/// Fields of metadata that clients may show but not change.
const SYSTEM: [&str; 9] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
];

fn keep_system_metadata(shown: &mut Value, before: &Value) {
    let Some(fields) = shown.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let mut kept = Map::new();
    for field in SYSTEM {
        fields.shift_remove(field);
        if let Some(value) = before.get(field) {
            kept.insert(field.into(), value.clone());
        }
    }
    fields.shift_remove("selfLink");
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = |v: &Value| {
            v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
        };
        if fields.get(field).is_some_and(empty) {
            fields.shift_remove(field);
        }
    }
    kept.extend(std::mem::take(fields));
    *fields = kept;
}

/// One more if anything but metadata and status has changed.
fn count_generation(home: &Resource, before: &Value, stored: &mut Value) {
    if !home.counts_generations() {
        return;
    }
    let others: &[&[&str]] = &[&["metadata"], &["status"]];
    let others = if home.status { others } else { &others[..1] };
    if !openapi::equal_but(before, stored, others) {
        let next = before["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
        stored["metadata"]["generation"] = next.into();
    }
}

/// Whether a write would change nothing but bookkeeping.
pub(crate) fn same(before: &Value, after: &Value) -> bool {
    let bookkeeping: &[&[&str]] =
        &[&["metadata", "resourceVersion"], &["metadata", "managedFields", "time"]];
    openapi::equal_but(before, after, bookkeeping)
}
