//! Listening, TLS, and the life of connections.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::audit::{AuditOptions, Log};
use crate::auth::Tokens;
use crate::connections::{Admitted, Connections, Overdue};
use crate::controllers;
use crate::http::{self, Peer};
use crate::limits::Limits;
use crate::services::Range;
use crate::storage::Storage;
use crate::subject;
use crate::tls::{Identity, IdentityError, standard_names};

/// How long a connection that is told to end may take for it.
const FAREWELL: Duration = Duration::from_secs(5);
/// The most that a request's line and headers may take.
const HEAD: u32 = 64 << 10;

/// Which kinds are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surface {
    /// A whole cluster's: pods, namespaces, roles, definitions and the rest of what a small Kubernetes has,
    /// and Calico's kinds, of which some are made from those.
    #[default]
    Cluster,
    /// Calico's kinds alone, all of them stored as they are. Namespaces are only words.
    Calico,
    /// Calico's kinds alone, beside a Kubernetes that serves its own: the storage has those, too, and some of
    /// Calico's are made from them.
    Beside,
}

/// How the server is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the certificate authority and the token.
    pub identity_dir: PathBuf,
    /// DNS names and addresses under which clients reach the server, besides localhost.
    pub names: Vec<String>,
    /// Where services get their cluster addresses: one range for each family, the preferred first.
    pub service_ranges: Vec<Range>,
    /// What clients may use up.
    pub limits: Limits,
    /// Who else is known, and what is noted.
    pub access: Access,
    /// Which kinds are served.
    pub surface: Surface,
    /// Whether it is noted in `metadata.managedFields` who wrote what: server-side apply needs it.
    pub(crate) ownership: bool,
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
            limits: Limits::default(),
            access: Access::default(),
            surface: Surface::default(),
            ownership: true,
            token: String::new(),
        }
    }
}

/// Who is known besides the administrator and service accounts, and what is noted of requests.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A file of bearer tokens: lines of `token,user,uid,"group,group"`.
    pub tokens: Option<PathBuf>,
    /// Certificate authorities in PEM whose client certificates are accepted, besides our own.
    pub client_authorities: Option<PathBuf>,
    /// The audit log.
    pub audit: Option<AuditOptions>,
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
        let authorities = options.access.client_authorities.as_deref();
        let tls = identity.acceptor(&standard_names(&options.names, service), authorities)?;
        let tokens = options.access.tokens.as_deref().map(Tokens::read).transpose()?;
        let log = |options: AuditOptions| {
            let path = options.path.clone();
            Log::open(options).map_err(|source| IdentityError::File { path, source })
        };
        let audit = options.access.audit.clone().map(log).transpose()?;
        let api = Api::new(storage, options, tokens.unwrap_or_default(), audit);
        Ok(Self { api: Arc::new(api), identity, tls })
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
        let surface = self.api.options.surface;
        if surface == Surface::Cluster {
            controllers::prepare(&self.api).await.map_err(io::Error::other)?;
        }
        let mut tasks = tokio::task::JoinSet::new();
        let table = Arc::new(Connections::new(&self.api.gate.limits));
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (table, stopped) = (table.clone(), stopped.clone());
            tasks.spawn(accept(listener, self.tls.clone(), self.api.clone(), table, stopped));
        }
        if surface == Surface::Cluster {
            tasks.spawn(controllers::run(self.api.clone()));
        }
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
    table: Arc<Connections>,
    stopped: watch::Receiver<bool>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(admitted) = table.admit(peer.ip()) else {
                    tracing::debug!(%peer, "refused: too many connections");
                    continue;
                };
                // Small answers should not wait for more.
                drop(stream.set_nodelay(true));
                let work =
                    connection(stream, peer, tls.clone(), api.clone(), admitted, stopped.clone());
                tokio::spawn(work);
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
    peer: SocketAddr,
    tls: TlsAcceptor,
    api: Arc<Api>,
    admitted: Admitted,
    mut stopped: watch::Receiver<bool>,
) {
    let (tracker, gate) = (&admitted.tracker, api.gate.clone());
    let handshake = tokio::time::timeout(gate.limits.handshake, tls.accept(stream));
    let stream = tokio::select! {
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake took too long"),
        },
        () = tracker.closed.notified() => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| subject::user(chain.first()?));
    let peer = Arc::new(Peer { tracker: tracker.clone(), address: peer.ip(), certificate });
    let service = service_fn(|request| {
        let (api, peer) = (api.clone(), peer.clone());
        async move { Ok::<_, Infallible>(http::answer(api, &peer, request).await) }
    });
    let builder = protocol(&gate.limits);
    let mut serve = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = serve.as_mut() => served,
        overdue = tracker.watch(&gate.limits) => {
            tracing::debug!(?overdue, "a connection is closed");
            if overdue != Overdue::Idle {
                return;
            }
            serve.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, serve).await.unwrap_or(Ok(()))
        }
        () = tracker.closed.notified() => return,
        // The sender going away means the same as `true`.
        () = async { drop(stopped.wait_for(|stop| *stop).await) } => return,
    };
    if let Err(error) = served {
        tracing::debug!(error = %error, "connection ended");
    }
}

/// HTTP/1.1 and HTTP/2, with bounds on what one connection holds in memory.
fn protocol(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(100)
        .max_buf_size(HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .max_header_list_size(HEAD)
        .max_send_buf_size(128 << 10)
        .keep_alive_interval(limits.stall)
        .keep_alive_timeout(limits.stall);
    builder
}
