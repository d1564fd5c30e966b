//! `calicoctl why --live`: what a node's kernel does, read back, against what policy says.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::{Said, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const NODES: [&str; 2] = ["k8s-node-1", "k8s-node-2"];

const POLICIES: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-client}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 80}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: not-out}
spec:
  selector: app == 'other'
  types: [Egress]
  egress:
  - {action: Deny, destination: {nets: [198.51.100.0/24]}}
  - {action: Allow}
";

/// `web` and `client` share a node, `other` has the other.
fn furnish(s: &Sandbox) {
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node,
                "containers": [{"name": "c", "image": "c", "ports": [{"containerPort": 80}]}]}})
        .to_string()
    };
    let pods = [("web", NODES[0]), ("client", NODES[0]), ("other", NODES[1])];
    s.kubectl("apply -f -", &pods.map(|(name, node)| pod(name, node)).join("\n---\n"));
    s.pods_ready();
    s.kubectl("apply -f -", POLICIES);
}

fn why(s: &Sandbox, node: &str, words: &str) -> Said {
    let words: Vec<&str> =
        ["calicoctl", "why", "--live"].into_iter().chain(words.split_whitespace()).collect();
    s.exec(&format!("node:{node}"), &words)
}

fn live(s: &Sandbox, node: &str, words: &str) -> (Value, i32) {
    let said = why(s, node, &format!("-o json {words}"));
    let lines = said.lines();
    let Some(answer) = lines.first() else { panic!("{words} on {node}: {}", said.err) };
    (answer["live"].clone(), said.code)
}

