//! Addresses from several nodes at once, on the embedded API and on the API server of Kubernetes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use apikit::Running;
use datastore::{Addresses, Ask, Datastore, Resource};
use serde_json::{Value, json};
use testkit::{ControlPlane, Controllers};
use tokio::task::JoinSet;

const POOLS: Resource = Resource::calico("ippools", "IPPool");
const BLOCKS: Resource = Resource::calico("ipamblocks", "IPAMBlock");
const HANDLES: Resource = Resource::calico("ipamhandles", "IPAMHandle");
const NODES: usize = 4;
const PODS: usize = 12;

fn ask(node: usize, pod: usize) -> Ask {
    let owner = [("namespace", "default".to_owned()), ("pod", format!("p-{node}-{pod}"))];
    Ask {
        handle: format!("k8s-pod-network.{node}-{pod}"),
        owner: owner.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        ..Ask::default()
    }
}

/// Every node asks for all of its pods at once, in both families; the pools have just enough room.
async fn run(kubeconfig: &Path) {
    let here = Datastore::connect(Some(kubeconfig)).await.unwrap();
    for (name, cidr, size) in [("four", "10.9.0.0/26", 29), ("six", "fd09::/122", 125)] {
        let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name},
            "spec": {"cidr": cidr, "blockSize": size}});
        here.create::<Value>(&POOLS, None, &pool).await.unwrap();
    }
    let nodes: Vec<Arc<Addresses>> =
        (0..NODES).map(|n| Arc::new(Addresses::new(here.clone(), &format!("node-{n}")))).collect();
    let mut asked = JoinSet::new();
    for (n, node) in nodes.iter().enumerate() {
        for pod in 0..PODS {
            let node = node.clone();
            asked.spawn(async move { node.assign(&ask(n, pod), None).await });
        }
    }
    let mut given = BTreeSet::new();
    while let Some(done) = asked.join_next().await {
        let addresses = done.unwrap().unwrap();
        assert_eq!(addresses.len(), 2, "one of each family: {addresses:?}");
        for address in addresses {
            assert!(given.insert(address), "{address} was given twice");
        }
    }
    for (n, node) in nodes.iter().enumerate() {
        let held = node.held_by_node().await.unwrap();
        assert_eq!(held.len(), PODS, "node-{n}: {held:?}");
        assert!(held.values().all(|(all, _)| all.iter().all(|a| given.contains(a))));
    }
    let taken = |block: &Value| {
        let all = block["spec"]["allocations"].as_array().unwrap();
        all.iter().filter(|index| !index.is_null()).count()
    };
    let blocks: Vec<Value> = here.list_all(&BLOCKS).await.unwrap();
    assert_eq!(
        blocks.iter().map(taken).sum::<usize>(),
        given.len(),
        "what is written is what was given"
    );
    for (n, node) in nodes.iter().enumerate() {
        for pod in 0..PODS {
            let handle = ask(n, pod).handle;
            assert_eq!(node.release(&handle).await.unwrap(), 2, "{handle}");
            assert_eq!(node.release(&handle).await.unwrap(), 0, "{handle} again");
        }
    }
    let blocks: Vec<Value> = here.list_all(&BLOCKS).await.unwrap();
    assert_eq!(blocks.iter().map(taken).sum::<usize>(), 0);
    let handles: Vec<Value> = here.list_all(&HANDLES).await.unwrap();
    assert!(handles.is_empty(), "{handles:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_api() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(folder.path());
    run(&server.kubeconfig_file).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_of_kubernetes() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v3");
    run(&plane.kubeconfig()).await;
}
