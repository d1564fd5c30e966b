//! The shape of a resource's objects: unknown fields, pruning, defaults, validation.

use serde_json::Value;

use crate::status::Cause;

/// Where the schema of a resource comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    kind: String,
    custom: Option<Value>,
}

impl Shape {
    pub(crate) fn builtin(_group: &str, _version: &str, kind: &str) -> Self {
        Self { kind: kind.into(), custom: None }
    }

    pub(crate) fn calico(kind: &str) -> Self {
        Self { kind: kind.into(), custom: None }
    }

    pub(crate) fn custom(schema: &Value) -> Self {
        Self { kind: String::new(), custom: Some(schema.clone()) }
    }

    pub(crate) fn unknown_fields(&self, _object: &Value) -> Vec<String> {
        let _ = (&self.kind, &self.custom);
        Vec::new()
    }

    pub(crate) fn complete(&self, _object: &mut Value) {}

    pub(crate) fn validate(&self, _object: &Value) -> Vec<Cause> {
        Vec::new()
    }
}
