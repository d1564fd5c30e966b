//! A Kubernetes with `crd.projectcalico.org/v1` alone: calicoctl works on it as it is, and `calico apiserver`
//! serves what users write over it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serving;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use serving::{Serving, calico, ctl};
use testkit::{ControlPlane, Controllers, kube_program};

/// As upstream writes them.
const THEIRS: &str = r#"
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata:
  name: default.old
  annotations:
    projectcalico.org/metadata: '{"name":"old","creationTimestamp":"2024-01-02T03:04:05Z","labels":{"team":"a"},"annotations":{"note":"n"}}'
spec: {selector: all(), tier: default, types: [Ingress], order: 5, ingress: [{action: Allow, source: {}, destination: {}}]}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata:
  name: older
  labels: {team: b}
spec: {selector: all(), types: [Egress]}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata:
  name: 10-65-0-64-26
  annotations: {projectcalico.org/metadata: '{"creationTimestamp":null}'}
spec:
  cidr: 10.65.0.64/26
  affinity: host:n1
  strictAffinity: false
  allocations: [0, null]
  unallocated: [1]
  sequenceNumber: 7
  attributes: [{handle_id: k8s-pod-network.ab, secondary: {node: n1, pod: p, namespace: shop}}]
---
apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata:
  name: n1-10-65-0-64-26
  annotations: {projectcalico.org/metadata: '{"creationTimestamp":null}'}
spec: {cidr: 10.65.0.64/26, node: n1, state: confirmed, deleted: "false"}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMConfig
metadata: {name: default}
spec: {strictAffinity: true, autoAllocateBlocks: true}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {a: b}}
---
apiVersion: v1
kind: Node
metadata:
  name: n1
  annotations: {projectcalico.org/IPv4Address: 10.0.0.1/24, projectcalico.org/ASNumber: "64513"}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
"#;

const POLICY: &str = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\n\
    metadata: {name: ours, namespace: shop, labels: {team: c}, annotations: {note: mine}}\n\
    spec: {selector: app == 'web', types: [Ingress]}\n";

fn plane() -> ControlPlane {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v1");
    plane.kubectl_with(&["apply", "-f", "-"], THEIRS).unwrap();
    let status = json!({"status": {"podIP": "10.65.0.64", "podIPs": [{"ip": "10.65.0.64"}]}});
    let patch =
        ["patch", "pod", "-n", "shop", "web", "--subresource=status", "-p", &status.to_string()];
    plane.kubectl(&patch).unwrap();
    plane
}

/// An object as the server itself keeps it.
fn kept(plane: &ControlPlane, what: &[&str]) -> Value {
    let words: Vec<&str> = ["get", "-o", "json"].iter().chain(what).copied().collect();
    serde_json::from_str(&plane.kubectl(&words).unwrap()).unwrap()
}

