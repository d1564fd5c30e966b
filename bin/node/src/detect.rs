//! The node's own addresses, as told or as found.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use model::IpVersion;

use crate::settings::Address;

/// Interfaces that are never the node's own.
const NOT_OURS: [&str; 14] = [
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "lo",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "vxlan",
    "nodelocaldns",
];

/// An interface with its addresses, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Iface {
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) nets: Vec<IpNet>,
}

/// Every interface of the host.
pub(crate) fn interfaces() -> Result<Vec<Iface>> {
    let mut socket = netlink::Socket::open()?;
    let addresses = netlink::address::list(&mut socket)?;
    let one = |link: netlink::Link| Iface {
        nets: addresses.iter().filter(|a| a.index == link.index).map(|a| a.net).collect(),
        name: link.name.to_string(),
        up: link.up,
    };
    Ok(netlink::link::list(&mut socket)?.into_iter().map(one).collect())
}

/// The address and subnet of one family.
///
/// # Errors
/// A method that makes no sense, or that finds nothing where something is wanted.
pub(crate) fn address(
    version: IpVersion,
    wanted: &Address,
    interfaces: &[Iface],
    node: &Node,
) -> Result<Option<IpNet>> {
    let found = match wanted {
        Address::None => return Ok(None),
        Address::Given(text) => Some(given(text, interfaces)?),
        Address::Detect(method) => detect(version, method, interfaces, node)?,
    };
    match found {
        Some(net) if IpVersion::of_net(&net) == version => Ok(Some(net)),
        Some(net) => bail!("{net} is not an address of family {version:?}"),
        None => bail!("no address of family {version:?} found by {wanted:?}"),
    }
}

/// With or without a prefix length; without, that of the interface that has it.
fn given(text: &str, interfaces: &[Iface]) -> Result<IpNet> {
    if let Ok(net) = text.parse() {
        return Ok(net);
    }
    let address: IpAddr = text.parse().with_context(|| format!("{text:?} is no address"))?;
    Ok(on_host(address, interfaces).unwrap_or_else(|| IpNet::from(address)))
}

fn on_host(address: IpAddr, interfaces: &[Iface]) -> Option<IpNet> {
    interfaces.iter().flat_map(|i| &i.nets).copied().find(|n| n.addr() == address)
}

fn detect(
    version: IpVersion,
    method: &str,
    interfaces: &[Iface],
    node: &Node,
) -> Result<Option<IpNet>> {
    let (name, argument) = method.split_once('=').unwrap_or((method, ""));
    let ours = |i: &&Iface| !NOT_OURS.iter().any(|p| i.name.starts_with(p));
    let usable = || interfaces.iter().filter(|i| i.up);
    match name {
        "first-found" => Ok(first(version, usable().filter(ours))),
        "interface" => {
            let patterns = patterns(argument)?;
            let named = usable().filter(|i| patterns.iter().any(|p| matches(p, &i.name)));
            Ok(first(version, named))
        }
        "skip-interface" => {
            let patterns = patterns(argument)?;
            let others = usable().filter(|i| !patterns.iter().any(|p| matches(p, &i.name)));
            Ok(first(version, others.filter(ours)))
        }
        "cidr" => {
            let nets: Result<Vec<IpNet>, _> =
                argument.split(',').map(|t| t.trim().parse()).collect();
            let nets = nets.with_context(|| format!("{method:?}: want a list of prefixes"))?;
            let inside = |net: &IpNet| nets.iter().any(|n| n.contains(&net.addr()));
            let all = usable().flat_map(|i| &i.nets).copied();
            Ok(all.filter(|n| IpVersion::of_net(n) == version).find(inside))
        }
        "can-reach" => reach(version, argument, interfaces),
        "kubernetes-internal-ip" => {
            let status = node.status.as_ref().and_then(|s| s.addresses.as_ref());
            let internal = status.into_iter().flatten().filter(|a| a.type_ == "InternalIP");
            let mut parsed = internal.filter_map(|a| a.address.parse::<IpAddr>().ok());
            let address = parsed.find(|a| IpVersion::of(*a) == version);
            Ok(address.map(|a| on_host(a, interfaces).unwrap_or_else(|| IpNet::from(a))))
        }
        _ => bail!(
            "detection method {method:?} is not known, want first-found, kubernetes-internal-ip, \
             interface=, skip-interface=, cidr= or can-reach="
        ),
    }
}

