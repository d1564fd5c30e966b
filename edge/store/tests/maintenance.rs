//! Backup, restore, check: of stores that run, of stores that do not, of files that are no good.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use store::{Durability, MaintenanceError, ServeOptions};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server as `calico store serve` runs it.
struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    maps: Api<ConfigMap>,
}

impl Serving {
    async fn start(dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let kubeconfig = dir.join("kubeconfig");
        drop(std::fs::remove_file(&kubeconfig));
        let url = format!("https://{}", listener.local_addr().unwrap());
        let options = ServeOptions {
            data_dir: dir.into(),
            durability: Durability::Process,
            listeners: vec![listener],
            names: Vec::new(),
            service_ranges: Vec::new(),
            access: apiserver::Access::default(),
            kubeconfigs: vec![(kubeconfig.clone(), url)],
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            store::serve(options, async { drop(stopped.await) }).await.unwrap();
        });
        for _ in 0..400 {
            if let Ok(text) = std::fs::read_to_string(&kubeconfig) {
                let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
                let options = KubeConfigOptions::default();
                let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
                let client = kube::Client::try_from(config.await.unwrap()).unwrap();
                let maps: Api<ConfigMap> = Api::namespaced(client, "default");
                if maps.list(&ListParams::default()).await.is_ok() {
                    return Self { stop, task, maps };
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server does not answer");
    }

    async fn stop(self) {
        drop(self.maps);
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    async fn create(&self, name: &str) -> u64 {
        let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": "v"}}));
        let made = self.maps.create(&PostParams::default(), &map.unwrap()).await.unwrap();
        made.metadata.resource_version.unwrap().parse().unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let list = self.maps.list(&ListParams::default()).await.unwrap();
        list.items.into_iter().map(|map| map.metadata.name.unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_is_as_it_was_and_clients_list_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("b1"));
    std::fs::create_dir(&data).unwrap();
    let server = Serving::start(&data).await;
    for at in 0..20 {
        server.create(&format!("kept-{at:02}")).await;
    }
    // While others write: what the backup says it has, it has.
    let maps = server.maps.clone();
    let writer = tokio::spawn(async move {
        for at in 0..200 {
            let map =
                serde_json::from_value(json!({"metadata": {"name": format!("during-{at:03}")}}));
            maps.create(&PostParams::default(), &map.unwrap()).await.unwrap();
        }
    });
    let (from, to) = (data.clone(), backup.clone());
    let made =
        tokio::task::spawn_blocking(move || store::backup(&from, &to)).await.unwrap().unwrap();
    writer.await.unwrap();
    assert!(
        matches!(store::backup(&data, &backup), Err(MaintenanceError::Refused(_))),
        "it is there"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    assert!(databases(&data).len() > 1, "it has a log");
    for file in databases(&data).into_iter().chain([backup.clone()]) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "secrets are in {}", file.display());
    }
    let report = store::check_backup(&backup).unwrap();
    assert_eq!((report.revision, report.objects as u64), (made.revision, made.objects));
    assert!(report.errors.is_empty() && report.warnings.is_empty(), "{report:?}");
    let report = store::check(&data).unwrap();
    assert!(report.errors.is_empty() && report.revision > 200, "of the running one: {report:?}");

    // Afterwards, and lost with the restoring.
    server.maps.delete("kept-03", &DeleteParams::default()).await.unwrap();
    let last = server.create("lost").await;
    assert!(matches!(store::restore(&backup, &data, false), Err(MaintenanceError::Exists { .. })));
    let error = store::restore(&backup, &data, true).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    server.stop().await;
    let restored = store::restore(&backup, &data, true).unwrap();
    assert!(restored.revision > last + 1_000_000);
    assert!(restored.replaced.unwrap().exists());

    let server = Serving::start(&data).await;
    let names = server.names().await;
    let kept = names.iter().filter(|name| name.starts_with("kept-")).count();
    assert!(kept == 20 && !names.contains(&"lost".to_owned()), "{names:?}");
    for known in [last, last - 1, made.revision, 1] {
        let watch = server.maps.watch(&WatchParams::default(), &known.to_string()).await;
        let gone = match watch {
            Err(kube::Error::Api(status)) => status.code == 410,
            Ok(stream) => {
                let first = Box::pin(stream).next().await;
                matches!(first, Some(Ok(WatchEvent::Error(status))) if status.code == 410)
            }
            Err(_) => false,
        };
        assert!(gone, "a watch from {known}");
    }
    assert!(server.create("new").await > restored.revision);
    server.stop().await;
    let report = store::check(&data).unwrap();
    assert!(report.errors.is_empty() && report.warnings.is_empty(), "{report:?}");
    // Into an empty folder, of a store that does not run.
    let (second, empty) = (dir.path().join("b2"), dir.path().join("new"));
    let again = store::backup(&data, &second).unwrap();
    assert_ne!(again.identity, made.identity, "it is another store");
    store::restore(&second, &empty, false).unwrap();
    for file in databases(&empty) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "secrets are in {}", file.display());
    }
    let server = Serving::start(&empty).await;
    assert!(server.names().await.contains(&"new".to_owned()));
    server.stop().await;
}

/// The store's file, and what SQLite keeps beside it.
fn databases(data: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("store.db")).collect()
}

