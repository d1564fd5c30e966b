//! Files of several documents, YAML or JSON.
//!
//! A malformed document does not hide the others: the text is cut at its document markers first.
//! Anchors and depth are bounded, memory by the size of the text; a key given twice is an error. What is JSON is
//! read as such, with less work; what is wrong with a text YAML says.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{Budget, budget, options};

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// Line in the file, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Number of the document in the file, from 1; empty documents count.
    pub number: usize,
    /// Line on which the document starts, from 1.
    pub line: u64,
    /// Position in the `items` of a `List`, from 0.
    pub item: Option<usize>,
    /// The object.
    pub object: Result<Value, YamlError>,
}

/// The objects of a text: every document that holds something, the items of every `List`.
pub fn documents(text: &str) -> impl Iterator<Item = Document> + '_ {
    parts(text).into_iter().flat_map(Part::read)
}

/// A document of a text that has not been read: parts can be read independently of each other.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    number: usize,
    line: u64,
    text: &'a str,
}

/// The parts of a text, in their order.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    cut(text).into_iter().map(|(number, line, text)| Part { number, line, text }).collect()
}

impl Part<'_> {
    /// The objects in it.
    pub fn read(self) -> Vec<Document> {
        let Self { number, line, text } = self;
        let read = |object| match object {
            Ok(Value::Null) => Vec::new(),
            Ok(value) => items(number, line, value),
            Err(error) => vec![Document { number, line, item: None, object: Err(error) }],
        };
        read_all(text, line).into_iter().flat_map(read).collect()
    }
}

/// A `List` is its items, at any depth of lists.
fn items(number: usize, line: u64, value: Value) -> Vec<Document> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let list = kind.ends_with("List") && value.get("items").is_some_and(Value::is_array);
    if !list {
        return vec![Document { number, line, item: None, object: Ok(value) }];
    }
    let Value::Object(mut map) = value else { return Vec::new() };
    let Some(Value::Array(items)) = map.remove("items") else { return Vec::new() };
    let numbered = items.into_iter().enumerate();
    numbered.map(|(i, o)| Document { number, line, item: Some(i), object: Ok(o) }).collect()
}

/// Cuts at lines that are document markers: `---` or `...`, alone or before a space. The YAML
/// grammar allows them nowhere else at the start of a line, not even in block text.
fn cut(text: &str) -> Vec<(usize, u64, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        if rest.is_some_and(|r| r.is_empty() || r.starts_with([' ', '\t', '\r', '\n'])) {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset + 3, index as u64 + 1);
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    let blank = |part: &str| {
        part.lines().all(|l| {
            let l = l.trim();
            l.is_empty() || l.starts_with(['#', '%'])
        })
    };
    // What stands before the first marker is a document only if it holds something.
    if parts.len() > 1 && blank(parts[0].1) {
        parts.remove(0);
    }
    parts.into_iter().enumerate().map(|(i, (line, part))| (i + 1, line, part)).collect()
}

/// One document; JSON objects written one after the other are several.
fn read_all(part: &str, line: u64) -> Vec<Result<Value, YamlError>> {
    let begins_as_json = part.trim_start().starts_with('{');
    if begins_as_json && let Some(objects) = read_json(part) {
        return objects.into_iter().map(Ok).collect();
    }
    let first = read(part, line);
    if first.is_err() && begins_as_json {
        let stream = serde_json::Deserializer::from_str(part)
            .into_iter::<&serde_json::value::RawValue>()
            .collect::<Result<Vec<_>, _>>();
        if let Ok(several) = stream
            && several.len() > 1
        {
            return several.into_iter().map(|raw| read(raw.get(), line)).collect();
        }
    }
    vec![first]
}

/// The objects of a JSON text; nothing if it is none, or has a key twice.
fn read_json(part: &str) -> Option<Vec<Value>> {
    let stream = serde_json::Deserializer::from_str(part).into_iter::<Strict>();
    stream.map(|object| object.map(|Strict(value)| value)).collect::<Result<_, _>>().ok()
}

fn read(part: &str, line: u64) -> Result<Value, YamlError> {
    // Only true and false are booleans: `name: n` and `node: on` mean what they say.
    let options = options! { with_snippet: false, strict_booleans: true, budget: bounds(part) };
    serde_saphyr::from_str_with_options::<Value>(part, options).map_err(|e| {
        let (at, column) = e.location().map_or((1, 1), |l| (l.line().max(1), l.column().max(1)));
        let message = e.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default().to_owned();
        YamlError { line: line + at - 1, column, message }
    })
}

