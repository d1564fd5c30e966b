//! Where values come from, and which wins.

use std::collections::{BTreeMap, HashMap};

use api::v3::FelixConfiguration;
use api::v3::felix::{Kind, NODE_SELECTOR_FIELD, PARAMETERS, Parameter};
use selector::Selector;
use serde_json::Value;

use crate::parse::{Setting, parse};
use crate::typed::Config;

/// Everything that settings are taken from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Set by the agent itself; by parameter name.
    pub overrides: BTreeMap<String, String>,
    /// The environment, whole; only `FELIX_*` is looked at.
    pub environment: Vec<(String, String)>,
    /// Text of the configuration file: `Name = value` lines, section headings and comments.
    pub file: String,
    /// Every FelixConfiguration of the cluster.
    pub resources: Vec<FelixConfiguration>,
    /// This node's name.
    pub node: String,
    /// This node's labels.
    pub labels: model::Labels,
}

/// Where a value was taken from, in falling priority.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The agent itself.
    Override,
    /// A variable of the environment.
    Environment,
    /// The configuration file.
    File,
    /// The FelixConfiguration of this node (`node.NAME`).
    Node,
    /// A FelixConfiguration whose nodeSelector matches, by name.
    Selected(String),
    /// The FelixConfiguration `default`.
    Cluster,
    /// Built in.
    BuiltIn,
}

/// A bad value: it was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The parameter, or the name that is no parameter.
    pub name: String,
    /// Where the value stood.
    pub source: Source,
    /// What is wrong with it.
    pub message: String,
    /// The agent must not run with it.
    pub fatal: bool,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Those that the agent reads.
    pub config: Config,
    /// Every parameter with its value and where that was taken from.
    pub values: BTreeMap<&'static str, (Setting, Source)>,
    /// What was bad.
    pub problems: Vec<Problem>,
}

/// Settles every parameter: the first source that has it wins; a bad value falls through to the
/// built-in default, as it does upstream.
pub fn resolve(sources: &Sources) -> Resolved {
    let mut problems = Vec::new();
    let layers = layers(sources, &mut problems);
    let mut values = BTreeMap::new();
    for row in PARAMETERS {
        let given = layers.iter().find_map(|(source, texts)| Some((source, texts.get(row.name)?)));
        let (mut value, mut from) = (None, Source::BuiltIn);
        if let Some((source, text)) = given {
            match parse(row.kind, text) {
                Ok(parsed) => (value, from) = (Some(parsed), source.clone()),
                Err(message) => problems.push(Problem {
                    name: row.name.into(),
                    source: source.clone(),
                    message,
                    fatal: row.die_on_fail,
                }),
            }
        }
        let value = value.unwrap_or_else(|| built_in(row));
        values.insert(row.name, (value, from));
    }
    Resolved { config: Config::from_values(&values), values, problems }
}

fn built_in(row: &Parameter) -> Setting {
    parse(row.kind, row.default).unwrap_or(Setting::None)
}

type Layer = (Source, HashMap<&'static str, String>);

fn layers(sources: &Sources, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut add = |source: Source, pairs: Vec<(String, String)>, strict: bool| {
        let mut layer = HashMap::new();
        for (name, value) in pairs {
            match by_name(&name) {
                Some(row) => drop(layer.insert(row.name, value)),
                None if strict => problems.push(Problem {
                    name,
                    source: source.clone(),
                    message: "is no parameter".into(),
                    fatal: false,
                }),
                None => (),
            }
        }
        layers.push((source, layer));
    };
    let overrides = sources.overrides.iter().map(|(k, v)| (k.clone(), v.clone()));
    add(Source::Override, overrides.collect(), true);
    let environment = sources.environment.iter().filter_map(|(key, value)| {
        let (head, name) = key.split_at_checked(6)?;
        head.eq_ignore_ascii_case("FELIX_").then(|| (name.to_owned(), value.clone()))
    });
    add(Source::Environment, environment.collect(), true);
    add(Source::File, file(&sources.file), true);
    for (source, resource) in resources(sources) {
        let fields = resource.spec.0.iter();
        let named = fields.filter_map(|(field, value)| {
            let row = PARAMETERS.iter().find(|row| row.field == field)?;
            Some((row.name.to_owned(), written(row.kind, value)))
        });
        add(source, named.collect(), false);
    }
    layers
}

fn by_name(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|row| {
        row.name.eq_ignore_ascii_case(name)
            || row.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
    })
}

