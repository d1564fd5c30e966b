//! The CNI server: one connection, one request, one reply.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cni::protocol::{Failure, Reply, Request, codes};
use datastore::Addresses;
use model::{IfaceName, WorkloadId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, MutexGuard};

use crate::inbox::Inbox;
use crate::place::Place;
use crate::pods::Pods;
use crate::status::Shared;
use crate::workloads;

/// Longest request; configurations are small.
const MAX_REQUEST: u64 = 4 << 20;

/// In one read, mostly.
const USUAL_REQUEST: usize = 4 << 10;

/// How long a plugin may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many pods are worked on at the same time without waiting for each other.
const LANES: usize = 64;

/// Everything that requests need.
pub(crate) struct Cni {
    pub(crate) node: String,
    /// What the names of pods' interfaces begin with; the first that of pods to come.
    pub(crate) interface_prefixes: Vec<String>,
    pub(crate) pod_mtu: Option<u32>,
    /// What Kubernetes calls this node.
    pub(crate) kubernetes_node: String,
    pub(crate) place: Arc<Place>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) shared: Arc<Shared>,
    /// Networks that have a profile.
    pub(crate) made_profiles: Mutex<HashSet<String>>,
    pub(crate) socket: PathBuf,
    pub(crate) host_settings: Arc<netlink::Settings>,
    lanes: Vec<Mutex<()>>,
}

/// What [`Cni`] is made from.
pub(crate) struct Parts {
    pub(crate) place: Arc<Place>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) interface_prefixes: Vec<String>,
    pub(crate) host_settings: Arc<netlink::Settings>,
}

impl Cni {
    pub(crate) fn new(settings: &crate::settings::Settings, parts: Parts) -> Self {
        let named = settings.node_ref.as_ref().filter(|_| parts.place.alone.is_some());
        let kubernetes_node = named.unwrap_or(&settings.node);
        Self {
            node: settings.node.clone(),
            interface_prefixes: parts.interface_prefixes,
            pod_mtu: settings.pod_mtu,
            kubernetes_node: kubernetes_node.clone(),
            place: parts.place,
            made_profiles: Mutex::default(),
            addresses: parts.addresses,
            pods: parts.pods,
            inbox: parts.inbox,
            shared: parts.shared,
            socket: settings.run_dir.join("cni.sock"),
            host_settings: parts.host_settings,
            lanes: (0..LANES).map(|_| Mutex::new(())).collect(),
        }
    }

    /// Requests about one pod follow each other.
    pub(crate) async fn lane(&self, id: &WorkloadId) -> MutexGuard<'_, ()> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.lanes[hasher.finish() as usize % LANES].lock().await
    }

    /// What the interfaces of pods to come begin with.
    pub(crate) fn interface_prefix(&self) -> &str {
        self.interface_prefixes.first().map_or(model::wiring::WORKLOAD_PREFIX, String::as_str)
    }

    /// Name of a pod's interface on the host, if it is made now.
    pub(crate) fn host_iface(&self, id: &WorkloadId) -> Result<IfaceName> {
        let prefix = self.interface_prefix();
        let name = match &self.place.alone {
            None => api::convert::interface_name(prefix, &id.namespace, &id.name),
            Some(_) => workloads::interface(prefix, id),
        };
        name.parse()
            .with_context(|| format!("interfacePrefix {prefix:?} is too long (want up to 4 bytes)"))
    }

    /// Serves until the runtime ends; returns once the socket is there.
    pub(crate) fn listen(self: &Arc<Self>) -> Result<()> {
        let listener = bind(&self.socket)?;
        let cni = self.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let cni = cni.clone();
                        tokio::spawn(async move { cni.serve(stream).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a CNI request failed");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        let mut text = Vec::with_capacity(USUAL_REQUEST);
        let mut bounded = (&mut stream).take(MAX_REQUEST);
        let read = tokio::time::timeout(PATIENCE, bounded.read_to_end(&mut text)).await;
        let reply = match read.map(|_| serde_json::from_slice::<Request>(&text)) {
            Ok(Ok(request)) => self.answer(&request).await,
            Ok(Err(e)) => {
                let msg = format!("the request cannot be read: {e}");
                Reply::Failed(Failure::new(codes::DECODING_FAILURE, msg))
            }
            Err(_) => return,
        };
        let text = serde_json::to_vec(&reply).unwrap_or_default();
        // A plugin that was killed meanwhile comes back with a DEL.
        let _ = stream.write_all(&text).await;
    }

    async fn answer(self: &Arc<Self>, request: &Request) -> Reply {
        let started = std::time::Instant::now();
        let done = match request.command.as_str() {
            "ADD" => self.add(request).await.map(Reply::Added),
            "DEL" => self.del(request).await.map(|()| Reply::Done),
            "CHECK" => self.check(request).await.map(|()| Reply::Done),
            "STATUS" => self.status().map(|()| Reply::Done),
            "GC" => self.collect(request).await.map(|()| Reply::Done),
            other => {
                let msg = format!("command {other:?} is not known");
                Err(Failure::new(codes::INVALID_ENVIRONMENT, msg))
            }
        };
        let (command, container) = (&request.command, &request.container_id);
        let took = started.elapsed();
        match done {
            // Runtimes ask every few seconds.
            Ok(reply) if command == "STATUS" => {
                tracing::debug!(?took, "CNI STATUS: ready");
                reply
            }
            Ok(reply) => {
                tracing::info!(command, container, ?took, "CNI request done");
                reply
            }
            Err(failure) => {
                let (code, error, details) = (failure.code, &failure.msg, &failure.details);
                tracing::warn!(
                    command,
                    container,
                    ?took,
                    code,
                    error,
                    details,
                    "CNI request failed"
                );
                Reply::Failed(failure)
            }
        }
    }

    fn status(&self) -> Result<(), Failure> {
        let good = *self.pods.started.borrow();
        let msg = "the agent is not in sync with the datastore yet";
        if good { Ok(()) } else { Err(Failure::new(codes::NOT_AVAILABLE, msg)) }
    }
}

/// Binds a socket that only root may use, in place of one that a dead process left.
pub(crate) fn bind(path: &Path) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().context("a socket needs a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("removing {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// An internal failure, with its causes.
pub(crate) fn internal(msg: &str, error: &anyhow::Error) -> Failure {
    Failure { code: codes::INTERNAL, msg: msg.to_owned(), details: format!("{error:#}") }
}
