//! HTTP: `/metrics`, `/liveness`, `/readiness`, `/status`, `/config`.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::health::Health;

/// Makes the document of `/status` or `/config`.
pub type DocumentFn = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What one address serves. What is `None` answers 404.
#[derive(Clone, Default)]
pub struct Endpoints {
    /// `/metrics`, in the OpenMetrics text format.
    pub metrics: Option<Arc<Registry>>,
    /// `/liveness` and `/readiness`: 204, or 503 with the components as JSON.
    pub health: Option<Health>,
    /// `/status`: JSON.
    pub status: Option<DocumentFn>,
    /// `/config`: JSON.
    pub config: Option<DocumentFn>,
}

/// Serves until it is dropped; requests that have begun are answered.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Stops; when this returns the address is free.
    pub async fn stop(mut self) {
        self.task.abort();
        // It was aborted, so it has no other result.
        let _ = (&mut self.task).await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Not served.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address}")]
pub struct ServeError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Returns once the address is bound.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, endpoints: Endpoints) -> Result<Server, ServeError> {
    let failed = |source| ServeError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let task = tokio::spawn(accept(move |context| listener.poll_accept(context), endpoints));
    Ok(Server { address: bound, task })
}

/// The same on a socket of the file system, until the runtime ends: who may connect, its folder and its mode say.
pub fn serve_local(listener: UnixListener, endpoints: Endpoints) {
    tokio::spawn(accept(move |context| listener.poll_accept(context), endpoints));
}

/// Answers everyone who comes.
async fn accept<S, A>(
    mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<(S, A)>>,
    endpoints: Endpoints,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    loop {
        let Ok((stream, _)) = poll_fn(&mut next).await else {
            // Out of descriptors: others need the time to give some back.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let endpoints = endpoints.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &endpoints);
                async move { Ok::<_, Infallible>(response) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            // A client that goes away is no event for us.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, endpoints: &Endpoints) -> Response<Full<Bytes>> {
    let found = match request.uri().path() {
        "/metrics" => endpoints.metrics.as_deref().map(metrics),
        "/liveness" => endpoints.health.as_ref().map(|h| state(h, h.live())),
        "/readiness" => endpoints.health.as_ref().map(|h| state(h, h.ready())),
        "/status" => endpoints.status.as_ref().map(|status| json(StatusCode::OK, &status())),
        "/config" => endpoints.config.as_ref().map(|config| json(StatusCode::OK, &config())),
        _ => None,
    };
    found.unwrap_or_else(|| {
        let what = "want /metrics, /liveness, /readiness, /status or /config";
        let what = serde_json::json!({ "error": what });
        json(StatusCode::NOT_FOUND, &what)
    })
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response(StatusCode::OK, kind, text)
        }
        Err(e) => response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", e.to_string()),
    }
}

fn state(health: &Health, good: bool) -> Response<Full<Bytes>> {
    if good {
        return response(StatusCode::NO_CONTENT, "text/plain", String::new());
    }
    let components = serde_json::json!({"components": health.components()});
    json(StatusCode::SERVICE_UNAVAILABLE, &components)
}

fn json(code: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    response(code, "application/json", value.to_string())
}

fn response(code: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
