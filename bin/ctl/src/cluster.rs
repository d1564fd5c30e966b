//! The cluster: finding it, and one request at a time.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::{Kind, Source};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::args::Access;

/// A connection.
pub(crate) struct Cluster {
    client: kube::Client,
    /// Namespace of the kubeconfig's context.
    pub(crate) namespace: String,
}

/// The pages that lists are asked for in.
const PAGE: u32 = 500;

impl Cluster {
    pub(crate) async fn connect(access: &Access) -> Result<Self> {
        let file = config_file(access)?;
        let kind = std::env::var("DATASTORE_TYPE").ok().or(file.datastore_type);
        if let Some(kind) = kind.filter(|k| k != "kubernetes") {
            bail!("datastore type {kind:?} is not supported (want kubernetes)");
        }
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
        Ok(Self { client, namespace })
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

/// Path of a list, or with `name` of an object. Views of core objects are kept elsewhere.
pub(crate) fn path(kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let group = match kind.source {
        Source::Node => "/api/v1".to_owned(),
        _ => format!("/apis/{}/{}", kind.group, kind.version),
    };
    let namespace = namespace.filter(|_| kind.namespaced);
    let namespace = namespace.map(|n| format!("/namespaces/{}", escape(n))).unwrap_or_default();
    let name = name.map(|n| format!("/{}", escape(n))).unwrap_or_default();
    format!("{group}{namespace}/{}{name}", kind.plural)
}

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

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    datastore_type: Option<String>,
    kubeconfig: Option<String>,
}

/// The configuration file's `spec`; nothing if there is no such file.
fn config_file(access: &Access) -> Result<ConfigFile> {
    let path = &access.config;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(ConfigFile::default()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let document = api::yaml::documents(&text).next();
    let Some(document) = document else { return Ok(ConfigFile::default()) };
    let object = document.object.with_context(|| format!("{}", path.display()))?;
    let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    serde_json::from_value(spec).with_context(|| format!("{}: spec", path.display()))
}
