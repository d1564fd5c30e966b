//! ClusterNetworkPolicies (2.5).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use model::policy::{EntityMatch, Stage};
use model::{Action, Policy, PolicyId, PolicyKind, Port, Protocol, Rule};
use selector::Selector;

use super::policy::{label_terms, pod_selector, simplified};
use super::{Converted, selectors};
use crate::cluster_policy::{
    ClusterNetworkPolicy, EgressPeer, Labels, PodPeer, PortMatch, ProtocolMatch,
};
use crate::net::masked;
use crate::v3::EntityRule;
use crate::{FieldError, NumOrString};

/// A ClusterNetworkPolicy. A rule that cannot be understood matches nothing if it accepts, and
/// denies everything in its direction if it does anything else.
///
/// # Errors
/// When nobody can say which pods it is about, or in which tier and where it stands.
pub fn cluster_network_policy(
    policy: &ClusterNetworkPolicy,
) -> Result<Converted<Policy>, FieldError> {
    let spec = &policy.spec;
    let tier = match spec.tier.as_str() {
        "Admin" => "kube-admin",
        "Baseline" => "kube-baseline",
        other => {
            let message = format!("{other:?} is no tier (want Admin or Baseline)");
            return Err(FieldError::new("spec.tier", message));
        }
    };
    let priority = spec.priority.ok_or_else(|| FieldError::new("spec.priority", "is required"))?;
    let subject = subject(&spec.subject).map_err(|e| e.below("spec"))?;
    let mut errors = Vec::new();
    let mut ingress = Vec::new();
    for (i, rule) in spec.ingress.iter().enumerate() {
        let peers = each("from", &rule.from, pod_peer);
        let rules = peers.and_then(|peers| combined(&peers, &rule.protocols, i, Side::From));
        let at = format!("spec.ingress[{i}]");
        ingress.extend(closed((&rule.action, i as u32), rules, &at, &mut errors));
    }
    let mut egress = Vec::new();
    for (i, rule) in spec.egress.iter().enumerate() {
        let networks = rule.to.iter().any(|peer| !peer.networks.is_empty());
        let rules = each("to", &rule.to, egress_peer)
            .and_then(|peers| combined(&peers, &rule.protocols, i, Side::To { networks }));
        let at = format!("spec.egress[{i}]");
        egress.extend(closed((&rule.action, i as u32), rules, &at, &mut errors));
    }
    let value = Policy {
        id: PolicyId {
            name: policy.name().into(),
            namespace: "".into(),
            kind: PolicyKind::ClusterNetworkPolicy,
        },
        tier: tier.into(),
        order: Some(f64::from(priority)),
        selector: subject,
        // Without rules it has nothing to say; its tier passes what no rule decides.
        applies_ingress: !ingress.is_empty(),
        applies_egress: !egress.is_empty(),
        ingress,
        egress,
        stage: Stage::Normal,
        apply_on_forward: true,
        staged: false,
        everywhere: false,
    };
    Ok(Converted { value, errors })
}

#[derive(Clone, Copy)]
enum Side {
    From,
    To { networks: bool },
}

/// The rules with their action, or what is safe in their place.
fn closed(
    (action, origin): (&str, u32),
    rules: Result<Vec<Rule>, FieldError>,
    at: &str,
    errors: &mut Vec<FieldError>,
) -> Vec<Rule> {
    let known = match action {
        "Accept" => Ok(Action::Allow),
        "Deny" => Ok(Action::Deny),
        "Pass" => Ok(Action::Pass),
        other => {
            let message = format!("{other:?} is no action (want Accept, Deny or Pass)");
            Err(FieldError::new("action", message))
        }
    };
    match known.clone().and_then(|action| rules.map(|rules| (action, rules))) {
        Ok((action, rules)) => rules.into_iter().map(|r| Rule { action, ..r }).collect(),
        Err(error) => {
            errors.push(error.below(at));
            let accepts = known == Ok(Action::Allow);
            let deny = Rule { origin, ..Rule::any(Action::Deny) };
            if accepts { Vec::new() } else { vec![deny] }
        }
    }
}

fn each<T>(
    field: &str,
    peers: &[T],
    convert: impl Fn(&T) -> Result<EntityMatch, FieldError>,
) -> Result<Vec<EntityMatch>, FieldError> {
    if peers.is_empty() {
        return Err(FieldError::new(field, "needs at least one peer"));
    }
    let one = |(i, peer)| convert(peer).map_err(|e: FieldError| below_item(e, field, i));
    peers.iter().enumerate().map(one).collect()
}

