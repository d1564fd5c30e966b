//! The registry of schemas, and the operations on one object.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::compile::Compiler;
use crate::node::{Id, Tree};
use crate::{validate, walk};

/// The built-in definitions as they are committed: version, kinds with a status of their own, definitions.
const BUILTIN: &str = include_str!("../data/builtin.json");

/// Group, version and kind.
pub(crate) type Gvk = (String, String, String);

/// What is wrong with one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where: `spec.containers[0].name`; empty for the object itself.
    pub field: String,
    /// The API's reason code, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// What is wrong and what was wanted.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        write!(f, "{field}: {}", self.message)
    }
}

/// The built-in kinds, compiled once per process.
struct Builtin {
    tree: Arc<Tree>,
    roots: BTreeMap<Gvk, (Id, bool)>,
    /// The definitions of the meta types, for schemas that are added later.
    meta: Map<String, Value>,
}

#[derive(serde::Deserialize)]
struct Source<'a> {
    status: Vec<String>,
    #[serde(borrow)]
    definitions: &'a RawValue,
}

fn source() -> Source<'static> {
    serde_json::from_str(BUILTIN).expect("the committed definitions are well-formed")
}

fn compile_builtin() -> Builtin {
    let source = source();
    let definitions: Map<String, Value> = serde_json::from_str(source.definitions.get())
        .expect("the committed definitions are well-formed");
    let mut compiler = Compiler::new(&definitions);
    let mut roots = BTreeMap::new();
    for (name, definition) in &definitions {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
        for kind in kinds {
            let part = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
            let gvk = (part("group"), part("version"), part("kind"));
            let status = source.status.contains(&format!("{}/{}/{}", gvk.0, gvk.1, gvk.2));
            roots.insert(gvk, (compiler.named(name), status));
        }
    }
    let tree = Arc::new(compiler.finish());
    let meta = definitions
        .into_iter()
        .filter(|(name, _)| name.starts_with("io.k8s.apimachinery.pkg.apis.meta.v1."))
        .collect();
    Builtin { tree, roots, meta }
}

fn builtin() -> &'static Builtin {
    static COMPILED: OnceLock<Builtin> = OnceLock::new();
    COMPILED.get_or_init(compile_builtin)
}

/// The built-in definitions as text, for the documents.
pub(crate) fn builtin_definitions() -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(source().definitions.get())
        .expect("the committed definitions are well-formed")
}

/// A schema that was added at run time.
#[derive(Debug, Clone)]
pub(crate) struct Added {
    pub(crate) source: Arc<Value>,
    tree: Arc<Tree>,
    root: Id,
    status: bool,
}

/// All schemas that a server knows: the built-in ones, which every copy shares, and those added.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    pub(crate) added: BTreeMap<Gvk, Added>,
}

impl Schemas {
    /// The kinds of Kubernetes' own that the embedded API serves.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Adds the schema of a kind, or replaces it. `metadata` is taken to be the standard one, whatever it says.
    pub fn add(&mut self, group: &str, version: &str, kind: &str, schema: Value) {
        self.insert(group, version, kind, schema, false);
    }

    /// Like [`Schemas::add`], for a kind whose `status` has an endpoint of its own: writers of the rest do not own it.
    pub fn add_with_status(&mut self, group: &str, version: &str, kind: &str, schema: Value) {
        self.insert(group, version, kind, schema, true);
    }

    fn insert(&mut self, group: &str, version: &str, kind: &str, schema: Value, status: bool) {
        let mut definitions = builtin().meta.clone();
        for key in ["$defs", "definitions"] {
            if let Some(own) = schema[key].as_object() {
                definitions.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        let mut compiler = Compiler::new(&definitions);
        let root = compiler.root(&schema);
        let added =
            Added { source: Arc::new(schema), tree: Arc::new(compiler.finish()), root, status };
        self.added.insert((group.to_owned(), version.to_owned(), kind.to_owned()), added);
    }

    /// Forgets a schema that was added.
    pub fn remove(&mut self, group: &str, version: &str, kind: &str) {
        self.added.remove(&(group.to_owned(), version.to_owned(), kind.to_owned()));
    }

    /// The schema of a kind. One that was added comes before a built-in one.
    pub fn for_kind(&self, group: &str, version: &str, kind: &str) -> Option<Schema> {
        let gvk = (group.to_owned(), version.to_owned(), kind.to_owned());
        if let Some(added) = self.added.get(&gvk) {
            let Added { tree, root, status, .. } = added;
            return Some(Schema {
                tree: tree.clone(),
                root: *root,
                status: *status,
                builtin: false,
            });
        }
        let (root, status) = builtin().roots.get(&gvk)?;
        Some(Schema { tree: builtin().tree.clone(), root: *root, status: *status, builtin: true })
    }
}

/// The schema of one kind. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(crate) tree: Arc<Tree>,
    pub(crate) root: Id,
    pub(crate) status: bool,
    pub(crate) builtin: bool,
}

impl Schema {
    /// Whether `status` has an endpoint of its own.
    pub fn has_status(&self) -> bool {
        self.status
    }

    /// Whether the kind is one of Kubernetes' own.
    pub fn is_builtin(&self) -> bool {
        self.builtin
    }

    /// The fields of `object` that the schema does not know, as `spec.containers[0].imagee`.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        walk::unknown(&self.tree, self.root, object)
    }

    /// Removes what [`Schema::unknown_fields`] names.
    pub fn prune(&self, object: &mut Value) {
        walk::prune(&self.tree, self.root, object);
    }

    /// Fills in defaults, in objects that are there; it makes no object for the sake of a default inside it.
    pub fn default(&self, object: &mut Value) {
        walk::default(&self.tree, self.root, object);
    }

    /// Writes the object as it is stored: without fields that are null where null means no more than "absent", and with
    /// quantities as text (a client may write `cpu: 1`).
    pub fn normalize(&self, object: &mut Value) {
        walk::normalize(&self.tree, self.root, object, self.builtin);
    }

    /// Everything that is wrong with the object, in the order of its fields.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate::object(&self.tree, self.root, object, self.builtin)
    }
}
