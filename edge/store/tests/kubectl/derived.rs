//! Profiles and workload endpoints: made from namespaces, service accounts and pods, as they are read.

use serde_json::{Value, json};

use crate::cluster::{Cluster, has};

const V3: &str = "/apis/projectcalico.org/v3";
const RUNNING: &str = r#"{"status": {"phase": "Running", "podIP": "10.65.0.7",
  "podIPs": [{"ip": "10.65.0.7"}, {"ip": "fd00:65::7"}]}}"#;

fn pod(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "default", "containers": [{"name": "c",
            "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]}})
    .to_string()
}

async fn run_pod(cluster: &Cluster, name: &str) {
    cluster.run("create -f -", &pod(name)).await;
    let words = format!("-n shop patch pod {name} --subresource=status --patch-file=/dev/stdin");
    cluster.run(&words, RUNNING).await;
}

/// The revision now.
async fn revision(cluster: &Cluster) -> String {
    let list = cluster.run(&format!("get --raw {V3}/profiles"), "").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Kind of event and name of object since a revision, in order.
async fn events(cluster: &Cluster, plural: &str, since: &str) -> Vec<(String, String)> {
    let path = format!("{V3}/{plural}?watch=1&timeoutSeconds=1&resourceVersion={since}");
    let lines = cluster.run(&format!("get --raw {path}"), "").await;
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    };
    lines.lines().map(event).collect()
}

fn told(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect()
}

#[tokio::test]
async fn a_pod_is_a_workload_endpoint_once_it_has_a_node_and_an_address() {
    let cluster = Cluster::start().await;
    cluster.run("create namespace shop", "").await;
    let start = revision(&cluster).await;
    let name = "node--1-k8s-web--0-eth0";
    cluster.run("create -f -", &pod("web-0")).await;
    has(&cluster.run("get workloadendpoints -A", "").await, &[]);
    assert_eq!(cluster.json("get workloadendpoints -A").await["items"], json!([]));
    cluster
        .run("-n shop patch pod web-0 --subresource=status --patch-file=/dev/stdin", RUNNING)
        .await;
    run_pod(&cluster, "web").await;

    let listed = cluster.json("get workloadendpoints -A").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let one = cluster.json(&format!("-n shop get workloadendpoint {name}")).await;
    assert_eq!(one["apiVersion"], "projectcalico.org/v3");
    assert_eq!(one["metadata"]["labels"]["projectcalico.org/namespace"], "shop");
    assert_eq!(one["spec"]["ipNetworks"], json!(["10.65.0.7/32", "fd00:65::7/128"]));
    assert_eq!(one["spec"]["profiles"], json!(["kns.shop", "ksa.shop.default"]));
    assert_eq!(one["spec"]["ports"][0]["name"], "http");
    let source = cluster.json("-n shop get pod web-0").await;
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert_eq!(one["metadata"][field], source["metadata"][field], "{field}");
    }
    let chosen = cluster.json("get workloadendpoints -A -l app=web").await;
    assert_eq!(chosen["items"][0]["spec"]["pod"], "web");
    assert_eq!(chosen["items"].as_array().unwrap().len(), 1);
    has(
        &cluster.fail("-n shop get workloadendpoint node--1-k8s-other-eth0", "").await,
        &["NotFound"],
    );

    cluster.run("-n shop label pod web-0 tier=front", "").await;
    cluster.run("-n shop delete pod web --now --wait=false", "").await;
    cluster.run("-n shop delete pod web --force", "").await;
    let seen = events(&cluster, "namespaces/shop/workloadendpoints", &start).await;
    let other = "node--1-k8s-web-eth0";
    let expected = [("ADDED", name), ("ADDED", other), ("MODIFIED", name)];
    assert_eq!(seen[..3], told(&expected), "{seen:?}");
    assert_eq!(seen.last(), told(&[("DELETED", other)]).last(), "{seen:?}");
    cluster.stop();
}

/// Every endpoint shows the new name, though no pod has changed: watchers have to list again.
#[tokio::test]
async fn another_interface_prefix_ends_watches() {
    let cluster = Cluster::start().await;
    cluster.run("create namespace shop", "").await;
    run_pod(&cluster, "web").await;
    let felix = |spec: Value| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"}, "spec": spec})
        .to_string()
    };
    let plural = "namespaces/shop/workloadendpoints";
    let start = revision(&cluster).await;
    cluster.run("create -f -", &felix(json!({"logSeverityScreen": "Info"}))).await;
    assert_eq!(events(&cluster, plural, &start).await, told(&[]), "it is the same prefix");
    let before = revision(&cluster).await;
    cluster.run("apply -f -", &felix(json!({"interfacePrefix": "tap"}))).await;
    let path = format!("{V3}/{plural}?watch=1&timeoutSeconds=1&resourceVersion={before}");
    let lines = cluster.run(&format!("get --raw {path}"), "").await;
    let event: Value = serde_json::from_str(lines.lines().next().expect("an event")).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let one = cluster.json("-n shop get workloadendpoint node--1-k8s-web-eth0").await;
    assert!(one["spec"]["interfaceName"].as_str().unwrap().starts_with("tap"), "{one}");
    cluster.stop();
}

