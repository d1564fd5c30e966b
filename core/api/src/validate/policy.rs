//! Policies, tiers, profiles.

use k8s_openapi::api::networking::v1::NetworkPolicy as KubernetesPolicy;
use model::policy::Tier;
use selector::NamespaceSelector;
use serde_json::Value;

use super::rules::{self, Place, into_errors};
use super::{Errors, read, selector};
use crate::FieldError;
use crate::cluster_policy::ClusterNetworkPolicySpec;
use crate::convert;
use crate::names;
use crate::net::prefix;
use crate::v3::policy::{StagedAction, TierAction};
use crate::v3::{
    GlobalNetworkPolicySpec, NetworkPolicySpec, PolicyType, ProfileSpec, Rule,
    StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicySpec, StagedNetworkPolicySpec,
    TierSpec,
};

pub(crate) fn network_policy(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(policy) = read::<NetworkPolicySpec>(object, errors) else { return };
    name(policy.name(), errors);
    namespaced(&policy.spec, errors);
}

pub(crate) fn staged_network_policy(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(policy) = read::<StagedNetworkPolicySpec>(object, errors) else { return };
    name(policy.name(), errors);
    staged(object, policy.spec.staged_action, errors);
    namespaced(&policy.spec.policy, errors);
}

fn namespaced(spec: &NetworkPolicySpec, errors: &mut Errors) {
    common(&spec.tier, spec.order, &spec.selector, &spec.service_account_selector, errors);
    directions(&spec.types, &spec.ingress, &spec.egress, true, errors);
}

pub(crate) fn global_network_policy(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(policy) = read::<GlobalNetworkPolicySpec>(object, errors) else { return };
    name(policy.name(), errors);
    global(&policy.spec, errors);
}

pub(crate) fn staged_global_network_policy(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(policy) = read::<StagedGlobalNetworkPolicySpec>(object, errors) else { return };
    name(policy.name(), errors);
    staged(object, policy.spec.staged_action, errors);
    global(&policy.spec.policy, errors);
}

fn global(spec: &GlobalNetworkPolicySpec, errors: &mut Errors) {
    common(&spec.tier, spec.order, &spec.selector, &spec.service_account_selector, errors);
    if !spec.namespace_selector.is_empty() {
        match NamespaceSelector::parse(&spec.namespace_selector) {
            Ok(NamespaceSelector::Matching(_)) => (),
            Ok(NamespaceSelector::Global) => errors.push(
                "spec.namespaceSelector",
                "global() is for the namespaceSelector of rules only",
            ),
            Err(e) => errors.push("spec.namespaceSelector", e.to_string()),
        }
    }
    directions(&spec.types, &spec.ingress, &spec.egress, false, errors);
    if spec.do_not_track && spec.pre_dnat {
        errors.push("spec.preDNAT", "cannot stand beside doNotTrack");
    }
    for (field, given) in [("doNotTrack", spec.do_not_track), ("preDNAT", spec.pre_dnat)] {
        if given && !spec.apply_on_forward {
            errors.push("spec.applyOnForward", format!("must be true beside {field}"));
        }
    }
    if spec.pre_dnat && !spec.egress.is_empty() {
        errors.push("spec.egress", "a preDNAT policy has no egress rules");
    }
    if spec.pre_dnat && spec.types.contains(&PolicyType::Egress) {
        errors.push("spec.types", "a preDNAT policy acts on Ingress only");
    }
}

fn name(name: &str, errors: &mut Errors) {
    let rest = ["knp.default.", "ossg.default."].iter().find_map(|p| name.strip_prefix(p));
    let parts: Vec<&str> = name.split('.').collect();
    if rest.is_none() && parts.len() > 2 {
        errors.push(
            "metadata.name",
            format!("{name:?} has {} parts (want one or two, joined by a dot)", parts.len()),
        );
    }
}

