//! What is known of the interfaces of this namespace.

use std::collections::BTreeMap;

use model::wiring::WORKLOAD_PREFIX;
use model::{HostInterface, IfaceName};
use netlink::{Address, Link};

/// An interface, as far as routes care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: IfaceName,
    /// Administratively up: routes can use it.
    pub up: bool,
}

/// What a notification changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters.
    None,
    /// Routes can use that interface now.
    Usable(IfaceName),
    /// Routes can no longer use that interface; the kernel has dropped those that did.
    Unusable(IfaceName),
}

/// All interfaces, and more about those that are not pods'.
#[derive(Debug)]
pub struct Interfaces {
    prefixes: Vec<String>,
    by_index: BTreeMap<u32, Interface>,
    by_name: BTreeMap<IfaceName, u32>,
    host: BTreeMap<IfaceName, HostInterface>,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self::of_prefixes(vec![WORKLOAD_PREFIX.to_owned()])
    }
}

impl Interfaces {
    /// None yet; pods' interfaces begin with one of `prefixes`.
    pub fn of_prefixes(prefixes: Vec<String>) -> Self {
        Self {
            prefixes,
            by_index: BTreeMap::new(),
            by_name: BTreeMap::new(),
            host: BTreeMap::new(),
        }
    }

    /// A full read-back.
    pub fn read_back(&mut self, links: &[Link], addresses: &[Address]) {
        *self = Self::of_prefixes(std::mem::take(&mut self.prefixes));
        for link in links {
            self.link(link);
        }
        for address in addresses {
            self.address(address, true);
        }
    }

    /// Whether an interface of that name is a pod's.
    pub fn is_workload(&self, name: &IfaceName) -> bool {
        self.prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
    }

    /// An interface is new or changed.
    pub fn link(&mut self, link: &Link) -> Change {
        let now = Interface { name: link.name.clone(), up: link.up };
        let old = self.by_index.insert(link.index, now.clone());
        let renamed = old.as_ref().filter(|old| old.name != now.name).map(|old| old.name.clone());
        let mut known = HostInterface::default();
        if let Some(old) = renamed {
            self.by_name.remove(&old);
            known = self.host.remove(&old).unwrap_or_default();
        }
        self.by_name.insert(link.name.clone(), link.index);
        if !self.is_workload(&link.name) {
            let host = self.host.entry(link.name.clone()).or_insert(known);
            (host.running, host.mtu) = (link.running, link.mtu);
        }
        let was_up = old.as_ref().is_some_and(|old| old.up && old.name == now.name);
        match (was_up, now.up) {
            (false, true) => Change::Usable(now.name),
            (true, false) => Change::Unusable(now.name),
            _ => Change::None,
        }
    }

    /// An interface is gone.
    pub fn link_gone(&mut self, index: u32) -> Change {
        let Some(old) = self.by_index.remove(&index) else { return Change::None };
        if self.by_name.get(&old.name) == Some(&index) {
            self.by_name.remove(&old.name);
            self.host.remove(&old.name);
        }
        Change::Unusable(old.name)
    }

    /// An address is there, or no longer. Those of pods' interfaces do not matter.
    pub fn address(&mut self, address: &Address, there: bool) {
        let Some(interface) = self.by_index.get(&address.index) else { return };
        let Some(host) = self.host.get_mut(&interface.name) else { return };
        if there {
            host.addresses.insert(address.net.addr());
        } else {
            host.addresses.remove(&address.net.addr());
        }
    }

    /// Index of an interface that routes can use.
    pub fn usable(&self, name: &IfaceName) -> Option<u32> {
        let index = *self.by_name.get(name)?;
        self.by_index.get(&index)?.up.then_some(index)
    }

    /// Name of an interface.
    pub fn name(&self, index: u32) -> Option<&IfaceName> {
        self.by_index.get(&index).map(|interface| &interface.name)
    }

    /// The host's own interfaces: those that are not pods'.
    pub fn host(&self) -> &BTreeMap<IfaceName, HostInterface> {
        &self.host
    }

    /// Number of pods' interfaces.
    pub fn workloads(&self) -> usize {
        self.by_name.len() - self.host.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        Link {
            index,
            name: name.parse().unwrap(),
            up,
            running: up,
            loopback: false,
            mtu: 1500,
            mac: None,
            alias: None,
            kind: None,
            vxlan: None,
            master: None,
        }
    }

    #[test]
    fn ups_downs_and_renames() {
        let mut all = Interfaces::default();
        let name = |n: &str| n.parse::<IfaceName>().unwrap();
        assert_eq!(all.link(&link(5, "eth0", false)), Change::None);
        assert_eq!(all.usable(&name("eth0")), None);
        assert_eq!(all.link(&link(5, "eth0", true)), Change::Usable(name("eth0")));
        assert_eq!(all.link(&link(5, "eth0", true)), Change::None);
        assert_eq!(all.usable(&name("eth0")), Some(5));
        let address = Address { index: 5, net: "192.0.2.1/24".parse().unwrap(), global: true };
        all.address(&address, true);
        assert_eq!(all.link(&link(5, "eth9", true)), Change::Usable(name("eth9")));
        assert_eq!(all.usable(&name("eth0")), None);
        assert_eq!(all.host()[&name("eth9")].addresses.len(), 1, "addresses follow the rename");
        assert_eq!(all.link_gone(5), Change::Unusable(name("eth9")));
        assert_eq!(all.link_gone(5), Change::None);
        assert!(all.host().is_empty());
    }

    #[test]
    fn a_successor_of_the_same_name_survives_the_late_news_of_the_old_one() {
        let mut all = Interfaces::default();
        let name = "cali1".parse().unwrap();
        all.link(&link(5, "cali1", true));
        all.link(&link(6, "cali1", true));
        all.link_gone(5);
        assert_eq!(all.usable(&name), Some(6));
        assert_eq!((all.workloads(), all.host().len()), (1, 0));
    }
}
