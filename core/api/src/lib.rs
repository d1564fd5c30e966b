//! The resources that users write: types, defaults, validation, conversion to the model.
//!
//! Goes in: YAML and JSON ([`yaml`]), and objects as the API serves them. Comes out: typed objects
//! ([`v3`], [`cluster_policy`], [`operator`]), every error of an object with its field path ([`Kind::validate`]), filled
//! in defaults ([`Kind::default`]), structural schemas ([`Kind::schema`]), CustomResourceDefinitions ([`definitions()`]), and what the calculation
//! works on ([`convert`]).
//!
//! Invariants: field names are exactly those of `projectcalico.org/v3` and its neighbours; an object that validates
//! without error converts without error; what is malformed converts to something that lets less
//! through, never more.
//!
//! Deliberately absent: I/O, the API server's machinery (patches, field ownership), Windows and
//! OpenStack fields' meaning.
//!
//! Start reading at [`kinds`], then [`validate`](crate::Kind::validate).

mod admission;
mod defaults;
mod definitions;
mod kinds;
mod kubernetes;
mod meta;
mod names;
mod schema;
mod validate;
mod value;

pub mod cluster_policy;
pub mod convert;
pub mod installation;
pub mod net;
pub mod operator;
pub mod v3;
pub mod yaml;

pub use admission::{TIERED, admission_policies};
pub use defaults::TIER_LABEL;
pub use definitions::{Layout, definitions};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use kinds::{Column, Kind, Source, by_word, kinds, lookup};
pub use meta::{Cluster, Namespaced, NoStatus, Object, Spec};
pub use value::NumOrString;

use serde::{Deserialize, Serialize};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldError {
    /// Where: `spec.ingress[0].destination.ports[0]`.
    pub field: String,
    /// What is wrong, and what was wanted.
    pub message: String,
}

impl FieldError {
    /// An error at a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same error, with the field below `parent`.
    #[must_use]
    pub fn below(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), ..self }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

/// Every error of an object of any kind in [`kinds`], the type itself included.
///
/// `old` is the object that it replaces.
pub fn validate(object: &serde_json::Value, old: Option<&serde_json::Value>) -> Vec<FieldError> {
    match kind_of(object) {
        Ok(kind) => kind.validate(object, old),
        Err(errors) => errors,
    }
}

/// The kind of an object.
///
/// # Errors
/// When `apiVersion` or `kind` is missing or unknown.
pub fn kind_of(object: &serde_json::Value) -> Result<&'static Kind, Vec<FieldError>> {
    validate::kind_of(object)
}