fn common(tier: &str, order: Option<f64>, text: &str, accounts: &str, errors: &mut Errors) {
    if !tier.is_empty() {
        errors.take("spec.tier", names::dns_label(tier));
    }
    if order.is_some_and(|o| !o.is_finite()) {
        errors.push("spec.order", "want a finite number");
    }
    selector("spec.selector", text, errors);
    selector("spec.serviceAccountSelector", accounts, errors);
}

fn directions(
    types: &[PolicyType],
    ingress: &[Rule],
    egress: &[Rule],
    namespaced: bool,
    errors: &mut Errors,
) {
    for (field, direction, list) in
        [("ingress", PolicyType::Ingress, ingress), ("egress", PolicyType::Egress, egress)]
    {
        if !list.is_empty() && !types.is_empty() && !types.contains(&direction) {
            errors.push(
                "spec.types",
                format!("has no {direction:?}, so the rules in spec.{field} would do nothing"),
            );
        }
        let place = Place { ingress: direction == PolicyType::Ingress, namespaced, policy: true };
        rules::check(&format!("spec.{field}"), list, place, errors);
    }
}

/// A staged deletion names a policy and nothing else.
fn staged(object: &Value, action: Option<StagedAction>, errors: &mut Errors) {
    if action != Some(StagedAction::Delete) {
        return;
    }
    for (field, value) in object.get("spec").and_then(Value::as_object).into_iter().flatten() {
        let given = !matches!(value, Value::Null)
            && value.as_array().is_none_or(|a| !a.is_empty())
            && value.as_str() != Some("");
        if given && !matches!(field.as_str(), "stagedAction" | "tier") {
            errors.push(format!("spec.{field}"), "cannot stand beside stagedAction Delete");
        }
    }
}

pub(crate) fn tier(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(tier) = read::<TierSpec>(object, errors) else { return };
    if !tier.name().is_empty() {
        errors.take("metadata.name", names::dns_label(tier.name()));
    }
    if tier.spec.order.is_some_and(|o| !o.is_finite()) {
        errors.push("spec.order", "want a finite number");
    }
    let built_in = Tier::BUILT_IN.into_iter().find(|t| t.0 == tier.name());
    let Some((name, order, action)) = built_in else { return };
    #[allow(clippy::float_cmp, reason = "the very number is wanted")]
    if tier.spec.order.is_some_and(|o| o != order) {
        errors.push("spec.order", format!("tier {name} always has order {order}"));
    }
    let passes = action == model::Action::Pass;
    if tier.spec.default_action.is_some_and(|a| (a == TierAction::Pass) != passes) {
        errors.push("spec.defaultAction", format!("tier {name} always ends with {action:?}"));
    }
}

pub(crate) fn profile(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(profile) = read::<ProfileSpec>(object, errors) else { return };
    for (field, ingress, list) in
        [("ingress", true, &profile.spec.ingress), ("egress", false, &profile.spec.egress)]
    {
        let place = Place { ingress, namespaced: false, policy: false };
        rules::check(&format!("spec.{field}"), list, place, errors);
    }
    for (key, value) in &profile.spec.labels_to_apply {
        let field = format!("spec.labelsToApply[{key}]");
        errors.take(&field, names::label_key(key));
        errors.take(&field, names::label_value(value));
    }
}

pub(crate) fn staged_kubernetes_network_policy(
    object: &Value,
    _: Option<&Value>,
    errors: &mut Errors,
) {
    let Some(policy) = read::<StagedKubernetesNetworkPolicySpec>(object, errors) else { return };
    staged(object, policy.spec.staged_action, errors);
    if policy.spec.staged_action == Some(StagedAction::Delete) {
        return;
    }
    match crate::kubernetes::staged(&policy) {
        Ok(read) => kubernetes(&read, errors),
        Err(e) => into_errors(e, errors),
    }
}

