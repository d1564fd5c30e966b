//! The cluster: finding it, and one request at a time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::{Kind, Source};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use remote::settings::DatastoreType;
use serde_json::Value;

use crate::args::Access;
use crate::settings::{self, ConfigFile, KubernetesOptions};

/// A connection.
pub(crate) struct Cluster {
    client: kube::Client,
    /// Namespace of the kubeconfig's context.
    pub(crate) namespace: String,
    /// There is no Kubernetes: every kind is stored as it is, and read from here.
    alone: Option<remote::Reader>,
}

/// The pages that lists are asked for in.
const PAGE: u32 = 500;

impl Cluster {
    pub(crate) async fn connect(access: &Access) -> Result<Self> {
        let file = settings::read(&access.config)?;
        match file.datastore_type()? {
            DatastoreType::Etcd => Self::etcd(&file).await,
            DatastoreType::Kubernetes => Self::kubernetes(access, file.kubernetes()?).await,
        }
    }

    /// The API over etcd, in this process.
    async fn etcd(file: &ConfigFile) -> Result<Self> {
        let opened = remote::open_etcd_to_read(&file.etcd()?).await;
        let (storage, reader) = opened.context("cannot use etcd")?;
        let namespace = "default".to_owned();
        let client = remote::client(storage, &namespace);
        Ok(Self { client, namespace, alone: Some(reader) })
    }

    async fn kubernetes(access: &Access, given: KubernetesOptions) -> Result<Self> {
        let context = access.context.clone().or_else(|| given.context.clone());
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let mut config = base(access, &given, &options).await?;
        given.lay_over(&mut config)?;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = Some(Duration::from_mins(1));
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).context("cannot use the kubeconfig")?;
        // Where Calico's kinds are kept in the form that only its own programs read, this reads it.
        let client = remote::client_of_cluster(client).await.context("cannot reach the cluster")?;
        Ok(Self { client, namespace, alone: None })
    }

    /// Whether there is no Kubernetes beside the datastore.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// What reads etcd itself, if that is the datastore.
    pub(crate) fn reader(&self) -> Option<&remote::Reader> {
        self.alone.as_ref()
    }

    /// For what is not an object: logs.
    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The same, as agents use it.
    pub(crate) fn datastore(&self) -> datastore::Datastore {
        datastore::Datastore::over(self.client.clone())
    }

    /// Where the objects of a kind come from here.
    pub(crate) fn source(&self, kind: &Kind) -> Source {
        match kind.source {
            Source::Kubernetes => Source::Kubernetes,
            _ if self.is_alone() => Source::Stored,
            source => source,
        }
    }

    /// Path of a list, or with `name` of an object. Views of core objects are kept elsewhere.
    pub(crate) fn path(&self, kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> String {
        let group = match self.source(kind) {
            Source::Node => "/api/v1".to_owned(),
            _ => format!("/apis/{}/{}", kind.group, kind.version),
        };
        let namespace = namespace.filter(|_| kind.namespaced);
        let namespace = namespace.map(|n| format!("/namespaces/{}", escape(n))).unwrap_or_default();
        let name = name.map(|n| format!("/{}", escape(n))).unwrap_or_default();
        format!("{group}{namespace}/{}{name}", kind.plural)
    }

    /// One request. `None` where the server says that the object is not there.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("Content-Type", kind)
            .header("Accept", "application/json")
            .body(bytes)?;
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            // For a new object it would mean that its namespace is not there.
            Err(kube::Error::Api(status)) if status.code == 404 && method != Method::POST => {
                Ok(None)
            }
            Err(kube::Error::Api(status)) => Err(Refused::from(*status).into()),
            Err(error) => Err(error).context("cannot reach the cluster"),
        }
    }

    /// Every object at a list's path; nothing where the server does not serve it.
    pub(crate) async fn list(&self, path: &str) -> Result<Option<Vec<Value>>> {
        let mut pages = Pages::at(path.to_owned());
        let mut all = None;
        while let Some(page) = pages.next(self).await? {
            all.get_or_insert_with(Vec::new).extend(page);
        }
        Ok(all)
    }

    /// The objects of a kind, page by page, from where they are read with the least effort.
    pub(crate) fn pages(&self, kind: &Kind, namespace: Option<&str>) -> Pages {
        // To profiles the API adds what no store has.
        let reader = self.alone.as_ref().filter(|_| kind.plural != "profiles");
        let direct = reader.filter(|_| self.source(kind) == Source::Stored);
        match direct.and_then(|reader| reader.list(kind.plural, namespace)) {
            Some(reading) => Pages::Etcd(reading),
            None => Pages::at(self.path(kind, namespace, None)),
        }
    }
}

/// Where a connection begins, before what is given by itself is laid over it.
async fn base(
    access: &Access,
    given: &KubernetesOptions,
    options: &KubeConfigOptions,
) -> Result<kube::Config> {
    let named = access.kubeconfig.clone().or_else(|| given.kubeconfig.clone());
    let bad = "cannot use the kubeconfig";
    if let Some(paths) = named {
        let read = read_kubeconfig(&paths)?;
        return kube::Config::from_custom_kubeconfig(read, options).await.context(bad);
    }
    if let Some(text) = &given.inline {
        let read = Kubeconfig::from_yaml(text).context("kubeconfigInline")?;
        return kube::Config::from_custom_kubeconfig(read, options).await.context(bad);
    }
    if let Some(endpoint) = &given.endpoint {
        let url = endpoint.parse().with_context(|| format!("K8S_API_ENDPOINT {endpoint:?}"))?;
        return Ok(kube::Config::new(url));
    }
    if options.context.is_some() {
        return kube::Config::from_kubeconfig(options).await.context(bad);
    }
    kube::Config::infer().await.context(
        "no cluster to talk to: want --kubeconfig, KUBECONFIG, K8S_API_ENDPOINT, ETCD_ENDPOINTS or ~/.kube/config",
    )
}

