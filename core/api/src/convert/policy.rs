//! Policies and tiers.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy as KubernetesPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::policy::{EntityMatch, Stage, Tier};
use model::{Action, Policy, PolicyId, PolicyKind, Port, Protocol, Rule, TierName};
use selector::Selector;

use super::{Converted, ORCHESTRATOR_LABEL, rules, selectors};
use crate::meta::{Object, Spec};
use crate::net::masked;
use crate::v3::policy::{PolicyPerformanceHint, StagedAction, TierAction};
use crate::v3::{
    self, EntityRule, GlobalNetworkPolicySpec, NetworkPolicySpec, PolicyType,
    StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicySpec, StagedNetworkPolicySpec,
};
use crate::{FieldError, kubernetes};

/// Tier of policies that name none, and of Kubernetes policies.
const DEFAULT_TIER: &str = "default";
/// Where Kubernetes policies stand in their tier.
pub(super) const KUBERNETES_ORDER: f64 = 1000.0;

pub(super) fn tier_name(tier: &str) -> TierName {
    if tier.is_empty() { DEFAULT_TIER } else { tier }.into()
}

/// The directions a policy acts on; if it does not say, as the API would have defaulted it.
fn directions(types: &[PolicyType], ingress: bool, egress: bool) -> (bool, bool) {
    if types.is_empty() {
        return (ingress || !egress, egress);
    }
    (types.contains(&PolicyType::Ingress), types.contains(&PolicyType::Egress))
}

fn id<S: Spec>(object: &Object<S>, kind: PolicyKind) -> PolicyId {
    PolicyId { name: object.name().into(), namespace: object.namespace().into(), kind }
}

/// A Calico NetworkPolicy.
///
/// # Errors
/// When the policy's own selector is malformed, so that nobody knows whom it is about.
pub fn network_policy(policy: &v3::NetworkPolicy) -> Result<Converted<Policy>, FieldError> {
    namespaced(id(policy, PolicyKind::NetworkPolicy), &policy.spec, false)
}

/// A StagedNetworkPolicy; none if it only says that a policy would be deleted.
///
/// # Errors
/// As for [`network_policy`].
pub fn staged_network_policy(
    policy: &Object<StagedNetworkPolicySpec>,
) -> Result<Option<Converted<Policy>>, FieldError> {
    if policy.spec.staged_action == Some(StagedAction::Delete) {
        return Ok(None);
    }
    namespaced(id(policy, PolicyKind::StagedNetworkPolicy), &policy.spec.policy, true).map(Some)
}

fn namespaced(
    id: PolicyId,
    spec: &NetworkPolicySpec,
    staged: bool,
) -> Result<Converted<Policy>, FieldError> {
    let mut errors = Vec::new();
    let namespace = id.namespace.clone();
    let (applies_ingress, applies_egress) =
        directions(&spec.types, !spec.ingress.is_empty(), !spec.egress.is_empty());
    let value = Policy {
        tier: tier_name(&spec.tier),
        order: spec.order,
        selector: selectors::subject(
            &namespace,
            &spec.selector,
            "",
            &spec.service_account_selector,
        )?,
        applies_ingress,
        applies_egress,
        ingress: rules::all("spec.ingress", &spec.ingress, &namespace, &mut errors),
        egress: rules::all("spec.egress", &spec.egress, &namespace, &mut errors),
        stage: Stage::Normal,
        apply_on_forward: true, // pods only, whose traffic is always forwarded
        staged,
        everywhere: everywhere(&spec.performance_hints),
        id,
    };
    Ok(Converted { value, errors })
}

fn everywhere(hints: &[PolicyPerformanceHint]) -> bool {
    hints.contains(&PolicyPerformanceHint::AssumeNeededOnEveryNode)
}

/// A GlobalNetworkPolicy.
///
/// # Errors
/// As for [`network_policy`].
pub fn global_network_policy(
    policy: &v3::GlobalNetworkPolicy,
) -> Result<Converted<Policy>, FieldError> {
    global(id(policy, PolicyKind::GlobalNetworkPolicy), &policy.spec, false)
}

