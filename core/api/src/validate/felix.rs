//! FelixConfiguration, by the rows of its parameters.

use serde_json::Value;

use super::{Errors, read, selector};
use crate::net::{address, duration, prefix};
use crate::v3::FelixConfigurationSpec;
use crate::v3::felix::{Kind, NODE_SELECTOR_FIELD, PARAMETERS};

pub(crate) fn configuration(object: &Value, _: Option<&Value>, errors: &mut Errors) {
    let Some(given) = read::<FelixConfigurationSpec>(object, errors) else { return };
    for (field, value) in &given.spec.0 {
        let at = format!("spec.{field}");
        if field == NODE_SELECTOR_FIELD {
            selector(&at, value.as_str().unwrap_or_default(), errors);
        } else if let Some(row) = PARAMETERS.iter().find(|row| row.field == field) {
            check(&at, row.kind, value, errors);
        }
    }
}

fn check(field: &str, kind: Kind, value: &Value, errors: &mut Errors) {
    let text = value.as_str().unwrap_or_default();
    let items = || value.as_array().into_iter().flatten().enumerate();
    match kind {
        Kind::Choice(words)
            if !text.is_empty() && !words.iter().any(|w| w.eq_ignore_ascii_case(text)) =>
        {
            errors.push(field, format!("{text:?} is not one of {}", words.join(", ")));
        }
        Kind::Duration => drop(errors.take(field, duration(text))),
        Kind::Address if !text.is_empty() => drop(errors.take(field, address(text))),
        Kind::Iface if !text.is_empty() => {
            errors.take(field, text.parse::<model::IfaceName>().map_err(|e| e.to_string()));
        }
        Kind::RateLimit if !text.is_empty() => drop(errors.take(field, rate_limit(text))),
        Kind::Mask if value.as_u64().is_some_and(|m| m.count_ones() < 8) => {
            errors.push(field, "has fewer than 8 bits (want at least 8)");
        }
        Kind::Cidrs => {
            for (i, item) in items() {
                let net = prefix(item.as_str().unwrap_or_default());
                errors.take(&format!("{field}[{i}]"), net);
            }
        }
        Kind::PortRange => drop(errors.take(field, port(value))),
        Kind::PortRanges => {
            for (i, item) in items() {
                errors.take(&format!("{field}[{i}]"), port(item));
            }
        }
        Kind::ProtoPorts => {
            for (i, item) in items() {
                proto_port(&format!("{field}[{i}]"), item, errors);
            }
        }
        _ => (),
    }
}

fn port(value: &Value) -> Result<(), String> {
    let given: crate::NumOrString =
        serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    match given.port()? {
        model::Port::Range(..) => Ok(()),
        model::Port::Named(name) => {
            Err(format!("{name:?} is no port (want 1 to 65535 or min:max)"))
        }
    }
}

fn proto_port(field: &str, item: &Value, errors: &mut Errors) {
    let protocol = item.get("protocol").and_then(Value::as_str).unwrap_or("tcp");
    if !["tcp", "udp", "sctp"].iter().any(|p| p.eq_ignore_ascii_case(protocol)) {
        let message = format!("{protocol:?} is not one of tcp, udp, sctp");
        errors.push(format!("{field}.protocol"), message);
    }
    if let Some(net) = item.get("net").and_then(Value::as_str).filter(|n| !n.is_empty()) {
        errors.take(&format!("{field}.net"), prefix(net));
    }
}

fn rate_limit(text: &str) -> Result<(), String> {
    let ok = text.split_once('/').is_some_and(|(count, unit)| {
        count.parse::<u32>().is_ok_and(|n| n > 0)
            && ["second", "minute", "hour", "day"].contains(&unit)
    });
    if ok {
        return Ok(());
    }
    Err(format!("{text:?} is no rate (want N/second, N/minute, N/hour or N/day)"))
}
