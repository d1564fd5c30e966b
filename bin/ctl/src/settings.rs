//! Where the datastore is: the configuration file, and the environment, which wins.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use remote::{EtcdOptions, EtcdTls};
use serde_json::json;

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatastoreType {
    Kubernetes,
    Etcd,
}

/// The `spec` of the configuration file, under the names that it has always had.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConfigFile {
    datastore_type: Option<String>,
    pub(crate) kubeconfig: Option<String>,
    etcd_endpoints: Option<String>,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    etcd_key_file: Option<String>,
    etcd_cert_file: Option<String>,
    #[serde(rename = "etcdCACertFile")]
    etcd_ca_cert_file: Option<String>,
}

/// Reads the file; nothing if there is none.
pub(crate) fn read(path: &Path) -> Result<ConfigFile> {
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

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ConfigFile {
    /// What is asked for; Kubernetes if nothing is, and no etcd is named either.
    pub(crate) fn datastore_type(&self) -> Result<DatastoreType> {
        let asked = variable("DATASTORE_TYPE").or_else(|| self.datastore_type.clone());
        match asked.as_deref() {
            Some("etcdv3") => Ok(DatastoreType::Etcd),
            None if self.endpoints().is_some() => Ok(DatastoreType::Etcd),
            Some("kubernetes") | None => Ok(DatastoreType::Kubernetes),
            Some(other) => {
                bail!("datastore type {other:?} is not known (want kubernetes or etcdv3)")
            }
        }
    }

    fn endpoints(&self) -> Option<String> {
        variable("ETCD_ENDPOINTS").or_else(|| self.etcd_endpoints.clone()).filter(|e| !e.is_empty())
    }

    /// How etcd is reached.
    pub(crate) fn etcd(&self) -> Result<EtcdOptions> {
        let endpoints = self.endpoints().context(
            "no etcd to talk to: want ETCD_ENDPOINTS, or etcdEndpoints in the configuration file",
        )?;
        let given = |name: &str, field: &Option<String>| {
            variable(name).or_else(|| field.clone()).filter(|value| !value.is_empty())
        };
        let file = |name: &str, field: &Option<String>| given(name, field).map(PathBuf::from);
        let name = given("ETCD_USERNAME", &self.etcd_username);
        let password = given("ETCD_PASSWORD", &self.etcd_password);
        Ok(EtcdOptions {
            endpoints: endpoints.split(',').map(|e| e.trim().to_owned()).collect(),
            user: name.zip(password),
            tls: EtcdTls {
                authorities: file("ETCD_CA_CERT_FILE", &self.etcd_ca_cert_file),
                certificate: file("ETCD_CERT_FILE", &self.etcd_cert_file),
                key: file("ETCD_KEY_FILE", &self.etcd_key_file),
            },
        })
    }
}
