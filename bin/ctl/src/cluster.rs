//! The cluster: finding it, and one request at a time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::{Kind, Source};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::args::Access;
use crate::settings::{self, ConfigFile, DatastoreType};

/// A connection.
pub(crate) struct Cluster {
    client: kube::Client,
    /// Namespace of the kubeconfig's context.
    pub(crate) namespace: String,
    /// There is no Kubernetes: every kind is stored as it is.
    alone: bool,
}

/// The pages that lists are asked for in.
const PAGE: u32 = 500;

impl Cluster {
    pub(crate) async fn connect(access: &Access) -> Result<Self> {
        let file = settings::read(&access.config)?;
        match file.datastore_type()? {
            DatastoreType::Etcd => Self::etcd(&file).await,
            DatastoreType::Kubernetes => Self::kubernetes(access, file).await,
        }
    }

    /// The API over etcd, in this process.
    async fn etcd(file: &ConfigFile) -> Result<Self> {
        let storage = remote::open_etcd(&file.etcd()?).await.context("cannot use etcd")?;
        let namespace = "default".to_owned();
        Ok(Self { client: remote::client(storage, &namespace), namespace, alone: true })
    }

    async fn kubernetes(access: &Access, file: ConfigFile) -> Result<Self> {
        let options =
            KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
        let from_environment = std::env::var_os("KUBECONFIG").is_some_and(|k| !k.is_empty());
        let given = access.kubeconfig.clone().or_else(|| {
            file.kubeconfig.filter(|_| !from_environment).map(std::path::PathBuf::from)
        });
        let mut config = match given {
            Some(path) => {
                let read = Kubeconfig::read_from(&path)
                    .with_context(|| format!("cannot use kubeconfig {}", path.display()))?;
                kube::Config::from_custom_kubeconfig(read, &options).await?
            }
            None if access.context.is_some() => kube::Config::from_kubeconfig(&options)
                .await
                .context("cannot use the kubeconfig")?,
            None => kube::Config::infer().await.context(
                "no cluster to talk to: want --kubeconfig, KUBECONFIG or ~/.kube/config",
            )?,
        };
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = Some(Duration::from_mins(1));
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).context("cannot use the kubeconfig")?;
        // Where Calico's kinds are kept in the form that only its own programs read, this reads it.
        let client = remote::client_of_cluster(client).await.context("cannot reach the cluster")?;
        Ok(Self { client, namespace, alone: false })
    }

    /// Where the objects of a kind come from here.
    pub(crate) fn source(&self, kind: &Kind) -> Source {
        match kind.source {
            Source::Kubernetes => Source::Kubernetes,
            _ if self.alone => Source::Stored,
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

    /// Every object at a list's path.
    pub(crate) async fn list(&self, path: &str) -> Result<Option<Vec<Value>>> {
        let mut all = Vec::new();
        let mut more = String::new();
        loop {
            let page = format!("{path}?limit={PAGE}{more}");
            let Some(mut list) = self.send(Method::GET, &page, None).await? else {
                return Ok(None);
            };
            if let Some(Value::Array(items)) = list.get_mut("items").map(Value::take) {
                all.extend(items);
            }
            let token = list.pointer("/metadata/continue").and_then(Value::as_str);
            match token.filter(|t| !t.is_empty()) {
                Some(token) => more = format!("&continue={}", escape(token)),
                None => return Ok(Some(all)),
            }
        }
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
