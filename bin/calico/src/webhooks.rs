//! `calico webhooks`: admission of Calico's kinds where a Kubernetes API server stores them itself.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use api::installation::{WEBHOOKS, webhook_configuration};
use apiserver::{HookOptions, HookServer, Limits};
use clap::Parser;
use telemetry::LogConfig;

use crate::aggregation::{ServiceArgs, ServiceName, manifest};
use crate::serving::{main, until_ended};

/// Admission webhooks for projectcalico.org/v3 in an API server of Kubernetes: /rbac holds writes of policies
/// against the rights in their tiers, /cluster-info keeps ClusterInformation for Calico's own programs.
/// "calico webhooks manifest" prints what installs them in a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "calico webhooks",
    version,
    after_help = "Examples:\n  calico webhooks manifest --image registry.example/calico:v1 | kubectl apply -f -\n  calico webhooks --listen 0.0.0.0:6443 --data-dir /data --register"
)]
pub(crate) struct Cli {
    /// Folder of an authority of our own; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address and port to listen on; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// DNS name or address under which the API server reaches us, besides that of the service.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// The API server of Kubernetes [default: KUBECONFIG, the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Authorities (PEM), one of which must have signed the certificate of whoever asks for a review.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// The service under which they are found.
    #[arg(
        long,
        value_name = "NAMESPACE/NAME[:PORT]",
        default_value = "kube-system/calico-webhooks"
    )]
    service: ServiceName,
    #[command(flatten)]
    shared: ServiceArgs,
}

/// Runs the command line; the first argument is the name of the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|word| word == "manifest") {
        return manifest("calico webhooks", args, WEBHOOKS, api::installation::webhooks);
    }
    main("calico webhooks", args, serve)
}

fn serve(args: Cli) -> Result<()> {
    telemetry::init_logs(&LogConfig::default())?;
    let bind =
        |at: &SocketAddr| TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"));
    let listeners = args.listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
    let own = args.listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    let mut names = args.name.clone();
    names.extend(own.map(|ip| ip.to_string()).chain([args.service.host()]));
    let options = HookOptions {
        identity_dir: args.data_dir.join("pki"),
        names,
        serving: args.shared.serving(),
        client_authorities: args.client_ca_file.clone(),
        limits: Limits::default(),
        system_namespaces: args.shared.system_namespaces.clone(),
    };
    until_ended(async |ended| {
        let kubernetes = args.shared.kubernetes(args.kubeconfig.as_ref()).await?;
        let server = HookServer::new(kubernetes, options)?;
        let object = |authority: &str| webhook_configuration(args.service.parts(), Some(authority));
        args.shared.register(args.kubeconfig.as_ref(), server.authority(), object).await?;
        Ok(server.serve(listeners, ended).await?)
    })
}
