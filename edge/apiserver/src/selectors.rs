//! Label and field selectors of list, watch and deletecollection.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::registry::Resource;
use crate::request::Query;
use crate::status::{ApiError, Result};

/// The most parts of a selector, and the most values in them all. Each object listed is held against all.
const PARTS: usize = 512;
const VALUES: usize = 4_096;

/// What a request wants to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRule {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Missing(String),
    Above(String, i64),
    Below(String, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRule {
    path: String,
    equal: bool,
    value: String,
}

impl Filter {
    pub(crate) fn from_query(query: &Query, resource: &Resource) -> Result<Self> {
        for name in ["labelSelector", "fieldSelector"] {
            bounded(name, query.get(name).unwrap_or_default())?;
        }
        let labels = query.get("labelSelector").map(labels).transpose()?.unwrap_or_default();
        let fields = query.get("fieldSelector").map(|text| fields(text, resource)).transpose()?;
        Ok(Self { labels, fields: fields.unwrap_or_default() })
    }

    /// The equality rules of a Kubernetes `selector` map or `matchLabels`.
    pub(crate) fn from_map(map: &serde_json::Map<String, Value>) -> Self {
        let rule = |(key, value): (&String, &Value)| {
            let value = value.as_str().unwrap_or_default().to_owned();
            LabelRule::In(key.clone(), BTreeSet::from([value]))
        };
        Self { labels: map.iter().map(rule).collect(), fields: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The tiers whose policies are asked for, by field or by label; `None` if it is not said.
    pub(crate) fn tiers(&self) -> Option<BTreeSet<String>> {
        let field = |rule: &&FieldRule| rule.equal && rule.path == "spec.tier";
        if let Some(rule) = self.fields.iter().find(field) {
            return Some(BTreeSet::from([rule.value.clone()]));
        }
        self.labels.iter().find_map(|rule| match rule {
            LabelRule::In(key, values) if key == api::TIER_LABEL => Some(values.clone()),
            _ => None,
        })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|rule| rule.matches(labels))
            && self.fields.iter().all(|rule| rule.matches(object))
    }
}

impl LabelRule {
    fn matches(&self, labels: &Value) -> bool {
        let get = |key: &str| labels.get(key).and_then(Value::as_str);
        let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => get(key).is_some(),
            Self::Missing(key) => get(key).is_none(),
            Self::Above(key, than) => number(key).is_some_and(|value| value > *than),
            Self::Below(key, than) => number(key).is_some_and(|value| value < *than),
        }
    }
}

impl FieldRule {
    fn matches(&self, object: &Value) -> bool {
        let value = self.path.split('.').fold(object, |at, part| &at[part]);
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (text == self.value || (value.is_null() && self.value == "false")) == self.equal
    }
}

/// Refuses a selector that would take too long to hold against every object.
fn bounded(name: &str, text: &str) -> Result<()> {
    let values = text.bytes().filter(|byte| *byte == b',').count() + 1;
    if values > VALUES || (values > PARTS && split(text).len() > PARTS) {
        return Err(ApiError::bad_request(format!(
            "{name} is too large: at most {PARTS} requirements and {VALUES} values are taken"
        )));
    }
    Ok(())
}

fn bad_labels(text: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse label selector {text:?}: {why}"))
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn labels(text: &str) -> Result<Vec<LabelRule>> {
    let parts = split(text).into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| label_rule(part).map_err(|why| bad_labels(text, &why))).collect()
}

fn label_rule(part: &str) -> Result<LabelRule, String> {
    let one = |value: &str| -> Result<BTreeSet<String>, String> {
        Ok(BTreeSet::from([label_value(value)?]))
    };
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(LabelRule::NotIn(label_key(key)?, one(value)?));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(LabelRule::In(label_key(key)?, one(value)?));
    }
    let number = |text: &str| text.trim().parse().map_err(|_| format!("{text:?} is not a number"));
    if let Some((key, value)) = part.split_once('>') {
        return Ok(LabelRule::Above(label_key(key)?, number(value)?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Ok(LabelRule::Below(label_key(key)?, number(value)?));
    }
    if let Some((left, values)) = part.split_once('(') {
        let values = values.strip_suffix(')').ok_or("a parenthesis is not closed")?;
        let values = values.split(',').map(label_value).collect::<Result<_, _>>()?;
        let (key, operator) =
            left.trim().split_once(char::is_whitespace).ok_or("wanted in or notin")?;
        return match operator.trim() {
            "in" => Ok(LabelRule::In(label_key(key)?, values)),
            "notin" => Ok(LabelRule::NotIn(label_key(key)?, values)),
            other => Err(format!("operator {other:?}: wanted in or notin")),
        };
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(LabelRule::Missing(label_key(key)?)),
        None => Ok(LabelRule::Exists(label_key(part)?)),
    }
}

fn label_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    match crate::names::label_key(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(format!("label key {text:?}: {why}")),
    }
}

fn label_value(text: &str) -> Result<String, String> {
    let text = text.trim();
    match crate::names::label_value(text) {
        None => Ok(text.to_owned()),
        Some(why) => Err(format!("label value {text:?}: {why}")),
    }
}

fn fields(text: &str, resource: &Resource) -> Result<Vec<FieldRule>> {
    let mut rules = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
            (path, false, value)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, true, value)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid field selector {text:?}: {part:?} is not of the form field=value"
            )));
        };
        if !resource.selectable(path) {
            return Err(ApiError::bad_request(format!("field label not supported: {path}")));
        }
        rules.push(FieldRule { path: path.to_owned(), equal, value: value.to_owned() });
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, wanted: bool) {
        let object = json!({"metadata": {"labels": {"app": "web", "n": "5", "example.com/x": ""}}});
        let filter = Filter { labels: labels(selector).unwrap(), fields: Vec::new() };
        assert_eq!(filter.matches(&object), wanted, "{selector}");
    }

    #[test]
    fn label_selectors() {
        for yes in ["app=web", "app==web,n", "app in (a, web)", "!z", "z!=1", "n>4", "n<6"] {
            matches(yes, true);
        }
        for yes in ["z notin (a,b)", "example.com/x=", "app!=db,n=5"] {
            matches(yes, true);
        }
        for no in ["app=db", "z", "!app", "app in (a)", "app notin (web)", "n>5", "z>1"] {
            matches(no, false);
        }
        for bad in ["a in b", "=x", "a in (b", "n>x", "a b c", "-a=b", "a=b c"] {
            assert_eq!(labels(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
