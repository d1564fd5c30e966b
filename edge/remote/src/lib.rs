//! Storage for the API server in somebody else's store: etcd, or a Kubernetes API server, in upstream's layout.
//!
//! In go compare-and-swap writes and questions about kinds; out come objects, listings and changes, as from
//! any [`apiserver::storage::Storage`]. A kind is read when it is first asked for and followed from then on.
//! Invariants: what is shown is always a state that the store had; a write is never reported as refused when
//! it may have happened; other programs' writes show as our own do; what cannot be read is left alone, and
//! said once. Deliberately absent: rules about objects (the API server's), more than one object a write.
//! Start reading at [`open_etcd`], [`open_kubernetes`] and [`client`], then `mirror`, then `etcd::layout` and
//! `kubernetes::convert`.

mod backend;
mod beside;
mod etcd;
mod kubernetes;
mod mirror;
pub mod settings;
mod slot;

use std::convert::Infallible;
use std::sync::Arc;

use apiserver::storage::Storage;
use apiserver::{Local, Surface};
use datastore::Datastore;

pub use backend::RemoteError;
pub use beside::client_beside;
pub use etcd::{EtcdOptions, EtcdTls, Reader, Reading, ReportedEndpoint, Reports, Secret};
pub use kubernetes::ApiGroup;

/// Calico's objects in etcd, where upstream keeps them. Must be called inside a runtime, which follows the
/// store for as long as the result is held.
///
/// # Errors
/// [`RemoteError`]: of the options, and of the user's name and password where they are given; whether etcd
/// answers shows otherwise with the first request.
pub async fn open_etcd(options: &EtcdOptions) -> Result<Arc<dyn Storage>, RemoteError> {
    let backend = etcd::Etcd::connect(options).await?;
    Ok(Arc::new(mirror::Mirror::new(backend)))
}

/// The same for a program that looks once: beside the storage, what reads whole kinds without holding them.
///
/// # Errors
/// As [`open_etcd`].
pub async fn open_etcd_to_read(
    options: &EtcdOptions,
) -> Result<(Arc<dyn Storage>, Reader), RemoteError> {
    let backend = etcd::Etcd::connect(options).await?;
    Ok((Arc::new(mirror::Mirror::new(backend.clone())), Reader::new(backend)))
}

/// Calico's objects in a Kubernetes API server that keeps them as custom resources of
/// `crd.projectcalico.org/v1`, as it does for upstream's API server, and those of its own objects that some of
/// Calico's are made from. Must be called inside a runtime, as [`open_etcd`].
pub fn open_kubernetes(client: kube::Client) -> Arc<dyn Storage> {
    Arc::new(mirror::Mirror::new(kubernetes::Kubernetes::new(client)))
}

/// A client of a cluster that serves Calico's kinds, however it keeps them: `client` itself, or one that makes
/// them of custom resources of `crd.projectcalico.org/v1` where there is nothing else, and asks for everything
/// else as before. Must be called inside a runtime.
///
/// # Errors
/// [`RemoteError`], as [`ApiGroup::find`].
pub async fn client_of_cluster(client: kube::Client) -> Result<kube::Client, RemoteError> {
    Ok(match ApiGroup::find(&client).await? {
        ApiGroup::Native => client,
        ApiGroup::Stored => client_beside(open_kubernetes(client.clone()), client),
    })
}

/// The datastore of an agent on etcd: it reads lists and changes directly and keeps no copy of them; single
/// objects are read, and what it writes is checked, the way of the API.
///
/// # Errors
/// As [`open_etcd`].
pub async fn datastore_on_etcd(options: &EtcdOptions) -> Result<Datastore, RemoteError> {
    let backend = etcd::Etcd::connect(options).await?;
    let feed = Arc::new(etcd::Lists::new(backend.clone()));
    let client = client(Arc::new(etcd::Direct::new(backend)), "default");
    Ok(Datastore::over(client).reading(feed))
}

/// A client of the API over `storage`, without a network in between. What is there of a namespace where
/// none is named is looked for in `namespace`.
pub fn client(storage: Arc<dyn Storage>, namespace: &str) -> kube::Client {
    let local = Local::new(storage, Surface::Calico);
    let service = tower::service_fn(move |request| {
        let local = local.clone();
        async move { Ok::<_, Infallible>(local.answer(request).await) }
    });
    kube::Client::new(service, namespace)
}
