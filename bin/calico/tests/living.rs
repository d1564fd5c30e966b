//! `kubectl apply` of a policy meets living connections: what it denies ends, the rest goes on.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{Sandbox, eventually, inside};
use serde_json::{Value, json};

const PORT: u16 = 7000;
const SOON: Duration = Duration::from_secs(10);

fn pods() -> String {
    let one = |name: &str, node: usize| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": format!("k8s-node-{node}"), "containers": [{"name": "c", "image": "c"}]}})
    };
    let items = [one("server", 1), one("near", 1), one("far", 2)];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// To the server only from pods with the label `app` in the list.
fn only_from(clients: &[&str]) -> String {
    let from: Vec<_> =
        clients.iter().map(|c| json!({"podSelector": {"matchLabels": {"app": c}}})).collect();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "server"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": from}]}})
    .to_string()
}

/// Both ends of a connection from a pod to the server.
fn connect(s: &Sandbox, listener: &TcpListener, pod: &str, to: SocketAddr) -> [TcpStream; 2] {
    let client = inside(s.pod_netns(pod), move || TcpStream::connect_timeout(&to, SOON).unwrap());
    let (server, _) = listener.accept().unwrap();
    let ends = [client.join().unwrap(), server];
    for end in &ends {
        end.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    ends
}

fn is_alive([client, server]: &mut [TcpStream; 2]) -> bool {
    let mut text = [0; 4];
    server.write_all(b"ping").is_ok() && client.read_exact(&mut text).is_ok()
}

fn is_reset(end: &mut TcpStream) -> bool {
    let started = Instant::now();
    while started.elapsed() < SOON {
        match end.read(&mut [0; 16]) {
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return true,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return false,
        }
    }
    false
}

#[test]
fn a_policy_ends_the_connections_that_it_denies() {
    let s = Sandbox::up("--nodes 2");
    s.kubectl("apply -f -", &pods());
    s.pods_ready();
    s.kubectl("apply -f -", &only_from(&["near", "far"]));
    let address = s.json("get pod server")["status"]["podIP"].as_str().unwrap().to_owned();
    let to = SocketAddr::new(address.parse().unwrap(), PORT);
    let listening = inside(s.pod_netns("default/server"), move || TcpListener::bind(to).unwrap());
    let listener = listening.join().unwrap();
    let mut near = connect(&s, &listener, "default/near", to);
    let mut far = connect(&s, &listener, "default/far", to);

    s.kubectl("apply -f -", &only_from(&["near"]));
    for end in &mut far {
        assert!(is_reset(end), "denied: both ends are reset");
    }
    assert!(is_alive(&mut near), "allowed all the time");
    let status = eventually("the agent says which", || {
        let words = ["calicoctl", "node", "status", "-o", "json"];
        let said = s.exec("node:k8s-node-1", &words).done()?;
        let status: Value = serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))?;
        if status["cutFlows"]["count"] == 1 { Ok(status) } else { Err(said) }
    });
    let line = status["cutFlows"]["last"][0].as_str().unwrap();
    assert!(line.contains("default/server") && line.contains("end of tier default"), "{line}");

    // A label goes: the pod is no member of the set any more.
    s.kubectl("label pod near app=other --overwrite", "");
    for end in &mut near {
        assert!(is_reset(end), "denied: both ends are reset");
    }
    s.kubectl("delete networkpolicy server", "");
    eventually("new connections are allowed", || {
        let open = inside(s.pod_netns("default/far"), move || {
            TcpStream::connect_timeout(&to, Duration::from_millis(500)).map(drop)
        });
        open.join().unwrap().map_err(|e| e.to_string())
    });
}
