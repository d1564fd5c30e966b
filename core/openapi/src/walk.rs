//! Pruning, defaulting and their kin: one object beside its schema.

use std::fmt;

use serde_json::Value;

use crate::node::{Id, Tree, Type};

/// Where a walk is: `spec.containers[0].name`. Made of borrowed steps, and written out only where
/// there is something to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

pub(crate) fn unknown(tree: &Tree, root: Id, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    find_unknown(tree, root, object, &Path::Root, &mut found);
    found
}

fn find_unknown(tree: &Tree, id: Id, value: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    let node = tree.node(id);
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let path = Path::Field(path, name);
                match node.field(name).or(node.extra) {
                    Some(child) => find_unknown(tree, child, inner, &path, found),
                    None if node.keeps_unknown => (),
                    None => found.push(path.to_string()),
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items else { return };
            for (i, inner) in list.iter().enumerate() {
                find_unknown(tree, items, inner, &Path::Item(path, i), found);
            }
        }
        _ => (),
    }
}

pub(crate) fn prune(tree: &Tree, id: Id, value: &mut Value) {
    let node = tree.node(id);
    match value {
        Value::Object(map) => map.retain(|name, inner| {
            let child = node.field(name).or(node.extra);
            if let Some(child) = child {
                prune(tree, child, inner);
            }
            child.is_some() || node.keeps_unknown
        }),
        Value::Array(list) => {
            if let Some(items) = node.items {
                for inner in list {
                    prune(tree, items, inner);
                }
            }
        }
        _ => (),
    }
}

pub(crate) fn default(tree: &Tree, id: Id, value: &mut Value) {
    let node = tree.node(id);
    match value {
        Value::Object(map) => {
            for (name, child) in &node.fields {
                let child = tree.node(*child);
                let Some(default) = &child.default else { continue };
                let missing = match map.get(&**name) {
                    None => true,
                    Some(Value::Null) => !child.nullable,
                    Some(_) => false,
                };
                if missing {
                    map.insert(name.to_string(), default.clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                if let Some(child) = node.field(name).or(node.extra) {
                    default(tree, child, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = node.items {
                for inner in list {
                    default(tree, items, inner);
                }
            }
        }
        _ => (),
    }
}

/// `everywhere`: no field of the kind tells null and absent apart, whatever its schema says.
pub(crate) fn normalize(tree: &Tree, id: Id, value: &mut Value, everywhere: bool) {
    let node = tree.node(id);
    match value {
        Value::Object(map) => map.retain(|name, inner| {
            let Some(child) = node.field(name).or(node.extra) else { return true };
            if inner.is_null() && (everywhere || !tree.node(child).nullable) {
                return false;
            }
            normalize(tree, child, inner, everywhere);
            true
        }),
        Value::Array(list) => {
            if let Some(items) = node.items {
                for inner in list {
                    normalize(tree, items, inner, everywhere);
                }
            }
        }
        Value::Number(number) if node.types == Type::Quantity => {
            *value = Value::String(number.to_string());
        }
        _ => (),
    }
}
