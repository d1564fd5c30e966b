//! A client that finds Calico's kinds in this process and everything else in a cluster.

use std::sync::Arc;

use apiserver::storage::Storage;
use apiserver::{Local, Surface};
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use tower::BoxError;

/// What is answered here.
const OURS: &str = "/apis/projectcalico.org";

/// A client of the API over `storage`, and of `cluster` for every other kind.
pub fn client_beside(storage: Arc<dyn Storage>, cluster: kube::Client) -> kube::Client {
    let local = Local::new(storage, Surface::Beside);
    let namespace = cluster.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (local, cluster) = (local.clone(), cluster.clone());
        async move {
            if is_ours(request.uri().path()) {
                let response = local.answer(request).await;
                return Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()));
            }
            let response = cluster.send(request).await.map_err(BoxError::from)?;
            Ok::<_, BoxError>(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
    });
    kube::Client::new(service, namespace)
}

fn is_ours(path: &str) -> bool {
    path.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
