//! VXLAN devices of this node, and who is behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::network::Node;
use model::output::{Encap, Vtep};
use model::{IfaceName, IpVersion, NodeName, Tunnel, TunnelEnd};
use sha1::{Digest, Sha1};

use crate::mtu;

/// What tunnels have in common on every node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Size of packets in IPv4 tunnels, if configured.
    pub mtu_v4: Option<u32>,
    /// Size of packets in IPv6 tunnels, if configured.
    pub mtu_v6: Option<u32>,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self { vni: 4096, port: 4789, mtu_v4: None, mtu_v6: None }
    }
}

impl TunnelConfig {
    /// Size of packets in the tunnel, given what the underlay carries.
    pub fn mtu(&self, version: IpVersion, underlay: u32) -> u32 {
        let configured = match version {
            IpVersion::V4 => self.mtu_v4,
            IpVersion::V6 => self.mtu_v6,
        };
        let overhead = mtu::overhead(Encap::Vxlan, version);
        configured.unwrap_or_else(|| underlay.saturating_sub(overhead))
    }
}

/// Name of the VXLAN device of a family.
///
/// # Panics
/// Never: both names are legal.
pub fn device(version: IpVersion) -> IfaceName {
    let name = match version {
        IpVersion::V4 => "vxlan.calico",
        IpVersion::V6 => "vxlan-v6.calico",
    };
    name.parse().expect("both names are legal")
}

/// Hardware address of a node's tunnel device, unless the node published another: `f` and the
/// first five bytes of the SHA-1 of its name (for IPv6, of its name and `-v6`). Every node, also
/// one that runs another implementation, derives the same.
pub fn derived_mac(node: &NodeName, version: IpVersion) -> [u8; 6] {
    let suffix = match version {
        IpVersion::V4 => "",
        IpVersion::V6 => "-v6",
    };
    let hash = Sha1::new().chain_update(node.as_str()).chain_update(suffix).finalize();
    let mut mac = [b'f'; 6];
    mac[1..].copy_from_slice(&hash[..5]);
    mac
}

/// This node's tunnel devices and the far ends.
#[derive(Debug)]
pub struct TunnelManager {
    name: NodeName,
    config: TunnelConfig,
    this: Arc<Node>,
    ends: BTreeMap<IpAddr, BTreeMap<NodeName, TunnelEnd>>,
    of_node: BTreeMap<(NodeName, IpVersion), IpAddr>,
    dirty: BTreeSet<IpAddr>,
}

