//! The drivers behind the dataplane's traits.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use dataplane::kernel::Flows;
use dataplane::tunnels::TunnelConfig;
use dataplane::{Config, Dataplane};
use model::NodeName;
use netlink::Monitor;
use netlink::monitor::Topic;
use route::Driver;
use telemetry::Registry;
use tokio::io::unix::AsyncFd;

use crate::inbox::Inbox;
use crate::policies::Nft;

/// A dataplane over the kernel of this network namespace.
pub(crate) fn open(
    node: &str,
    settings: &config::Config,
    registry: &mut Registry,
) -> Result<Dataplane<Nft, Driver, Flows>> {
    let mut config = Config::new(NodeName::from(node));
    config.tunnels = TunnelConfig {
        vni: settings.vxlan_vni,
        port: settings.vxlan_port,
        mtu_v4: settings.vxlan_mtu_v4,
        mtu_v6: settings.vxlan_mtu_v6,
    };
    let routes = Driver::open_for(settings.interface_prefixes.clone());
    let routes = routes.context("opening rtnetlink")?;
    routes.metrics().register(registry);
    let policies = Nft::open(settings)?;
    let dataplane = Dataplane::new(config, policies, routes, Flows::default());
    dataplane.metrics().register(registry);
    Ok(dataplane)
}

/// Tells the apply loop when links, addresses, routes or tables change. What changed, its drivers
/// read.
#[expect(
    deprecated,
    reason = "the replacement is unsafe; both descriptors are owned by what is registered"
)]
pub(crate) fn watch_kernel(inbox: Arc<Inbox>, tables: OwnedFd) -> Result<()> {
    let tables = AsyncFd::new(tables)?;
    let notified = inbox.clone();
    tokio::spawn(async move {
        while let Ok(mut ready) = tables.readable().await {
            ready.clear_ready(); // the driver empties the socket; the next event wakes us again
            notified.kernel_changed();
        }
    });
    let monitor = Monitor::open(&[Topic::Links, Topic::Addresses, Topic::Routes])?;
    let mut monitor = AsyncFd::new(Fd(monitor))?;
    tokio::spawn(async move {
        while let Ok(mut ready) = monitor.readable_mut().await {
            // An overrun is an event as well; a socket that fails for good ends in the drivers.
            let seen = ready.get_inner_mut().0.drain();
            ready.clear_ready();
            if seen.is_err() || seen.is_ok_and(|events| !events.is_empty()) {
                inbox.kernel_changed();
            }
        }
    });
    Ok(())
}

struct Fd(Monitor);

impl std::os::fd::AsRawFd for Fd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(&self.0).as_raw_fd()
    }
}
