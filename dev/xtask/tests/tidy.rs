//! The rules of the house that a compiler does not check. Plain tests over `cargo metadata` and the
//! files: no network, no build.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Edges between `edge` crates that ARCHITECTURE.md allows, beside `telemetry`, which all may use.
const EDGE_TO_EDGE: &[(&str, &str)] = &[
    ("syncer", "datastore"),
    ("store", "apiserver"),
    ("remote", "apiserver"),
    ("remote", "datastore"),
    ("delegate", "apiserver"),
    ("delegate", "datastore"),
    ("nft", "netlink"),
    ("route", "netlink"),
    ("flows", "netlink"),
    ("hooks", "netlink"),
    ("hooks", "nft"),
];

/// What may never reach a `core` crate: sockets, clocks, runtimes.
const NOT_IN_CORE: &[&str] =
    &["tokio", "hyper", "kube", "nix", "libc", "rusqlite", "rustls", "netlink-sys", "tracing"];

struct Crate {
    name: String,
    layer: String,
    dependencies: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn workspace() -> BTreeMap<String, Crate> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|p| {
            let manifest = PathBuf::from(text(&p["manifest_path"]));
            let folder = manifest.parent().unwrap().strip_prefix(root()).unwrap().to_owned();
            let layer = folder.iter().next().unwrap().to_string_lossy().into_owned();
            let dependencies = p["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|d| d["kind"].is_null()).map(|d| text(&d["name"]));
            let name = text(&p["name"]);
            assert_eq!(folder.file_name().unwrap().to_string_lossy(), name, "folder = crate name");
            (name.clone(), Crate { name, layer, dependencies: normal.collect() })
        })
        .collect()
}

#[test]
fn the_folder_is_the_layering_rule() {
    let crates = workspace();
    let mut broken = Vec::new();
    for c in crates.values() {
        for d in &c.dependencies {
            let Some(target) = crates.get(d) else {
                if c.layer == "core" && NOT_IN_CORE.contains(&d.as_str()) {
                    broken.push(format!("core/{} must not use {d}", c.name));
                }
                continue;
            };
            let allowed = match (c.layer.as_str(), target.layer.as_str()) {
                ("core" | "edge", "core")
                | ("bin", "core" | "edge" | "bin")
                | ("dev", "core" | "edge" | "dev") => true,
                ("edge", "edge") => {
                    d == "telemetry" || EDGE_TO_EDGE.contains(&(c.name.as_str(), d.as_str()))
                }
                _ => false,
            };
            if !allowed {
                broken.push(format!("{}/{} must not use {}/{d}", c.layer, c.name, target.layer));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn core_names_no_clock_socket_thread_or_file() {
    let banned = [
        "std::net::Tcp",
        "std::net::Udp",
        "std::fs",
        "std::thread",
        "Instant::now",
        "SystemTime::now",
        "std::env",
        "std::process",
    ];
    let mut broken = Vec::new();
    for file in rust_files(&root().join("core")) {
        let path = file.strip_prefix(root()).unwrap().to_owned();
        let in_tests =
            path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches");
        if in_tests || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (n, line) in code.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            if let Some(b) = banned.iter().find(|b| !comment && line.contains(**b)) {
                broken.push(format!("{}:{}: {b}", path.display(), n + 1));
            }
        }
    }
    assert!(broken.is_empty(), "core is pure:\n{}", broken.join("\n"));
}

#[test]
fn libraries_open_with_what_they_are() {
    let mut broken = Vec::new();
    for c in workspace().values().filter(|c| c.layer == "core" || c.layer == "edge") {
        let file = root().join(&c.layer).join(&c.name).join("src/lib.rs");
        let text = std::fs::read_to_string(&file).unwrap();
        let doc = text.lines().take_while(|l| l.starts_with("//!")).count();
        if doc < 5 {
            broken.push(format!(
                "{}/{}: lib.rs opens with {doc} lines of documentation",
                c.layer, c.name
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_to_be_done() {
    let stand_ins =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ig", "nore")];
    let mut broken = Vec::new();
    for file in rust_files(&root()) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (n, line) in text.lines().enumerate() {
            if stand_ins.iter().any(|s| line.contains(s)) {
                broken.push(format!("{}:{}: {}", file.display(), n + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let skip = ["target", ".git", ".cache"];
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !skip.contains(&name.to_string_lossy().as_ref()) {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}
