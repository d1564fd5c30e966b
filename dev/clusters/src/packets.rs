//! Packets worth asking about.

use std::net::IpAddr;

use model::Protocol;
use model::policy::Icmp;
use policy::Packet;

use crate::dice::Dice;
use crate::layout;
use crate::rules::{PORTS, SOURCE_PORTS};

fn is_outside(a: &IpAddr) -> bool {
    layout::outside().contains(a)
}

/// Pairs of ends whose packets meet some endpoint.
fn pairs() -> Vec<(IpAddr, IpAddr)> {
    let ends = layout::ends();
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

/// The packet, sent to the service of its destination. Such come from other ports than the rest: else
/// their answers could not be told from those to packets that came straight.
fn by_service(packet: Packet) -> Packet {
    let service = layout::service(packet.destination);
    let echo = packet.icmp.is_some_and(|i| matches!(i.kind, 8 | 128));
    let with_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&packet.protocol);
    let port = layout::service_ports().find(|(_, target)| *target == packet.destination_port);
    let original = match port {
        Some((port, _)) if with_ports => Some((service, port)),
        _ => echo.then_some((service, 0)),
    };
    let source_port = packet.source_port + u16::from(original.is_some() && with_ports);
    Packet { original, source_port, ..packet }
}

/// `count` random packets, each but once.
pub fn sample(d: &mut Dice, count: usize) -> Vec<Packet> {
    let pairs = pairs();
    let mut all: Vec<Packet> = Vec::with_capacity(count);
    while all.len() < count {
        let pair = d.pick(&pairs);
        let mut packet = random(d, pair);
        if d.one_in(3) {
            packet = by_service(packet);
        }
        if !all.contains(&packet) {
            all.push(packet);
        }
    }
    all
}
