//! Merge patches: JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::node::{Id, Node, Tree, UNTYPED};
use crate::schema::Schema;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// A directive that does not exist, or not here.
    #[error("unknown patch type: {0}: wanted replace or delete, or merge in a map")]
    Directive(String),
    /// An item of a keyed list without its key.
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoKey {
        /// The item.
        item: String,
        /// The key it should have.
        key: String,
    },
    /// `$retainKeys` that is not a list with all the keys of its patch.
    #[error("bad $retainKeys: {0}")]
    RetainKeys(String),
    /// A list directive whose value is not a list.
    #[error("{0} must be a list")]
    NotAList(String),
}

/// JSON merge patch: maps merge, null deletes, everything else replaces.
pub fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Some(map) = base.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.shift_remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Strategic merge patch: like [`merge`], but lists merge where the schema says so, and `$patch`, `$retainKeys`,
/// `$deleteFromPrimitiveList/...` and `$setElementOrder/...` steer it.
///
/// # Errors
/// If a directive is malformed or a list item lacks its key; `base` is then half patched and must be thrown away.
pub fn strategic(schema: &Schema, base: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        *base = patch.clone();
        return Ok(());
    };
    let mut map = match base.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    merge_map(&schema.tree, schema.root, &mut map, patch)?;
    *base = Value::Object(map);
    Ok(())
}

/// The values of a patch's directives in one map.
#[derive(Default)]
struct Directives<'a> {
    retain: Option<&'a Vec<Value>>,
    deletions: Map<String, Value>,
    orders: Map<String, Value>,
}

fn list_of<'a>(key: &str, value: &'a Value) -> Result<&'a Vec<Value>, PatchError> {
    value.as_array().ok_or_else(|| PatchError::NotAList(key.to_owned()))
}

fn directives(patch: &Map<String, Value>) -> Result<Directives<'_>, PatchError> {
    let mut found = Directives::default();
    for (key, value) in patch {
        if key == RETAIN_KEYS {
            found.retain = Some(list_of(key, value)?);
        } else if let Some(name) = key.strip_prefix(DELETE_FROM) {
            list_of(key, value)?;
            found.deletions.insert(name.to_owned(), value.clone());
        } else if let Some(name) = key.strip_prefix(ORDER) {
            list_of(key, value)?;
            found.orders.insert(name.to_owned(), value.clone());
        }
    }
    Ok(found)
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ORDER)
}

fn merge_map(
    tree: &Tree,
    id: Id,
    base: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE) {
        None => (),
        Some(Value::String(word)) if word == "merge" => (),
        Some(Value::String(word)) if word == "replace" => {
            *base = patch
                .iter()
                .filter(|(k, _)| *k != DIRECTIVE)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            return Ok(());
        }
        Some(Value::String(word)) if word == "delete" => {
            base.clear();
            return Ok(());
        }
        Some(other) => return Err(PatchError::Directive(other.to_string())),
    }
    let directives = directives(patch)?;
    if let Some(retain) = directives.retain {
        retain_keys(base, patch, retain)?;
    }
    let node = tree.node(id);
    for (name, value) in patch.iter().filter(|(k, _)| !is_directive(k)) {
        merge_member(tree, node, base, name, value, directives.orders.get(name))?;
    }
    for (name, order) in directives.orders.iter().filter(|(k, _)| !patch.contains_key(*k)) {
        let child = tree.node(node.member(name).unwrap_or(UNTYPED));
        if let (Some(Value::Array(list)), Some(order)) = (base.get_mut(name), order.as_array()) {
            let before = list.clone();
            reorder(child.patch.merge_key.as_deref(), list, &before, order);
        }
    }
    for (name, deleted) in &directives.deletions {
        if let (Some(Value::Array(list)), Some(deleted)) = (base.get_mut(name), deleted.as_array())
        {
            let deleted: HashSet<&Value> = deleted.iter().collect();
            list.retain(|item| !deleted.contains(item));
        }
    }
    Ok(())
}

fn merge_member(
    tree: &Tree,
    node: &Node,
    base: &mut Map<String, Value>,
    name: &str,
    value: &Value,
    order: Option<&Value>,
) -> Result<(), PatchError> {
    if value.is_null() {
        base.shift_remove(name);
        return Ok(());
    }
    let id = node.member(name).unwrap_or(UNTYPED);
    let child = tree.node(id);
    match (base.get_mut(name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => merge_map(tree, id, old, new)?,
        (Some(Value::Array(old)), Value::Array(new)) if child.patch.merge => {
            let before = merge_list(tree, child, old, new)?;
            if let Some(order) = order.and_then(Value::as_array) {
                reorder(child.patch.merge_key.as_deref(), old, &before, order);
            }
        }
        (_, new) => {
            let mut fresh = new.clone();
            clean(&mut fresh);
            base.insert(name.to_owned(), fresh);
        }
    }
    Ok(())
}

/// A field that meets nothing in the object: directives and deletions in it have no meaning.
fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, inner| !is_directive(key) && !inner.is_null());
            map.values_mut().for_each(clean);
        }
        Value::Array(list) => {
            list.retain(|item| item.get(DIRECTIVE).is_none_or(|word| word == "merge"));
            list.iter_mut().for_each(clean);
        }
        _ => (),
    }
}

