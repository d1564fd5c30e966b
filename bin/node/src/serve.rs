//! Health and metrics over HTTP. An address that another program has is waited for: it is no reason not
//! to enforce policy.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use config::Listen;
use telemetry::{Endpoints, Server};
use tokio::task::AbortHandle;

const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Serves until the runtime ends, or until it is told to stop.
pub(crate) struct Serving(Option<AbortHandle>);

impl Serving {
    pub(crate) fn stop(self) {
        if let Some(task) = self.0 {
            task.abort();
        }
    }
}

/// Serves `what` where `listen` says; nowhere if that is nothing.
pub(crate) fn spawn(what: &'static str, listen: Option<&Listen>, endpoints: Endpoints) -> Serving {
    let task = listen.cloned().map(|listen| {
        let serving = async move {
            let _server = bound(what, &listen, endpoints).await;
            std::future::pending::<()>().await;
        };
        tokio::spawn(serving).abort_handle()
    });
    Serving(task)
}

async fn bound(what: &str, listen: &Listen, endpoints: Endpoints) -> Server {
    loop {
        let error = match once(listen, &endpoints).await {
            Ok(server) => {
                tracing::info!(address = %server.address(), "{what} served");
                return server;
            }
            Err(error) => format!("{error:#}"),
        };
        let Listen { host, port } = listen;
        tracing::error!(host, port, error, "{what} cannot be served, trying again");
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

async fn once(listen: &Listen, endpoints: &Endpoints) -> Result<Server> {
    if listen.host.is_empty() {
        // Both families with one socket, or IPv4 where there is no other.
        let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port);
        if let Ok(server) = telemetry::serve(all, endpoints.clone()).await {
            return Ok(server);
        }
        let all = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), listen.port);
        return Ok(telemetry::serve(all, endpoints.clone()).await?);
    }
    // Where IPv4 clients look for it, as upstream does, and without what a resolver would load.
    let host = if listen.host == "localhost" { "127.0.0.1" } else { &listen.host };
    let mut found = tokio::net::lookup_host((host, listen.port)).await?;
    let address = found.next().context("the host has no address")?;
    Ok(telemetry::serve(address, endpoints.clone()).await?)
}
