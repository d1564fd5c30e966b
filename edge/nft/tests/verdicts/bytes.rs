//! The specification's packets as bytes, each with a number to be known by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Protocol;
use policy::Packet;

const MAC: usize = 14;
const V4: usize = 20;
const V6: usize = 40;

/// From the IP header on.
pub(crate) fn ip(packet: &Packet, id: u32) -> Vec<u8> {
    let mut payload = transport(packet, id);
    checksum_transport(packet, &mut payload);
    let mut all = match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => v4(packet.protocol, from, to, payload.len()),
        (IpAddr::V6(from), IpAddr::V6(to)) => v6(packet.protocol, from, to, payload.len()),
        mixed => panic!("two families: {mixed:?}"),
    };
    all.extend(payload);
    all
}

/// As it comes out of a pod or a network card.
pub(crate) fn frame(to: [u8; 6], packet: &Packet, id: u32) -> Vec<u8> {
    let kind = if packet.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&to[..], &[2, 0, 0, 0, 0, 0xfe], &kind, &ip(packet, id)].concat()
}

/// The number of a packet in a frame, if it is one of ours.
pub(crate) fn id_in_frame(frame: &[u8]) -> Option<u32> {
    let payload = frame.get(MAC..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => id_in_ipv4(payload),
        [0x86, 0xdd] => id_in_transport(Protocol(*payload.get(6)?), payload.get(V6..)?),
        _ => None,
    }
}

/// The number of a packet that begins with its IPv4 header.
pub(crate) fn id_in_ipv4(packet: &[u8]) -> Option<u32> {
    id_in_transport(Protocol(*packet.get(9)?), packet.get(V4..)?)
}

/// The number of a packet without its IP header.
pub(crate) fn id_in_transport(protocol: Protocol, payload: &[u8]) -> Option<u32> {
    let at = place(protocol);
    let bytes = payload.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Where the number stands: a field of the header that may hold anything, else the payload.
fn place(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 4,
        Protocol::SCTP => 16,
        Protocol::ICMPV6 => 24,
        Protocol(99) => 0,
        _ => 8,
    }
}

fn transport(p: &Packet, id: u32) -> Vec<u8> {
    let ports = [p.source_port.to_be_bytes(), p.destination_port.to_be_bytes()].concat();
    let mut all = match p.protocol {
        Protocol::TCP => {
            let syn = [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0, 0, 0, 0, 0];
            [&ports[..], &syn].concat()
        }
        Protocol::UDP => [&ports[..], &[0, 12, 0, 0], &[0; 4]].concat(),
        Protocol::UDPLITE => [&ports[..], &[0, 0, 0, 0], &[0; 4]].concat(),
        Protocol::SCTP => {
            // INIT, 20 bytes: tag, window, streams out and in, first sequence number.
            let init = [1, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1];
            [&ports[..], &[0; 8], &init].concat()
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let icmp = p.icmp.expect("an ICMP packet has a type");
            // Long enough for a target address, and for the times of a timestamp request.
            [&[icmp.kind, icmp.code.unwrap_or(0), 0, 0][..], &[0; 28]].concat()
        }
        _ => vec![0; 8],
    };
    let at = place(p.protocol);
    all[at..at + 4].copy_from_slice(&id.to_be_bytes());
    if matches!(p.protocol, Protocol::ICMP | Protocol::ICMPV6) {
        // Flows of their own, by the identifier.
        all[4..6].copy_from_slice(&(id as u16).to_be_bytes());
    }
    all
}

fn v4(protocol: Protocol, from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let total = ((V4 + length) as u16).to_be_bytes();
    let first = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol.0, 0, 0];
    let mut all = [&first[..], &from.octets(), &to.octets()].concat();
    let sum = checksum(0, &all);
    all[10..12].copy_from_slice(&sum.to_be_bytes());
    all
}

fn v6(protocol: Protocol, from: Ipv6Addr, to: Ipv6Addr, length: usize) -> Vec<u8> {
    let length = (length as u16).to_be_bytes();
    let first = [0x60, 0, 0, 0, length[0], length[1], protocol.0, 255];
    [&first[..], &from.octets(), &to.octets()].concat()
}

fn checksum_transport(p: &Packet, payload: &mut [u8]) {
    let octets = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let addresses = [octets(p.source), octets(p.destination)].concat();
    let pseudo = sum(&addresses) + u32::from(p.protocol.0) + payload.len() as u32;
    let (at, start) = match p.protocol {
        Protocol::TCP => (16, pseudo),
        Protocol::UDP | Protocol::UDPLITE => (6, pseudo),
        Protocol::ICMP => (2, 0),
        Protocol::ICMPV6 => (2, pseudo),
        _ => return,
    };
    let sum = checksum(start, payload);
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn sum(data: &[u8]) -> u32 {
    data.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).copied().map_or(0, u32::from)).sum()
}

fn checksum(start: u32, data: &[u8]) -> u16 {
    let mut total = start + sum(data);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}