/// One file, or several that are joined by colons, of which the first one that says something counts.
fn read_kubeconfig(paths: &std::path::Path) -> Result<Kubeconfig> {
    let several: Vec<PathBuf> =
        std::env::split_paths(paths).filter(|p| !p.as_os_str().is_empty()).collect();
    let mut all = Kubeconfig::default();
    let mut found = false;
    for path in &several {
        // As kubectl does it: of several, those that are not there are passed over.
        if several.len() > 1 && !path.exists() {
            continue;
        }
        let cannot = || format!("cannot use kubeconfig {}", path.display());
        let read = Kubeconfig::read_from(path).with_context(cannot)?;
        all = all.merge(read).with_context(cannot)?;
        found = true;
    }
    if !found {
        bail!("cannot use kubeconfig {}: there is no such file", paths.display());
    }
    Ok(all)
}

impl KubernetesOptions {
    /// What is given by itself wins over a kubeconfig.
    fn lay_over(self, config: &mut kube::Config) -> Result<()> {
        if let Some(endpoint) = &self.endpoint {
            let url = endpoint.parse();
            config.cluster_url = url.with_context(|| format!("K8S_API_ENDPOINT {endpoint:?}"))?;
        }
        if let Some(path) = self.authorities {
            config.root_cert = None;
            config.root_cert_file = Some(path);
        }
        let user = &mut config.auth_info;
        if let Some(token) = self.token {
            *user = kube::config::AuthInfo::default();
            user.token = Some(token.into());
        }
        let path = |path: PathBuf| path.display().to_string();
        if let Some(certificate) = self.certificate.map(path) {
            user.client_certificate = Some(certificate);
            user.client_certificate_data = None;
        }
        if let Some(key) = self.key.map(path) {
            user.client_key = Some(key);
            user.client_key_data = None;
        }
        config.accept_invalid_certs |= self.insecure;
        Ok(())
    }
}

/// A listing that has been begun.
pub(crate) enum Pages {
    /// From a server: the path, what makes it go on, and how many more it says there are; no path after the last page.
    Api {
        path: Option<String>,
        more: String,
        remaining: usize,
    },
    Etcd(remote::Reading),
}

#[derive(serde::Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    /// Some servers write null for none.
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Default, serde::Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    more: Option<String>,
    #[serde(default, rename = "remainingItemCount")]
    remaining: Option<usize>,
}

impl Pages {
    /// Of everything at a list's path.
    pub(crate) fn at(path: String) -> Self {
        Self::Api { path: Some(path), more: String::new(), remaining: 0 }
    }

    /// How many more objects there are, as far as that is known.
    pub(crate) fn remaining(&self) -> usize {
        match self {
            Self::Api { remaining, .. } => *remaining,
            Self::Etcd(_) => 0,
        }
    }

    /// Whether there is no further page.
    pub(crate) fn ended(&self) -> bool {
        match self {
            Self::Api { path, .. } => path.is_none(),
            Self::Etcd(reading) => reading.ended(),
        }
    }

    /// The next page; nothing after the last one, and where the server does not serve these.
    pub(crate) async fn next(&mut self, cluster: &Cluster) -> Result<Option<Vec<Value>>> {
        let (path, more, remaining) = match self {
            Self::Etcd(reading) => {
                let Some(reader) = &cluster.alone else { return Ok(None) };
                return reader.next(reading).await.context("cannot read etcd");
            }
            Self::Api { path, more, remaining } => (path, more, remaining),
        };
        let Some(at) = path.as_ref() else { return Ok(None) };
        let request = Request::get(format!("{at}?limit={PAGE}{more}"))
            .header("Accept", "application/json")
            .body(Vec::new())?;
        let list = match cluster.client.request::<List>(request).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 && more.is_empty() => {
                *path = None;
                return Ok(None);
            }
            Err(kube::Error::Api(status)) if status.code == 410 => {
                bail!("the list has become too old while it was read: try again")
            }
            Err(kube::Error::Api(status)) => return Err(Refused::from(*status).into()),
            Err(error) => return Err(error).context("cannot reach the cluster"),
        };
        *remaining = list.metadata.remaining.unwrap_or_default();
        match list.metadata.more.filter(|token| !token.is_empty()) {
            Some(token) => *more = format!("&continue={}", escape(&token)),
            None => *path = None,
        }
        Ok(Some(list.items.unwrap_or_default()))
    }
}

/// The server said no.
#[derive(Debug)]
pub(crate) struct Refused {
    /// HTTP code.
    pub(crate) code: u16,
    message: String,
}

impl From<kube::core::Status> for Refused {
    fn from(status: kube::core::Status) -> Self {
        let message = if status.message.is_empty() { status.reason } else { status.message };
        Self { code: status.code, message }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server says {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refused {}

/// What may not stand in a path or query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.extend([other >> 4, other & 15].map(|d| char::from(HEX[usize::from(d)])));
            }
        }
    }
    out
}
