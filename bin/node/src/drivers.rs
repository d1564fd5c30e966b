//! The drivers behind the dataplane's traits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use dataplane::tunnels::TunnelConfig;
use dataplane::{Config, Connections, Dataplane, DriverError, Network, Outcome, Refused};
use ipnet::IpNet;
use model::{HostInterface, IfaceName, InSync, IpVersion, NextHop, NodeName, Tunnel, TunnelEnd};
use netlink::Monitor;
use netlink::conntrack::Conntrack;
use netlink::monitor::Topic;
use telemetry::Registry;
use tokio::io::unix::AsyncFd;

use crate::felix::Configuration;
use crate::inbox::Inbox;
use crate::policies::Nft;
use crate::status::Shared;

/// The dataplane of this agent.
pub(crate) type Kernel = Dataplane<Nft, Routes, Flows>;

/// A dataplane over the kernel of this network namespace.
pub(crate) fn open(
    node: &str,
    configuration: &Configuration,
    (inbox, shared, registry): (&Arc<Inbox>, &Arc<Shared>, &mut Registry),
) -> Result<Kernel> {
    let mut config = Config::new(NodeName::from(node));
    config.tunnels = tunnels(configuration);
    let routes = route::Driver::open().context("opening rtnetlink")?;
    routes.metrics().register(registry);
    let policies = Nft::open(configuration, (inbox, shared, registry))?;
    policies.metrics().register(registry);
    let dataplane = Dataplane::new(config, policies, Routes(routes), Flows(None));
    dataplane.metrics().register(registry);
    Ok(dataplane)
}

/// What is configured about tunnels.
pub(crate) fn tunnels(configuration: &Configuration) -> TunnelConfig {
    let config = &configuration.felix.config;
    TunnelConfig {
        vni: config.vxlan_vni,
        port: config.vxlan_port,
        mtu_v4: config.vxlan_mtu_v4,
        mtu_v6: config.vxlan_mtu_v6,
    }
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

/// Routes, tunnels, interfaces.
#[derive(Debug)]
pub(crate) struct Routes(route::Driver);

fn failed(error: &dyn std::error::Error) -> DriverError {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        text = format!("{text}: {e}");
        next = e.source();
    }
    DriverError(text)
}

impl Network for Routes {
    fn poll(&mut self) -> Result<bool, DriverError> {
        self.0.poll().map_err(|e| failed(&e))
    }
    fn host_interfaces(&self) -> &BTreeMap<IfaceName, HostInterface> {
        self.0.host_interfaces()
    }
    fn want_route(&mut self, dst: IpNet, hop: Option<NextHop>) {
        self.0.want_route(dst, hop);
    }
    fn want_tunnel(&mut self, version: IpVersion, tunnel: Option<Tunnel>) {
        self.0.want_tunnel(version, tunnel);
    }
    fn want_tunnel_end(&mut self, address: IpAddr, end: Option<TunnelEnd>) {
        self.0.want_tunnel_end(address, end);
    }
    fn has_route(&self, dst: &IpNet) -> bool {
        self.0.has_route(dst)
    }
    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError> {
        let applied = self.0.apply(in_sync).map_err(|e| failed(&e))?;
        let refused = applied.refused.into_iter();
        let refused = refused.map(|(object, error)| Refused { object, error }).collect();
        Ok(Outcome { changed: applied.changed, refused })
    }
}

/// Established connections. The socket is opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Flows(Option<Conntrack>);

impl Connections for Flows {
    fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), DriverError> {
        let mut open = match self.0.take() {
            Some(open) => open,
            None => Conntrack::open().map_err(|e| failed(&e))?,
        };
        open.forget(addresses.iter().copied()).map_err(|e| failed(&e))?;
        self.0 = Some(open);
        Ok(())
    }
}
