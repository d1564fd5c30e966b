//! Changes that lock nodes of an etcd out, and are taken back; also by agents that lose etcd while they start.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod etcd;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use etcd::{Cluster, NAMES, PORT, ROOT};
use serde_json::{Value, json};
use testkit::{Server, tcp_reply};

const PATIENCE: Duration = Duration::from_mins(1);

/// All hosts, both ways.
fn policy(name: &str, action: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"order": 10, "selector": "is == 'host'", "types": ["Ingress", "Egress"],
            "ingress": [{"action": action}], "egress": [{"action": action}]},
    })
}

fn stored(cluster: &Cluster, name: &str) -> Option<Value> {
    cluster.get(&format!("{ROOT}/globalnetworkpolicies/{name}"))
}

/// Whether an administrator reaches the node.
fn is_reached(cluster: &Cluster, node: usize) -> bool {
    let to = SocketAddr::new(IpAddr::from(cluster.topology.nodes[node].v4), PORT);
    tcp_reply(&cluster.topology.fabric, to, Duration::from_millis(500)).is_some()
}

fn until(cluster: &Cluster, what: &str, good: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < until, "{what}\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn both(cluster: &Cluster, reached: bool) -> bool {
    is_reached(cluster, 0) == reached && is_reached(cluster, 1) == reached
}

/// Waits for the end of an agent; comes out its exit code.
fn ended(cluster: &mut Cluster, node: usize) -> Option<i32> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = cluster.agents[node].as_mut().unwrap().try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < until, "the agent does not end\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start() -> (Cluster, Vec<Server>) {
    let mut cluster = Cluster::start();
    cluster.environment = vec![
        ("FELIX_FAILSAFEINBOUNDHOSTPORTS", "none"),
        ("FELIX_FAILSAFEOUTBOUNDHOSTPORTS", "none"),
    ];
    // Agents may always speak to etcd but when a test takes it away: what is tested is not the failsafe ports.
    let mut objects = vec![policy("open", "Allow")];
    for (node, name) in NAMES.iter().enumerate() {
        let address = cluster.topology.nodes[node].v4;
        objects.push(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
            "metadata": {"name": name, "labels": {"is": "host"}},
            "spec": {"node": name, "interfaceName": "eth0", "expectedIPs": [address]},
        }));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    cluster.ctl(&["apply", "-f", "-"], &list);
    let servers = (0..2).map(|n| Server::start(&cluster.topology.nodes[n].netns, PORT, NAMES[n]));
    let servers = servers.collect();
    cluster.run_agent(0);
    cluster.run_agent(1);
    let able = |name: &str| {
        let node = cluster.get(&format!("{ROOT}/nodes/{name}")).unwrap_or_default();
        let note = &node["metadata"]["annotations"]["projectcalico.org/agent-features"];
        note == "confirm,confirm-delete"
    };
    until(&cluster, "agents say what they can", || able("node-a") && able("node-b"));
    until(&cluster, "nodes are reached", || both(&cluster, true));
    (cluster, servers)
}

fn apply(cluster: &Cluster, within: &str, action: &str) {
    let said = cluster.ctl(
        &["apply", "--confirm-within", within, "-f", "-"],
        &policy("open", action).to_string(),
    );
    assert!(said.contains("calicoctl confirm"), "{said}");
}

/// The store has what was before the change, without a trace of it.
fn is_back(cluster: &Cluster) -> bool {
    let open = stored(cluster, "open").unwrap();
    let marked = open["metadata"]["annotations"].get("projectcalico.org/unconfirmed").is_some();
    open["spec"]["ingress"][0]["action"] == "Allow" && !marked
}

/// No object carries the trace of a change.
fn nothing_waits(cluster: &Cluster) -> bool {
    let keys =
        ["globalnetworkpolicies", "hostendpoints"].map(|k| cluster.keys(&format!("{ROOT}/{k}/")));
    let objects = keys.iter().flatten().filter_map(|key| cluster.get(key));
    objects.map(|o| o["metadata"]["annotations"].to_string()).all(|n| !n.contains("unconfirmed"))
}