fn note(object: &Value) -> Value {
    let text = object["metadata"]["annotations"]["projectcalico.org/metadata"].as_str().unwrap();
    serde_json::from_str(text).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn calicoctl_works_on_what_upstream_keeps() {
    let plane = plane();
    let folder = tempfile::tempdir().unwrap();
    let ctl = |args: &[&str]| ctl(&plane.kubeconfig(), args);
    let get = |args: &[&str]| {
        let words: Vec<&str> = ["get", "-o", "json"].iter().chain(args).copied().collect();
        serde_json::from_str::<Value>(&ctl(&words)).unwrap()
    };
    let old = get(&["gnp", "old"]);
    assert_eq!(old["metadata"]["name"], "old");
    assert_eq!(old["metadata"]["labels"]["team"], "a");
    assert_eq!(old["metadata"]["annotations"]["note"], "n");
    assert_eq!(old["metadata"]["creationTimestamp"], "2024-01-02T03:04:05Z");
    assert_eq!(old["spec"]["order"].as_f64(), Some(5.0));
    assert_eq!(get(&["gnp", "older"])["metadata"]["labels"]["team"], "b");

    // What is changed stays where it was, and is what it was for those who keep it.
    let change = old.to_string().replace("\"team\":\"a\"", "\"team\":\"z\"");
    ctl(&["apply", "-f", &write(folder.path(), "old.json", &change)]);
    let stored = kept(&plane, &["globalnetworkpolicies.crd.projectcalico.org", "default.old"]);
    assert_eq!(note(&stored)["name"], "old");
    assert_eq!(note(&stored)["labels"]["team"], "z");
    assert_eq!(note(&stored)["creationTimestamp"], "2024-01-02T03:04:05Z");
    let all = kept(&plane, &["globalnetworkpolicies.crd.projectcalico.org"]);
    assert_eq!(all["items"].as_array().unwrap().len(), 2);

    // What is new has upstream's form.
    ctl(&["apply", "-f", &write(folder.path(), "ours.yaml", POLICY)]);
    let stored = kept(&plane, &["networkpolicies.crd.projectcalico.org", "-n", "shop", "ours"]);
    assert_eq!(stored["spec"]["selector"], "app == 'web'");
    assert!(stored["metadata"]["labels"].get("team").is_none(), "{stored}");
    assert_eq!(note(&stored)["labels"]["team"], "c");
    assert_eq!(note(&stored)["annotations"]["note"], "mine");
    assert_eq!(note(&stored)["name"], "ours");
    let shown = get(&["networkpolicy", "-n", "shop", "ours"]);
    assert_ne!(shown["metadata"]["uid"], stored["metadata"]["uid"], "two objects, two uids");

    // Addresses, and what is made of Kubernetes' own objects.
    let blocks = ctl(&["ipam", "show", "--show-blocks"]);
    assert!(blocks.is_empty() || blocks.contains("CIDR"), "{blocks}");
    let affinity = get(&["blockaffinity", "n1-10-65-0-64-26"]);
    assert_eq!(affinity["spec"]["deleted"], false);
    assert_eq!(get(&["ipamconfig", "default"])["spec"]["strictAffinity"], true);
    let nodes = ctl(&["get", "nodes", "-o", "wide"]);
    assert!(
        nodes.contains("n1") && nodes.contains("10.0.0.1/24") && nodes.contains("64513"),
        "{nodes}"
    );
    let endpoints = ctl(&["get", "wep", "-n", "shop"]);
    assert!(endpoints.contains("10.65.0.64"), "{endpoints}");
    let profiles = ctl(&["get", "profiles"]);
    assert!(profiles.contains("kns.shop"), "{profiles}");

    ctl(&["delete", "networkpolicy", "-n", "shop", "ours"]);
    let left = plane.kubectl(&["get", "networkpolicies.crd.projectcalico.org", "-A"]);
    assert!(!left.unwrap().contains("ours"));
}

#[test]
fn kubectl_sees_calico_kinds_over_upstreams_own() {
    let plane = plane();
    let folder = tempfile::tempdir().unwrap();
    let serve = |cluster: &Path| {
        let mut command = calico();
        command.args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
        command.arg("--kubeconfig").arg(cluster);
        Serving::start(command)
    };
    serve(Path::new("/nothing/here")).refused(&["/nothing/here", "--etcd-endpoints"]);
    let server = serve(&plane.kubeconfig());
    let kubeconfig = folder.path().join("kubeconfig");
    ctl(&kubeconfig, &["get", "tiers"]);
    let kubectl = |args: &[&str]| {
        let mut command = Command::new(kube_program("kubectl"));
        command.args(args).env("KUBECONFIG", &kubeconfig).env("HOME", folder.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let group = "projectcalico.org";
    let policies =
        kubectl(&["get", &format!("globalnetworkpolicies.{group}"), "-o", "name"]).unwrap();
    assert!(policies.contains("/old") && policies.contains("/older"), "{policies}");
    let path = write(folder.path(), "ours.yaml", POLICY);
    kubectl(&["apply", "--server-side", "-f", &path]).unwrap();
    let stored = kept(&plane, &["networkpolicies.crd.projectcalico.org", "-n", "shop", "ours"]);
    assert!(note(&stored)["managedFields"].is_array(), "who owns which field");
    let told = kubectl(&["apply", "--server-side", "-f", &path]).unwrap();
    assert!(told.contains("serverside-applied"), "{told}");
    let nowhere = POLICY.replace("shop", "nowhere");
    let refused = kubectl(&["apply", "-f", &write(folder.path(), "nowhere.yaml", &nowhere)]);
    let refused = refused.unwrap_err();
    assert!(refused.contains("nowhere") && refused.contains("not found"), "{refused}");

    // Made of Kubernetes' own objects, and changed as they are.
    let node = kubectl(&["get", &format!("nodes.{group}"), "n1", "-o", "json"]).unwrap();
    let node: Value = serde_json::from_str(&node).unwrap();
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], "10.0.0.1/24");
    let patch = r#"{"spec":{"bgp":{"asNumber":64999}}}"#;
    kubectl(&["patch", &format!("nodes.{group}"), "n1", "--type=merge", "-p", patch]).unwrap();
    let core = kept(&plane, &["node", "n1"]);
    assert_eq!(core["metadata"]["annotations"]["projectcalico.org/ASNumber"], "64999");
    let refused = kubectl(&["delete", &format!("nodes.{group}"), "n1"]).unwrap_err();
    assert!(refused.contains("with the Node of Kubernetes"), "{refused}");
    let endpoints = kubectl(&["get", &format!("workloadendpoints.{group}"), "-A"]).unwrap();
    assert!(endpoints.contains("n1-k8s-web-eth0"), "{endpoints}");
    let profile =
        kubectl(&["get", &format!("profiles.{group}"), "kns.shop", "-o", "json"]).unwrap();
    assert!(profile.contains("pcns.a"), "{profile}");
    plane.kubectl(&["label", "namespace", "shop", "c=d"]).unwrap();
    let profile = kubectl(&["get", &format!("profiles.{group}"), "-o", "json"]).unwrap();
    assert!(profile.contains("pcns.c"), "a list shows what was written before it");
    assert!(server.end(Signal::SIGTERM).status.success());
}
