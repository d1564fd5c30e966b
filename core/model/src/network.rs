//! Nodes, pools and blocks: what routes are calculated from.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Labels;
use crate::ids::NodeName;

/// A node of the cluster, as far as networking goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its address and subnet per family, host bits kept (`projectcalico.org/IPv4Address`).
    pub addresses: Vec<IpNet>,
    /// VXLAN tunnel addresses, per family.
    pub vxlan_addresses: Vec<IpAddr>,
    /// VXLAN tunnel MAC for IPv4, if the node published one.
    pub vxlan_mac_v4: Option<[u8; 6]>,
    /// VXLAN tunnel MAC for IPv6, if the node published one.
    pub vxlan_mac_v6: Option<[u8; 6]>,
    /// IP-in-IP tunnel address.
    pub ipip_address: Option<IpAddr>,
    /// Another program than ours does this there: a node has said what addresses it has, and not that
    /// it runs our agent.
    pub upstream: bool,
    /// Labels.
    pub labels: Labels,
}

impl Node {
    /// The node's address and subnet of the family of `like`.
    pub fn address(&self, version: crate::IpVersion) -> Option<IpNet> {
        self.addresses.iter().copied().find(|n| crate::IpVersion::of_net(n) == version)
    }
}

/// When packets of a pool are encapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// To every other node.
    Always,
    /// Only to nodes on another subnet.
    CrossSubnet,
}

/// An address pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The whole range.
    pub cidr: IpNet,
    /// IP-in-IP mode.
    pub ipip: EncapMode,
    /// VXLAN mode.
    pub vxlan: EncapMode,
    /// Masquerade traffic that leaves the cluster.
    pub nat_outgoing: bool,
    /// No new allocations.
    pub disabled: bool,
}

/// A block of addresses and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The block.
    pub cidr: IpNet,
    /// The node that it is affine to.
    pub affinity: Option<NodeName>,
    /// Addresses allocated to other nodes than the affine one, with the node: borrowed.
    pub borrowed: Vec<(IpAddr, NodeName)>,
}
