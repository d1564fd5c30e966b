//! Where the datastore is: the configuration file, and the environment, which wins.
//!
//! Names are those that scripts for upstream's tool use. A variable may also be written with the prefix
//! `CALICO_`, which wins over the one without.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use remote::EtcdOptions;
use remote::settings::{DatastoreType, Parameter};
use serde_json::json;

/// Where the file is if nobody says otherwise.
pub(crate) const DEFAULT_FILE: &str = "/etc/calico/calicoctl.cfg";

/// The `spec` of the configuration file, under the names that it has always had.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConfigFile {
    datastore_type: Option<String>,
    kubeconfig: Option<String>,
    kubeconfig_inline: Option<String>,
    #[serde(rename = "k8sAPIEndpoint")]
    k8s_api_endpoint: Option<String>,
    #[serde(rename = "k8sAPIToken")]
    k8s_api_token: Option<String>,
    #[serde(rename = "k8sCAFile")]
    k8s_ca_file: Option<String>,
    k8s_cert_file: Option<String>,
    k8s_key_file: Option<String>,
    #[serde(rename = "k8sInsecureSkipTLSVerify")]
    k8s_insecure: bool,
    k8s_current_context: Option<String>,
    etcd_endpoints: Option<String>,
    etcd_discovery_srv: Option<String>,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    etcd_password_file: Option<String>,
    etcd_key_file: Option<String>,
    etcd_cert_file: Option<String>,
    #[serde(rename = "etcdCACertFile")]
    etcd_ca_cert_file: Option<String>,
    etcd_key: Option<String>,
    etcd_cert: Option<String>,
    #[serde(rename = "etcdCACert")]
    etcd_ca_cert: Option<String>,
}

/// Reads the file. There need be none where it is by default.
pub(crate) fn read(path: &Path) -> Result<ConfigFile> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT_FILE) => {
            return Ok(ConfigFile::default());
        }
        Err(e) => {
            return Err(e)
                .with_context(|| format!("cannot read configuration file {}", path.display()));
        }
    };
    let document = api::yaml::documents(&text).next();
    let Some(document) = document else { return Ok(ConfigFile::default()) };
    let object = document.object.with_context(|| format!("{}", path.display()))?;
    let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    // A value of the wrong type is quoted by serde, and may be a secret: only the field is told.
    serde_path(spec).with_context(|| format!("{}: spec", path.display()))
}

fn serde_path(spec: serde_json::Value) -> Result<ConfigFile> {
    serde_json::from_value(spec).map_err(|error| {
        let kind = if error.is_data() { "a value has the wrong type" } else { "cannot be read" };
        anyhow::anyhow!("{kind} (want text, and true or false for k8sInsecureSkipTLSVerify)")
    })
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    of(&format!("CALICO_{name}")).or_else(|| of(name))
}

fn given(name: &str, field: Option<&String>) -> Option<String> {
    variable(name).or_else(|| field.cloned()).filter(|value| !value.is_empty())
}

/// How a Kubernetes API server is reached; what is not given comes from a kubeconfig.
#[derive(Default)]
pub(crate) struct KubernetesOptions {
    /// The kubeconfig of the configuration file; the environment's is found by others.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// A kubeconfig itself.
    pub(crate) inline: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) insecure: bool,
}

impl ConfigFile {
    /// What is asked for.
    pub(crate) fn datastore_type(&self) -> Result<DatastoreType> {
        Ok(remote::settings::datastore_type(&|parameter| self.parameter(parameter))?)
    }

