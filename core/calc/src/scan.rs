//! Rules as users mean them to rules as data planes match them: selectors, named ports and services
//! become sets.

use std::sync::Arc;

use model::output::{CalcMatch, CalcRule, SetId};
use model::policy::EntityMatch;
use model::{Action, Port, Protocol, Rule};
use selector::Selector;

use crate::sets::SetKey;

/// Which side of the packet an [`EntityMatch`] is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// Converts one rule. `set` names the set for each key asked of it; it is called once for every
/// place in which the rule uses a set.
pub(crate) fn rule(rule: &Rule, set: &mut impl FnMut(SetKey) -> SetId) -> CalcRule {
    CalcRule {
        action: rule.action,
        ip_version: rule.ip_version,
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: side(&rule.source, Side::Source, rule.protocol, set),
        destination: side(&rule.destination, Side::Destination, rule.protocol, set),
        http: rule.http.clone(),
        origin: rule.origin,
    }
}

/// A rule that matches everything.
pub(crate) fn any(action: Action) -> CalcRule {
    CalcRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch::default(),
        destination: CalcMatch::default(),
        http: None,
        origin: 0,
    }
}

fn side(
    entity: &EntityMatch,
    side: Side,
    protocol: Option<Protocol>,
    set: &mut impl FnMut(SetKey) -> SetId,
) -> CalcMatch {
    let (ports, names) = split(&entity.ports);
    let (not_ports, not_names) = split(&entity.not_ports);
    // Only what the positive selector matches can match the rule at all, so its ports suffice, for
    // the negated names too.
    let owners = entity.selector.clone().unwrap_or_else(Selector::all);
    let mut named = |names: Vec<Arc<str>>| -> Vec<SetId> {
        let key = |name| SetKey::NamedPort { selector: owners.clone(), protocol, name };
        names.into_iter().map(|name| set(key(name))).collect()
    };
    let (port_sets, not_port_sets) = (named(names), named(not_names));
    // A set of named ports holds the matching addresses already; the address set would be waste.
    let implied = ports.is_empty() && !port_sets.is_empty();
    let selector = entity.selector.iter().filter(|_| !implied).cloned().map(SetKey::Nets);
    let addresses = entity.service.iter().filter(|_| side == Side::Source).cloned();
    let backends = entity.service.iter().filter(|_| side == Side::Destination).cloned();
    CalcMatch {
        nets: entity.nets.clone(),
        not_nets: entity.not_nets.clone(),
        sets: selector.chain(addresses.map(SetKey::ServiceAddresses)).map(&mut *set).collect(),
        not_sets: entity.not_selector.iter().cloned().map(SetKey::Nets).map(&mut *set).collect(),
        ports,
        port_sets,
        not_ports,
        not_port_sets,
        service_sets: backends.map(SetKey::Service).map(&mut *set).collect(),
    }
}

fn split(ports: &[Port]) -> (Vec<(u16, u16)>, Vec<Arc<str>>) {
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    for port in ports {
        match port {
            Port::Range(min, max) => ranges.push((*min, *max)),
            Port::Named(name) => names.push(name.clone()),
        }
    }
    (ranges, names)
}
