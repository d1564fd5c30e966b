//! Validation: types, presence, ranges, lengths, patterns, formats, alternatives.

use std::collections::HashSet;

use serde_json::Value;

use crate::format;
use crate::node::{Id, ListType, Node, Rules, Tree, Type};
use crate::schema::FieldError;
use crate::walk::Path;

const INVALID: &str = "FieldValueInvalid";
const REQUIRED: &str = "FieldValueRequired";
const NOT_SUPPORTED: &str = "FieldValueNotSupported";
const TYPE_INVALID: &str = "FieldValueTypeInvalid";
const TOO_LONG: &str = "FieldValueTooLong";
const TOO_MANY: &str = "FieldValueTooMany";
const DUPLICATE: &str = "FieldValueDuplicate";

struct Validator<'a> {
    tree: &'a Tree,
    /// Null counts as absent everywhere.
    lenient: bool,
    errors: Vec<FieldError>,
}

pub(crate) fn object(tree: &Tree, root: Id, value: &Value, lenient: bool) -> Vec<FieldError> {
    let mut validator = Validator { tree, lenient, errors: Vec::new() };
    validator.value(root, value, &Path::Root);
    validator.errors
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wanted(types: Type) -> &'static str {
    match types {
        Type::Any => "anything",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer,string",
        Type::Quantity => "quantity",
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
}

pub(crate) fn fits(types: Type, value: &Value) -> bool {
    match types {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => is_integer(value) || value.is_string(),
        Type::Quantity => value.is_number() || value.as_str().is_some_and(format::is_quantity),
    }
}

impl Validator<'_> {
    fn report(&mut self, field: &Path<'_>, reason: &'static str, message: String) {
        self.errors.push(FieldError { field: field.to_string(), reason, message });
    }

    fn invalid(&mut self, field: &Path<'_>, value: &Value, what: &str) {
        self.report(field, INVALID, format!("Invalid value: {value}: {field} in body {what}"));
    }

    fn value(&mut self, id: Id, value: &Value, path: &Path<'_>) {
        let node = self.tree.node(id);
        if value.is_null() && (node.nullable || self.lenient) {
            return;
        }
        if !fits(node.types, value) {
            let (want, got) = (wanted(node.types), type_name(value));
            let message = format!(
                "Invalid value: \"{got}\": {path} in body must be of type {want}: \"{got}\""
            );
            self.report(path, TYPE_INVALID, message);
            return;
        }
        if let Some(rules) = &node.rules {
            self.rules(rules, value, path);
        }
        match value {
            Value::Object(map) => {
                for name in &node.required {
                    if map.get(&**name).is_none_or(|v| self.lenient && v.is_null()) {
                        self.report(
                            &Path::Field(path, name),
                            REQUIRED,
                            "Required value".to_owned(),
                        );
                    }
                }
                for (name, inner) in map {
                    if let Some(child) = node.field(name).or(node.extra) {
                        self.value(child, inner, &Path::Field(path, name));
                    }
                }
                if node.embedded {
                    self.embedded(value, path);
                }
            }
            Value::Array(list) => {
                if let Some(items) = node.items {
                    for (i, inner) in list.iter().enumerate() {
                        self.value(items, inner, &Path::Item(path, i));
                    }
                }
                self.distinct(node, list, path);
            }
            _ => (),
        }
    }

    fn embedded(&mut self, value: &Value, path: &Path<'_>) {
        for name in ["apiVersion", "kind"] {
            if value[name].as_str().is_none_or(str::is_empty) {
                self.report(
                    &Path::Field(path, name),
                    REQUIRED,
                    "Required value: must not be empty".to_owned(),
                );
            }
        }
    }

    /// Items of a set, and the keys of a list that is a map, occur once.
    fn distinct(&mut self, node: &Node, list: &[Value], path: &Path<'_>) {
        // Built-in kinds check this, where they do, in rules of their own.
        if self.lenient || node.list == ListType::Atomic {
            return;
        }
        let key_of = |item: &Value| match &node.list {
            ListType::Map(keys) => Value::Array(keys.iter().map(|k| item[&**k].clone()).collect()),
            _ => item.clone(),
        };
        // A table of what was seen: the list may be as long as a body can hold.
        let mut seen = HashSet::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            let key = key_of(item);
            if seen.contains(&key) {
                self.report(&Path::Item(path, i), DUPLICATE, format!("Duplicate value: {key}"));
            } else {
                seen.insert(key);
            }
        }
    }

    fn rules(&mut self, rules: &Rules, value: &Value, path: &Path<'_>) {
        if !rules.one_of_values.is_empty() && !rules.one_of_values.contains(value) {
            let list: Vec<String> = rules.one_of_values.iter().map(Value::to_string).collect();
            let message =
                format!("Unsupported value: {value}: supported values: {}", list.join(", "));
            self.report(path, NOT_SUPPORTED, message);
        }
        match value {
            Value::Number(number) => {
                self.number(rules, number.as_f64().unwrap_or_default(), value, path);
            }
            Value::String(text) => self.string(rules, text, value, path),
            Value::Array(list) => self.list(rules, list, value, path),
            Value::Object(map) => self.sizes(rules, map.len() as u64, value, path),
            _ => (),
        }
        self.alternatives(rules, value, path);
    }

    fn number(&mut self, rules: &Rules, number: f64, value: &Value, path: &Path<'_>) {
        if let Some((bound, exclusive)) = rules.minimum
            && (number < bound || (exclusive && number <= bound))
        {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            self.invalid(path, value, &format!("should be {than} {bound}"));
        }
        if let Some((bound, exclusive)) = rules.maximum
            && (number > bound || (exclusive && number >= bound))
        {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            self.invalid(path, value, &format!("should be {than} {bound}"));
        }
        if let Some(step) = rules.multiple_of
            && (number / step).fract() != 0.0
        {
            self.invalid(path, value, &format!("should be a multiple of {step}"));
        }
        if let Some(name) = &rules.format
            && !format::fits_number(name, value)
        {
            self.invalid(path, value, &format!("must be of type {name}"));
        }
    }

    fn string(&mut self, rules: &Rules, text: &str, value: &Value, path: &Path<'_>) {
        let length = text.chars().count() as u64;
        if let Some(least) = rules.length.0.filter(|l| length < *l) {
            self.invalid(path, value, &format!("should be at least {least} chars long"));
        }
        if let Some(most) = rules.length.1.filter(|l| length > *l) {
            self.report(path, TOO_LONG, format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(pattern) = rules.pattern.as_ref().filter(|p| !p.matches(text)) {
            self.invalid(path, value, &format!("should match '{}'", pattern.text));
        }
        if let Some(name) = rules.format.as_ref().filter(|f| !format::fits_string(f, text)) {
            self.invalid(path, value, &format!("must be of type {name}: {value}"));
        }
    }

    fn list(&mut self, rules: &Rules, list: &[Value], value: &Value, path: &Path<'_>) {
        let length = list.len() as u64;
        if let Some(least) = rules.items.0.filter(|l| length < *l) {
            self.invalid(path, value, &format!("should have at least {least} items"));
        }
        if let Some(most) = rules.items.1.filter(|l| length > *l) {
            self.report(
                path,
                TOO_MANY,
                format!("Too many: {length}: must have at most {most} items"),
            );
        }
        if rules.unique && list.iter().enumerate().any(|(i, v)| list[..i].contains(v)) {
            self.invalid(path, value, "shouldn't contain duplicates");
        }
    }

    fn sizes(&mut self, rules: &Rules, count: u64, value: &Value, path: &Path<'_>) {
        if let Some(least) = rules.properties.0.filter(|l| count < *l) {
            self.invalid(path, value, &format!("should have at least {least} properties"));
        }
        if let Some(most) = rules.properties.1.filter(|l| count > *l) {
            self.report(
                path,
                TOO_MANY,
                format!("Too many: {count}: must have at most {most} items"),
            );
        }
    }

    fn alternatives(&mut self, rules: &Rules, value: &Value, path: &Path<'_>) {
        for id in &rules.all_of {
            self.value(*id, value, path);
        }
        let holds = |id: &Id| object(self.tree, *id, value, self.lenient).is_empty();
        let any = rules.any_of.is_empty() || rules.any_of.iter().any(holds);
        let one =
            rules.one_of.is_empty() || rules.one_of.iter().filter(|id| holds(id)).count() == 1;
        let not = rules.not.as_ref().is_some_and(holds);
        if !any {
            self.invalid(path, value, "must validate at least one schema (anyOf)");
        }
        if !one {
            self.invalid(path, value, "must validate one and only one schema (oneOf)");
        }
        if not {
            self.invalid(path, value, "must not validate the schema (not)");
        }
    }
}
