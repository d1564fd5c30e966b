//! The server as a process of its own, killed at any moment: what it acknowledged is there afterwards.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// The process; killed when dropped.
struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Self {
        // Beside this test: target/release/deps/killed-xxx and target/release/examples/serve.
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/serve");
        drop(std::fs::remove_file(dir.join("kubeconfig")));
        let child = Command::new(&program).arg(dir).arg("127.0.0.1:0").spawn();
        Self(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn maps(dir: &Path) -> Api<ConfigMap> {
    let path: PathBuf = dir.join("kubeconfig");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(text) = std::fs::read_to_string(&path)
            && let Ok(kubeconfig) = Kubeconfig::from_yaml(&text)
        {
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
            let client = kube::Client::try_from(config).unwrap();
            let maps: Api<ConfigMap> = Api::namespaced(client, "default");
            if maps.list(&ListParams::default().limit(1)).await.is_ok() {
                return maps;
            }
        }
        assert!(Instant::now() < until, "the server does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    let mut highest = 0;
    let rounds = std::env::var("KILLS").map_or(8, |kills| kills.parse().unwrap());
    for round in 0..rounds {
        let server = Server::start(dir.path());
        let maps = maps(dir.path()).await;
        let list = maps.list(&ListParams::default()).await.unwrap();
        let revision: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
        assert!(revision >= highest, "the revision went back from {highest} to {revision}");
        let found: BTreeMap<_, _> = list
            .items
            .into_iter()
            .map(|map| (map.metadata.name.unwrap(), map.metadata.resource_version.unwrap()))
            .collect();
        for (name, revision) in &acknowledged {
            assert_eq!(found.get(name), Some(revision), "{name} of an earlier round");
        }
        let writers = (0..4).map(|writer| {
            let maps = maps.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                for at in 0.. {
                    let name = format!("r{round}-w{writer}-{at}");
                    let map = serde_json::from_value(
                        json!({"metadata": {"name": name}, "data": {"k": "v"}}),
                    );
                    match maps.create(&PostParams::default(), &map.unwrap()).await {
                        Ok(made) => done.push((name, made.metadata.resource_version.unwrap())),
                        Err(_) => break,
                    }
                }
                done
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(100 + 37 * (round % 9))).await;
        server.kill();
        let report = store::check(dir.path()).unwrap();
        assert!(report.errors.is_empty(), "round {round}: {report:?}");
        let before = acknowledged.len();
        for writer in writers {
            let done =
                tokio::time::timeout(Duration::from_secs(20), writer).await.unwrap().unwrap();
            acknowledged.extend(done);
        }
        assert!(acknowledged.len() > before, "round {round} wrote nothing");
        highest = acknowledged.values().map(|r| r.parse().unwrap()).max().unwrap();
    }
}
