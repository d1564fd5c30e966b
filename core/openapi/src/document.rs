//! The OpenAPI documents that clients ask for: `/openapi/v2` and `/openapi/v3`.
//!
//! They hold what kubectl reads: definitions with their kinds, and per resource its paths, operations and parameters.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::{Gvk, Schemas, builtin_definitions};

/// What a document says about one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version in the group.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The name in paths.
    pub plural: &'a str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether `status` has an endpoint of its own.
    pub status: bool,
}

impl Resource<'_> {
    fn gvk(&self) -> Gvk {
        (self.group.to_owned(), self.version.to_owned(), self.kind.to_owned())
    }

    fn collection(&self) -> String {
        let root = api_path(self.group, self.version);
        let space = if self.namespaced { "namespaces/{namespace}/" } else { "" };
        format!("/{root}/{space}{}", self.plural)
    }
}

fn api_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn kind_entry(resource: &Resource<'_>) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

/// The name of a kind's definition: the group backwards, as upstream names those of custom resources.
fn added_name((group, version, kind): &Gvk) -> String {
    let backwards: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", backwards.join("."))
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Rewrites `#/definitions/X` to the place of definitions in a version 3 document.
fn relocate(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.rsplit('/').next()
            {
                *target = format!("{prefix}{name}");
            }
            map.values_mut().for_each(|v| relocate(v, prefix));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| relocate(v, prefix)),
        _ => (),
    }
}

/// All definitions by name, references written for version 2.
fn definitions(schemas: &Schemas) -> BTreeMap<String, Value> {
    let mut all: BTreeMap<String, Value> = builtin_definitions()
        .into_iter()
        .map(|(name, text)| (name, serde_json::from_str(text.get()).unwrap_or_default()))
        .collect();
    for (gvk, added) in &schemas.added {
        let mut schema = (*added.source).clone();
        for key in ["$defs", "definitions"] {
            if let Some(Value::Object(own)) =
                schema.as_object_mut().and_then(|s| s.shift_remove(key))
            {
                all.extend(own);
            }
        }
        complete(&mut schema, gvk);
        all.insert(added_name(gvk), schema);
        let list = added_list(gvk);
        all.insert(format!("{}List", added_name(gvk)), list);
    }
    all
}

/// Adds to the schema of a custom resource what every object has.
fn complete(schema: &mut Value, (group, version, kind): &Gvk) {
    if !schema.is_object() {
        *schema = json!({});
    }
    schema["type"] = json!("object");
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = json!({"$ref": format!("#/definitions/{META}.ObjectMeta")});
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": group, "version": version, "kind": kind}]);
}

fn added_list(gvk: &Gvk) -> Value {
    let (group, version, kind) = gvk;
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": format!("#/definitions/{META}.ListMeta")},
            "items": {"type": "array", "items": {"$ref": format!("#/definitions/{}", added_name(gvk))}},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": format!("{kind}List")}],
    })
}

/// The definition's name of every kind.
fn names(all: &BTreeMap<String, Value>) -> BTreeMap<Gvk, String> {
    let mut out = BTreeMap::new();
    for (name, definition) in all {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
        for kind in kinds {
            let part = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
            out.insert((part("group"), part("version"), part("kind")), name.clone());
        }
    }
    out
}

/// The two dialects differ in where things stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }

    fn query(self, name: &str, kind: &str) -> Value {
        match self {
            Dialect::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
            Dialect::V3 => {
                json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
            }
        }
    }

    fn path(self, name: &str) -> Value {
        match self {
            Dialect::V2 => json!({"name": name, "in": "path", "required": true, "type": "string"}),
            Dialect::V3 => {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
            }
        }
    }

    fn answer(self, definition: &str) -> Value {
        let schema = json!({"$ref": format!("{}{definition}", self.prefix())});
        let ok = match self {
            Dialect::V2 => json!({"description": "OK", "schema": schema}),
            Dialect::V3 => {
                json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
            }
        };
        json!({ "200": ok })
    }

    fn with_body(self, mut operation: Value, definition: &str, types: &[&str]) -> Value {
        let schema = json!({"$ref": format!("{}{definition}", self.prefix())});
        match self {
            Dialect::V2 => {
                operation["consumes"] = json!(types);
                if let Some(list) = operation["parameters"].as_array_mut() {
                    list.push(
                        json!({"name": "body", "in": "body", "required": true, "schema": schema}),
                    );
                }
            }
            Dialect::V3 => {
                let content: Map<String, Value> =
                    types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect();
                operation["requestBody"] = json!({"required": true, "content": content});
            }
        }
        operation
    }
}

/// Patches of every kind; the last is for Kubernetes' own kinds only. kubectl chooses by this list.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The patches that kinds of this sort take.
fn patches(builtin: bool) -> &'static [&'static str] {
    if builtin { &PATCHES } else { &PATCHES[..3] }
}

/// Writes the paths of resources in one dialect.
struct Paths<'a> {
    dialect: Dialect,
    names: &'a BTreeMap<Gvk, String>,
    schemas: &'a Schemas,
    out: Map<String, Value>,
}

