//! Templates of Go's `text/template`, for `get -o go-template=`.
//!
//! Goes in: a template, a JSON value. Comes out: text. All of the language is there: `if`, `range`, `with`, each with
//! `else` and `else if`; `define`, `block` and `template`; `break` and `continue`; variables, pipelines, parentheses,
//! comments, trim markers; the functions that are built in there but `call`, and `join` and `joinAndTruncate`.
//!
//! Values are JSON, not Go's structs: fields have their names in YAML. Names of Go's fields are understood as well
//! (`.ObjectMeta.Name`, `.Spec.IPIPMode`), since templates for upstream's tool use them. The template is executed with
//! a list of what each question brought; if that is one thing, its fields can be named directly, as with kubectl.
//!
//! Invariants: nothing panics, whatever the template; nesting is bounded.
//!
//! Start reading at [`Template`], then `parse`, then `run`.

mod functions;
mod lex;
mod parse;
mod printf;
mod run;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;

use parse::Node;

/// Blocks within blocks, and parentheses within parentheses.
const MOST_NESTED: usize = 100;

/// A template that has been read.
#[derive(Debug)]
pub(crate) struct Template {
    main: Vec<Node>,
    /// By `define` and `block`.
    named: HashMap<String, Vec<Node>>,
}

/// What is wrong, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateError {
    line: usize,
    message: String,
}

impl TemplateError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Where it is not one.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (main, named) = parse::parse(lex::lex(text)?)?;
        Ok(Self { main, named })
    }

    /// What it makes of a list of results.
    ///
    /// # Errors
    /// With what was made before it failed.
    pub(crate) fn execute(&self, results: &Value) -> Result<String, (String, TemplateError)> {
        run::run(&self.main, &self.named, results)
    }
}
