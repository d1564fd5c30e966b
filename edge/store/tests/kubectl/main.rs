//! The ordinary kubectl as a client of the server: no flag that a real cluster would not need.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::time::Duration;

use cluster::{Cluster, has};
use serde_json::{Value, json};

mod bad;
mod cluster;
mod derived;
mod refused;

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
  "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}]}}"#;

fn map(name: &str, data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
        .to_string()
}

#[tokio::test]
async fn create_get_describe_label_annotate_patch_delete() {
    let k = Cluster::start().await;
    has(&k.run("create -f -", POD).await, &["pod/web created"]);
    has(&k.fail("create -f -", POD).await, &["AlreadyExists"]);
    let table = k.run("get pods", "").await;
    has(&table, &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "web", "0/1", "Pending"]);
    has(&k.run("get pods -o wide", "").await, &["IP", "NODE", "n1"]);
    has(&k.run("get pods -A --show-labels", "").await, &["NAMESPACE", "default", "app=web"]);
    has(&k.run("get pod web -o yaml", "").await, &["kind: Pod", "image: nginx", "name: web"]);
    has(&k.run("get pod web -o name", "").await, &["pod/web"]);
    assert_eq!(k.run("get pod web -o jsonpath={.spec.restartPolicy}", "").await, "Always");
    has(&k.run("describe pod web", "").await, &["Name:", "web", "Image:", "nginx", "80/TCP"]);
    has(&k.run("label pod web tier=front", "").await, &["pod/web labeled"]);
    has(&k.fail("label pod web tier=back", "").await, &["overwrite"]);
    has(&k.run("label pod web tier=back --overwrite", "").await, &["pod/web labeled"]);
    has(&k.run("annotate pod web note=1", "").await, &["pod/web annotated"]);
    k.run(r#"patch pod web -p {"metadata":{"labels":{"x":"1"}}}"#, "").await;
    k.run(r#"patch pod web --type=merge -p {"metadata":{"labels":{"y":"1"}}}"#, "").await;
    let json = r#"patch pod web --type=json -p [{"op":"remove","path":"/metadata/labels/x"}]"#;
    k.run(json, "").await;
    k.run("label pod web app-", "").await;
    let pod = k.json("get pod web").await;
    assert_eq!(pod["metadata"]["labels"], json!({"tier": "back", "y": "1"}));
    assert_eq!(pod["metadata"]["annotations"], json!({"note": "1"}));
    has(&k.run("delete pod web --now --wait=false", "").await, &["deleted"]);
    k.run("delete pod web --force --grace-period=0 --ignore-not-found", "").await;
    has(&k.fail("get pod web", "").await, &["NotFound"]);
    k.stop();
}

#[tokio::test]
async fn client_side_apply_changes_and_removes_fields() {
    let k = Cluster::start().await;
    has(
        &k.run("apply -f -", &map("a", &json!({"k": "1", "l": "1"}))).await,
        &["configmap/a created"],
    );
    has(
        &k.run("apply -f -", &map("a", &json!({"k": "1", "l": "1"}))).await,
        &["configmap/a unchanged"],
    );
    k.run(r#"patch cm a --type=merge -p {"data":{"other":"1"}}"#, "").await;
    has(&k.run("apply -f -", &map("a", &json!({"k": "2"}))).await, &["configmap/a configured"]);
    assert_eq!(k.json("get cm a").await["data"], json!({"k": "2", "other": "1"}));
    let said = k.ask("diff -f -", &map("a", &json!({"k": "3"}))).await;
    has(&said.out, &["-  k: \"2\"", "+  k: \"3\""]);
    let both = format!("{}\n---\n{POD}", map("b", &json!({})));
    has(&k.run("apply -f -", &both).await, &["configmap/b created", "pod/web created"]);
    has(&k.run("apply -f -", &both).await, &["configmap/b unchanged", "pod/web unchanged"]);
    let pod = POD.replace(r#""containerPort": 80"#, r#""containerPort": 81, "name": "x""#);
    let said = k.ask("apply -f -", &pod).await;
    assert!(!said.success, "the ports of a pod cannot be changed: {}", said.out);
    k.run("delete cm --all", "").await;
    assert_eq!(k.json("get cm").await["items"], json!([]));
    k.stop();
}

#[tokio::test]
async fn server_side_apply_keeps_owners_apart() {
    let k = Cluster::start().await;
    let ssa = |m: &str| format!("apply --server-side --field-manager={m} -f -");
    has(
        &k.run(&ssa("one"), &map("a", &json!({"k": "1", "l": "1"}))).await,
        &["configmap/a serverside-applied"],
    );
    let refused = k.fail(&ssa("two"), &map("a", &json!({"k": "2"}))).await;
    has(&refused, &["Apply failed with 1 conflict", "conflict with \"one\"", ".data.k"]);
    k.run(&format!("{} --force-conflicts", ssa("two")), &map("a", &json!({"k": "2"}))).await;
    k.run(&ssa("one"), &map("a", &json!({"m": "1"}))).await;
    let object: Value = k.json("get cm a --show-managed-fields").await;
    assert_eq!(object["data"], json!({"k": "2", "m": "1"}), "l went, k is another's");
    let owners = object["metadata"]["managedFields"].as_array().expect("owners").clone();
    let fields = |manager: &str| {
        let owner = owners.iter().find(|o| o["manager"] == manager);
        owner.map(|o| o["fieldsV1"].clone())
    };
    assert_eq!(owners.len(), 2);
    assert_eq!(fields("one"), Some(json!({"f:data": {"f:m": {}}})));
    assert_eq!(fields("two"), Some(json!({"f:data": {"f:k": {}}})));
    k.run(r#"patch cm a --type=merge -p {"data":{"m":"9"}}"#, "").await;
    let refused = k.fail(&ssa("one"), &map("a", &json!({"m": "1"}))).await;
    has(&refused, &["conflict with \"kubectl-patch\" using v1"]);
    k.run("apply -f -", &map("c", &json!({"k": "1"}))).await;
    k.run("apply --server-side -f -", &map("c", &json!({"k": "2"}))).await;
    assert_eq!(k.json("get cm c").await["data"]["k"], "2", "client-side apply passes over");
    k.stop();
}

#[tokio::test]
async fn dry_run_and_strict_validation() {
    let k = Cluster::start().await;
    has(&k.run("create -f - --dry-run=server", POD).await, &["pod/web created (server dry run)"]);
    has(&k.fail("get pod web", "").await, &["NotFound"]);
    let typo = POD.replace("\"image\"", "\"imagee\"");
    has(&k.fail("apply -f -", &typo).await, &["unknown field \"spec.containers[0].imagee\""]);
    has(&k.fail("create -f - --validate=strict", &typo).await, &["strict decoding error"]);
    let said = k
        .ask(
            "create -f - --validate=warn",
            &typo.replace("\"nginx\"", "\"nginx\", \"image\": \"i\""),
        )
        .await;
    assert!(said.success, "{}", said.err);
    has(&said.err, &["Warning: unknown field \"spec.containers[0].imagee\""]);
    k.run("create -f - --validate=false", &map("a", &json!({"k": "1"}))).await;
    let wrong = map("b", &json!({"k": "1"})).replace("\"data\":{", "\"data\":[").replace("}}", "}");
    assert!(!k.fail("create -f -", &wrong).await.is_empty());
    has(&k.fail("create -f -", &map("B_", &json!({}))).await, &["Invalid value", "metadata.name"]);
    has(
        &k.fail(
            "create -f -",
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"}}"#,
        )
        .await,
        &["no matches for kind \"Deployment\""],
    );
    k.stop();
}

#[tokio::test]
async fn discovery_and_explain() {
    let k = Cluster::start().await;
    let resources = k.run("api-resources", "").await;
    has(
        &resources,
        &["pods", "po", "networkpolicies", "customresourcedefinitions", "endpointslices"],
    );
    has(&k.run("api-resources --namespaced=false -o name", "").await, &["nodes", "namespaces"]);
    has(&k.run("api-versions", "").await, &["v1\n", "networking.k8s.io/v1", "discovery.k8s.io/v1"]);
    has(&k.run("version", "").await, &["Client Version: v1.35.4", "Server Version"]);
    let pod = k.run("explain pod.spec.containers.ports", "").await;
    has(&pod, &["KIND:", "Pod", "containerPort", "<integer> -required-", "protocol"]);
    has(
        &k.run("explain networkpolicy.spec --recursive", "").await,
        &["podSelector", "ipBlock", "cidr"],
    );
    has(&k.fail("explain pod.spec.nonsense", "").await, &["nonsense"]);
    has(&k.run("auth can-i get pods", "").await, &["yes"]);
    k.stop();
}

#[tokio::test]
async fn selectors_pages_and_generated_names() {
    let k = Cluster::start().await;
    let mut all = String::new();
    for n in 0..25 {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "g-", "labels": {"odd": (n % 2).to_string(), "n": n.to_string()}},
            "spec": {"nodeName": format!("n{}", n % 3), "containers": [{"name": "c", "image": "i"}]}});
        writeln!(all, "{object}\n---").unwrap();
    }
    let made = k.run("create -f -", &all).await;
    assert_eq!(
        made.lines().filter(|l| l.starts_with("pod/g-") && l.ends_with(" created")).count(),
        25
    );
    let count = |text: &str| text.lines().count();
    assert_eq!(count(&k.run("get pods --chunk-size=7 --no-headers", "").await), 25);
    assert_eq!(count(&k.run("get pods -l odd=1 --no-headers", "").await), 12);
    assert_eq!(count(&k.run("get pods -l odd=1,n!=3 --no-headers", "").await), 11);
    assert_eq!(
        count(&k.run("get pods --field-selector spec.nodeName=n0 --no-headers", "").await),
        9
    );
    let sorted = k.run("get pods --sort-by=.metadata.labels.n --no-headers -L n", "").await;
    assert!(sorted.lines().next().is_some_and(|l| l.ends_with('0')), "{sorted}");
    has(&k.fail("get pods --field-selector spec.nonsense=1", "").await, &["field"]);
    has(&k.fail("get pods -l a@b", "").await, &["a@b"]);
    k.run("delete pods -l odd=1 --grace-period=0 --force", "").await;
    assert_eq!(count(&k.run("get pods --no-headers", "").await), 13);
    k.stop();
}

#[tokio::test]
async fn waiting_watching_and_finalizers() {
    let k = Cluster::start().await;
    let mut held: Value = serde_json::from_str(&map("held", &json!({}))).expect("an object");
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    k.run("create -f -", &held.to_string()).await;
    k.run("delete cm held --wait=false", "").await;
    assert!(k.json("get cm held").await["metadata"]["deletionTimestamp"].is_string());
    let (gone, _) = tokio::join!(k.run("wait --for=delete cm/held --timeout=30s", ""), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        k.run(r#"patch cm held --type=json -p [{"op":"remove","path":"/metadata/finalizers"}]"#, "")
            .await
    });
    has(&gone, &["configmap/held"]);
    k.run("create -f -", POD).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let ready = format!(
        "patch pod web --subresource=status --type=merge -p {}",
        status.to_string().replace(' ', "")
    );
    let (met, _) =
        tokio::join!(k.run("wait --for=condition=Ready pod/web --timeout=30s", ""), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            k.run(&ready, "").await
        });
    has(&met, &["pod/web condition met"]);
    has(&k.run("get pod web", "").await, &["Running"]);
    let mut watch = k.command("get cm -w -o name --no-headers").spawn().expect("kubectl starts");
    tokio::time::sleep(Duration::from_secs(1)).await;
    k.run("create cm seen --from-literal=k=v", "").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    watch.start_kill().expect("it runs");
    let output = watch.wait_with_output().await.expect("it ends");
    has(&String::from_utf8_lossy(&output.stdout), &["configmap/seen"]);
    k.stop();
}

