//! Clusters of every kind: with and without a tunnel, with one family and with two.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::{Sandbox, pair};
use serde_json::{Value, json};

/// `here` and `near` share a node, `far` has the other.
fn furnish(s: &Sandbox) {
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "c", "ports": [
                {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"},
                {"containerPort": 9000, "protocol": "SCTP"}]}]}})
        .to_string()
    };
    let pods = [("here", "k8s-node-1"), ("near", "k8s-node-1"), ("far", "k8s-node-2")];
    s.kubectl("apply -f -", &pods.map(|(name, node)| pod(name, node)).join("\n---\n"));
    s.pods_ready();
}

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: not-from-here}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [here]}]}}]}]
";

/// Connections across nodes and on one node, free and under a policy.
fn connections(s: &Sandbox, families: usize) {
    for words in ["", "--protocol icmp", "--protocol udp --port 53", "--protocol sctp --port 9000"]
    {
        let outcomes = s.expect_agreement(words, "no policy");
        assert_eq!(outcomes.len(), 6);
        for o in &outcomes {
            assert_eq!(o["reachable"], true, "{o}");
            assert_eq!(o["addresses"].as_array().unwrap().len(), families, "{o}");
        }
    }
    s.kubectl("apply -f -", POLICY);
    for words in ["", "--protocol icmp", "--protocol udp --port 53"] {
        // Both families of a pair must be closed, not one: the agreement is on each address.
        let outcomes = s.expect_agreement(words, "under a policy");
        for o in &outcomes {
            let (from, _) = pair(o);
            assert_eq!(o["reachable"], from != "default/here", "{words}: {o}");
            let each = o["addresses"].as_array().unwrap();
            assert!(each.iter().all(|a| a["reachable"] == o["reachable"]), "{o}");
        }
    }
}

fn addresses(s: &Sandbox, pod: &str) -> Vec<String> {
    let ips = s.json(&format!("get pod {pod}"))["status"]["podIPs"].clone();
    let ips: Vec<Value> = ips.as_array().unwrap().clone();
    ips.iter().map(|i| i["ip"].as_str().unwrap().to_owned()).collect()
}

/// With a tunnel, the other node's pods are behind it; without, behind the node's own interface.
fn routes(s: &Sandbox, encap: &str) {
    for address in addresses(s, "far") {
        let route = s.on_node("k8s-node-1", &format!("ip -o route get {address}"));
        let v6 = address.contains(':');
        let want = match (encap, v6) {
            ("vxlan", false) => "dev vxlan.calico",
            ("vxlan", true) => "dev vxlan-v6.calico",
            (_, false) => "via 10.0.0.11 dev eth0",
            (_, true) => "via fd00::11 dev eth0",
        };
        assert!(route.contains(want), "{want} in {route}");
    }
}

fn check(options: &str, encap: &str, families: usize) {
    let s = Sandbox::new();
    let before = s.traces();
    s.run(&format!("up --nodes 2 {options}"));
    furnish(&s);
    assert_eq!(addresses(&s, "here").len(), families);
    routes(&s, encap);
    connections(&s, families);
    s.down(&before);
}

/// Pods of before keep their interfaces and their policy, pods to come get the first prefix.
#[test]
fn other_prefixes_of_interfaces() {
    let s = Sandbox::up("--nodes 2 --dual-stack");
    furnish(&s);
    s.kubectl("apply -f -", POLICY);
    connections_under_policy(&s, 6);
    let felix = json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
        "metadata": {"name": "default"}, "spec": {"interfacePrefix": "tap,cali"}});
    s.kubectl("apply -f -", &felix.to_string());
    for node in ["k8s-node-1", "k8s-node-2"] {
        common::eventually("the agents run with the new setting", || {
            let log = s.run(&format!("logs {node}"));
            if log.matches("start-up complete").count() == 2 { Ok(()) } else { Err(log) }
        });
    }
    s.kubectl("run late --image=c --port=80 --labels app=late", "");
    s.kubectl("run elsewhere --image=c --port=80 --labels app=elsewhere", "");
    s.pods_ready();
    connections_under_policy(&s, 20);
    let links = |prefix: &str| {
        let all = ["k8s-node-1", "k8s-node-2"].map(|n| s.on_node(n, "ip -br link")).concat();
        all.lines().filter(|l| l.starts_with(prefix)).count()
    };
    assert_eq!((links("cali"), links("tap")), (3, 2));
    // Not configured any more, but they are there.
    let felix = felix.to_string().replace("tap,cali", "tap");
    s.kubectl("apply -f -", &felix);
    for node in ["k8s-node-1", "k8s-node-2"] {
        common::eventually("the agents run with the newest setting", || {
            let log = s.run(&format!("logs {node}"));
            if log.matches("start-up complete").count() == 3 { Ok(()) } else { Err(log) }
        });
    }
    connections_under_policy(&s, 20);
    s.kubectl("delete pods --all --timeout=60s", "");
    common::eventually("nothing is left", || {
        let routes = ["k8s-node-1", "k8s-node-2"].map(|n| s.on_node(n, "ip route")).concat();
        if links("cali") + links("tap") == 0 && !routes.contains("scope link dev tap") {
            Ok(())
        } else {
            Err(routes)
        }
    });
}

fn connections_under_policy(s: &Sandbox, pairs: usize) {
    let outcomes = s.expect_agreement("", "under a policy");
    assert_eq!(outcomes.len(), pairs);
    for o in &outcomes {
        assert_eq!(o["reachable"], pair(o).0 != "default/here", "{o}");
    }
}

#[test]
fn without_a_tunnel() {
    check("--encap none", "none", 1);
}

#[test]
fn two_families_in_a_tunnel() {
    check("--dual-stack", "vxlan", 2);
}

#[test]
fn two_families_without_a_tunnel() {
    check("--dual-stack --encap none", "none", 2);
}
