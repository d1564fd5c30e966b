//! Chores: tidy test, generation of schemas, CustomResourceDefinitions and manifests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::Layout;
use api::installation::{AGGREGATED, Placement, WEBHOOKS};
use serde_json::Value;

/// The image that the manifests name; whoever installs names another.
const IMAGE: &str = "calico/calico:latest";

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

/// The text of every other generated file in `manifests`, by its name there.
///
/// # Panics
/// If an object cannot be written as YAML.
#[must_use]
pub fn manifest_files() -> BTreeMap<PathBuf, String> {
    let at = |namespace| Placement { namespace, image: IMAGE, replicas: 1, serving: None };
    let files = [
        ("admission.yaml", api::admission_policies()),
        ("apiserver.yaml", api::installation::aggregation(at(AGGREGATED.0))),
        ("webhooks.yaml", api::installation::webhooks(at(WEBHOOKS.0))),
    ];
    let text = |objects: &[Value]| {
        let write = |object| serde_saphyr::to_string(object).expect("JSON can be written as YAML");
        objects.iter().map(write).collect::<Vec<_>>().join("---\n")
    };
    files.map(|(name, objects)| (name.into(), format!("{HEAD}{}", text(&objects)))).into()
}
