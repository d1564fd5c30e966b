//! `config explain`: what can be configured, how, and what holds if it is not.

use anyhow::{Result, bail};
use api::v3::felix::{PARAMETERS, Parameter};
use config::{environment, find, similar, values};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::{ConfigExplainArgs, ResultOutput};
use crate::print::{Out, Table};

pub(crate) fn explain(args: &ConfigExplainArgs) -> Result<Outcome> {
    let mut out = Out::new();
    match (&args.name, args.output) {
        (Some(name), output) => {
            let row = known(name)?;
            match output {
                ResultOutput::Json => out.line(&facts(row).to_string())?,
                ResultOutput::Text => out.line(&text(row))?,
            }
        }
        (None, ResultOutput::Json) => {
            for row in PARAMETERS {
                out.line(&facts(row).to_string())?;
            }
        }
        (None, ResultOutput::Text) => {
            let mut table = Table::new(["NAME", "DEFAULT", "VALUES"]);
            for row in PARAMETERS {
                table.row([row.name, shown(row.default), values(row.kind).as_str()]);
            }
            out.table(&table)?;
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// The parameter that `name` means.
pub(crate) fn known(name: &str) -> Result<&'static Parameter> {
    if let Some(row) = find(name) {
        return Ok(row);
    }
    match similar(name) {
        none if none.is_empty() => bail!("no parameter is called {name:?}"),
        some => bail!("no parameter is called {name:?}; there is {}", some.join(", ")),
    }
}

fn shown(default: &str) -> &str {
    if default.is_empty() { "-" } else { default }
}

fn facts(row: &Parameter) -> Value {
    json!({
        "name": row.name, "aliases": row.aliases, "about": row.about, "values": values(row.kind),
        "default": row.default, "environment": environment(row), "field": row.field,
        "stopsIfBad": row.die_on_fail,
    })
}

fn text(row: &Parameter) -> String {
    let mut lines = vec![row.name.to_owned(), format!("  {}", row.about), String::new()];
    let mut fact = |what: &str, text: &str| lines.push(format!("  {what:<13}{text}"));
    fact("values", &values(row.kind));
    fact("default", shown(row.default));
    fact("environment", &environment(row));
    match row.field {
        "" => fact("resource", "none: only by environment or file"),
        field => fact("resource", &format!("FelixConfiguration, spec.{field}")),
    }
    if !row.aliases.is_empty() {
        fact("also", &row.aliases.join(", "));
    }
    fact(
        "a bad value",
        if row.die_on_fail { "stops the agent" } else { "is told, the default is used" },
    );
    lines.join("\n")
}
