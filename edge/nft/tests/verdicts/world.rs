//! The cables of `clusters::layout` for node `n0`: its kernel, and the bare ends of its interfaces.
//!
//! Nothing but the node has a network stack. A packet is put on the wire that its sender would use,
//! and looked for at the end of every other wire and among what the node itself received. A frame
//! that crosses a bridge tells when everything before it has arrived: one processor takes all
//! frames, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use clusters::layout::{self, INTERFACES};
use model::Protocol;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use policy::Packet;
use testkit::{Netns, RawIp, Wire};

use crate::bytes;

/// Pods that are on the node.
pub(crate) const LOCAL: u16 = 4;
/// Less than the kernel keeps waiting for a processor.
const BURST: usize = 128;
const PROTOCOLS: [Protocol; 7] = [
    Protocol::TCP,
    Protocol::UDP,
    Protocol::SCTP,
    Protocol::UDPLITE,
    Protocol::ICMP,
    Protocol::ICMPV6,
    Protocol(99),
];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Where a packet enters or leaves the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Pod(u16),
    Interface(usize),
    Host,
}

/// The place of an address, as the cables are. Those of other machines are behind an interface.
pub(crate) fn place(address: IpAddr) -> Option<Place> {
    let pod = (0..LOCAL).find(|p| layout::pod_addresses(*p).contains(&address));
    let own = (0..INTERFACES.len()).any(|i| layout::node_addresses(0, i).contains(&address));
    pod.map(Place::Pod).or_else(|| own.then_some(Place::Host))
}

/// The way of a packet through the node: in and out.
pub(crate) fn way(packet: &Packet) -> (Place, Place) {
    let ends = [packet.source, packet.destination];
    let own = |i: &usize| ends.iter().any(|e| layout::node_addresses(0, *i).contains(e));
    let interface = Place::Interface((0..INTERFACES.len()).find(own).unwrap_or(0));
    let [from, to] = ends.map(|e| place(e).unwrap_or(interface));
    (from, to)
}

pub(crate) struct World {
    pub(crate) node: Netns,
    wires: BTreeMap<Place, Wire>,
    bell: [Wire; 2],
    receivers: Vec<(bool, Protocol, RawIp)>,
    senders: BTreeMap<(bool, Option<usize>), RawIp>,
    next: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        pin();
        let (node, outside) = (Netns::new(), Netns::new());
        lay(&node, &outside);
        let places = (0..LOCAL).map(Place::Pod).chain((0..2).map(Place::Interface));
        let open = |place| {
            let name = match place {
                Place::Pod(p) => format!("p{p}"),
                Place::Interface(i) => format!("o{i}"),
                Place::Host => unreachable!("the host has sockets"),
            };
            (place, outside.run(|| Wire::open(&name)))
        };
        let wires = places.map(open).collect();
        let bell = ["ring", "heard"].map(|name| outside.run(|| Wire::open(name)));
        let receivers = [false, true].into_iter().flat_map(|v6| PROTOCOLS.map(|p| (v6, p)));
        let receivers =
            receivers.filter(|(v6, p)| *p != if *v6 { Protocol::ICMP } else { Protocol::ICMPV6 });
        let receivers =
            receivers.map(|(v6, p)| (v6, p, node.run(|| RawIp::receiver(v6, p.0)))).collect();
        let ways = [None, Some(0), Some(1)];
        let senders = [false, true].into_iter().flat_map(|v6| ways.map(|i| (v6, i)));
        let senders = senders.map(|(v6, interface)| {
            let name = interface.map(|i: usize| INTERFACES[i]);
            ((v6, interface), node.run(|| RawIp::sender(v6, name)))
        });
        let senders = senders.collect();
        Self { node, wires, bell, receivers, senders, next: 0x5a00_0000 }
    }

    /// Which of the packets arrive at the end of their way.
    ///
    /// # Panics
    /// If one arrives elsewhere, or twice.
    pub(crate) fn passes(&mut self, packets: &[Packet]) -> Vec<bool> {
        let mut arrived = Vec::with_capacity(packets.len());
        for burst in packets.chunks(BURST) {
            let first = self.next;
            self.next += burst.len() as u32;
            for (packet, id) in burst.iter().zip(first..) {
                self.send(packet, id);
            }
            self.settle();
            let seen = self.collect();
            for (packet, id) in burst.iter().zip(first..) {
                let (_, to) = way(packet);
                let at: BTreeSet<Place> =
                    seen.iter().filter(|(_, seen)| *seen == id).map(|(place, _)| *place).collect();
                assert!(at.iter().all(|p| *p == to), "{packet:?} arrived at {at:?}, not {to:?}");
                arrived.push(!at.is_empty());
            }
        }
        arrived
    }

    fn send(&self, packet: &Packet, id: u32) {
        let v6 = packet.source.is_ipv6();
        let sent = as_sent(packet);
        match way(packet) {
            (Place::Host, to) => {
                let by = match to {
                    Place::Interface(i) if packet.original.is_none() => Some(i),
                    _ => None,
                };
                self.senders[&(v6, by)].send(sent.destination, &bytes::ip(&sent, id));
            }
            (from, _) => self.wires[&from].send(&bytes::frame(NODE_MAC, &sent, id)),
        }
    }

    fn settle(&self) {
        let frame = [&[2, 0, 0, 0, 0, 0xbb][..], &[2, 0, 0, 0, 0, 0xbc], &[0x88, 0xb5], &[0; 46]];
        self.bell[0].send(&frame.concat());
        let mut buffer = [0; 2048];
        loop {
            assert!(self.bell[1].wait(Duration::from_secs(5)), "the last frame never came");
            while let Some(frame) = self.bell[1].receive(&mut buffer) {
                if frame.get(12..14) == Some(&[0x88, 0xb5]) {
                    return;
                }
            }
        }
    }

    fn collect(&self) -> Vec<(Place, u32)> {
        let mut seen = Vec::new();
        let mut buffer = [0; 2048];
        for (place, wire) in &self.wires {
            while let Some(frame) = wire.receive(&mut buffer) {
                seen.extend(bytes::id_in_frame(frame).map(|id| (*place, id)));
            }
        }
        for (v6, protocol, socket) in &self.receivers {
            while let Some(packet) = socket.receive(&mut buffer) {
                let id = if *v6 {
                    bytes::id_in_transport(*protocol, packet)
                } else {
                    bytes::id_in_ipv4(packet)
                };
                seen.extend(id.map(|id| (Place::Host, id)));
            }
        }
        seen
    }
}