#[test]
fn changes_are_taken_back() {
    let (mut cluster, _servers) = start();
    // The nodes cut themselves off; they come back, and the store follows.
    apply(&cluster, "8s", "Deny");
    until(&cluster, "both nodes are cut off", || both(&cluster, false));
    cluster.way.cut();
    until(&cluster, "both nodes go back without etcd", || both(&cluster, true));
    assert_eq!(stored(&cluster, "open").unwrap()["spec"]["ingress"][0]["action"], "Deny");
    cluster.way.open();
    until(&cluster, "the store follows", || is_back(&cluster));

    // An agent dies, and starts while etcd is out of reach: as long as there is time it waits for it.
    apply(&cluster, "12s", "Deny");
    until(&cluster, "both nodes are cut off", || both(&cluster, false));
    cluster.kill_agent(0);
    cluster.way.cut();
    cluster.run_agent(0);
    // It has begun with an etcd that it cannot ask: it starts again, as whoever runs it does.
    assert_eq!(ended(&mut cluster, 0), Some(129), "{}", cluster.logs());
    assert!(!is_reached(&cluster, 0), "the kernel stays as it is");
    cluster.run_agent(0);
    until(&cluster, "the node goes back without etcd", || is_reached(&cluster, 0));
    until(&cluster, "and so has the other", || is_reached(&cluster, 1));
    assert_eq!(stored(&cluster, "open").unwrap()["spec"]["ingress"][0]["action"], "Deny");
    cluster.way.open();
    until(&cluster, "the store follows", || is_back(&cluster));
    assert_eq!(ended(&mut cluster, 0), Some(129), "with etcd it starts again");
    cluster.run_agent(0);
    let left = |node: usize| {
        let dir = std::fs::read_dir(cluster.run_dir(node)).unwrap().flatten();
        dir.map(|e| e.file_name()).any(|n| n.to_string_lossy().starts_with("unconfirmed"))
    };
    until(&cluster, "the journal is gone", || !left(0) && !left(1));
    assert!(both(&cluster, true));
}

/// Deleting, patching and labelling are changes, too.
#[test]
fn every_verb_can_be_taken_back() {
    let (cluster, _servers) = start();
    let deny = r#"{"spec": {"ingress": [{"action": "Deny"}]}}"#;
    let later = r#"{"spec": {"order": 20}}"#;
    // What is done, and what somebody else would do to the same object.
    let verbs: [(&[&str], &[&str]); 3] = [
        // Without a policy that allows anything the tier denies, and without any policy the host is closed.
        (&["delete", "gnp", "open"], &["delete", "gnp", "open"]),
        (&["patch", "gnp", "open", "--patch", deny], &["patch", "gnp", "open", "--patch", later]),
        (
            &["label", "hep", "node-a", "is=other", "--overwrite"],
            &["label", "hep", "node-a", "is=third", "--overwrite"],
        ),
    ];
    for (words, others) in verbs {
        let run = |within: &str| {
            let said = cluster.ctl(&[words, ["--confirm-within", within].as_slice()].concat(), "");
            assert!(said.contains("calicoctl confirm"), "{words:?}: {said}");
        };
        let before = cluster.keys(&format!("{ROOT}/globalnetworkpolicies/"));
        run("6s");
        until(&cluster, &format!("{words:?} is in force"), || !is_reached(&cluster, 0));
        assert_eq!(cluster.keys(&format!("{ROOT}/globalnetworkpolicies/")), before, "{words:?}");
        let again = cluster.ask_ctl(&[others, &["--confirm-within", "6s"]].concat(), "");
        assert!(again.unwrap_err().contains("is part of unconfirmed change"), "{others:?}");
        until(&cluster, &format!("{words:?} is taken back"), || both(&cluster, true));
        until(&cluster, "and the store follows", || is_back(&cluster) && nothing_waits(&cluster));
    }
    // What is confirmed stays.
    cluster.ctl(&["delete", "gnp", "open", "--confirm-within", "1h"], "");
    until(&cluster, "the policy is not in force any more", || both(&cluster, false));
    assert!(stored(&cluster, "open").is_some(), "others see it until then");
    let said = cluster.ctl(&["confirm"], "");
    assert!(said.contains("GlobalNetworkPolicy open confirmed"), "{said}");
    until(&cluster, "now it is deleted", || stored(&cluster, "open").is_none());
    std::thread::sleep(Duration::from_secs(2));
    assert!(both(&cluster, false));
}
