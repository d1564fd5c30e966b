//! Policies of Kubernetes as the policies of ours that mean the same.

use ipnet::IpNet;
use model::policy::{EntityMatch, Icmp};
use model::{Action, IpVersion, Policy, Port, Protocol, Rule};
use selector::Selector;
use serde_json::{Value, json};

use crate::NumOrString;
use crate::v3::policy::{ICMPFields, ServiceMatch};
use crate::v3::{
    self, EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, NetworkPolicy,
    NetworkPolicySpec, PolicyType,
};

/// A NetworkPolicy of ours for a policy that is in a namespace, else a GlobalNetworkPolicy. What the
/// original says in terms of namespaces is a selector over inherited labels.
pub fn policy_view(policy: &Policy) -> Value {
    let directions = [
        (policy.applies_ingress, PolicyType::Ingress),
        (policy.applies_egress, PolicyType::Egress),
    ];
    let types = directions.into_iter().filter(|(acts, _)| *acts).map(|(_, t)| t).collect();
    let namespaced = !policy.id.namespace.is_empty();
    let rules = |list: &[Rule]| list.iter().map(|r| rule(r, namespaced)).collect();
    let (tier, order) = (policy.tier.to_string(), policy.order);
    let selector = policy.selector.canonical().to_owned();
    let (ingress, egress) = (rules(&policy.ingress), rules(&policy.egress));
    if namespaced {
        let spec = NetworkPolicySpec {
            tier,
            order,
            ingress,
            egress,
            selector,
            types,
            ..NetworkPolicySpec::default()
        };
        json!(NetworkPolicy::namespaced(&policy.id.namespace, &policy.id.name, spec))
    } else {
        let spec = GlobalNetworkPolicySpec {
            tier,
            order,
            ingress,
            egress,
            selector,
            types,
            ..GlobalNetworkPolicySpec::default()
        };
        json!(GlobalNetworkPolicy::new(&policy.id.name, spec))
    }
}

fn rule(rule: &Rule, namespaced: bool) -> v3::Rule {
    v3::Rule {
        action: match rule.action {
            Action::Allow => v3::Action::Allow,
            Action::Deny => v3::Action::Deny,
            Action::Log => v3::Action::Log,
            Action::Pass => v3::Action::Pass,
        },
        ip_version: rule.ip_version.map(|v| if v == IpVersion::V4 { 4 } else { 6 }),
        protocol: rule.protocol.map(protocol),
        not_protocol: rule.not_protocol.map(protocol),
        icmp: rule.icmp.map(icmp),
        not_icmp: rule.not_icmp.map(icmp),
        source: entity(&rule.source, namespaced),
        destination: entity(&rule.destination, namespaced),
        ..v3::Rule::default()
    }
}

fn protocol(protocol: Protocol) -> NumOrString {
    match protocol.to_string() {
        number if number.bytes().all(|b| b.is_ascii_digit()) => i64::from(protocol.0).into(),
        name => NumOrString::Text(name),
    }
}

fn icmp(icmp: Icmp) -> ICMPFields {
    ICMPFields { kind: Some(icmp.kind.into()), code: icmp.code.map(Into::into) }
}

fn entity(entity: &EntityMatch, namespaced: bool) -> EntityRule {
    let nets = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect();
    let ports = |ports: &[Port]| ports.iter().map(port).collect();
    let text = |s: &Option<Selector>| s.as_ref().map_or("", Selector::canonical).to_owned();
    let selector = text(&entity.selector);
    // The selector says itself which namespaces it is about.
    let everywhere = namespaced && !selector.is_empty();
    EntityRule {
        nets: nets(&entity.nets),
        not_nets: nets(&entity.not_nets),
        selector,
        namespace_selector: if everywhere { "all()".into() } else { String::new() },
        not_selector: text(&entity.not_selector),
        ports: ports(&entity.ports),
        not_ports: ports(&entity.not_ports),
        services: entity
            .service
            .as_ref()
            .map(|s| ServiceMatch { name: s.name.to_string(), namespace: s.namespace.to_string() }),
        service_accounts: None,
    }
}

fn port(port: &Port) -> NumOrString {
    match port {
        Port::Range(min, max) if min == max => i64::from(*min).into(),
        Port::Range(min, max) => NumOrString::Text(format!("{min}:{max}")),
        Port::Named(name) => NumOrString::from(&**name),
    }
}
