//! The process that serves the embedded API: for nodes in the hub's namespace, for `kubectl` on
//! loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{Options, Range, Server};
use store::{Durability, Store};
use telemetry::LogConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::client;
use crate::netns;
use crate::state::{API_PORT, HUB, State};

/// Serves until it is told to end.
pub(crate) fn run(state: &State) -> Result<()> {
    telemetry::init_logs(&LogConfig::default())?;
    let spec = state.load()?;
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, spec.api_port))
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", spec.api_port))?;
    // A socket stays in the namespace in which it was made.
    let hub = netns::inside(&state.netns("hub"), || Ok(TcpListener::bind((HUB, API_PORT))?))
        .with_context(|| format!("cannot listen on {HUB}:{API_PORT} in the hub"))?;

    let mut options = store::Options::new(state.dir().join("store/calico.db"));
    // A sandbox is meant to survive its own processes' deaths, not the machine's.
    options.durability = Durability::Process;
    let store = Arc::new(Store::open(&options)?);
    let mut options = Options::new(state.dir().join("store/identity"));
    options.names = vec![HUB.to_string(), Ipv4Addr::LOCALHOST.to_string()];
    if spec.dual_stack {
        let base = std::net::Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0);
        options.service_ranges.extend(Range::new(base.into(), 112));
    }
    let server = Server::new(store, options)?;
    let files = [
        (state.kubeconfig(), format!("https://127.0.0.1:{}", spec.api_port)),
        (state.node_kubeconfig(), format!("https://{HUB}:{API_PORT}")),
    ];
    for (path, url) in files {
        let draft = path.with_extension("new");
        std::fs::write(&draft, server.kubeconfig(&url))?;
        std::fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::fs::rename(&draft, &path)?;
    }
    client::runtime()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let shutdown = async move {
            term.recv().await;
        };
        server.serve(vec![local, hub], shutdown).await.context("the API has stopped")
    })
}
