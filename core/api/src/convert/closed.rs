//! Objects that cannot be read, because a program wrote them that checks less than the API does.
//!
//! What such an object becomes lets nothing through that the object, as it may have been meant, would have denied
//! (where that can be known from the object itself), and says why:
//!
//! | what cannot be read | what is in force |
//! |---|---|
//! | a rule that allows or logs | no such rule |
//! | a rule that denies or passes, or does what nobody can tell | one in its place that denies everything |
//! | whom a policy is about | it denies everybody whom what can be read leaves, at its place and in its directions |
//! | whom a policy of the whole cluster is about, and nothing narrows it | nothing |
//! | where a policy stands or what it acts on | it denies whom it selects, ahead of the others of its tier |
//! | a ClusterNetworkPolicy's subject, tier or priority | nothing (2.5) |
//! | a staged policy | nothing: it is not in force anyway |
//! | a tier's order, its default action | it stands last; it denies |
//! | a profile | nothing: whoever lists it is denied (2.1) |
//! | a host endpoint's addresses, profiles, ports | it is there without them, and policy applies to it |
//! | a host endpoint's node or interface, a network set, whatever has no name | nothing |
//!
//! Who may write a policy of a namespace may close the namespace, so no more is lost than he could take. Of a policy
//! of the whole cluster that would be every pod and host, for instance on all nodes whose agents are older than some
//! new form of selectors: there the cure would be worse, and it counts as absent, as 2.5 says for its kind.
//!
//! Nothing of before is kept in force: what a policy means must not depend on what it said once (law 1).

use std::sync::Arc;

use model::policy::Stage;
use model::{Action, Policy, PolicyId, PolicyKind, Rule, Update};
use selector::Selector;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::policy::{KUBERNETES_ORDER, pod_selector, tier_name};
use super::selectors;
use super::update::{Telling, Told};
use crate::{FieldError, v3};

/// The lists of rules.
const DIRECTIONS: [&str; 2] = ["ingress", "egress"];

/// A policy of this kind; what cannot be read of it fails closed. `tell` takes what can.
///
/// # Errors
/// When nothing is in force in its place.
pub fn policy<T: DeserializeOwned>(
    object: &Value,
    kind: PolicyKind,
    tell: impl Fn(&T) -> Telling,
) -> Telling {
    let error = match T::deserialize(object) {
        Ok(typed) => match tell(&typed) {
            Ok(told) => return Ok(told),
            Err(error) => error,
        },
        Err(error) => FieldError::new("", error.to_string()),
    };
    let (spared, mut errors) = without_bad_rules::<T>(object, kind);
    let fields = bad_fields::<T>(&spared);
    let told = T::deserialize(&spared).ok().filter(|_| fields.is_empty()).map(|typed| tell(&typed));
    match told {
        Some(Ok(mut told)) => {
            let replaced = |error: &FieldError| {
                errors.iter().any(|bad: &FieldError| error.field.starts_with(&bad.field))
            };
            told.errors.retain(|error| !replaced(error));
            if errors.is_empty() {
                // Nothing in the specification is wrong.
                errors.push(FieldError::new("metadata", error.message));
            }
            told.errors.append(&mut errors);
            Ok(told)
        }
        Some(Err(error)) => stand_in(object, kind, vec![error]),
        None if fields.is_empty() => stand_in(object, kind, vec![error]),
        None => stand_in(object, kind, fields),
    }
}

/// A tier, without what cannot be read of it.
///
/// # Errors
/// As for [`policy`].
pub fn tier(object: &Value) -> Telling {
    let tell = |tier: &v3::Tier| super::update::tier(tier);
    spared::<v3::Tier>(object, &[], tell)
}

/// A host endpoint, without what cannot be read of it.
///
/// # Errors
/// As for [`policy`].
pub fn host_endpoint(object: &Value) -> Telling {
    let tell = |host: &v3::HostEndpoint| super::update::host_endpoint(host);
    spared::<v3::HostEndpoint>(object, &["spec.node", "spec.interfaceName"], tell)
}

