//! One rule of a Calico policy or profile.

use ipnet::IpNet;
use model::policy::{EntityMatch, HttpMatch, Icmp, ServiceId};
use model::{Action, IpVersion, Protocol, Rule};

use super::selectors;
use crate::FieldError;
use crate::net::masked;
use crate::v3::policy::ICMPFields;
use crate::v3::{self, EntityRule};

/// The rules of one direction; what is malformed fails closed and is told.
pub(super) fn all(
    field: &str,
    rules: &[v3::Rule],
    namespace: &str,
    errors: &mut Vec<FieldError>,
) -> Vec<Rule> {
    let mut out = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        match one(&format!("{field}[{index}]"), rule, namespace) {
            Ok(converted) => out.push(Rule { origin: index as u32, ..converted }),
            Err(error) => {
                errors.push(error);
                if matches!(rule.action, v3::Action::Deny | v3::Action::Pass) {
                    out.push(Rule { origin: index as u32, ..Rule::any(Action::Deny) });
                }
            }
        }
    }
    out
}

pub(super) fn action(action: v3::Action) -> Action {
    match action {
        v3::Action::Allow => Action::Allow,
        v3::Action::Deny => Action::Deny,
        v3::Action::Log => Action::Log,
        v3::Action::Pass => Action::Pass,
    }
}

fn one(field: &str, rule: &v3::Rule, namespace: &str) -> Result<Rule, FieldError> {
    let at = |part: &str| format!("{field}.{part}");
    let protocol = |part: &str, given: &Option<crate::NumOrString>| match given {
        Some(p) => p.protocol().map(Some).map_err(|e| FieldError::new(at(part), e)),
        None => Ok(None),
    };
    let wanted = protocol("protocol", &rule.protocol)?;
    let ip_version = match rule.ip_version {
        None => None,
        Some(4) => Some(IpVersion::V4),
        Some(6) => Some(IpVersion::V6),
        Some(n) => return Err(FieldError::new(at("ipVersion"), format!("{n} is neither 4 nor 6"))),
    };
    let forced = match wanted {
        Some(Protocol::ICMP) => Some(IpVersion::V4),
        Some(Protocol::ICMPV6) => Some(IpVersion::V6),
        _ => None,
    };
    Ok(Rule {
        action: action(rule.action),
        ip_version: ip_version.or(forced),
        protocol: wanted,
        not_protocol: protocol("notProtocol", &rule.not_protocol)?,
        icmp: icmp(&at("icmp"), rule.icmp.as_ref())?,
        not_icmp: icmp(&at("notICMP"), rule.not_icmp.as_ref())?,
        source: entity(&at("source"), &rule.source, namespace)?,
        destination: entity(&at("destination"), &rule.destination, namespace)?,
        http: rule.http.as_ref().map(http),
        origin: 0,
    })
}

fn icmp(field: &str, given: Option<&ICMPFields>) -> Result<Option<Icmp>, FieldError> {
    let Some(given) = given else { return Ok(None) };
    let byte = |part: &str, value: i32| {
        u8::try_from(value)
            .map_err(|_| FieldError::new(format!("{field}.{part}"), format!("{value} is no byte")))
    };
    let code = given.code.map(|c| byte("code", c)).transpose()?;
    match given.kind {
        Some(kind) => Ok(Some(Icmp { kind: byte("type", kind)?, code })),
        None if code.is_some() => {
            Err(FieldError::new(format!("{field}.code"), "needs icmp.type beside it"))
        }
        None => Ok(None),
    }
}

fn http(given: &v3::policy::HTTPMatch) -> HttpMatch {
    let path = |p: &v3::policy::HTTPPath| match (&p.exact, &p.prefix) {
        (Some(exact), _) => (false, exact.clone()),
        (None, prefix) => (true, prefix.clone().unwrap_or_default()),
    };
    HttpMatch { methods: given.methods.clone(), paths: given.paths.iter().map(path).collect() }
}

fn entity(side: &str, given: &EntityRule, namespace: &str) -> Result<EntityMatch, FieldError> {
    let nets = |part: &str, list: &[String]| -> Result<Vec<IpNet>, FieldError> {
        let one = |(i, n): (usize, &String)| {
            masked(n).map_err(|e| FieldError::new(format!("{side}.{part}[{i}]"), e))
        };
        list.iter().enumerate().map(one).collect()
    };
    let ports = |part: &str, list: &[crate::NumOrString]| {
        let one = |(i, p): (usize, &crate::NumOrString)| {
            p.port().map_err(|e| FieldError::new(format!("{side}.{part}[{i}]"), e))
        };
        list.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
    };
    let not_selector = match given.not_selector.as_str() {
        "" => None,
        text => Some(selectors::parse(&format!("{side}.notSelector"), text)?),
    };
    let service = given.services.as_ref().map(|s| ServiceId {
        namespace: if s.namespace.is_empty() { namespace } else { s.namespace.as_str() }.into(),
        name: s.name.as_str().into(),
    });
    Ok(EntityMatch {
        nets: nets("nets", &given.nets)?,
        not_nets: nets("notNets", &given.not_nets)?,
        selector: selectors::entity(side, given, namespace)?,
        not_selector,
        ports: ports("ports", &given.ports)?,
        not_ports: ports("notPorts", &given.not_ports)?,
        service,
    })
}
