//! Agents, plugins and the API killed in the middle of pods' ADD and DEL: each is made and removed
//! all the same, as a kubelet's retries do it, and nothing leaks. `CHURN` asks for more.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::holdings::holdings;
use common::{Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Each kills every kind of process once in ADDs and once in DELs.
const ROUNDS: u64 = 4;
const PODS: usize = 8;
const NODES: [&str; 2] = ["k8s-node-1", "k8s-node-2"];

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Agent,
    Plugin,
    Api,
}

impl Victim {
    /// The processes that are there now.
    fn find(self, s: &Sandbox) -> Vec<i32> {
        match self {
            Self::Agent => {
                NODES.iter().filter_map(|n| s.process(&[&format!("NODENAME={n} ")])).collect()
            }
            Self::Plugin => s.process(&["calico-cni ", "CNI_NETNS="]).into_iter().collect(),
            Self::Api => s.process(&["calico", " api "]).into_iter().collect(),
        }
    }
}

/// Once a plugin runs for a pod, and a little later, in the middle of what the pods need.
fn strike(s: &Sandbox, victim: Victim, delay: Duration, command: &str) -> usize {
    let end = Instant::now() + Duration::from_secs(10);
    while s.process(&["calico-cni ", command, "CNI_NETNS="]).is_none() {
        assert!(Instant::now() < end, "no {command} has begun");
    }
    std::thread::sleep(delay);
    // Plugins live for milliseconds: the next that comes, if one does.
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        // Who has ended since it was found, was not there to be killed.
        let struck = victim.find(s).into_iter();
        let struck = struck.filter(|p| kill(Pid::from_raw(*p), Signal::SIGKILL).is_ok()).count();
        if struck > 0 || Instant::now() > end {
            return struck;
        }
    }
}

fn pods(round: u64) -> String {
    let one = |i: usize| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p{i}"), "labels": {"round": round.to_string()}},
            "spec": {"nodeName": NODES[i % 2], "containers": [{"name": "c", "image": "c", "ports": [
                {"containerPort": 80}]}]}})
    };
    let items: Vec<_> = (0..PODS).map(one).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// The API may be the one that was killed.
fn insist(s: &Sandbox, words: &str, input: &str) {
    eventually(words, || s.ask_kubectl(words, input).done());
}

/// All pods answer all others, and no two have the same address.
fn all_work(s: &Sandbox) {
    let pods = s.json("get pods");
    let pods = pods["items"].as_array().unwrap();
    let of = |p: &Value| p["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let addresses: BTreeSet<_> = pods.iter().map(of).collect();
    assert_eq!(addresses.len(), PODS, "{addresses:?}");
    let outcomes = s.expect_agreement("", "pods that were made meanwhile");
    assert_eq!(outcomes.len(), PODS * (PODS - 1));
    assert!(outcomes.iter().all(|o| o["reachable"] == true), "{outcomes:?}");
}

#[test]
fn killed_in_the_middle_of_add_and_del() {
    let rounds = std::env::var("CHURN").map_or(ROUNDS, |r| r.parse().expect("CHURN: a number"));
    let s = Sandbox::up("--nodes 2 --dual-stack");
    let empty = holdings(&s, &NODES);
    let mut struck = 0;
    for round in 0..rounds {
        for (i, victim) in [Victim::Agent, Victim::Plugin, Victim::Api].into_iter().enumerate() {
            // Never the same moment.
            let delay = Duration::from_millis((round * 7 + i as u64 * 3) % 23);
            std::thread::scope(|scope| {
                scope.spawn(|| insist(&s, "apply -f -", &pods(round)));
                struck += strike(&s, victim, delay, "CNI_COMMAND=ADD ");
            });
            insist(&s, "wait --for=condition=Ready pod --all --timeout=60s", "");
            all_work(&s);
            std::thread::scope(|scope| {
                let words = "delete pods --all --timeout=60s";
                scope.spawn(|| insist(&s, words, ""));
                struck += strike(&s, victim, delay, "CNI_COMMAND=DEL ");
            });
            eventually("all pods are gone", || {
                let left = s.ask_kubectl("get pods -o name", "").done()?;
                if left.is_empty() { Ok(()) } else { Err(left) }
            });
            eprintln!("round {round}: {victim:?} killed after {delay:?}");
        }
        eventually("nothing has leaked", || {
            let now = holdings(&s, &NODES);
            if now == empty { Ok(()) } else { Err(format!("{now:#?} instead of {empty:#?}")) }
        });
    }
    eprintln!("{struck} processes killed");
    assert!(struck as u64 >= rounds * 4, "only {struck} were there to be killed");
}