/// A watcher that resumes over a restart must not keep what is gone.
#[tokio::test]
async fn an_endpoint_that_went_out_of_memory_is_listed_again() {
    // One change: after a restart, what the pod was before it is not known.
    let cluster = Cluster::remembering(1).await;
    cluster.run("create namespace shop", "").await;
    run_pod(&cluster, "web").await;
    let seen = revision(&cluster).await;
    let lost = r#"{"status": {"podIP": null, "podIPs": null}}"#;
    let words = "-n shop patch pod web --subresource=status --patch-file=/dev/stdin";
    cluster.run(words, lost).await;
    assert_eq!(cluster.json("-n shop get workloadendpoints").await["items"], json!([]));
    let cluster = cluster.restart();
    let path = format!(
        "{V3}/namespaces/shop/workloadendpoints?watch=1&timeoutSeconds=1&resourceVersion={seen}"
    );
    let lines = cluster.run(&format!("get --raw {path}"), "").await;
    let event: Value = serde_json::from_str(lines.lines().next().expect("an event")).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    cluster.stop();
}

#[tokio::test]
async fn namespaces_and_service_accounts_have_profiles() {
    let cluster = Cluster::start().await;
    let start = revision(&cluster).await;
    cluster.run("create namespace shop", "").await;
    cluster.run("label namespace shop team=blue", "").await;
    cluster.run("-n shop create serviceaccount my.bot", "").await;
    let own = json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile",
        "metadata": {"name": "own"}, "spec": {"ingress": [{"action": "Deny"}]}});
    cluster.run("create -f -", &own.to_string()).await;

    let listed = cluster.json("get profiles").await;
    let name_of = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
    let names: Vec<String> = listed["items"].as_array().unwrap().iter().map(name_of).collect();
    for name in
        ["kns.shop", "ksa.shop.default", "ksa.shop.my.bot", "own", "projectcalico-default-allow"]
    {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    let namespace = cluster.json("get profile kns.shop").await;
    let labels = &namespace["spec"]["labelsToApply"];
    assert_eq!(labels["pcns.team"], "blue");
    assert_eq!(labels["pcns.projectcalico.org/name"], "shop");
    assert_eq!(namespace["spec"]["ingress"][0]["action"], "Allow");
    let account = cluster.json("get profile ksa.shop.my.bot").await;
    assert_eq!(account["spec"]["labelsToApply"]["pcsa.projectcalico.org/name"], "my.bot");
    assert_eq!(account["spec"].get("ingress"), None);
    cluster.run("get profile projectcalico-default-allow", "").await;

    cluster.run("delete namespace shop", "").await;
    cluster.run("delete profile own", "").await;
    let seen = events(&cluster, "profiles", &start).await;
    let of = |name: &str| -> Vec<&str> {
        seen.iter().filter(|(_, n)| n == name).map(|(kind, _)| kind.as_str()).collect()
    };
    let namespace = of("kns.shop");
    assert_eq!((namespace[0], namespace.last()), ("ADDED", Some(&"DELETED")), "{seen:?}");
    assert!(namespace.contains(&"MODIFIED"), "{seen:?}");
    assert_eq!(of("ksa.shop.my.bot").first(), Some(&"ADDED"), "{seen:?}");
    assert_eq!(of("ksa.shop.my.bot").last(), Some(&"DELETED"), "{seen:?}");
    assert_eq!(of("own"), ["ADDED", "DELETED"]);
    has(&cluster.fail("get profile kns.shop", "").await, &["NotFound"]);
    cluster.stop();
}

#[tokio::test]
async fn what_is_derived_is_not_written() {
    let cluster = Cluster::start().await;
    cluster.run("create namespace shop", "").await;
    run_pod(&cluster, "web").await;
    let profile = |name: &str| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": name},
            "spec": {"labelsToApply": {"a": "b"}}})
        .to_string()
    };
    let namespace = ["read-only", "namespace \"shop\""];
    has(&cluster.fail("create -f -", &profile("kns.shop")).await, &namespace);
    has(&cluster.fail("replace -f -", &profile("kns.shop")).await, &namespace);
    has(&cluster.fail("apply --server-side -f -", &profile("kns.shop")).await, &namespace);
    has(&cluster.fail("label profile kns.shop a=b", "").await, &namespace);
    has(&cluster.fail("delete profile kns.shop", "").await, &namespace);
    let account = ["read-only", "service account \"my.bot\" in namespace \"shop\""];
    has(&cluster.fail("create -f -", &profile("ksa.shop.my.bot")).await, &account);
    has(&cluster.fail("delete profile projectcalico-default-allow", "").await, &["read-only"]);
    let endpoint = "node--1-k8s-web-eth0";
    has(
        &cluster.fail(&format!("-n shop delete workloadendpoint {endpoint}"), "").await,
        &["read-only", "its pod"],
    );
    // What clients ask before they write.
    let resources = cluster.run(&format!("get --raw {V3}"), "").await;
    let resources: Value = serde_json::from_str(&resources).unwrap();
    let all = resources["resources"].as_array().unwrap();
    let workloads = all.iter().find(|r| r["name"] == "workloadendpoints").unwrap();
    assert_eq!(workloads["verbs"], json!(["get", "list", "watch"]));
    // All that can be deleted is; the rest stays.
    cluster.run("create -f -", &profile("own")).await;
    cluster.run(&format!("delete --raw {V3}/profiles"), "").await;
    has(&cluster.fail("get profile own", "").await, &["NotFound"]);
    cluster.run("get profile kns.shop", "").await;
    cluster.stop();
}