/// A StagedGlobalNetworkPolicy; none if it only says that a policy would be deleted.
///
/// # Errors
/// As for [`network_policy`].
pub fn staged_global_network_policy(
    policy: &Object<StagedGlobalNetworkPolicySpec>,
) -> Result<Option<Converted<Policy>>, FieldError> {
    if policy.spec.staged_action == Some(StagedAction::Delete) {
        return Ok(None);
    }
    let id = id(policy, PolicyKind::StagedGlobalNetworkPolicy);
    global(id, &policy.spec.policy, true).map(Some)
}

fn global(
    id: PolicyId,
    spec: &GlobalNetworkPolicySpec,
    staged: bool,
) -> Result<Converted<Policy>, FieldError> {
    let mut errors = Vec::new();
    let (applies_ingress, applies_egress) =
        directions(&spec.types, !spec.ingress.is_empty(), !spec.egress.is_empty());
    let stage = match (spec.do_not_track, spec.pre_dnat) {
        (true, _) => Stage::Untracked,
        (false, true) => Stage::PreDnat,
        (false, false) => Stage::Normal,
    };
    let value = Policy {
        tier: tier_name(&spec.tier),
        order: spec.order,
        selector: selectors::subject(
            "",
            &spec.selector,
            &spec.namespace_selector,
            &spec.service_account_selector,
        )?,
        applies_ingress,
        applies_egress,
        ingress: rules::all("spec.ingress", &spec.ingress, "", &mut errors),
        egress: rules::all("spec.egress", &spec.egress, "", &mut errors),
        stage,
        apply_on_forward: spec.apply_on_forward,
        staged,
        everywhere: everywhere(&spec.performance_hints),
        id,
    };
    Ok(Converted { value, errors })
}

/// A Kubernetes NetworkPolicy.
///
/// # Errors
/// When its pod selector is malformed.
pub fn kubernetes_network_policy(
    policy: &KubernetesPolicy,
) -> Result<Converted<Policy>, FieldError> {
    from_kubernetes(policy, PolicyKind::KubernetesNetworkPolicy, false)
}

/// A StagedKubernetesNetworkPolicy; none if it only says that a policy would be deleted.
///
/// # Errors
/// When it cannot be read as a Kubernetes policy, or its pod selector is malformed.
pub fn staged_kubernetes_network_policy(
    policy: &Object<StagedKubernetesNetworkPolicySpec>,
) -> Result<Option<Converted<Policy>>, FieldError> {
    if policy.spec.staged_action == Some(StagedAction::Delete) {
        return Ok(None);
    }
    let read = kubernetes::staged(policy)?;
    from_kubernetes(&read, PolicyKind::StagedKubernetesNetworkPolicy, true).map(Some)
}

fn from_kubernetes(
    policy: &KubernetesPolicy,
    kind: PolicyKind,
    staged: bool,
) -> Result<Converted<Policy>, FieldError> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let spec = policy.spec.clone().unwrap_or_default();
    let mut errors = Vec::new();
    let pods = pod_selector(spec.pod_selector.as_ref())
        .map_err(|e| FieldError::new("spec.podSelector", e))?;
    let types = spec.policy_types.unwrap_or_default();
    let mut ingress = Vec::new();
    for (i, rule) in spec.ingress.unwrap_or_default().into_iter().enumerate() {
        let (peers, ports) = (rule.from.unwrap_or_default(), rule.ports.unwrap_or_default());
        match allow(&peers, &ports, namespace, i as u32, true) {
            Ok(rules) => ingress.extend(rules),
            Err(e) => errors.push(e.below(&format!("spec.ingress[{i}]"))),
        }
    }
    let mut egress = Vec::new();
    for (i, rule) in spec.egress.unwrap_or_default().into_iter().enumerate() {
        let (peers, ports) = (rule.to.unwrap_or_default(), rule.ports.unwrap_or_default());
        match allow(&peers, &ports, namespace, i as u32, false) {
            Ok(rules) => egress.extend(rules),
            Err(e) => errors.push(e.below(&format!("spec.egress[{i}]"))),
        }
    }
    let applies_egress = types.iter().any(|t| t == "Egress");
    let value = Policy {
        id: PolicyId {
            name: policy.metadata.name.as_deref().unwrap_or_default().into(),
            namespace: namespace.into(),
            kind,
        },
        tier: DEFAULT_TIER.into(),
        order: Some(KUBERNETES_ORDER),
        selector: selectors::subject(namespace, pods.canonical(), "", "")?,
        applies_ingress: types.iter().any(|t| t == "Ingress") || !applies_egress,
        applies_egress,
        ingress,
        egress,
        stage: Stage::Normal,
        apply_on_forward: true,
        staged,
        everywhere: false,
    };
    Ok(Converted { value, errors })
}

