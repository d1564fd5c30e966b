//! The functions that templates call.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

use super::printf::{self, shown};
use super::run::truth;

type Held<'a> = Cow<'a, Value>;
type Answer<'a> = Result<Held<'a>, String>;

const NAMES: [&str; 20] = [
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "join",
    "joinAndTruncate",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn names() -> String {
    NAMES.join(", ")
}

/// What Go would call its type.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Calls a function; `and` and `or` are not called.
pub(super) fn call<'a>(name: &str, values: Vec<Held<'a>>) -> Answer<'a> {
    let owned = |value: Value| Ok(Cow::Owned(value));
    let text = |text: String| owned(text.into());
    match name {
        "not" => owned((!truth(only(&values)?)).into()),
        "eq" => owned(eq(&values)?.into()),
        "ne" => {
            let [a, b] = two(&values)?;
            owned((!equal(a, b)?).into())
        }
        "lt" | "le" | "gt" | "ge" => {
            let [a, b] = two(&values)?;
            let order = compare(a, b)?;
            let holds = match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            };
            owned(holds.into())
        }
        "len" => owned(len(only(&values)?)?.into()),
        "index" => index(values),
        "slice" => slice(&values).map(Cow::Owned),
        "print" => text(printf::print(&values)),
        "println" => text(printf::println(&values)),
        "printf" => text(printf::printf(&values)?),
        "html" => text(escape(&printf::print(&values), html)),
        "js" => text(escape(&printf::print(&values), js)),
        "urlquery" => text(escape(&printf::print(&values), url)),
        "join" | "joinAndTruncate" => text(join(name, &values)?),
        _ => Err("cannot be called here".to_owned()),
    }
}

fn only<'v>(values: &'v [Held<'_>]) -> Result<&'v Value, String> {
    match values {
        [value] => Ok(value),
        _ => Err(format!("wants one value, got {}", values.len())),
    }
}

fn two<'v>(values: &'v [Held<'_>]) -> Result<[&'v Value; 2], String> {
    match values {
        [a, b] => Ok([a, b]),
        _ => Err(format!("wants two values, got {}", values.len())),
    }
}

/// Whether the first is equal to any of the others.
fn eq(values: &[Held<'_>]) -> Result<bool, String> {
    let Some((first, others)) = values.split_first().filter(|(_, others)| !others.is_empty())
    else {
        return Err("wants at least two values".to_owned());
    };
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        _ => Ok(compare(a, b)? == Ordering::Equal),
    }
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    let unlike = || format!("{} and {} cannot be compared", type_of(a), type_of(b));
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Ok(x.cmp(&y)),
            _ => x.as_f64().zip(y.as_f64()).and_then(|(x, y)| x.partial_cmp(&y)).ok_or_else(unlike),
        },
        _ => Err(unlike()),
    }
}

fn len(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(map) => Ok(map.len()),
        other => Err(format!("{} has no length", type_of(other))),
    }
}

fn position(value: &Value, most: usize) -> Result<usize, String> {
    let at = value.as_i64().and_then(|at| usize::try_from(at).ok());
    let at = at.ok_or_else(|| format!("want a number from 0, got {}", shown(value)))?;
    if at <= most { Ok(at) } else { Err(format!("{at} is out of range: there are {most}")) }
}

fn index(values: Vec<Held<'_>>) -> Answer<'_> {
    let mut values = values.into_iter();
    let mut at = values.next().ok_or("wants a value")?;
    for key in values {
        at = match (at, &*key) {
            (Cow::Borrowed(Value::Object(map)), Value::String(key)) => {
                map.get(key).map_or(Cow::Owned(Value::Null), Cow::Borrowed)
            }
            (Cow::Owned(Value::Object(mut map)), Value::String(key)) => {
                Cow::Owned(map.get_mut(key).map(Value::take).unwrap_or_default())
            }
            (Cow::Borrowed(Value::Array(items)), key) => {
                let at = position(key, items.len())?;
                Cow::Borrowed(items.get(at).ok_or_else(|| past(at, items.len()))?)
            }
            (Cow::Owned(Value::Array(mut items)), key) => {
                let at = position(key, items.len())?;
                if at == items.len() {
                    return Err(past(at, items.len()));
                }
                Cow::Owned(items.swap_remove(at))
            }
            (at, key) => {
                return Err(format!("{} has no {}", type_of(&at), shown(key)));
            }
        };
    }
    Ok(at)
}

fn past(at: usize, length: usize) -> String {
    format!("{at} is out of range: there are {length}")
}

fn slice(values: &[Held<'_>]) -> Result<Value, String> {
    let Some((of, ends)) = values.split_first().filter(|(_, ends)| ends.len() <= 2) else {
        return Err("wants a list or text, and up to two numbers".to_owned());
    };
    let length = len(of)?;
    let from = ends.first().map_or(Ok(0), |v| position(v, length))?;
    let to = ends.get(1).map_or(Ok(length), |v| position(v, length))?;
    if from > to {
        return Err(format!("{from} is behind {to}"));
    }
    match &**of {
        Value::Array(items) => Ok(items[from..to].to_vec().into()),
        Value::String(text) => match text.get(from..to) {
            Some(part) => Ok(part.into()),
            None => Err("a character would be cut".to_owned()),
        },
        other => Err(format!("{} cannot be cut", type_of(other))),
    }
}

/// Joins the elements of a list, or `key=value` of a map.
fn join(name: &str, values: &[Held<'_>]) -> Result<String, String> {
    let (items, separator, most) = match values {
        [items, separator] if name == "join" => (items, separator, 0),
        [items, separator, most] if name != "join" => (
            items,
            separator,
            usize::try_from(most.as_i64().unwrap_or_default()).unwrap_or_default(),
        ),
        _ => return Err("wants a list and a separator, joinAndTruncate a length, too".to_owned()),
    };
    let separator = separator.as_str().ok_or("the separator is text")?;
    let parts: Vec<String> = match &**items {
        Value::Null => return Ok(String::new()),
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(map) => {
            let mut parts: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect();
            parts.sort();
            parts
        }
        other => vec![shown(other)],
    };
    let text = parts.join(separator);
    if most == 0 || text.len() <= most {
        return Ok(text);
    }
    let mut end = most.saturating_sub(3);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(format!("{}...", &text[..end]))
}

fn escape(text: &str, each: fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| each(c, &mut out));
    out
}

fn html(c: char, out: &mut String) {
    match c {
        '\0' => out.push('\u{fffd}'),
        '"' => out.push_str("&#34;"),
        '\'' => out.push_str("&#39;"),
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        other => out.push(other),
    }
}

fn js(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\'' => out.push_str("\\'"),
        '"' => out.push_str("\\\""),
        '<' | '>' | '&' | '=' => drop(write!(out, "\\u{:04X}", u32::from(c))),
        c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
        other => out.push(other),
    }
}

fn url(c: char, out: &mut String) {
    match c {
        ' ' => out.push('+'),
        c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~') => out.push(c),
        c => {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}
