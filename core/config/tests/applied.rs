//! What a row says of how it is applied is so: the agent reads a [`Config`], and a parameter shows in it if
//! and only if its row does not say that nothing reads it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use api::v3::felix::{Applied, Kind, PARAMETERS, Parameter};
use config::{Component, Config, Resolved, Row, Sources, parse, resolve};

/// Some parameters matter only together with others.
const BASE: [(&str, &str); 4] = [
    ("FELIX_ETCDADDR", "192.0.2.1:2379"),
    ("FELIX_LOGACTIONRATELIMIT", "3/second"),
    ("FELIX_PROMETHEUSMETRICSENABLED", "true"),
    ("FELIX_ENDPOINTREPORTINGENABLED", "true"),
];

/// Values of a kind, at least one of which is no parameter's default.
fn examples(kind: Kind) -> Vec<String> {
    let texts: &[&str] = match kind {
        Kind::Bool | Kind::OptBool | Kind::Flag => &["true", "false"],
        Kind::Int(min, max) => {
            return [min, min.saturating_add(7).min(max)].map(|n| n.to_string()).into();
        }
        Kind::Choice(words) => words,
        Kind::Duration | Kind::Seconds => &["7", "8"],
        Kind::Mask => &["0xff00", "0xff0000"],
        Kind::Text | Kind::Secret | Kind::Regex | Kind::TextList => &["some", "other"],
        Kind::Address => &["192.0.2.9", "192.0.2.10"],
        Kind::Iface => &["some0", "other0"],
        Kind::InterfacePrefixes => &["tap", "tun"],
        Kind::Cidrs => &["192.0.2.0/24", "198.51.100.0/24"],
        Kind::PortRange | Kind::PortRanges => &["7:8", "9:10"],
        Kind::ProtoPorts => &["tcp:7", "udp:8"],
        Kind::TableRange | Kind::TableRanges => &["7-8", "9-10"],
        Kind::KeyValues | Kind::Map | Kind::Timeouts => &["a=7s", "b=8s"],
        Kind::ConntrackTimeouts => &["udpTimeout=7s", "udpTimeout=8s"],
        Kind::RateLimit => &["7/second", "8/hour"],
    };
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn with(row: Option<(&'static Parameter, &str)>) -> Resolved {
    let base = BASE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let own = row.map(|(parameter, text)| {
        let row = Row { component: Component::Felix, parameter };
        (row.environment().unwrap(), text.to_owned())
    });
    resolve(&Sources { environment: base.chain(own).collect(), ..Sources::default() })
}

#[test]
fn a_parameter_is_read_if_and_only_if_its_row_says_so() {
    let base: Config = with(None).config;
    for row in PARAMETERS {
        let examples = examples(row.kind);
        for text in &examples {
            assert!(parse(row.kind, text).is_ok(), "{}: {text}", row.name);
        }
        let shows = examples.iter().any(|text| with(Some((row, text))).config != base);
        assert_eq!(shows, row.applied != Applied::Unused, "{} is {:?}", row.name, row.applied);
    }
}

#[test]
fn only_what_says_so_takes_a_new_start() {
    let base = with(None);
    for row in PARAMETERS {
        let others = examples(row.kind).into_iter().map(|text| with(Some((row, &text))));
        let others: Vec<_> =
            others.filter(|other| base.values[row.name].0 != other.values[row.name].0).collect();
        assert!(!others.is_empty(), "{} has no other value", row.name);
        let wanted: &[&str] = if row.applied == Applied::Restart { &[row.name] } else { &[] };
        for other in others {
            assert_eq!(base.restarts(&other), wanted);
            assert!(base.differing(&other).contains(&row.name));
        }
    }
}
