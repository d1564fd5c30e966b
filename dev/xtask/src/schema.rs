//! Trims Kubernetes' published OpenAPI document to the kinds that the embedded API serves.
//!
//! Goes in: `swagger.json` of the Kubernetes sources, and the folder `v3` beside it, which alone holds the defaults.
//! Comes out: one JSON object: the version, the kinds with a `status` subresource, and the definitions that our kinds
//! reach. Prose is dropped; everything that a machine reads stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

const PREFIX: &str = "#/definitions/";

/// What the embedded API serves, each kind with its list: (group, version, kinds).
const SERVED: &[(&str, &str, &[&str])] = &[
    (
        "",
        "v1",
        &[
            "Namespace",
            "Node",
            "Pod",
            "Service",
            "ServiceAccount",
            "Event",
            "ConfigMap",
            "Secret",
            "Endpoints",
            "Binding",
            "Status",
            "DeleteOptions",
        ],
    ),
    ("discovery.k8s.io", "v1", &["EndpointSlice"]),
    ("networking.k8s.io", "v1", &["NetworkPolicy"]),
    ("coordination.k8s.io", "v1", &["Lease"]),
    ("events.k8s.io", "v1", &["Event"]),
    ("apiextensions.k8s.io", "v1", &["CustomResourceDefinition"]),
    ("policy", "v1", &["Eviction"]),
];

/// Definitions that no served kind refers to, but clients ask for.
const META: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
];

/// Reads the document at `swagger` and writes the trimmed form to `out`.
pub(crate) fn generate(swagger: &Path, out: &Path) -> Result<()> {
    let document = read(swagger)?;
    let mut definitions = document["definitions"]
        .as_object()
        .context("no object 'definitions' in the document")?
        .clone();
    add_defaults(&mut definitions, &swagger.with_file_name("v3"))?;
    let mut kept = reachable(&definitions, roots(&definitions)?)?;
    for definition in kept.values_mut() {
        strip(definition);
        trim_kinds(definition);
    }
    let trimmed = json!({
        "version": version_of(swagger),
        "status": status_kinds(&document),
        "definitions": kept,
    });
    let mut text = serde_json::to_string(&trimmed)?;
    text.push('\n');
    fs::write(out, text).with_context(|| format!("writing {}", out.display()))
}

/// The version, as the module cache writes it into the path (`.../kubernetes@v1.2.3/api/...`).
fn version_of(swagger: &Path) -> String {
    let mut parts = swagger.iter().filter_map(|part| part.to_str()?.strip_prefix("kubernetes@"));
    parts.next().unwrap_or("unversioned").to_owned()
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))
}

fn kinds_of(definition: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    definition["x-kubernetes-group-version-kind"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|k| Some((k["group"].as_str()?, k["version"].as_str()?, k["kind"].as_str()?)))
}

fn served(group: &str, version: &str, kind: &str) -> bool {
    let kind = kind.strip_suffix("List").unwrap_or(kind);
    SERVED.iter().any(|(g, v, kinds)| *g == group && *v == version && kinds.contains(&kind))
}

fn roots(definitions: &Map<String, Value>) -> Result<Vec<String>> {
    let mut found: Vec<String> = definitions
        .iter()
        .filter(|(_, d)| kinds_of(d).any(|(g, v, k)| served(g, v, k)))
        .map(|(name, _)| name.clone())
        .collect();
    for name in META {
        if !definitions.contains_key(*name) {
            bail!("the document defines no {name}");
        }
        found.push((*name).to_owned());
    }
    Ok(found)
}

/// The definitions that can be reached from `roots`, sorted by name.
fn reachable(
    definitions: &Map<String, Value>,
    roots: Vec<String>,
) -> Result<BTreeMap<String, Value>> {
    let mut kept = BTreeMap::new();
    let mut open = roots;
    while let Some(name) = open.pop() {
        if kept.contains_key(&name) {
            continue;
        }
        let definition = definitions
            .get(&name)
            .with_context(|| format!("a reference to {name}, which is not defined"))?;
        collect_references(definition, &mut open);
        kept.insert(name, definition.clone());
    }
    Ok(kept)
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                into.push(target.trim_start_matches(PREFIX).to_owned());
            }
            map.values().for_each(|v| collect_references(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, into)),
        _ => (),
    }
}

/// Copies the defaults that say something (not a type's zero) from the version 3 documents.
fn add_defaults(definitions: &mut Map<String, Value>, folder: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        let document = read(&file)?;
        let Some(schemas) = document["components"]["schemas"].as_object() else {
            continue;
        };
        for (name, schema) in schemas {
            let Some(fields) = schema["properties"].as_object() else {
                continue;
            };
            for (field, described) in fields {
                let Some(default) = described.get("default").filter(|d| !is_zero(d)) else {
                    continue;
                };
                let target = definitions.get_mut(name).and_then(|d| d["properties"].get_mut(field));
                if let Some(Value::Object(target)) = target {
                    target.insert("default".to_owned(), default.clone());
                }
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Drops the prose of a schema and of the schemas in it. A *property* may well be called "description": it stays.
fn strip(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    map.shift_remove("description");
    for (key, value) in map.iter_mut() {
        match key.as_str() {
            "properties" => {
                value.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(strip);
            }
            "items" | "additionalProperties" | "not" => strip(value),
            "allOf" | "anyOf" | "oneOf" => {
                value.as_array_mut().into_iter().flatten().for_each(strip);
            }
            _ => (),
        }
    }
}

/// Some meta types name themselves in every group that exists; ours are enough.
fn trim_kinds(definition: &mut Value) {
    if let Some(kinds) =
        definition.get_mut("x-kubernetes-group-version-kind").and_then(Value::as_array_mut)
    {
        kinds.retain(|k| {
            let (group, version) = (k["group"].as_str(), k["version"].as_str());
            SERVED.iter().any(|(g, v, _)| Some(*g) == group && Some(*v) == version)
        });
    }
}

/// The served kinds whose `status` has an endpoint of its own, as `group/version/Kind`.
fn status_kinds(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .filter(|(path, _)| path.ends_with("/{name}/status"))
        .filter_map(|(_, item)| {
            let kind = &item["put"]["x-kubernetes-group-version-kind"];
            Some((kind["group"].as_str()?, kind["version"].as_str()?, kind["kind"].as_str()?))
        })
        .filter(|(g, v, k)| served(g, v, k))
        .map(|(g, v, k)| format!("{g}/{v}/{k}"))
        .collect()
}
