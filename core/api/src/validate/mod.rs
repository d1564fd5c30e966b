//! Validation: first the structure (by the schema), then the rules between fields.

mod structural;

pub(crate) mod bgp;
pub(crate) mod endpoint;
pub(crate) mod felix;
pub(crate) mod ipam;
pub(crate) mod policy;
pub(crate) mod rest;
mod rules;

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::Value;

use crate::kinds::{Kind, kinds, lookup};
use crate::meta::{Object, Spec};
use crate::{FieldError, names};

/// Checks the rules between fields of one kind.
pub(crate) type Check = fn(&Value, Option<&Value>, &mut Errors);

/// Errors so far.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn push(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(field, message));
    }

    /// Keeps what is good, tells what is not.
    pub(crate) fn take<T>(&mut self, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|e| self.push(field, e)).ok()
    }
}

pub(crate) fn kind_of(object: &Value) -> Result<&'static Kind, Vec<FieldError>> {
    if !object.is_object() {
        return Err(vec![FieldError::new("", "want an object with apiVersion, kind and metadata")]);
    }
    let text = |key: &str| object.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let mut errors = Vec::new();
    for key in ["apiVersion", "kind"] {
        if text(key).is_none() {
            errors.push(FieldError::new(key, "is required"));
        }
    }
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Err(errors);
    };
    if let Some(known) = lookup(version, kind) {
        return Ok(known);
    }
    let others: Vec<String> =
        kinds().iter().filter(|k| k.kind == kind).map(Kind::api_version).collect();
    Err(vec![if !others.is_empty() {
        let wanted = others.join(" or ");
        FieldError::new("apiVersion", format!("{version:?} has no {kind} (want {wanted})"))
    } else if kinds().iter().any(|k| k.api_version() == version) {
        let known: Vec<&str> =
            kinds().iter().filter(|k| k.api_version() == version).map(|k| k.kind).collect();
        FieldError::new("kind", format!("{version} has no {kind:?} (want {})", known.join(", ")))
    } else {
        FieldError::new(
            "apiVersion",
            format!(
                "{version} {kind} is no kind known here (want one of projectcalico.org/v3, operator.tigera.io/v1 Installation, networking.k8s.io/v1 NetworkPolicy or policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy)"
            ),
        )
    }])
}

/// Every error of one object.
pub(crate) fn object(
    kind: &Kind,
    check: Check,
    object: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if object.get("apiVersion").is_some_and(|v| *v != kind.api_version().as_str()) {
        errors.push("apiVersion", format!("want {}", kind.api_version()));
    }
    if object.get("kind").is_some_and(|v| *v != kind.kind) {
        errors.push("kind", format!("want {}", kind.kind));
    }
    metadata(kind, object, &mut errors);
    let mut mended = object.clone();
    let broken = structural::check(kind.shared_schema(), &mut mended);
    kind.default(&mut mended);
    let mut between = Errors::default();
    check(&mended, old, &mut between);
    // An error between fields counts only where the structure is sound.
    between.0.retain(|e| !broken.iter().any(|b| within(&e.field, &b.field)));
    errors.0.extend(broken);
    errors.0.extend(between.0);
    let mut seen = std::collections::HashSet::new();
    errors.0.retain(|e| seen.insert(e.clone()));
    errors.0
}

/// Whether `field` is `parent` or below it.
fn within(field: &str, parent: &str) -> bool {
    field.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn metadata(kind: &Kind, object: &Value, errors: &mut Errors) {
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        errors.push("metadata", "is required, with a name");
        return;
    };
    for key in ["name", "generateName", "namespace", "uid", "resourceVersion"] {
        if let Some(other) = metadata.get(key).filter(|v| !v.is_string() && !v.is_null()) {
            errors.push(
                format!("metadata.{key}"),
                format!("want text, got {other} (put it in quotes)"),
            );
        }
    }
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let name_is_text = metadata.get("name").is_none_or(|n| n.is_string() || n.is_null());
    match (text("name"), text("generateName")) {
        (Some(name), _) => {
            // Handles and affinities are named after things that have other rules.
            errors.take("metadata.name", names::dns_subdomain(name));
        }
        (None, None) if name_is_text => errors.push("metadata.name", "is required"),
        (None, _) => (),
    }
    match (text("namespace"), kind.namespaced) {
        (Some(namespace), true) => {
            errors.take("metadata.namespace", names::dns_label(namespace));
        }
        (Some(namespace), false) => errors.push(
            "metadata.namespace",
            format!("{} is cluster-wide: take {namespace:?} away", kind.kind),
        ),
        (None, _) => (),
    }
    for (field, values_are_labels) in [("labels", true), ("annotations", false)] {
        labels(metadata.get(field), &format!("metadata.{field}"), values_are_labels, errors);
    }
    const KNOWN: &[&str] = &[
        "name",
        "generateName",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "selfLink",
    ];
    for key in metadata.keys().filter(|k| !KNOWN.contains(&k.as_str())) {
        errors.push(format!("metadata.{key}"), "is no field of metadata");
    }
}

fn labels(given: Option<&Value>, field: &str, values_are_labels: bool, errors: &mut Errors) {
    let Some(given) = given.filter(|g| !g.is_null()) else { return };
    let Some(map) = given.as_object() else {
        errors.push(field, "want a map of text to text");
        return;
    };
    for (key, value) in map {
        let at = format!("{field}[{key}]");
        errors.take(&at, names::label_key(&key.to_ascii_lowercase()));
        match value.as_str() {
            None => errors.push(at, format!("want text, got {value} (put it in quotes)")),
            Some(text) if values_are_labels => drop(errors.take(&at, names::label_value(text))),
            Some(_) => (),
        }
    }
}

/// Reads the mended object; its structure is sound, so this succeeds.
pub(crate) fn read<S: Spec>(value: &Value, errors: &mut Errors) -> Option<Object<S>> {
    let result = Object::deserialize(value);
    result.map_err(|e| errors.push("spec", format!("cannot be read: {e}"))).ok()
}

/// Reads the object that is replaced, if it can be.
pub(crate) fn read_old<S: Spec>(old: Option<&Value>) -> Option<Object<S>> {
    Object::deserialize(old?).ok()
}

/// Checks a selector.
pub(crate) fn selector(field: &str, text: &str, errors: &mut Errors) {
    if !text.is_empty() {
        errors.take(field, selector::Selector::parse(text).map_err(|e| e.to_string()));
    }
}
