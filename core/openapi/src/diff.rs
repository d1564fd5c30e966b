//! What field ownership does with one or two objects beside their schema: collect, compare, merge, remove.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::fieldset::{FieldSet, Scalar, Step, show};
use crate::node::{Id, ListType, Node, Shape, Tree, UNTYPED};
use crate::validate::fits;

/// What changed between two objects.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

impl Comparison {
    pub(crate) fn written(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

fn entries(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// Numbers are equal by value: 1 and 1.0 are one.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Scalar(a.clone()) == Scalar(b.clone()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// How an item of a list is named: by its keys, with defaults for those it leaves out, or by its value.
pub(crate) fn item_step(tree: &Tree, list: &Node, item: &Value) -> Result<Step, String> {
    let ListType::Map(keys) = &list.list else {
        return match item {
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err("an item of a set must be a plain value".to_owned())
            }
            _ => Ok(Step::Value(Scalar(item.clone()))),
        };
    };
    let Some(map) = item.as_object() else {
        return Err("an item of a keyed list must be an object".to_owned());
    };
    let element = tree.node(list.items.unwrap_or(UNTYPED));
    let mut found: Vec<(Box<str>, Scalar)> = Vec::with_capacity(keys.len());
    for key in keys {
        let default = || tree.node(element.field(key)?).default.as_ref();
        if let Some(value) = map.get(&**key).or_else(default) {
            found.push((key.clone(), Scalar(value.clone())));
        }
    }
    if found.is_empty() {
        return Err(format!("an item of a keyed list has none of its keys ({})", keys.join(", ")));
    }
    found.sort();
    Ok(Step::Key(found))
}

fn child_of(node: &Node, key: &str) -> Id {
    node.member(key).unwrap_or(UNTYPED)
}

/// Checks that an applied object can be owned field by field: known fields, right types, no item twice.
pub(crate) fn check(
    tree: &Tree,
    id: Id,
    value: &Value,
    path: &mut Vec<Step>,
) -> Result<(), String> {
    let node = tree.node(id);
    if value.is_null() {
        return Ok(());
    }
    if !fits(node.types, value) {
        return Err(format!("{}: the value {value} is of the wrong type", show(path)));
    }
    match value {
        Value::Object(map) if !node.atomic_map => {
            for (key, inner) in map {
                path.push(Step::Field(key.as_str().into()));
                let Some(child) = node.member(key) else {
                    return Err(format!("{}: field not declared in schema", show(path)));
                };
                check(tree, child, inner, path)?;
                path.pop();
            }
        }
        Value::Array(list) if node.list != ListType::Atomic => {
            let mut seen = BTreeSet::new();
            for item in list {
                let step =
                    item_step(tree, node, item).map_err(|e| format!("{}: {e}", show(path)))?;
                path.push(step.clone());
                if !seen.insert(step) {
                    return Err(format!("{}: duplicate entries for key", show(path)));
                }
                check(tree, node.items.unwrap_or(UNTYPED), item, path)?;
                path.pop();
            }
        }
        _ => (),
    }
    Ok(())
}

/// The fields that an object sets.
pub(crate) fn fields_of(tree: &Tree, id: Id, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(tree, id, value, &mut Vec::new(), &mut set);
    set
}

fn collect(tree: &Tree, id: Id, value: &Value, path: &mut Vec<Step>, set: &mut FieldSet) {
    let node = tree.node(id);
    let shape = node.shape(value);
    if node.is_atomic(shape) {
        set.insert(path);
        return;
    }
    match (shape, value) {
        (Shape::Map, Value::Object(map)) => {
            for (key, inner) in map {
                path.push(Step::Field(key.as_str().into()));
                collect(tree, child_of(node, key), inner, path, set);
                let hollow_map = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                if hollow_map || node.field(key).is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Shape::List, Value::Array(list)) => {
            for item in list {
                let Ok(step) = item_step(tree, node, item) else { continue };
                path.push(step);
                collect(tree, node.items.unwrap_or(UNTYPED), item, path, set);
                set.insert(path);
                path.pop();
            }
        }
        _ => (),
    }
}

struct Comparer<'a> {
    tree: &'a Tree,
    path: Vec<Step>,
    out: Comparison,
}

fn is_metadata(path: &[Step]) -> bool {
    matches!(path, [Step::Field(name)] if &**name == "metadata")
}

/// Compares two objects field by field, but for who owns their fields.
pub(crate) fn compare(tree: &Tree, id: Id, old: &Value, new: &Value) -> Comparison {
    let mut comparer = Comparer { tree, path: Vec::new(), out: Comparison::default() };
    comparer.visit(id, Some(old), Some(new));
    comparer.out
}

impl Comparer<'_> {
    fn visit(&mut self, id: Id, old: Option<&Value>, new: Option<&Value>) {
        if let (Some(old), Some(new)) = (old, new)
            && same(old, new)
        {
            return;
        }
        let node = self.tree.node(id);
        let (was, is) = (old.map(|v| node.shape(v)), new.map(|v| node.shape(v)));
        let Some(shape) = is.or(was) else { return };
        let mixed = was.is_some_and(|w| w != shape);
        let leaf = mixed || node.is_atomic(shape) || (is_hollow(old) && is_hollow(new));
        match (old, new) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            (Some(_), Some(_)) if leaf => {
                self.out.modified.insert(&self.path);
            }
            _ => (),
        }
        if mixed && !node.atomic_map {
            // A map that becomes something else (or the reverse) loses (or gains) its entries besides.
            self.map(node, entries(old), entries(new));
        }
        match shape {
            _ if leaf => (),
            Shape::Map => self.map(node, entries(old), entries(new)),
            Shape::List => self.list(node, items(old), items(new)),
            Shape::Scalar => (),
        }
    }

