//! Sets of field paths, and their `FieldsV1` form.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::node::{Id, Tree, UNTYPED};

/// A JSON value with a total order, so that it can be part of a key.
#[derive(Debug, Clone)]
pub(crate) struct Scalar(pub(crate) Value);

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scalar {}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A field or a map key.
    Field(Box<str>),
    /// An item of a keyed list; the keys are sorted by name.
    Key(Vec<(Box<str>, Scalar)>),
    /// An item of a set.
    Value(Scalar),
    /// An item by its place; never written here, but understood.
    Index(u64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", v.0)).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Step::Value(value) => write!(f, "[={}]", value.0),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

impl Step {
    fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(keys) => {
                let keys: Map<String, Value> =
                    keys.iter().map(|(k, v)| (k.to_string(), v.0.clone())).collect();
                format!("k:{}", Value::Object(keys))
            }
            Step::Value(value) => format!("v:{}", value.0),
            Step::Index(i) => format!("i:{i}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, content) = text.split_once(':')?;
        Some(match kind {
            "f" => Step::Field(content.into()),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(content).ok()?;
                let mut keys: Vec<_> =
                    keys.into_iter().map(|(k, v)| (k.into(), Scalar(v))).collect();
                keys.sort();
                Step::Key(keys)
            }
            "v" => Step::Value(Scalar(serde_json::from_str(content).ok()?)),
            "i" => Step::Index(content.parse().ok()?),
            _ => return None,
        })
    }
}

/// A path as the API writes it: `.spec.ports[port=80].name`.
pub(crate) fn show(path: &[Step]) -> String {
    path.iter().map(Step::to_string).collect()
}

