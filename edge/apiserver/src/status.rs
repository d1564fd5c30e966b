//! Errors as the wire shows them: `Status` objects with code, reason, details and causes.

use serde_json::{Value, json};

use crate::storage::StorageError;

/// A refusal. Becomes a `Status` of kind `Failure`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Value,
}

/// One reason of an `Invalid` refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: "FieldValueInvalid".into(), field: field.into(), message: message.into() }
    }

    pub(crate) fn required(field: impl Into<String>, message: &str) -> Self {
        let message = match message {
            "" => "Required value".to_owned(),
            text => format!("Required value: {text}"),
        };
        Self { reason: "FieldValueRequired".into(), field: field.into(), message }
    }
}

/// The result of most of this crate.
pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// The path is no resource of ours.
    pub(crate) fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// A path that a larger API server has; `instead` says what to use here.
    pub(crate) fn not_served(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            404 => "NotFound",
            405 => "MethodNotAllowed",
            _ => "NotImplemented",
        };
        Self::new(code, reason, message)
    }

    pub(crate) fn not_found(resource: &str, group: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(resource, group)))
            .with_details(details(resource, group, name))
    }

    pub(crate) fn exists(resource: &str, group: &str, name: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(409, "AlreadyExists", format!("{what} \"{name}\" already exists"))
            .with_details(details(resource, group, name))
    }

    pub(crate) fn conflict(resource: &str, group: &str, name: &str, why: &str) -> Self {
        let what = qualified(resource, group);
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        Self::new(409, "Conflict", message).with_details(details(resource, group, name))
    }

    pub(crate) fn invalid(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<_> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let what = qualified(kind, group);
        let message = match texts.as_slice() {
            [one] => format!("{what} \"{name}\" is invalid: {one}"),
            all => format!("{what} \"{name}\" is invalid: [{}]", all.join(", ")),
        };
        let causes: Vec<_> = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        let mut about = details(kind, group, name);
        about["causes"] = Value::Array(causes);
        Self::new(422, "Invalid", message).with_details(about)
    }

    pub(crate) fn method_not_allowed(what: &str) -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            format!("the server does not allow this method on {what}"),
        )
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status["code"] = self.code.into();
        status
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Expired { asked, oldest } => Self::expired(format!(
                "The resourceVersion for the provided request is too old: {asked}, the oldest kept is {oldest}"
            )),
            StorageError::Full(_) => Self::new(507, "InternalError", error.to_string()),
            StorageError::Exists { .. } => Self::new(409, "AlreadyExists", error.to_string()),
            StorageError::Missing { .. } | StorageError::Stale { .. } => {
                Self::new(409, "Conflict", error.to_string())
            }
            StorageError::Failed(_) => Self::internal(error),
            StorageError::Invalid(_) => Self::new(422, "Invalid", error.to_string()),
            StorageError::Forbidden(_) => Self::forbidden(error.to_string()),
            StorageError::Answered { code, message } => Self::new(code, reason(code), message),
            StorageError::Unavailable(_) => Self::new(503, "ServiceUnavailable", error.to_string())
                .with_details(serde_json::json!({"retryAfterSeconds": 1})),
            StorageError::Unknown(_) => Self::new(504, "Timeout", error.to_string()),
        }
    }
}

/// The word that goes with a code.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        _ => "InternalError",
    }
}

/// `pods`, or `networkpolicies.networking.k8s.io`.
pub(crate) fn qualified(resource: &str, group: &str) -> String {
    match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    }
}

fn details(resource: &str, group: &str, name: &str) -> Value {
    let mut details = json!({"name": name});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details["kind"] = resource.into();
    details
}

/// The `Status` of a success that has no object to show.
pub(crate) fn success(resource: &str, group: &str, name: &str, uid: &str) -> Value {
    let mut about = details(resource, group, name);
    about["uid"] = uid.into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about})
}
