//! `calico apiserver`: the API of Calico's kinds over an etcd, or over a Kubernetes API server.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use api::installation::{AGGREGATED, api_service};
use apiserver::storage::Storage;
use apiserver::{Delegate, Delegation, Options, Server, Surface};
use clap::{Args, Parser};
use datastore::Datastore;
use remote::settings::{self, Parameter};
use telemetry::LogConfig;

use crate::aggregation::{ServiceArgs, ServiceName, manifest};
use crate::serving::{ServerArgs, main, until_ended};

/// The API of Calico's kinds (projectcalico.org/v3) for kubectl and client libraries, over an etcd in which
/// they are kept as calicoctl and upstream keep them, or else over a Kubernetes API server with
/// crd.projectcalico.org/v1. By itself (without --delegate) it knows users but no roles: who is not in the group
/// system:masters may do nothing. "calico apiserver manifest" prints what installs it in a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "calico apiserver",
    version,
    after_help = "Example:\n  calico apiserver --etcd-endpoints http://127.0.0.1:2379 --data-dir /var/lib/calico/apiserver --listen 127.0.0.1:5443\n  kubectl --kubeconfig /var/lib/calico/apiserver/kubeconfig get globalnetworkpolicies.projectcalico.org"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Stand behind the API server of Kubernetes: its front proxies, users and their rights are ours.
    #[arg(long)]
    delegate: bool,
    /// Where it is [default: as --kubeconfig].
    #[arg(long, value_name = "FILE")]
    authentication_kubeconfig: Option<PathBuf>,
    /// The service under which we are found there.
    #[arg(
        long,
        value_name = "NAMESPACE/NAME[:PORT]",
        default_value = "calico-apiserver/calico-api"
    )]
    service: ServiceName,
    #[command(flatten)]
    shared: ServiceArgs,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// How to reach the Kubernetes API server, where there is no etcd [default: KUBECONFIG, or the service
    /// account of the pod].
    #[arg(long, value_name = "FILE", conflicts_with = "etcd_endpoints")]
    kubeconfig: Option<PathBuf>,
    /// URLs of the members of the etcd, separated by commas.
    #[arg(long, env = "ETCD_ENDPOINTS", value_name = "URLS")]
    etcd_endpoints: Option<String>,
    /// Name of a user of the etcd.
    #[arg(long, env = "ETCD_USERNAME", value_name = "NAME")]
    etcd_username: Option<String>,
    /// The user's password; give it by the variable, arguments can be seen by others.
    #[arg(long, env = "ETCD_PASSWORD", value_name = "WORD", hide_env_values = true)]
    etcd_password: Option<String>,
    /// A file with the password. This file and those of certificates are read again when they change.
    #[arg(long, env = "ETCD_PASSWORD_FILE", value_name = "FILE")]
    etcd_password_file: Option<String>,
    /// Authorities (PEM) that the members' certificates are checked against [default: the system's].
    #[arg(long, env = "ETCD_CA_CERT_FILE", value_name = "FILE")]
    etcd_ca_cert_file: Option<String>,
    /// Client certificate (PEM).
    #[arg(long, env = "ETCD_CERT_FILE", value_name = "FILE", requires = "etcd_key_file")]
    etcd_cert_file: Option<String>,
    /// Its key (PEM).
    #[arg(long, env = "ETCD_KEY_FILE", value_name = "FILE", requires = "etcd_cert_file")]
    etcd_key_file: Option<String>,
}

/// Runs the command line; the first argument is the name of the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|word| word == "manifest") {
        return manifest("calico apiserver", args, AGGREGATED, api::installation::aggregation);
    }
    main("calico apiserver", args, serve)
}

fn serve(cli: Cli) -> Result<()> {
    telemetry::init_logs(&LogConfig::default())?;
    let mut options = Options::new(cli.server.data_dir.join("pki"));
    let listening = cli.server.listen()?;
    options.names = listening.names;
    options.access = listening.access;
    options.names.push(cli.service.host());
    options.serving = cli.shared.serving();
    options.system_namespaces.clone_from(&cli.shared.system_namespaces);
    let kubeconfig = cli.authentication_kubeconfig.or_else(|| cli.store.kubeconfig.clone());
    until_ended(async |ended| {
        if cli.delegate {
            let kubernetes = cli.shared.kubernetes(kubeconfig.as_ref()).await?;
            options.delegate = Delegation::from(kubernetes.clone() as Arc<dyn Delegate>);
            tokio::spawn(async move { kubernetes.follow().await });
        }
        let (storage, surface) = cli.store.open().await?;
        options.surface = surface;
        let server = Server::new(storage, options)?;
        let object = |authority: &str| api_service(cli.service.parts(), Some(authority));
        cli.shared.register(kubeconfig.as_ref(), server.authority(), object).await?;
        let (path, url) = listening.kubeconfig;
        let written = apiserver::write_private(&path, &server.kubeconfig(&url));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(server.serve(listening.listeners, ended).await?)
    })
}

impl StoreArgs {
    /// Where the objects are kept, and what is shown of it.
    async fn open(self) -> Result<(Arc<dyn Storage>, Surface)> {
        let etcd = |parameter| self.etcd(parameter);
        if etcd(Parameter::Endpoints).is_none() {
            let datastore = Datastore::connect(self.kubeconfig.as_deref()).await.context(
                "want --etcd-endpoints, or a Kubernetes API server: --kubeconfig, KUBECONFIG",
            )?;
            return Ok((remote::open_kubernetes(datastore.client()), Surface::Beside));
        }
        let etcd = settings::etcd(&etcd)?;
        let storage = remote::open_etcd(&etcd).await.context("cannot use etcd")?;
        Ok((storage, Surface::Calico))
    }
    /// What is said about etcd here.
    fn etcd(&self, parameter: Parameter) -> Option<String> {
        match parameter {
            Parameter::Endpoints => self.etcd_endpoints.clone(),
            Parameter::Username => self.etcd_username.clone(),
            Parameter::Password => self.etcd_password.clone(),
            Parameter::PasswordFile => self.etcd_password_file.clone(),
            Parameter::CaCertFile => self.etcd_ca_cert_file.clone(),
            Parameter::CertFile => self.etcd_cert_file.clone(),
            Parameter::KeyFile => self.etcd_key_file.clone(),
            Parameter::DatastoreType | Parameter::CaCert | Parameter::Cert | Parameter::Key => None,
        }
        .filter(|text| !text.is_empty())
    }
}