/// Peers times protocols; the ports of one protocol stand in one rule.
fn allow(
    peers: &[NetworkPolicyPeer],
    ports: &[NetworkPolicyPort],
    namespace: &str,
    origin: u32,
    ingress: bool,
) -> Result<Vec<Rule>, FieldError> {
    let by_protocol = ports_by_protocol(ports)?;
    let side = if ingress { "from" } else { "to" };
    let mut matches = Vec::new();
    for (i, peer) in peers.iter().enumerate() {
        matches.push(peer_match(peer, namespace).map_err(|e| e.below(&format!("{side}[{i}]")))?);
    }
    if matches.is_empty() {
        matches.push(EntityMatch::default());
    }
    let mut out = Vec::new();
    for (protocol, ports) in by_protocol {
        for peer in &matches {
            let (source, mut destination) = if ingress {
                (peer.clone(), EntityMatch::default())
            } else {
                (EntityMatch::default(), peer.clone())
            };
            destination.ports.clone_from(&ports);
            out.push(Rule { protocol, source, destination, origin, ..Rule::any(Action::Allow) });
        }
    }
    Ok(out)
}

type PortsByProtocol = Vec<(Option<Protocol>, Vec<Port>)>;

/// An empty list of ports means every port of the protocol.
fn ports_by_protocol(ports: &[NetworkPolicyPort]) -> Result<PortsByProtocol, FieldError> {
    if ports.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    let mut by: BTreeMap<&str, (Protocol, Option<Vec<Port>>)> = BTreeMap::new();
    for (i, port) in ports.iter().enumerate() {
        let at = |part: &str, e: String| FieldError::new(format!("ports[{i}].{part}"), e);
        let name = port.protocol.as_deref().unwrap_or("TCP");
        let protocol = crate::NumOrString::from(name).protocol().map_err(|e| at("protocol", e))?;
        let parsed = kubernetes_port(port).map_err(|(part, e)| at(part, e))?;
        let slot = by.entry(name).or_insert((protocol, Some(Vec::new())));
        match (parsed, &mut slot.1) {
            (None, all) => *all = None,
            (Some(port), Some(list)) => list.push(port),
            (Some(_), None) => (),
        }
    }
    let simplify = |(p, ports): (Protocol, Option<Vec<Port>>)| {
        (Some(p), simplified(ports.unwrap_or_default()))
    };
    Ok(by.into_values().map(simplify).collect())
}

fn kubernetes_port(port: &NetworkPolicyPort) -> Result<Option<Port>, (&'static str, String)> {
    let given = match &port.port {
        None if port.end_port.is_some() => {
            return Err(("endPort", "needs a numeric port beside it".into()));
        }
        None => return Ok(None),
        Some(IntOrString::Int(n)) => crate::NumOrString::Num(i64::from(*n)),
        Some(IntOrString::String(s)) => crate::NumOrString::Text(s.clone()),
    };
    let first = given.port().map_err(|e| ("port", e))?;
    let Some(end) = port.end_port else { return Ok(Some(first)) };
    match first {
        Port::Named(_) => Err(("endPort", "needs a numeric port, not a name".into())),
        Port::Range(min, _) => match u16::try_from(end) {
            Ok(max) if max >= min => Ok(Some(Port::Range(min, max))),
            _ => Err(("endPort", format!("{end} is out of range (want {min} to 65535)"))),
        },
    }
}

