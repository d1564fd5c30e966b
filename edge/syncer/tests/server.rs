//! Against the embedded API: restarts, a history that is gone, deletes that happen meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apikit::Running;
use apiserver::storage::{Expect, Storage as _, Write};
use datastore::{Datastore, Resource};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use syncer::{Interests, Seen, Sink, SyncState, Update};
use testkit::{ControlPlane, Controllers};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const POLICIES: Resource = Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");
/// Changes that the server remembers.
const HISTORY: usize = 16;

/// A server with a short memory.
fn start(folder: &Path, address: &str) -> Running {
    let options = store::Options { history: HISTORY, ..apikit::options(folder) };
    Running::at(address, &options, folder)
}

async fn client(server: &Running) -> Datastore {
    Datastore::connect(Some(&server.kubeconfig_file)).await.unwrap()
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
    let interests = Interests { node: "n".into(), interface_prefix: "cali".into(), alone: false };
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
    let api = start(folder.path(), "127.0.0.1:0");
    let here = client(&api).await;
    create(&here, "stays").await;
    create(&here, "goes").await;
    create(&here, "leaves").await;
    let (told, task) = follow(here.clone());
    told.until("in sync", |t| t.in_sync == 1).await;
    assert_eq!(told.log(), said(&[("stays", true), ("goes", true), ("leaves", true)]));
    create(&here, "live").await;
    told.until("watched", |t| t.log.len() == 4).await;

    // A restart alone.
    let address = api.address.to_string();
    api.stop();
    let api = start(folder.path(), &address);
    create(&here, "after").await;
    told.until("after a restart", |t| t.log.len() == 5).await;

    // Away for a moment: the history still knows of the delete.
    api.stop();
    let elsewhere = start(folder.path(), "127.0.0.1:0");
    delete(&client(&elsewhere).await, "leaves").await;
    elsewhere.stop();
    let api = start(folder.path(), &address);
    told.until("a delete while away", |t| t.log.len() == 6).await;

    // Away for longer than the server's memory; it was reachable for others meanwhile.
    api.stop();
    let elsewhere = start(folder.path(), "127.0.0.1:0");
    let other = client(&elsewhere).await;
    delete(&other, "goes").await;
    for i in 0..HISTORY * 2 {
        create(&other, &format!("churn-{i}")).await;
        delete(&other, &format!("churn-{i}")).await;
    }
    create(&other, "new").await;
    elsewhere.stop();
    let api = start(folder.path(), &address);
    told.until("after the history was lost", |t| t.log.len() == 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let all = [
        ("stays", true),
        ("goes", true),
        ("leaves", true),
        ("live", true),
        ("after", true),
        ("leaves", false),
        ("goes", false),
        ("new", true),
    ];
    assert_eq!(told.log(), said(&all));
    assert_eq!(told.0.lock().unwrap().in_sync, 1);
    task.abort();
    api.stop();
}

/// Does something to many names, several at a time.
async fn many<F: Future<Output = ()>>(names: &[String], act: impl Fn(String) -> F) {
    futures_util::stream::iter(names.iter().cloned()).for_each_concurrent(16, act).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_beyond_the_servers_memory_come_whole_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let api = start(folder.path(), "127.0.0.1:0");
    bursts(&client(&api).await).await;
    api.stop();
}

async fn bursts(here: &Datastore) {
    let (told, task) = follow(here.clone());
    told.until("in sync", |t| t.in_sync == 1).await;
    let names: Vec<String> = (0..1_000).map(|i| format!("p-{i}")).collect();
    many(&names, |name| {
        let here = here.clone();
        async move { create(&here, &name).await }
    })
    .await;
    told.until("a thousand", |t| t.log.len() >= names.len()).await;
    many(&names, |name| {
        let here = here.clone();
        async move { delete(&here, &name).await }
    })
    .await;
    told.until("none", |t| t.log.len() >= 2 * names.len()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = told.0.lock().unwrap().log.clone();
    assert_eq!(log.len(), 2 * names.len(), "something came twice");
    for there in [true, false] {
        let told: HashSet<&String> = log.iter().filter(|w| w.1 == there).map(|w| &w.0).collect();
        assert_eq!(told.len(), names.len());
    }
    assert_eq!(told.0.lock().unwrap().in_sync, 1);
    task.abort();
}

/// Stands between client and server, and cuts every connection after so many bytes.
struct Scissors {
    address: SocketAddr,
    /// Bytes from the server until the cut; negative: none is made.
    left: Arc<AtomicI64>,
    cuts: Arc<AtomicUsize>,
}

impl Scissors {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (left, cuts) = (Arc::new(AtomicI64::new(-1)), Arc::new(AtomicUsize::new(0)));
        let (budget, count) = (left.clone(), cuts.clone());
        // Ends with the process: it waits for connections all the while.
        std::thread::spawn(move || {
            for here in listener.incoming() {
                let Ok(here) = here else { return };
                let Ok(there) = TcpStream::connect(server) else { continue };
                let (back_from, back_to) = (there.try_clone().unwrap(), here.try_clone().unwrap());
                std::thread::spawn(move || pass(here, there, |_| None));
                let (budget, count) = (budget.clone(), count.clone());
                std::thread::spawn(move || {
                    pass(back_from, back_to, |bytes| {
                        let bytes = i64::try_from(bytes).unwrap();
                        let before = budget.load(Ordering::SeqCst);
                        if before < 0 {
                            return None;
                        }
                        let after = budget.fetch_sub(bytes, Ordering::SeqCst) - bytes;
                        if after > 0 {
                            return None;
                        }
                        budget.store(-1, Ordering::SeqCst);
                        count.fetch_add(1, Ordering::SeqCst);
                        Some(usize::try_from(before).unwrap())
                    });
                });
            }
        });
        Self { address, left, cuts }
    }

    fn cut_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

/// Copies until an end, or until `cut` names the part of a piece that still goes through.
fn pass(mut from: TcpStream, mut to: TcpStream, cut: impl Fn(usize) -> Option<usize>) {
    let mut buffer = [0; 4096];
    while let Ok(read) = from.read(&mut buffer) {
        let part = cut(read);
        if read == 0 || to.write_all(&buffer[..part.unwrap_or(read)]).is_err() || part.is_some() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_cut_in_the_middle_of_an_event_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let api = start(folder.path(), "127.0.0.1:0");
    cuts(&api.kubeconfig_file, api.address).await;
    api.stop();
}

/// The same against the API server of Kubernetes with our CustomResourceDefinitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_is_followed_through_bursts_and_cuts() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v3");
    let file = plane.kubeconfig();
    let here = Datastore::connect(Some(&file)).await.unwrap();
    bursts(&here).await;
    let address = plane.server().trim_start_matches("https://").parse().unwrap();
    cuts(&file, address).await;
}

async fn cuts(kubeconfig: &Path, server: SocketAddr) {
    let here = Datastore::connect(Some(kubeconfig)).await.unwrap();
    let scissors = Scissors::before(server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("through-scissors");
    let url = |address: SocketAddr| format!("https://{address}");
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let text = text.replace(&url(server), &url(scissors.address));
    std::fs::write(&file, text).unwrap();
    let (told, task) = follow(Datastore::connect(Some(&file)).await.unwrap());
    told.until("in sync", |t| t.in_sync == 1).await;
    let mut wanted = Vec::new();
    for (round, bytes) in [1, 90, 300, 700, 1_500, 2_500].into_iter().enumerate() {
        scissors.cut_after(bytes);
        for i in 0..4 {
            let name = format!("cut-{round}-{i}");
            create(&here, &name).await;
            wanted.push((name, true));
        }
        told.until("after a cut", |t| t.log.len() >= wanted.len()).await;
        let gone = format!("cut-{round}-0");
        delete(&here, &gone).await;
        wanted.push((gone, false));
        told.until("a delete after a cut", |t| t.log.len() >= wanted.len()).await;
    }
    wanted.sort();
    assert_eq!(told.log(), wanted);
    assert!(scissors.cuts.load(Ordering::SeqCst) >= 4, "the scissors were not used");
    assert_eq!(told.0.lock().unwrap().in_sync, 1);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_object_is_reported_and_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    // The server would refuse it: an older version may have written it.
    let store = store::Store::open(&apikit::options(folder.path())).unwrap();
    let bad = |name: &str| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": name, "uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"order": "first", "selector": "all("},
        })
    };
    let write = |name: &str| Write {
        key: format!("projectcalico.org/globalnetworkpolicies/{name}").into(),
        expect: Expect::Absent,
        value: Some(bad(name)),
    };
    store.commit(vec![write("bad"), write("worse")]).await.unwrap();
    // This one's namespace is known, so it fails closed.
    let mut closed = bad("closed");
    closed["kind"] = "NetworkPolicy".into();
    closed["metadata"]["namespace"] = "default".into();
    let key = "projectcalico.org/networkpolicies/default/closed".into();
    store.commit(vec![Write { key, expect: Expect::Absent, value: Some(closed) }]).await.unwrap();
    drop(store);
    let api = start(folder.path(), "127.0.0.1:0");
    let here = client(&api).await;
    create(&here, "good").await;
    let (told, task) = follow(here.clone());
    told.until("in sync", |t| t.in_sync == 1).await;
    assert_eq!(told.log(), said(&[("good", true), ("closed", true)]));
    let refused = |name: &str| told.0.lock().unwrap().refused.get(name).copied();
    assert!(refused("GlobalNetworkPolicy bad") > Some(0));
    assert!(refused("GlobalNetworkPolicy worse") > Some(0));
    assert!(refused("NetworkPolicy default/closed") > Some(0));
    create(&here, "next").await;
    told.until("others go on", |t| t.log.len() == 3).await;
    // Mended, and taken away.
    let mut found: Value = here.get(&POLICIES, None, "bad").await.unwrap().unwrap();
    found["spec"] = json!({"order": 1, "selector": "all()"});
    here.replace::<Value>(&POLICIES, None, "bad", &found).await.unwrap();
    told.until("mended", |t| t.log.len() == 4).await;
    delete(&here, "worse").await;
    let closed = Resource::calico("networkpolicies", "NetworkPolicy");
    let found: Value = here.get(&closed, Some("default"), "closed").await.unwrap().unwrap();
    let text = |key: &str| found["metadata"][key].as_str().unwrap();
    let revision = (text("uid"), text("resourceVersion"));
    here.delete_in(&closed, (Some("default"), "closed"), revision).await.unwrap();
    let cleared = |t: &Told| t.refused.values().all(|reasons| *reasons == 0) && t.log.len() == 5;
    told.until("no complaint is left", cleared).await;
    let end = [("good", true), ("closed", true), ("next", true), ("bad", true), ("closed", false)];
    assert_eq!(told.log(), said(&end));
    task.abort();
    api.stop();
}
