//! One suite, all datastores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "conformance/mod.rs"]
mod suite;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use apikit::Running;
use datastore::Datastore;
use etcd_client::{Client, CompactionOptions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remote::{EtcdOptions, EtcdTls};
use serde_json::{Value, json};
use suite::proxy::Proxy;
use suite::trouble::{self, Site};
use testkit::{ControlPlane, Controllers, Etcd};

async fn over(options: &EtcdOptions) -> Datastore {
    Datastore::over(remote::client(remote::open_etcd(options).await.unwrap(), "default"))
}

/// The configuration that a kubeconfig says, and the same with the server elsewhere.
async fn config(kubeconfig: &Path, at: Option<SocketAddr>) -> kube::Config {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
    if let Some(at) = at {
        config.cluster_url = format!("https://{at}").parse().unwrap();
    }
    config
}

/// Over `crd.projectcalico.org/v1` of a Kubernetes API server.
fn stored(config: kube::Config) -> Datastore {
    let cluster = kube::Client::try_from(config).unwrap();
    let storage = remote::open_kubernetes(cluster.clone());
    Datastore::over(remote::client_beside(storage, cluster))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(folder.path());
    let here = Datastore::over(server.client().await);
    let elsewhere = Datastore::over(server.client().await);
    suite::run(&here, &elsewhere).await;
    trouble::ten_thousand(&here, &elsewhere).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_with_v3_definitions() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v3");
    let here = Datastore::connect(Some(&plane.kubeconfig())).await.unwrap();
    let elsewhere = Datastore::connect(Some(&plane.kubeconfig())).await.unwrap();
    suite::run(&here, &elsewhere).await;
    trouble::ten_thousand(&here, &elsewhere).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_with_v1_definitions() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v1");
    let config = config(&plane.kubeconfig(), None).await;
    let (here, elsewhere) = (stored(config.clone()), stored(config));
    suite::run(&here, &elsewhere).await;
    trouble::ten_thousand(&here, &elsewhere).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let etcd = Etcd::start();
    let options = EtcdOptions { endpoints: vec![etcd.url().into()], ..EtcdOptions::default() };
    let (here, elsewhere) = (over(&options).await, over(&options).await);
    suite::run(&here, &elsewhere).await;
    trouble::ten_thousand(&here, &elsewhere).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_certificates() {
    let etcd = Etcd::start_with_tls();
    let tls = EtcdTls {
        authorities: Some(etcd.file("ca.crt").into()),
        certificate: Some(etcd.file("client.crt").into()),
        key: Some(etcd.file("client.key").into()),
    };
    let options = EtcdOptions { endpoints: vec![etcd.url().into()], tls, ..EtcdOptions::default() };
    suite::run(&over(&options).await, &over(&options).await).await;
}

/// The embedded store with a short memory.
struct Embedded {
    folder: tempfile::TempDir,
    server: Option<Running>,
    proxy: Proxy,
    config: kube::Config,
}

/// Changes that it remembers.
const HISTORY: usize = 32;

impl Embedded {
    fn serve(folder: &Path, address: &str) -> Running {
        let options = store::Options { history: HISTORY, ..apikit::options(folder) };
        Running::at(address, &options, folder)
    }
}

impl Site for Embedded {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn here(&self) -> Datastore {
        let mut config = self.config.clone();
        config.cluster_url = format!("https://{}", self.proxy.address).parse().unwrap();
        Datastore::with(config).unwrap()
    }

    fn elsewhere(&self) -> Datastore {
        Datastore::with(self.config.clone()).unwrap()
    }

    async fn restart(&mut self) {
        let server = self.server.take().unwrap();
        let address = server.address.to_string();
        tokio::task::block_in_place(|| server.stop());
        self.server = Some(Self::serve(self.folder.path(), &address));
    }

    async fn forget(&mut self) {
        let elsewhere = self.elsewhere();
        for at in 0..=HISTORY {
            let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier",
                "metadata": {"name": format!("noise-{at}")}, "spec": {}});
            let tiers = datastore::Resource::calico("tiers", "Tier");
            elsewhere.create::<Value>(&tiers, None, &pool).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = Embedded::serve(folder.path(), "127.0.0.1:0");
    let proxy = Proxy::start(server.address).await;
    let config = config(&server.kubeconfig_file, None).await;
    let mut site = Embedded { folder, server: Some(server), proxy, config };
    trouble::run(&mut site).await;
}

/// An API server of Kubernetes. When it starts again it knows nothing of what was before.
struct Kubernetes {
    plane: ControlPlane,
    proxy: Proxy,
    config: kube::Config,
    open: fn(kube::Config) -> Datastore,
    here: Datastore,
}

impl Kubernetes {
    async fn start(layout: &str, open: fn(kube::Config) -> Datastore) -> Self {
        let plane = ControlPlane::start(Controllers::Absent);
        plane.define(layout);
        let address = plane.server().trim_start_matches("https://").parse().unwrap();
        let proxy = Proxy::start(address).await;
        let here = open(config(&plane.kubeconfig(), Some(proxy.address)).await);
        let config = config(&plane.kubeconfig(), None).await;
        Self { plane, proxy, config, open, here }
    }
}

impl Site for Kubernetes {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn here(&self) -> Datastore {
        self.here.clone()
    }

    fn elsewhere(&self) -> Datastore {
        (self.open)(self.config.clone())
    }

    async fn restart(&mut self) {
        tokio::task::block_in_place(|| self.plane.restart("kube-apiserver"));
    }

    async fn forget(&mut self) {
        self.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_kubernetes_and_v3_definitions() {
    let native = |config| Datastore::with(config).unwrap();
    trouble::run(&mut Kubernetes::start("v3", native).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_kubernetes_and_v1_definitions() {
    trouble::run(&mut Kubernetes::start("v1", stored).await).await;
}

struct Kept {
    etcd: Etcd,
    proxy: Proxy,
    here: Datastore,
    elsewhere: Datastore,
}

impl Site for Kept {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn here(&self) -> Datastore {
        self.here.clone()
    }

    fn elsewhere(&self) -> Datastore {
        self.elsewhere.clone()
    }

    async fn restart(&mut self) {
        kill(Pid::from_raw(self.etcd.pid()), Signal::SIGKILL).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::block_in_place(|| self.etcd.restart());
    }

    async fn forget(&mut self) {
        let mut raw = Client::connect([self.etcd.url()], None).await.unwrap();
        let last = raw.get("nothing", None).await.unwrap().header().unwrap().revision();
        raw.compact(last, Some(CompactionOptions::new().with_physical())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_with_etcd() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(etcd.url().trim_start_matches("http://").parse().unwrap()).await;
    let at = |url: String| EtcdOptions { endpoints: vec![url], ..EtcdOptions::default() };
    let here = over(&at(format!("http://{}", proxy.address))).await;
    let elsewhere = over(&at(etcd.url().to_owned())).await;
    trouble::run(&mut Kept { etcd, proxy, here, elsewhere }).await;
}
