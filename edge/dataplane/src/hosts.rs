//! Which host endpoint protects which interface.
//!
//! An endpoint that names an interface comes before one that expects an address; among equals the
//! first name wins. Thus every interface has at most one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::endpoint::HostTarget;
use model::output::{LocalHost, Output};
use model::{HostEndpoint, HostInterface, IfaceName};

type Endpoints = BTreeMap<Arc<str>, Arc<LocalHost>>;

/// Host endpoints as calculated, and as resolved to interfaces.
#[derive(Debug, Default)]
pub struct HostManager {
    wanted: Endpoints,
    resolved: Endpoints,
}

impl HostManager {
    /// Takes in a new or changed endpoint, or that it is gone.
    pub fn want(&mut self, name: &Arc<str>, host: Option<&Arc<LocalHost>>) {
        match host {
            Some(host) => drop(self.wanted.insert(name.clone(), host.clone())),
            None => drop(self.wanted.remove(name)),
        }
    }

    /// The changes since the last call, given the host's interfaces: what is gone comes last.
    pub fn resolve(&mut self, interfaces: &BTreeMap<IfaceName, HostInterface>) -> Vec<Output> {
        let now = resolve(&self.wanted, interfaces);
        let changed = |(name, host): (&Arc<str>, &Arc<LocalHost>)| {
            (self.resolved.get(name) != Some(host)).then(|| Output::Host(host.clone()))
        };
        let gone = |name: &&Arc<str>| !now.contains_key(*name);
        let changes = now
            .iter()
            .filter_map(changed)
            .chain(self.resolved.keys().filter(gone).map(|name| Output::HostGone(name.clone())))
            .collect();
        self.resolved = now;
        changes
    }
}

fn resolve(wanted: &Endpoints, interfaces: &BTreeMap<IfaceName, HostInterface>) -> Endpoints {
    let mut taken: BTreeSet<&IfaceName> = BTreeSet::new();
    let mut resolved = Endpoints::new();
    for (name, host) in wanted {
        match &host.endpoint.target {
            HostTarget::All => drop(resolved.insert(name.clone(), host.clone())),
            HostTarget::Iface(iface) => {
                if taken.insert(iface) {
                    resolved.insert(name.clone(), host.clone());
                }
            }
            HostTarget::ByAddress => {}
        }
    }
    let by_address = |h: &&Arc<LocalHost>| h.endpoint.target == HostTarget::ByAddress;
    for host in wanted.values().filter(by_address) {
        let expected = &host.endpoint.addresses;
        let found: Vec<&IfaceName> = interfaces
            .iter()
            .filter(|(_, i)| expected.iter().any(|a| i.addresses.contains(a)))
            .map(|(iface, _)| iface)
            .filter(|iface| taken.insert(iface))
            .collect();
        resolved.extend(found.iter().map(|iface| bind(host, iface, found.len() == 1)));
    }
    resolved
}

/// The endpoint, bound to an interface; several interfaces of one endpoint have names of their own.
fn bind(host: &LocalHost, iface: &IfaceName, only: bool) -> (Arc<str>, Arc<LocalHost>) {
    let endpoint = &host.endpoint;
    let name: Arc<str> =
        if only { endpoint.name.clone() } else { format!("{}%{iface}", endpoint.name).into() };
    let target = HostTarget::Iface(iface.clone());
    let endpoint =
        Arc::new(HostEndpoint { name: name.clone(), target, ..HostEndpoint::clone(endpoint) });
    (name, Arc::new(LocalHost { endpoint, ..host.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, target: HostTarget, addresses: &[&str]) -> Arc<LocalHost> {
        let endpoint = HostEndpoint {
            name: name.into(),
            node: "n".into(),
            target,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            labels: Arc::default(),
            profiles: Vec::new(),
            ports: Vec::new(),
        };
        Arc::new(LocalHost {
            endpoint: Arc::new(endpoint),
            normal: Vec::new(),
            forward: Vec::new(),
            pre_dnat: Vec::new(),
            untracked: Vec::new(),
        })
    }

    fn interfaces(all: &[(&str, &[&str])]) -> BTreeMap<IfaceName, HostInterface> {
        all.iter()
            .map(|(name, addresses)| {
                let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
                (name.parse().unwrap(), HostInterface { addresses, ..HostInterface::default() })
            })
            .collect()
    }

    fn bound(outputs: &[Output]) -> Vec<String> {
        outputs
            .iter()
            .map(|output| match output {
                Output::Host(h) => match &h.endpoint.target {
                    HostTarget::Iface(iface) => format!("{}={iface}", h.endpoint.name),
                    other => format!("{}={other:?}", h.endpoint.name),
                },
                Output::HostGone(name) => format!("-{name}"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_address_finds_its_interface_and_follows_it() {
        let mut manager = HostManager::default();
        let a = host("a", HostTarget::ByAddress, &["192.0.2.1", "fd00::1"]);
        manager.want(&"a".into(), Some(&a));
        assert!(manager.resolve(&interfaces(&[("eth0", &["192.0.2.9"])])).is_empty());
        let one = interfaces(&[("eth0", &["192.0.2.1", "fd00::1"])]);
        assert_eq!(bound(&manager.resolve(&one)), ["a=eth0"]);
        assert!(manager.resolve(&one).is_empty(), "no change, no output");
        let two = interfaces(&[("eth0", &["192.0.2.1"]), ("eth1", &["fd00::1"])]);
        assert_eq!(bound(&manager.resolve(&two)), ["a%eth0=eth0", "a%eth1=eth1", "-a"]);
        manager.want(&"a".into(), None);
        assert_eq!(bound(&manager.resolve(&two)), ["-a%eth0", "-a%eth1"]);
    }

    #[test]
    fn a_name_comes_before_an_address_and_the_first_name_wins() {
        let mut manager = HostManager::default();
        let eth0 = || HostTarget::Iface("eth0".parse().unwrap());
        for (name, target) in [
            ("all", HostTarget::All),
            ("by-address", HostTarget::ByAddress),
            ("named", eth0()),
            ("zweiter", eth0()),
        ] {
            manager.want(&name.into(), Some(&host(name, target, &["192.0.2.1"])));
        }
        let here = interfaces(&[("eth0", &["192.0.2.1"])]);
        assert_eq!(bound(&manager.resolve(&here)), ["all=All", "named=eth0"]);
        manager.want(&"named".into(), None);
        assert_eq!(bound(&manager.resolve(&here)), ["zweiter=eth0", "-named"]);
        manager.want(&"zweiter".into(), None);
        assert_eq!(bound(&manager.resolve(&here)), ["by-address=eth0", "-zweiter"]);
    }
}
