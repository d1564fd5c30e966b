//! Files of several documents, YAML or JSON.
//!
//! A malformed document does not hide the others: the text is cut at its document markers first.
//! Anchors, depth and size are bounded, and a key given twice is an error.

use serde_json::Value;
use serde_saphyr::options;

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
    let first = read(part, line);
    if first.is_err() && part.trim_start().starts_with('{') {
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

fn read(part: &str, line: u64) -> Result<Value, YamlError> {
    // Only true and false are booleans: `name: n` and `node: on` mean what they say.
    let options = options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options::<Value>(part, options).map_err(|e| {
        let (at, column) = e.location().map_or((1, 1), |l| (l.line().max(1), l.column().max(1)));
        let message = e.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default().to_owned();
        YamlError { line: line + at - 1, column, message }
    })
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
