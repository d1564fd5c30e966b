//! JSON patches (RFC 6902), with bounds on what a small patch may cost.

use ::json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::body;
use crate::status::{ApiError, Result};

/// The most operations of one patch.
const OPERATIONS: usize = 10_000;

/// Reads a patch from a parsed body.
pub(crate) fn parse(body: Value) -> Result<Patch> {
    let operations = body.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {operations}"
            ),
        ));
    }
    serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("not a JSON patch: {error}")))
}

/// Applies a patch. All copies together may not be larger than a body; otherwise a few of them, each of
/// what the last one made, would fill the memory.
pub(crate) fn apply(object: &mut Value, patch: &Patch) -> Result<(), String> {
    let mut copied = 0;
    for operation in &patch.0 {
        if let PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |from| from.to_string().len());
            if copied > body::LIMIT {
                return Err(format!(
                    "unable to complete the copy: what is copied is larger than the limit of {} bytes",
                    body::LIMIT
                ));
            }
        }
        // A failed patch leaves nothing behind: the caller works on a copy.
        ::json_patch::patch_unsafe(object, std::slice::from_ref(operation))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn copies_are_bounded() {
        let mut object = json!({"a": {"x": "0123456789"}});
        let copy = json!({"op": "copy", "from": "/a", "path": "/a/b"});
        let few = parse(json!([copy, copy])).unwrap();
        apply(&mut object, &few).unwrap();
        assert_eq!(object["a"]["b"]["b"]["x"], "0123456789");
        // Copied to two places in turn, the object grows by a half each time.
        let other = json!({"op": "copy", "from": "/a", "path": "/a/c"});
        let many = parse(Value::Array(vec![[copy, other]; 20].concat())).unwrap();
        assert!(apply(&mut object, &many).unwrap_err().contains("copy"));
        let operation = json!({"op": "test", "path": "/a", "value": 1});
        let error = parse(Value::Array(vec![operation; OPERATIONS + 1])).unwrap_err();
        assert_eq!(error.code, 413);
        let removed = parse(json!([{"op": "remove", "path": "/nothing"}])).unwrap();
        assert!(apply(&mut object, &removed).is_err());
    }
}