/// An object without the fields that cannot be read, unless one of those is `needed`.
fn spared<T: DeserializeOwned>(
    object: &Value,
    needed: &[&str],
    tell: impl FnOnce(&T) -> Telling,
) -> Telling {
    let error = match T::deserialize(object) {
        Ok(typed) => return tell(&typed),
        Err(error) => FieldError::new("", error.to_string()),
    };
    let mut rest = object.clone();
    let errors = bad_fields::<T>(object);
    if let Some(bad) = errors.iter().find(|bad| needed.contains(&bad.field.as_str())) {
        return Err(bad.clone());
    }
    for bad in &errors {
        let field = bad.field.strip_prefix("spec.").unwrap_or_default();
        if let Some(spec) = rest.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove(field);
        }
    }
    let typed = T::deserialize(&rest).map_err(|_| error)?;
    let mut told = tell(&typed)?;
    told.errors.extend(errors);
    Ok(told)
}

/// The fields of the specification that cannot be read, each by itself.
fn bad_fields<T: DeserializeOwned>(object: &Value) -> Vec<FieldError> {
    let Some(spec) = object["spec"].as_object() else { return Vec::new() };
    let error = |(field, value): (&String, &Value)| {
        let mut alone = Map::new();
        alone.insert(field.clone(), value.clone());
        let error = T::deserialize(&json!({"metadata": {}, "spec": alone})).err()?;
        Some(FieldError::new(format!("spec.{field}"), error.to_string()))
    };
    spec.iter().filter_map(error).collect()
}

/// The policy with rules that cannot be understood, in place of those that cannot be read, and what is wrong with
/// these. Of its metadata there is what names it.
fn without_bad_rules<T: DeserializeOwned>(
    object: &Value,
    kind: PolicyKind,
) -> (Value, Vec<FieldError>) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let metadata = json!({"name": text("name"), "namespace": text("namespace")});
    let mut spared = json!({"metadata": metadata, "spec": object["spec"]});
    let mut errors = Vec::new();
    for direction in DIRECTIONS {
        let rules = spared.pointer_mut(&format!("/spec/{direction}"));
        let Some(rules) = rules.and_then(Value::as_array_mut) else { continue };
        for (index, rule) in rules.iter_mut().enumerate() {
            let alone = json!({"metadata": {}, "spec": {direction: [rule.clone()]}});
            if let Err(error) = T::deserialize(&alone) {
                let field = format!("spec.{direction}[{index}]");
                errors.push(FieldError::new(field, error.to_string()));
                *rule = not_understood(kind, &rule["action"]);
            }
        }
    }
    (spared, errors)
}

/// A rule that can be read and not understood, so that it fails closed as its action says.
fn not_understood(kind: PolicyKind, action: &Value) -> Value {
    match kind {
        PolicyKind::KubernetesNetworkPolicy | PolicyKind::StagedKubernetesNetworkPolicy => {
            json!({"ports": [{"endPort": 1}]})
        }
        PolicyKind::ClusterNetworkPolicy => json!({"action": action.as_str().unwrap_or_default()}),
        PolicyKind::GlobalNetworkPolicy
        | PolicyKind::NetworkPolicy
        | PolicyKind::StagedGlobalNetworkPolicy
        | PolicyKind::StagedNetworkPolicy => {
            let harmless = matches!(action.as_str(), Some("Allow" | "Log"));
            json!({"action": if harmless { "Allow" } else { "Deny" }, "ipVersion": 0})
        }
    }
}

/// What denies in the place of a policy that cannot be read.
fn stand_in(object: &Value, kind: PolicyKind, mut errors: Vec<FieldError>) -> Telling {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let nothing = kind.enforced() != kind || kind == PolicyKind::ClusterNetworkPolicy;
    let nowhere = kind != PolicyKind::GlobalNetworkPolicy && text("namespace").is_empty();
    if nothing || nowhere || text("name").is_empty() {
        return Err(errors.swap_remove(0));
    }
    let id = PolicyId { name: text("name").into(), namespace: text("namespace").into(), kind };
    let Some(selector) = whom(&id, &object["spec"]) else {
        let FieldError { field, message } = errors.swap_remove(0);
        let message =
            format!("{message} (nobody knows whom the policy is about: it counts as absent)");
        return Err(FieldError { field, message });
    };
    let policy = denying(id, selector, &object["spec"]);
    let directions = match (policy.applies_ingress, policy.applies_egress) {
        (true, true) => "to and from",
        (true, false) => "to",
        (false, _) => "from",
    };
    let message =
        format!("fails closed: it denies all traffic {directions} {}", policy.selector.canonical());
    errors.push(FieldError::new("spec", message));
    let update = Some(Update::Policy(policy.id.clone(), Some(Arc::new(policy))));
    Ok(Told { update, errors, stand_in: true })
}

