//! Tables of who reaches whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::probe::Outcome;

/// A cell of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What the connection did.
    pub(crate) measured: bool,
    /// What the policies say, where they were asked.
    pub(crate) said: Option<bool>,
}

impl Cell {
    fn text(self) -> &'static str {
        match (self.measured, self.said) {
            (true, None | Some(true)) => "yes",
            (false, None | Some(false)) => " - ",
            (true, Some(false)) => "YES≠no",
            (false, Some(true)) => "NO≠yes",
        }
    }
}

/// Rows are sources, columns are targets.
pub(crate) fn table(
    cells: &BTreeMap<(String, String), Cell>,
    rows: &[String],
    columns: &[String],
) -> String {
    let width = rows.iter().map(String::len).max().unwrap_or(0).max(10);
    let mut text = String::new();
    let mut legend = Vec::new();
    let mut head = format!("{:width$}", "from \\ to");
    for (i, column) in columns.iter().enumerate() {
        let _ = write!(head, "  {:<6}", format!("[{}]", i + 1));
        legend.push(format!("[{}] {column}", i + 1));
    }
    text.push_str(&head);
    for row in rows {
        let _ = write!(text, "\n{row:width$}");
        for column in columns {
            let cell = cells.get(&(row.clone(), column.clone()));
            let _ = write!(text, "  {:<6}", cell.map_or("  ", |c| c.text()));
        }
    }
    text.push('\n');
    text.push_str(&legend.join("   "));
    text
}

/// What a probe measured, beside what the policies say if they were asked.
pub(crate) fn of_outcomes(outcomes: &[Outcome]) -> String {
    let cells: BTreeMap<(String, String), Cell> = outcomes
        .iter()
        .map(|o| {
            let cell = Cell { measured: o.reachable, said: o.said() };
            ((o.from.clone(), o.to.clone()), cell)
        })
        .collect();
    let rows: BTreeSet<_> = cells.keys().map(|k| k.0.clone()).collect();
    let columns: BTreeSet<_> = cells.keys().map(|k| k.1.clone()).collect();
    table(&cells, &rows.into_iter().collect::<Vec<_>>(), &columns.into_iter().collect::<Vec<_>>())
}
