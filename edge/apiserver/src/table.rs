//! `Table` output: the columns that `kubectl get` prints.

use serde_json::{Value, json};

use crate::negotiate::metadata_only;
use crate::registry::{Column, Origin, Resource};
use crate::table_rows as rows;

/// The objects, in shown form, as a table. `include` is `None`, `Metadata` or `Object`.
pub(crate) fn table(resource: &Resource, objects: &[Value], include: &str, columns: bool) -> Value {
    let layout = layout(resource);
    let row = |object: &Value| {
        let cells: Vec<Value> = layout.iter().map(|(_, cell)| cell.of(object)).collect();
        let mut row = json!({"cells": cells});
        match include {
            "None" => {}
            "Object" => row["object"] = object.clone(),
            _ => row["object"] = metadata_only(object),
        }
        row
    };
    let definitions: Vec<Value> = if columns {
        layout.iter().map(|(column, _)| definition(column)).collect()
    } else {
        Vec::new()
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": definitions,
        "rows": objects.iter().map(row).collect::<Vec<_>>(),
    })
}

fn definition(column: &Column) -> Value {
    let format = if column.name == "Name" { "name" } else { "" };
    json!({"name": column.name, "type": column.kind, "format": format,
        "description": format!("{} of the object", column.name), "priority": column.priority})
}

/// How a cell is read from an object.
pub(crate) enum Cell {
    Path(String),
    Date(String),
    Code(fn(&Value) -> Value),
}

impl Cell {
    fn of(&self, object: &Value) -> Value {
        match self {
            Self::Path(path) => plain(rows::lookup(object, path)),
            Self::Date(path) => match rows::lookup(object, path).first().and_then(|v| v.as_str()) {
                Some(time) => rows::age(time).into(),
                None => "<none>".into(),
            },
            Self::Code(code) => code(object),
        }
    }
}

/// What a path found, as one cell.
fn plain(found: Vec<&Value>) -> Value {
    match found.as_slice() {
        [] | [Value::Null] => Value::String("<none>".into()),
        [one @ (Value::String(_) | Value::Number(_) | Value::Bool(_))] => (*one).clone(),
        [one] => one.to_string().into(),
        many => {
            let texts =
                many.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join(",").into()
        }
    }
}

type Layout = Vec<(Column, Cell)>;

fn layout(resource: &Resource) -> Layout {
    let named = |name: &str, kind: &str, priority: i64| Column {
        name: name.into(),
        kind: kind.into(),
        path: String::new(),
        priority,
    };
    let mut layout: Layout =
        vec![(named("Name", "string", 0), Cell::Path(".metadata.name".into()))];
    let code = match resource.origin {
        Origin::Builtin => rows::builtin(&resource.group, &resource.plural),
        _ => None,
    };
    if let Some(columns) = code {
        for (name, kind, priority, cell) in columns {
            layout.push((named(name, kind, *priority), Cell::Code(*cell)));
        }
        return layout;
    }
    for column in &resource.columns {
        let cell = match column.kind.as_str() {
            "date" => Cell::Date(column.path.clone()),
            _ => Cell::Path(column.path.clone()),
        };
        layout.push((column.clone(), cell));
    }
    let age = |c: &Column| c.name.eq_ignore_ascii_case("age");
    if resource.columns.is_empty()
        || !resource.columns.iter().any(age) && resource.origin == Origin::Calico
    {
        let created = ".metadata.creationTimestamp".to_owned();
        layout.push((named("Age", "string", 0), Cell::Date(created)));
    }
    layout
}
