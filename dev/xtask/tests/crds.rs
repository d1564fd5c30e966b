//! The committed CustomResourceDefinitions are those that the types give.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_committed_definitions_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
    let wanted = xtask::definition_files();
    let mut stale = Vec::new();
    for (file, text) in &wanted {
        if fs::read_to_string(folder.join(file)).unwrap_or_default() != *text {
            stale.push(file.clone());
        }
    }
    let mut there = BTreeSet::new();
    for layout in fs::read_dir(&folder).unwrap() {
        let layout = layout.unwrap();
        for file in fs::read_dir(layout.path()).unwrap() {
            there.insert(PathBuf::from(layout.file_name()).join(file.unwrap().file_name()));
        }
    }
    stale.extend(there.into_iter().filter(|file| !wanted.contains_key(file)));
    assert!(stale.is_empty(), "run `make crds`: {stale:?}");
}

#[test]
fn the_committed_manifests_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let stale = |(file, text): &(PathBuf, String)| {
        fs::read_to_string(folder.join(file)).unwrap_or_default() != *text
    };
    let stale: Vec<_> = xtask::manifest_files().into_iter().filter(stale).map(|f| f.0).collect();
    assert!(stale.is_empty(), "run `make crds`: {stale:?}");
}
