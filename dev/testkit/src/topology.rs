//! Nodes joined by a bridge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Netns;

/// A node: its namespace, and its addresses on `eth0`.
#[derive(Debug)]
pub struct Node {
    /// Where it lives.
    pub netns: Netns,
    /// Its IPv4 address, in a /24.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, in a /64.
    pub v6: Ipv6Addr,
}

impl Node {
    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Nodes on one subnet: 10.0.0.11/24, .12 and so on, and the same last number under `fd00:10::/64`.
#[derive(Debug)]
pub struct Topology {
    /// The namespace of the bridge.
    pub fabric: Netns,
    /// The nodes, the first is `.11`.
    pub nodes: Vec<Node>,
}

impl Topology {
    /// A bridge with `count` nodes, forwarding enabled on each. `mtu` is that of every `eth0`.
    pub fn new(count: u8, mtu: u32) -> Self {
        let fabric = Netns::new();
        fabric.sh("ip link add br0 type bridge stp_state 0 forward_delay 0 && ip link set br0 up");
        let nodes = (0..count).map(|i| join(&fabric, 11 + i, mtu)).collect();
        Self { fabric, nodes }
    }
}

fn join(fabric: &Netns, number: u8, mtu: u32) -> Node {
    let v4 = Ipv4Addr::new(10, 0, 0, number);
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, number.into());
    let netns = Netns::new();
    // `ip` resolves the path itself, so it must be one that another process can open.
    fabric.sh(&format!(
        "ip link add p{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {path}
         ip link set p{number} master br0 up",
        path = netns.path().display(),
    ));
    netns.sh(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
         ip addr add {v4}/24 dev eth0
         ip addr add {v6}/64 dev eth0 nodad
         ip link set eth0 up",
    ));
    Node { netns, v4, v6 }
}
