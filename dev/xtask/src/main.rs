//! Chores that are too long for a Makefile and too rare for a tool of their own.

mod schema;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "usage: xtask schema <swagger.json> | xtask crds";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["schema", swagger] => {
            schema::generate(Path::new(swagger), &root.join("core/openapi/data/builtin.json"))
        }
        ["crds"] => {
            write_manifests(&root.join("manifests"))?;
            write_definitions(&root.join("manifests/crds"))
        }
        _ => bail!(USAGE),
    }
}

fn write_manifests(folder: &Path) -> Result<()> {
    for (file, text) in xtask::manifest_files() {
        let path = folder.join(file);
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

/// Writes the folder anew: a kind that is gone leaves no file behind.
fn write_definitions(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    for (file, text) in xtask::definition_files() {
        let path = folder.join(file);
        let parent = path.parent().expect("it is below the folder");
        fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}