/// Before its destination is translated.
fn as_sent(packet: &Packet) -> Packet {
    let (destination, destination_port) =
        packet.original.unwrap_or((packet.destination, packet.destination_port));
    Packet { destination, destination_port, original: None, ..*packet }
}

/// Translates what is sent to services, as it arrives and as it leaves.
fn services() -> String {
    let (mut addresses, mut ports) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for end in layout::ends() {
        let (family, service) = (usize::from(end.is_ipv6()), layout::service(end));
        addresses[family].push(format!("{service} : {end}"));
        ports[family].extend(
            layout::service_ports().map(|(port, to)| format!("{service} . {port} : {end} . {to}")),
        );
    }
    let mut text = "table inet services {\n".to_owned();
    for (i, family) in ["ipv4", "ipv6"].iter().enumerate() {
        let (addresses, ports) = (addresses[i].join(", "), ports[i].join(", "));
        let _ = write!(
            text,
            "map {family} {{ type {family}_addr : {family}_addr; elements = {{ {addresses} }}; }}
             map {family}-ports {{
               type {family}_addr . inet_service : {family}_addr . inet_service
               elements = {{ {ports} }}
             }}\n"
        );
    }
    for hook in ["prerouting", "output"] {
        let _ = write!(
            text,
            "chain {hook} {{
               type nat hook {hook} priority -100
               ip protocol {{ tcp, udp, sctp }} dnat ip to ip daddr . th dport map @ipv4-ports
               ip6 nexthdr {{ tcp, udp, sctp }} dnat ip6 to ip6 daddr . th dport map @ipv6-ports
               icmp type echo-request dnat ip to ip daddr map @ipv4
               icmpv6 type echo-request dnat ip6 to ip6 daddr map @ipv6
             }}\n"
        );
    }
    text + "}\n"
}

/// One processor, or the frames overtake each other.
fn pin() {
    let this = Pid::from_raw(0);
    let ours = sched_getaffinity(this).expect("own processors can be asked for");
    let any = (0..CpuSet::count()).find(|cpu| ours.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(any.expect("this runs somewhere")).expect("a number that was read");
    sched_setaffinity(this, &one).expect("an own processor");
}

/// The node answers nothing, so that every flow stays new to connection tracking.
fn lay(node: &Netns, outside: &Netns) {
    outside.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
           net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
           net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1 \
           net.ipv4.conf.all.accept_local=1
         nft 'table inet answers {
           chain out {
             type filter hook output priority -400
             tcp flags & rst == rst drop
             icmp type { destination-unreachable, timestamp-reply } drop
             icmpv6 type destination-unreachable drop
           }
           chain tracked { type filter hook output priority 0; ct state new accept; }
         }'
         sysctl -qw net.netfilter.nf_conntrack_checksum=0");
    node.sh(&format!("nft '{}'", services()));
    let path = outside.path();
    let cable = |name: &str, peer: &str| {
        node.sh(&format!(
            "ip link add {name} type veth peer name {peer} netns {}
             ip link set {name} address 02:00:00:00:00:01 up
             sysctl -qw net.ipv4.conf.{name}.rp_filter=0",
            path.display()
        ));
        outside.sh(&format!("ip link set {peer} up"));
    };
    node.sh("ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             ip link set br0 up");
    for peer in ["ring", "heard"] {
        cable(&format!("b{peer}"), peer);
        node.sh(&format!("ip link set b{peer} master br0"));
    }
    for (i, name) in INTERFACES.iter().enumerate() {
        cable(name, &format!("o{i}"));
        node.sh(&addresses(i, name));
    }
    for pod in 0..LOCAL {
        let name = layout::pod_interface(pod);
        cable(&name, &format!("p{pod}"));
        for address in layout::pod_addresses(pod) {
            let route = format!("ip route add {address} dev {name}\n");
            node.sh(&(route + &neighbour(address, &name)));
        }
    }
}

fn neighbour(address: impl std::fmt::Display, interface: &str) -> String {
    format!("ip neigh add {address} lladdr 02:00:00:00:00:fe dev {interface} nud permanent\n")
}

/// Own addresses, and a way to everybody else: out of the first interface, unless bound to another.
fn addresses(i: usize, name: &str) -> String {
    let metric = i + 1;
    let one = |own: IpAddr| {
        let (gateway, flag) = match own {
            IpAddr::V4(_) => (format!("172.18.{i}.254"), ""),
            IpAddr::V6(_) => (format!("fd18::{i}:fe"), "nodad"),
        };
        let known = neighbour(&gateway, name);
        format!(
            "ip addr add {own} dev {name} {flag}; {known}
             ip route add default via {gateway} dev {name} onlink metric {metric}\n"
        )
    };
    layout::node_addresses(0, i).into_iter().map(one).collect()
}
