//! What is said to users.

use std::io::Write;

use clap::ValueEnum;

/// How a command shows what it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// A line to standard output; a reader that has gone away is no error.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// A line to standard error.
pub(crate) fn tell(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