    fn step(&mut self, step: Step, id: Id, old: Option<&Value>, new: Option<&Value>) {
        self.path.push(step);
        self.visit(id, old, new);
        self.path.pop();
    }

    fn map(
        &mut self,
        node: &Node,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
    ) {
        let about_owners = |path: &[Step], key: &str| key == "managedFields" && is_metadata(path);
        for (key, was) in old.into_iter().flatten() {
            if about_owners(&self.path, key) {
                continue;
            }
            let is = new.and_then(|m| m.get(key));
            self.step(Step::Field(key.as_str().into()), child_of(node, key), Some(was), is);
        }
        for (key, is) in new.into_iter().flatten() {
            if old.is_none_or(|m| !m.contains_key(key)) && !about_owners(&self.path, key) {
                self.step(Step::Field(key.as_str().into()), child_of(node, key), None, Some(is));
            }
        }
    }

    /// Items that occur more than once (which only lists written without ownership have) are one thing together.
    fn list(&mut self, node: &Node, old: &[Value], new: &[Value]) {
        let mut groups: BTreeMap<Step, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(step) = item_step(self.tree, node, item) {
                groups.entry(step).or_default().0.push(item);
            }
        }
        for item in new {
            if let Ok(step) = item_step(self.tree, node, item) {
                groups.entry(step).or_default().1.push(item);
            }
        }
        let element = node.items.unwrap_or(UNTYPED);
        for (step, (was, is)) in groups {
            match (&was[..], &is[..]) {
                ([] | [_], [] | [_]) => {
                    self.step(step, element, was.first().copied(), is.first().copied());
                }
                ([_, _, ..], [_, _, ..]) => {
                    if was.len() != is.len() || !was.iter().zip(&is).all(|(a, b)| same(a, b)) {
                        self.path.push(step);
                        self.out.modified.insert(&self.path);
                        self.path.pop();
                    }
                }
                (_, [_, _, ..]) => {
                    if let Some(single) = was.first() {
                        self.step(step.clone(), element, Some(single), None);
                    }
                    self.path.push(step);
                    self.out.added.insert(&self.path);
                    self.path.pop();
                }
                _ => {
                    if let Some(single) = is.first() {
                        self.step(step.clone(), element, None, Some(single));
                    }
                    self.path.push(step);
                    self.out.removed.insert(&self.path);
                    self.path.pop();
                }
            }
        }
    }
}

/// Lays `over` on top of `base`: maps and keyed lists by their parts, everything else whole.
pub(crate) fn merge(
    tree: &Tree,
    id: Id,
    base: Option<&Value>,
    over: Option<&Value>,
) -> Option<Value> {
    let node = tree.node(id);
    let shape = node.shape(over.or(base)?);
    let mixed = base.is_some_and(|b| node.shape(b) != shape);
    if mixed || node.is_atomic(shape) || (is_hollow(base) && is_hollow(over)) {
        return over.or(base).cloned();
    }
    match shape {
        Shape::Map => Some(Value::Object(merge_maps(tree, node, entries(base), entries(over)))),
        Shape::List => Some(Value::Array(merge_lists(tree, node, items(base), items(over)))),
        Shape::Scalar => over.or(base).cloned(),
    }
}