fn first<'a>(version: IpVersion, interfaces: impl Iterator<Item = &'a Iface>) -> Option<IpNet> {
    let global = |net: &&IpNet| {
        let link_local = match net.addr() {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        IpVersion::of_net(net) == version && !link_local && !net.addr().is_loopback()
    };
    interfaces.flat_map(|i| &i.nets).find(global).copied()
}

/// The source address that the kernel would use. Nothing is sent.
fn reach(version: IpVersion, target: &str, interfaces: &[Iface]) -> Result<Option<IpNet>> {
    let any = if version == IpVersion::V4 { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    let connected = socket.connect((target, 53));
    connected.with_context(|| format!("can-reach={target}: no route"))?;
    Ok(on_host(socket.local_addr()?.ip(), interfaces))
}

/// A list of names in which `.*` stands for anything; other expressions are refused rather than
/// misread.
fn patterns(text: &str) -> Result<Vec<Vec<String>>> {
    let one = |pattern: &str| {
        let pattern = pattern.trim().trim_start_matches('^').trim_end_matches('$');
        let parts: Vec<_> = pattern.split(".*").map(str::to_owned).collect();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@' | ':' | '.');
        let good = !pattern.is_empty() && parts.iter().all(|p| p.chars().all(plain));
        if good { Ok(parts) } else { bail!("{pattern:?}: want interface names, with .* at most") }
    };
    text.split(',').map(one).collect()
}

fn matches(parts: &[String], name: &str) -> bool {
    let [first, rest @ ..] = parts else { return false };
    let Some(mut left) = name.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for part in middle {
        let Some(at) = left.find(part.as_str()) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Iface> {
        let iface = |name: &str, up, nets: &[&str]| Iface {
            name: name.into(),
            up,
            nets: nets.iter().map(|n| n.parse().unwrap()).collect(),
        };
        vec![
            iface("lo", true, &["127.0.0.1/8", "::1/128"]),
            iface("docker0", true, &["172.17.0.1/16"]),
            iface("eth9", false, &["10.9.0.1/24"]),
            iface("eth0", true, &["169.254.3.3/16", "10.0.0.10/24", "fe80::1/64", "fd00::10/64"]),
            iface("eth1", true, &["10.1.0.10/24"]),
        ]
    }

    #[test]
    fn methods() {
        for (method, version, want) in [
            ("first-found", IpVersion::V4, Some("10.0.0.10/24")),
            ("first-found", IpVersion::V6, Some("fd00::10/64")),
            ("interface=eth1", IpVersion::V4, Some("10.1.0.10/24")),
            ("interface=x,eth.*", IpVersion::V4, Some("10.0.0.10/24")),
            ("skip-interface=eth0", IpVersion::V4, Some("10.1.0.10/24")),
            ("cidr=10.1.0.0/16,10.2.0.0/16", IpVersion::V4, Some("10.1.0.10/24")),
            ("interface=eth1", IpVersion::V6, None),
            ("interface=(eth|en)0", IpVersion::V4, None),
            ("guess", IpVersion::V4, None),
        ] {
            let wanted = Address::Detect(method.into());
            let found = address(version, &wanted, &host(), &Node::default());
            let found = found.ok().flatten().map(|n| n.to_string());
            assert_eq!(found.as_deref(), want, "{method} {version:?}");
        }
    }

    #[test]
    fn given_addresses() {
        for (text, want) in [
            ("10.0.0.10", "10.0.0.10/24"),
            ("10.0.0.10/16", "10.0.0.10/16"),
            ("9.9.9.9", "9.9.9.9/32"),
        ] {
            let found =
                address(IpVersion::V4, &Address::Given(text.into()), &host(), &Node::default());
            assert_eq!(found.unwrap().unwrap().to_string(), want);
        }
        let six = Address::Given("fd00::1".into());
        assert!(address(IpVersion::V4, &six, &host(), &Node::default()).is_err());
    }
}
