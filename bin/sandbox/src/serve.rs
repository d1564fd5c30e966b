//! The process that serves the embedded API: for nodes in the hub's namespace, for `kubectl` on
//! loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};
use apiserver::Range;
use store::{Durability, ServeOptions};
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

    let mut service_ranges = Vec::new();
    if spec.dual_stack {
        service_ranges.extend(Range::new(Ipv4Addr::new(10, 96, 0, 0).into(), 16));
        let base = std::net::Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0);
        service_ranges.extend(Range::new(base.into(), 112));
    }
    let options = ServeOptions {
        data_dir: state.dir().join("store"),
        // A sandbox is meant to survive its own processes' deaths, not the machine's.
        durability: Durability::Process,
        listeners: vec![local, hub],
        names: vec![HUB.to_string(), Ipv4Addr::LOCALHOST.to_string()],
        service_ranges,
        access: apiserver::Access::default(),
        kubeconfigs: vec![
            (state.kubeconfig(), format!("https://127.0.0.1:{}", spec.api_port)),
            (state.node_kubeconfig(), format!("https://{HUB}:{API_PORT}")),
        ],
    };
    client::runtime()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let shutdown = async move {
            term.recv().await;
        };
        store::serve(options, shutdown).await.context("the API has stopped")
    })
}