fn merge_maps(
    tree: &Tree,
    node: &Node,
    base: Option<&Map<String, Value>>,
    over: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in base.into_iter().flatten() {
        let above = over.and_then(|m| m.get(key));
        if let Some(merged) = merge(tree, child_of(node, key), Some(value), above) {
            out.insert(key.clone(), merged);
        }
    }
    for (key, value) in over.into_iter().flatten() {
        if base.is_none_or(|m| !m.contains_key(key))
            && let Some(merged) = merge(tree, child_of(node, key), None, Some(value))
        {
            out.insert(key.clone(), merged);
        }
    }
    out
}

/// The order of the result: items that only one side has stay where they stand beside their neighbours, and shared items
/// come in the order of `over`.
fn merge_lists(tree: &Tree, node: &Node, base: &[Value], over: &[Value]) -> Vec<Value> {
    let steps = |list: &[Value]| -> Vec<Option<Step>> {
        list.iter().map(|i| item_step(tree, node, i).ok()).collect()
    };
    let (left, right) = (steps(base), steps(over));
    // An item that stands twice in `base` cannot be merged with, only replaced: it has no place.
    let mut places: BTreeMap<&Option<Step>, Option<usize>> = BTreeMap::new();
    for (at, step) in left.iter().enumerate() {
        places.entry(step).and_modify(|place| *place = None).or_insert(Some(at));
    }
    let above: BTreeSet<&Option<Step>> = right.iter().collect();
    let in_left = |step: &Option<Step>| places.contains_key(step);
    let in_right = |step: &Option<Step>| above.contains(step);
    let element = node.items.unwrap_or(UNTYPED);
    let base_item = |step: &Option<Step>| places.get(step).copied().flatten().map(|at| &base[at]);
    let merged = |at: usize| merge(tree, element, base_item(&right[at]), Some(&over[at]));
    let mut shared = right.iter().filter(|s| in_left(s)).peekable();
    let mut done: BTreeSet<&Option<Step>> = BTreeSet::new();
    let mut out = Vec::with_capacity(base.len().max(over.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                done.insert(&right[r]);
                out.extend(merged(r));
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if in_right(&left[l]) && shared.peek().is_some_and(|next| **next != left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            if !in_right(&left[l]) {
                out.push(base[l].clone());
                l += 1;
                continue;
            }
            if done.contains(&left[l]) {
                l += 1;
            }
        }
        if r < right.len() {
            done.insert(&right[r]);
            out.extend(merged(r));
            if shared.peek().is_some_and(|next| **next == right[r]) {
                shared.next();
            }
            r += 1;
        }
    }
    out
}

/// The object without the fields of `set`. A map or list that loses its last entry becomes null.
pub(crate) fn remove(tree: &Tree, id: Id, value: &Value, set: &FieldSet) -> Value {
    let node = tree.node(id);
    let shape = node.shape(value);
    if shape == Shape::Scalar {
        return value.clone();
    }
    if is_hollow(Some(value)) || node.is_atomic(shape) {
        return Value::Null;
    }
    let kept = |step: &Step, child: Id, inner: &Value| -> Option<Value> {
        if set.has(step) {
            return None;
        }
        Some(
            set.below(step)
                .map_or_else(|| inner.clone(), |below| remove(tree, child, inner, below)),
        )
    };
    match value {
        Value::Object(map) => {
            let entries = map.iter().filter_map(|(key, inner)| {
                let step = Step::Field(key.as_str().into());
                Some((key.clone(), kept(&step, child_of(node, key), inner)?))
            });
            let left: Map<String, Value> = entries.collect();
            if left.is_empty() { Value::Null } else { Value::Object(left) }
        }
        Value::Array(list) => {
            let element = node.items.unwrap_or(UNTYPED);
            let left: Vec<Value> = list
                .iter()
                .filter_map(|item| match item_step(tree, node, item) {
                    Ok(step) => kept(&step, element, item),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            if left.is_empty() { Value::Null } else { Value::Array(left) }
        }
        other => other.clone(),
    }
}
