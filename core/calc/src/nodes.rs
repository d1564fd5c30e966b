//! What other nodes are: their own addresses, and the far ends of VXLAN tunnels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::network::Node;
use model::output::{Output, Vtep};
use model::{IpVersion, NodeName};
use sha1::{Digest as _, Sha1};

/// The MAC address of a node's VXLAN device if the node published none: every node derives the
/// same one from the name. (`f`, then five bytes of the SHA-1 of the name, for IPv6 of the name
/// followed by `-v6`; `vxlan_resolver.go` upstream.)
pub fn derived_vtep_mac(node: &NodeName, version: IpVersion) -> [u8; 6] {
    let suffix = match version {
        IpVersion::V4 => "",
        IpVersion::V6 => "-v6",
    };
    let digest = Sha1::digest(format!("{node}{suffix}"));
    let mut mac = [b'f'; 6];
    mac[1..].copy_from_slice(&digest[..5]);
    mac
}

/// The tunnel end of a node, if it has what one needs: an own and a tunnel address of the family.
pub(crate) fn vtep(name: &NodeName, node: &Node, version: IpVersion) -> Option<Vtep> {
    let tunnel = node.vxlan_addresses.iter().find(|a| IpVersion::of(**a) == version);
    let published = match version {
        IpVersion::V4 => node.vxlan_mac_v4,
        IpVersion::V6 => node.vxlan_mac_v6,
    };
    Some(Vtep {
        node: name.clone(),
        version,
        address: *tunnel?,
        parent: node.address(version)?.addr(),
        mac: published.unwrap_or_else(|| derived_vtep_mac(name, version)),
    })
}

/// All nodes.
#[derive(Default)]
pub(crate) struct Nodes {
    nodes: HashMap<NodeName, Arc<Node>>,
    dirty: BTreeSet<NodeName>,
    vteps: BTreeMap<(NodeName, IpVersion), Vtep>, // as emitted
    addresses: HashMap<NodeName, Vec<IpAddr>>,    // as emitted; without empty ones
    this: Option<Arc<Node>>,                      // as emitted
}

/// What a flush of the nodes says.
#[derive(Default)]
pub(crate) struct NodeBatch {
    pub(crate) hosts: Vec<Output>,
    pub(crate) vteps: Vec<Output>,
    pub(crate) vteps_gone: Vec<Output>,
}

impl Nodes {
    /// Replaces a node; returns what it was.
    pub(crate) fn set(&mut self, name: NodeName, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        self.dirty.insert(name.clone());
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        }
    }

    pub(crate) fn get(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name).map(|n| &**n)
    }

    pub(crate) fn flush(&mut self, this: &NodeName) -> NodeBatch {
        let mut out = NodeBatch::default();
        for name in std::mem::take(&mut self.dirty) {
            let node = self.nodes.get(&name).cloned();
            if name == *this {
                self.flush_this(node, &mut out);
            } else {
                self.flush_addresses(&name, node.as_deref(), &mut out);
                for version in IpVersion::ALL {
                    self.flush_vtep(&name, node.as_deref(), version, &mut out);
                }
            }
        }
        out
    }

    fn flush_this(&mut self, node: Option<Arc<Node>>, out: &mut NodeBatch) {
        if self.this != node {
            // A node without its object has no addresses.
            out.hosts.push(Output::ThisNode(node.clone().unwrap_or_default()));
            self.this = node;
        }
    }

    fn flush_addresses(&mut self, name: &NodeName, node: Option<&Node>, out: &mut NodeBatch) {
        let mut now: Vec<IpAddr> =
            node.iter().flat_map(|n| &n.addresses).map(ipnet::IpNet::addr).collect();
        now.sort_unstable();
        now.dedup();
        if self.addresses.get(name).map_or(&[][..], |a| a) == now {
            return;
        }
        if now.is_empty() {
            self.addresses.remove(name);
        } else {
            self.addresses.insert(name.clone(), now.clone());
        }
        out.hosts.push(Output::HostAddresses(name.clone(), now));
    }

    fn flush_vtep(
        &mut self,
        name: &NodeName,
        node: Option<&Node>,
        version: IpVersion,
        out: &mut NodeBatch,
    ) {
        let key = (name.clone(), version);
        match node.and_then(|n| vtep(name, n, version)) {
            Some(now) => {
                if self.vteps.get(&key) != Some(&now) {
                    out.vteps.push(Output::Vtep(now.clone()));
                    self.vteps.insert(key, now);
                }
            }
            None => {
                if self.vteps.remove(&key).is_some() {
                    out.vteps_gone.push(Output::VtepGone(key.0, version));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_those_that_every_node_derives() {
        // printf node-1 | sha1sum; printf node-1-v6 | sha1sum
        let text = |v| derived_vtep_mac(&"node-1".into(), v).map(|b| format!("{b:02x}")).join(":");
        assert_eq!(text(IpVersion::V4), "66:b3:68:28:39:8e");
        assert_eq!(text(IpVersion::V6), "66:24:ac:63:df:6c");
    }
}
