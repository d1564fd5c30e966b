//! What the agent holds of a large cluster, and how long its first look takes: 150,000 pods on 5,000 other
//! nodes, each with a block of addresses, and 10,000 policies; on the embedded store and on etcd. The
//! cluster is put into the store as it is, nothing of it runs.

use serde_json::{Value, json};

use crate::report;
use crate::world::{Kind, World, generated};

const PODS: usize = 150_000;
const NODES: usize = 5_000;
const POLICIES: usize = 10_000;

pub(crate) fn run() {
    for kind in Kind::ALL {
        one(kind);
    }
}

fn one(kind: Kind) {
    let what = |of: &str| {
        format!("{PODS} pods, {NODES} nodes, {POLICIES} policies, {}: {of}", kind.name())
    };
    let mut world = World::new(kind);
    // Its pods are left out: what is measured is remote.
    let policies = generated(POLICIES).into_iter().filter(|o| o["kind"] != "WorkloadEndpoint");
    world.fill(policies.chain((0..NODES).flat_map(node)));
    world.start_agent();
    world.settle();
    let (without, before) = (world.memory("RssAnon:"), world.memory("VmHWM:"));
    world.kill_agent();
    report::note(&what("filling"));
    world.fill((0..PODS).map(pod));
    let raw = world.read_all();
    let started = world.start_agent();
    world.settle();
    let with = world.memory("RssAnon:");
    let bytes = (with - without) * 1024.0 * 1024.0 / PODS as f64;
    let mib = |mib: f64| format!("{mib:.1} MiB");
    report::numbers(&what("held for a pod"), "<= 200 bytes", vec![bytes], |b| {
        format!("{b:.0} bytes")
    });
    report::numbers(&what("held without pods"), "none", vec![without], mib);
    report::numbers(&what("held"), "none", vec![with], mib);
    report::numbers(&what("peak"), "none", vec![world.memory("VmHWM:")], mib);
    report::numbers(&what("peak without pods"), "none", vec![before], mib);
    report::times(&what("start to in force"), "as fast as the server", vec![started.whole]);
    report::times(&what("of that, CPU of the agent"), "none", vec![started.cpu]);
    report::times(&what("a plain client's reading of the pods alone"), "none", vec![raw]);
}

fn node(i: usize) -> [Value; 2] {
    let name = format!("worker-{i:04}");
    let address = format!("10.200.{}.{}/16", i / 250, 1 + i % 250);
    let node = json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": name},
        "spec": {"bgp": {"ipv4Address": address}}});
    let cidr = format!("10.{}.{}.{}/26", 96 + i * 64 / 65_536, i * 64 / 256 % 256, i * 64 % 256);
    let used = PODS / NODES;
    let allocations: Vec<Value> =
        (0..64).map(|n| if n < used { json!(n) } else { Value::Null }).collect();
    let attributes: Vec<Value> = (0..used)
        .map(|n| {
            let secondary = json!({"namespace": format!("ns-{}", n % 10), "node": name,
                "pod": format!("service-{i:04}-{n:02}"), "timestamp": "2026-01-01 00:00:00 +0000 UTC"});
            json!({"handle_id": format!("k8s-pod-network.{:064x}", i * 64 + n), "secondary": secondary})
        })
        .collect();
    let block = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {},
        "spec": {"cidr": cidr, "affinity": format!("host:{name}"), "strictAffinity": false,
            "allocations": allocations, "unallocated": (used..64).collect::<Vec<_>>(),
            "attributes": attributes, "deleted": false}});
    [node, block]
}

fn pod(i: usize) -> Value {
    let (node, n) = (i % NODES, i / NODES);
    let address = node * 64 + n;
    let ip = format!("10.{}.{}.{}/32", 96 + address / 65_536, address / 256 % 256, address % 256);
    let namespace = format!("ns-{}", i % 10);
    let name = format!("service-{node:04}-{n:02}");
    json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"namespace": namespace, "labels": {
            "app": format!("app-{}", i / 10 % 10), "role": format!("role-{}", i % 50),
            "app.kubernetes.io/name": format!("service-{}", i % 500), "pod-template-hash": "7d4b8c6f95",
            "projectcalico.org/namespace": namespace, "projectcalico.org/orchestrator": "k8s"}},
        "spec": {"orchestrator": "k8s", "node": format!("worker-{node:04}"), "pod": name,
            "containerID": format!("{i:064x}"), "endpoint": "eth0", "ipNetworks": [ip],
            "interfaceName": format!("cali{i:011x}"), "profiles": [format!("kns.{namespace}")],
            "mac": "66:bf:82:ee:01:02"}})
}
