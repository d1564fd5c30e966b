//! Whether an object was kept as it was sent.
//!
//! A cluster's definition of a kind may be older than the object, or another product's: fields that it does
//! not know are dropped in silence by the server. Who has set one must hear of it.

use api::Kind;
use serde_json::Value;

/// The fields of `sent`'s spec that `kept`, which the server answered, has not. A field that says nothing
/// (null, empty, zero, false) or what holds without it need not be kept.
pub(crate) fn lost(kind: &Kind, sent: &Value, kept: &Value) -> Vec<String> {
    let (Some(spec), Some(kept)) = (sent.get("spec"), kept.get("spec")) else { return Vec::new() };
    let mut lost = Vec::new();
    compare("/spec", spec, kept, &mut lost);
    lost.retain(|pointer| !is_default(kind, sent, pointer));
    lost.iter().map(|pointer| pointer[1..].replace('/', ".")).collect()
}

/// What is said of them.
pub(crate) fn complaint(lost: &[String]) -> String {
    let fields = lost.join(", ");
    format!("{fields}: not kept and without effect: the cluster's definition of the kind lacks it")
}

/// Pointers to what is lost.
fn compare(at: &str, sent: &Value, kept: &Value, lost: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (key, value) in sent {
                let at = format!("{at}/{key}");
                match kept.get(key) {
                    Some(kept) => compare(&at, value, kept, lost),
                    None if says_nothing(value) => {}
                    None => lost.push(at),
                }
            }
        }
        (Value::Array(sent), Value::Array(kept)) if sent.len() == kept.len() => {
            for (i, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                compare(&format!("{at}/{i}"), sent, kept, lost);
            }
        }
        // Another value is the server's word, not a loss.
        _ => {}
    }
}

/// Whether the object would have the same there if it were not written.
fn is_default(kind: &Kind, object: &Value, pointer: &str) -> bool {
    let mut without = object.clone();
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    if let Some(Value::Object(fields)) = without.pointer_mut(parent) {
        fields.remove(key);
    }
    kind.default(&mut without);
    without.pointer(pointer) == object.pointer(pointer)
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_dropped_is_named() {
        let kind = api::by_word("globalnetworkset").unwrap();
        let sent = json!({"spec": {
            "a": 1, "b": {"c": "x", "d": ""}, "list": [{"e": 1, "f": 2}, {"e": 3}], "g": "Old", "h": {},
        }});
        let all = |kept: Value| lost(kind, &sent, &kept);
        assert!(all(sent.clone()).is_empty());
        let kept = json!({"spec": {
            "b": {}, "list": [{"e": 1}, {"e": 3}], "g": "New", "defaulted": true,
        }});
        assert_eq!(all(kept), ["spec.a", "spec.b.c", "spec.list.0.f"]);
        let shorter = json!({"spec": {"a": 1, "b": {"c": "x"}, "list": [], "g": "Old"}});
        assert!(all(shorter).is_empty(), "a list that the server made another");
        assert!(all(json!({"kind": "Status"})).is_empty(), "no object");
    }

    #[test]
    fn a_default_is_no_loss() {
        let kind = api::by_word("ippool").unwrap();
        let mut sent = json!({"spec": {"cidr": "10.0.0.0/16", "disabled": true}});
        kind.default(&mut sent);
        let kept = json!({"spec": {"cidr": "10.0.0.0/16"}});
        assert!(sent["spec"].as_object().unwrap().len() > 2, "{sent}");
        assert_eq!(lost(kind, &sent, &kept), ["spec.disabled"]);
    }
}
