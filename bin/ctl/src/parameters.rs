//! `config explain`: what can be configured, how, and what holds if it is not.

use anyhow::{Result, bail};
use api::v3::felix::{Applied, Parameter};
use config::{Component, Row, applied, find, similar, values};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::{ConfigExplainArgs, ResultOutput};
use crate::print::{Out, Table};

pub(crate) fn explain(args: &ConfigExplainArgs) -> Result<Outcome> {
    let mut out = Out::new();
    let rows = match &args.name {
        Some(name) => known(name)?,
        None => Component::ALL.into_iter().flat_map(Component::rows).collect(),
    };
    match (args.output, args.name.is_some()) {
        (ResultOutput::Json, _) => {
            for row in &rows {
                out.line(&facts(row).to_string())?;
            }
        }
        (ResultOutput::Text, true) => {
            let texts: Vec<_> = rows.iter().map(text).collect();
            out.line(&texts.join("\n\n"))?;
        }
        (ResultOutput::Text, false) => {
            let mut table = Table::new(["PROGRAM", "NAME", "DEFAULT", "A CHANGE", "VALUES"]);
            for row in &rows {
                let Parameter { name, default, kind, applied, .. } = *row.parameter;
                let values = values(kind);
                table.row([row.component.name(), name, shown(default), word(applied), &values]);
            }
            out.table(&table)?;
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// The settings that `name` means: programs may share one.
pub(crate) fn known(name: &str) -> Result<Vec<Row>> {
    let found = find(name);
    if !found.is_empty() {
        return Ok(found);
    }
    match similar(name) {
        none if none.is_empty() => bail!("no parameter is called {name:?}"),
        some => bail!("no parameter is called {name:?}; there is {}", some.join(", ")),
    }
}

fn shown(default: &str) -> &str {
    if default.is_empty() { "-" } else { default }
}

fn word(applied: Applied) -> &'static str {
    match applied {
        Applied::Live => "live",
        Applied::Restart => "restart",
        Applied::Unused => "unused",
    }
}

fn facts(row: &Row) -> Value {
    let parameter = row.parameter;
    json!({
        "component": row.component.name(), "name": parameter.name, "aliases": parameter.aliases,
        "about": parameter.about, "values": values(parameter.kind), "default": parameter.default,
        "environment": row.environment(), "resource": row.component.resource(),
        "field": parameter.field, "stopsIfBad": parameter.die_on_fail,
        "applied": word(parameter.applied),
    })
}

fn text(row: &Row) -> String {
    let parameter = row.parameter;
    let mut lines =
        vec![parameter.name.to_owned(), format!("  {}", parameter.about), String::new()];
    let mut fact = |what: &str, text: &str| lines.push(format!("  {what:<13}{text}"));
    fact("program", row.component.describe());
    fact("values", &values(parameter.kind));
    fact("default", shown(parameter.default));
    fact("environment", row.environment().as_deref().unwrap_or("none"));
    match (row.component.resource(), parameter.field) {
        (None, _) => {}
        (Some(_), "") => fact("resource", "none: only by environment or file"),
        (Some(kind), field) => fact("resource", &format!("{kind}, spec.{field}")),
    }
    if !parameter.aliases.is_empty() {
        fact("also", &parameter.aliases.join(", "));
    }
    let bad =
        if parameter.die_on_fail { "stops the program" } else { "is told, the default is used" };
    fact("a bad value", bad);
    fact("a change", applied(parameter));
    lines.join("\n")
}
