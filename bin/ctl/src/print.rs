//! Output: data to standard output, the rest to standard error.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::time::{Duration, Instant};

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

    /// As it is, without an end of the line.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.0.write_all(text.as_bytes()).map_err(unwritten)
    }

    /// Lines, each behind something; what is no end of a line is not made one.
    pub(crate) fn indented(&mut self, text: &str, first: &str, others: &str) -> Result<()> {
        for (i, line) in text.split_inclusive('\n').enumerate() {
            // What is empty stays empty.
            if line != "\n" {
                self.text(if i == 0 { first } else { others })?;
            }
            self.text(line)?;
        }
        Ok(())
    }

    pub(crate) fn yaml(&mut self, value: &Value) -> Result<()> {
        let text = serde_saphyr::to_string(value)?;
        self.line(&text)
    }

    /// On a terminal it is made to fit, and its headings stand out.
    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        let terminal = io::stdout().is_terminal();
        let wide = terminal.then(|| terminal_size::terminal_size_of(io::stdout())).flatten();
        let wide = wide.map(|(width, _)| usize::from(width.0));
        let text = table.aligned(wide);
        match text.split_once('\n').filter(|_| terminal && colours()) {
            Some((head, rows)) => self.text(&format!("\x1b[1m{head}\x1b[0m\n{rows}")),
            None => self.line(&text),
        }
    }

    /// What has been said so far is seen now.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.0.flush().map_err(unwritten)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// Whether a terminal is shown colours: see <https://no-color.org>.
fn colours() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// One line on standard error. Nobody can be told if that fails.
pub(crate) fn complain(text: &str) {
    let name = if io::stderr().is_terminal() && colours() {
        "\x1b[1;31mcalicoctl:\x1b[0m"
    } else {
        "calicoctl:"
    };
    let _ = writeln!(io::stderr(), "{name} {text}");
}

/// How far long work has come: a line on standard error that is written over, where people see it and nothing
/// else is written on the same terminal.
pub(crate) struct Progress {
    what: &'static str,
    all: usize,
    done: usize,
    shown: Option<Instant>,
    on: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, all: usize) -> Self {
        let on = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { what, all, done: 0, shown: None, on }
    }

    /// One more is done.
    pub(crate) fn step(&mut self) {
        self.done += 1;
        if self.on && self.shown.is_none_or(|at| at.elapsed() > Duration::from_millis(100)) {
            self.shown = Some(Instant::now());
            let _ = write!(io::stderr(), "\r{} {}/{}\x1b[K", self.what, self.done, self.all);
        }
    }

    /// Makes room for another line.
    pub(crate) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
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

    /// Columns three spaces apart. If it must not be wider than `most`, long values are cut, but no names.
    pub(crate) fn aligned(&self, most: Option<usize>) -> String {
        let mut widths = self.widths();
        if let Some(most) = most {
            self.narrow(&mut widths, most);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                match cell.char_indices().nth(width.saturating_sub(1)) {
                    Some((end, _)) if cell.chars().count() > *width => {
                        pad(&mut line, "", &format!("{}…", &cell[..end]), *width, "   ");
                    }
                    _ => pad(&mut line, "", cell, *width, "   "),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Makes the widest columns narrower until all fit.
    fn narrow(&self, widths: &mut [usize], most: usize) {
        let Some(headings) = self.rows.first() else { return };
        let kept = ["NAME", "NAMESPACE", "WORKLOAD"];
        loop {
            let total: usize = widths.iter().sum::<usize>() + 3 * widths.len().saturating_sub(1);
            let excess = total.saturating_sub(most);
            let cut = widths.iter().enumerate().filter(|(column, width)| {
                let heading = headings.get(*column).map_or("", String::as_str);
                **width > heading.chars().count().max(8) && !kept.contains(&heading)
            });
            let Some((widest, _)) = cut.max_by_key(|(_, width)| **width) else { return };
            if excess == 0 {
                return;
            }
            widths[widest] -= 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit() {
        let mut table = Table::new(["NAME", "SELECTOR", "NETS"]);
        table.row(["a-name-of-some-length", &"s".repeat(60), "10.0.0.0/8"]);
        table.row(["b", "é", ""]);
        let whole = table.aligned(None);
        assert!(whole.contains(&"s".repeat(60)));
        let cut = table.aligned(Some(60));
        let rows: Vec<&str> = cut.lines().collect();
        assert!(rows.iter().all(|row| row.chars().count() <= 60), "{cut}");
        assert!(
            rows[1].starts_with("a-name-of-some-length   sss") && rows[1].contains("s…"),
            "{cut}"
        );
        assert!(rows[1].ends_with("10.0.0.0/8") && rows[2] == "b                       é", "{cut}");
        // Names are never cut, nor anything below what is legible.
        assert!(table.aligned(Some(5)).contains("a-name-of-some-length   sssssss…"));
    }
}
