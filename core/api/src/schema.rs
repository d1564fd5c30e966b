//! Structural OpenAPI v3 schemas, made from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::meta::{NoStatus, Spec};

/// The schema of the whole object of a kind.
pub(crate) fn of<S: Spec>() -> Value {
    let spec = schema_of::<S>();
    let description = spec.get("description").cloned().unwrap_or_default();
    let mut properties = json!({
        "apiVersion": { "type": "string", "description": "Group and version of the kind." },
        "kind": { "type": "string", "description": "Kind of the object." },
        "metadata": { "type": "object", "description": "Name, namespace, labels, annotations." },
        "spec": spec,
    });
    if std::any::TypeId::of::<S::Status>() != std::any::TypeId::of::<NoStatus>() {
        properties["status"] = schema_of::<S::Status>();
    }
    json!({ "type": "object", "description": description, "properties": properties })
}

fn schema_of<T: schemars::JsonSchema>() -> Value {
    let generator =
        SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    structural(&mut schema, false);
    schema
}

/// Turns what the derive gives into what Kubernetes calls structural: one type, no null
/// alternatives, words as `enum`, no defaults (those are in [`crate::defaults`]).
fn structural(schema: &mut Value, item: bool) {
    let Value::Object(map) = schema else { return };
    for key in ["$schema", "title", "default", "unevaluatedProperties"] {
        map.remove(key);
    }
    let nullable = drop_null(map);
    if item && nullable {
        map.insert("nullable".into(), true.into());
    }
    words(map);
    if let Some(word) = map.remove("const") {
        map.insert("enum".into(), json!([word]));
    }
    if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
        map.remove("format");
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(true)) => {
            map.remove("additionalProperties");
            map.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
        Some(Value::Bool(false)) => drop(map.remove("additionalProperties")),
        _ => (),
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(|p| structural(p, false));
    }
    if let Some(items) = map.get_mut("items") {
        structural(items, true);
    }
    if let Some(values) = map.get_mut("additionalProperties") {
        structural(values, false);
    }
}

/// Removes the null alternative in each of the forms it may have; says whether there was one.
fn drop_null(map: &mut Map<String, Value>) -> bool {
    let mut found = false;
    if let Some(Value::Array(types)) = map.get_mut("type") {
        let before = types.len();
        types.retain(|t| t != "null");
        found = types.len() < before;
        if types.len() == 1 {
            let only = types.remove(0);
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.retain(|w| !w.is_null());
    }
    if let Some(Value::Array(either)) = map.get_mut("anyOf") {
        let before = either.len();
        either.retain(|s| s.get("type").is_none_or(|t| t != "null"));
        found |= either.len() < before;
        if found && either.len() == 1 {
            let only = either.remove(0);
            map.remove("anyOf");
            if let Value::Object(only) = only {
                for (key, value) in only {
                    map.entry(key).or_insert(value);
                }
            }
        }
    }
    found
}

/// `oneOf` of documented words becomes `enum`.
fn words(map: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = map.get("oneOf") else { return };
    let mut words = Vec::new();
    for variant in variants {
        match (variant.get("const"), variant.get("enum").and_then(Value::as_array)) {
            (Some(word), _) => words.push(word.clone()),
            (None, Some(several)) => words.extend(several.iter().cloned()),
            (None, None) => return,
        }
    }
    map.remove("oneOf");
    map.insert("type".into(), "string".into());
    map.insert("enum".into(), words.into());
}

/// `networking.k8s.io/v1` NetworkPolicy.
pub(crate) fn kubernetes_policy() -> Value {
    let spec = kubernetes_policy_spec();
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
        },
    })
}

fn kubernetes_policy_spec() -> Value {
    let selector = json!({
        "type": "object",
        "properties": {
            "matchLabels": { "type": "object", "additionalProperties": { "type": "string" } },
            "matchExpressions": { "type": "array", "items": {
                "type": "object",
                "required": ["key", "operator"],
                "properties": {
                    "key": { "type": "string" },
                    "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
                    "values": { "type": "array", "items": { "type": "string" } },
                },
            } },
        },
    });
    let peers = json!({ "type": "array", "items": { "type": "object", "properties": {
        "podSelector": selector,
        "namespaceSelector": selector,
        "ipBlock": { "type": "object", "required": ["cidr"], "properties": {
            "cidr": { "type": "string" },
            "except": { "type": "array", "items": { "type": "string" } },
        } },
    } } });
    let ports = json!({ "type": "array", "items": { "type": "object", "properties": {
        "protocol": { "type": "string", "enum": ["TCP", "UDP", "SCTP"] },
        "port": {
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "x-kubernetes-int-or-string": true,
        },
        "endPort": { "type": "integer", "minimum": 1, "maximum": 65535 },
    } } });
    let rules = |peer: &str| {
        let mut properties = Map::new();
        properties.insert(peer.into(), peers.clone());
        properties.insert("ports".into(), ports.clone());
        json!({ "type": "array", "items": { "type": "object", "properties": properties } })
    };
    json!({
        "type": "object",
        "properties": {
            "podSelector": selector,
            "policyTypes": { "type": "array", "maxItems": 2, "items": {
                "type": "string", "enum": ["Ingress", "Egress"],
            } },
            "ingress": rules("from"),
            "egress": rules("to"),
        },
    })
}
