//! `calico store`: the embedded API as a program of its own.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use store::{Durability, ServeOptions};
use telemetry::LogConfig;
use tokio::signal::unix::{SignalKind, signal};

/// The embedded Kubernetes API, over one SQLite file.
#[derive(Debug, Parser)]
#[command(
    name = "calico store",
    version,
    after_help = "Example:\n  calico store serve --data-dir /var/lib/calico/store --listen 127.0.0.1:6443\n  kubectl --kubeconfig /var/lib/calico/store/kubeconfig get namespaces"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until told to end (SIGTERM, SIGINT).
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// Folder of everything that lasts; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address and port to listen on; may be given several times. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Where to write the administrator's kubeconfig [default: DIR/kubeconfig].
    #[arg(long, value_name = "FILE")]
    kubeconfig_out: Option<PathBuf>,
    /// DNS name or address under which clients reach the server, besides those it listens on.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// What an acknowledged write survives.
    #[arg(long, value_enum, default_value_t = Survives::Power)]
    durability: Survives,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Survives {
    /// A power cut.
    Power,
    /// The death of the process, not of the machine.
    Process,
}

/// Runs the command line; the first argument is the name of the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::SUCCESS };
        }
    };
    let Verb::Serve(args) = cli.verb;
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::tell(&mut std::io::stderr(), &format!("calico store: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Serve) -> Result<()> {
    telemetry::init_logs(&LogConfig::default())?;
    let bind =
        |at: &SocketAddr| TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"));
    let listeners = args.listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
    let bound = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let mut names = args.name;
    names.extend(
        bound.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()),
    );
    let kubeconfig = args.kubeconfig_out.unwrap_or_else(|| args.data_dir.join("kubeconfig"));
    let url = bound.first().map(url).context("nothing to listen on")?;
    let options = ServeOptions {
        data_dir: args.data_dir,
        durability: match args.durability {
            Survives::Power => Durability::Power,
            Survives::Process => Durability::Process,
        },
        listeners,
        names,
        service_ranges: Vec::new(),
        kubeconfigs: vec![(kubeconfig, url)],
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Ok(store::serve(options, shutdown).await?)
    })
}

/// How a client on this machine reaches a listener.
fn url(bound: &SocketAddr) -> String {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, bound.port()))
}
