//! `validate`: every document, every error, no cluster.

use anyhow::Result;
use serde_json::json;

use crate::Outcome;
use crate::args::{ResultOutput, ValidateArgs};
use crate::files::{Loaded, load};
use crate::print::{self, Out};

pub(crate) fn validate(args: &ValidateArgs) -> Result<Outcome> {
    let all = load(&args.files)?;
    let bad = all.iter().filter(|l| !l.errors.is_empty()).count();
    let mut out = Out::new();
    if args.output == ResultOutput::Json {
        for loaded in &all {
            out.line(&line(loaded).to_string())?;
        }
    } else {
        tell(&all);
        let good = all.len() - bad;
        out.line(&match bad {
            0 => format!("{} valid", print::count(good, "object")),
            _ => format!("{} valid, {bad} invalid", print::count(good, "object")),
        })?;
    }
    out.finish()?;
    Ok(if bad == 0 { Outcome::Done } else { Outcome::Failed })
}

fn line(loaded: &Loaded) -> serde_json::Value {
    json!({
        "file": loaded.file,
        "document": loaded.document,
        "kind": loaded.kind_name(),
        "namespace": loaded.namespace(),
        "name": loaded.name(),
        "valid": loaded.errors.is_empty(),
        "errors": loaded.errors,
    })
}

/// Writes every error on standard error, a line each.
pub(crate) fn tell(all: &[Loaded]) {
    for loaded in all {
        for error in &loaded.errors {
            let field = if error.field.is_empty() { "" } else { &format!("{}: ", error.field) };
            print::complain(&format!("{}: {field}{}", loaded.place(), error.message));
        }
    }
}