fn file(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';', '[']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// The objects that apply to this node, in falling priority: its own, the selected ones by age,
/// the default.
fn resources(sources: &Sources) -> Vec<(Source, &FelixConfiguration)> {
    let own = format!("node.{}", sources.node);
    let mut found: Vec<_> = sources
        .resources
        .iter()
        .filter_map(|resource| {
            let name = resource.name();
            let source = if name == own {
                Source::Node
            } else if name == "default" {
                Source::Cluster
            } else if selects(resource, &sources.labels) {
                Source::Selected(name.to_owned())
            } else {
                return None;
            };
            let rank = match source {
                Source::Node => 0,
                Source::Cluster => 2,
                _ => 1,
            };
            let age = serde_json::to_string(&resource.metadata.creation_timestamp);
            Some(((rank, age.unwrap_or_default(), name), source, resource))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, source, resource)| (source, resource)).collect()
}

fn selects(resource: &FelixConfiguration, labels: &model::Labels) -> bool {
    let text = resource.spec.0.get(NODE_SELECTOR_FIELD).and_then(Value::as_str);
    text.filter(|t| !t.is_empty())
        .and_then(|t| Selector::parse(t).ok())
        .is_some_and(|s| s.matches(&**labels))
}

/// A field's value as the environment would have it.
fn written(kind: Kind, value: &Value) -> String {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let get = |v: &Value, key: &str| v.get(key).map(text).unwrap_or_default();
    match (kind, value) {
        // An empty list is a choice of its own, not the absence of one.
        (_, Value::Array(items)) if items.is_empty() => "none".into(),
        (Kind::ProtoPorts, Value::Array(items)) => {
            let one = |item: &Value| {
                let (protocol, net) = (get(item, "protocol"), get(item, "net"));
                let protocol = if protocol.is_empty() { "tcp".into() } else { protocol };
                let port = get(item, "port");
                if net.is_empty() {
                    format!("{protocol}:{port}")
                } else {
                    format!("{protocol}:[{net}]:{port}")
                }
            };
            items.iter().map(one).collect::<Vec<_>>().join(",")
        }
        (Kind::TableRanges, Value::Array(items)) => {
            let one = |item: &Value| format!("{}-{}", get(item, "min"), get(item, "max"));
            items.iter().map(one).collect::<Vec<_>>().join(",")
        }
        (Kind::TableRange, Value::Object(_)) => {
            format!("{}-{}", get(value, "min"), get(value, "max"))
        }
        (Kind::Timeouts, Value::Array(items)) => {
            let one = |item: &Value| format!("{}={}", get(item, "name"), get(item, "timeout"));
            items.iter().map(one).collect::<Vec<_>>().join(",")
        }
        (_, Value::Array(items)) => items.iter().map(text).collect::<Vec<_>>().join(","),
        (_, Value::Object(map)) => {
            map.iter().map(|(k, v)| format!("{k}={}", text(v))).collect::<Vec<_>>().join(",")
        }
        (_, other) => text(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, created: &str, spec: Value) -> FelixConfiguration {
        serde_json::from_value(json!({
            "metadata": { "name": name, "creationTimestamp": created }, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for row in PARAMETERS {
            assert!(parse(row.kind, row.default).is_ok(), "{}: {:?}", row.name, row.default);
        }
        let names: std::collections::HashSet<_> = PARAMETERS.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), PARAMETERS.len(), "a name stands twice");
    }

    /// One source after the other is taken away; the next one must show.
    #[test]
    fn priority() {
        let new = || Sources {
            overrides: [("VXLANPort".to_owned(), "1".to_owned())].into(),
            environment: vec![("FELIX_VXLANPORT".into(), "2".into())],
            file: "[global]\nVXLANPort = 3\n".into(),
            resources: vec![
                object("default", "2024-01-01T00:00:00Z", json!({ "vxlanPort": 7 })),
                object(
                    "young",
                    "2024-01-03T00:00:00Z",
                    json!({ "vxlanPort": 6, "nodeSelector": "all()" }),
                ),
                object(
                    "old",
                    "2024-01-02T00:00:00Z",
                    json!({ "vxlanPort": 5, "nodeSelector": "all()" }),
                ),
                object(
                    "other",
                    "2024-01-01T00:00:00Z",
                    json!({ "vxlanPort": 9, "nodeSelector": "has(x)" }),
                ),
                object("node.n", "2024-01-01T00:00:00Z", json!({ "vxlanPort": 4 })),
                object("node.m", "2024-01-01T00:00:00Z", json!({ "vxlanPort": 9 })),
            ],
            node: "n".into(),
            labels: model::Labels::default(),
        };
        let mut sources = new();
        let port = |s: &Sources| resolve(s).config.vxlan_port;
        assert_eq!(port(&sources), 1);
        sources.overrides.clear();
        assert_eq!(port(&sources), 2);
        sources.environment.clear();
        assert_eq!(port(&sources), 3);
        sources.file.clear();
        assert_eq!(port(&sources), 4);
        sources.resources.retain(|r| r.name() != "node.n");
        assert_eq!(port(&sources), 5);
        sources.resources.retain(|r| r.name() != "old");
        assert_eq!(port(&sources), 6);
        sources.resources.retain(|r| r.name() != "young");
        assert_eq!(port(&sources), 7);
        sources.resources.clear();
        assert_eq!(port(&sources), 4789);
    }

    #[test]
    fn bad_values_are_told_and_the_default_is_used() {
        let sources = Sources {
            environment: vec![
                ("FELIX_VXLANVNI".into(), "0".into()),
                ("FELIX_DefaultEndpointToHostAction".into(), "keep".into()),
                ("FELIX_NOSUCH".into(), "1".into()),
                ("PATH".into(), "x".into()),
            ],
            resources: vec![object("default", "2024-01-01T00:00:00Z", json!({ "vxlanVNI": 5 }))],
            ..Sources::default()
        };
        let resolved = resolve(&sources);
        assert_eq!(resolved.config.vxlan_vni, 4096, "as upstream: not the next source's value");
        let told: Vec<_> = resolved.problems.iter().map(|p| (p.name.as_str(), p.fatal)).collect();
        assert_eq!(
            told,
            [("NOSUCH", false), ("DefaultEndpointToHostAction", true), ("VXLANVNI", false)]
        );
    }

    #[test]
    fn lists_from_resources() {
        let spec = json!({
            "failsafeInboundHostPorts": [
                { "protocol": "TCP", "port": 22, "net": "fd00::/8" }, { "port": 80 },
            ],
            "failsafeOutboundHostPorts": [],
            "routeTableRanges": [{ "min": 10, "max": 20 }],
        });
        let sources = Sources {
            resources: vec![object("default", "2024-01-01T00:00:00Z", spec)],
            ..Sources::default()
        };
        let resolved = resolve(&sources);
        assert_eq!(resolved.problems, []);
        let inbound = &resolved.config.failsafe_inbound;
        assert_eq!(inbound.len(), 2);
        assert_eq!(inbound[0].net, Some("fd00::/8".parse().unwrap()));
        assert_eq!(inbound[1].port, 80);
        assert!(resolved.config.failsafe_outbound.is_empty());
        assert_eq!(resolved.values["RouteTableRanges"].0, Setting::Tables(vec![(10, 20)]));
    }
}