/// A list item that meets nothing. Upstream adds it as it is, and what decodes it drops nulls and directives; an item in
/// it that asks for its own deletion is thereby added, too.
fn bare(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, inner| !is_directive(key) && !inner.is_null());
            map.values_mut().for_each(bare);
        }
        Value::Array(list) => list.iter_mut().for_each(bare),
        _ => (),
    }
}

fn retain_keys(
    base: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retain: &[Value],
) -> Result<(), PatchError> {
    if let Some(odd) = retain.iter().find(|k| !k.is_string()) {
        return Err(PatchError::RetainKeys(format!("{odd} is not a key")));
    }
    let kept = |key: &str| retain.iter().any(|k| k == key);
    for (key, value) in patch.iter().filter(|(k, _)| !is_directive(k)) {
        if !value.is_null() && !kept(key) {
            return Err(PatchError::RetainKeys(format!(
                "the patch sets {key:?}, which is not among the keys to retain"
            )));
        }
    }
    base.retain(|key, _| kept(key));
    Ok(())
}

/// Merges a list by its merge key, or as a set. Comes out: the order to compare with if the patch wants another one.
fn merge_list(
    tree: &Tree,
    list: &Node,
    base: &mut Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let before = base.clone();
    let Some(key) = list.patch.merge_key.as_deref() else {
        let mut there: HashSet<Value> = base.iter().cloned().collect();
        for item in patch {
            if there.insert(item.clone()) {
                base.push(item.clone());
            }
        }
        reorder(None, base, &before, patch);
        return Ok(before);
    };
    let fresh = special_items(key, base, patch)?;
    let Some(fresh) = fresh else { return Ok(before) };
    let element = list.items.unwrap_or(UNTYPED);
    let left = base.clone();
    let mut places = HashMap::with_capacity(base.len());
    for (at, name) in left.iter().enumerate().filter_map(|(at, old)| Some((at, old.get(key)?))) {
        places.entry(name).or_insert(at);
    }
    for item in &fresh {
        let wanted = key_of(key, item)?;
        let place = places.get(wanted).copied();
        match (place.map(|at| &mut base[at]), item) {
            (Some(Value::Object(old)), Value::Object(new)) => merge_map(tree, element, old, new)?,
            (Some(old), new) => *old = new.clone(),
            (None, new) => {
                let mut added = new.clone();
                bare(&mut added);
                places.insert(wanted, base.len());
                base.push(added);
            }
        }
    }
    // New items take the places of deleted ones in the order that counts as the one before.
    let known = base.iter().take(before.len()).cloned().collect();
    reorder(Some(key), base, &left, &fresh);
    Ok(known)
}

fn key_of<'a>(key: &str, item: &'a Value) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| PatchError::NoKey { item: item.to_string(), key: key.to_owned() })
}

/// Does what the items with a directive say. Comes out: the others, or `None` if they replaced the list.
fn special_items(
    key: &str,
    base: &mut Vec<Value>,
    patch: &[Value],
) -> Result<Option<Vec<Value>>, PatchError> {
    let mut others = Vec::new();
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => others.push(item.clone()),
            Some(word) if word == "delete" => {
                deleted.insert(key_of(key, item)?);
            }
            Some(word) if word == "replace" => replace = true,
            Some(word) => return Err(PatchError::Directive(word.to_string())),
        }
    }
    base.retain(|old| old.get(key).is_none_or(|name| !deleted.contains(name)));
    if replace {
        others.iter_mut().for_each(bare);
        *base = others;
        return Ok(None);
    }
    Ok(Some(others))
}

/// What tells an item of a list from the others: the value of its key, or all of it. Null without the key.
fn name_of<'a>(key: Option<&str>, item: &'a Value) -> &'a Value {
    key.map_or(item, |k| &item[k])
}

/// Where each name stands first.
fn places_of<'a>(key: Option<&str>, list: &'a [Value]) -> HashMap<&'a Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (at, item) in list.iter().enumerate() {
        places.entry(name_of(key, item)).or_insert(at);
    }
    places
}

/// Puts the items that `order` names into its order; the others keep their place relative to what was before them.
fn reorder(key: Option<&str>, list: &mut Vec<Value>, before: &[Value], order: &[Value]) {
    let order = places_of(key, order);
    let before = places_of(key, before);
    let place_in =
        |places: &HashMap<&Value, usize>, item: &Value| places.get(name_of(key, item)).copied();
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        list.drain(..).partition(|item| place_in(&order, item).is_some());
    named.sort_by_key(|item| place_in(&order, item));
    let mut others = others.into_iter().peekable();
    let mut named = named.into_iter().peekable();
    while let (Some(other), Some(wanted)) = (others.peek(), named.peek()) {
        let first = match (place_in(&before, other), place_in(&before, wanted)) {
            (Some(o), Some(w)) => o < w,
            _ => false,
        };
        list.extend(if first { others.next() } else { named.next() });
    }
    list.extend(named);
    list.extend(others);
}
