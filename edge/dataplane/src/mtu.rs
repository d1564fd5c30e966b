//! Packet sizes: what the underlay carries, less what encapsulation adds.

use std::collections::BTreeMap;

use model::output::Encap;
use model::{HostInterface, IfaceName, IpVersion};

/// When no interface of the underlay can be found.
pub const FALLBACK: u32 = 1460;

/// Names of interfaces that carry traffic between nodes: Ethernet, wireless, cellular, serial and
/// InfiniBand ones, under kernel (`eth0`) and predictable (`enp3s0`) names.
fn is_underlay(name: &str) -> bool {
    let predictable = ["en", "wl", "ww", "sl", "ib"].iter().any(|prefix| {
        let rest = name.strip_prefix(prefix);
        rest.and_then(|r| r.chars().next()).is_some_and(|c| "Pcopsvx".contains(c))
    });
    predictable || ["eth", "wlan", "wwan"].iter().any(|prefix| name.starts_with(prefix))
}

/// The smallest size that a running underlay interface carries.
pub fn underlay(interfaces: &BTreeMap<IfaceName, HostInterface>) -> u32 {
    interfaces
        .iter()
        .filter(|(name, interface)| interface.running && is_underlay(name.as_str()))
        .map(|(_, interface)| interface.mtu)
        .min()
        .unwrap_or(FALLBACK)
}

/// Bytes that encapsulation adds.
pub fn overhead(encap: Encap, version: IpVersion) -> u32 {
    match (encap, version) {
        (Encap::None, _) => 0,
        (Encap::Ipip, _) => 20,
        (Encap::Vxlan, IpVersion::V4) => 50,
        (Encap::Vxlan, IpVersion::V6) => 70,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_running_underlay_interface_counts() {
        let interface = |mtu, running| HostInterface { mtu, running, ..HostInterface::default() };
        for (what, given, want) in [
            ("none", vec![], FALLBACK),
            ("one", vec![("eth0", 1500, true)], 1500),
            ("the smaller", vec![("eth0", 1500, true), ("enp3s0", 1400, true)], 1400),
            ("not a dead one", vec![("eth0", 1500, true), ("eth1", 900, false)], 1500),
            ("not a bridge", vec![("docker0", 1300, true), ("ens5", 9001, true)], 9001),
            ("not a tunnel", vec![("vxlan.calico", 1450, true), ("entity", 1, true)], FALLBACK),
        ] {
            let all = given
                .into_iter()
                .map(|(name, mtu, running)| (name.parse().unwrap(), interface(mtu, running)))
                .collect();
            assert_eq!(underlay(&all), want, "{what}");
        }
    }
}
