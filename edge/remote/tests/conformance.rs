//! One suite, all datastores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "conformance/mod.rs"]
mod suite;

use apikit::Running;
use datastore::Datastore;
use remote::{EtcdOptions, EtcdTls};
use testkit::{ControlPlane, Controllers, Etcd};

async fn over(options: &EtcdOptions) -> Datastore {
    Datastore::over(remote::client(remote::open_etcd(options).await.unwrap(), "default"))
}

/// Over `crd.projectcalico.org/v1` of a Kubernetes API server.
async fn stored(plane: &ControlPlane) -> Datastore {
    let cluster = Datastore::connect(Some(&plane.kubeconfig())).await.unwrap();
    Datastore::over(remote::client_of_cluster(cluster.client()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(folder.path());
    let here = Datastore::over(server.client().await);
    let elsewhere = Datastore::over(server.client().await);
    suite::run(&here, &elsewhere).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_with_v3_definitions() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v3");
    let here = Datastore::connect(Some(&plane.kubeconfig())).await.unwrap();
    let elsewhere = Datastore::connect(Some(&plane.kubeconfig())).await.unwrap();
    suite::run(&here, &elsewhere).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_with_v1_definitions() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v1");
    suite::run(&stored(&plane).await, &stored(&plane).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let etcd = Etcd::start();
    let options = EtcdOptions { endpoints: vec![etcd.url().into()], ..EtcdOptions::default() };
    suite::run(&over(&options).await, &over(&options).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_certificates() {
    let etcd = Etcd::start_with_tls();
    let tls = EtcdTls {
        authorities: Some(etcd.file("ca.crt")),
        certificate: Some(etcd.file("client.crt")),
        key: Some(etcd.file("client.key")),
    };
    let options = EtcdOptions { endpoints: vec![etcd.url().into()], tls, ..EtcdOptions::default() };
    suite::run(&over(&options).await, &over(&options).await).await;
}
