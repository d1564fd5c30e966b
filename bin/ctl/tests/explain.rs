//! Questions about policies, offline, as a script asks them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::path::Path;

use common::{calicoctl, lines};
use serde_json::{Value, json};

const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: a, name: x, labels: {app: x}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {namespace: b, name: y, labels: {app: y}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.1.0.2}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: b, name: only-81}
spec:
  selector: app == 'y'
  ingress:
  - {action: Log, protocol: TCP}
  - {action: Allow, protocol: TCP, destination: {ports: [81]}}
";

/// What a child process runs; alone it does nothing.
#[test]
fn as_calicoctl() {
    common::run_if_told();
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("objects.yaml"), OBJECTS).unwrap();
    folder
}

fn run(folder: &Path, args: &[&str], input: &str) -> (Option<i32>, Vec<String>, String) {
    let output = calicoctl(folder, args, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), lines(&output), errors)
}

#[test]
fn why_says_what_was_looked_at() {
    let folder = folder();
    let (code, out, errors) =
        run(folder.path(), &["why", "a/x", "b/y:80", "-f", "objects.yaml"], "");
    assert_eq!(code, Some(0), "{errors}");
    let text = out.join("\n");
    for part in [
        "denied: a/x to b/y, TCP port 80",
        "ingress: deny (tier-default), tier default",
        "NetworkPolicy b/only-81",
        "destination.ports differs",
        "profile kns.a",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let args = ["why", "a/x", "b/y:81", "-o", "json", "-f", "objects.yaml"];
    let (_, out, _) = run(folder.path(), &args, "");
    let answer: Value = serde_json::from_str(&out[0]).unwrap();
    assert_eq!((&answer["verdict"], &answer["ingress"]["rule"]), (&json!("allow"), &json!(1)));
    let last = answer["considered"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["matched"], &last["action"]), (&json!(true), &json!("Allow")));
    for (args, part) in [
        (vec!["why", "a/x", "b/z:80", "-f", "objects.yaml"], "there is no pod b/z"),
        (vec!["why", "a/x", "b/y", "-f", "objects.yaml"], "TCP needs one"),
        (vec!["why", "a/x", "b/y:80", "-f", "none.yaml"], "none.yaml"),
    ] {
        let (code, _, errors) = run(folder.path(), &args, "");
        assert!(code == Some(1) && errors.contains(part), "{args:?}: {code:?} {errors}");
    }
}

#[test]
fn packets_by_the_line() {
    let folder = folder();
    let input = concat!(
        r#"{"from":"a/x","to":"b/y","port":81}"#,
        "\n",
        "nonsense\n",
        r#"{"from":"a/x","to":"b/y","port":80}"#,
        "\n",
    );
    let args = ["policy", "eval", "--packets", "-", "-f", "objects.yaml"];
    let (code, out, errors) = run(folder.path(), &args, input);
    assert_eq!((code, out.len()), (Some(0), 3), "{errors}");
    let out: Vec<Value> = out.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(out[0]["verdict"], "allow");
    assert!(out[1]["error"].is_string());
    assert_eq!(out[2]["verdict"], "deny");
}

#[test]
fn expectations_decide_the_exit_code() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "good.yaml",
        "- {from: a/x, to: b/y, port: 81, expect: allow}\n- {from: a/x, to: b/y, port: 80, expect: deny}\n",
    );
    write("bad.yaml", "{from: a/x, to: b/y, port: 80, expect: allow}\n");
    write("broken.yaml", "{from: a/x, to: b/y, port: 80}\n");
    let test = |file: &str| run(folder.path(), &["policy", "test", file, "-f", "objects.yaml"], "");
    assert_eq!(test("good.yaml").0, Some(0));
    let (code, out, _) = test("bad.yaml");
    assert_eq!(code, Some(1));
    assert!(out[0].starts_with("FAIL a/x -> b/y:80: want allow, got deny"), "{out:?}");
    let (code, _, errors) = test("broken.yaml");
    assert!(code == Some(1) && errors.contains("expect: missing"), "{errors}");
}

