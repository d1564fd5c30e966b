//! Field ownership: which manager set which field, kept in `metadata.managedFields`.

use serde_json::{Map, Value};

/// Drops the times from `managedFields`, so that two states compare by what they hold.
pub(crate) fn forget_times(metadata: &mut Map<String, Value>) {
    for entry in
        metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if let Some(entry) = entry.as_object_mut() {
            entry.shift_remove("time");
        }
    }
}

use crate::request::Call;
use crate::status::Result;

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Update,
}

pub(crate) fn track(
    _call: &Call,
    _before: Option<&Value>,
    _after: &mut Value,
    _operation: Operation,
    _time: &str,
) -> Result<()> {
    Ok(())
}

pub(crate) fn apply(
    _call: &Call,
    live: Option<&Value>,
    body: &Value,
    _time: &str,
) -> Result<Value> {
    Ok(match live {
        Some(live) => crate::patch::merge(live, body),
        None => body.clone(),
    })
}
