//! The traits on the kernel of this network namespace: routes, tunnels, interfaces, connections.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{HostInterface, IfaceName, InSync, IpVersion, NextHop, Tunnel, TunnelEnd};
use netlink::conntrack::Conntrack;
use route::Driver;

use crate::{Connections, DriverError, Network, Outcome, Refused};

impl From<netlink::Error> for DriverError {
    /// With its causes.
    fn from(error: netlink::Error) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        Self(text)
    }
}

impl Network for Driver {
    fn poll(&mut self) -> Result<bool, DriverError> {
        Ok(Self::poll(self)?)
    }
    fn host_interfaces(&self) -> &BTreeMap<IfaceName, HostInterface> {
        Self::host_interfaces(self)
    }
    fn want_route(&mut self, dst: IpNet, hop: Option<NextHop>) {
        Self::want_route(self, dst, hop);
    }
    fn want_tunnel(&mut self, version: IpVersion, tunnel: Option<Tunnel>) {
        Self::want_tunnel(self, version, tunnel);
    }
    fn want_tunnel_end(&mut self, address: IpAddr, end: Option<TunnelEnd>) {
        Self::want_tunnel_end(self, address, end);
    }
    fn has_route(&self, dst: &IpNet) -> bool {
        Self::has_route(self, dst)
    }
    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError> {
        let applied = Self::apply(self, in_sync)?;
        let refused = applied.refused.into_iter();
        let refused = refused.map(|(object, error)| Refused { object, error }).collect();
        Ok(Outcome { changed: applied.changed, refused })
    }
}

/// Established connections. The socket is opened when it is first needed.
#[derive(Debug, Default)]
pub struct Flows(Option<Conntrack>);

impl Connections for Flows {
    fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), DriverError> {
        let mut open = match self.0.take() {
            Some(open) => open,
            None => Conntrack::open()?,
        };
        open.forget(addresses.iter().copied())?;
        self.0 = Some(open);
        Ok(())
    }
}