/// An error of an item, or of a field of it.
fn below_item(error: FieldError, list: &str, index: usize) -> FieldError {
    let item = format!("{list}[{index}]");
    if error.field.is_empty() { FieldError::new(item, error.message) } else { error.below(&item) }
}

/// Peers times protocols; the ports of one protocol stand in one rule.
fn combined(
    peers: &[EntityMatch],
    protocols: &[ProtocolMatch],
    index: usize,
    side: Side,
) -> Result<Vec<Rule>, FieldError> {
    let mut out = Vec::new();
    for (protocol, ports) in by_protocol(protocols, side)? {
        for peer in peers {
            let (source, mut destination) = match side {
                Side::From => (peer.clone(), EntityMatch::default()),
                Side::To { .. } => (EntityMatch::default(), peer.clone()),
            };
            destination.ports.clone_from(&ports);
            let origin = index as u32;
            out.push(Rule { protocol, source, destination, origin, ..Rule::any(Action::Deny) });
        }
    }
    Ok(out)
}

type PortsByProtocol = Vec<(Option<Protocol>, Vec<Port>)>;

/// An empty list of ports means every port of the protocol.
fn by_protocol(protocols: &[ProtocolMatch], side: Side) -> Result<PortsByProtocol, FieldError> {
    if protocols.is_empty() {
        return Ok(vec![(None, Vec::new())]);
    }
    let mut by: BTreeMap<Option<Protocol>, Option<Vec<Port>>> = BTreeMap::new();
    for (i, item) in protocols.iter().enumerate() {
        let (protocol, port) =
            one_protocol(item, side).map_err(|e| below_item(e, "protocols", i))?;
        let slot = by.entry(protocol).or_insert_with(|| Some(Vec::new()));
        match (port, &mut *slot) {
            (None, all) => *all = None,
            (Some(port), Some(list)) => list.push(port),
            (Some(_), None) => (),
        }
    }
    Ok(by.into_iter().map(|(p, ports)| (p, simplified(ports.unwrap_or_default()))).collect())
}

/// The protocol, none for a named port; the port, none for all of them.
fn one_protocol(
    item: &ProtocolMatch,
    side: Side,
) -> Result<(Option<Protocol>, Option<Port>), FieldError> {
    let numbered = [
        ("tcp", Protocol::TCP, &item.tcp),
        ("udp", Protocol::UDP, &item.udp),
        ("sctp", Protocol::SCTP, &item.sctp),
    ];
    let mut given = numbered.iter().filter_map(|(name, p, m)| m.as_ref().map(|m| (*name, *p, m)));
    let name = item.destination_named_port.as_str();
    match (given.next(), given.next(), name.is_empty()) {
        (Some((field, protocol, ports)), None, true) => {
            let port = port(ports).map_err(|e| e.below(&format!("{field}.destinationPort")))?;
            Ok((Some(protocol), port))
        }
        (None, _, false) => {
            let at = |message: String| FieldError::new("destinationNamedPort", message);
            if matches!(side, Side::To { networks: true }) {
                return Err(at("cannot stand beside networks, which name no ports".into()));
            }
            match NumOrString::from(name).port().map_err(at)? {
                named @ Port::Named(_) => Ok((None, Some(named))),
                Port::Range(..) => Err(at(format!("{name:?} is no name of a port"))),
            }
        }
        _ => Err(FieldError::new("", "want exactly one of tcp, udp, sctp, destinationNamedPort")),
    }
}

fn port(ports: &PortMatch) -> Result<Option<Port>, FieldError> {
    let number = |field: &str, n: Option<i32>| {
        let n = n.ok_or_else(|| FieldError::new(field, "is required"))?;
        let port = u16::try_from(n).ok().filter(|n| *n > 0);
        port.ok_or_else(|| FieldError::new(field, format!("{n} is out of range (want 1 to 65535)")))
    };
    let Some(given) = &ports.destination_port else { return Ok(None) };
    match (given.number, &given.range) {
        (Some(n), None) => number("number", Some(n)).map(|n| Some(Port::Range(n, n))),
        (None, Some(span)) => {
            let (start, end) = (number("range.start", span.start)?, number("range.end", span.end)?);
            if start > end {
                let message = format!("{end} is below the start, {start}");
                return Err(FieldError::new("range.end", message));
            }
            Ok(Some(Port::Range(start, end)))
        }
        _ => Err(FieldError::new("number", "want exactly one of number, range")),
    }
}

