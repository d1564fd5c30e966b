//! Certificates, authorities and passwords for etcd are replaced while it is written to and watched.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datastore::{Datastore, Next, Resource, WatchEvent};
use etcd_client::{Client, ConnectOptions, PermissionType};
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remote::{EtcdOptions, EtcdTls, Reports, Secret};
use serde_json::{Value, json};
use testkit::{Authority, Etcd};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SETS: Resource = Resource::calico("globalnetworksets", "GlobalNetworkSet");
/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_hours(24);

/// Somebody who counts in an object, and others who watch him.
struct Traffic {
    /// How far he has come.
    counted: Arc<AtomicU64>,
    /// How far each has seen him come, one step after the other.
    seen: Vec<Arc<AtomicU64>>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// The writer is an agent; an agent watches, and a client of the API.
    async fn start(options: &EtcdOptions) -> Self {
        let api = remote::client(remote::open_etcd(options).await.unwrap(), "default");
        let agent = remote::datastore_on_etcd(options).await.unwrap();
        let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": "counter", "annotations": {"count": "0"}}, "spec": {}});
        agent.create::<Value>(&SETS, None, &object).await.unwrap();
        let (counted, mut tasks, mut seen) = (Arc::default(), JoinSet::new(), Vec::new());
        for watcher in [Datastore::over(api), agent.clone()] {
            let told: Arc<AtomicU64> = Arc::default();
            seen.push(told.clone());
            let from = watcher.list(&SETS, 10, None).await.unwrap().revision;
            tasks.spawn(watch(watcher, from, told));
        }
        tasks.spawn(count(agent, Arc::clone(&counted)));
        Self { counted, seen, tasks }
    }

    /// Waits until there is more, and everybody has seen it.
    async fn goes_on(&mut self, what: &str) {
        const MORE: u64 = 20;
        let wanted = self.counted.load(Ordering::SeqCst) + MORE;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.tasks.try_join_next() {
                panic!("{what}: {ended:?}");
            }
            let counted = self.counted.load(Ordering::SeqCst);
            let seen: Vec<u64> = self.seen.iter().map(|s| s.load(Ordering::SeqCst)).collect();
            if counted >= wanted && seen.iter().all(|seen| *seen >= wanted) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {counted}, {seen:?}, wanted {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

fn number(object: &Value) -> u64 {
    object["metadata"]["annotations"]["count"].as_str().unwrap().parse().unwrap()
}

async fn count(datastore: Datastore, counted: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Ok(now) = datastore.get::<Value>(&SETS, None, "counter").await else { continue };
        let (mut next, count) = (now.unwrap(), counted.load(Ordering::SeqCst));
        let found = number(&next);
        // What was not answered may have been done.
        assert!(found == count || found == count + 1, "{found} after {count}");
        counted.store(found, Ordering::SeqCst);
        next["metadata"]["annotations"]["count"] = (found + 1).to_string().into();
        if datastore.replace::<Value>(&SETS, None, "counter", &next).await.is_ok() {
            counted.store(found + 1, Ordering::SeqCst);
        }
    }
}

/// Never lists again: the place in the history must not be lost.
async fn watch(datastore: Datastore, mut revision: String, seen: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut events = match datastore.watch(&SETS, &revision).await {
            Ok(events) => events,
            Err(error) => {
                assert_ne!(error.next(), Next::Relist, "{error}");
                continue;
            }
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Put(object)) => {
                    version(&object).clone_into(&mut revision);
                    let before = seen.swap(number(&object), Ordering::SeqCst);
                    assert_eq!(number(&object), before + 1, "every change, once");
                }
                Ok(WatchEvent::Bookmark(at)) => revision = at,
                Ok(WatchEvent::Gone(object)) => panic!("{object}"),
                Err(error) => {
                    assert_ne!(error.next(), Next::Relist, "{error}");
                    break;
                }
            }
        }
    }
}

