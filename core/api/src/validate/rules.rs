//! Rules of Calico policies and profiles.

use model::{IpVersion, Port, Protocol};
use selector::NamespaceSelector;

use super::{Errors, selector};
use crate::net::prefix;
use crate::v3::policy::{HTTPMatch, ICMPFields};
use crate::v3::{Action, EntityRule, Rule};
use crate::{FieldError, NumOrString, names};

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Traffic to the endpoint, or from it.
    pub(super) ingress: bool,
    /// In a policy of one namespace.
    pub(super) namespaced: bool,
    /// May name services: not in profiles.
    pub(super) policy: bool,
}

pub(super) fn check(field: &str, rules: &[Rule], place: Place, errors: &mut Errors) {
    for (i, rule) in rules.iter().enumerate() {
        one(&format!("{field}[{i}]"), rule, place, errors);
    }
}

fn one(field: &str, rule: &Rule, place: Place, errors: &mut Errors) {
    let at = |part: &str| format!("{field}.{part}");
    let mut protocol = |part: &str, given: &Option<NumOrString>| {
        let given = given.as_ref()?;
        errors.take(&at(part), given.protocol())
    };
    let wanted = protocol("protocol", &rule.protocol);
    let unwanted = protocol("notProtocol", &rule.not_protocol);
    versions(field, rule, [("protocol", wanted), ("notProtocol", unwanted)], errors);
    for (part, given) in [("icmp", &rule.icmp), ("notICMP", &rule.not_icmp)] {
        if let Some(given) = given {
            icmp(&at(part), given, wanted, errors);
        }
    }
    if let Some(given) = &rule.http {
        http(&at("http"), given, rule, place, wanted, errors);
    }
    for (part, side, source) in
        [("source", &rule.source, true), ("destination", &rule.destination, false)]
    {
        entity(&at(part), side, rule, wanted, errors);
        services(&at(part), side, source, place, errors);
    }
}

/// One rule is about one IP version: `ipVersion`, prefixes and ICMP must agree.
fn versions(
    field: &str,
    rule: &Rule,
    protocols: [(&str, Option<Protocol>); 2],
    errors: &mut Errors,
) {
    let number = |v: IpVersion| if v == IpVersion::V4 { 4 } else { 6 };
    for (part, protocol) in protocols {
        let (name, needed) = match protocol {
            Some(Protocol::ICMP) => ("ICMP", 4),
            Some(Protocol::ICMPV6) => ("ICMPv6", 6),
            _ => continue,
        };
        if rule.ip_version.is_some_and(|v| v != needed) {
            errors.push(
                format!("{field}.ipVersion"),
                format!("{part} {name} needs ipVersion {needed}"),
            );
        }
    }
    let mut first: Option<(IpVersion, String)> = None;
    let lists = [
        ("source.nets", &rule.source.nets),
        ("source.notNets", &rule.source.not_nets),
        ("destination.nets", &rule.destination.nets),
        ("destination.notNets", &rule.destination.not_nets),
    ];
    for (part, list) in lists {
        for (i, text) in list.iter().enumerate() {
            let Ok(net) = prefix(text) else { continue };
            let at = format!("{field}.{part}[{i}]");
            let version = IpVersion::of_net(&net);
            if rule.ip_version.is_some_and(|v| v != number(version)) {
                errors.push(&at, format!("{text} does not fit ipVersion of the rule"));
            }
            match &first {
                Some((seen, _)) if *seen == version => (),
                Some((_, other)) => errors.push(
                    &at,
                    format!("{text} is of another IP version than {other}: want one rule for each"),
                ),
                None => first = Some((version, text.clone())),
            }
        }
    }
}

fn icmp(field: &str, given: &ICMPFields, protocol: Option<Protocol>, errors: &mut Errors) {
    if !matches!(protocol, Some(Protocol::ICMP | Protocol::ICMPV6)) {
        errors.push(field, "needs protocol ICMP or ICMPv6");
    }
    if given.code.is_some() && given.kind.is_none() {
        errors.push(format!("{field}.code"), "needs a type beside it");
    }
}