/// The kernel's verdict is that of policy, on each of the nodes that see the packet.
fn agrees(s: &Sandbox, words: &str, verdicts: [Option<&str>; 2]) {
    for (node, verdict) in NODES.iter().zip(verdicts) {
        let Some(verdict) = verdict else { continue };
        eventually(&format!("{words} on {node}"), || {
            let (live, code) = live(s, node, words);
            let well = code == 0 && live["agrees"] == true && live["verdict"] == verdict;
            if well { Ok(()) } else { Err(format!("exit code {code}: {live:#}")) }
        });
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Rules taken away by hand are missed and named; the agent sleeps meanwhile.
fn damage(s: &Sandbox) {
    let question = "default/client default/web:80";
    let (whole, _) = live(s, NODES[0], question);
    let rules = whole["rules"].as_array().unwrap();
    let rule = rules.iter().find(|r| {
        let chain = r["chain"].as_str().unwrap();
        chain.starts_with("pi-") && r["comment"] == "rule 0" && r["matched"] == true
    });
    let rule = rule.unwrap_or_else(|| panic!("a rule of a policy matched: {whole:#}"));
    let (chain, handle) = (rule["chain"].as_str().unwrap(), &rule["handle"]);
    let agent = s.agent(NODES[0]);
    signal(agent, Signal::SIGSTOP);
    s.on_node(NODES[0], &format!("nft delete rule ip calico {chain} handle {handle}"));
    let (damaged, code) = live(s, NODES[0], question);
    let told = why(s, NODES[0], question);
    let denied = s.ask("probe --from default/client --to default/web --port 80 -o json").lines();
    s.on_node(NODES[0], "nft flush chain ip calico filter-forward");
    let (open, open_code) = live(s, NODES[0], "default/other default/web:80");
    signal(agent, Signal::SIGCONT);
    assert_eq!((code, &damaged["verdict"], &damaged["agrees"]), (3, &json!("deny"), &json!(false)));
    let said = damaged["difference"].to_string();
    assert!(said.contains(&format!("chain {chain} has no rule 0")), "{said}");
    assert!(said.contains("by rule 0 of KubernetesNetworkPolicy default/only-client"), "{said}");
    assert_eq!(told.code, 3);
    assert!(told.out.contains("the kernel disagrees: policy says allow"), "{}", told.out);
    assert_eq!(denied[0]["reachable"], false, "the kernel does what its rules were read to do");
    assert_eq!((open_code, &open["verdict"]), (3, &json!("allow")), "{open:#}");
    agrees(s, question, [Some("allow"), None]);
}

/// Watches real packets of a connection for some seconds, in which it is tried.
fn traced(s: &Sandbox, port: &str) -> (Value, i32) {
    std::thread::scope(|scope| {
        let question = format!("--trace 5 default/client default/web:{port}");
        let watching = scope.spawn(move || live(s, NODES[0], &question));
        eventually("packets are traced", || {
            let tables = s.on_node(NODES[0], "nft list tables");
            if tables.contains("calico-trace-") { Ok(()) } else { Err(tables) }
        });
        s.ask(&format!("probe --from default/client --to default/web --port {port} -o json"));
        watching.join().unwrap()
    })
}

/// What the kernel does with real packets is what policy says, and is told by the rule that decides.
fn trace(s: &Sandbox) {
    for (port, verdict) in [("80", "allow"), ("81", "deny")] {
        let (live, code) = traced(s, port);
        let trace = &live["trace"];
        assert_eq!((code, &trace["agrees"]), (0, &json!(true)), "{port}: {live:#}");
        let packets = trace["packets"].as_array().unwrap();
        let first = packets.first().unwrap_or_else(|| panic!("{port}: none came by: {live:#}"));
        assert_eq!(first["verdict"], verdict, "{first:#}");
        assert_eq!(first["headers"][0]["port"].to_string(), port, "{first:#}");
        let events = first["events"].as_array().unwrap();
        let ingress = |e: &&Value| {
            let said = e["chainComment"].as_str().unwrap_or_default();
            // Not the end of the chain, which has no number.
            said.starts_with("ingress KubernetesNetworkPolicy default/only-client")
                && e["handle"].is_number()
        };
        let of_policy = events.iter().find(ingress);
        assert_eq!(of_policy.is_some(), verdict == "allow", "{first:#}");
    }
    assert!(!s.on_node(NODES[0], "nft list tables").contains("calico-trace-"));
}

/// Who else has a say on the node is found by `node preflight`, and by the agent, which reports it.
fn preflight(s: &Sandbox) {
    let node = format!("node:{}", NODES[1]);
    let ask = || s.exec(&node, &["calicoctl", "node", "preflight", "-o", "json"]).lines();
    let until_reported = |wanted: &Value| {
        eventually("the agent's report", || {
            let status = s.exec(&node, &["calicoctl", "node", "status", "-o", "json"]);
            let hooks = status.lines()[0]["foreignHooks"].clone();
            if hooks == *wanted { Ok(()) } else { Err(hooks.to_string()) }
        });
    };
    assert_eq!(ask(), Vec::<Value>::new(), "nobody but us");
    until_reported(&json!([]));
    s.on_node(
        NODES[1],
        "nft add table inet fw; add chain inet fw late { type filter hook forward priority 10; }; add rule inet fw late tcp dport 9 reject",
    );
    let found = ask();
    assert_eq!(found.len(), 1, "{found:?}");
    for (field, value) in [
        ("kind", json!("nft")),
        ("name", json!("inet fw late")),
        ("when", json!("after")),
        ("hook", json!("forward")),
        ("priority", json!(10)),
        ("effects", json!(["drop"])),
    ] {
        assert_eq!(found[0][field], value, "{found:?}");
    }
    until_reported(&json!(found));
    let told = s.exec(&node, &["calicoctl", "node", "preflight"]).done().unwrap();
    assert!(
        told.contains("Behind what policy accepts:") && told.contains("inet fw late"),
        "{told}"
    );
    s.on_node(NODES[1], "nft delete table inet fw");
    until_reported(&json!([]));
}

#[test]
fn the_kernel_is_asked() {
    let s = Sandbox::new();
    let before = s.traces();
    s.run("up --nodes 2");
    furnish(&s);
    agrees(&s, "default/client default/web:80", [Some("allow"), None]);
    agrees(&s, "default/client default/web:81", [Some("deny"), None]);
    agrees(&s, "default/web default/client:80", [Some("allow"), None]);
    // Each node speaks for itself: the sender's lets it go, the receiver's does not.
    agrees(&s, "default/other default/web:80", [Some("deny"), Some("allow")]);
    agrees(&s, "default/other default/client --protocol icmp", [Some("allow"); 2]);
    agrees(&s, "default/other 198.51.100.7:443", [None, Some("deny")]);
    agrees(&s, "node:k8s-node-1 default/web:80", [Some("allow"), None]);
    agrees(&s, "node:k8s-node-2 default/web:80", [Some("deny"), Some("allow")]);
    let (live, _) = live(&s, NODES[0], "default/other default/web:80");
    assert_eq!(live["inputInterface"], "vxlan.calico", "{live:#}");
    let told = why(&s, NODES[0], "default/other default/web:80").out;
    assert!(told.contains("filter-forward handle ") && told.contains(" packets, "), "{told}");
    let elsewhere = why(&s, NODES[1], "default/client default/web:80");
    assert_eq!(elsewhere.code, 1);
    assert!(elsewhere.err.contains("does not pass through this node"), "{}", elsewhere.err);
    trace(&s);
    preflight(&s);
    damage(&s);
    s.down(&before);
}
