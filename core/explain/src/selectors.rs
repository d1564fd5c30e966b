//! Questions about selectors.

use std::collections::BTreeMap;

use selector::{ParseError, Selector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a selector is, once read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The one text that all selectors of this meaning-preserving form have.
    pub canonical: String,
    /// The id that is made from it.
    pub id: String,
}

/// Reads a selector.
///
/// # Errors
/// With the place of what is wrong.
pub fn check(text: &str) -> Result<Checked, ParseError> {
    let selector = Selector::parse(text)?;
    Ok(Checked { canonical: selector.canonical().to_owned(), id: selector.id().to_owned() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckLine {
    selector: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchLine {
    selector: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn bad_selector(error: &ParseError) -> Value {
    json!({"error": error.message, "at": error.at})
}

fn bad_line(error: &serde_json::Error) -> Value {
    json!({"error": error.to_string()})
}

/// One line of a batch: `{"selector"}` in; `{"canonical","id"}` or `{"error","at"}` out.
pub fn check_line(line: &str) -> String {
    let answer = match serde_json::from_str::<CheckLine>(line) {
        Err(error) => bad_line(&error),
        Ok(line) => check(&line.selector).map_or_else(|e| bad_selector(&e), |c| json!(c)),
    };
    answer.to_string()
}

/// One line of a batch: `{"selector","labels"}` in; `{"match"}` or `{"error","at"}` out.
pub fn match_line(line: &str) -> String {
    let answer = match serde_json::from_str::<MatchLine>(line) {
        Err(error) => bad_line(&error),
        Ok(line) => Selector::parse(&line.selector).map_or_else(
            |e| bad_selector(&e),
            |selector| json!({"match": selector.matches(&line.labels)}),
        ),
    };
    answer.to_string()
}
