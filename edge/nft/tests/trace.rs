//! Real packets, traced.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use model::Protocol;
use nft::{Fate, TracedFlow, TracedPacket, Tracer, Traces};
use testkit::{Netns, Server, tcp_reply};

const WAIT: Duration = Duration::from_millis(400);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn flow(destination: &str, port: u16) -> TracedFlow {
    TracedFlow {
        protocol: Protocol::TCP,
        source: address("192.0.2.9"),
        source_port: None,
        destination: address(destination),
        destination_port: port,
        icmp: None,
        original: None,
    }
}

/// A client, a node with a table of rules that somebody wrote, and a server behind it.
struct World {
    client: Netns,
    node: Netns,
    inside: Netns,
}

impl World {
    fn new() -> Self {
        let (client, node, inside) = (Netns::new(), Netns::new(), Netns::new());
        node.sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             ip link set lo up
             ip link add eth0 type veth peer name eth0 netns {}
             ip link add eth1 type veth peer name eth0 netns {}
             ip link set eth0 up; ip link set eth1 up
             ip addr add 192.0.2.1/24 dev eth0; ip addr add 198.51.100.1/24 dev eth1
             nft 'table ip rules {{
               chain inner {{ tcp dport 81 drop; tcp dport 80 accept; }}
               chain forward {{ type filter hook forward priority 0; counter jump inner; }}
               chain arriving {{
                 type nat hook prerouting priority -100
                 ip daddr 192.0.2.1 tcp dport 30080 dnat to 198.51.100.2:80
               }}
             }}'",
            client.path().display(),
            inside.path().display()
        ));
        client.sh("ip link set eth0 up; ip addr add 192.0.2.9/24 dev eth0
                   ip route add default via 192.0.2.1");
        inside.sh("ip link set eth0 up; ip addr add 198.51.100.2/24 dev eth0
                   ip route add default via 198.51.100.1");
        Self { client, node, inside }
    }

    fn ask(&self, to: &str, port: u16) -> Option<String> {
        tcp_reply(&self.client, SocketAddr::new(address(to), port), WAIT)
    }

    fn tables(&self) -> String {
        self.node.out("nft list tables")
    }
}

fn watch(tracer: Tracer, most: usize) -> Traces {
    tracer.watch(Instant::now() + Duration::from_millis(300), most).unwrap()
}

/// Chains in which rules of the table decided or counted.
fn chains(packet: &TracedPacket) -> Vec<&str> {
    let rules = packet.events.iter().filter(|e| e.handle.is_some() && e.table == "rules");
    rules.map(|e| e.chain.as_str()).collect()
}

#[test]
fn what_happens_to_real_packets_is_told_rule_by_rule() {
    let world = World::new();
    let _server = Server::start(&world.inside, 80, "inside");
    let tracer = world.node.run(|| Tracer::start(&[flow("198.51.100.2", 80)]).unwrap());
    assert_eq!(world.ask("198.51.100.2", 80).as_deref(), Some("inside"));
    assert_eq!(world.ask("198.51.100.2", 81), None);
    let Traces { packets, more } = watch(tracer, 100);
    assert!(!more && packets.len() > 3, "the whole connection, one way: {packets:#?}");
    for packet in &packets {
        assert_eq!(packet.fate(), Fate::Passed, "{packet:#?}");
        assert_eq!(chains(packet), ["forward", "inner"], "{packet:#?}");
        assert_eq!(packet.headers.len(), 1);
        assert_eq!(packet.headers[0].ports.map(|p| p.1), Some(80), "nothing else is traced");
    }
}

#[test]
fn a_drop_is_told_with_its_rule() {
    let world = World::new();
    let tracer = world.node.run(|| Tracer::start(&[flow("198.51.100.2", 81)]).unwrap());
    assert_eq!(world.ask("198.51.100.2", 81), None);
    let Traces { packets, .. } = watch(tracer, 100);
    let first = packets.first().expect("at least one attempt");
    assert_eq!(first.fate(), Fate::Ended("rules".to_owned(), None), "{first:#?}");
    assert_eq!(chains(first), ["forward", "inner"]);
    let listed = world.node.out("nft -a list chain ip rules inner");
    let rule = listed.lines().find(|l| l.contains("dport 81")).unwrap();
    let handle = first.events.last().unwrap().handle.unwrap();
    assert!(rule.ends_with(&format!("handle {handle}")), "{rule}, {handle}");
}

#[test]
fn what_is_translated_is_followed() {
    let world = World::new();
    let _server = Server::start(&world.inside, 80, "inside");
    for original in [None, Some((address("192.0.2.1"), 30080))] {
        let flow = TracedFlow { original, ..flow("198.51.100.2", 80) };
        let tracer = world.node.run(|| Tracer::start(&[flow]).unwrap());
        assert_eq!(world.ask("192.0.2.1", 30080).as_deref(), Some("inside"));
        let Traces { packets, .. } = watch(tracer, 100);
        let first = &packets[0];
        assert_eq!(first.fate(), Fate::Passed, "{first:#?}");
        let seen: Vec<_> =
            first.headers.iter().map(|h| (h.destination, h.ports.unwrap().1)).collect();
        let translated = (address("198.51.100.2"), 80);
        match original {
            Some(sent) => assert_eq!(seen, [sent, translated]),
            None => assert_eq!(seen, [translated], "seen from where it is translated"),
        }
    }
}

#[test]
fn tracing_ends_with_who_asked_for_it_and_is_bounded() {
    let world = World::new();
    let before = world.tables();
    let tracer = world.node.run(|| Tracer::start(&[flow("198.51.100.2", 81)]).unwrap());
    assert!(world.tables().contains("calico-trace-"), "{}", world.tables());
    drop(tracer);
    assert_eq!(world.tables(), before);
    let _server = Server::start(&world.inside, 80, "inside");
    let tracer = world.node.run(|| Tracer::start(&[flow("198.51.100.2", 80)]).unwrap());
    assert_eq!(world.ask("198.51.100.2", 80).as_deref(), Some("inside"));
    let Traces { packets, more } = watch(tracer, 2);
    assert!(more && packets.len() == 2, "{packets:#?}");
    assert_eq!(world.tables(), before);
}
