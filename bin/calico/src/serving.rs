//! What the programs that serve an API have in common: where they listen, whom they know, how they end.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use apiserver::{Access, AuditOptions};
use clap::{Args, Parser};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Folder of everything that lasts; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address and port to listen on; may be given several times. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Where to write the administrator's kubeconfig [default: DIR/kubeconfig].
    #[arg(long, value_name = "FILE")]
    kubeconfig_out: Option<PathBuf>,
    /// DNS name or address under which clients reach the server, besides those it listens on.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Bearer tokens of users: lines of token,user,uid,"group,group".
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Authorities (PEM) whose client certificates are accepted, besides the server's own.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Write an audit event (audit.k8s.io/v1, level Metadata) for each request to this file.
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Move the audit log aside when it has so many MiB.
    #[arg(long, value_name = "MIB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
    audit_log_maxsize: u64,
    /// Keep so many audit logs that were moved aside.
    #[arg(long, value_name = "N", default_value_t = 10)]
    audit_log_maxbackup: usize,
}

/// Runs a program's command line; the first argument is its name.
pub(crate) fn main<C: Parser>(
    program: &str,
    args: Vec<OsString>,
    work: impl FnOnce(C) -> Result<()>,
) -> ExitCode {
    let cli = match C::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::SUCCESS };
        }
    };
    match work(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::tell(&mut std::io::stderr(), &format!("{program}: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// A server that listens already.
pub(crate) struct Listening {
    pub(crate) listeners: Vec<TcpListener>,
    /// Under which clients reach it.
    pub(crate) names: Vec<String>,
    pub(crate) access: Access,
    /// Where the administrator's goes, and the URL in it.
    pub(crate) kubeconfig: (PathBuf, String),
}

impl ServerArgs {
    /// Takes the addresses.
    pub(crate) fn listen(self) -> Result<Listening> {
        let bind = |at: &SocketAddr| {
            TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))
        };
        let listeners = self.listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let bound = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let mut names = self.name;
        let own = bound.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        names.extend(own.map(|ip| ip.to_string()));
        let kubeconfig = self.kubeconfig_out.unwrap_or_else(|| self.data_dir.join("kubeconfig"));
        let url = bound.first().map(url).context("nothing to listen on")?;
        let access = Access {
            tokens: self.token_auth_file,
            client_authorities: self.client_ca_file,
            audit: self.audit_log_path.map(|path| AuditOptions {
                max_size: self.audit_log_maxsize << 20,
                backups: self.audit_log_maxbackup,
                ..AuditOptions::new(path)
            }),
        };
        Ok(Listening { listeners, names, access, kubeconfig: (kubeconfig, url) })
    }
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

/// Runs `work`, and tells it when the program is to end (SIGTERM, SIGINT).
pub(crate) fn until_ended(
    work: impl AsyncFnOnce(Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<()>,
) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        work(Box::pin(ended)).await
    })
}
