//! A user's day with `calico sandbox`: kubectl, probes, policies, and nothing left in the evening.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{CALICO, Said, Sandbox, pair};
use serde_json::{Value, json};

const PODS: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  nodeName: k8s-node-3
  containers:
  - name: db
    image: db
    ports:
    - {containerPort: 80}
    - {containerPort: 5432, name: sql}
    - {containerPort: 53, protocol: UDP}
    - {containerPort: 9000, protocol: SCTP}
---
apiVersion: v1
kind: Pod
metadata: {name: visitor, namespace: street, labels: {app: visitor}}
spec:
  nodeName: k8s-node-3
  containers:
  - {name: c, image: c, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}, {containerPort: 9000, protocol: SCTP}]}
";

#[test]
fn a_day_with_three_nodes() {
    let s = Sandbox::new();
    let before = s.traces();
    s.run("up --nodes 3");
    second_up_is_refused(&s);
    furnish(&s);
    status(&s);
    probes(&s);
    exec_and_logs(&s);
    kubernetes_policy(&s);
    relabelling(&s);
    calico_policies(&s);
    cluster_policies(&s);
    network_set(&s);
    delete_pods(&s);
    s.down(&before);
    assert_eq!(s.ask("down").code, 0, "a second down has nothing to do");
    let said = s.ask("status");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("is up: start one with"), "{}", said.err);
}

fn second_up_is_refused(s: &Sandbox) {
    let said = s.ask("up");
    assert_eq!(said.code, 1);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert!(said.err.contains("is up"), "{}", said.err);
}

fn furnish(s: &Sandbox) {
    assert_eq!(s.run("kubeconfig").trim(), s.kubeconfig().display().to_string());
    s.kubectl("create namespace shop", "");
    s.kubectl("create namespace street", "");
    s.kubectl("-n shop run web --image=web --port=80 --labels app=web", "");
    s.kubectl("apply -f -", PODS);
    s.pods_ready();
    let wide = s.kubectl("-n shop get pods -o wide", "");
    let line = wide.lines().find(|l| l.starts_with("web ")).unwrap();
    for part in ["1/1", "Running", "192.168.", "k8s-node-"] {
        assert!(line.contains(part), "{part} in {wide}");
    }
    let nodes = s.kubectl("get nodes", "");
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
}

fn status(s: &Sandbox) {
    let said: Value = serde_json::from_str(&s.run("status -o json")).unwrap();
    let names: Vec<_> = said["nodes"].as_array().unwrap().iter().map(|n| &n["name"]).collect();
    assert_eq!(names, ["k8s-node-1", "k8s-node-2", "k8s-node-3"]);
    assert_eq!(said["nodes"][0]["address"], "10.0.0.10");
    assert!(said["nodes"].as_array().unwrap().iter().all(|n| n["ready"] == true), "{said}");
    let db = said["pods"].as_array().unwrap().iter().find(|p| p["name"] == "shop/db").unwrap();
    assert_eq!((&db["node"], &db["ready"]), (&json!("k8s-node-3"), &json!(true)));
    let pod = s.json("-n shop get pod db");
    assert_eq!(db["ip"], json!([pod["status"]["podIP"]]));
    let table = s.run("status");
    for part in ["NODE", "READY", "ADDRESS", "POD", "shop/web", "k8s-node-2"] {
        assert!(table.contains(part), "{part} in {table}");
    }
}

/// The normative fields, one object a pair; pods that do not listen do not answer.
fn probes(s: &Sandbox) {
    for (protocol, port, name, listening) in [
        ("tcp", 80, "TCP", &["shop/web", "shop/db", "street/visitor"][..]),
        ("tcp", 5432, "TCP", &["shop/db"]),
        ("udp", 53, "UDP", &["shop/db", "street/visitor"]),
        ("sctp", 9000, "SCTP", &["shop/db", "street/visitor"]),
        ("icmp", 80, "ICMP", &["shop/web", "shop/db", "street/visitor"]),
    ] {
        let said = s.ask(&format!("probe -o json --protocol {protocol} --port {port}"));
        assert_eq!(said.code, 0, "{}", said.err);
        let outcomes = said.lines();
        let pairs: BTreeSet<_> = outcomes.iter().map(pair).collect();
        assert_eq!((outcomes.len(), pairs.len()), (6, 6), "{}", said.out);
        for o in &outcomes {
            let reachable = listening.contains(&o["to"].as_str().unwrap());
            assert_eq!(o["reachable"], reachable, "{o}");
            assert_eq!(o["protocol"], name);
            let want = if protocol == "icmp" { Value::Null } else { json!(port) };
            assert_eq!(o.get("port"), Some(&want), "{o}");
            assert_eq!((o["ms"].is_f64(), o["error"].is_null()), (reachable, reachable), "{o}");
        }
    }
    let one = s.ask("probe -o json --from shop/web --to street/visitor").lines();
    assert_eq!(one.len(), 1);
    assert_eq!(pair(&one[0]), ("shop/web".to_owned(), "street/visitor".to_owned()));
    let table = s.run("probe --port 5432");
    assert_eq!(table.matches("yes").count(), 2, "{table}");
    assert!(table.contains("[1] shop/db"), "{table}");
    // Silence must not be mistaken for a policy: a closed port is refused.
    let closed = s.ask("probe -o json --from shop/web --to shop/db --port 81").lines();
    assert!(closed[0]["error"].as_str().unwrap().contains("refused"), "{}", closed[0]);
}

