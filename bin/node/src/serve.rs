//! Health and metrics over HTTP. An address that another program has is waited for: it is no reason not
//! to enforce policy.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use config::Listen;
use telemetry::{Endpoints, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Something that is served where the configuration says, until the runtime ends.
pub(crate) struct Serving {
    what: &'static str,
    endpoints: Endpoints,
    listen: Option<Listen>,
    /// Ends, and gives the address back, when the sender is gone.
    task: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Serving {
    /// Nowhere yet.
    pub(crate) fn new(what: &'static str, endpoints: Endpoints) -> Self {
        Self { what, endpoints, listen: None, task: None }
    }

    /// From now on where `listen` says; nowhere if that is nothing.
    pub(crate) async fn follow(&mut self, listen: Option<&Listen>) {
        if self.listen.as_ref() == listen {
            return;
        }
        if let Some((stop, task)) = self.task.take() {
            drop(stop);
            // The address is free then; a task that panicked has given it back, too.
            let _ = task.await;
        }
        self.listen = listen.cloned();
        let (what, endpoints) = (self.what, self.endpoints.clone());
        self.task = listen.cloned().map(|listen| {
            let (stop, mut stopped) = oneshot::channel();
            let task = tokio::spawn(async move {
                tokio::select! {
                    server = bound(what, &listen, endpoints) => {
                        let _ = stopped.await; // an error: that is how it is told
                        server.stop().await;
                    }
                    _ = &mut stopped => {}
                }
            });
            (stop, task)
        });
    }
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
