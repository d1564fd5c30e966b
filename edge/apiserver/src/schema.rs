//! The shape of a resource's objects: unknown fields, pruning, defaults, validation.

use openapi::Schema;
use serde_json::Value;

use crate::status::Cause;

/// What is known about the objects of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) schema: Option<Schema>,
    /// Its rules beyond the schema, if it is one of Calico's.
    pub(crate) calico: Option<&'static api::Kind>,
}

impl Shape {
    /// Paths of fields that the schema does not have.
    pub(crate) fn unknown_fields(&self, object: &Value) -> Vec<String> {
        self.schema.as_ref().map(|s| s.unknown_fields(object)).unwrap_or_default()
    }

    /// Drops what the schema does not have and fills in its defaults. An object of Calico's that has had such
    /// fields `before` keeps them: a newer program has written them.
    pub(crate) fn complete(&self, object: &mut Value, before: Option<&Value>) {
        if let Some(schema) = &self.schema {
            let newer = before.is_some_and(|before| self.is_newer(schema, before));
            schema.normalize(object);
            if !newer {
                schema.prune(object);
            }
            schema.default(object);
        }
        if let Some(kind) = self.calico {
            kind.default(object);
        }
    }

    /// Whether an object of Calico's has fields that the schema does not have.
    fn is_newer(&self, schema: &Schema, object: &Value) -> bool {
        self.calico.is_some() && !schema.unknown_fields(object).is_empty()
    }

    /// What is wrong with a completed object that replaces `old`.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Some(schema) = &self.schema else { return Vec::new() };
        let cause = |error: openapi::FieldError| Cause {
            reason: error.reason.to_owned(),
            field: if error.field.is_empty() { "<nil>".to_owned() } else { error.field },
            message: error.message,
        };
        let mut causes: Vec<_> = schema.validate(object).into_iter().map(cause).collect();
        let rules = self.calico.map(|kind| kind.validate(object, old)).unwrap_or_default();
        let newer = old.is_some_and(|old| self.is_newer(schema, old));
        let kept = if newer { schema.unknown_fields(object) } else { Vec::new() };
        for rule in rules.into_iter().filter(|rule| !kept.contains(&rule.field)) {
            if !causes.iter().any(|cause| cause.field == rule.field) {
                causes.push(Cause::invalid(rule.field, format!("Invalid value: {}", rule.message)));
            }
        }
        causes
    }
}