fn exec_and_logs(s: &Sandbox) {
    let ip = s.json("-n shop get pod web")["status"]["podIP"].as_str().unwrap().to_owned();
    let said = s.exec("shop/web", &["ip", "-o", "addr", "show", "dev", "eth0"]);
    assert_eq!(said.code, 0);
    assert!(said.out.contains(&format!("inet {ip}/32")), "{}", said.out);
    let said = s.exec("shop/web", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((&*said.out, &*said.err, said.code), ("out\n", "err\n", 7));
    assert_eq!(s.exec("shop/web", &["sh", "-c", "kill -9 $$"]).code, 128 + 9);
    let said = s.exec("shop/web", &["no-such-program"]);
    assert_ne!(said.code, 0);
    let mut cat = s.command("exec shop/web -- cat");
    assert_eq!(Said::of(&mut cat, "in").out, "in", "stdin is passed through");
    let said = s.exec("node:k8s-node-2", &["calicoctl", "node", "status"]).done().unwrap();
    assert!(said.contains("k8s-node-2") && said.contains("connected"), "{said}");
    let rules = s.exec("node:k8s-node-2", &["nft", "list", "ruleset"]).done().unwrap();
    assert!(rules.contains("table ip calico"), "{rules}");
    assert!(s.run("logs k8s-node-2").contains("k8s-node-2"));
}

const ONLY_WEB: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: sql}]
  - from: [{namespaceSelector: {matchLabels: {trusted: 'yes'}}}]
    ports: [{port: 5432}]
";

const SQL: &str = "--to shop/db --port 5432";

fn kubernetes_policy(s: &Sandbox) {
    s.kubectl("apply -f -", ONLY_WEB);
    let wanted = [("shop/web", "shop/db", true), ("street/visitor", "shop/db", false)];
    s.expect_probe(SQL, &wanted, "only-web");
    let wanted = [("shop/web", "shop/db", false), ("street/visitor", "shop/db", false)];
    s.expect_probe("--to shop/db", &wanted, "another port");
    s.expect_probe("--to shop/db --protocol udp --port 53", &wanted, "another protocol");
    s.expect_probe("--to shop/db --protocol sctp --port 9000", &wanted, "another protocol");
    s.expect_probe("--to shop/db --protocol icmp", &wanted, "another protocol");
    s.expect_agreement("--port 5432", "the specification");
}

fn relabelling(s: &Sandbox) {
    let (web, visitor) = ("shop/web", "street/visitor");
    s.kubectl("-n shop label pod web app=stranger --overwrite", "");
    s.expect_probe(SQL, &[(web, "shop/db", false)], "a pod without the label");
    s.kubectl("-n shop label pod web app=web --overwrite", "");
    s.expect_probe(SQL, &[(web, "shop/db", true)], "a pod with the label");
    s.kubectl("label namespace street trusted=yes", "");
    s.expect_probe(SQL, &[(visitor, "shop/db", true)], "a namespace with the label");
    s.kubectl("label namespace street trusted-", "");
    s.expect_probe(SQL, &[(visitor, "shop/db", false)], "a namespace without the label");
    s.kubectl("-n shop label pod db app=other --overwrite", "");
    s.expect_probe(SQL, &[(visitor, "shop/db", true)], "the policy's subject has gone");
    s.kubectl("-n shop label pod db app=db --overwrite", "");
    s.expect_probe(SQL, &[(visitor, "shop/db", false)], "the policy's subject is back");
    s.kubectl("-n shop delete networkpolicies.networking.k8s.io only-web", "");
    s.expect_probe(SQL, &[(visitor, "shop/db", true)], "the policy is deleted");
}

const TIERED: &str = r"
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.no-street}
spec:
  tier: security
  order: 1
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - {action: Deny, source: {namespaceSelector: kubernetes.io/metadata.name == 'street'}}
  - {action: Pass}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: sql, namespace: shop}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [sql]}}
";

