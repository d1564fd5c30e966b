//! Requests against a real kernel, checked with `ip`, `bridge` and real connections.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use model::{IfaceName, IpVersion};
use netlink::link::Vxlan;
use netlink::monitor::Topic;
use netlink::neighbour::Table;
use netlink::route::{Hop, MAIN_TABLE, Proto};
use netlink::wire::check_pod;
use netlink::{
    Alias, Event, Monitor, Route, Settings, Socket, Wire, address, link, neighbour, route, sysctl,
    unwire_pod, wire_pod, wired_pods,
};
use testkit::{Netns, Server, in_netns, out, sh, tcp_reply};

const WAIT: Duration = Duration::from_secs(2);

fn name(text: &str) -> IfaceName {
    text.parse().unwrap()
}

fn alias(container: &str) -> Alias {
    Alias { container: container.into(), network: "net".into(), pod_uid: "uid".into() }
}

fn via(index: u32, dst: &str, hop: Hop) -> Route {
    let dst = dst.parse().unwrap();
    let metric = 1024;
    let _ = index;
    Route { dst, table: MAIN_TABLE, metric, proto: Proto::CALICO, hop, source: None }
}

struct Pod {
    netns: Netns,
    iface: IfaceName,
    addresses: Vec<IpAddr>,
    alias: Alias,
    settings: Settings,
}

impl Pod {
    fn new(iface: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let settings = Settings::open().unwrap();
        let (iface, alias) = (name(iface), alias(iface));
        Self { netns: Netns::new(), iface, addresses, alias, settings }
    }

    fn wire<'a>(&'a self, eth0: &'a IfaceName) -> Wire<'a> {
        Wire {
            host_iface: &self.iface,
            pod_iface: eth0,
            netns: self.netns.as_fd(),
            settings: &self.settings,
            addresses: &self.addresses,
            mtu: 1450,
            pod_mac: None,
            alias: &self.alias,
            forwarding: false,
        }
    }
}

#[test]
fn a_wired_pod_reaches_another_through_the_node_by_both_families() {
    in_netns(|| {
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let eth0 = name("eth0");
        let mut host = Socket::open().unwrap();
        let pods = [
            Pod::new("cali00000000001", &["10.65.0.1", "fd00:65::1"]),
            Pod::new("cali00000000002", &["10.65.0.2", "fd00:65::2"]),
        ];
        for pod in &pods {
            let wired = wire_pod(&mut host, &pod.wire(&eth0)).unwrap();
            for address in &pod.addresses {
                let dst = IpNet::from(*address).to_string();
                let route = via(0, &dst, Hop::Link(wired.host_index));
                host.call(&route::put(&route)).unwrap();
            }
            let shown = pod.netns.out("ip -o link show eth0");
            let mac = wired.pod_mac.map(|b| format!("{b:02x}")).join(":");
            assert!(shown.contains(&mac), "{mac} in {shown}");
            assert!(shown.contains("mtu 1450"), "{shown}");
            assert_eq!(check_pod(&mut host, &pod.wire(&eth0)).unwrap(), Vec::<String>::new());
        }
        let server = Server::start(&pods[1].netns, 80, "two");
        for address in &pods[1].addresses {
            let reply = tcp_reply(&pods[0].netns, (*address, 80), WAIT);
            assert_eq!(reply.as_deref(), Some("two"), "{address}");
        }
        drop(server);

        for found in netlink::remembered_pods(&mut host).unwrap() {
            let pod = pods.iter().find(|p| p.alias == found.alias).unwrap();
            assert_eq!((&found.link.name, &found.addresses), (&pod.iface, &pod.addresses));
        }
        let mut owners: Vec<_> = wired_pods(&mut host).unwrap().into_iter().map(|p| p.1).collect();
        owners.sort();
        assert_eq!(owners, [alias("cali00000000001"), alias("cali00000000002")]);
        pods[0].netns.sh("ip route del default");
        let wrong = check_pod(&mut host, &pods[0].wire(&eth0)).unwrap();
        assert_eq!(wrong, ["route to 0.0.0.0/0 is missing in the pod"]);
    });
}

