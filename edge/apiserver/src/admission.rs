//! What the server adds to and demands of written objects, beyond their schema.

use serde_json::{Map, Value, json};

use crate::Surface;
use crate::api::Api;
use crate::defaults;
use crate::names;
use crate::rbac;
use crate::registry::{Origin, Resource};
use crate::request::Call;
use crate::services;
use crate::status::{ApiError, Cause, Result, qualified};

/// The most that all annotations of an object may hold together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Gives a new object its name, namespace, uid and time of creation.
pub(crate) fn stamp_new(call: &Call, object: &mut Value, time: &str) -> Result<()> {
    let metadata = object["metadata"]
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request("the body of the request has no metadata"))?;
    if metadata
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|v| !v.is_empty() && v != "0")
    {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    match (call.namespace.as_deref(), metadata.get("namespace").and_then(Value::as_str)) {
        (Some(path), Some(body)) if !body.is_empty() && path != body => {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request: {body:?} and {path:?}"
            )));
        }
        (None, Some(body)) if !body.is_empty() => {
            return Err(ApiError::bad_request(format!(
                "namespace {body:?} on an object of {}, which has none",
                call.resource.plural
            )));
        }
        _ => {}
    }
    let text = |fields: &Map<String, Value>, field: &str| {
        fields.get(field).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    let name = match (text(metadata, "name"), text(metadata, "generateName")) {
        (Some(name), _) => Some(name),
        (None, Some(base)) => Some(format!("{base}{}", suffix())),
        (None, None) => None,
    };
    let mut stamped = Map::new();
    if let Some(name) = name {
        stamped.insert("name".into(), name.into());
    }
    if let Some(base) = text(metadata, "generateName") {
        stamped.insert("generateName".into(), base.into());
    }
    if let Some(namespace) = &call.namespace {
        stamped.insert("namespace".into(), namespace.as_str().into());
    }
    stamped.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    stamped.insert("creationTimestamp".into(), time.into());
    if call.resource.counts_generations() {
        stamped.insert("generation".into(), 1.into());
    }
    for field in ["labels", "annotations", "ownerReferences", "finalizers", "managedFields"] {
        if let Some(value) = metadata.shift_remove(field) {
            let empty = value.as_object().is_some_and(Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            if !empty {
                stamped.insert(field.into(), value);
            }
        }
    }
    *metadata = stamped;
    Ok(())
}

/// Five characters that no word is made of.
pub(crate) fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    random.as_bytes()[..5]
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}

/// Completes a new object in its stored form, or refuses it.
pub(crate) fn create(api: &Api, home: &Resource, object: &mut Value) -> Result<()> {
    let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
    if let Some(namespace) = &namespace
        && api.options.surface == Surface::Cluster
    {
        namespace_open(api, home, namespace)?;
    }
    defaults::complete(home, object);
    match (home.group.as_str(), home.plural.as_str()) {
        ("", "namespaces") => {
            label_namespace(object);
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        ("", "pods") => object["status"] = defaults::pod_status(object),
        ("", "services") => {
            object["status"] = json!({"loadBalancer": {}});
            services::allocate(api, object, None)?;
        }
        ("apiextensions.k8s.io", _) => defaults::definition(object, None)?,
        _ if home.status && home.origin == Origin::Custom => {
            if let Some(fields) = object.as_object_mut() {
                fields.shift_remove("status");
            }
        }
        _ => {}
    }
    Ok(())
}

/// Refuses new content where there is no namespace, or one that is going away.
fn namespace_open(api: &Api, home: &Resource, namespace: &str) -> Result<()> {
    let Some(found) = api.storage.get(&format!("core/namespaces/{namespace}")) else {
        return Err(ApiError::not_found("namespaces", "", namespace));
    };
    let gone = found.value()["metadata"].get("deletionTimestamp").is_some();
    // Events may still tell how it went away.
    if !gone || home.plural == "events" {
        return Ok(());
    }
    Err(terminating(home, namespace))
}

/// 403: the namespace is going away.
pub(crate) fn terminating(resource: &Resource, namespace: &str) -> ApiError {
    let what = qualified(&resource.plural, &resource.group);
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    ApiError::forbidden(format!("{what} is forbidden: {why}")).with_details(json!({
        "kind": resource.plural,
        "causes": [{"reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace"}],
    }))
}

fn label_namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
}

/// Completes the next state of an object, in stored form, or refuses it.
pub(crate) fn update(
    api: &Api,
    home: &Resource,
    before: &Value,
    after: &mut Value,
    subresource: Option<&str>,
) -> Result<()> {
    let custom = home.origin == Origin::Custom;
    match subresource {
        Some("status") if custom => {
            let status = after.get("status").cloned();
            let managed = after["metadata"].get("managedFields").cloned();
            *after = before.clone();
            set(after, "status", status);
            set(&mut after["metadata"], "managedFields", managed);
        }
        Some("status") => {
            set(after, "spec", before.get("spec").cloned());
        }
        _ if home.status => set(after, "status", before.get("status").cloned()),
        _ => {}
    }
    check_finalizers(home, before, after)?;
    defaults::complete(home, after);
    match (home.group.as_str(), home.plural.as_str()) {
        ("", "namespaces") => {
            label_namespace(after);
            if subresource != Some("finalize") {
                set(after, "spec", before.get("spec").cloned());
            }
        }
        ("", "services") if subresource.is_none() => services::allocate(api, after, Some(before))?,
        ("", "pods") if subresource.is_none() => pod_unchanged(home, before, after)?,
        ("", "configmaps" | "secrets") if before["immutable"] == true => {
            unchanged_data(home, before, after)?;
        }
        ("apiextensions.k8s.io", _) if subresource.is_none() => {
            defaults::definition(after, Some(before))?;
        }
        _ => {}
    }
    Ok(())
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match value {
        Some(value) => drop(fields.insert(field.into(), value)),
        None => drop(fields.shift_remove(field)),
    }
}

