//! The tables, one socket, one subscription.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use ipnet::IpNet;
use model::{HostInterface, IfaceName, InSync, IpVersion, NextHop, Tunnel, TunnelEnd};
use netlink::monitor::Topic;
use netlink::{Event, Monitor, Result, Socket, address, link, sysctl};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::interfaces::{Change, Interfaces};
use crate::table::RouteTable;
use crate::tunnel::TunnelTable;

/// What an apply achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Something in the kernel was changed.
    pub changed: bool,
    /// Objects that the kernel refuses, and why. They are tried again with the next apply.
    pub refused: Vec<(String, String)>,
}

/// What the driver counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    routes: Gauge,
    ifaces: Gauge,
    resync_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let resync_seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        Self { routes: Gauge::default(), ifaces: Gauge::default(), resync_seconds }
    }
}

impl Metrics {
    /// Makes them part of what the agent exports.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "felix_route_table_num_routes",
            "Number of routes that this node programs",
            self.routes.clone(),
        );
        registry.register(
            "felix_route_table_num_ifaces",
            "Number of interfaces of local pods",
            self.ifaces.clone(),
        );
        registry.register(
            "felix_route_table_resync_seconds",
            "Time taken to read the routing table back",
            self.resync_seconds.clone(),
        );
    }
}

/// Routes, tunnels, neighbours and interfaces of one network namespace.
#[derive(Debug)]
pub struct Driver {
    socket: Socket,
    monitor: Monitor,
    /// Apart, because every ARP exchange of every pod is heard here: it must not wake anybody.
    neighbour_monitor: Monitor,
    interfaces: Interfaces,
    routes: RouteTable,
    tunnels: [TunnelTable; 2],
    /// Interfaces and routes must be read back.
    stale: bool,
    /// The host's own interfaces have changed since the last poll by the caller.
    host_changed: bool,
    forwarding: bool,
    metrics: Metrics,
}

impl Driver {
    /// A driver for the namespace of the calling thread, where pods' interfaces begin with `cali`.
    /// Reads the interfaces, changes nothing.
    pub fn open() -> Result<Self> {
        Self::with(Interfaces::default())
    }

    /// The same, where pods' interfaces begin with one of `prefixes`.
    pub fn open_for(prefixes: Vec<String>) -> Result<Self> {
        Self::with(Interfaces::of_prefixes(prefixes))
    }

    fn with(interfaces: Interfaces) -> Result<Self> {
        // The subscription comes first, so that nothing happens unseen after the reading.
        let monitor = Monitor::open(&[Topic::Links, Topic::Addresses, Topic::Routes])?;
        let neighbour_monitor = Monitor::open(&[Topic::Neighbours])?;
        let mut driver = Self {
            socket: Socket::open()?,
            monitor,
            neighbour_monitor,
            interfaces,
            routes: RouteTable::default(),
            tunnels: IpVersion::ALL.map(TunnelTable::new),
            stale: true,
            host_changed: true,
            forwarding: false,
            metrics: Metrics::default(),
        };
        driver.resync()?;
        Ok(driver)
    }

    /// Its metrics, to be registered.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes in the kernel's notifications; never waits. True if the host's own interfaces or
    /// their addresses have changed.
    pub fn poll(&mut self) -> Result<bool> {
        self.catch_up()?;
        Ok(std::mem::take(&mut self.host_changed))
    }

    fn catch_up(&mut self) -> Result<()> {
        for event in self.monitor.drain()? {
            self.host_changed |= self.notice(&event);
        }
        for event in self.neighbour_monitor.drain()? {
            self.notice_neighbour(&event);
        }
        if self.stale {
            self.resync()?;
            self.host_changed = true;
        }
        Ok(())
    }

    /// The host's own interfaces: not those of pods.
    pub fn host_interfaces(&self) -> &BTreeMap<IfaceName, HostInterface> {
        self.interfaces.host()
    }

    /// Says where packets to `dst` should go; memory only.
    pub fn want_route(&mut self, dst: IpNet, hop: Option<NextHop>) {
        self.routes.want(dst, hop);
    }

    /// Says what the tunnel device of that family should be; memory only.
    pub fn want_tunnel(&mut self, version: IpVersion, tunnel: Option<Tunnel>) {
        self.tunnels[slot(version)].want(tunnel);
    }

    /// Says who is behind `address` of a tunnel device; memory only.
    pub fn want_tunnel_end(&mut self, address: IpAddr, end: Option<TunnelEnd>) {
        self.tunnels[slot(IpVersion::of(address))].want_end(address, end);
    }

    /// Whether the kernel has the wanted route to `dst`.
    pub fn has_route(&self, dst: &IpNet) -> bool {
        self.routes.has(dst)
    }