#[test]
fn what_is_damaged_or_newer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup, bad) =
        (dir.path().join("data"), dir.path().join("b"), dir.path().join("bad"));
    let missing = store::backup(&data, &backup).unwrap_err();
    assert!(matches!(missing, MaintenanceError::Missing { .. }), "{missing}");
    drop(store::Store::open(&store::Options::new(data.join("store.db"))).unwrap());
    store::backup(&data, &backup).unwrap();
    let whole = std::fs::read(&backup).unwrap();
    let line = whole.iter().position(|byte| *byte == b'\n').unwrap();
    let (manifest, database) = (String::from_utf8(whole[..line].to_vec()).unwrap(), &whole[line..]);
    let with = |from: &str, to: &str| {
        assert!(manifest.contains(from), "{manifest}");
        [manifest.replace(from, to).as_bytes(), database].concat()
    };
    let mut flipped = whole.clone();
    flipped[whole.len() - 100] ^= 1;
    let cases: [(Vec<u8>, &str); 7] = [
        (Vec::new(), "does not begin with the manifest"),
        (b"SQLite format 3\0".to_vec(), "does not begin with the manifest"),
        (whole[..whole.len() - 4096].to_vec(), "its manifest says"),
        (flipped, "the checksum of its database"),
        (with("\"kind\":\"calico-store-backup\"", "\"kind\":\"other\""), "of kind \"other\""),
        (
            with("\"format\":2", "\"format\":3"),
            "has format 3, this program reads up to 2: use calico",
        ),
        (with("\"version\":1", "\"version\":2"), "has layout 2"),
    ];
    let target = dir.path().join("target");
    for (bytes, wanted) in cases {
        std::fs::write(&bad, bytes).unwrap();
        let error = store::restore(&bad, &target, true).unwrap_err().to_string();
        assert!(error.contains(wanted), "wanted {wanted:?} in {error:?}");
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "nothing is left behind");
        assert!(store::check_backup(&bad).is_err());
    }
}

#[test]
fn a_check_finds_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    drop(store::Store::open(&store::Options::new(&path)).unwrap());
    let run = |sql: &str| {
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        store::check(dir.path()).unwrap()
    };
    let object = |name: &str, revision: u64| {
        json!({"metadata": {"name": name, "resourceVersion": revision.to_string(),
            "ownerReferences": [{"kind": "X", "name": "y", "uid": "u"}]}})
        .to_string()
    };
    let put = |key: &str, revision: u64, value: &str| {
        format!(
            "INSERT OR REPLACE INTO objects VALUES ('{key}', {revision}, CAST('{value}' AS BLOB));"
        )
    };
    let note = |key: &str, revision: u64| {
        format!(
            "INSERT OR REPLACE INTO history VALUES ({revision}, '{key}', 0, CAST('{{}}' AS BLOB));"
        )
    };
    let good = put("core/x/n/a", 1, &object("a", 1)) + &note("core/x/n/a", 1);
    let report = run(&(good + "UPDATE counter SET revision = 1;"));
    assert!(report.errors.is_empty(), "{report:?}");
    assert_eq!(report.warnings.len(), 2, "neither owner nor namespace: {report:?}");
    let cases = [
        ("UPDATE counter SET revision = 2;".to_owned(), "history: it ends at 1"),
        (note("core/x/n/a", 3) + "UPDATE counter SET revision = 3;", "revision 3 follows 1"),
        (put("core/x/n/b", 1, &object("b", 1)), "is that of core/x/n/a, too"),
        (put("core/x/n/c", 9, &object("c", 9)), "beyond the last one"),
        (put("core/x/n/d", 2, &object("e", 2)), "its name is \"e\""),
        (put("core/x/n/f", 2, &object("f", 7)), "its resourceVersion is \"7\""),
        (put("core/x/n/g", 2, "{"), "not JSON"),
        ("DELETE FROM counter;".to_owned(), "counter: 0 rows"),
    ];
    for (sql, wanted) in cases {
        let report = run(&sql);
        assert!(
            report.errors.iter().any(|e| e.contains(wanted)),
            "wanted {wanted:?} in {report:?}"
        );
    }
    // Bytes of the file itself.
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[4096..4200] {
        *byte ^= 0xff;
    }
    std::fs::write(&path, bytes).unwrap();
    match store::check(dir.path()) {
        Ok(report) => assert!(report.errors[0].contains("database"), "{report:?}"),
        Err(error) => assert!(error.to_string().contains("corrupt"), "{error}"),
    }
}