/// The fewest ranges that cover the same ports; names first.
pub(super) fn simplified(ports: Vec<Port>) -> Vec<Port> {
    let mut names = Vec::new();
    let mut ranges = Vec::new();
    for port in ports {
        match port {
            Port::Range(min, max) => ranges.push((min, max)),
            named @ Port::Named(_) => names.push(named),
        }
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (min, max) in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(min) <= u32::from(last.1) + 1 => last.1 = last.1.max(max),
            _ => merged.push((min, max)),
        }
    }
    names.extend(merged.into_iter().map(|(min, max)| Port::Range(min, max)));
    names
}

fn peer_match(peer: &NetworkPolicyPeer, namespace: &str) -> Result<EntityMatch, FieldError> {
    if let Some(block) = &peer.ip_block {
        let at = |e| FieldError::new("ipBlock.cidr", e);
        let except = block.except.iter().flatten().enumerate().map(|(i, text)| {
            masked(text).map_err(|e| FieldError::new(format!("ipBlock.except[{i}]"), e))
        });
        return Ok(EntityMatch {
            nets: vec![masked(&block.cidr).map_err(at)?],
            not_nets: except.collect::<Result<_, _>>()?,
            ..EntityMatch::default()
        });
    }
    let pods =
        pod_selector(peer.pod_selector.as_ref()).map_err(|e| FieldError::new("podSelector", e))?;
    let namespaces = match &peer.namespace_selector {
        None => String::new(),
        Some(labels) => {
            let terms = label_terms(labels).map_err(|e| FieldError::new("namespaceSelector", e))?;
            Selector::and_all(&terms).canonical().to_owned() // of no terms: all()
        }
    };
    let entity = EntityRule {
        selector: pods.canonical().to_owned(),
        namespace_selector: namespaces,
        ..EntityRule::default()
    };
    let selector = selectors::entity("peer", &entity, namespace)?;
    Ok(EntityMatch { selector, ..EntityMatch::default() })
}

/// Pods of Kubernetes with these labels.
pub(super) fn pod_selector(labels: Option<&LabelSelector>) -> Result<Selector, String> {
    let mut terms = vec![Selector::equals(ORCHESTRATOR_LABEL, "k8s")];
    if let Some(labels) = labels {
        terms.extend(label_terms(labels)?);
    }
    Ok(Selector::and_all(&terms))
}

pub(super) fn label_terms(labels: &LabelSelector) -> Result<Vec<Selector>, String> {
    let mut terms = Vec::new();
    for (key, value) in labels.match_labels.iter().flatten() {
        crate::names::label_key(key)?;
        crate::names::label_value(value)?;
        terms.push(Selector::equals(key, value));
    }
    for term in labels.match_expressions.iter().flatten() {
        crate::names::label_key(&term.key)?;
        let values = term.values.as_deref().unwrap_or_default();
        values.iter().try_for_each(|v| crate::names::label_value(v))?;
        let words = values.iter().map(String::as_str);
        terms.push(match term.operator.as_str() {
            "In" => Selector::is_in(&term.key, words),
            "NotIn" => Selector::not_in(&term.key, words),
            "Exists" => Selector::has(&term.key),
            "DoesNotExist" => Selector::not_has(&term.key),
            other => {
                return Err(format!(
                    "{other:?} is no operator (want In, NotIn, Exists or DoesNotExist)"
                ));
            }
        });
    }
    Ok(terms)
}

/// A tier.
pub fn tier(tier: &v3::Tier) -> Tier {
    let built_in = Tier::built_in(tier.name());
    let default_action = match tier.spec.default_action {
        Some(TierAction::Pass) => Action::Pass,
        Some(TierAction::Deny) => Action::Deny,
        None => built_in.as_ref().map_or(Action::Deny, |t| t.default_action),
    };
    Tier {
        name: tier.name().into(),
        order: tier.spec.order.or_else(|| built_in?.order),
        default_action,
    }
}
