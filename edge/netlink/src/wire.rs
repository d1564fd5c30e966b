//! A pod's interface: made, found again after a restart, and removed.
//!
//! The host side carries who it belongs to in its alias, so the kernel itself is the journal from
//! which a restarted agent learns which containers have an interface.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{IfaceName, IpVersion};

use crate::link::{self, Ipv4Conf, VethPair};
use crate::netns::run_in;
use crate::route::{Hop, MAIN_TABLE, Proto, Route};
use crate::sysctl::Settings;
use crate::{Error, Link, Mac, Refusal, Request, Result, Socket, address, neighbour, route};

/// Hardware address of the host side of every pod.
pub const HOST_MAC: Mac = [0xee; 6];
/// The gateway that IPv4 pods see; the host answers for it by proxy ARP.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway that IPv6 pods see: the link-local address that follows from [`HOST_MAC`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

const ALIAS_MAX: usize = 255;
const ALIAS_MARK: &str = "calico";

/// What the host side of a pod's interface says about its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Alias {
    /// The container (sandbox) that it was made for.
    pub container: String,
    /// Name of the CNI network.
    pub network: String,
    /// UID of the pod.
    pub pod_uid: String,
}

impl Alias {
    /// Reads the text stored with an interface. None if it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some(ALIAS_MARK) {
            return None;
        }
        let mut value =
            |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        Some(Self {
            container: value("container")?,
            network: value("network")?,
            pod_uid: value("pod")?,
        })
    }

    fn check(&self) -> Result<String> {
        let text = self.to_string();
        let spaces = text.split_whitespace().count() != 4;
        if spaces || text.len() > ALIAS_MAX { Err(Error::BadAlias(text)) } else { Ok(text) }
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, network, pod_uid } = self;
        write!(f, "{ALIAS_MARK} container={container} network={network} pod={pod_uid}")
    }
}

/// What a pod's interface should be.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    /// Name of the host side.
    pub host_iface: &'a IfaceName,
    /// Name inside the pod, mostly `eth0`.
    pub pod_iface: &'a IfaceName,
    /// The pod's network namespace.
    pub netns: BorrowedFd<'a>,
    /// The host's interface settings.
    pub settings: &'a Settings,
    /// The pod's addresses, of either family.
    pub addresses: &'a [IpAddr],
    /// In bytes.
    pub mtu: u32,
    /// The pod's hardware address; the kernel invents one if none is given.
    pub pod_mac: Option<Mac>,
    /// Whose it is.
    pub alias: &'a Alias,
    /// The pod may forward packets (`allow_ip_forwarding`).
    pub forwarding: bool,
}