/// A list of all pods of a cluster has millions of nodes, each of which is written out: they are bounded by the
/// text. What aliases repeat is bounded apart from that.
fn bounds(part: &str) -> Option<Budget> {
    let usual = Budget::default();
    let length = part.len() + 1;
    budget! {
        max_nodes: usual.max_nodes.max(length),
        max_events: usual.max_events.max(2 * length),
        max_total_scalar_bytes: usual.max_total_scalar_bytes.max(length),
    }
}

/// A JSON value without a key that is given twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = from.next_element()? {
            list.push(value);
        }
        Ok(Strict(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Strict, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = from.next_entry::<String, _>()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is given twice"));
            }
        }
        Ok(Strict(map.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(text: &str) -> Vec<(usize, Option<usize>, Result<Value, u64>)> {
        documents(text).map(|d| (d.number, d.item, d.object.map_err(|e| e.line))).collect()
    }

    #[test]
    fn several_documents_and_a_bad_one() {
        let text = "# head\n---\na: 1\n---\nb: [1\n---\n\n---\nc: |\n  ---\n  x\n...\n";
        let got = brief(text);
        assert_eq!(got.len(), 3, "{got:?}");
        assert_eq!(got[0], (1, None, Ok(serde_json::json!({ "a": 1 }))));
        assert_eq!(got[1].0, 2);
        assert!(matches!(got[1].2, Err(4..=6)), "{got:?}");
        assert_eq!(got[2], (4, None, Ok(serde_json::json!({ "c": "---\nx\n" }))));
    }

    #[test]
    fn lists_json_and_duplicates() {
        let list = r#"{"kind":"List","apiVersion":"v1","items":[{"a":1},{"a":2}]}"#;
        assert_eq!(
            brief(list).iter().map(|d| (d.0, d.1)).collect::<Vec<_>>(),
            [(1, Some(0)), (1, Some(1))]
        );
        assert_eq!(brief("{\"a\":1}\n{\"a\":2}\n").len(), 2);
        assert_eq!(brief("spec:\n  a: 1\n  a: 2\n")[0].2, Err(3));
        assert!(brief("").is_empty() && brief("# nothing\n---\n").is_empty());
    }

    /// However long, JSON or not.
    #[test]
    fn a_list_of_all_pods_of_a_cluster_is_read() {
        let pod = |i: usize| {
            format!(r#"{{"kind":"Pod","metadata":{{"name":"p{i}","labels":{{"a":"1","b":"2"}}}}}}"#)
        };
        let pods = (0..30_000).map(pod).collect::<Vec<_>>().join(",");
        let json = format!(r#"{{"kind":"List","items":[{pods}]}}"#);
        let yaml = format!("kind: List\nitems: [{pods}]\n");
        for text in [json, yaml] {
            let got: Vec<_> = documents(&text).collect();
            assert_eq!((got.len(), got[29_999].item), (30_000, Some(29_999)));
            let last = got[29_999].object.as_ref().unwrap();
            assert_eq!(last["metadata"]["name"], "p29999");
        }
    }

    #[test]
    fn json_is_read_as_yaml_reads_it() {
        for text in [
            r#"{"a": [1, -2, 2.5, 1e3, true, null, "x\u00e9\n\t\"", ""], "b": {"": {}, "c": []}}"#,
            r#"{"big": 18446744073709551615, "small": -9223372036854775808, "on": "on", "n": "1"}"#,
        ] {
            assert_eq!(read_json(text).unwrap(), [read(text, 1).unwrap()], "{text}");
        }
        for text in [r#"{"a":1,"a":2}"#, r#"{"a":{"b":1,"b":2}}"#, "{a: 1}", "{\"a\":1}\nb", "{"] {
            assert_eq!(read_json(text), None, "{text}");
        }
        assert_eq!(brief("{\"a\":\n1,\n\"a\":2}")[0].2, Err(3));
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb = format!("{bomb}a{i}: &a{i} [{refs}]\n");
        }
        assert!(brief(&bomb)[0].2.is_err());
        assert!(brief(&"[".repeat(100_000))[0].2.is_err());
    }
}