/// Whatever conversion finds is an error here, but for peers that others support: the rules with
/// them fail closed. It stops at the first of each rule.
pub(crate) fn cluster_network_policy(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(policy) = read::<ClusterNetworkPolicySpec>(object, errors) else { return };
    let supported = |e: &FieldError| {
        let last = e.field.rsplit('.').next();
        !matches!(last, Some("nodes" | "domainNames"))
    };
    match convert::cluster_network_policy(&policy) {
        Ok(converted) => {
            let all = converted.errors.into_iter().filter(supported);
            all.for_each(|e| into_errors(e, errors));
        }
        Err(e) => into_errors(e, errors),
    }
}

pub(crate) fn kubernetes_network_policy(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    match serde_json::from_value::<KubernetesPolicy>(object.clone()) {
        Ok(policy) => kubernetes(&policy, errors),
        Err(e) => errors.push("spec", format!("cannot be read: {e}")),
    }
}

fn kubernetes(policy: &KubernetesPolicy, errors: &mut Errors) {
    let Some(spec) = &policy.spec else { return };
    // Whatever conversion finds is an error here; it stops at the first of each rule.
    match convert::kubernetes_network_policy(policy) {
        Ok(converted) => converted.errors.into_iter().for_each(|e| into_errors(e, errors)),
        Err(e) => into_errors(e, errors),
    }
    let ingress = spec.ingress.iter().flatten().map(|r| &r.from).enumerate();
    let egress = spec.egress.iter().flatten().map(|r| &r.to).enumerate();
    let all = ingress
        .map(|(i, peers)| (format!("spec.ingress[{i}].from"), peers))
        .chain(egress.map(|(i, peers)| (format!("spec.egress[{i}].to"), peers)));
    for (field, peers) in all {
        for (j, peer) in peers.iter().flatten().enumerate() {
            let at = format!("{field}[{j}]");
            let labels = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
            match (&peer.ip_block, labels) {
                (None, false) => errors.push(&at, "want podSelector, namespaceSelector or ipBlock"),
                (Some(_), true) => errors.push(&at, "ipBlock cannot stand beside other selectors"),
                (Some(block), false) => ip_block(&at, block, errors),
                (None, true) => (),
            }
        }
    }
    expressions("spec", policy, errors);
}

fn ip_block(field: &str, block: &k8s_openapi::api::networking::v1::IPBlock, errors: &mut Errors) {
    let Ok(net) = prefix(&block.cidr) else { return };
    for (i, text) in block.except.iter().flatten().enumerate() {
        let Ok(inner) = prefix(text) else { continue };
        let inside = net.contains(&inner) && net.prefix_len() < inner.prefix_len();
        if !inside {
            let message = format!("{text} is no proper part of {}", block.cidr);
            errors.push(format!("{field}.ipBlock.except[{i}]"), message);
        }
    }
}

/// `In` and `NotIn` need values, `Exists` and `DoesNotExist` take none.
fn expressions(field: &str, policy: &KubernetesPolicy, errors: &mut Errors) {
    let spec = serde_json::to_value(policy.spec.as_ref()).unwrap_or_default();
    walk(field, &spec, errors);
}

fn walk(field: &str, value: &Value, errors: &mut Errors) {
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(&format!("{field}[{i}]"), item, errors);
            }
        }
        Value::Object(map) => {
            if let Some(operator) = map.get("operator").and_then(Value::as_str) {
                let values = map.get("values").and_then(Value::as_array).map_or(0, Vec::len);
                match (operator, values) {
                    ("In" | "NotIn", 0) => errors.push(
                        format!("{field}.values"),
                        format!("is required beside operator {operator}"),
                    ),
                    ("Exists" | "DoesNotExist", 1..) => errors.push(
                        format!("{field}.values"),
                        format!("cannot stand beside operator {operator}"),
                    ),
                    _ => (),
                }
            }
            for (key, value) in map {
                walk(&format!("{field}.{key}"), value, errors);
            }
        }
        _ => (),
    }
}
