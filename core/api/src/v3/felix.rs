//! FelixConfiguration: its fields are the rows of [`PARAMETERS`] that have a field.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::meta::{Cluster, kind};

#[path = "felix_parameters.rs"]
mod parameters;
pub use parameters::{Applied, Kind, PARAMETERS, Parameter};

/// Settings of the agent, by field. The schema knows every field; `config` reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FelixConfigurationSpec(pub BTreeMap<String, Value>);
kind!(FelixConfigurationSpec, FelixConfiguration, "felixconfigurations", Cluster);

/// Selects the nodes that a FelixConfiguration of any other name applies to.
pub const NODE_SELECTOR_FIELD: &str = "nodeSelector";

impl JsonSchema for FelixConfigurationSpec {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "FelixConfigurationSpec".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        let selector = json!({
            "type": "string", "maxLength": 1024, "description": "Nodes that this object applies to."
        });
        properties.insert(NODE_SELECTOR_FIELD.into(), selector);
        for row in PARAMETERS.iter().filter(|row| !row.field.is_empty()) {
            let mut schema = field_schema(row.kind);
            let about = match row.default {
                "" => row.about.to_owned(),
                default => format!("{} [Default: {default}]", row.about),
            };
            schema["description"] = about.into();
            properties.insert(row.field.into(), schema);
        }
        schemars::json_schema!({
            "type": "object",
            "description": "Settings of the agent.",
            "properties": properties,
        })
    }
}

/// Times as every duration field takes them.
pub const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))*$";

fn field_schema(kind: Kind) -> Value {
    let text_list = json!({ "type": "array", "items": { "type": "string" } });
    let port = json!({
        "anyOf": [{ "type": "integer" }, { "type": "string" }], "x-kubernetes-int-or-string": true
    });
    let range = json!({
        "type": "object",
        "required": ["min", "max"],
        "properties": { "min": { "type": "integer" }, "max": { "type": "integer" } },
    });
    let duration = json!({ "type": "string", "pattern": DURATION_PATTERN });
    match kind {
        Kind::Bool | Kind::OptBool | Kind::Flag => json!({ "type": "boolean" }),
        Kind::Int(min, i64::MAX) => json!({ "type": "integer", "minimum": min }),
        Kind::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Mask => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::Choice(words) => {
            json!({ "type": "string", "pattern": format!("^(?i)({})?$", words.join("|")) })
        }
        Kind::Duration => duration,
        Kind::Cidrs | Kind::TextList => text_list,
        Kind::PortRange => port,
        Kind::PortRanges => json!({ "type": "array", "items": port }),
        Kind::ProtoPorts => json!({
            "type": "array",
            "items": {
                "type": "object",
                "required": ["port"],
                "properties": {
                    "protocol": { "type": "string" },
                    "port": { "type": "integer", "minimum": 0, "maximum": 65535 },
                    "net": { "type": "string" },
                },
            },
        }),
        Kind::TableRange => range,
        Kind::TableRanges => json!({ "type": "array", "items": range }),
        Kind::Map => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Timeouts => json!({
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "timeout"],
                "properties": { "name": { "type": "string" }, "timeout": duration },
            },
        }),
        Kind::ConntrackTimeouts => {
            let states = [
                "creationGracePeriod",
                "tcpSynSent",
                "tcpEstablished",
                "tcpFinsSeen",
                "tcpResetSeen",
                "udpTimeout",
                "genericTimeout",
                "icmpTimeout",
            ];
            let time = json!({ "type": "string", "pattern": r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$" });
            let fields: Map<_, _> =
                states.iter().map(|s| ((*s).to_owned(), time.clone())).collect();
            json!({ "type": "object", "properties": fields })
        }
        Kind::Text
        | Kind::Secret
        | Kind::Seconds
        | Kind::Regex
        | Kind::Address
        | Kind::Iface
        | Kind::InterfacePrefixes
        | Kind::KeyValues
        | Kind::RateLimit => json!({ "type": "string" }),
    }
}