fn calico_policies(s: &Sandbox) {
    s.kubectl("apply -f -", TIERED);
    let wanted = [("shop/web", "shop/db", true), ("street/visitor", "shop/db", false)];
    s.expect_probe(SQL, &wanted, "the tier denies the street and passes the rest");
    let wanted = [("shop/web", "shop/db", false), ("street/visitor", "shop/db", false)];
    s.expect_probe("--to shop/db", &wanted, "the default tier allows the named port only");
    s.expect_agreement("", "the specification");
    let mut get = std::process::Command::new(CALICO);
    get.args(["ctl", "get", "networkpolicies", "-A", "-o", "name"]);
    let listed = Said::of(get.env("KUBECONFIG", s.kubeconfig()), "").done().unwrap();
    assert!(listed.contains("sql"), "{listed}");
    s.kubectl("delete globalnetworkpolicy security.no-street", "");
    s.expect_probe(SQL, &[("street/visitor", "shop/db", true)], "the street may");
    s.kubectl("delete tier security", "");
    s.kubectl("-n shop delete networkpolicies.projectcalico.org sql", "");
    let wanted = [("shop/web", "shop/db", true), ("street/visitor", "shop/db", true)];
    s.expect_probe("--to shop/db", &wanted, "all deleted");
}

const ADMINISTRATORS: &str = r"
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-street}
spec:
  tier: Admin
  priority: 5
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {}}}
  ingress:
  - action: Deny
    from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: street}}}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: nobody-by-default}
spec:
  tier: Baseline
  priority: 0
  subject: {namespaces: {}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}]}
";

/// The administrators' word comes before, and after, what a namespace's own policy says.
fn cluster_policies(s: &Sandbox) {
    let (web, visitor) = ("shop/web", "street/visitor");
    s.kubectl("apply -f -", ADMINISTRATORS);
    s.expect_probe(SQL, &[(web, "shop/db", false)], "nothing else is said: the baseline denies");
    let open = ONLY_WEB.replace("trusted: 'yes'", "kubernetes.io/metadata.name: street");
    s.kubectl("apply -f -", &open);
    s.expect_probe(
        SQL,
        &[(web, "shop/db", true)],
        "a namespace's policy comes before the baseline",
    );
    s.expect_probe(SQL, &[(visitor, "shop/db", false)], "and after the administrators'");
    s.expect_agreement("--port 5432", "the specification");
    s.kubectl("delete clusternetworkpolicy no-street", "");
    s.expect_probe(SQL, &[(visitor, "shop/db", true)], "the administrators' policy is deleted");
    s.kubectl("delete clusternetworkpolicy nobody-by-default", "");
    s.kubectl("-n shop delete networkpolicies.networking.k8s.io only-web", "");
    s.expect_probe("--to shop/db", &[(web, "shop/db", true)], "all deleted");
}

fn network_set(s: &Sandbox) {
    let web = s.json("-n shop get pod web")["status"]["podIP"].as_str().unwrap().to_owned();
    let set = |nets: Value| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": "bad", "labels": {"reputation": "bad"}}, "spec": {"nets": nets}})
    };
    let policy = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "shun"},
        "spec": {"selector": "app == 'visitor'", "types": ["Ingress"], "ingress": [
            {"action": "Deny", "source": {"selector": "reputation == 'bad'"}}, {"action": "Allow"}]}});
    s.kubectl("apply -f -", &set(json!([])).to_string());
    s.kubectl("apply -f -", &policy.to_string());
    let all = |web: bool, db: bool| {
        [("shop/web", "street/visitor", web), ("shop/db", "street/visitor", db)]
    };
    s.expect_probe("--to street/visitor", &all(true, true), "an empty set");
    s.kubectl("apply -f -", &set(json!([format!("{web}/32")])).to_string());
    s.expect_probe("--to street/visitor", &all(false, true), "one member");
    s.kubectl("apply -f -", &set(json!(["192.168.0.0/16"])).to_string());
    s.expect_probe("--to street/visitor", &all(false, false), "all pods");
    s.kubectl("delete globalnetworkset bad", "");
    s.expect_probe("--to street/visitor", &all(true, true), "no set");
    s.kubectl("delete globalnetworkpolicy shun", "");
}

fn delete_pods(s: &Sandbox) {
    s.kubectl("-n shop delete pod web", "");
    let said = s.ask("exec shop/web -- true");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("no pod shop/web"), "{}", said.err);
    s.kubectl("delete namespace street --timeout=30s", "");
    let pods: BTreeMap<_, _> = s.json("get pods -A")["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["metadata"]["name"].to_string(), p["status"]["phase"].to_string()))
        .collect();
    assert_eq!(pods, BTreeMap::from([("\"db\"".to_owned(), "\"Running\"".to_owned())]));
}