    /// Makes the kernel so. Without the witness nothing is removed that an earlier run left.
    ///
    /// A tunnel that cannot be made is reported and does not stop the routes of local pods.
    pub fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Applied> {
        self.enable_forwarding()?;
        let mut applied = Applied::default();
        for tunnel in &mut self.tunnels {
            let done = tunnel.apply_puts(&mut self.socket);
            applied.note("tunnel", done)?;
        }
        // A device that was just made becomes usable with its notification.
        self.catch_up()?;
        applied.changed |= self.routes.apply(&mut self.socket, &self.interfaces, in_sync)?;
        for tunnel in &mut self.tunnels {
            let done = tunnel.apply_removals(&mut self.socket, in_sync);
            applied.note("tunnel", done)?;
        }
        let refused = self.routes.refused().iter();
        applied.refused.extend(refused.map(|(dst, why)| (format!("route {dst}"), why.clone())));
        self.metrics.routes.set(self.routes.len() as i64);
        self.metrics.ifaces.set(self.interfaces.workloads() as i64);
        Ok(applied)
    }

    /// A node routes; without this no pod reaches anything.
    fn enable_forwarding(&mut self) -> Result<()> {
        if self.forwarding {
            return Ok(());
        }
        sysctl::set("ipv4/ip_forward", "1")?;
        if sysctl::has(IpVersion::V6) {
            sysctl::set("ipv6/conf/all/forwarding", "1")?;
        }
        if let Err(error) = sysctl::set("netfilter/nf_conntrack_acct", "1") {
            tracing::debug!(%error, "connections will not be counted");
        }
        self.forwarding = true;
        Ok(())
    }

    fn resync(&mut self) -> Result<()> {
        let started = Instant::now();
        // First, because what happens from here on is in the next drain.
        self.monitor.drain()?;
        let links = link::list(&mut self.socket)?;
        self.interfaces.read_back(&links, &address::list(&mut self.socket)?);
        self.routes.resync(&mut self.socket, &self.interfaces)?;
        self.routes.resolve_all();
        self.tunnels.iter_mut().for_each(TunnelTable::resync);
        self.stale = false;
        self.metrics.resync_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// True if the host's own interfaces or addresses have changed.
    fn notice(&mut self, event: &Event) -> bool {
        let own = self.socket.port();
        match event {
            Event::Link(link) => {
                self.tunnels.iter_mut().for_each(|t| t.noticed_link(&link.name, Some(link)));
                let change = self.interfaces.link(link);
                self.interface_changed(&change);
                return !self.interfaces.is_workload(&link.name);
            }
            Event::LinkGone(index, name) => {
                self.tunnels.iter_mut().for_each(|t| t.noticed_link(name, None));
                let change = self.interfaces.link_gone(*index);
                self.interface_changed(&change);
                return !self.interfaces.is_workload(name);
            }
            Event::Address(address) | Event::AddressGone(address) => {
                let there = matches!(event, Event::Address(_));
                self.interfaces.address(address, there);
                self.tunnels.iter_mut().for_each(|t| t.noticed_address(address, there));
                let name = self.interfaces.name(address.index);
                let host = name.is_some_and(|name| !self.interfaces.is_workload(name));
                // With the last address of an interface the kernel drops the routes through it,
                // and does not say so.
                self.stale |= host && !there;
                return host;
            }
            Event::Route { by, .. } | Event::RouteGone { by, .. } if *by == own => {}
            Event::Route { route, .. } => self.routes.noticed(route, true, &self.interfaces),
            Event::RouteGone { route, .. } => self.routes.noticed(route, false, &self.interfaces),
            Event::Neighbour(_) | Event::NeighbourGone(_) => {}
            Event::Overrun => {
                tracing::info!("notifications of the kernel were lost, reading everything back");
                self.stale = true;
            }
        }
        false
    }

    fn notice_neighbour(&mut self, event: &Event) {
        for tunnel in &mut self.tunnels {
            match event {
                Event::Neighbour(entry) => tunnel.noticed_neighbour(entry, true),
                Event::NeighbourGone(entry) => tunnel.noticed_neighbour(entry, false),
                _ => tunnel.resync(),
            }
        }
    }

    fn interface_changed(&mut self, change: &Change) {
        match change {
            Change::None => {}
            Change::Usable(name) => self.routes.usable(name),
            Change::Unusable(name) => {
                self.routes.unusable(name);
                // Routes by way of gateways behind it are gone too, and the kernel does not say
                // which; such an interface goes down rarely.
                self.stale |= !self.interfaces.is_workload(name) && !crate::tunnel::is_tunnel(name);
            }
        }
    }
}

impl AsFd for Driver {
    /// Readable when the kernel has news of links, addresses or routes: time to call apply. Changes
    /// to the entries of tunnels are noticed then, too, but do not make it readable.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Applied {
    /// A refusal is reported, a broken socket is an error.
    fn note(&mut self, what: &str, done: Result<bool>) -> Result<()> {
        match done {
            Ok(changed) => self.changed |= changed,
            Err(error @ (netlink::Error::Refused { .. } | netlink::Error::NoLink(_))) => {
                self.refused.push((what.to_owned(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn slot(version: IpVersion) -> usize {
    match version {
        IpVersion::V4 => 0,
        IpVersion::V6 => 1,
    }
}
