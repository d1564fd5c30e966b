//! Equality of objects apart from some of their fields.

use serde_json::Value;

/// Whether two values are equal apart from the fields that `ignored` names: paths of field names, on
/// which the items of a list count as the list itself. An ignored field may also be absent. Makes no
/// copy of anything.
pub fn equal_but(a: &Value, b: &Value, ignored: &[&[&str]]) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let counts = |name: &str| !ignored.iter().any(|path| *path == [name]);
            let size = |keys: serde_json::map::Keys<'_>| keys.filter(|k| counts(k)).count();
            size(a.keys()) == size(b.keys())
                && a.iter().filter(|(name, _)| counts(name)).all(|(name, value)| {
                    let below: Vec<&[&str]> =
                        ignored.iter().filter(|p| p[0] == name).map(|p| &p[1..]).collect();
                    b.get(name).is_some_and(|other| equal_but(value, other, &below))
                })
        }
        (Value::Array(a), Value::Array(b)) if !ignored.is_empty() => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_but(a, b, ignored))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_ignored_may_differ_and_nothing_else() {
        let a = json!({"m": {"v": 1, "l": [{"t": 1, "x": 2}]}, "s": [1], "gone": null});
        let ignored: &[&[&str]] = &[&["m", "v"], &["m", "l", "t"], &["gone"]];
        for same in [
            json!({"m": {"v": 2, "l": [{"x": 2}]}, "s": [1]}),
            json!({"s": [1], "gone": 1, "m": {"l": [{"t": {}, "x": 2}]}}),
        ] {
            assert!(equal_but(&a, &same, ignored), "{same}");
            assert!(equal_but(&same, &a, ignored), "{same}");
        }
        for other in [
            json!({"m": {"v": 1, "l": [{"t": 1, "x": 3}]}, "s": [1]}),
            json!({"m": {"v": 1, "l": []}, "s": [1]}),
            json!({"m": {"v": 1, "l": [{"t": 1, "x": 2}], "more": 1}, "s": [1]}),
            json!({"m": {"v": 1, "l": [{"t": 1, "x": 2}]}, "s": [1, 1]}),
            json!({"m": {"v": 1, "l": [{"t": 1, "x": 2}]}}),
            json!([]),
        ] {
            assert!(!equal_but(&a, &other, ignored), "{other}");
            assert!(!equal_but(&other, &a, ignored), "{other}");
        }
        assert!(!equal_but(&a, &json!({"m": {"v": 2}, "s": [1], "gone": null}), &[]));
    }
}
