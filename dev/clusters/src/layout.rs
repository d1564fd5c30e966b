//! The cables of every random cluster: two nodes, six pods, machines outside.

use std::net::IpAddr;

use crate::rules::PORTS;

/// The nodes. Pods 0 to 3 are on the first, 4 and 5 on the second.
pub const NODES: [&str; 2] = ["n0", "n1"];
/// Pods.
pub const PODS: u16 = 6;
/// Interfaces of every node with their addresses. The default route leads out of the first.
pub const INTERFACES: [&str; 2] = ["eth0", "eth1"];
/// Machines outside the cluster.
pub const OUTSIDE: [&str; 4] = ["203.0.113.7", "198.51.100.1", "2001:db8::7", "fd99::1"];

fn parse(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// Name of the host side of a pod's interface.
pub fn pod_interface(pod: u16) -> String {
    format!("cali{pod}")
}

/// Index of the node that a pod is on.
pub fn pod_node(pod: u16) -> usize {
    usize::from(pod >= 4)
}

/// Addresses that a pod can have. The last two of them are had by pods 1 and 5 only.
pub fn pod_addresses(pod: u16) -> Vec<IpAddr> {
    let n = pod + 1;
    let mut all = vec![parse(&format!("10.1.0.{n}")), parse(&format!("fd01::{n}"))];
    if pod % 4 == 1 {
        all.extend([parse(&format!("10.1.9.{n}")), parse(&format!("fd01::9:{n}"))]);
    }
    all
}

/// Addresses of an interface of a node, by their indices.
pub fn node_addresses(node: usize, interface: usize) -> Vec<IpAddr> {
    let n = node + 1;
    vec![parse(&format!("172.18.{interface}.{n}")), parse(&format!("fd18::{interface}:{n}"))]
}

/// Every address.
pub fn ends() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = (0..PODS).flat_map(pod_addresses).collect();
    for node in 0..NODES.len() {
        all.extend((0..INTERFACES.len()).flat_map(|i| node_addresses(node, i)));
    }
    all.extend(outside());
    all
}

/// The service whose only backend has the address.
pub fn service(backend: IpAddr) -> IpAddr {
    let ends = ends();
    let n = ends.iter().position(|e| *e == backend).expect("an address of this layout") + 1;
    parse(&if backend.is_ipv4() { format!("10.96.0.{n}") } else { format!("fd96::{n}") })
}

/// Ports of services, each with that of the backend.
pub fn service_ports() -> impl Iterator<Item = (u16, u16)> {
    PORTS.into_iter().zip(PORTS.into_iter().cycle().skip(1))
}

/// Addresses of the machines outside.
pub fn outside() -> Vec<IpAddr> {
    OUTSIDE.iter().map(|a| parse(a)).collect()
}
