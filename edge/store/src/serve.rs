//! The embedded API as one call: store, server, kubeconfig.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::{Durability, OpenError, Options, Store};

/// What [`serve`] needs to know.
#[derive(Debug)]
pub struct ServeOptions {
    /// The folder of everything that lasts: `store.db`, `pki/`.
    pub data_dir: PathBuf,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Bound sockets, in whatever network namespace they were bound.
    pub listeners: Vec<TcpListener>,
    /// DNS names and addresses under which clients reach the server, besides localhost.
    pub names: Vec<String>,
    /// Cluster addresses of services: a range for each family, the preferred first. Empty: the default.
    pub service_ranges: Vec<apiserver::Range>,
    /// Who is known besides the administrator, and what is noted of requests.
    pub access: apiserver::Access,
    /// Files to write kubeconfigs to, each with the address of the server in it.
    pub kubeconfigs: Vec<(PathBuf, String)>,
}

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificate authority, the token, or the certificate.
    #[error(transparent)]
    Identity(#[from] apiserver::IdentityError),
    /// A kubeconfig could not be written.
    #[error("cannot write kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The listeners, or the objects that every cluster has.
    #[error("cannot serve")]
    Serve(#[from] io::Error),
}

/// Serves the API until `shutdown` is ready. The kubeconfigs are written before the first request.
pub async fn serve(
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut storage = Options::new(options.data_dir.join("store.db"));
    storage.durability = options.durability;
    let store = Arc::new(Store::open(&storage)?);
    let _control = Control::start(&options.data_dir, &store).inspect_err(
        |error| tracing::warn!(%error, "backups of the running store are not possible"),
    );
    let mut settings = apiserver::Options::new(options.data_dir.join("pki"));
    settings.names = options.names;
    settings.access = options.access;
    if !options.service_ranges.is_empty() {
        settings.service_ranges = options.service_ranges;
    }
    let server = apiserver::Server::new(store, settings)?;
    for (path, url) in options.kubeconfigs {
        apiserver::write_private(&path, &server.kubeconfig(&url))
            .map_err(|source| ServeError::Kubeconfig { path, source })?;
    }
    Ok(server.serve(options.listeners, shutdown).await?)
}

/// Writes a kubeconfig for `user` of `groups`, with a client certificate that is good for `days`. The
/// server need not run: it knows the certificate by the authority in its folder.
pub fn issue(
    data_dir: &Path,
    server_url: &str,
    (user, groups): (&str, &[String]),
    days: u32,
    path: &Path,
) -> Result<(), ServeError> {
    let identity = apiserver::Identity::open(&data_dir.join("pki"))?;
    let text = identity.user_kubeconfig(server_url, user, groups, days)?;
    apiserver::write_private(path, &text)
        .map_err(|source| ServeError::Kubeconfig { path: path.into(), source })
}