/// A policy that denies, with as much of the specification as can be read.
fn denying(id: PolicyId, selector: Selector, spec: &Value) -> Policy {
    let kubernetes = id.kind == PolicyKind::KubernetesNetworkPolicy;
    let types = if kubernetes { "policyTypes" } else { "types" };
    let (applies_ingress, applies_egress) = directions(spec, types);
    let order = match &spec["order"] {
        _ if kubernetes => Some(KUBERNETES_ORDER),
        Value::Null => None,
        given => Some(given.as_f64().unwrap_or(f64::MIN)),
    };
    let stage = match (&spec["doNotTrack"], &spec["preDNAT"]) {
        (Value::Bool(true), _) => Stage::Untracked,
        (_, Value::Bool(true)) => Stage::PreDnat,
        _ => Stage::Normal,
    };
    let global = id.kind == PolicyKind::GlobalNetworkPolicy;
    let deny = || vec![Rule::any(Action::Deny)];
    Policy {
        tier: tier_name(spec["tier"].as_str().unwrap_or_default()),
        order,
        selector,
        applies_ingress,
        applies_egress,
        ingress: if applies_ingress { deny() } else { Vec::new() },
        egress: if applies_egress { deny() } else { Vec::new() },
        stage,
        apply_on_forward: !global
            || !matches!(spec["applyOnForward"], Value::Null | Value::Bool(false)),
        staged: false,
        everywhere: false,
        id,
    }
}

/// The directions that a policy may act on: both, unless it can be read that it does not act on one.
fn directions(spec: &Value, types: &str) -> (bool, bool) {
    let rules = |list: &str| match &spec[list] {
        Value::Null => false,
        Value::Array(rules) => !rules.is_empty(),
        _ => true,
    };
    match &spec[types] {
        Value::Array(given) if !given.is_empty() => {
            let has = |name: &str| given.iter().any(|t| t == name);
            let (ingress, egress) = (has("Ingress"), has("Egress"));
            let known = given.iter().all(|t| t == "Ingress" || t == "Egress");
            if known { (ingress, egress) } else { (true, true) }
        }
        Value::Null | Value::Array(_) if spec.is_object() => {
            (rules("ingress") || !rules("egress"), rules("egress"))
        }
        _ => (true, true),
    }
}

/// Everybody whom a policy may be about: a condition that cannot be read excludes nobody. `None`: nothing bounds that.
fn whom(id: &PolicyId, spec: &Value) -> Option<Selector> {
    let text = |field: &str| match &spec[field] {
        Value::Null => "",
        given => given.as_str().unwrap_or("("), // what is no text is no selector
    };
    let conditions = match id.kind {
        PolicyKind::KubernetesNetworkPolicy => {
            let labels = serde_json::from_value(spec["podSelector"].clone()).ok();
            let pods = pod_selector(labels.as_ref()).or_else(|_| pod_selector(None));
            vec![pods.map_err(|e| FieldError::new("spec.podSelector", e))]
        }
        kind => {
            let global = kind == PolicyKind::GlobalNetworkPolicy;
            let namespaces = if global { text("namespaceSelector") } else { "" };
            vec![
                selectors::subject("", text("selector"), "", ""),
                selectors::subject("", "", namespaces, ""),
                selectors::subject("", "", "", text("serviceAccountSelector")),
            ]
        }
    };
    let unread = !spec.is_object() || conditions.iter().any(Result::is_err);
    let own = selectors::subject(&id.namespace, "", "", "");
    let read = std::iter::once(own).chain(conditions).filter_map(Result::ok);
    let parts: Vec<Selector> = read.filter(|s| *s != Selector::all()).collect();
    (!unread || !parts.is_empty()).then(|| Selector::and_all(&parts))
}