impl Paths<'_> {
    fn operation(
        &self,
        resource: &Resource<'_>,
        action: &str,
        answer: &str,
        queries: &[(&str, &str)],
    ) -> Value {
        let mut words = action.to_owned()
            + &resource.group.replace('.', "_")
            + resource.version
            + resource.kind;
        if resource.namespaced {
            words.push_str("Namespaced");
        }
        let parameters: Vec<Value> =
            queries.iter().map(|(name, kind)| self.dialect.query(name, kind)).collect();
        json!({
            "operationId": words,
            "parameters": parameters,
            "responses": self.dialect.answer(answer),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind_entry(resource),
        })
    }

    fn add(&mut self, resource: &Resource<'_>) {
        let Some(name) = self.names.get(&resource.gvk()).cloned() else { return };
        let list_gvk = (
            resource.group.to_owned(),
            resource.version.to_owned(),
            format!("{}List", resource.kind),
        );
        let list = self.names.get(&list_gvk).cloned().unwrap_or_else(|| name.clone());
        let collection = resource.collection();
        let mut shared = Vec::new();
        if resource.namespaced {
            shared.push(self.dialect.path("namespace"));
        }
        let item = self.collection(resource, &name, &list, &shared);
        self.out.insert(collection.clone(), item);
        if resource.namespaced {
            let everywhere =
                format!("/{}/{}", api_path(resource.group, resource.version), resource.plural);
            let get = self.operation(resource, "list", &list, LIST);
            self.out.insert(everywhere, json!({ "get": get }));
        }
        shared.push(self.dialect.path("name"));
        let item = self.object(resource, &name, &shared);
        self.out.insert(format!("{collection}/{{name}}"), item.clone());
        if resource.status {
            let mut status = item;
            if let Some(map) = status.as_object_mut() {
                map.shift_remove("delete");
            }
            self.out.insert(format!("{collection}/{{name}}/status"), status);
        }
    }

    fn collection(
        &self,
        resource: &Resource<'_>,
        name: &str,
        list: &str,
        shared: &[Value],
    ) -> Value {
        let post = self.operation(resource, "post", name, WRITE);
        json!({
            "parameters": shared,
            "get": self.operation(resource, "list", list, LIST),
            "post": self.dialect.with_body(post, name, &["application/json", "application/yaml"]),
            "delete": self.operation(resource, "deletecollection", &format!("{META}.Status"), DELETE),
        })
    }

    fn object(&self, resource: &Resource<'_>, name: &str, shared: &[Value]) -> Value {
        let put = self.operation(resource, "put", name, WRITE);
        let patch = self.operation(resource, "patch", name, PATCH);
        let types = patches(!self.schemas.added.contains_key(&resource.gvk()));
        json!({
            "parameters": shared,
            "get": self.operation(resource, "get", name, &[]),
            "put": self.dialect.with_body(put, name, &["application/json", "application/yaml"]),
            "patch": self.dialect.with_body(patch, &format!("{META}.Patch"), types),
            "delete": self.operation(resource, "delete", &format!("{META}.Status"), DELETE),
        })
    }
}

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

fn paths(
    dialect: Dialect,
    schemas: &Schemas,
    all: &BTreeMap<String, Value>,
    resources: &[Resource<'_>],
) -> Map<String, Value> {
    let names = names(all);
    let mut paths = Paths { dialect, names: &names, schemas, out: Map::new() };
    for resource in resources {
        paths.add(resource);
    }
    paths.out
}

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.35.4";

fn info() -> Value {
    json!({"title": TITLE, "version": VERSION})
}

/// The whole version 2 document (`/openapi/v2`).
pub fn v2(schemas: &Schemas, resources: &[Resource<'_>]) -> Value {
    let mut all = definitions(schemas);
    let paths = paths(Dialect::V2, schemas, &all, resources);
    for definition in all.values_mut() {
        relocate(definition, Dialect::V2.prefix());
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": all})
}

/// The media type under which clients ask for [`v2_binary`].
pub const V2_BINARY: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The media type of the answer: the same with what a media type may hold.
pub const V2_BINARY_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The version 2 document as kubectl fetches it, in protocol buffers, with no path and no definition.
///
/// kubectl asks for it only about kinds that the version 3 documents do not hold; what it must learn is that there are
/// none, so that it goes on and says which kind is not served.
pub fn v2_binary() -> Vec<u8> {
    // Length-delimited fields: of the document 1 `swagger`, 2 `info`, 8 `paths`; of info 1 `title`, 2 `version`.
    let field =
        |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, &[])].concat()
}

/// The index of version 3 documents (`/openapi/v3`): one per group and version among the resources. `hash` is put into
/// their addresses, so that clients may keep a document until it changes.
pub fn v3_index(resources: &[Resource<'_>], hash: &str) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let path = api_path(resource.group, resource.version);
        let address = format!("/openapi/v3/{path}?hash={hash}");
        paths.entry(path).or_insert_with(|| json!({ "serverRelativeURL": address }));
    }
    json!({ "paths": paths })
}

/// The version 3 document of one group and version (`/openapi/v3/apis/GROUP/VERSION`, `/openapi/v3/api/v1`).
pub fn v3(schemas: &Schemas, group: &str, version: &str, resources: &[Resource<'_>]) -> Value {
    let mut all = definitions(schemas);
    let ours: Vec<Resource<'_>> =
        resources.iter().filter(|r| r.group == group && r.version == version).copied().collect();
    let paths = paths(Dialect::V3, schemas, &all, &ours);
    let mut used = BTreeMap::new();
    let mut open: Vec<String> = paths.values().flat_map(references).collect();
    while let Some(name) = open.pop() {
        if let Some(mut definition) = all.remove(&name) {
            open.extend(references(&definition));
            relocate(&mut definition, Dialect::V3.prefix());
            used.insert(name, definition);
        }
    }
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": used}})
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
            own.map(str::to_owned).into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
