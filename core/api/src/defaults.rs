//! What is filled in before an object is stored.

use model::Action;
use model::policy::Tier;
use serde_json::{Map, Value, json};

/// The label that carries a policy's tier, so that policies can be listed by tier.
pub const TIER_LABEL: &str = "projectcalico.org/tier";

/// Takes away fields that are null: typed readers want absent ones. Items of lists stay.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => (),
    }
}

pub(crate) fn none(_: &mut Value) {}

/// The spec, made if it is absent; none if the object is no map at all.
fn spec(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.as_object_mut()?.entry("spec").or_insert_with(|| json!({})).as_object_mut()
}

fn set_if_absent(map: &mut Map<String, Value>, key: &str, value: Value) {
    let slot = map.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value;
    }
}

fn tier_of(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    if spec.get("tier").is_none_or(|t| t.is_null() || t == "") {
        spec.insert("tier".into(), "default".into());
    }
    let Some(tier) = spec["tier"].as_str().map(str::to_owned) else { return };
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let labels = metadata.map(|m| m.entry("labels").or_insert_with(|| json!({})));
    if let Some(labels) = labels {
        if labels.is_null() {
            *labels = json!({});
        }
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(TIER_LABEL.into(), tier.into());
        }
    }
}

/// Both directions given: both; only egress: egress; else ingress.
fn types_of(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    let given = |key: &str| spec.get(key).and_then(Value::as_array).is_some_and(|r| !r.is_empty());
    let types = match (given("ingress"), given("egress")) {
        (true, true) => json!(["Ingress", "Egress"]),
        (false, true) => json!(["Egress"]),
        (_, false) => json!(["Ingress"]),
    };
    if spec.get("types").is_none_or(|t| t.is_null() || t.as_array().is_some_and(Vec::is_empty)) {
        spec.insert("types".into(), types);
    }
}

pub(crate) fn policy(object: &mut Value) {
    tier_of(object);
    types_of(object);
}

pub(crate) fn staged_policy(object: &mut Value) {
    tier_of(object);
    let Some(spec) = spec(object) else { return };
    set_if_absent(spec, "stagedAction", "Set".into());
    if spec["stagedAction"] != "Delete" {
        types_of(object);
    }
}

pub(crate) fn staged_kubernetes_policy(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    set_if_absent(spec, "stagedAction", "Set".into());
    if spec["stagedAction"] != "Delete" {
        policy_types(spec);
    }
}

/// As the API server of Kubernetes does it: ingress always, egress where there are egress rules.
fn policy_types(spec: &mut Map<String, Value>) {
    let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
    let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    let given = spec.get("policyTypes").and_then(Value::as_array).is_some_and(|t| !t.is_empty());
    if !given {
        spec.insert("policyTypes".into(), types);
    }
}

pub(crate) fn kubernetes_policy(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    set_if_absent(spec, "podSelector", json!({}));
    policy_types(spec);
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        let ports = rules.into_iter().flatten().filter_map(|r| r.get_mut("ports"));
        for port in ports.filter_map(Value::as_array_mut).flatten() {
            if let Some(port) = port.as_object_mut() {
                set_if_absent(port, "protocol", "TCP".into());
            }
        }
    }
}

pub(crate) fn tier(object: &mut Value) {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let pass = Tier::built_in(name).is_some_and(|t| t.default_action == Action::Pass);
    let Some(spec) = spec(object) else { return };
    set_if_absent(spec, "defaultAction", if pass { "Pass" } else { "Deny" }.into());
}

pub(crate) fn pool(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    let v6 = spec.get("cidr").and_then(Value::as_str).is_some_and(|c| c.contains(':'));
    if spec.get("blockSize").is_none_or(|b| b.is_null() || *b == 0) {
        spec.insert("blockSize".into(), if v6 { 122 } else { 26 }.into());
    }
    for (key, value) in [
        ("ipipMode", json!("Never")),
        ("vxlanMode", json!("Never")),
        ("allowedUses", json!(["Workload", "Tunnel"])),
        ("assignmentMode", json!("Automatic")),
        ("nodeSelector", json!("all()")),
    ] {
        set_if_absent(spec, key, value);
    }
    if spec["nodeSelector"] == "" {
        spec.insert("nodeSelector".into(), "all()".into());
    }
}

pub(crate) fn ipam_configuration(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    for (key, value) in [
        ("strictAffinity", json!(false)),
        ("maxBlocksPerHost", json!(0)),
        ("autoAllocateBlocks", json!(true)),
    ] {
        set_if_absent(spec, key, value);
    }
}
