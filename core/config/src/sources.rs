//! Where values come from, and which wins.

use std::collections::{BTreeMap, HashMap};

use api::v3::FelixConfiguration;
use api::v3::felix::{Applied, Kind, NODE_SELECTOR_FIELD, PARAMETERS, Parameter};
use selector::Selector;
use serde_json::Value;

use crate::parse::{Setting, parse};
use crate::rows::Component;
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

/// Every setting by its name: the value, and where that was taken from.
pub type Values = BTreeMap<&'static str, (Setting, Source)>;

/// The agent's settings in force.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Those that the agent reads.
    pub config: Config,
    /// Every parameter.
    pub values: Values,
    /// What was bad.
    pub problems: Vec<Problem>,
}

/// A program's settings in force.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Every setting.
    pub values: Values,
    /// What was bad.
    pub problems: Vec<Problem>,
}

impl Resolved {
    /// The parameters that `other` has otherwise and that an agent which runs with this one can only
    /// take by starting again.
    pub fn restarts(&self, other: &Self) -> Vec<&'static str> {
        let differs = |row: &&Parameter| {
            let value = |resolved: &Self| resolved.values.get(row.name).map(|(v, _)| v.clone());
            value(self) != value(other)
        };
        let rows = PARAMETERS.iter().filter(|row| row.applied == Applied::Restart);
        rows.filter(differs).map(|row| row.name).collect()
    }

    /// The parameters whose value or source `other` has otherwise.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let values = self.values.iter();
        values.filter(|(n, value)| other.values.get(*n) != Some(value)).map(|(n, _)| *n).collect()
    }
}

/// Settles every parameter of the agent: the first source that has it wins; a bad value falls through
/// to the built-in default, as it does upstream.
pub fn resolve(sources: &Sources) -> Resolved {
    let mut layers = Layers::new(Component::Felix);
    let overrides = sources.overrides.iter().map(|(k, v)| (k.clone(), v.clone()));
    layers.add(Source::Override, overrides);
    layers.environment(&sources.environment);
    layers.add(Source::File, file(&sources.file));
    for (source, resource) in resources(sources) {
        let fields = resource.spec.0.iter().filter_map(|(field, value)| {
            let row = PARAMETERS.iter().find(|row| row.field == field)?;
            Some((row.name.to_owned(), written(row.kind, value)))
        });
        layers.add(source, fields);
    }
    let Settled { values, problems } = layers.settle();
    Resolved { config: Config::from_values(&values), values, problems }
}

/// Settles what a program takes from the environment, given whole, and from the text of its
/// configuration file, if it has one; as [`resolve`] does.
pub fn settle(component: Component, environment: &[(String, String)], text: &str) -> Settled {
    let mut layers = Layers::new(component);
    layers.environment(environment);
    layers.add(Source::File, file(text));
    layers.settle()
}

/// What the sources of a program say, in falling priority.
struct Layers {
    component: Component,
    layers: Vec<(Source, HashMap<&'static str, String>)>,
    problems: Vec<Problem>,
}

impl Layers {
    fn new(component: Component) -> Self {
        Self { component, layers: Vec::new(), problems: Vec::new() }
    }

    /// The variables that are this program's.
    fn environment(&mut self, all: &[(String, String)]) {
        let component = self.component;
        let own = all.iter().filter_map(|(key, value)| {
            let name = match component.prefix() {
                Some(prefix) => {
                    let (head, name) = key.split_at_checked(prefix.len())?;
                    head.eq_ignore_ascii_case(prefix).then_some(name)?
                }
                None => {
                    component
                        .rows()
                        .find(|row| row.environment().as_ref() == Some(key))?
                        .parameter
                        .name
                }
            };
            Some((name.to_owned(), value.clone()))
        });
        self.add(Source::Environment, own);
    }

    /// The next source. What is empty is not said.
    fn add(&mut self, source: Source, pairs: impl Iterator<Item = (String, String)>) {
        let mut layer = HashMap::new();
        for (name, value) in pairs.filter(|(_, value)| !value.trim().is_empty()) {
            match self.by_name(&name) {
                Some(row) => drop(layer.insert(row.name, value)),
                None => self.problems.push(Problem {
                    name,
                    source: source.clone(),
                    message: "is no parameter".into(),
                    fatal: false,
                }),
            }
        }
        self.layers.push((source, layer));
    }

    fn by_name(&self, name: &str) -> Option<&'static Parameter> {
        let is = |other: &str| other.eq_ignore_ascii_case(name);
        let mut rows = self.component.rows().map(|row| row.parameter);
        rows.find(|row| is(row.name) || row.aliases.iter().any(|alias| is(alias)))
    }

    fn settle(self) -> Settled {
        let Self { component, layers, mut problems } = self;
        let mut values = BTreeMap::new();
        for row in component.rows().map(|row| row.parameter) {
            let given =
                layers.iter().find_map(|(source, texts)| Some((source, texts.get(row.name)?)));
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
        Settled { values, problems }
    }
}

fn built_in(row: &Parameter) -> Setting {
    parse(row.kind, row.default).unwrap_or(Setting::None)
}

fn file(text: &str) -> impl Iterator<Item = (String, String)> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';', '[']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
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
        for component in Component::ALL {
            let mut names = std::collections::HashSet::new();
            for row in component.rows() {
                let Parameter { name, kind, default, .. } = *row.parameter;
                assert!(parse(kind, default).is_ok(), "{name}: {default:?}");
                assert!(names.insert(name.to_lowercase()), "{component:?} has {name} twice");
            }
        }
    }

    #[test]
    fn other_programs_are_settled_by_the_same_rules() {
        let environment = [
            ("TYPHA_SERVERPORT", "5474"),
            ("typha_maxconnectionslowerlimit", "0"),
            ("TYPHA_SHUTDOWNTIMEOUTSECS", " "),
            ("TYPHA_NOSUCH", "1"),
            ("IP", "192.0.2.1"),
        ];
        let environment = environment.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let text = "ServerPort = 1\nShutdownTimeoutSecs = 7\nDatastoreType = perhaps\n";
        let typha = settle(Component::Typha, &environment, text);
        let got = |name| (typha.values[name].0.to_string(), typha.values[name].1.clone());
        assert_eq!(got("ServerPort"), ("5474".into(), Source::Environment));
        assert_eq!(got("ShutdownTimeoutSecs"), ("7s".into(), Source::File), "empty is not said");
        assert_eq!(got("MaxConnectionsLowerLimit"), ("400".into(), Source::BuiltIn), "as upstream");
        assert_eq!(got("ServerMinBatchingAgeThresholdSecs").0, "10ms");
        let told: Vec<_> = typha.problems.iter().map(|p| (p.name.as_str(), p.fatal)).collect();
        assert_eq!(
            told,
            [("NOSUCH", false), ("DatastoreType", true), ("MaxConnectionsLowerLimit", false)]
        );

        let node = settle(Component::Node, &environment, "");
        assert_eq!(node.values["IP"].1, Source::Environment);
        assert_eq!(node.problems, [], "variables of others are none of its business");
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