#[test]
fn staged_policies() {
    let folder = folder();
    let staged = "apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\n\
                  metadata: {namespace: b, name: only-81}\nspec: {stagedAction: Delete}\n";
    std::fs::write(folder.path().join("staged.yaml"), staged).unwrap();
    let files = ["-f", "objects.yaml", "-f", "staged.yaml"];
    let ask = |args: &[&str]| run(folder.path(), &[args, &files[..]].concat(), "");
    let (_, out, _) = ask(&["policy", "matrix", "--port", "80", "--staged", "-o", "json"]);
    let matrix: Value = serde_json::from_str(&out[0]).unwrap();
    assert_eq!(matrix["verdicts"], json!(["ad", "aa"]));
    assert_eq!(matrix["staged"], json!(["aa", "aa"]));
    let change = json!({"from": "a/x", "to": "b/y", "now": "deny", "staged": "allow"});
    assert_eq!(matrix["changes"], json!([change]));
    let (_, out, _) = ask(&["policy", "matrix", "--port", "80", "--staged"]);
    assert!(out.last().unwrap().contains("1 of 4 pairs would change"), "{out:?}");
    for (args, word) in [
        (&["why", "a/x", "b/y:80"][..], "denied"),
        (&["why", "a/x", "b/y:80", "--staged"], "allowed"),
    ] {
        let (_, out, _) = ask(args);
        assert!(out[0].starts_with(word), "{out:?}");
    }
}

#[test]
fn what_objects_of_kubernetes_become() {
    let folder = folder();
    let objects = "
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {k: v}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: c}
spec:
  {tier: Admin, priority: 1, subject: {namespaces: {}},
   ingress: [{action: Deny, from: [{namespaces: {}}]}]}
";
    std::fs::write(folder.path().join("k.yaml"), objects).unwrap();
    let (code, out, errors) =
        run(folder.path(), &["convert", "-f", "objects.yaml", "-f", "k.yaml", "-o", "json"], "");
    assert!(code == Some(1) && errors.contains("objects.yaml"), "{errors}");
    let kinds: Vec<Value> = out.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: Vec<&str> = kinds.iter().map(|o: &Value| o["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["NetworkPolicy", "Profile", "NetworkPolicy", "GlobalNetworkPolicy"]);
    let (code, out, errors) = run(folder.path(), &["convert", "-f", "k.yaml"], "");
    assert_eq!(code, Some(0), "{errors}");
    std::fs::write(folder.path().join("ours.yaml"), out.join("\n")).unwrap();
    let (code, _, errors) = run(folder.path(), &["validate", "-f", "ours.yaml"], "");
    assert_eq!(code, Some(0), "{errors}");
}

#[test]
fn matrix_and_selectors() {
    let folder = folder();
    let args = ["policy", "matrix", "--port", "80", "-o", "json", "-f", "objects.yaml"];
    let (_, out, _) = run(folder.path(), &args, "");
    let matrix: Value = serde_json::from_str(&out[0]).unwrap();
    assert_eq!(
        matrix,
        json!({
            "pods": ["a/x", "b/y"], "protocol": "TCP", "port": 80, "verdicts": ["ad", "aa"],
        })
    );
    let (code, out, _) = run(folder.path(), &["selector", "match", "app == 'x'", "app=x"], "");
    assert_eq!((code, out), (Some(0), vec!["matches".to_owned()]));
    let (code, _, errors) = run(folder.path(), &["selector", "check", "app =="], "");
    assert!(code == Some(1) && errors.contains('^'), "{errors}");
    let (_, out, _) = run(folder.path(), &["selector", "check"], "{\"selector\":\"all()\"}\n{}\n");
    assert!(out[0].contains("canonical") && out[1].contains("error"), "{out:?}");
}
