//! The wires: a hub namespace with a bridge, a namespace per node on it, and hosts outside.

use anyhow::Result;

use crate::netns;
use crate::state::{BASTION, HUB, STRANGER, Spec, State};

/// Makes every namespace and wire that a sandbox starts with.
pub(crate) fn build(state: &State, spec: &Spec) -> Result<()> {
    let hub = state.netns("hub");
    netns::add(&hub)?;
    let mut lines = vec![
        "link set lo up".to_owned(),
        "link add br0 type bridge".to_owned(),
        format!("addr add {HUB}/24 dev br0"),
        "addr add fd00::1/64 dev br0 nodad".to_owned(),
        "link set br0 up".to_owned(),
    ];
    let nodes = spec.node_names();
    for (i, node) in nodes.iter().enumerate() {
        let name = state.netns(node);
        netns::add(&name)?;
        lines.push(format!("link add n{i} type veth peer name eth0 netns {name}"));
        lines.push(format!("link set n{i} master br0 up"));
    }
    for (host, address) in outside() {
        let name = state.netns(host);
        netns::add(&name)?;
        lines.push(format!("link add {host} type veth peer name eth0 netns {name}"));
        lines.push(format!("addr add {}/24 dev {host}", gateway(address)));
        lines.push(format!("link set {host} up"));
    }
    netns::batch(&hub, &lines)?;
    netns::inside(&hub, || {
        write("/proc/sys/net/ipv4/ip_forward", "1")?;
        write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
    })?;
    for (i, node) in nodes.iter().enumerate() {
        let index = u8::try_from(i)?;
        let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
        for address in spec.node_addresses(index) {
            let length = if address.is_ipv4() { 24 } else { 64 };
            lines.push(format!("addr add {address}/{length} dev eth0 nodad"));
        }
        lines.push(format!("route add default via {HUB}"));
        if spec.dual_stack {
            lines.push("route add ::/0 via fd00::1".to_owned());
        }
        netns::batch(&state.netns(node), &lines)?;
    }
    for (host, address) in outside() {
        let lines = [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {address}/24 dev eth0"),
            format!("route add default via {}", gateway(address)),
        ];
        netns::batch(&state.netns(host), &lines)?;
    }
    Ok(())
}

/// Hosts outside the cluster.
pub(crate) fn outside() -> [(&'static str, std::net::Ipv4Addr); 2] {
    [("bastion", BASTION), ("stranger", STRANGER)]
}

fn gateway(address: std::net::Ipv4Addr) -> std::net::Ipv4Addr {
    let [a, b, c, _] = address.octets();
    std::net::Ipv4Addr::new(a, b, c, 1)
}

fn write(path: &str, value: &str) -> Result<()> {
    Ok(std::fs::write(path, value)?)
}
