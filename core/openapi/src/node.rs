//! The compiled form of a schema: small nodes in one vector, references resolved to indexes.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

/// Index of a node in its [`Tree`].
pub(crate) type Id = u32;

/// Any value at all; maps below it merge by key, lists and scalars are replaced whole.
pub(crate) const DEDUCED: Id = 0;
/// Any value at all, replaced whole.
pub(crate) const UNTYPED: Id = 1;

/// The JSON types that a node admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// A number or a string such as `100m` or `1Gi`.
    Quantity,
}

/// How the items of a list are told apart when several writers own parts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Box<[Box<str>]>),
}

/// What a strategic merge patch does at a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PatchFacts {
    pub(crate) merge: bool,
    pub(crate) retain_keys: bool,
    pub(crate) merge_key: Option<Box<str>>,
}

/// The rules that only validation looks at; most nodes have none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) one_of_values: Vec<Value>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) items: (Option<u64>, Option<u64>),
    pub(crate) properties: (Option<u64>, Option<u64>),
    pub(crate) unique: bool,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) format: Option<Box<str>>,
    pub(crate) all_of: Vec<Id>,
    pub(crate) any_of: Vec<Id>,
    pub(crate) one_of: Vec<Id>,
    pub(crate) not: Option<Id>,
}

/// A regular expression, compiled when it is first needed.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    pub(crate) compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// A pattern that does not compile matches everything: it was refused when its schema was written, or is upstream's.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let regex = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        regex.as_ref().is_none_or(|r| r.is_match(text))
    }
}

/// One schema, or one place in it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) types: Type,
    pub(crate) nullable: bool,
    /// Fields that the schema does not name are kept.
    pub(crate) keeps_unknown: bool,
    /// A whole object with its own `apiVersion`, `kind` and `metadata`.
    pub(crate) embedded: bool,
    /// Sorted by name.
    pub(crate) fields: Vec<(Box<str>, Id)>,
    /// The schema of entries that `fields` does not name, where a schema says so.
    pub(crate) extra: Option<Id>,
    /// The node that field ownership uses for such entries: `extra`, or a guess from the value.
    pub(crate) unnamed: Option<Id>,
    pub(crate) items: Option<Id>,
    pub(crate) required: Vec<Box<str>>,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListType,
    pub(crate) atomic_map: bool,
    pub(crate) patch: PatchFacts,
    pub(crate) rules: Option<Box<Rules>>,
}

impl Node {
    pub(crate) fn any(atomic_map: bool, inner: Id) -> Self {
        Self {
            types: Type::Any,
            nullable: true,
            keeps_unknown: true,
            embedded: false,
            fields: Vec::new(),
            extra: None,
            unnamed: Some(inner),
            items: Some(UNTYPED),
            required: Vec::new(),
            default: None,
            list: ListType::Atomic,
            atomic_map,
            patch: PatchFacts::default(),
            rules: None,
        }
    }

    /// The node of a field that the schema names.
    pub(crate) fn field(&self, name: &str) -> Option<Id> {
        let at = self.fields.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        Some(self.fields[at].1)
    }

    /// The node of any key of a map, named or not.
    pub(crate) fn member(&self, name: &str) -> Option<Id> {
        self.field(name).or(self.unnamed)
    }

    /// How field ownership walks `value` at this node.
    pub(crate) fn shape(&self, value: &Value) -> Shape {
        match self.types {
            Type::Object => Shape::Map,
            Type::Array => Shape::List,
            Type::Any => match value {
                Value::Object(_) | Value::Null => Shape::Map,
                Value::Array(_) => Shape::List,
                _ => Shape::Scalar,
            },
            _ => Shape::Scalar,
        }
    }

    /// Whether a value of this shape belongs to one owner as a whole.
    pub(crate) fn is_atomic(&self, shape: Shape) -> bool {
        match shape {
            Shape::Map => self.atomic_map,
            Shape::List => self.list == ListType::Atomic,
            Shape::Scalar => true,
        }
    }
}

/// The three ways in which ownership looks at a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Map,
    List,
    Scalar,
}

/// All nodes of one set of definitions.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
}

impl Tree {
    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }
}
