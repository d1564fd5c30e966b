//! From schema documents to nodes.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::node::{DEDUCED, Id, ListType, Node, PatchFacts, Pattern, Rules, Tree, Type, UNTYPED};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Collects nodes; definitions are compiled when something refers to them.
pub(crate) struct Compiler<'a> {
    definitions: &'a Map<String, Value>,
    names: HashMap<String, Id>,
    nodes: Vec<Node>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(definitions: &'a Map<String, Value>) -> Self {
        Self {
            definitions,
            names: HashMap::new(),
            nodes: vec![Node::any(false, DEDUCED), Node::any(true, UNTYPED)],
        }
    }

    pub(crate) fn finish(self) -> Tree {
        let mut nodes = self.nodes;
        nodes.shrink_to_fit();
        Tree { nodes }
    }

    /// The node of a named definition; a name that is not defined admits anything.
    pub(crate) fn named(&mut self, name: &str) -> Id {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let Some(schema) = self.definitions.get(name) else {
            return DEDUCED;
        };
        if name == RAW_EXTENSION {
            return UNTYPED;
        }
        let id = self.reserve();
        self.names.insert(name.to_owned(), id);
        let mut node = self.node(schema, false);
        if name == QUANTITY {
            node.types = Type::Quantity;
        }
        if name.starts_with("io.k8s.") && is_free(schema) {
            node.keeps_unknown = true;
        }
        self.nodes[id as usize] = node;
        id
    }

    fn reserve(&mut self) -> Id {
        self.nodes.push(Node::any(false, DEDUCED));
        (self.nodes.len() - 1) as Id
    }

    /// The root of an object's schema: `metadata` is always the standard one.
    pub(crate) fn root(&mut self, schema: &Value) -> Id {
        let mut node = self.node(schema, false);
        self.complete_object(&mut node);
        self.nodes.push(node);
        (self.nodes.len() - 1) as Id
    }

    fn complete_object(&mut self, node: &mut Node) {
        if node.types == Type::Any {
            node.types = Type::Object;
        }
        let text = {
            self.nodes.push(Node {
                types: Type::String,
                nullable: false,
                keeps_unknown: false,
                unnamed: None,
                items: None,
                ..Node::any(false, DEDUCED)
            });
            (self.nodes.len() - 1) as Id
        };
        let meta = self.named(OBJECT_META);
        for (name, id) in [("apiVersion", text), ("kind", text), ("metadata", meta)] {
            match node.fields.binary_search_by(|(n, _)| (**n).cmp(name)) {
                Ok(at) => node.fields[at].1 = id,
                Err(at) => node.fields.insert(at, (name.into(), id)),
            }
        }
    }

    fn child(&mut self, schema: &Value, inherit: bool) -> Id {
        let Some(map) = schema.as_object() else {
            return DEDUCED;
        };
        if let Some(one) = only_alternative(schema) {
            let id = self.child(one, inherit);
            return self.nullable(id);
        }
        let Some(name) = reference(map) else {
            let node = self.node(schema, inherit);
            self.nodes.push(node);
            return (self.nodes.len() - 1) as Id;
        };
        let base = self.named(name);
        let beside =
            || map.iter().filter(|(k, _)| !matches!(k.as_str(), "$ref" | "allOf" | "description"));
        if beside().next().is_none() {
            return base;
        }
        // Facts beside a reference hold for this place only: it gets a node of its own.
        let mut merged = match self.definitions.get(name) {
            Some(Value::Object(target)) => target.clone(),
            _ => Map::new(),
        };
        merged.extend(beside().map(|(k, v)| (k.clone(), v.clone())));
        let mut node = self.node(&Value::Object(merged), inherit);
        if name == QUANTITY {
            node.types = Type::Quantity;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as Id
    }

    /// A node like `id` that admits null as well.
    fn nullable(&mut self, id: Id) -> Id {
        let mut copy = self.nodes[id as usize].clone();
        copy.nullable = true;
        self.nodes.push(copy);
        (self.nodes.len() - 1) as Id
    }

    /// `inherit`: an enclosing schema keeps unknown fields, which ownership (not pruning) hands down.
    fn node(&mut self, schema: &Value, inherit: bool) -> Node {
        let flag = |key: &str| schema[key].as_bool() == Some(true);
        let text = |key: &str| schema[key].as_str();
        let preserves = flag("x-kubernetes-preserve-unknown-fields");
        let inherit = inherit || preserves;
        let types = type_of(schema);
        let mut fields: Vec<(Box<str>, Id)> = members(schema, "properties")
            .map(|(name, s)| (name.as_str().into(), self.child(s, inherit)))
            .collect();
        fields.sort();
        let (extra, open) = match &schema["additionalProperties"] {
            Value::Object(_) => (Some(self.child(&schema["additionalProperties"], inherit)), false),
            Value::Bool(allowed) => (None, *allowed),
            _ => (None, false),
        };
        let closed = schema["additionalProperties"] == Value::Bool(false);
        let guesses = extra.is_none() && !closed && (open || inherit || fields.is_empty());
        let items = match &schema["items"] {
            Value::Object(_) => Some(self.child(&schema["items"], inherit)),
            _ => (types == Type::Any).then_some(UNTYPED),
        };
        let mut node = Node {
            types,
            nullable: admits_null(schema),
            keeps_unknown: preserves || open || (types == Type::Any && fields.is_empty()),
            embedded: flag("x-kubernetes-embedded-resource"),
            fields,
            extra,
            unnamed: extra.or(guesses.then_some(DEDUCED)),
            items,
            required: strings(&schema["required"]),
            default: schema.get("default").cloned(),
            list: list_type(schema),
            atomic_map: text("x-kubernetes-map-type") == Some("atomic"),
            patch: patch_facts(schema),
            rules: self.rules(schema),
        };
        if node.embedded {
            self.complete_object(&mut node);
        }
        node
    }

    fn rules(&mut self, schema: &Value) -> Option<Box<Rules>> {
        let number = |key: &str| schema[key].as_f64();
        let count = |key: &str| schema[key].as_u64();
        let flag = |key: &str| schema[key].as_bool() == Some(true);
        let mut branches = |key: &str| -> Vec<Id> {
            let list = schema[key].as_array().into_iter().flatten();
            list.map(|s| self.child(s, false)).collect()
        };
        // `anyOf: [integer, string]` beside int-or-string only repeats the type.
        let typed_twice = flag("x-kubernetes-int-or-string") || schema["format"] == "int-or-string";
        let (all_of, any_of, one_of) = if typed_twice {
            (branches("allOf"), Vec::new(), Vec::new())
        } else {
            (branches("allOf"), branches("anyOf"), branches("oneOf"))
        };
        let rules = Rules {
            one_of_values: schema["enum"].as_array().cloned().unwrap_or_default(),
            minimum: number("minimum").map(|m| (m, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|m| (m, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            length: (count("minLength"), count("maxLength")),
            items: (count("minItems"), count("maxItems")),
            properties: (count("minProperties"), count("maxProperties")),
            unique: flag("uniqueItems"),
            pattern: schema["pattern"]
                .as_str()
                .map(|p| Pattern { text: p.into(), compiled: OnceLock::new() }),
            format: schema["format"].as_str().map(Into::into),
            all_of,
            any_of,
            one_of,
            not: schema["not"].as_object().map(|_| self.child(&schema["not"], false)),
        };
        let some = !rules.one_of_values.is_empty()
            || rules.minimum.is_some()
            || rules.maximum.is_some()
            || rules.multiple_of.is_some()
            || rules.length != (None, None)
            || rules.items != (None, None)
            || rules.properties != (None, None)
            || rules.unique
            || rules.pattern.is_some()
            || rules.format.is_some()
            || !(rules.all_of.is_empty() && rules.any_of.is_empty() && rules.one_of.is_empty())
            || rules.not.is_some();
        some.then(|| Box::new(rules))
    }
}

fn reference(schema: &Map<String, Value>) -> Option<&str> {
    let direct = schema.get("$ref").and_then(Value::as_str);
    // Version 3 documents wrap a reference that has facts beside it into a list of one.
    let wrapped = || match schema.get("allOf")?.as_array()?.as_slice() {
        [only] => only["$ref"].as_str(),
        _ => None,
    };
    direct.or_else(wrapped)?.rsplit('/').next()
}

fn members<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema[key].as_object().into_iter().flatten()
}

fn is_null_type(schema: &Value) -> bool {
    schema["type"] == "null"
}

fn admits_null(schema: &Value) -> bool {
    let null_among = |key: &str| schema[key].as_array().is_some_and(|s| s.iter().any(is_null_type));
    schema["nullable"] == Value::Bool(true)
        || schema["type"].as_array().is_some_and(|names| names.iter().any(|n| n == "null"))
        || null_among("anyOf")
        || null_among("oneOf")
}

/// The one alternative beside `null`, as derived schemas write an optional reference.
fn only_alternative(schema: &Value) -> Option<&Value> {
    let list = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array())?;
    match list.as_slice() {
        [one, null] | [null, one] if is_null_type(null) => Some(one),
        _ => None,
    }
}

fn strings(list: &Value) -> Vec<Box<str>> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|s| s.as_str().map(Into::into)).collect()
}