#[tokio::test]
async fn pods_are_deleted_gracefully_and_namespaces_with_their_content() {
    let k = Cluster::start().await;
    k.run("create ns shop", "").await;
    k.run("create -n shop -f -", POD).await;
    k.run("run -n shop runner --image=busybox --restart=Never -l a=b", "").await;
    k.run("delete pod web -n shop --wait=false", "").await;
    let pod = k.json("get pod web -n shop").await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "a bound pod waits for its kubelet");
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    has(&k.run("get pod web -n shop", "").await, &["Terminating"]);
    k.run("delete pod web -n shop --grace-period=0 --force", "").await;
    k.run("delete ns shop --timeout=30s", "").await;
    has(&k.fail("get ns shop", "").await, &["NotFound"]);
    assert_eq!(k.json("get pods -A").await["items"], json!([]));
    k.stop();
}

const CRD: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
  "metadata": {"name": "things.example.org"},
  "spec": {"group": "example.org", "scope": "Namespaced",
    "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
    "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
      "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
      "schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
          "size": {"type": "integer", "minimum": 1, "maximum": 9},
          "mode": {"type": "string", "enum": ["A", "B"], "default": "A"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}}"#;

#[tokio::test]
async fn custom_resources_have_schemas_columns_and_explanations() {
    let k = Cluster::start().await;
    k.run("create -f -", CRD).await;
    k.run("wait --for=condition=Established crd/things.example.org --timeout=30s", "").await;
    let thing = |size: &str| {
        format!(
            r#"{{"apiVersion":"example.org/v1","kind":"Thing","metadata":{{"name":"t"}},"spec":{{"size":{size}}}}}"#
        )
    };
    has(&k.fail("create -f -", &thing("12")).await, &["spec.size", "less than or equal to 9"]);
    has(&k.fail("create -f -", &thing("\"x\"")).await, &["spec.size", "must be of type integer"]);
    let typo = thing("3").replace("\"size\":3", "\"size\":3,\"sise\":4");
    has(&k.fail("create -f -", &typo).await, &["unknown field \"spec.sise\""]);
    has(&k.run("create -f -", &thing("3")).await, &["thing.example.org/t created"]);
    has(&k.run("get th", "").await, &["NAME", "SIZE", "t", "3"]);
    assert_eq!(k.json("get things t").await["spec"], json!({"size": 3, "mode": "A"}));
    has(
        &k.run("explain things.spec", "").await,
        &["size", "<integer> -required-", "mode", "<string>"],
    );
    has(
        &k.run("apply --server-side -f -", &thing("4").replace("\"t\"", "\"u\"")).await,
        &["serverside-applied"],
    );
    k.run("delete crd things.example.org --timeout=30s", "").await;
    assert!(!k.fail("get things", "").await.is_empty());
    k.stop();
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let k = Cluster::start().await;
    k.run("create -f -", POD).await;
    has(&k.fail("logs web", "").await, &["logs are not served here", "sandbox logs"]);
    has(&k.fail("exec web -- ls", "").await, &["not served here", "sandbox exec"]);
    has(&k.fail("create deployment d --image=i", "").await, &["Deployments", "kubectl run"]);
    k.stop();
}
