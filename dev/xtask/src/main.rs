//! Chores that are too long for a Makefile and too rare for a tool of their own.

mod schema;

use std::path::Path;

use anyhow::{Result, bail};

const USAGE: &str = "usage: xtask schema <swagger.json>";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["schema", swagger] => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            schema::generate(Path::new(swagger), &root.join("../../core/openapi/data/builtin.json"))
        }
        _ => bail!(USAGE),
    }
}
