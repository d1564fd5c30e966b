//! What servers behind the API server of Kubernetes have in common: where it is, the certificate that they
//! serve with, and how they tell it where they are.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::installation::{Placement, Serving};
use apiserver::ServingFiles;
use clap::{Args, Parser};
use datastore::{Backoff, Datastore};
use delegate::{Kubernetes, Options};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::ApiResource;
use serde_json::Value;

use crate::serving::main;

/// The certificate of a server, and the service under which it is found.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Serve with this certificate (PEM; read again when it changes) [default: one of an authority in DIR].
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// The authority that signed it (PEM), for --register.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_ca_file: Option<PathBuf>,
    /// Tell the API server of Kubernetes that we are here, and which authority signed our certificate.
    #[arg(long)]
    register: bool,
    /// Namespaces of the service accounts of Calico's own programs, who keep ClusterInformation.
    #[arg(
        long,
        value_name = "NAMESPACES",
        value_delimiter = ',',
        default_value = "calico-system,kube-system"
    )]
    pub(crate) system_namespaces: Vec<String>,
    /// Answers of the API server of Kubernetes are remembered for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    answers_ttl: u64,
}

impl ServiceArgs {
    pub(crate) fn serving(&self) -> Option<ServingFiles> {
        let (certificate, key) = (self.tls_cert_file.clone()?, self.tls_private_key_file.clone()?);
        Some(ServingFiles { certificate, key })
    }

    /// Whoever is asked about users and rights.
    pub(crate) async fn kubernetes(&self, kubeconfig: Option<&PathBuf>) -> Result<Arc<Kubernetes>> {
        let client = client(kubeconfig).await?;
        let options = Options { ttl: Duration::from_secs(self.answers_ttl), ..Options::default() };
        Ok(Arc::new(Kubernetes::new(client, options)))
    }

    /// The authority to register, if there is something to register; `own` is that of our own identity.
    fn authority(&self, own: &str) -> Result<Option<String>> {
        if !self.register {
            return Ok(None);
        }
        match (&self.tls_cert_file, &self.tls_ca_file) {
            (None, _) => Ok(Some(own.to_owned())),
            (_, Some(path)) => {
                let text = std::fs::read_to_string(path);
                text.map(Some).with_context(|| format!("cannot read {}", path.display()))
            }
            (Some(_), None) => bail!("--register with --tls-cert-file wants --tls-ca-file, too"),
        }
    }

    /// Starts to register `object`, which is made of the authority's certificate. It is tried until it works.
    pub(crate) async fn register(
        &self,
        kubeconfig: Option<&PathBuf>,
        own: &str,
        object: impl FnOnce(&str) -> Value,
    ) -> Result<()> {
        if let Some(authority) = self.authority(own)? {
            let (client, object) = (client(kubeconfig).await?, object(&authority));
            tokio::spawn(async move { register(&client, &object).await });
        }
        Ok(())
    }
}

async fn client(kubeconfig: Option<&PathBuf>) -> Result<kube::Client> {
    let path = kubeconfig.map(PathBuf::as_path);
    let found = Datastore::connect(path).await;
    Ok(found.context("cannot use the API server of Kubernetes")?.client())
}

/// Applies an object of a cluster, again and again until it is there.
async fn register(client: &kube::Client, object: &Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or_default();
    let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind));
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut backoff = Backoff::default();
    let params = PatchParams::apply("calico").force();
    while let Err(error) = objects.patch(name, &params, &Patch::Apply(object)).await {
        tracing::warn!(%error, kind, name, "cannot register, trying again");
        backoff.wait().await;
    }
    tracing::info!(kind, name, "registered");
}

/// A service: its namespace, its name, and the port that it has there.
#[derive(Clone, Debug)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl ServiceName {
    pub(crate) fn of((namespace, name): (&str, &str)) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), port: 443 }
    }

    /// As a certificate names it.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    pub(crate) fn parts(&self) -> (&str, &str, u16) {
        (&self.namespace, &self.name, self.port)
    }
}

impl std::str::FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?}: wanted NAMESPACE/NAME or NAMESPACE/NAME:PORT");
        let (namespace, rest) = text.split_once('/').ok_or_else(bad)?;
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| bad())?),
            None => (rest, 443),
        };
        let label = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !label(namespace) || !label(name) || port == 0 {
            return Err(bad());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), port })
    }
}

/// Prints what installs a server in a cluster, with a new certificate: the Secret with its key, too.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct ManifestArgs {
    /// Namespace to run in [default: as upstream].
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Image with the program calico.
    #[arg(long, value_name = "IMAGE", default_value = "calico/calico:latest")]
    image: String,
    /// How many run beside each other. They share a certificate, which is in the manifest.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: u32,
}

/// Runs `PROGRAM manifest`: prints the objects of a server that is found under the service `found`.
pub(crate) fn manifest(
    program: &'static str,
    mut args: Vec<OsString>,
    found: (&str, &str),
    objects: fn(Placement<'_>) -> Vec<Value>,
) -> ExitCode {
    args.remove(0);
    main(program, args, |args: ManifestArgs| {
        let text = args.text(found, objects)?;
        super::tell(&mut std::io::stdout(), &text);
        Ok(())
    })
}

impl ManifestArgs {
    /// The manifest in YAML, with a new certificate for the service `found`.
    fn text(
        &self,
        found: (&str, &str),
        objects: fn(Placement<'_>) -> Vec<Value>,
    ) -> Result<String> {
        let mut service = ServiceName::of(found);
        if let Some(namespace) = &self.namespace {
            service.namespace.clone_from(namespace);
        }
        let [authority, certificate, key] = apiserver::new_serving_certificate(&[service.host()])?;
        let serving = Serving { authority: &authority, certificate: &certificate, key: &key };
        let placement = Placement {
            namespace: &service.namespace,
            image: &self.image,
            replicas: self.replicas,
            serving: Some(serving),
        };
        let write = |object: &Value| serde_saphyr::to_string(object);
        let texts = objects(placement).iter().map(write).collect::<Result<Vec<_>, _>>()?;
        Ok(texts.join("---\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_by_name() {
        let service: ServiceName = "calico-system/api:8443".parse().unwrap();
        assert_eq!(service.parts(), ("calico-system", "api", 8443));
        assert_eq!(service.host(), "api.calico-system.svc");
        assert_eq!("a/b".parse::<ServiceName>().unwrap().port, 443);
        for bad in ["", "a", "a/", "/b", "a/b:", "a/b:0", "a/b:70000", "a/b/c", "a/b c", "a/b:1:2"]
        {
            assert!(
                bad.parse::<ServiceName>().unwrap_err().contains("wanted NAMESPACE/NAME"),
                "{bad}"
            );
        }
    }
}
