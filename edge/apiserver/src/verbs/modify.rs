//! update and patch: read, change, compare and swap, again if somebody came between.

use std::sync::Arc;

use serde_json::Value;

use super::{Answer, Outcome, answer_with, create, json_patch, show};
use crate::api::{self, Api, MODIFIED};
use crate::body::{self, Encoding};
use crate::draft;
use crate::managed;
use crate::rbac;
use crate::registry::Origin;
use crate::request::{Call, unsupported};
use crate::status::{ApiError, Cause, Result};
use crate::storage::{Expect, Object, StorageError};
use crate::tier_rights;

/// How often a change is tried again when somebody came between.
const TRIES: usize = 10;

/// A change asked for by a client.
enum Change {
    /// The whole new object.
    Replace(Value),
    Json(::json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

pub(crate) async fn update(api: &Arc<Api>, call: &Call) -> Result<Outcome> {
    let mut parsed = call.parse_body()?;
    let mut warnings = Vec::new();
    draft::check_body(call, &mut parsed.value, &parsed.duplicates, &mut warnings)?;
    let name = call.name()?;
    match parsed.value["metadata"]["name"].as_str() {
        None | Some("") => parsed.value["metadata"]["name"] = name.into(),
        Some(got) if got == name => {}
        Some(got) => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({got}) does not match the name on the URL ({name})"
            )));
        }
    }
    if call.resource.origin == Origin::Custom && revision_of(&parsed.value).is_none() {
        let cause = Cause::invalid(
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update",
        );
        return Err(ApiError::invalid(&call.resource.kind, &call.resource.group, name, &[cause]));
    }
    change(api, call, &Change::Replace(parsed.value), &[], warnings).await
}

