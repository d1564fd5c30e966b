//! Output: data to standard output, the rest to standard error.

use std::io::{self, BufWriter, StdoutLock, Write as _};

use anyhow::Result;
use serde_json::Value;

/// Standard output, written at once.
pub(crate) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub(crate) fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.write_all(end)).map_err(unwritten)
    }

    pub(crate) fn yaml(&mut self, value: &Value) -> Result<()> {
        let text = serde_saphyr::to_string(value)?;
        self.line(&text)
    }

    pub(crate) fn json(&mut self, value: &Value) -> Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(&text)
    }

    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        self.line(&table.aligned())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// One line on standard error. Nobody can be told if that fails.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "calicoctl: {text}");
}

/// The reader of standard output has gone. A peer that went away is something else.
#[derive(Debug)]
struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the output")
    }
}

impl std::error::Error for ReaderGone {}

fn unwritten(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::from(error).context("cannot write the output"),
    }
}

/// Whether the reader of our output has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.is::<ReaderGone>()
}

/// `1 object`, `2 objects`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Rows of words under headings.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |c: usize| {
            self.rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    /// Columns three spaces apart.
    pub(crate) fn aligned(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                pad(&mut line, "", cell, *width, "   ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Columns between lines.
    pub(crate) fn boxed(&self) -> String {
        let widths = self.widths();
        let mut rule = String::new();
        for width in &widths {
            rule.push('+');
            rule.extend(std::iter::repeat_n('-', width + 2));
        }
        rule.push_str("+\n");
        let mut text = rule.clone();
        for (i, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                pad(&mut text, "| ", cell, *width, " ");
            }
            text.push_str("|\n");
            if i == 0 {
                text.push_str(&rule);
            }
        }
        text + &rule
    }
}

/// Appends a cell, filled up with spaces.
fn pad(text: &mut String, before: &str, cell: &str, width: usize, after: &str) {
    text.push_str(before);
    text.push_str(cell);
    text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
    text.push_str(after);
}

/// The value at a column's path, as one word or a list of words.
pub(crate) fn cell(object: &Value, path: &str) -> String {
    let mut at = object;
    for key in path.split('.').filter(|k| !k.is_empty()) {
        match at.get(key) {
            Some(next) => at = next,
            None => return String::new(),
        }
    }
    word(at)
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
        Value::Number(n) if n.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 1e15) => {
            format!("{}", n.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}
