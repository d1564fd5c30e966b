//! `validate` and wrong usage, as a script sees them: output, exit codes. No cluster.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::path::Path;
use std::process::Output;

use common::lines;
use serde_json::Value;

/// What a child process runs; alone it does nothing.
#[test]
fn as_calicoctl() {
    common::run_if_told();
}

fn calicoctl(folder: &Path, args: &[&str]) -> Output {
    common::calicoctl(folder, args, "")
}

const GOOD: &str =
    "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\nspec: {order: 1}\n";
const BAD: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec:
  ingress:
    - action: Allow
      protocol: TCP
      destination: {ports: [0]}
    - action: Accept
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: x
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    std::fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    std::fs::create_dir(folder.path().join("deep")).unwrap();
    std::fs::write(folder.path().join("deep/more.yaml"), GOOD).unwrap();
    std::fs::write(folder.path().join("empty.yaml"), "# nothing\n").unwrap();
    folder
}

#[test]
fn every_document_and_every_error() {
    let folder = folder();
    let output = calicoctl(folder.path(), &["validate", "-f", "bad.yaml", "-f", "good.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    for part in [
        "bad.yaml: document 1: NetworkPolicy a/p: spec.ingress[0].destination.ports[0]: port 0 is out of range",
        "bad.yaml: document 1: NetworkPolicy a/p: spec.ingress[1].action: \"Accept\" is not one of",
        "bad.yaml: document 2: line 1",
    ] {
        assert!(told.contains(part), "{part:?} missing in:\n{told}");
    }
    assert_eq!(lines(&output), ["1 object valid, 2 invalid"]);
}

#[test]
fn json_lines() {
    let folder = folder();
    let output =
        calicoctl(folder.path(), &["validate", "-o", "json", "-f", "bad.yaml", "-f", "good.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let read: Vec<Value> =
        lines(&output).iter().map(|l| serde_json::from_str(l).expect(l)).collect();
    assert_eq!(read.len(), 3);
    assert_eq!(read[0]["file"], "bad.yaml");
    assert_eq!(read[0]["document"], 1);
    let fields: Vec<_> =
        read[0]["errors"].as_array().unwrap().iter().map(|e| &e["field"]).collect();
    assert!(fields.iter().any(|f| **f == "spec.ingress[0].destination.ports[0]"), "{fields:?}");
    assert_eq!((&read[1]["kind"], &read[1]["valid"]), (&Value::Null, &Value::Bool(false)));
    let good = serde_json::json!({
        "file": "good.yaml", "document": 1, "kind": "Tier", "namespace": null, "name": "t",
        "valid": true, "errors": [],
    });
    assert_eq!(read[2], good);
}

#[test]
fn directories_and_the_examples() {
    let folder = folder();
    std::fs::remove_file(folder.path().join("bad.yaml")).unwrap();
    let flat = calicoctl(folder.path(), &["validate", "-f", ".", "--skip-empty"]);
    assert_eq!((flat.status.code(), lines(&flat)), (Some(0), vec!["1 object valid".to_owned()]));
    let deep = calicoctl(folder.path(), &["validate", "-R", "-f", ".", "--skip-empty"]);
    assert_eq!(lines(&deep), ["2 objects valid"]);
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let examples = calicoctl(folder.path(), &["validate", "-f", examples]);
    assert_eq!(examples.status.code(), Some(0), "{examples:?}");
}

#[test]
fn exit_codes() {
    let folder = folder();
    for (args, code, part) in [
        (&["validate", "-f", "empty.yaml"][..], 1, "holds no object"),
        (&["validate", "-f", "none.yaml"], 1, "cannot read none.yaml"),
        (&["validate"], 2, "no file given"),
        (&["validate", "--colour"], 2, "--colour"),
        (&["frobnicate"], 2, "frobnicate"),
        (&[], 2, "Usage"),
        (&["apply", "-f", "bad.yaml"], 1, "nothing was changed"),
        (&["apply", "-f", "good.yaml"], 1, "no cluster to talk to"),
        (&["get", "frobs"], 1, "is no kind"),
        (&["version", "--client"], 0, ""),
        (&["--help"], 0, ""),
        (&["node", "status", "--port", "1"], 1, "no agent answers"),
    ] {
        let output = calicoctl(folder.path(), args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(part), "{args:?}: {told}");
    }
}
