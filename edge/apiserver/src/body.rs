//! Request bodies: bytes to a JSON value, with every oddity that strict clients want to hear of.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::{ApiError, Result};

/// The largest body accepted, in bytes.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

/// How deep a stored object may be nested. Less than what our parsers and those of clients take, which
/// would not read it back otherwise.
const DEPTH: usize = 100;

/// 413: the request, or the object it would make.
pub(crate) fn too_large(limit: usize) -> ApiError {
    let message = format!("Request entity too large: limit is {limit}");
    ApiError::new(413, "RequestEntityTooLarge", message)
}

/// Refuses an object that is too large or too deep to be stored: patches can make one of small pieces.
pub(crate) fn check_extent(object: &Value) -> Result<()> {
    let mut size = 0;
    measure(object, 1, &mut size)
}

/// Adds up the size of `value` as JSON text, not counting what has to be escaped.
fn measure(value: &Value, depth: usize, size: &mut usize) -> Result<()> {
    if depth > DEPTH {
        return Err(ApiError::bad_request(format!(
            "the object is nested deeper than {DEPTH} levels"
        )));
    }
    *size += match value {
        Value::String(text) => text.len() + 3,
        Value::Array(_) | Value::Object(_) => 3,
        _ => 6,
    };
    if *size > LIMIT {
        return Err(too_large(LIMIT));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| measure(item, depth + 1, size)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, field)| {
            *size += key.len() + 3;
            measure(field, depth + 1, size)
        }),
        _ => Ok(()),
    }
}

/// A parsed document, and the paths of keys that stood in it twice (the last one counts).
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

impl From<Value> for Parsed {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// Parses a body. Nesting is limited to 128 levels by the parsers.
pub(crate) fn parse(bytes: &[u8], encoding: Encoding) -> Result<Parsed> {
    let bad = |what: &str, error: &dyn fmt::Display| {
        ApiError::bad_request(format!("the body of the request is not valid {what}: {error}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|error| bad("UTF-8", &error))?;
    if text.contains('\0') {
        return Err(bad("text", &"it holds a NUL character"));
    }
    match encoding {
        Encoding::Json => serde_json::from_str(text).map_err(|error| bad("JSON", &error)),
        Encoding::Yaml => serde_saphyr::from_str(text).map_err(|error| bad("YAML", &error)),
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut duplicates = Vec::new();
        let seed = Node { path: String::new(), duplicates: &mut duplicates };
        let value = seed.deserialize(deserializer)?;
        Ok(Self { value, duplicates })
    }
}

/// Reads one value at `path`.
struct Node<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map(Value::Number);
        number.ok_or_else(|| E::custom(format!("{}: {value} is not a JSON number", self.path)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            let seed = Node { path, duplicates: &mut *self.duplicates };
            match seq.next_element_seed(seed)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = match self.path.as_str() {
                "" => key.clone(),
                parent => format!("{parent}.{key}"),
            };
            if fields.contains_key(&key) {
                self.duplicates.push(path.clone());
            }
            let value = map.next_value_seed(Node { path, duplicates: &mut *self.duplicates })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_with_their_paths() {
        let text = br#"{"a":1,"b":{"c":[{"d":1,"d":2}]},"a":3}"#;
        let parsed = parse(text, Encoding::Json).unwrap();
        assert_eq!(parsed.duplicates, ["b.c[0].d", "a"]);
        assert_eq!(parsed.value["a"], 3);
        assert_eq!(parsed.value["b"]["c"][0]["d"], 2);
    }

    #[test]
    fn bad_bodies_are_refused() {
        let deep = "[".repeat(2000);
        for bad in [b"{".as_slice(), b"\xff", b"{\"a\":\"\0\"}", deep.as_bytes(), b"{} x"] {
            assert_eq!(parse(bad, Encoding::Json).unwrap_err().code, 400);
        }
        assert_eq!(parse(b"a: [", Encoding::Yaml).unwrap_err().code, 400);
        assert_eq!(parse(b"a: .nan", Encoding::Yaml).unwrap_err().code, 400);
    }

    #[test]
    fn yaml_reads_as_json() {
        let parsed = parse(b"a: 1\nb: [x, true]\nc: null\n", Encoding::Yaml).unwrap();
        assert_eq!(parsed.value, serde_json::json!({"a": 1, "b": ["x", true], "c": null}));
    }
}