/// Our ends of the connections to a port of this machine.
fn connections(to: u16) -> BTreeSet<String> {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open: BTreeSet<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let remote = format!(":{to:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_ours = |f: &Vec<&str>| open.contains(Path::new(&format!("socket:[{}]", f[9])));
    let ours = fields.filter(|f| f[2].ends_with(&remote) && f[3] == "01" && is_ours(f));
    ours.map(|f| f[1].to_owned()).collect()
}

/// etcd is ended, and starts again with other files.
fn restart(etcd: &mut Etcd, trusted: &[&Authority], own: &Authority) {
    fs::write(etcd.file("ca.crt"), pems(trusted)).unwrap();
    own.write(etcd.file("ca.crt").parent().unwrap(), "server", DAY);
    tokio::task::block_in_place(|| {
        kill(Pid::from_raw(etcd.pid()), Signal::SIGKILL).unwrap();
        etcd.restart();
    });
}

fn pems(of: &[&Authority]) -> String {
    of.iter().map(|authority| authority.pem()).collect()
}

fn files(folder: &Path, name: &str) -> EtcdTls {
    let at = |file: String| Some(Secret::File(folder.join(file)));
    EtcdTls {
        authorities: at("ca.crt".into()),
        certificate: at(format!("{name}.crt")),
        key: at(format!("{name}.key")),
    }
}

async fn is_refused(options: &EtcdOptions) {
    let storage = remote::open_etcd(options).await.unwrap();
    let stranger = Datastore::over(remote::client(storage, "default"));
    let refused = stranger.get::<Value>(&SETS, None, "counter").await;
    refused.expect_err("etcd does not know who this is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities() {
    const SHORT: Duration = Duration::from_secs(15);
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let mut etcd = Etcd::start_with_tls();
    restart(&mut etcd, &[&first], &first);
    let port = etcd.url().rsplit(':').next().unwrap().parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("ca.crt"), first.pem()).unwrap();
    first.write(at, "client", SHORT);
    let expires = Instant::now() + SHORT + Duration::from_secs(1);
    for kind in ["crt", "key"] {
        fs::copy(at.join(format!("client.{kind}")), at.join(format!("old.{kind}"))).unwrap();
    }
    let with = |name: &str| EtcdOptions {
        endpoints: vec![etcd.url().into()],
        user: None,
        tls: files(at, name),
    };
    let (options, old) = (with("client"), with("old"));
    let reports = Reports::connect(&options, "", "n").await.unwrap();
    let mut traffic = Traffic::start(&options).await;
    traffic.goes_on("at first").await;

    // Nobody's connection breaks; all go over to the new certificate.
    let before = connections(port);
    assert!(!before.is_empty());
    first.write(at, "client", DAY);
    let until = Instant::now() + PATIENCE;
    while !connections(port).is_disjoint(&before) {
        assert!(Instant::now() < until, "{before:?}, now {:?}", connections(port));
        traffic.goes_on("while the certificate is replaced").await;
    }
    traffic.goes_on("with the new certificate").await;
    tokio::time::sleep_until(expires).await;
    restart(&mut etcd, &[&first], &first);
    traffic.goes_on("after the old certificate has expired").await;
    is_refused(&old).await;

    // A certificate without its key, and then one that etcd does not know yet: neither is used.
    let key = fs::read(at.join("client.key")).unwrap();
    second.write(at, "client", DAY);
    let new = fs::read(at.join("client.key")).unwrap();
    for key in [key, new] {
        fs::write(at.join("client.key"), key).unwrap();
        let used = connections(port);
        tokio::time::sleep(Duration::from_secs(5)).await;
        traffic.goes_on("with credentials that do not work").await;
        assert!(!connections(port).is_disjoint(&used), "the old connections stay");
    }
    // Its authority is known from now on, to both sides.
    fs::write(at.join("ca.crt"), pems(&[&first, &second])).unwrap();
    restart(&mut etcd, &[&first, &second], &first);
    traffic.goes_on("with a certificate of the second authority").await;
    restart(&mut etcd, &[&second], &second);
    fs::write(at.join("ca.crt"), second.pem()).unwrap();
    traffic.goes_on("without the first authority").await;
    first.write(at, "old", DAY);
    is_refused(&old).await;
    reports.lives("2026-01-01T00:00:00Z", Duration::ZERO, false, DAY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords() {
    let etcd = Etcd::start();
    let mut raw = Client::connect([etcd.url()], None).await.unwrap();
    for (user, role) in [("root", "root"), ("calico", "calico")] {
        raw.role_add(role).await.unwrap();
        raw.user_add(user, "first-word", None).await.unwrap();
        raw.user_grant_role(user, role).await.unwrap();
    }
    let all = etcd_client::Permission::new(PermissionType::Readwrite, "/calico/").with_prefix();
    raw.role_grant_permission("calico", all).await.unwrap();
    raw.auth_enable().await.unwrap();
    let root = ConnectOptions::new().with_user("root", "first-word");
    let mut root = Client::connect([etcd.url()], Some(root)).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "first-word\n").unwrap();
    let options = EtcdOptions {
        endpoints: vec![etcd.url().into()],
        user: Some(("calico".into(), Secret::File(file.clone()))),
        tls: EtcdTls::default(),
    };
    let mut traffic = Traffic::start(&options).await;
    traffic.goes_on("at first").await;
    // The file comes first, then etcd; and the other way round.
    fs::write(&file, "second-word\n").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    traffic.goes_on("while etcd does not know the new password").await;
    root.user_change_password("calico", "second-word").await.unwrap();
    traffic.goes_on("with the second password").await;
    root.user_change_password("calico", "third-word").await.unwrap();
    fs::write(&file, "third-word\n").unwrap();
    traffic.goes_on("with the third password").await;
    let user = Some(("calico".into(), Secret::Inline("second-word".into())));
    let wrong = EtcdOptions { user, ..options };
    assert!(remote::open_etcd(&wrong).await.is_err(), "the password was changed");
}