impl TunnelManager {
    /// Tunnels of the node of that name.
    pub fn new(name: NodeName, config: TunnelConfig) -> Self {
        Self {
            name,
            config,
            this: Arc::default(),
            ends: BTreeMap::new(),
            of_node: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// What tunnels have in common is another from now on.
    pub fn configure(&mut self, config: TunnelConfig) {
        self.config = config;
    }

    /// This node is new or changed.
    pub fn want_this(&mut self, this: &Arc<Node>) {
        self.this = this.clone();
    }

    /// A far end is new or changed.
    pub fn want_end(&mut self, vtep: &Vtep) {
        self.forget_end(&vtep.node, vtep.version);
        let end = TunnelEnd { mac: vtep.mac, parent: vtep.parent };
        self.of_node.insert((vtep.node.clone(), vtep.version), vtep.address);
        self.ends.entry(vtep.address).or_default().insert(vtep.node.clone(), end);
        self.dirty.insert(vtep.address);
    }

    /// A far end is gone.
    pub fn forget_end(&mut self, node: &NodeName, version: IpVersion) {
        let Some(address) = self.of_node.remove(&(node.clone(), version)) else { return };
        if let Some(owners) = self.ends.get_mut(&address) {
            owners.remove(node);
            if owners.is_empty() {
                self.ends.remove(&address);
            }
        }
        self.dirty.insert(address);
    }

    /// What the device of that family should be.
    pub fn tunnel(&self, version: IpVersion, underlay_mtu: u32) -> Option<Tunnel> {
        let own = |a: &&IpAddr| IpVersion::of(**a) == version;
        let published = match version {
            IpVersion::V4 => self.this.vxlan_mac_v4,
            IpVersion::V6 => self.this.vxlan_mac_v6,
        };
        Some(Tunnel {
            iface: device(version),
            vni: self.config.vni,
            port: self.config.port,
            mtu: self.config.mtu(version, underlay_mtu),
            mac: published.unwrap_or_else(|| derived_mac(&self.name, version)),
            local: self.this.address(version)?.addr(),
            address: *self.this.vxlan_addresses.iter().find(own)?,
        })
    }

    /// Far ends that may have changed since the last call.
    pub fn drain_ends(&mut self) -> Vec<(IpAddr, Option<TunnelEnd>)> {
        let first =
            |a: &IpAddr| self.ends.get(a).and_then(|owners| owners.values().next().copied());
        std::mem::take(&mut self.dirty).into_iter().map(|a| (a, first(&a))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_those_that_every_other_node_expects() {
        // printf node1 | sha1sum; printf node1-v6 | sha1sum
        for (version, want) in [
            (IpVersion::V4, [0x66, 0xf9, 0x37, 0xc3, 0x7e, 0x94]),
            (IpVersion::V6, [0x66, 0x0f, 0x35, 0xf2, 0x60, 0xdf]),
        ] {
            assert_eq!(derived_mac(&"node1".into(), version), want, "{version:?}");
        }
    }

    #[test]
    fn a_device_needs_both_addresses() {
        let mut manager = TunnelManager::new("node1".into(), TunnelConfig::default());
        let mut node = Node { addresses: vec!["192.0.2.1/24".parse().unwrap()], ..Node::default() };
        manager.want_this(&Arc::new(node.clone()));
        assert_eq!(manager.tunnel(IpVersion::V4, 1500), None);
        node.vxlan_addresses = vec!["fd00:65::".parse().unwrap(), "10.65.0.0".parse().unwrap()];
        manager.want_this(&Arc::new(node));
        let tunnel = manager.tunnel(IpVersion::V4, 1500).unwrap();
        assert_eq!((tunnel.mtu, tunnel.vni, tunnel.port), (1450, 4096, 4789));
        assert_eq!(tunnel.local, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(tunnel.mac, derived_mac(&"node1".into(), IpVersion::V4));
        assert_eq!(manager.tunnel(IpVersion::V6, 1500), None, "no IPv6 underlay");
        manager.configure(TunnelConfig { port: 8472, mtu_v4: Some(1400), ..manager.config });
        let tunnel = manager.tunnel(IpVersion::V4, 1500).unwrap();
        assert_eq!((tunnel.mtu, tunnel.vni, tunnel.port), (1400, 4096, 8472));
    }

    #[test]
    fn an_end_moves_with_its_node() {
        let mut manager = TunnelManager::new("node1".into(), TunnelConfig::default());
        let vtep = |address: &str, mac| Vtep {
            node: "far".into(),
            version: IpVersion::V4,
            address: address.parse().unwrap(),
            parent: "192.0.2.2".parse().unwrap(),
            mac: [mac; 6],
        };
        manager.want_end(&vtep("10.65.1.0", 1));
        assert_eq!(manager.drain_ends().len(), 1);
        manager.want_end(&vtep("10.65.2.0", 2));
        let changes = manager.drain_ends();
        assert!(changes.iter().any(|(a, e)| a.to_string() == "10.65.1.0" && e.is_none()));
        assert!(changes.iter().any(|(a, e)| a.to_string() == "10.65.2.0" && e.is_some()));
        manager.forget_end(&"far".into(), IpVersion::V4);
        assert_eq!(manager.drain_ends()[0].1, None);
        assert!(manager.drain_ends().is_empty() && manager.ends.is_empty());
    }
}