/// An object that is being deleted gets no new finalizers.
fn check_finalizers(home: &Resource, before: &Value, after: &Value) -> Result<()> {
    if before["metadata"].get("deletionTimestamp").is_none() {
        return Ok(());
    }
    let list =
        |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let old = list(before);
    let fresh: Vec<_> = list(after).into_iter().filter(|f| !old.contains(f)).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let text = Value::Array(fresh).to_string();
    let cause = Cause {
        reason: "FieldValueForbidden".into(),
        field: "metadata.finalizers".into(),
        message: format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {text}"
        ),
    };
    Err(ApiError::invalid(&home.kind, &home.group, name, &[cause]))
}

/// Of a pod's specification little may change.
fn pod_unchanged(home: &Resource, before: &Value, after: &Value) -> Result<()> {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].as_object().cloned().unwrap_or_default();
        for free in [
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "tolerations",
            "schedulingGates",
        ] {
            spec.shift_remove(free);
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
            {
                if let Some(fields) = container.as_object_mut() {
                    fields.shift_remove("image");
                }
            }
        }
        spec
    };
    if fixed(before) == fixed(after) {
        return Ok(());
    }
    // It may have been stored before all of today's defaults were known.
    let mut completed = before.clone();
    defaults::complete(home, &mut completed);
    if fixed(&completed) == fixed(after) {
        return Ok(());
    }
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let cause = Cause {
        reason: "FieldValueForbidden".into(),
        field: "spec".into(),
        message: "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)".into(),
    };
    Err(ApiError::invalid("Pod", "", name, &[cause]))
}

fn unchanged_data(home: &Resource, before: &Value, after: &Value) -> Result<()> {
    let fields = ["data", "binaryData", "stringData", "immutable"];
    if fields.iter().all(|field| before.get(field) == after.get(field)) {
        return Ok(());
    }
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let cause = Cause {
        reason: "FieldValueForbidden".into(),
        field: "data".into(),
        message: "Forbidden: field is immutable when `immutable` is set".into(),
    };
    Err(ApiError::invalid(&home.kind, &home.group, name, &[cause]))
}

/// What is wrong with names, labels, annotations, finalizers and owners.
pub(crate) fn metadata_causes(resource: &Resource, object: &Value) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    let mut check = |field: &str, text: &str, why: Option<String>| {
        if let Some(why) = why {
            let message = format!("Invalid value: {}: {why}", json!(text));
            causes.push(Cause::invalid(field, message));
        }
    };
    match metadata["name"].as_str() {
        None => {}
        Some(name) => check("metadata.name", name, name_rule(resource)(name)),
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        check("metadata.labels", key, names::label_key(key));
        let value = value.as_str().unwrap_or_default();
        check("metadata.labels", value, names::label_value(value));
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        check("metadata.annotations", key, names::label_key(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    for key in metadata["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        check("metadata.finalizers", key, names::label_key(key));
    }
    if metadata["name"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    }
    if size > ANNOTATIONS_LIMIT {
        causes.push(Cause {
            reason: "FieldValueTooLong".into(),
            field: "metadata.annotations".into(),
            message: format!("Too long: may not be more than {ANNOTATIONS_LIMIT} bytes"),
        });
    }
    causes.extend(owner_causes(metadata));
    causes
}

fn owner_causes(metadata: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let mut controllers = 0;
    for (at, owner) in owners.enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let path = format!("metadata.ownerReferences[{at}].{field}");
                causes.push(Cause::required(path, "must not be empty"));
            }
        }
        if owner["controller"] == true {
            controllers += 1;
        }
    }
    if controllers > 1 {
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            "Invalid value: only one reference can have controller set to true",
        ));
    }
    causes
}

fn name_rule(resource: &Resource) -> fn(&str) -> Option<String> {
    match (resource.origin, resource.plural.as_str()) {
        (Origin::Builtin, "namespaces") => names::dns_label,
        (Origin::Builtin, "services") => names::service_name,
        (Origin::Builtin, _) if resource.group == rbac::GROUP => names::path_segment,
        // Calico's kinds have rules of their own, in their validation.
        (Origin::Calico, _) => names::path_segment,
        _ => names::dns_subdomain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it lies in a store that an older release wrote.
    #[test]
    fn a_pod_without_todays_defaults_can_be_changed() {
        let pods = crate::builtin::kubernetes().find(|r| r.plural == "pods").unwrap();
        let before = json!({"metadata": {"name": "p"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        let mut after = before.clone();
        after["metadata"]["labels"] = json!({"a": "b"});
        defaults::complete(&pods, &mut after);
        assert_ne!(before["spec"], after["spec"]);
        pod_unchanged(&pods, &before, &after).unwrap();
        after["spec"]["nodeName"] = "n2".into();
        pod_unchanged(&pods, &before, &after).unwrap_err();
    }
}
