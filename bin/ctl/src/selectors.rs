//! `selector check` and `selector match`: one selector, or a batch of lines.

use std::collections::BTreeMap;
use std::io::BufRead as _;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::Outcome;
use crate::args::{ResultOutput, SelectorVerb};
use crate::print::{self, Out};

pub(crate) fn run(verb: &SelectorVerb) -> Result<Outcome> {
    match verb {
        SelectorVerb::Check { selector: None, .. } => lines(explain::check_line),
        SelectorVerb::Match { selector: None, .. } => lines(explain::match_line),
        SelectorVerb::Check { selector: Some(text), output } => {
            let line = explain::check_line(&json!({ "selector": text }).to_string());
            one(text, &line, *output)
        }
        SelectorVerb::Match { selector: Some(text), labels, output } => {
            let mut given = BTreeMap::new();
            for label in labels {
                let Some((key, value)) = label.split_once('=') else {
                    bail!("{label:?} is no label: want KEY=VALUE");
                };
                given.insert(key, value);
            }
            let line = json!({ "selector": text, "labels": given }).to_string();
            one(text, &explain::match_line(&line), *output)
        }
    }
}

/// A line in, a line out; a bad one does not end it.
fn lines(answer: fn(&str) -> String) -> Result<Outcome> {
    let mut out = Out::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        if !line.trim().is_empty() {
            out.line(&answer(&line))?;
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

fn one(selector: &str, line: &str, output: ResultOutput) -> Result<Outcome> {
    let answer: serde_json::Value = serde_json::from_str(line)?;
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let failed = answer.get("error").is_some();
    let mut out = Out::new();
    if output == ResultOutput::Json {
        out.line(line)?;
    } else if failed {
        print::complain(&format!("{}\n  {selector}\n  {}^", text("error"), pad(&answer, selector)));
    } else if let Some(matches) = answer["match"].as_bool() {
        out.line(if matches { "matches" } else { "does not match" })?;
    } else {
        out.line(&format!("canonical: {}\nid: {}", text("canonical"), text("id")))?;
    }
    out.finish()?;
    Ok(if failed { Outcome::Failed } else { Outcome::Done })
}

/// White space up to the place of an error.
fn pad(answer: &serde_json::Value, selector: &str) -> String {
    let at = answer["at"].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
    let before = selector.char_indices().take_while(|(i, _)| *i < at).count();
    " ".repeat(before)
}
