//! Chores: tidy test, generation of schemas and CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::Layout;

const HEAD: &str = "# Generated from the types of core/api by `make crds`; not to be edited.\n";

/// The text of every file below `manifests/crds`, by its path there.
///
/// # Panics
/// If a definition cannot be written as YAML.
#[must_use]
pub fn definition_files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for (layout, folder) in [(Layout::Native, "v3"), (Layout::Stored, "v1")] {
        for definition in api::definitions(layout) {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            let (plural, group) = name.split_once('.').unwrap_or_default();
            let text = serde_saphyr::to_string(&definition).expect("JSON can be written as YAML");
            let file = PathBuf::from(folder).join(format!("{group}_{plural}.yaml"));
            files.insert(file, format!("{HEAD}{text}"));
        }
    }
    files
}
