//! The embedded server beside the API server of Kubernetes with our CustomResourceDefinitions: the same commands, the
//! same answers; and what those definitions let through beside what our own checks do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::OnceLock;

use sides::{kubernetes, real};
use testkit::{ControlPlane, Controllers};

#[path = "../kubectl/bad.rs"]
mod bad;
mod judged;
mod script;
mod sides;

/// One for all tests here: it serves our kinds. Its supervisor ends it with this process.
fn plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| {
        let plane = ControlPlane::start(Controllers::Running);
        plane.define("v3");
        plane
    })
}

/// A Calico Node is a view of the core Node, which only servers of ours can give.
const VIEWS: [&str; 1] = ["node-route-reflector.yaml"];

#[test]
fn every_example_is_accepted() {
    let side = real();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    // Where some of them live; a dry run does not make it.
    side.run("create namespace my-namespace", "");
    let mut tried = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let said =
            side.ask("apply --dry-run=server -f -", &std::fs::read_to_string(&path).unwrap());
        assert_eq!(said.success, !VIEWS.contains(&&*name), "{name}: {}{}", said.out, said.err);
        tried += 1;
    }
    assert!(tried >= 11, "only {tried} examples");
}

/// On a server of its own: the same plurals in two groups would make the short names of the other tests ambiguous.
#[test]
fn the_older_layout_is_accepted_too() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v1");
    let side = kubernetes(plane.kubeconfig());
    let names = side.run("api-resources --api-group=crd.projectcalico.org -o name", "");
    assert_eq!(names.lines().count(), 22, "{names}");
    let affinity = "apiVersion: crd.projectcalico.org/v1\nkind: BlockAffinity\nmetadata: {name: node-1-10-0-0-0-26}\n\
                    spec: {state: confirmed, node: node-1, cidr: 10.0.0.0/26, deleted: 'false'}\n";
    side.run("create -f -", affinity);
    let refused = side.ask(
        "create --dry-run=server -f -",
        &affinity.replace("'false'", "false").replace("node-1-", "other-"),
    );
    assert!(refused.err.contains("spec.deleted"), "a text there: {}", refused.err);
}
