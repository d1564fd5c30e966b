//! Storage for the API server in somebody else's store: etcd in upstream's layout.
//!
//! In go compare-and-swap writes and questions about kinds; out come objects, listings and changes, as from
//! any [`apiserver::storage::Storage`]. A kind is read when it is first asked for and followed from then on.
//! Invariants: what is shown is always a state that the store had; a write is never reported as refused when
//! it may have happened; other programs' writes show as our own do; what cannot be read is left alone, and
//! said once. Deliberately absent: rules about objects (the API server's), more than one object a write.
//! Start reading at [`open_etcd`] and [`client`], then `mirror`, then `etcd::layout`.

mod backend;
mod etcd;
mod mirror;
mod slot;

use std::convert::Infallible;
use std::sync::Arc;

use apiserver::storage::Storage;
use apiserver::{Local, Surface};

pub use backend::RemoteError;
pub use etcd::{EtcdOptions, EtcdTls};

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