    /// How Kubernetes is reached.
    pub(crate) fn kubernetes(&self) -> Result<KubernetesOptions> {
        let token = variable("K8S_API_TOKEN").or_else(|| variable("K8S_TOKEN"));
        let file =
            |name: &str, field: &Option<String>| given(name, field.as_ref()).map(PathBuf::from);
        let insecure = match variable("K8S_INSECURE_SKIP_TLS_VERIFY").as_deref() {
            None => self.k8s_insecure,
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => true,
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => false,
            Some(other) => {
                bail!("K8S_INSECURE_SKIP_TLS_VERIFY={other:?}: want true or false")
            }
        };
        Ok(KubernetesOptions {
            kubeconfig: file("KUBECONFIG", &self.kubeconfig),
            inline: self.kubeconfig_inline.clone().filter(|text| !text.is_empty()),
            context: given("K8S_CURRENT_CONTEXT", self.k8s_current_context.as_ref()),
            endpoint: given("K8S_API_ENDPOINT", self.k8s_api_endpoint.as_ref()),
            token: token.or_else(|| self.k8s_api_token.clone()).filter(|t| !t.is_empty()),
            authorities: file("K8S_CA_FILE", &self.k8s_ca_file),
            certificate: file("K8S_CERT_FILE", &self.k8s_cert_file),
            key: file("K8S_KEY_FILE", &self.k8s_key_file),
            insecure,
        })
    }

    /// What the environment says about etcd, or else the file.
    fn parameter(&self, parameter: Parameter) -> Option<String> {
        let environment = |parameter: Parameter| variable(parameter.variable()?);
        parameter.in_order(environment, |parameter| match parameter {
            Parameter::DatastoreType => self.datastore_type.clone(),
            Parameter::Endpoints => self.etcd_endpoints.clone(),
            Parameter::Username => self.etcd_username.clone(),
            Parameter::Password => self.etcd_password.clone(),
            Parameter::PasswordFile => self.etcd_password_file.clone(),
            Parameter::CaCert => self.etcd_ca_cert.clone(),
            Parameter::CaCertFile => self.etcd_ca_cert_file.clone(),
            Parameter::Cert => self.etcd_cert.clone(),
            Parameter::CertFile => self.etcd_cert_file.clone(),
            Parameter::Key => self.etcd_key.clone(),
            Parameter::KeyFile => self.etcd_key_file.clone(),
        })
    }

    /// How etcd is reached.
    pub(crate) fn etcd(&self) -> Result<EtcdOptions> {
        let lookup = |parameter| self.parameter(parameter);
        let nowhere = lookup(Parameter::Endpoints).is_none_or(|text| text.trim().is_empty());
        if nowhere && given("ETCD_DISCOVERY_SRV", self.etcd_discovery_srv.as_ref()).is_some() {
            bail!("etcd by DNS records (ETCD_DISCOVERY_SRV) is not supported: want ETCD_ENDPOINTS");
        }
        Ok(remote::settings::etcd(&lookup)?)
    }

    /// The same as the environment of an agent in a container has it: names and values, and for each file the
    /// variable that says where it is, its path here and its path there.
    pub(crate) fn etcd_environment(&self) -> EtcdEnvironment {
        let given = |parameter| self.parameter(parameter).filter(|text| !text.is_empty());
        let plain = [Parameter::Endpoints, Parameter::Username];
        let files = [
            (Parameter::CaCertFile, "/etc/calico/certs/ca_cert.crt"),
            (Parameter::KeyFile, "/etc/calico/certs/key.pem"),
            (Parameter::CertFile, "/etc/calico/certs/cert.crt"),
            (Parameter::PasswordFile, "/etc/calico/certs/password"),
        ];
        let named = |parameter: Parameter| Some((parameter.variable()?, given(parameter)?));
        EtcdEnvironment {
            plain: plain.into_iter().filter_map(named).collect(),
            password: given(Parameter::Password),
            files: files
                .into_iter()
                .filter_map(|(parameter, inside)| {
                    let (name, here) = named(parameter)?;
                    Some((name, here, inside))
                })
                .collect(),
            inline: [Parameter::Key, Parameter::Cert, Parameter::CaCert]
                .into_iter()
                .any(|parameter| given(parameter).is_some()),
        }
    }
}

/// See [`ConfigFile::etcd_environment`].
pub(crate) struct EtcdEnvironment {
    pub(crate) plain: Vec<(&'static str, String)>,
    pub(crate) password: Option<String>,
    pub(crate) files: Vec<(&'static str, String, &'static str)>,
    /// Something is given inline, which no file here holds.
    pub(crate) inline: bool,
}
