//! Listening, TLS, and the life of connections.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::controllers;
use crate::http;
use crate::services::Range;
use crate::storage::Storage;
use crate::tls::{Identity, IdentityError, standard_names};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How the server is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the certificate authority and the token.
    pub identity_dir: PathBuf,
    /// DNS names and addresses under which clients reach the server, besides localhost.
    pub names: Vec<String>,
    /// Where services get their cluster addresses: one range for each family, the preferred first.
    pub service_ranges: Vec<Range>,
    /// Filled in by [`Server::new`] from the identity.
    pub(crate) token: String,
}

impl Options {
    /// The defaults: services in 10.96.0.0/16, no names but localhost.
    pub fn new(identity_dir: impl Into<PathBuf>) -> Self {
        let base = std::net::Ipv4Addr::new(10, 96, 0, 0);
        Self {
            identity_dir: identity_dir.into(),
            names: Vec::new(),
            service_ranges: Range::new(base.into(), 16).into_iter().collect(),
            token: String::new(),
        }
    }
}

/// The API server over a store.
pub struct Server {
    api: Arc<Api>,
    identity: Identity,
    tls: TlsAcceptor,
}

impl Server {
    /// Prepares a server: reads or makes its identity, and the objects that every cluster has.
    pub fn new(storage: Arc<dyn Storage>, mut options: Options) -> Result<Self, IdentityError> {
        let identity = Identity::open(&options.identity_dir)?;
        identity.token().clone_into(&mut options.token);
        let service = options.service_ranges.first().map(|range| range.first());
        let tls = identity.acceptor(&standard_names(&options.names, service))?;
        Ok(Self { api: Arc::new(Api::new(storage, options)), identity, tls })
    }

    /// A kubeconfig with which `kubectl` reaches this server at `server_url` as administrator.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        self.identity.kubeconfig(server_url)
    }

    /// Serves the listeners and runs the controllers until `shutdown` is ready.
    pub async fn serve(
        self,
        listeners: Vec<TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (stop, stopped) = watch::channel(false);
        controllers::prepare(&self.api).await.map_err(io::Error::other)?;
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(accept(listener, self.tls.clone(), self.api.clone(), stopped.clone()));
        }
        tasks.spawn(controllers::run(self.api.clone()));
        shutdown.await;
        stop.send_replace(true);
        tasks.shutdown().await;
        Ok(())
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: TlsAcceptor,
    api: Arc<Api>,
    stopped: watch::Receiver<bool>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers should not wait for more.
                drop(stream.set_nodelay(true));
                tokio::spawn(connection(stream, tls.clone(), api.clone(), stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    tls: TlsAcceptor,
    api: Arc<Api>,
    mut stopped: watch::Receiver<bool>,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let service = service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(http::answer(api, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_mins(1));
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1_000);
    let serve = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = serve => if let Err(error) = served {
            tracing::debug!(error = %error, "connection ended");
        },
        // The sender going away means the same as `true`.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}
