//! Random rules.

use ipnet::IpNet;
use model::policy::{EntityMatch, Icmp, ServiceId};
use model::{Action, IpVersion, Labels, NamedPort, Port, Protocol, Rule};
use selector::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dice::Dice;

/// Destination ports of the packets. 1 and 65535 are the ends of the range.
pub(crate) const PORTS: [u16; 6] = [1, 80, 443, 480, 8080, 65535];
/// Source ports of the packets.
pub(crate) const SOURCE_PORTS: [u16; 3] = [30_000, 40_000, 40_500];
const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
const NAMES: [&str; 3] = ["web", "dns", "nobody"];
const NETS: [&str; 14] = [
    "10.1.0.0/29",
    "10.1.0.4/30",
    "10.1.0.2/32",
    "10.0.0.0/8",
    "203.0.113.0/24",
    "128.0.0.0/1",
    "0.0.0.0/0",
    "172.18.0.0/16",
    "fd01::/126",
    "fd01::2/128",
    "fd00::/8",
    "2001:db8::/32",
    "::/0",
    "fd18::1:0/112",
];

/// The service that rules name.
pub(crate) fn service() -> ServiceId {
    ServiceId { namespace: "ns".into(), name: "svc".into() }
}

pub(crate) fn labels(d: &mut Dice, keys: &[&str]) -> Labels {
    let mut map = BTreeMap::new();
    for key in keys {
        if d.one_in(2) {
            map.insert(Arc::from(*key), Arc::from(d.pick(&["x", "y"])));
        }
    }
    Arc::new(map)
}

pub(crate) fn selector(d: &mut Dice) -> Selector {
    let text = d.pick(&[
        "all()",
        "app == 'x'",
        "app != 'x'",
        "has(role)",
        "!has(role)",
        "role in {'x', 'y'} && app == 'y'",
        "pcns.team == 'x'",
        "app not in {'x'} || pcns.team == 'y'",
        "kind == 'host'",
        "kind != 'host'",
        "app == 'nobody'",
    ]);
    Selector::parse(text).expect("a literal selector")
}

pub(crate) fn net(d: &mut Dice) -> IpNet {
    d.pick(&NETS).parse().expect("a literal prefix")
}

pub(crate) fn nets(d: &mut Dice) -> Vec<IpNet> {
    let mut all = vec![net(d)];
    all.extend(d.some(2, net));
    if d.one_in(12) {
        // More than any limit on values of one match.
        all.extend((0..40).map(|i: u8| IpNet::from(std::net::IpAddr::from([10, 9, i, 1]))));
    }
    all
}

pub(crate) fn named_ports(d: &mut Dice) -> Vec<NamedPort> {
    d.some(3, |d| NamedPort {
        name: d.pick(&NAMES[..2]).into(),
        protocol: d.pick(&WITH_PORTS),
        port: d.pick(&PORTS),
    })
}

fn port(d: &mut Dice, of: &[u16]) -> Port {
    if d.one_in(3) {
        return Port::Named(d.pick(&NAMES).into());
    }
    let first = d.pick(of);
    Port::Range(first, first.saturating_add(d.pick(&[0, 0, 100, 400, u16::MAX])))
}

fn ports(d: &mut Dice, of: &[u16]) -> Vec<Port> {
    let mut all = vec![port(d, of)];
    all.extend(d.some(2, |d| port(d, of)));
    if d.one_in(12) {
        all.extend((1..40).map(|i| Port::Range(i * 20, i * 20 + (i % 3) * 10)));
    }
    all
}

fn entity(d: &mut Dice, ports_of: Option<&[u16]>) -> EntityMatch {
    let mut e = EntityMatch::default();
    if d.one_in(10) {
        e.service = Some(service());
        return e;
    }
    if d.one_in(3) {
        e.selector = Some(selector(d));
    }
    if d.one_in(6) {
        e.not_selector = Some(selector(d));
    }
    if d.one_in(5) {
        e.nets = nets(d);
    }
    if d.one_in(8) {
        e.not_nets = nets(d);
    }
    if let Some(of) = ports_of {
        if d.one_in(3) {
            e.ports = ports(d, of);
        }
        if d.one_in(8) {
            e.not_ports = ports(d, of);
        }
    }
    e
}

fn icmp(d: &mut Dice, protocol: Protocol) -> Icmp {
    let kinds = if protocol == Protocol::ICMP { [8, 13] } else { [128, 135] };
    Icmp { kind: d.pick(&kinds), code: d.pick(&[None, Some(0), Some(3)]) }
}

fn rule(d: &mut Dice, origin: u32) -> Rule {
    let allow = Action::Allow;
    let mut r = Rule::any(d.pick(&[allow, allow, allow, Action::Deny, Action::Log, Action::Pass]));
    r.origin = origin;
    match d.roll(8) {
        0 | 1 => {}
        2 => {
            let protocol = d.pick(&[Protocol::ICMP, Protocol::ICMPV6]);
            r.protocol = Some(protocol);
            match d.roll(3) {
                0 => r.icmp = Some(icmp(d, protocol)),
                1 => r.not_icmp = Some(icmp(d, protocol)),
                _ => {}
            }
        }
        3 => r.not_protocol = Some(d.pick(&[WITH_PORTS[0], WITH_PORTS[1], Protocol::ICMPV6])),
        4 => r.protocol = Some(d.pick(&[Protocol::UDPLITE, Protocol(99)])),
        _ => r.protocol = Some(d.pick(&WITH_PORTS)),
    }
    if d.one_in(8) {
        r.ip_version = Some(d.pick(&IpVersion::ALL));
    }
    let with_ports = r.protocol.is_some_and(Protocol::has_ports);
    let from_ports = with_ports && d.one_in(4);
    r.source = entity(d, from_ports.then_some(&SOURCE_PORTS));
    // Named ports of the sources, and ports without a protocol: both are legal, and both are rare.
    let any_protocol = r.protocol.is_none() && r.not_protocol.is_none() && d.one_in(6);
    r.destination = entity(d, (with_ports || any_protocol).then_some(&PORTS));
    r
}

pub(crate) fn rules(d: &mut Dice) -> Vec<Rule> {
    let count = d.roll(5) as u32;
    (0..count).map(|i| rule(d, i)).collect()
}