/// A set of paths: those that end here, and those that go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    members: BTreeSet<Step>,
    children: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    pub(crate) fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let steps: Vec<Step> = path.iter().map(|name| Step::Field((*name).into())).collect();
            set.insert(&steps);
        }
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(FieldSet::is_empty)
    }

    /// Inserts a path; the empty one, which is the whole object, is nobody's.
    pub(crate) fn insert(&mut self, path: &[Step]) {
        match path {
            [] => (),
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether the path of one step is in the set.
    pub(crate) fn has(&self, step: &Step) -> bool {
        self.members.contains(step)
    }

    /// The paths that go on after `step`.
    pub(crate) fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.children.get(step).filter(|set| !set.is_empty())
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut children = self.children.clone();
        for (step, theirs) in &other.children {
            let merged =
                children.get(step).map_or_else(|| theirs.clone(), |ours| ours.union(theirs));
            children.insert(step.clone(), merged);
        }
        Self { members: &self.members | &other.members, children }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let common = |(step, ours): (&Step, &Self)| {
            let both = ours.intersection(other.children.get(step)?);
            (!both.is_empty()).then(|| (step.clone(), both))
        };
        Self {
            members: &self.members & &other.members,
            children: self.children.iter().filter_map(common).collect(),
        }
    }

    /// The paths that are not, as such, in `other`: a path in `other` does not take those below it along.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let left = |(step, ours): (&Step, &Self)| {
            let rest = other
                .children
                .get(step)
                .map_or_else(|| ours.clone(), |theirs| ours.difference(theirs));
            (!rest.is_empty()).then(|| (step.clone(), rest))
        };
        Self {
            members: &self.members - &other.members,
            children: self.children.iter().filter_map(left).collect(),
        }
    }

    /// Like [`FieldSet::difference`], but a path in `other` takes everything below it along.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let left = |(step, ours): (&Step, &Self)| {
            if other.members.contains(step) {
                return None;
            }
            let rest = other
                .children
                .get(step)
                .map_or_else(|| ours.clone(), |theirs| ours.without(theirs));
            (!rest.is_empty()).then(|| (step.clone(), rest))
        };
        Self {
            members: &self.members - &other.members,
            children: self.children.iter().filter_map(left).collect(),
        }
    }

    /// Adds the named fields of structures that only lead to a path: who owns `.spec.x` has a say in `.spec`.
    pub(crate) fn with_named_parents(&self, tree: &Tree, id: Id) -> Self {
        let node = tree.node(id);
        let mut members = self.members.clone();
        let mut children = BTreeMap::new();
        for (step, set) in &self.children {
            let child = match step {
                Step::Field(name) => {
                    if node.field(name).is_some() {
                        members.insert(step.clone());
                    }
                    node.member(name)
                }
                Step::Key(_) => node.items,
                _ => None,
            };
            children.insert(step.clone(), set.with_named_parents(tree, child.unwrap_or(UNTYPED)));
        }
        Self { members, children }
    }

    /// Paths below a value that belongs to one owner as a whole (it may not always have) become the path of the value.
    pub(crate) fn collapsed(&self, tree: &Tree, id: Id) -> Self {
        let node = tree.node(id);
        let mut out = Self { members: self.members.clone(), children: BTreeMap::new() };
        for (step, set) in &self.children {
            let child = match step {
                Step::Field(name) => node.member(name),
                Step::Key(_) => node.items,
                _ => None,
            };
            let Some(child) = child else {
                out.children.insert(step.clone(), set.clone());
                continue;
            };
            let inner = tree.node(child);
            let whole = match inner.types {
                crate::node::Type::Object => inner.atomic_map,
                crate::node::Type::Array => inner.list == crate::node::ListType::Atomic,
                _ => false,
            };
            if whole && !set.is_empty() {
                out.members.insert(step.clone());
            } else {
                out.children.insert(step.clone(), set.collapsed(tree, child));
            }
        }
        out
    }

    /// Every path, the short ones of a level first.
    pub(crate) fn paths(&self) -> Vec<Vec<Step>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
        for step in &self.members {
            out.push(prefix.iter().chain([step]).cloned().collect());
        }
        for (step, set) in &self.children {
            prefix.push(step.clone());
            set.collect(prefix, out);
            prefix.pop();
        }
    }

    /// The `FieldsV1` form.
    pub(crate) fn to_fields(&self) -> Value {
        let steps: BTreeSet<&Step> = self.members.iter().chain(self.children.keys()).collect();
        let mut out = Map::new();
        for step in steps {
            let mut inner = Map::new();
            if let Some(set) = self.below(step) {
                if self.members.contains(step) {
                    inner.insert(".".to_owned(), Value::Object(Map::new()));
                }
                if let Value::Object(fields) = set.to_fields() {
                    inner.extend(fields);
                }
            } else if !self.members.contains(step) {
                continue;
            }
            out.insert(step.encode(), Value::Object(inner));
        }
        Value::Object(out)
    }

    /// Reads the `FieldsV1` form.
    pub(crate) fn from_fields(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, inner) in fields.as_object()? {
            if key == "." {
                continue;
            }
            let step = Step::decode(key)?;
            let object = inner.as_object()?;
            if object.is_empty() || object.contains_key(".") {
                set.members.insert(step.clone());
            }
            if object.keys().any(|k| k != ".") {
                set.children.insert(step, Self::from_fields(inner)?);
            }
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_survive_the_round_trip() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:list": {"i:3": {}}},
        });
        assert_eq!(FieldSet::from_fields(&fields).unwrap().to_fields(), fields);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            json!({"x": {}}),
            json!({"k:[1]": {}}),
            json!({"f:a": 1}),
            json!([]),
            json!({"i:x": {}}),
        ] {
            assert!(FieldSet::from_fields(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_shorter_path_takes_longer_ones_along_only_if_asked() {
        let set = FieldSet::of(&[&["a"], &["a", "b"], &["c"]]);
        assert_eq!(set.difference(&FieldSet::of(&[&["a"]])), FieldSet::of(&[&["a", "b"], &["c"]]));
        assert_eq!(set.without(&FieldSet::of(&[&["a"]])), FieldSet::of(&[&["c"]]));
    }
}