fn http(
    field: &str,
    given: &HTTPMatch,
    rule: &Rule,
    place: Place,
    protocol: Option<Protocol>,
    errors: &mut Errors,
) {
    if rule.action != Action::Allow {
        errors.push(field, "is for Allow rules only");
    }
    if !place.ingress {
        errors.push(field, "is for ingress rules only");
    }
    if rule.protocol.is_some() && protocol != Some(Protocol::TCP) {
        errors.push(field, "needs protocol TCP or none");
    }
    for (i, method) in given.methods.iter().enumerate() {
        if given.methods[..i].contains(method) {
            errors.push(format!("{field}.methods[{i}]"), format!("{method} is given twice"));
        }
    }
    for (i, path) in given.paths.iter().enumerate() {
        let at = format!("{field}.paths[{i}]");
        let ((Some(text), None) | (None, Some(text))) = (&path.exact, &path.prefix) else {
            errors.push(at, "want exactly one of exact and prefix");
            continue;
        };
        if !text.starts_with('/') {
            errors.push(&at, format!("{text:?} does not start with /"));
        }
        if text.contains(['?', '#']) {
            errors.push(&at, format!("{text:?} holds ? or #, which are no part of a path"));
        }
        if given.paths[..i].contains(path) {
            errors.push(&at, format!("{text:?} is given twice"));
        }
    }
}

fn entity(
    field: &str,
    side: &EntityRule,
    rule: &Rule,
    protocol: Option<Protocol>,
    errors: &mut Errors,
) {
    let at = |part: &str| format!("{field}.{part}");
    for (part, list) in [("nets", &side.nets), ("notNets", &side.not_nets)] {
        for (i, text) in list.iter().enumerate() {
            let net = errors.take(&format!("{field}.{part}[{i}]"), prefix(text));
            if part == "notNets" && net.is_some_and(|n| n.prefix_len() == 0) {
                let message = format!("{text} excludes everything: the rule would match nothing");
                errors.push(format!("{field}.{part}[{i}]"), message);
            }
        }
    }
    selector(&at("selector"), &side.selector, errors);
    selector(&at("notSelector"), &side.not_selector, errors);
    if !side.namespace_selector.is_empty() {
        let parsed = NamespaceSelector::parse(&side.namespace_selector);
        errors.take(&at("namespaceSelector"), parsed.map_err(|e| e.to_string()));
    }
    let ported = protocol.is_some_and(Protocol::has_ports);
    for (part, list) in [("ports", &side.ports), ("notPorts", &side.not_ports)] {
        for (i, port) in list.iter().enumerate() {
            let at = format!("{field}.{part}[{i}]");
            let Some(port) = errors.take(&at, port.port()) else { continue };
            // A name stands for ports of every protocol.
            let free = matches!(port, Port::Named(_)) && rule.protocol.is_none();
            if !(ported || free) {
                errors.push(at, "needs protocol TCP, UDP or SCTP in the rule");
            }
        }
    }
    if let Some(accounts) = &side.service_accounts {
        selector(&at("serviceAccounts.selector"), &accounts.selector, errors);
        for (i, name) in accounts.names.iter().enumerate() {
            let at = format!("{field}.serviceAccounts.names[{i}]");
            errors.take(&at, names::dns_subdomain(name));
        }
    }
}

fn services(field: &str, side: &EntityRule, source: bool, place: Place, errors: &mut Errors) {
    let Some(service) = &side.services else { return };
    let at = format!("{field}.services");
    if !place.policy || source != place.ingress {
        errors.push(&at, "is for the source of ingress rules and the destination of egress rules");
    }
    if service.name.is_empty() {
        errors.push(format!("{at}.name"), "is required");
    } else {
        errors.take(&format!("{at}.name"), names::dns_subdomain(&service.name));
    }
    match service.namespace.as_str() {
        "" if !place.namespaced => {
            errors.push(format!("{at}.namespace"), "is required in a cluster-wide policy");
        }
        "" => (),
        namespace => drop(errors.take(&format!("{at}.namespace"), names::dns_label(namespace))),
    }
    let rivals = [
        ("nets", !side.nets.is_empty()),
        ("notNets", !side.not_nets.is_empty()),
        ("selector", !side.selector.is_empty()),
        ("notSelector", !side.not_selector.is_empty()),
        ("namespaceSelector", !side.namespace_selector.is_empty()),
        ("serviceAccounts", side.service_accounts.is_some()),
        ("ports", !source && !side.ports.is_empty()),
        ("notPorts", !source && !side.not_ports.is_empty()),
    ];
    for (part, _) in rivals.iter().filter(|(_, given)| *given) {
        errors.push(format!("{field}.{part}"), "cannot stand beside services");
    }
}

/// For readers that hold field errors already.
pub(super) fn into_errors(error: FieldError, errors: &mut Errors) {
    errors.push(error.field, error.message);
}
