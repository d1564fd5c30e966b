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
use crate::certificate::ServingFiles;
use crate::connections::{Admitted, Answer, Connections, Overdue};
use crate::controllers;
use crate::hooks::Hooks;
use crate::http::{self, Peer};
use crate::limits::{Gate, Limits};
use crate::rights::Delegation;
use crate::services::Range;
use crate::storage::Storage;
use crate::subject;
use crate::tls::{AnyClient, Identity, IdentityError, standard_names};
use crate::trust::{Certificates, Verifier};

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
    /// The certificate to serve with; else one is made that our own authority signs.
    pub serving: Option<ServingFiles>,
    /// Who is asked about users and rights that are not known here.
    pub delegate: Delegation,
    /// Where the service accounts of Calico's own programs are, if there is somebody to ask: nobody else
    /// writes ClusterInformation then.
    pub system_namespaces: Vec<String>,
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
            serving: None,
            delegate: Delegation::default(),
            system_namespaces: vec!["calico-system".into(), "kube-system".into()],
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
    tls: Arc<Tls>,
}

/// How connections are taken up.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// Holds client certificates against our own authorities, if the handshake lets any pass.
    pub(crate) own: Option<Verifier>,
}

impl Tls {
    fn new(identity: &Identity, options: &Options) -> Result<Self, IdentityError> {
        let service = options.service_ranges.first().map(|range| range.first());
        let names = standard_names(&options.names, service);
        let others = options.access.client_authorities.as_deref();
        let own = match options.delegate.0 {
            Some(_) => Some(identity.own_clients(others)?),
            None => None,
        };
        let clients = match own {
            Some(_) => Arc::new(AnyClient::new()),
            None => identity.known_clients(others)?,
        };
        let acceptor = identity.acceptor(&names, options.serving.clone(), clients)?;
        Ok(Self { acceptor, own })
    }
}

impl Server {
    /// Prepares a server: reads or makes its identity, and the objects that every cluster has.
    pub fn new(storage: Arc<dyn Storage>, mut options: Options) -> Result<Self, IdentityError> {
        let identity = Identity::open(&options.identity_dir)?;
        identity.token().clone_into(&mut options.token);
        let tls = Arc::new(Tls::new(&identity, &options)?);
        let tokens = options.access.tokens.as_deref().map(Tokens::read).transpose()?;
        let log = |options: AuditOptions| {
            let path = options.path.clone();
            Log::open(options).map_err(|source| IdentityError::File { path, source })
        };
        let audit = options.access.audit.clone().map(log).transpose()?;
        let api = Api::new(storage, options, tokens.unwrap_or_default(), audit);
        Ok(Self { api: Arc::new(api), identity, tls })
    }

    /// Our own certificate authority, in PEM. It signed the serving certificate, unless that comes from files.
    pub fn authority(&self) -> &str {
        self.identity.ca_pem()
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
        let mut tasks = tokio::task::JoinSet::new();
        if self.api.options.surface == Surface::Cluster {
            controllers::prepare(&self.api).await.map_err(io::Error::other)?;
            tasks.spawn(controllers::run(self.api.clone()));
        }
        serve(Service::Api(self.api), self.tls, listeners, tasks, shutdown).await
    }
}

/// What answers the requests of a connection.
#[derive(Clone)]
pub(crate) enum Service {
    Api(Arc<Api>),
    Hooks(Arc<Hooks>),
}

impl Service {
    fn gate(&self) -> &Arc<Gate> {
        match self {
            Self::Api(api) => &api.gate,
            Self::Hooks(hooks) => &hooks.gate,
        }
    }

    /// Whether a front proxy has shown these certificates.
    fn shared(&self, certificates: &Certificates) -> bool {
        let Self::Api(api) = self else { return false };
        let trust = api.delegate().and_then(|delegate| delegate.trust());
        trust.is_some_and(|trust| certificates.proxy(&trust))
    }

    async fn answer<B: http::Incoming>(
        &self,
        peer: &Peer,
        request: hyper::Request<B>,
    ) -> hyper::Response<Answer> {
        match self {
            Self::Api(api) => http::answer(api.clone(), peer, request).await,
            Self::Hooks(hooks) => hooks.answer(peer, request).await,
        }
    }
}

/// Serves the listeners, beside `tasks`, until `shutdown` is ready.
pub(crate) async fn serve(
    service: Service,
    tls: Arc<Tls>,
    listeners: Vec<TcpListener>,
    mut tasks: tokio::task::JoinSet<()>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let table = Arc::new(Connections::new(&service.gate().limits));
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (table, stopped) = (table.clone(), stopped.clone());
        tasks.spawn(accept(listener, tls.clone(), service.clone(), table, stopped));
    }
    shutdown.await;
    stop.send_replace(true);
    tasks.shutdown().await;
    Ok(())
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: Arc<Tls>,
    service: Service,
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
                let (tls, service) = (tls.clone(), service.clone());
                tokio::spawn(connection(stream, peer, tls, service, admitted, stopped.clone()));
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
    tls: Arc<Tls>,
    service: Service,
    admitted: Admitted,
    mut stopped: watch::Receiver<bool>,
) {
    let (tracker, gate) = (&admitted.tracker, service.gate().clone());
    let handshake = tokio::time::timeout(gate.limits.handshake, tls.acceptor.accept(stream));
    let stream = tokio::select! {
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake took too long"),
        },
        () = tracker.closed.notified() => return,
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = match &tls.own {
        Some(own) => Certificates::shown(chain, own),
        None => Certificates::verified(chain.first().and_then(|first| subject::user(first))),
    };
    if service.shared(&certificates) {
        tracker.shared();
    }
    let peer = Arc::new(Peer { tracker: tracker.clone(), address: peer.ip(), certificates });
    let answer = service_fn(|request| {
        let (service, peer) = (service.clone(), peer.clone());
        async move { Ok::<_, Infallible>(service.answer(&peer, request).await) }
    });
    let builder = protocol(&gate.limits);
    let mut serve = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), answer));
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
