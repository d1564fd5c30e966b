//! Packets worth asking about.

use std::net::IpAddr;

use model::Protocol;
use model::policy::Icmp;
use policy::Packet;

use crate::dice::Dice;
use crate::layout::{self, INTERFACES, NODES, PODS};
use crate::rules::{PORTS, SOURCE_PORTS};

/// Every address of [`layout`].
fn ends() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = (0..PODS).flat_map(layout::pod_addresses).collect();
    for node in 0..NODES.len() {
        all.extend((0..INTERFACES.len()).flat_map(|i| layout::node_addresses(node, i)));
    }
    all.extend(layout::outside());
    all
}

fn is_outside(a: &IpAddr) -> bool {
    layout::outside().contains(a)
}

/// Pairs of ends whose packets meet some endpoint.
fn pairs() -> Vec<(IpAddr, IpAddr)> {
    let ends = ends();
    let mut all = Vec::new();
    for a in &ends {
        for b in ends.iter().filter(|b| *b != a && b.is_ipv4() == a.is_ipv4()) {
            if !(is_outside(a) && is_outside(b)) {
                all.push((*a, *b));
            }
        }
    }
    all
}

fn control(source: IpAddr, destination: IpAddr, kind: u8) -> Packet {
    let icmp = Some(Icmp { kind, code: Some(0) });
    Packet { icmp, ..Packet::ping(source, destination) }
}

fn without_ports(source: IpAddr, destination: IpAddr) -> Packet {
    let protocol = Protocol(99);
    let ping = Packet::ping(source, destination);
    Packet { protocol, icmp: None, ..ping }
}

fn random(d: &mut Dice, (source, destination): (IpAddr, IpAddr)) -> Packet {
    let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
    let protocols = [tcp, tcp, udp, udp, Protocol::SCTP, Protocol::SCTP, Protocol::UDPLITE];
    match d.roll(12) {
        0 => Packet::ping(source, destination),
        1 => {
            // Such that are no answers, and that connection tracking can place.
            let kinds: &[u8] = if source.is_ipv4() { &[13] } else { &[133, 134, 135, 136] };
            control(source, destination, d.pick(kinds))
        }
        // Connection tracking takes it for the answer to one the other way round.
        2 if source < destination => without_ports(source, destination),
        _ => {
            let mut p = Packet::to_port(source, destination, d.pick(&protocols), d.pick(&PORTS));
            p.source_port = d.pick(&SOURCE_PORTS);
            p
        }
    }
}

/// `count` random packets, each but once.
pub fn sample(d: &mut Dice, count: usize) -> Vec<Packet> {
    let pairs = pairs();
    let mut all: Vec<Packet> = Vec::with_capacity(count);
    while all.len() < count {
        let pair = d.pick(&pairs);
        let packet = random(d, pair);
        if !all.contains(&packet) {
            all.push(packet);
        }
    }
    all
}