/// The pods that the policy is about: never host endpoints.
fn subject(peer: &PodPeer) -> Result<Selector, FieldError> {
    let at = |e: FieldError| e.below("subject");
    let (namespaces, pods) = match (&peer.namespaces, &peer.pods) {
        (Some(namespaces), None) => {
            (terms("namespaces", Some(namespaces)).map_err(at)?, pod_selector(None))
        }
        (None, Some(both)) => {
            let namespaces = terms("pods.namespaceSelector", both.namespace_selector.as_ref());
            let pods = labels("pods.podSelector", both.pod_selector.as_ref()).map_err(at)?;
            (namespaces.map_err(at)?, pod_selector(Some(&pods)))
        }
        _ => return Err(FieldError::new("subject", "want exactly one of namespaces, pods")),
    };
    let pods = pods.map_err(|e| FieldError::new("subject.pods.podSelector", e))?;
    selectors::subject("", pods.canonical(), &namespaces, "")
}

fn pod_peer(peer: &PodPeer) -> Result<EntityMatch, FieldError> {
    let (selector, namespace_selector) = match (&peer.namespaces, &peer.pods) {
        (Some(namespaces), None) => (String::new(), terms("namespaces", Some(namespaces))?),
        (None, Some(both)) => {
            let pods = labels("pods.podSelector", both.pod_selector.as_ref())?;
            let pods = pod_selector(Some(&pods));
            let pods = pods.map_err(|e| FieldError::new("pods.podSelector", e))?;
            let namespaces = terms("pods.namespaceSelector", both.namespace_selector.as_ref())?;
            (pods.canonical().to_owned(), namespaces)
        }
        _ => return Err(FieldError::new("", "want exactly one of namespaces, pods")),
    };
    let entity = EntityRule { selector, namespace_selector, ..EntityRule::default() };
    let selector = selectors::entity("peer", &entity, "")?;
    Ok(EntityMatch { selector, ..EntityMatch::default() })
}

fn egress_peer(peer: &EgressPeer) -> Result<EntityMatch, FieldError> {
    let given = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        !peer.networks.is_empty(),
        !peer.domain_names.is_empty(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        return Err(FieldError::new("", "want exactly one of namespaces, pods, networks"));
    }
    for (field, given) in
        [("nodes", peer.nodes.is_some()), ("domainNames", !peer.domain_names.is_empty())]
    {
        if given {
            let message = "is not supported (want namespaces, pods or networks)";
            return Err(FieldError::new(field, message));
        }
    }
    if peer.networks.is_empty() {
        let pods = PodPeer { namespaces: peer.namespaces.clone(), pods: peer.pods.clone() };
        return pod_peer(&pods);
    }
    let net = |(i, text): (usize, &String)| {
        masked(text).map_err(|e| FieldError::new(format!("networks[{i}]"), e))
    };
    let nets = peer.networks.iter().enumerate().map(net).collect::<Result<_, _>>()?;
    Ok(EntityMatch { nets, ..EntityMatch::default() })
}

/// The canonical selector over namespaces; all of them without a condition.
fn terms(field: &str, given: Option<&Labels>) -> Result<String, FieldError> {
    let terms = label_terms(&labels(field, given)?).map_err(|e| FieldError::new(field, e))?;
    Ok(Selector::and_all(&terms).canonical().to_owned())
}

fn labels(field: &str, given: Option<&Labels>) -> Result<LabelSelector, FieldError> {
    let Labels { match_labels, match_expressions } = given.cloned().unwrap_or_default();
    let mut expressions = Vec::new();
    for (i, r) in match_expressions.into_iter().enumerate() {
        let wrong = match (r.operator.as_str(), r.values.is_empty()) {
            ("In" | "NotIn", true) => Some("is required"),
            ("Exists" | "DoesNotExist", false) => Some("cannot stand"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let field = format!("{field}.matchExpressions[{i}].values");
            return Err(FieldError::new(field, format!("{wrong} beside operator {}", r.operator)));
        }
        expressions.push(LabelSelectorRequirement {
            key: r.key,
            operator: r.operator,
            values: Some(r.values),
        });
    }
    Ok(LabelSelector { match_labels: Some(match_labels), match_expressions: Some(expressions) })
}
