//! The driver against a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use model::{InSync, IpVersion, NextHop, Tunnel, TunnelEnd};
use netlink::{Alias, Settings, Socket, Wire, wire_pod};
use route::Driver;
use testkit::{Netns, Node, Server, Topology, in_netns, out, sh, tcp_reply, try_sh};

const WAIT: Duration = Duration::from_secs(2);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn pod_iface() {
    sh("ip link add cali1 type veth peer name c1; ip link set c1 up; ip link set cali1 up");
}

fn link(iface: &str) -> NextHop {
    NextHop::Link(iface.parse().unwrap())
}

fn apply(driver: &mut Driver) -> bool {
    let in_sync = InSync::for_tests();
    driver.poll().unwrap();
    let applied = driver.apply(Some(&in_sync)).unwrap();
    assert_eq!(applied.refused, []);
    applied.changed
}

fn routes() -> String {
    out(
        "ip route show; ip -6 route show; ip route show type blackhole; ip -6 route show type blackhole",
    )
}

#[test]
fn a_restart_adopts_what_is_right_and_sweeps_only_our_orphans_and_only_in_sync() {
    in_netns(|| {
        pod_iface();
        sh("ip link add eth0 type veth peer name e1; ip link set eth0 up; ip link set e1 up
            ip addr add 192.0.2.1/24 dev eth0
            ip route add 10.9.0.0/16 via 192.0.2.9
            ip route add 10.8.0.0/16 via 192.0.2.9 proto static
            ip route add 10.65.0.9 dev cali1
            ip route add blackhole 10.65.3.0/26 proto 80
            ip -6 route add fd00:65::9 dev cali1
            ip route add 10.65.7.0/26 via 192.0.2.7 proto 80");
        let want = |driver: &mut Driver| {
            driver.want_route(net("10.65.0.2/32"), Some(link("cali1")));
            driver.want_route(net("fd00:65::2/128"), Some(link("cali1")));
            driver.want_route(net("10.65.0.0/26"), Some(NextHop::Blackhole));
            driver.want_route(net("fd00:65::/122"), Some(NextHop::Blackhole));
            driver.want_route(
                net("10.65.8.0/26"),
                Some(NextHop::Gateway("192.0.2.8".parse().unwrap())),
            );
        };
        let mut first = Driver::open().unwrap();
        want(&mut first);
        first.apply(None).unwrap();
        for orphan in ["10.65.0.9", "10.65.3.0/26", "10.65.7.0/26", "fd00:65::9"] {
            assert!(routes().contains(orphan), "{orphan} was swept before in-sync");
        }
        assert!(first.has_route(&net("10.65.0.2/32")) && !first.has_route(&net("10.65.0.9/32")));
        // What this run has wanted it may remove at any time.
        first.want_route(net("10.65.0.2/32"), None);
        first.apply(None).unwrap();
        assert!(!routes().contains("10.65.0.2"));
        first.want_route(net("10.65.0.2/32"), Some(link("cali1")));
        first.apply(None).unwrap();
        drop(first);

        let mut monitor = netlink::Monitor::open(&[netlink::monitor::Topic::Routes]).unwrap();
        let mut second = Driver::open().unwrap();
        want(&mut second);
        assert!(apply(&mut second), "the orphans");
        for event in monitor.drain().unwrap() {
            assert!(matches!(event, netlink::Event::RouteGone { .. }), "touched: {event:?}");
        }
        let left = routes();
        for orphan in ["10.65.0.9", "10.65.3.0/26", "10.65.7.0/26", "fd00:65::9"] {
            assert!(!left.contains(orphan), "{orphan} in {left}");
        }
        for kept in [
            "10.9.0.0/16",
            "10.8.0.0/16",
            "10.65.0.2 dev cali1 scope link metric 1024",
            "blackhole 10.65.0.0/26",
            "fd00:65::2",
            "blackhole fd00:65::/122",
            "10.65.8.0/26 via 192.0.2.8",
            "fe80::/64",
        ] {
            assert!(left.contains(kept), "{kept} in {left}");
        }
        assert!(!apply(&mut second), "nothing left to do");
    });
}

#[test]
fn changes_by_others_are_repaired() {
    in_netns(|| {
        pod_iface();
        let mut driver = Driver::open().unwrap();
        for dst in ["10.65.0.2/32", "fd00:65::2/128"] {
            driver.want_route(net(dst), Some(link("cali1")));
        }
        driver.want_route(net("10.65.0.0/26"), Some(NextHop::Blackhole));
        apply(&mut driver);
        let good = routes();
        for (what, vandalism) in [
            ("deleted", "ip route del 10.65.0.2"),
            ("deleted v6", "ip -6 route del fd00:65::2"),
            ("replaced", "ip route replace blackhole 10.65.0.2 metric 1024"),
            ("a stranger", "ip route add 10.65.0.77 dev cali1"),
            ("another metric", "ip route add 10.65.0.2 dev cali1 metric 5"),
            ("blackhole deleted", "ip route del blackhole 10.65.0.0/26"),
            ("flushed silently", "ip link set cali1 down; ip link set cali1 up"),
            (
                "interface replaced",
                "ip link del cali1; ip link add cali1 type veth peer name c1
                                    ip link set c1 up; ip link set cali1 up",
            ),
        ] {
            sh(vandalism);
            assert!(apply(&mut driver), "{what}: not noticed");
            let normal = |text: &str| {
                let lines = text.lines().filter(|l| !l.contains("fe80::/64"));
                let mut lines: Vec<_> = lines.map(str::trim).map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(normal(&routes()), normal(&good), "{what}");
            assert!(!apply(&mut driver), "{what}: not at rest");
        }
        sh("ip link set cali1 down");
        apply(&mut driver);
        assert!(!driver.has_route(&net("10.65.0.2/32")));
    });
}

#[test]
fn pods_that_come_and_go_cause_no_reading_back() {
    in_netns(|| {
        let mut driver = Driver::open().unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        driver.metrics().register(&mut registry);
        let mut host = Socket::open().unwrap();
        for round in 0..3 {
            let pod = Netns::new();
            let (iface, eth0) = ("cali1".parse().unwrap(), "eth0".parse().unwrap());
            let addresses = ["10.65.0.2".parse().unwrap(), "fd00:65::2".parse().unwrap()];
            let alias = Alias { container: "c".into(), network: "n".into(), pod_uid: "u".into() };
            let wire = Wire {
                host_iface: &iface,
                pod_iface: &eth0,
                netns: pod.as_fd(),
                settings: &Settings::open().unwrap(),
                addresses: &addresses,
                mtu: 1450,
                pod_mac: None,
                alias: &alias,
                forwarding: false,
            };
            wire_pod(&mut host, &wire).unwrap();
            for address in addresses {
                driver.want_route(IpNet::from(address), Some(link("cali1")));
            }
            apply(&mut driver);
            assert!(addresses.iter().all(|a| driver.has_route(&IpNet::from(*a))), "round {round}");
            netlink::unwire_pod(&mut host, &iface, Some("c")).unwrap();
            for address in addresses {
                driver.want_route(IpNet::from(address), None);
            }
            apply(&mut driver);
            assert!(!apply(&mut driver));
        }
        // The one of the start.
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("felix_route_table_resync_seconds_count 1"), "{text}");
        assert!(text.contains("felix_route_table_num_routes 0"), "{text}");
    });
}

#[test]
fn a_refused_route_stops_nothing_and_is_tried_again() {
    in_netns(|| {
        pod_iface();
        let mut driver = Driver::open().unwrap();
        let far = net("10.65.9.0/26");
        driver.want_route(far, Some(NextHop::Gateway("192.0.2.8".parse().unwrap())));
        driver.want_route(net("10.65.0.2/32"), Some(link("cali1")));
        driver.want_route(net("10.65.0.3/32"), Some(link("cali2")));
        let applied = driver.apply(None).unwrap();
        assert_eq!(applied.refused.len(), 1, "{applied:?}");
        assert_eq!(applied.refused[0].0, "route 10.65.9.0/26");
        assert!(driver.has_route(&net("10.65.0.2/32")));
        assert!(!driver.has_route(&net("10.65.0.3/32")), "waits for its interface");
        sh("ip link add eth0 type veth peer name cali2; ip link set eth0 up; ip link set cali2 up
            ip addr add 192.0.2.1/24 dev eth0");
        assert!(apply(&mut driver));
        assert!(driver.has_route(&far) && driver.has_route(&net("10.65.0.3/32")));
    });
}

#[test]
fn ten_thousand_routes() {
    in_netns(|| {
        pod_iface();
        let mut driver = Driver::open().unwrap();
        let dst = |i: u32| IpNet::from(IpAddr::from(std::net::Ipv4Addr::from(0x0a41_0000 + i)));
        (0..10_000).for_each(|i| driver.want_route(dst(i), Some(link("cali1"))));
        apply(&mut driver);
        assert_eq!(out("ip route show dev cali1").lines().count(), 10_000);
        driver.want_route(dst(77), None);
        assert!(apply(&mut driver));
        assert!(!apply(&mut driver), "our own echo is no change");
        drop(driver);
        let mut next = Driver::open().unwrap();
        assert!(apply(&mut next));
        assert_eq!(out("ip route show dev cali1").lines().count(), 0);
    });
}

const MAC: [[u8; 6]; 2] = [[0x66, 0, 0, 0, 0, 1], [0x66, 0, 0, 0, 0, 2]];

/// Tunnel address, block and pod of a node, by family.
fn plan(node: usize, version: IpVersion) -> (IpAddr, IpNet, IpAddr) {
    let parse = |text: String| text.parse().unwrap();
    match version {
        IpVersion::V4 => (
            parse(format!("10.65.{node}.0")),
            net(&format!("10.65.{node}.0/26")),
            parse(format!("10.65.{node}.5")),
        ),
        IpVersion::V6 => (
            parse(format!("fd00:65:{node}::")),
            net(&format!("fd00:65:{node}::/122")),
            parse(format!("fd00:65:{node}::5")),
        ),
    }
}

fn device(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "vxlan.calico",
        IpVersion::V6 => "vxlan-v6.calico",
    }
}

fn tunnel(node: &Node, number: usize, version: IpVersion) -> Tunnel {
    let own = |a: &IpAddr| IpVersion::of(*a) == version;
    Tunnel {
        iface: device(version).parse().unwrap(),
        vni: 4096,
        port: 4789,
        mtu: 1430,
        mac: MAC[number],
        local: node.addresses().into_iter().find(own).unwrap(),
        address: plan(number, version).0,
    }
}

/// What the node at `number` wants, the other being at `1 - number`.
fn want_node(driver: &mut Driver, t: &Topology, number: usize) {
    let other = 1 - number;
    for version in IpVersion::ALL {
        driver.want_tunnel(version, Some(tunnel(&t.nodes[number], number, version)));
        let (address, block, _) = plan(other, version);
        let parent = tunnel(&t.nodes[other], other, version).local;
        driver.want_tunnel_end(address, Some(TunnelEnd { mac: MAC[other], parent }));
        let hop = NextHop::Onlink(address, device(version).parse().unwrap());
        driver.want_route(block, Some(hop));
        let (_, own_block, pod) = plan(number, version);
        driver.want_route(own_block, Some(NextHop::Blackhole));
        driver.want_route(IpNet::from(pod), Some(link("cali00000000001")));
    }
}

fn wired(t: &Topology, number: usize) -> Netns {
    let pod = Netns::new();
    let addresses = IpVersion::ALL.map(|version| plan(number, version).2);
    t.nodes[number].netns.run(|| {
        let alias = Alias { container: "c".into(), network: "n".into(), pod_uid: "u".into() };
        wire_pod(
            &mut Socket::open().unwrap(),
            &Wire {
                host_iface: &"cali00000000001".parse().unwrap(),
                pod_iface: &"eth0".parse().unwrap(),
                netns: pod.as_fd(),
                settings: &Settings::open().unwrap(),
                addresses: &addresses,
                mtu: 1430,
                pod_mac: None,
                alias: &alias,
                forwarding: false,
            },
        )
        .unwrap();
    });
    pod
}

#[test]
fn pods_of_two_nodes_talk_through_vxlan_by_both_families() {
    let t = Topology::new(2, 1500);
    let pods = [wired(&t, 0), wired(&t, 1)];
    for number in [0, 1] {
        t.nodes[number].netns.run(|| {
            let mut driver = Driver::open().unwrap();
            want_node(&mut driver, &t, number);
            apply(&mut driver);
            assert!(!apply(&mut driver), "at rest");
        });
    }
    let _server = Server::start(&pods[1], 80, "two");
    let reach = |what: &str| {
        for version in IpVersion::ALL {
            let (address, _, pod) = plan(1, version);
            let reply = tcp_reply(&pods[0], (pod, 80), WAIT);
            assert_eq!(reply.as_deref(), Some("two"), "{what}: {pod}");
            let from_host = tcp_reply(&t.nodes[0].netns, (pod, 80), WAIT);
            assert_eq!(from_host.as_deref(), Some("two"), "{what}: host to {pod}");
            let _ = address;
        }
    };
    reach("fresh");
    t.nodes[0].netns.run(|| {
        // Unreachable addresses of our own block do not leave by the default route.
        let why = try_sh("ip route get 10.65.0.33").unwrap_err();
        assert!(why.contains("Invalid argument") || why.contains("unreachable"), "{why}");
        let before = out("ip -o link show vxlan.calico");
        let mut driver = Driver::open().unwrap();
        want_node(&mut driver, &t, 0);
        assert!(!apply(&mut driver), "a restart adopts all of it");
        for vandalism in [
            "ip link set vxlan.calico down",
            "ip link set vxlan.calico mtu 1300",
            "ip addr flush dev vxlan.calico",
            "ip neigh flush dev vxlan.calico nud permanent",
            "bridge fdb del 66:00:00:00:00:02 dev vxlan.calico dst 10.0.0.12",
            "bridge fdb replace 66:00:00:00:00:02 dev vxlan.calico dst 10.0.0.99",
            "ip -6 neigh del fd00:65:1:: dev vxlan-v6.calico",
        ] {
            sh(vandalism);
            assert!(apply(&mut driver), "{vandalism}: not noticed");
            reach(vandalism);
            while apply(&mut driver) {}
        }
        assert_eq!(out("ip -o link show vxlan.calico"), before, "the device was never made anew");
        sh("ip link del vxlan.calico; ip link del vxlan-v6.calico");
        apply(&mut driver);
        reach("devices deleted");
        // A wrong device is replaced.
        drop(driver);
        sh("ip link del vxlan.calico
            ip link add vxlan.calico type vxlan id 7 dstport 8472 local 10.0.0.11");
        let mut driver = Driver::open().unwrap();
        want_node(&mut driver, &t, 0);
        apply(&mut driver);
        reach("wrong device");
        // The end, first of one tunnel end, then of all.
        for version in IpVersion::ALL {
            let (address, block, _) = plan(1, version);
            driver.want_route(block, None);
            driver.want_tunnel_end(address, None);
        }
        apply(&mut driver);
        assert!(!out("bridge fdb show").contains("66:00:00:00:00:02"));
        assert!(!out("ip neigh show nud permanent").contains("66:00:00:00:00:02"));
        for version in IpVersion::ALL {
            driver.want_tunnel(version, None);
        }
        apply(&mut driver);
        assert!(!out("ip -o link").contains("vxlan"));
    });
}

#[test]
fn a_leftover_tunnel_waits_for_the_witness() {
    in_netns(|| {
        sh("ip link add vxlan.calico type vxlan id 4096 dstport 4789");
        let mut driver = Driver::open().unwrap();
        driver.apply(None).unwrap();
        assert!(out("ip -o link").contains("vxlan.calico"));
        assert!(apply(&mut driver));
        assert!(!out("ip -o link").contains("vxlan.calico"));
    });
}

#[test]
fn a_node_that_changes_its_tunnel_address_keeps_its_forwarding_entry() {
    in_netns(|| {
        sh("ip link add eth0 type veth peer name e1; ip link set eth0 up; ip link set e1 up
            ip addr add 192.0.2.1/24 dev eth0");
        for (first, second) in [("10.65.1.0", "10.65.2.0"), ("10.65.2.0", "10.65.1.0")] {
            let mut driver = Driver::open().unwrap();
            driver.want_tunnel(
                IpVersion::V4,
                Some(Tunnel {
                    iface: "vxlan.calico".parse().unwrap(),
                    vni: 4096,
                    port: 4789,
                    mtu: 1450,
                    mac: MAC[0],
                    local: "192.0.2.1".parse().unwrap(),
                    address: "10.65.0.0".parse().unwrap(),
                }),
            );
            let end = TunnelEnd { mac: MAC[1], parent: "192.0.2.2".parse().unwrap() };
            driver.want_tunnel_end(first.parse().unwrap(), Some(end));
            apply(&mut driver);
            driver.want_tunnel_end(second.parse().unwrap(), Some(end));
            driver.want_tunnel_end(first.parse().unwrap(), None);
            apply(&mut driver);
            assert!(out("bridge fdb show dev vxlan.calico").contains("66:00:00:00:00:02"));
            let neighbours = out("ip neigh show dev vxlan.calico nud permanent");
            assert!(neighbours.contains(second) && !neighbours.contains(first), "{neighbours}");
            while apply(&mut driver) {}
        }
    });
}