impl Wire<'_> {
    fn versions(&self) -> impl Iterator<Item = IpVersion> {
        IpVersion::ALL
            .into_iter()
            .filter(|v| self.addresses.iter().any(|a| IpVersion::of(*a) == *v))
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wired {
    /// Index of the host side.
    pub host_index: u32,
    /// Hardware address of the host side.
    pub host_mac: Mac,
    /// Hardware address inside the pod.
    pub pod_mac: Mac,
}

/// Makes the pod's interface, in place of one of the same name that an earlier container left:
/// [`make_pod`], [`raise_host`] and [`raise_pod`]. After an error nothing is left.
///
/// Routes on the host towards the pod are not made here: they follow the pod's policy (law 5).
pub fn wire_pod(host: &mut Socket, wire: &Wire<'_>) -> Result<Wired> {
    make_pod(host, wire)?;
    let raised = raise_host(host, wire).and_then(|host_index| {
        let pod_mac = raise_pod(wire)?;
        Ok(Wired { host_index, host_mac: HOST_MAC, pod_mac })
    });
    if raised.is_err() {
        // The first error is the one to report; what a failed removal leaves, the next ADD or the
        // DEL that follows a failed ADD removes.
        let _ = unwire_pod(host, wire.host_iface, None);
    }
    raised
}

/// Makes the pair, which says whose it is; both ends are down. Needs no addresses, so that it can
/// be done before they are known. After an error nothing is left.
pub fn make_pod(host: &mut Socket, wire: &Wire<'_>) -> Result<()> {
    let alias = wire.alias.check()?;
    if let Some(old) = link::get(host, wire.host_iface)? {
        host.call(&link::delete(old.index))?;
    }
    let pair = VethPair {
        name: wire.host_iface,
        mac: Some(HOST_MAC),
        peer_name: wire.pod_iface,
        peer_mac: wire.pod_mac,
        peer_netns: wire.netns,
        mtu: wire.mtu,
    };
    // Anti-spoofing is the rules' work, for both families alike and with the pod's allowed sources;
    // this only undoes what an administrator's wildcard setting may have done to new interfaces.
    let rp_filter = wire.settings.get(IpVersion::V4, "default", "rp_filter")?.parse().unwrap_or(0);
    let settings = [
        (Ipv4Conf::RouteLocalnet, 1),
        (Ipv4Conf::ProxyArp, 1),
        (Ipv4Conf::Forwarding, 1),
        (Ipv4Conf::RpFilter, rp_filter),
    ];
    // In one call, so that an interface without an owner never exists, not even after a kill -9.
    let own = link::change_named(wire.host_iface).alias(&alias).ipv4_conf(&settings);
    let make = [link::add_veth(&pair), own];
    let answers = host.batch(&make)?;
    if let Err(refusal) = &answers[0] {
        return Err(Error::Refused { what: make[0].what(), refusal: refusal.clone() });
    }
    let made = first_refusal(&make, answers).and_then(|()| {
        if wire.settings.has(IpVersion::V6) {
            wire.settings.set(IpVersion::V6, wire.host_iface.as_str(), "accept_ra", "0")?;
        }
        // A new namespace has the host's settings for IPv4.
        run_in(wire.netns, || forward(&Settings::open_apart(IpVersion::V4)?, IpVersion::V4, wire))?
    });
    if made.is_err() {
        let _ = unwire_pod(host, wire.host_iface, None); // as above
    }
    made
}

/// Removes the host side (and with it the pod's side) if it still belongs to `container`; any
/// container, if none is given. Says whether there was something to remove.
pub fn unwire_pod(host: &mut Socket, iface: &IfaceName, container: Option<&str>) -> Result<bool> {
    let Some(link) = link::get(host, iface)? else { return Ok(false) };
    let owner = link.alias.as_deref().and_then(Alias::parse);
    if container.is_some() && owner.map(|a| a.container).as_deref() != container {
        return Ok(false); // a late DEL must not touch the successor's interface (law 10)
    }
    match host.call(&link::delete(link.index)) {
        Ok(()) => Ok(true),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Every pod interface of ours in the namespace, with its owner.
pub fn wired_pods(host: &mut Socket) -> Result<Vec<(Link, Alias)>> {
    let ours = |link: Link| {
        let alias = link.alias.as_deref().and_then(Alias::parse)?;
        Some((link, alias))
    };
    Ok(link::list(host)?.into_iter().filter_map(ours).collect())
}

/// A pod's interface as the kernel remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The host side.
    pub link: Link,
    /// Whose it is.
    pub alias: Alias,
    /// Addresses that are routed to it.
    pub addresses: Vec<IpAddr>,
}

/// The journal that a restarted agent reads: every pod interface of ours, its owner, and the
/// addresses that it holds.
pub fn remembered_pods(host: &mut Socket) -> Result<Vec<Remembered>> {
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for version in IpVersion::ALL {
        for route in route::list(host, version, MAIN_TABLE)? {
            if let Hop::Link(index) = route.hop
                && route.dst.prefix_len() == route.dst.max_prefix_len()
            {
                addresses.entry(index).or_default().push(route.dst.addr());
            }
        }
    }
    let remember = |(link, alias): (Link, Alias)| {
        let addresses = addresses.remove(&link.index).unwrap_or_default();
        Remembered { link, alias, addresses }
    };
    Ok(wired_pods(host)?.into_iter().map(remember).collect())
}

/// What differs from `wire`, in words; empty if all is there.
pub fn check_pod(host: &mut Socket, wire: &Wire<'_>) -> Result<Vec<String>> {
    let Some(link) = link::get(host, wire.host_iface)? else {
        return Ok(vec![format!("interface {} is missing", wire.host_iface)]);
    };
    let mut wrong = Vec::new();
    if link.alias.as_deref().and_then(Alias::parse).as_ref() != Some(wire.alias) {
        wrong.push(format!("interface {} belongs to another container", wire.host_iface));
    }
    if !link.up {
        wrong.push(format!("interface {} is down", wire.host_iface));
    }
    run_in(wire.netns, || check_inside(wire, &mut wrong))??;
    Ok(wrong)
}

/// Sets the host side up: from here on routes can lead to it. Returns its index.
pub fn raise_host(host: &mut Socket, wire: &Wire<'_>) -> Result<u32> {
    let iface = wire.host_iface;
    let link = link::require(host, iface)?;
    if wire.versions().any(|v| v == IpVersion::V6) {
        let conf = [
            ("disable_ipv6", "0"),
            ("proxy_ndp", "1"),
            ("forwarding", "1"),
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
        ];
        for (key, value) in conf {
            wire.settings.set(IpVersion::V6, iface.as_str(), key, value)?;
        }
    }
    // Up last, because from here on the link-local address exists and packets flow.
    let requests = [neighbour::proxy_at_once(link.index), link::set_up(link.index)];
    let answers = host.batch(&requests)?;
    first_refusal(&requests, answers)?;
    Ok(link.index)
}

/// Gives the pod's side its addresses and routes and sets it up. Returns its hardware address.
pub fn raise_pod(wire: &Wire<'_>) -> Result<Mac> {
    run_in(wire.netns, || configure_pod(wire))?
}

/// Runs inside the pod's namespace.
fn configure_pod(wire: &Wire<'_>) -> Result<Mac> {
    if wire.versions().any(|v| v == IpVersion::V6) {
        let settings = Settings::open_apart(IpVersion::V6)?;
        for iface in ["all", "default", "lo"] {
            settings.set(IpVersion::V6, iface, "disable_ipv6", "0")?;
        }
        for (key, value) in [("disable_ipv6", "0"), ("accept_dad", "0"), ("dad_transmits", "0")] {
            settings.set(IpVersion::V6, wire.pod_iface.as_str(), key, value)?;
        }
        forward(&settings, IpVersion::V6, wire)?;
    }
    let mut socket = Socket::open()?;
    let link = link::require(&mut socket, wire.pod_iface)?;
    let loopback = link::list(&mut socket)?.into_iter().find(|l| l.loopback && !l.up);
    let mut requests: Vec<Request> = loopback.iter().map(|lo| link::set_up(lo.index)).collect();
    requests.extend(wire.addresses.iter().map(|a| address::add(link.index, IpNet::from(*a))));
    requests.push(link::set_up(link.index));
    for version in wire.versions() {
        requests.extend(pod_routes(link.index, version).iter().map(route::put));
        // The host's hardware address is known, so no pod waits for ARP, and a node without a
        // default route (which proxy ARP would need in order to answer) serves its pods too.
        requests.push(neighbour::put(link.index, gateway(version), HOST_MAC));
    }
    let answers = socket.batch(&requests)?;
    first_refusal(&requests, answers)?;
    link.mac.ok_or(Error::Malformed { what: "pod interface without a hardware address", len: 0 })
}

/// Whether the pod forwards packets; for IPv4 this is what `ip_forward` shows.
fn forward(settings: &Settings, version: IpVersion, wire: &Wire<'_>) -> Result<()> {
    settings.set(version, "all", "forwarding", if wire.forwarding { "1" } else { "0" })
}

fn gateway(version: IpVersion) -> IpAddr {
    match version {
        IpVersion::V4 => GATEWAY_V4.into(),
        IpVersion::V6 => GATEWAY_V6.into(),
    }
}

/// The routes inside a pod: the gateway on the link, and everything by the gateway.
fn pod_routes(index: u32, version: IpVersion) -> Vec<Route> {
    let route = |dst: IpNet, hop: Hop| Route {
        dst,
        table: MAIN_TABLE,
        metric: 0,
        proto: Proto::BOOT,
        hop,
        source: None,
    };
    let via = Hop::Gateway { via: gateway(version), index: Some(index), onlink: false };
    match version {
        IpVersion::V4 => vec![
            route(IpNet::from(gateway(version)), Hop::Link(index)),
            route(Ipv4Net::default().into(), via),
        ],
        // Link-local gateways need no route of their own.
        IpVersion::V6 => vec![Route {
            metric: 1024, // what the kernel makes of 0
            ..route(Ipv6Net::default().into(), via)
        }],
    }
}

fn first_refusal(
    requests: &[Request],
    answers: Vec<std::result::Result<(), Refusal>>,
) -> Result<()> {
    for (request, answer) in requests.iter().zip(answers) {
        answer.map_err(|refusal| Error::Refused { what: request.what(), refusal })?;
    }
    Ok(())
}

fn check_inside(wire: &Wire<'_>, wrong: &mut Vec<String>) -> Result<()> {
    let mut socket = Socket::open()?;
    let Some(link) = link::get(&mut socket, wire.pod_iface)? else {
        wrong.push(format!("interface {} is missing in the pod", wire.pod_iface));
        return Ok(());
    };
    let has = address::list(&mut socket)?;
    for want in wire.addresses {
        if !has.iter().any(|a| a.index == link.index && a.net.addr() == *want) {
            wrong.push(format!("address {want} is missing in the pod"));
        }
    }
    for version in wire.versions() {
        let has = route::list(&mut socket, version, MAIN_TABLE)?;
        for want in pod_routes(link.index, version) {
            if !has.iter().any(|r| r.dst == want.dst && r.hop == want.hop) {
                wrong.push(format!("route to {} is missing in the pod", want.dst));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_survives_being_stored() {
        let alias = Alias {
            container: "0123abcd".into(),
            network: "k8s-pod-network".into(),
            pod_uid: "11111111-2222-3333-4444-555555555555".into(),
        };
        assert_eq!(Alias::parse(&alias.check().unwrap()), Some(alias));
    }

    #[test]
    fn foreign_and_impossible_aliases() {
        for text in ["", "calico", "uplink to rack 7", "calico container=a network=b"] {
            assert_eq!(Alias::parse(text), None, "{text:?}");
        }
        let with = |network: String| Alias { container: "c".into(), network, pod_uid: "u".into() };
        assert!(with("two words".into()).check().is_err());
        assert!(with("x".repeat(250)).check().is_err());
        assert!(with(String::new()).check().is_ok());
    }
}