/// `type: object` and nothing about its content. In a built-in definition it means free-form (FieldsV1 is one); in the
/// schema of a custom resource it means an object without fields.
fn is_free(schema: &Value) -> bool {
    schema["type"] == "object"
        && schema["properties"].is_null()
        && schema["additionalProperties"].is_null()
}

fn type_of(schema: &Value) -> Type {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true)
        || schema["format"] == "int-or-string"
    {
        return Type::IntOrString;
    }
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|n| *n != "null"),
        name => name.as_str(),
    };
    match name {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

fn list_type(schema: &Value) -> ListType {
    // Without a list type, the older facts of strategic merge decide.
    let patch = patch_facts(schema);
    match (schema["x-kubernetes-list-type"].as_str(), patch.merge_key) {
        (Some("set"), _) => ListType::Set,
        (Some("map"), _) => ListType::Map(strings(&schema["x-kubernetes-list-map-keys"]).into()),
        (None, Some(key)) if patch.merge => ListType::Map([key].into()),
        (None, None) if patch.merge => ListType::Set,
        _ => ListType::Atomic,
    }
}

fn patch_facts(schema: &Value) -> PatchFacts {
    let strategy = schema["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
    PatchFacts {
        merge: strategy.split(',').any(|s| s == "merge"),
        retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
        merge_key: schema["x-kubernetes-patch-merge-key"].as_str().map(Into::into),
    }
}