#[test]
fn settings_are_those_of_the_namespace_that_is_entered() {
    in_netns(|| {
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
        let before = mounts();
        let eth0 = name("eth0");
        let mut host = Socket::open().unwrap();
        let names = ["cali00000000003", "cali00000000004"];
        for (iface, forwarding, shown) in [(names[0], false, "0 0"), (names[1], true, "1 1")] {
            let pod = Pod::new(iface, &["10.65.0.3", "fd00:65::3"]);
            let wire = Wire { forwarding, ..pod.wire(&eth0) };
            wire_pod(&mut host, &wire).unwrap();
            let show = "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding";
            assert_eq!(pod.netns.out(show).split_whitespace().collect::<Vec<_>>().join(" "), shown);
            assert_eq!(out(show).split_whitespace().collect::<Vec<_>>(), ["1", "1"]);
        }
        for version in IpVersion::ALL {
            let common = Settings::open().unwrap();
            let apart = Settings::open_apart(version).unwrap();
            let name = "default";
            apart.set(version, name, "forwarding", "0").unwrap();
            assert_eq!(common.get(version, name, "forwarding").unwrap(), "0");
            assert_eq!(apart.get(version, name, "forwarding").unwrap(), "0");
            let error = apart.set(version, "eth9", "forwarding", "0").unwrap_err().to_string();
            let file = format!("/proc/sys/net/{}/conf/eth9/forwarding", sysctl::folder(version));
            assert!(error.contains(&file), "{error}");
            let other = IpVersion::ALL.into_iter().find(|v| *v != version).unwrap();
            apart.get(other, name, "forwarding").unwrap_err();
        }
        assert_eq!(mounts(), before);
    });
}

#[test]
fn a_late_removal_spares_the_successor() {
    in_netns(|| {
        let eth0 = name("eth0");
        let mut host = Socket::open().unwrap();
        let old = Pod::new("cali00000000001", &["10.65.0.1"]);
        wire_pod(&mut host, &old.wire(&eth0)).unwrap();
        let new = Pod { alias: alias("next"), ..Pod::new("cali00000000001", &["10.65.0.1"]) };
        wire_pod(&mut host, &new.wire(&eth0)).unwrap();
        assert!(!unwire_pod(&mut host, &old.iface, Some("cali00000000001")).unwrap());
        assert!(new.netns.try_sh("ip link show eth0").is_ok());
        assert!(unwire_pod(&mut host, &old.iface, Some("next")).unwrap());
        assert!(new.netns.try_sh("ip link show eth0").is_err());
        assert!(!unwire_pod(&mut host, &old.iface, Some("next")).unwrap(), "once is enough");
    });
}

#[test]
fn a_failed_wiring_leaves_nothing() {
    in_netns(|| {
        let eth0 = name("eth0");
        let mut host = Socket::open().unwrap();
        let pod = Pod::new("cali00000000001", &["10.65.0.1"]);
        pod.netns.sh("ip link add eth0 type veth peer name other");
        assert!(wire_pod(&mut host, &pod.wire(&eth0)).is_err());
        assert_eq!(link::get(&mut host, &pod.iface).unwrap(), None);
        let pod = Pod { alias: alias("two words"), ..pod };
        assert!(wire_pod(&mut host, &pod.wire(&eth0)).is_err());
        assert_eq!(link::get(&mut host, &pod.iface).unwrap(), None);
    });
}

