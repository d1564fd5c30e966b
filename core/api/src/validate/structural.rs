//! The structure: unknown fields, types, words, ranges, lengths, required fields.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::FieldError;

/// Tells every deviation from the schema and mends it, so that what follows can go on: a value of
/// the wrong type is replaced by an empty one of the right type, unknown fields are removed.
pub(super) fn check(schema: &Value, object: &mut Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut walk = Walk { errors: &mut errors };
    walk.value(schema, object, &At::Root);
    errors
}

struct Walk<'a> {
    errors: &'a mut Vec<FieldError>,
}

/// Where the walk is, written out only where there is something to tell.
#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    /// An entry of a map whose keys are anything.
    Entry(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(At::Root, name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Entry(above, key) => write!(f, "{above}[{key}]"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

impl Walk<'_> {
    fn tell(&mut self, field: &At<'_>, message: String) {
        self.errors.push(FieldError::new(field.to_string(), message));
    }

    fn value(&mut self, schema: &Value, value: &mut Value, field: &At<'_>) {
        if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
            return;
        }
        if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            if !value.is_i64() && !value.is_u64() && !value.is_string() {
                self.tell(field, format!("want a whole number or text, got {}", shown(value)));
                *value = json!(0);
            }
            return;
        }
        let wanted = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        if !wanted.is_empty() && !is_a(value, wanted) {
            self.tell(field, format!("want {}, got {}", article(wanted), shown(value)));
            *value = empty(schema);
            return;
        }
        if let Some(message) = out_of_bounds(schema, value) {
            self.tell(field, message);
            *value = empty(schema);
            return;
        }
        match value {
            Value::Object(map) => self.object(schema, map, field),
            Value::Array(items) => self.items(schema, items, field),
            _ => (),
        }
    }

    fn object(&mut self, schema: &Value, map: &mut Map<String, Value>, field: &At<'_>) {
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
            return;
        }
        let root = matches!(field, At::Root);
        if let Some(values) = schema.get("additionalProperties") {
            for (key, value) in map {
                self.value(values, value, &At::Entry(field, key));
            }
            return;
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        let unknown: Vec<String> =
            map.keys().filter(|k| !properties.contains_key(*k)).cloned().collect();
        for key in unknown {
            let hint = nearest(&key, properties.keys().map(String::as_str));
            let hint = hint.map(|h| format!(" (did you mean {h}?)")).unwrap_or_default();
            let whole = root && key == "status";
            if !whole {
                self.tell(&At::Field(field, &key), format!("unknown field{hint}"));
            }
            map.remove(&key);
        }
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let Some(key) = key.as_str() else { continue };
            if map.get(key).is_none_or(Value::is_null) {
                self.tell(&At::Field(field, key), "is required".into());
                map.insert(key.to_owned(), properties.get(key).map(empty).unwrap_or_default());
            }
        }
        map.retain(|key, value| {
            // As the API server has it: null is absent, unless the schema says otherwise.
            !value.is_null()
                || properties[key].get("nullable").is_some_and(|n| n == &Value::Bool(true))
        });
        for (key, value) in map.iter_mut() {
            if !(root && key == "metadata") {
                self.value(&properties[key], value, &At::Field(field, key));
            }
        }
    }

    fn items(&mut self, schema: &Value, items: &mut [Value], field: &At<'_>) {
        let Some(of) = schema.get("items") else { return };
        for (index, item) in items.iter_mut().enumerate() {
            self.value(of, item, &At::Item(field, index));
        }
        if schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set") {
            // A table of what was seen: nothing bounds the length of some of these lists.
            let mut seen: HashMap<&Value, usize> = HashMap::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let first = *seen.entry(item).or_insert(index);
                if first != index {
                    let message = format!("{} stands in [{first}] already", shown(item));
                    self.tell(&At::Item(field, index), message);
                }
            }
        }
    }
}

fn is_a(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        "number" => value.is_number(),
        _ => true,
    }
}

fn article(wanted: &str) -> &str {
    match wanted {
        "object" => "a map",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        other => other,
    }
}

/// A value as it is quoted in messages: short.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a map".into(),
        Value::Array(_) => "a list".into(),
        Value::Null => "nothing".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(80) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}

fn empty(schema: &Value) -> Value {
    if let Some(first) = schema.get("enum").and_then(|e| e.get(0)) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => json!({}),
        Some("array") => json!([]),
        Some("string") => json!(""),
        Some("boolean") => json!(false),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(0)),
        _ => json!(0), // number or text
    }
}

fn out_of_bounds(schema: &Value, value: &Value) -> Option<String> {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        if words.contains(value) {
            return None;
        }
        let words: Vec<String> =
            words.iter().map(|w| w.as_str().map_or_else(|| w.to_string(), str::to_owned)).collect();
        return Some(format!("{} is not one of {}", shown(value), words.join(", ")));
    }
    if let Some(given) = value.as_f64() {
        let (min, max) = (number("minimum"), number("maximum"));
        if min.is_some_and(|m| given < m) || max.is_some_and(|m| given > m) {
            return Some(match (min, max) {
                (Some(min), Some(max)) => {
                    format!("{value} is out of range (want {min} to {max})")
                }
                (Some(min), None) => format!("{value} is out of range (want {min} or more)"),
                (_, max) => {
                    format!("{value} is out of range (want {} or less)", max.unwrap_or_default())
                }
            });
        }
    }
    let length = |key: &str| schema.get(key).and_then(Value::as_u64);
    let (count, min, max, what) = match value {
        Value::String(text) => {
            (text.chars().count(), length("minLength"), length("maxLength"), "characters")
        }
        Value::Array(items) => (items.len(), None, length("maxItems"), "items"),
        _ => return None,
    };
    if max.is_some_and(|m| count as u64 > m) {
        return Some(format!("has {count} {what} (want at most {})", max.unwrap_or_default()));
    }
    if min.is_some_and(|m| (count as u64) < m) {
        return Some(format!("has {count} {what} (want at least {})", min.unwrap_or_default()));
    }
    None
}

/// The known word that a mistyped one comes closest to: the same but for case, or one edit away.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    for candidate in known {
        let distance = edits(&word.to_lowercase(), &candidate.to_lowercase());
        if distance <= 2 && distance < candidate.len() && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