pub(crate) async fn patch(api: &Arc<Api>, call: &Call) -> Result<Outcome> {
    let accepted = "application/json-patch+json, application/merge-patch+json, \
                    application/strategic-merge-patch+json, application/apply-patch+yaml";
    let json = |bytes| body::parse(bytes, Encoding::Json);
    let (change, duplicates) = match call.content_type() {
        "application/json-patch+json" => {
            let parsed = json(&call.body)?;
            (Change::Json(json_patch::parse(parsed.value)?), Vec::new())
        }
        "application/merge-patch+json" => {
            let parsed = json(&call.body)?;
            (Change::Merge(parsed.value), parsed.duplicates)
        }
        "application/strategic-merge-patch+json" if call.resource.origin != Origin::Builtin => {
            return Err(unsupported(
                call.content_type(),
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        "application/strategic-merge-patch+json" => {
            let parsed = json(&call.body)?;
            (Change::Strategic(parsed.value), parsed.duplicates)
        }
        "application/apply-patch+yaml" => {
            let parsed = body::parse(&call.body, Encoding::Yaml)?;
            (Change::Apply(applied(call, parsed.value)?), parsed.duplicates)
        }
        other => return Err(unsupported(other, accepted)),
    };
    self::change(api, call, &change, &duplicates, Vec::new()).await
}

/// Checks what is particular to the body of a server-side apply.
fn applied(call: &Call, mut body: Value) -> Result<Value> {
    let name = call.name()?;
    if call.query.get("fieldManager").is_none() {
        return Err(ApiError::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    for field in ["apiVersion", "kind"] {
        if body[field].as_str().is_none_or(str::is_empty) {
            return Err(ApiError::bad_request(format!("{field} must be set in an apply patch")));
        }
    }
    if body["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    draft::check_body(call, &mut body, &[], &mut Vec::new())?;
    let metadata = &mut body["metadata"];
    let wanted = [("name", Some(name)), ("namespace", call.namespace.as_deref())];
    for (field, wanted) in wanted {
        match (metadata[field].as_str(), wanted) {
            (Some(got), Some(wanted)) if got != wanted => {
                return Err(ApiError::bad_request(format!(
                    "the {field} of the object ({got}) does not match the {field} on the URL ({wanted})"
                )));
            }
            (None, Some(wanted)) => metadata[field] = wanted.into(),
            _ => {}
        }
    }
    Ok(body)
}

fn revision_of(object: &Value) -> Option<&str> {
    object["metadata"]["resourceVersion"].as_str().filter(|v| !v.is_empty() && *v != "0")
}

async fn change(
    api: &Arc<Api>,
    call: &Call,
    change: &Change,
    duplicates: &[String],
    warnings: Vec<String>,
) -> Result<Outcome> {
    let name = call.name()?;
    let refused = |error| Api::refused(&call.resource, name, error);
    for tries in 1.. {
        let mut warnings = warnings.clone();
        let Some(before) = api.storage.get(&call.key(name)) else {
            return match change {
                Change::Apply(body) if call.subresource.is_none() => {
                    may_create(api, call, name).await?;
                    match create_applied(api, call, body, duplicates).await {
                        Err(error) if error.reason == "AlreadyExists" && tries < TRIES => continue,
                        outcome => outcome,
                    }
                }
                _ => Err(ApiError::not_found(&call.resource.plural, &call.resource.group, name)),
            };
        };
        // Whoever moves a policy to another tier takes it out of one and puts it into one.
        tier_rights::authorize_object(api, call, before.value()).await?;
        let after = next_state(api, call, &before, change, duplicates, &mut warnings)?;
        if tier_rights::of(before.value()) != tier_rights::of(&after) {
            tier_rights::authorize_object(api, call, &after).await?;
        }
        body::check_extent(&after)?;
        let before_value = Some(before.value());
        rbac::check_grant(&*api.storage, &call.user, &call.resource, before_value, &after)?;
        if draft::same(before.value(), &after) {
            return Ok(Outcome {
                answer: Answer::Object(200, show(call, before.value())),
                warnings,
            });
        }
        if call.query.dry_run()? {
            return Ok(Outcome { answer: Answer::Object(200, show(call, &after)), warnings });
        }
        match replace(api, &before, after).await {
            Err(StorageError::Stale { .. } | StorageError::Missing { .. }) if tries < TRIES => {}
            outcome => {
                let object = outcome.map_err(refused)?;
                return Ok(Outcome { answer: answer_with(call, 200, object), warnings });
            }
        }
    }
    unreachable!("the loop ends by returning")
}

/// An apply that makes an object takes the right to create one, too.
async fn may_create(api: &Api, call: &Call, name: &str) -> Result<()> {
    let (group, resource) = (call.resource.group.as_str(), call.resource.plural.as_str());
    let namespace = call.namespace.as_deref();
    let target = rbac::Target::Resource { group, resource, namespace, name };
    api.rights.authorize(&call.user, "create", target).await.map(drop)
}

/// Stores the next state of an object, or removes the object if that state says that nothing holds it.
pub(crate) async fn replace(
    api: &Api,
    before: &Object,
    after: Value,
) -> Result<Arc<Object>, StorageError> {
    let (key, expect) = (before.key().clone(), Expect::At(before.revision()));
    if !released(&after) {
        return api.put(key, expect, Some(after)).await;
    }
    api.put(key, expect, None).await
}

/// Whether an object that is being deleted has nothing left to wait for.
fn released(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    metadata.get("deletionTimestamp").is_some()
        && none(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (object["kind"] != "Namespace"
            || object["apiVersion"] != "v1"
            || none(&object["spec"]["finalizers"]))
}

async fn create_applied(
    api: &Arc<Api>,
    call: &Call,
    body: &Value,
    duplicates: &[String],
) -> Result<Outcome> {
    let mut warnings = Vec::new();
    let mut body = body.clone();
    draft::check_body(call, &mut body, duplicates, &mut warnings)?;
    let name = call.name()?;
    if body["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty()) {
        return Err(ApiError::conflict(
            &call.resource.plural,
            &call.resource.group,
            name,
            "uid mismatch: the provided object specified a uid, and no existing object was found",
        ));
    }
    let time = api::now();
    let shown = managed::apply(api, call, None, &body, &time)?;
    let mut inner = call.clone();
    (inner.method, inner.verb) = (hyper::Method::POST, "create");
    let stored = draft::for_create(api, &inner, shown, &time)?;
    let answer = create::insert(api, &inner, stored).await?;
    Ok(Outcome { answer, warnings })
}

/// The object after `change`, in stored form.
fn next_state(
    api: &Api,
    call: &Call,
    before: &Object,
    change: &Change,
    duplicates: &[String],
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let time = api::now();
    let base = || show(call, before.value());
    let unprocessable = |message: String| {
        let (plural, group) = (&call.resource.plural, &call.resource.group);
        let mut error = ApiError::invalid(plural, group, call.name().unwrap_or_default(), &[]);
        error.message = message;
        error
    };
    let mut next = match change {
        Change::Replace(value) => value.clone(),
        Change::Json(patch) => {
            let mut next = base();
            json_patch::apply(&mut next, patch).map_err(|error| {
                unprocessable(format!("the JSON patch does not apply: {error}"))
            })?;
            next
        }
        Change::Merge(patch) => {
            let mut next = base();
            openapi::patch::merge(&mut next, patch);
            next
        }
        Change::Strategic(patch) => {
            let mut next = base();
            if let Some(schema) = &call.resource.shape.schema {
                openapi::patch::strategic(schema, &mut next, patch)
                    .map_err(|error| unprocessable(error.to_string()))?;
            }
            next
        }
        Change::Apply(body) => managed::apply(api, call, Some(before.value()), body, &time)?,
    };
    if !matches!(change, Change::Replace(_)) {
        draft::check_body(call, &mut next, duplicates, warnings)?;
    }
    preconditions(call, before, &next)?;
    let mut after = draft::for_update(api, call, before.value(), next)?;
    if !matches!(change, Change::Apply(_)) {
        managed::track(api, call, Some(before.value()), &mut after, &time);
    }
    Ok(after)
}

/// A revision or uid in the object is a condition.
fn preconditions(call: &Call, before: &Object, next: &Value) -> Result<()> {
    let (plural, group) = (call.resource.plural.as_str(), call.resource.group.as_str());
    let name = call.name()?;
    let stale = |asked: &str| asked != before.revision().to_string();
    if revision_of(next).is_some_and(stale) {
        return Err(ApiError::conflict(plural, group, name, MODIFIED));
    }
    let uid = before.value()["metadata"]["uid"].as_str().unwrap_or_default();
    match next["metadata"]["uid"].as_str() {
        Some(asked) if !asked.is_empty() && asked != uid => {
            let why = format!(
                "Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}"
            );
            Err(ApiError::conflict(plural, group, name, &why))
        }
        _ => Ok(()),
    }
}
