//! Against the embedded API: restarts, a history that is gone, deletes that happen meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datastore::{Datastore, Resource};
use serde_json::{Value, json};
use syncer::{Interests, Seen, Sink, SyncState, Update};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const POLICIES: Resource = Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");
/// Changes that the server remembers.
const HISTORY: usize = 16;

/// A server that can be stopped and started again on the same file.
struct Api {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    address: SocketAddr,
    kubeconfig: PathBuf,
}

impl Api {
    async fn start(folder: &Path, address: &str) -> Self {
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap();
        let options =
            store::Options { history: HISTORY, ..store::Options::new(folder.join("store.db")) };
        let storage = Arc::new(store::Store::open(&options).unwrap());
        let server =
            apiserver::Server::new(storage, apiserver::Options::new(folder.join("pki"))).unwrap();
        let kubeconfig = folder.join(format!("kubeconfig-{}", address.port()));
        let url = format!("https://127.0.0.1:{}", address.port());
        std::fs::write(&kubeconfig, server.kubeconfig(&url)).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            server.serve(vec![listener], until).await.unwrap();
        });
        Self { stop, task, address, kubeconfig }
    }

    async fn stop(self) -> SocketAddr {
        self.stop.send(()).unwrap();
        // Watches that are still open are cut off.
        let stopped = tokio::time::timeout(Duration::from_secs(2), self.task).await;
        stopped.expect("the server does not stop").expect("the server panicked");
        self.address
    }

    async fn client(&self) -> Datastore {
        Datastore::connect(Some(&self.kubeconfig)).await.unwrap()
    }
}

/// The port may still be in use by the server that has just ended.
async fn bind(address: &str) -> TcpListener {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(e) => assert!(Instant::now() < until, "{address}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is known now, and every word that was said about policies.
#[derive(Default)]
struct Told {
    log: Vec<(String, bool)>,
    refused: BTreeMap<String, usize>,
    in_sync: usize,
}

#[derive(Default)]
struct Recorder(Mutex<Told>);

impl Sink for Recorder {
    fn update(&self, update: Update) {
        let mut told = self.0.lock().unwrap();
        match update {
            Update::Policy(id, policy) => told.log.push((id.name.to_string(), policy.is_some())),
            Update::InSync => told.in_sync += 1,
            _ => {}
        }
    }
    fn seen(&self, _: Seen) {}
    fn refused(&self, object: &str, reasons: &[String]) {
        self.0.lock().unwrap().refused.insert(object.to_owned(), reasons.len());
    }
    fn state(&self, _: SyncState) {}
}

impl Recorder {
    fn log(&self) -> Vec<(String, bool)> {
        let mut log = self.0.lock().unwrap().log.clone();
        log.sort();
        log
    }

    async fn until(&self, what: &str, good: impl Fn(&Told) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !good(&self.0.lock().unwrap()) {
            assert!(Instant::now() < until, "{what}: {:?}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn create(client: &Datastore, name: &str) {
    let spec = json!({"selector": "all()", "order": 1});
    let object = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    });
    client.create::<Value>(&POLICIES, None, &object).await.unwrap();
}

async fn delete(client: &Datastore, name: &str) {
    let found: Value = client.get(&POLICIES, None, name).await.unwrap().unwrap();
    let text = |key: &str| found["metadata"][key].as_str().unwrap().to_owned();
    let revision = (&*text("uid"), &*text("resourceVersion"));
    client.delete(&POLICIES, name, revision).await.unwrap();
}

fn follow(client: Datastore) -> (Arc<Recorder>, JoinHandle<()>) {
    let recorder = Arc::new(Recorder::default());
    let interests = Interests { node: "n".into(), interface_prefix: "cali".into() };
    let task = tokio::spawn(syncer::run(client, interests, recorder.clone()));
    (recorder, task)
}

fn said(words: &[(&str, bool)]) -> Vec<(String, bool)> {
    let mut all: Vec<_> = words.iter().map(|(n, there)| ((*n).to_owned(), *there)).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_repeats_nothing_and_a_lost_history_loses_no_delete() {
    let folder = tempfile::tempdir().unwrap();
    let api = Api::start(folder.path(), "127.0.0.1:0").await;
    let client = api.client().await;
    create(&client, "stays").await;
    create(&client, "goes").await;
    let (told, task) = follow(client.clone());
    told.until("in sync", |t| t.in_sync == 1).await;
    assert_eq!(told.log(), said(&[("stays", true), ("goes", true)]));
    create(&client, "live").await;
    told.until("watched", |t| t.log.len() == 3).await;

    // A restart alone.
    let address = api.stop().await.to_string();
    let api = Api::start(folder.path(), &address).await;
    create(&client, "after").await;
    told.until("after a restart", |t| t.log.len() == 4).await;

    // Away for longer than the server's memory; it was reachable for others meanwhile.
    api.stop().await;
    let elsewhere = Api::start(folder.path(), "127.0.0.1:0").await;
    let other = elsewhere.client().await;
    delete(&other, "goes").await;
    for i in 0..HISTORY * 2 {
        create(&other, &format!("churn-{i}")).await;
        delete(&other, &format!("churn-{i}")).await;
    }
    create(&other, "new").await;
    elsewhere.stop().await;
    let api = Api::start(folder.path(), &address).await;
    told.until("after the history was lost", |t| t.log.len() == 6).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let all = [
        ("stays", true),
        ("goes", true),
        ("live", true),
        ("after", true),
        ("goes", false),
        ("new", true),
    ];
    assert_eq!(told.log(), said(&all));
    assert_eq!(told.0.lock().unwrap().in_sync, 1);
    task.abort();
    api.stop().await;
}