#[test]
fn routes_are_put_replaced_read_and_deleted() {
    in_netns(|| {
        sh("ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up
            ip addr add 192.0.2.1/24 dev d0; ip addr add fd00::1/64 dev d0 nodad");
        let mut socket = Socket::open().unwrap();
        let d0 = link::require(&mut socket, &name("d0")).unwrap().index;
        let gateway =
            |a: &str, onlink| Hop::Gateway { via: a.parse().unwrap(), index: Some(d0), onlink };
        for version in IpVersion::ALL {
            let (dst, gw, far) = match version {
                IpVersion::V4 => ("10.65.0.0/26", "192.0.2.9", "10.99.0.1"),
                IpVersion::V6 => ("fd00:65::/122", "fd00::9", "fd00:99::1"),
            };
            for hop in [Hop::Link(d0), gateway(gw, false), gateway(far, true), Hop::Blackhole] {
                let want = via(d0, dst, hop);
                socket.call(&route::put(&want)).unwrap();
                let found = route::list(&mut socket, version, MAIN_TABLE).unwrap();
                let found: Vec<_> = found.into_iter().filter(|r| r.dst == want.dst).collect();
                assert_eq!(found, [want], "{}", out("ip route; ip -6 route"));
            }
            socket.call(&route::delete(&via(d0, dst, Hop::Blackhole))).unwrap();
            let again = socket.call(&route::delete(&via(d0, dst, Hop::Blackhole)));
            assert!(again.unwrap_err().is_missing());
        }
    });
}

#[test]
fn the_kernel_says_where_packets_go() {
    use netlink::route::{Leads, leads};
    in_netns(|| {
        sh("ip link set lo up; ip link add d0 type veth peer name d1
            ip link set d0 up; ip link set d1 up
            ip addr add 192.0.2.1/24 dev d0; ip addr add fd00::1/64 dev d0 nodad
            ip route add blackhole 10.9.0.0/16; ip route add blackhole fd09::/64");
        let mut socket = Socket::open().unwrap();
        let d0 = link::require(&mut socket, &name("d0")).unwrap().index;
        for (address, want) in [
            ("192.0.2.1", Leads::Here),
            ("fd00::1", Leads::Here),
            ("192.0.2.7", Leads::Out(d0)),
            ("fd00::7", Leads::Out(d0)),
            ("10.9.0.1", Leads::Nowhere),
            ("fd09::1", Leads::Nowhere),
            ("198.51.100.1", Leads::Nowhere),
            ("2001:db8::1", Leads::Nowhere),
        ] {
            assert_eq!(leads(&mut socket, address.parse().unwrap()).unwrap(), want, "{address}");
        }
    });
}

#[test]
fn one_refused_request_does_not_stop_its_batch() {
    in_netns(|| {
        sh("ip link add d0 type veth peer name d1; ip link set d0 up");
        let mut socket = Socket::open().unwrap();
        let d0 = link::require(&mut socket, &name("d0")).unwrap().index;
        let requests: Vec<_> = (0..2000u32)
            .map(|i| {
                let dst = format!("10.{}.{}.{}/32", 1 + i / 65536, (i >> 8) & 255, i & 255);
                let index = if i == 700 { 9999 } else { d0 };
                route::put(&via(d0, &dst, Hop::Link(index)))
            })
            .collect();
        let answers = socket.batch(&requests).unwrap();
        let refused: Vec<_> = (0..answers.len()).filter(|i| answers[*i].is_err()).collect();
        assert_eq!((answers.len(), refused), (2000, vec![700]));
        assert!(answers[700].as_ref().unwrap_err().is_missing());
        assert_eq!(out("ip route show proto 80").lines().count(), 1999);
    });
}

#[test]
fn a_vxlan_device_with_its_neighbours() {
    in_netns(|| {
        sh(
            "ip link add d0 type veth peer name d1; ip link set d0 up; ip addr add 192.0.2.1/24 dev d0",
        );
        let mut socket = Socket::open().unwrap();
        let want = Vxlan {
            vni: 4096,
            port: 4789,
            local: Some("192.0.2.1".parse().unwrap()),
            learning: false,
        };
        let (dev, mac) = (name("vxlan.calico"), [0x66, 1, 2, 3, 4, 5]);
        socket.call(&link::add_vxlan(&dev, mac, 1450, &want)).unwrap();
        let made = link::require(&mut socket, &dev).unwrap();
        assert_eq!((made.vxlan, made.mac, made.mtu), (Some(want), Some(mac), 1450));
        let shown = out("ip -d link show vxlan.calico");
        for part in ["vxlan id 4096 local 192.0.2.1", "dstport 4789", "nolearning"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        socket.call(&link::set_up(made.index).mtu(1400)).unwrap();
        let (far, parent) = ("10.65.1.0".parse().unwrap(), "192.0.2.2".parse().unwrap());
        socket.call(&neighbour::put(made.index, far, mac)).unwrap();
        socket.call(&neighbour::put_forwarding(made.index, mac, parent)).unwrap();
        let permanent = |socket: &mut Socket, table| {
            let all = neighbour::list(socket, made.index, table).unwrap();
            all.into_iter().filter(|n| n.permanent && n.mac == Some(mac)).collect::<Vec<_>>()
        };
        assert_eq!(permanent(&mut socket, Table::Neighbour)[0].address, Some(far));
        assert_eq!(permanent(&mut socket, Table::Forwarding)[0].address, Some(parent));
        assert!(out("ip neigh show dev vxlan.calico").contains("10.65.1.0 lladdr 66:01"));
        assert!(
            out("bridge fdb show dev vxlan.calico").contains("66:01:02:03:04:05 dst 192.0.2.2")
        );
        socket.call(&neighbour::delete(made.index, far)).unwrap();
        socket.call(&neighbour::delete_forwarding(made.index, mac, parent)).unwrap();
        assert_eq!(permanent(&mut socket, Table::Neighbour), []);
        assert_eq!(permanent(&mut socket, Table::Forwarding), []);
    });
}

#[test]
fn addresses_and_links_change_and_the_monitor_tells() {
    in_netns(|| {
        let mut monitor =
            Monitor::open(&[Topic::Links, Topic::Addresses, Topic::Routes, Topic::Neighbours])
                .unwrap();
        sh("ip link add d0 type veth peer name d1");
        let mut socket = Socket::open().unwrap();
        let d0 = link::require(&mut socket, &name("d0")).unwrap().index;
        socket.call(&link::change(d0).alias("hello").mtu(1300).rename(&name("e0"))).unwrap();
        socket.call(&link::set_up(d0)).unwrap();
        for net in ["192.0.2.1/24", "fd00::1/64"] {
            let net = net.parse().unwrap();
            socket.call(&address::add(d0, net)).unwrap();
            socket.call(&address::add(d0, net)).unwrap();
            let found = address::list(&mut socket).unwrap();
            assert_eq!(found.iter().filter(|a| a.index == d0 && a.net == net).count(), 1);
        }
        socket.call(&route::put(&via(d0, "10.65.0.0/26", Hop::Link(d0)))).unwrap();
        socket.call(&link::delete(d0)).unwrap();
        let events = monitor.drain().unwrap();
        let seen = |what: &str, test: &dyn Fn(&Event) -> bool| {
            assert!(events.iter().any(test), "{what}: {events:#?}");
        };
        seen("renamed", &|e| matches!(e, Event::Link(l) if l.name == name("e0") && l.mtu == 1300));
        seen("alias", &|e| matches!(e, Event::Link(l) if l.alias.as_deref() == Some("hello")));
        seen("address", &|e| matches!(e, Event::Address(a) if a.index == d0 && a.global));
        let own = socket.port();
        seen("route", &|e| matches!(e, Event::Route { by, .. } if *by == own));
        seen("gone", &|e| matches!(e, Event::LinkGone(i, _) if *i == d0));
        assert_eq!(monitor.drain().unwrap(), []);
    });
}

#[test]
fn connections_of_a_gone_address_are_forgotten() {
    in_netns(|| {
        sh("nft add table ip t; nft 'add chain ip t c { type filter hook input priority 0; }'
            nft add rule ip t c ct state new accept
            ip addr add 10.1.0.1/32 dev lo; ip addr add 10.1.0.2/32 dev lo; ip addr add 10.1.0.3/32 dev lo");
        let _silent = std::net::UdpSocket::bind("0.0.0.0:80").unwrap();
        for (from, to) in
            [("10.1.0.1", "10.1.0.2"), ("10.1.0.3", "10.1.0.1"), ("10.1.0.3", "10.1.0.2")]
        {
            let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(b"?", (to, 80)).unwrap();
        }
        let flows = || out("conntrack -L -p udp 2>/dev/null").lines().count();
        assert_eq!(flows(), 3);
        let mut conntrack = netlink::conntrack::Conntrack::open().unwrap();
        conntrack.forget(["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]).unwrap();
        assert_eq!(flows(), 1, "only the flow between the two others is left");
    });
}
