//! Living flows through a node whose policy changes: real sockets, the kernel's own table of flows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../nft/tests/scenario/mod.rs"]
mod scenario;
mod traffic;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flows::{Cut, Cutter};
use model::endpoint::HostTarget;
use model::output::{CalcRule, Output, SetKind};
use model::{Action, InSync, Protocol};
use nft::NftDriver;
use rules::{Rules, RulesConfig};
use scenario::{allow, deny, host, member, pod, policy, profile, rule, tier};
use testkit::Netns;
use traffic::{Datagrams, Stream};

const A: [&str; 2] = ["10.65.0.2", "fd00:65::2"];
const B: [&str; 2] = ["10.65.0.3", "fd00:65::3"];
const SERVICE: [&str; 2] = ["10.96.0.1", "fd00:96::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.9", "fd02::9"];
const NODE: [&str; 2] = ["192.0.2.1", "fd02::1"];
const SOON: Duration = Duration::from_secs(3);

/// A node with pods `a` and `b`, a service that leads to `b`, and a machine outside behind `eth0`.
struct World {
    node: Netns,
    a: Netns,
    b: Netns,
    outside: Netns,
    rules: Rules,
    driver: NftDriver,
    cutter: Cutter,
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

fn wire(node: &Netns, a: &Netns, b: &Netns, outside: &Netns) {
    node.sh(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
         ip link add eth0 type veth peer name eth0 netns {}
         ip link set eth0 up; ip addr add 192.0.2.1/24 dev eth0; ip addr add fd02::1/64 dev eth0 nodad
         ip route add default via 192.0.2.9; ip route add default via fd02::9
         nft 'table inet services {{
            chain arriving {{
              type nat hook prerouting priority -100
              ip daddr 10.96.0.1 dnat ip to 10.65.0.3
              ip6 daddr fd00:96::1 dnat ip6 to fd00:65::3
            }}
            chain tracked {{
              type filter hook prerouting priority -150
              ct mark set ct mark or 0x4000
            }}
         }}'",
        outside.path().display()
    ));
    outside.sh(
        "ip link set eth0 up; ip addr add 192.0.2.9/24 dev eth0; ip addr add fd02::9/64 dev eth0 nodad
         ip route add default via 192.0.2.1; ip route add default via fd02::1",
    );
    for (pod, n) in [(a, 2), (b, 3)] {
        node.sh(&format!(
            "ip link add cali{0} type veth peer name eth0 netns {1}; ip link set cali{0} up
             ip addr add 169.254.1.1/32 dev cali{0}; ip addr add fd00:65::1/128 dev cali{0} nodad
             ip route add 10.65.0.{n}/32 dev cali{0}; ip route add fd00:65::{n}/128 dev cali{0}",
            n - 1,
            pod.path().display()
        ));
        pod.sh(&format!(
            "ip link set eth0 up; ip addr add 10.65.0.{n}/32 dev eth0
             ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0
             ip addr add fd00:65::{n}/128 dev eth0 nodad; ip route add fd00:65::1 dev eth0
             ip route add default via fd00:65::1 dev eth0"
        ));
    }
}

impl World {
    /// Policy `web` is asked about what comes to `b`.
    fn new(web: Vec<CalcRule>) -> Self {
        let (node, a, b, outside) = (Netns::new(), Netns::new(), Netns::new(), Netns::new());
        wire(&node, &a, &b, &outside);
        let (rules, driver, cutter) = Self::agent(&node);
        let mut world = Self { node, a, b, outside, rules, driver, cutter };
        let cuts = world.apply(&[
            policy("web", web, vec![]),
            profile("kns.default", vec![allow()]),
            Output::Workload(Arc::new(pod("a", "cali1", &A, vec![]))),
            b_with(&["web"]),
            Output::InSync,
        ]);
        assert!(cuts.is_empty(), "{cuts:?}");
        world
    }

    fn agent(node: &Netns) -> (Rules, NftDriver, Cutter) {
        let rules = Rules::new(RulesConfig::default());
        let bit = rules.cut_bit().unwrap();
        node.run(|| (rules, NftDriver::open().unwrap(), Cutter::open(bit, || {}).unwrap()))
    }

    fn commit(&mut self, outputs: &[Output]) {
        self.rules.apply(outputs);
        let report = self.driver.apply(&mut self.rules, Some(&InSync::for_tests())).unwrap();
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    /// Until the flows have been looked at.
    fn apply(&mut self, outputs: &[Output]) -> Vec<Cut> {
        self.commit(outputs);
        self.look()
    }

    fn look(&mut self) -> Vec<Cut> {
        let (mut cuts, started) = (Vec::new(), Instant::now());
        loop {
            let (more, _) = self.cutter.poll(&mut self.rules);
            cuts.extend(more);
            if self.cutter.is_idle() {
                return cuts;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "it never looked");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn web(&mut self, rules: Vec<CalcRule>) -> Vec<Cut> {
        self.apply(&[policy("web", rules, vec![])])
    }

    fn marks(&self) -> String {
        let all = ["ipv4", "ipv6"].map(|f| self.node.out(&format!("conntrack -L -f {f} 2>&1")));
        all.concat()
    }
}

fn b_with(ingress: &[&str]) -> Output {
    let tiers = if ingress.is_empty() { vec![] } else { vec![tier("default", ingress, &[])] };
    Output::Workload(Arc::new(pod("b", "cali2", &B, tiers)))
}

#[test]
fn both_ends_of_tcp_are_reset_while_the_server_sends() {
    for (i, to) in B.into_iter().enumerate() {
        let mut world = World::new(vec![allow()]);
        let stream = Stream::open(&world.a, &world.b, at(to, 81), at(to, 81));
        stream.server_keeps_sending();
        stream.wait_for_bytes(10_000);
        let cuts = world.web(vec![deny()]);
        assert_eq!(cuts.len(), 1, "{cuts:?}");
        assert_eq!(cuts[0].endpoint.as_deref(), Some("default/b"));
        assert!(cuts[0].by.contains("NetworkPolicy default/web"), "{}", cuts[0].by);
        assert!(cuts[0].by.contains("rule 0"), "{}", cuts[0].by);
        assert_eq!(
            (cuts[0].flow.destination, cuts[0].flow.destination_port),
            (at(to, 81).ip(), 81)
        );
        assert_eq!(stream.ends(SOON), [true, true], "client and server, family {i}");
    }
}

#[test]
fn both_ends_of_tcp_are_reset_though_both_are_silent() {
    for to in B {
        let mut world = World::new(vec![allow()]);
        let stream = Stream::open(&world.a, &world.b, at(to, 81), at(to, 81));
        assert_eq!(world.web(vec![deny()]).len(), 1);
        assert_eq!(stream.ends(SOON), [true, true], "client and server of {to}");
    }
}

/// Through a service: the client knows another address than the server has.
#[test]
fn a_connection_through_a_service_is_judged_where_it_goes() {
    for (service, to) in SERVICE.into_iter().zip(B) {
        let mut world = World::new(vec![allow()]);
        let stream = Stream::open(&world.a, &world.b, at(service, 81), at(to, 81));
        // About the service's address nobody asks at the pod.
        let mut about_service = deny();
        about_service.destination.nets = SERVICE
            .map(|s| format!("{s}/{}", if s.contains(':') { 128 } else { 32 }).parse().unwrap())
            .to_vec();
        assert!(world.web(vec![about_service, allow()]).is_empty());
        stream.server_keeps_sending();
        stream.wait_for_bytes(10_000);
        let cuts = world.web(vec![deny()]);
        assert_eq!(cuts.len(), 1, "{cuts:?}");
        assert_eq!(cuts[0].flow.sent_to, at(service, 81).ip());
        assert_eq!(stream.ends(SOON), [true, true], "client and server of {service}");
    }
}

/// The server may send to whom it likes: without the mark its next packet would begin the flow anew.
#[test]
fn datagrams_end_both_ways_and_go_on_when_allowed_again() {
    for to in [B[0], B[1], SERVICE[0], SERVICE[1]] {
        let mut world = World::new(vec![allow()]);
        let server = if to.contains(':') { B[1] } else { B[0] };
        let flow = Datagrams::open(&world.a, &world.b, at(to, 5000), at(server, 5000));
        flow.wait_for_more(20);
        let cuts = world.web(vec![deny()]);
        assert_eq!(cuts.len(), 1, "{to}: {cuts:?}");
        flow.must_be_silent(Duration::from_millis(500));
        // It stays so for as long as both go on.
        assert!(world.apply(&[policy("other", vec![deny()], vec![])]).is_empty());
        flow.must_be_silent(Duration::from_millis(300));
        assert!(world.web(vec![allow()]).is_empty());
        flow.wait_for_more(20);
    }
}

/// Its packets are all asked about, so that it does not wait for the flows to be looked at again.
#[test]
fn a_flow_without_an_answer_meets_policy_at_once() {
    for to in B {
        let mut world = World::new(vec![allow()]);
        let open = |pod: &Netns| {
            let socket = pod.run(|| std::net::UdpSocket::bind((to_any(to), 5000))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        };
        let (client, server) = (open(&world.a), open(&world.b));
        let (there, here) = (at(to, 5000), at(if to == B[0] { A[0] } else { A[1] }, 5000));
        let arrives = |from: &std::net::UdpSocket, far, socket: &std::net::UdpSocket| {
            from.send_to(b"x", far).unwrap();
            socket.recv(&mut [0; 8]).is_ok()
        };
        assert!(arrives(&client, there, &server));
        assert_eq!(world.web(vec![deny()]).len(), 1);
        assert!(!arrives(&client, there, &server));
        assert!(!arrives(&server, here, &client), "an answer would open it");
        let mut unanswered = World::new(vec![allow()]);
        let (client, server) = (open(&unanswered.a), open(&unanswered.b));
        for _ in 0..3 {
            assert!(arrives(&client, there, &server));
            assert_eq!(unanswered.web(vec![deny()]).len(), 1);
            assert!(!arrives(&client, there, &server));
            unanswered.commit(&[policy("web", vec![allow()], vec![])]);
            assert!(arrives(&client, there, &server), "nobody has looked at it yet");
            unanswered.look();
            // The mark is taken off a moment after the look, and once more.
            std::thread::sleep(Duration::from_millis(300));
        }
        assert!((0..20).any(|_| arrives(&server, here, &client)));
    }
}

fn to_any(like: &str) -> IpAddr {
    if like.contains(':') {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    }
}

#[test]
fn what_policy_allows_all_the_time_loses_no_packet() {
    let mut world = World::new(vec![allow()]);
    let to_port = |action: Action, port: u16| {
        let mut r = rule(action);
        r.protocol = Some(Protocol::UDP);
        r.destination.ports = vec![(port, port)];
        r
    };
    let kept: Vec<_> = B
        .into_iter()
        .chain(SERVICE)
        .map(|to| {
            let server = if to.contains(':') { B[1] } else { B[0] };
            let port = if SERVICE.contains(&to) { 5001 } else { 5000 };
            Datagrams::open(&world.a, &world.b, at(to, port), at(server, port))
        })
        .collect();
    let denied: Vec<_> =
        B.map(|to| Datagrams::open(&world.a, &world.b, at(to, 6000), at(to, 6000))).into();
    for flow in kept.iter().chain(&denied) {
        flow.wait_for_more(20);
    }
    let mut cuts = 0;
    for i in 0..50 {
        let (ports, open) = (5000 + i % 2, i % 10 < 5);
        let mut rules = vec![to_port(Action::Allow, ports), to_port(Action::Allow, 10_001 - ports)];
        rules.extend(open.then(allow));
        let mut b = vec![policy("web", rules, vec![])];
        if i % 7 == 0 {
            b.push(Output::Set("s:x".into(), SetKind::Net, vec![member(&format!("10.9.0.{i}"))]));
        }
        cuts += world.apply(&b).len();
    }
    assert_eq!(cuts, 10, "two flows, five times");
    for flow in kept {
        let (sent, answered) = flow.stop();
        assert!(sent > 100, "{sent}");
        assert_eq!(sent, answered, "every packet was answered");
    }
}

#[test]
fn who_leaves_a_set_is_cut_and_nobody_else() {
    let mut from_clients = allow();
    from_clients.source.sets = vec!["s:clients".into()];
    let mut world = World::new(vec![allow()]);
    let everybody: Vec<_> = A.into_iter().chain(OUTSIDE).map(member).collect();
    world.apply(&[
        Output::Set("s:clients".into(), SetKind::Net, everybody),
        policy("web", vec![from_clients], vec![]),
    ]);
    for i in 0..2 {
        let gone = Stream::open(&world.a, &world.b, at(B[i], 81), at(B[i], 81));
        let stays = Stream::open(&world.outside, &world.b, at(B[i], 82), at(B[i], 82));
        let delta = |added: Vec<_>, removed: Vec<_>| Output::SetDelta {
            id: "s:clients".into(),
            added,
            removed,
        };
        let cuts = world.apply(&[delta(vec![], vec![member(A[i])])]);
        assert_eq!(cuts.len(), 1, "{cuts:?}");
        assert_eq!(gone.ends(SOON), [true, true]);
        stays.server_keeps_sending();
        stays.wait_for_bytes(10_000);
        assert_eq!(stays.ends(Duration::ZERO), [false, false]);
        assert!(world.apply(&[delta(vec![member(A[i])], vec![])]).is_empty());
    }
}

/// What changed while no agent ran is caught by the next, and what it finds cut and allowed goes on.
#[test]
fn a_new_agent_looks_at_everything_once() {
    let mut world = World::new(vec![allow()]);
    let stream = Stream::open(&world.a, &world.b, at(B[0], 81), at(B[0], 81));
    let datagrams = Datagrams::open(&world.a, &world.b, at(B[1], 5000), at(B[1], 5000));
    datagrams.wait_for_more(10);
    let mut restart = |rules: Vec<CalcRule>| {
        (world.rules, world.driver, world.cutter) = World::agent(&world.node);
        world.apply(&[
            policy("web", rules, vec![]),
            profile("kns.default", vec![allow()]),
            Output::Workload(Arc::new(pod("a", "cali1", &A, vec![]))),
            b_with(&["web"]),
            Output::InSync,
        ])
    };
    assert!(restart(vec![allow()]).is_empty());
    let cuts = restart(vec![deny()]);
    assert_eq!(cuts.len(), 2, "{cuts:?}");
    assert_eq!(stream.ends(SOON), [true, true]);
    datagrams.must_be_silent(Duration::from_millis(300));
    assert!(restart(vec![allow()]).is_empty());
    datagrams.wait_for_more(10);
}

/// The same five numbers again: judged as what it is, a new flow.
#[test]
fn ports_of_a_cut_connection_can_be_used_again() {
    for to in B {
        for pause in [Duration::from_millis(300), Duration::from_millis(2_600)] {
            let mut world = World::new(vec![allow()]);
            let stream = Stream::open(&world.a, &world.b, at(to, 81), at(to, 81));
            let port = stream.client_port();
            assert_eq!(world.web(vec![deny()]).len(), 1);
            assert_eq!(stream.ends(SOON), [true, true]);
            drop(stream);
            std::thread::sleep(pause);
            assert!(Stream::try_open(&world.a, &world.b, at(to, 81), at(to, 81), port).is_none());
            world.web(vec![allow()]);
            let again = Stream::try_open(&world.a, &world.b, at(to, 81), at(to, 81), port);
            let again = again.unwrap_or_else(|| panic!("{to} after {pause:?}:\n{}", world.marks()));
            again.server_keeps_sending();
            again.wait_for_bytes(10_000);
        }
    }
}

#[test]
fn other_bits_of_the_mark_are_not_touched() {
    let mut world = World::new(vec![allow()]);
    let bit = world.rules.cut_bit().unwrap();
    let flow = Datagrams::open(&world.a, &world.b, at(B[0], 5000), at(B[0], 5000));
    flow.wait_for_more(10);
    let mark = |world: &World| {
        let all = world.marks();
        let line = all.lines().find(|l| l.contains("dport=5000")).unwrap().to_owned();
        let mark = line.split("mark=").nth(1).unwrap().split(' ').next().unwrap();
        mark.parse::<u32>().unwrap()
    };
    assert_eq!(mark(&world), 0x4000);
    world.web(vec![deny()]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(mark(&world), 0x4000 | bit);
    world.web(vec![allow()]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(mark(&world), 0x4000);
}

/// Connections of the node itself, both ways, and through it; ports that stay open do.
#[test]
fn host_endpoints_cut_too() {
    for i in 0..2 {
        let mut world = World::new(vec![allow()]);
        let eth0 = || HostTarget::Iface("eth0".parse().unwrap());
        let mut open = host("eth0", eth0());
        open.normal = vec![tier("default", &["host"], &["host"])];
        open.forward = vec![tier("default", &["host"], &["host"])];
        let open = Output::Host(Arc::new(open));
        let everything = policy("host", vec![allow()], vec![allow()]);
        assert!(world.apply(&[everything, open]).is_empty());
        let inbound = Stream::open(&world.outside, &world.node, at(NODE[i], 81), at(NODE[i], 81));
        let ssh = Stream::open(&world.outside, &world.node, at(NODE[i], 22), at(NODE[i], 22));
        let outbound =
            Stream::open(&world.node, &world.outside, at(OUTSIDE[i], 81), at(OUTSIDE[i], 81));
        let through =
            Stream::open(&world.a, &world.outside, at(OUTSIDE[i], 83), at(OUTSIDE[i], 83));
        let local = Stream::open(&world.a, &world.b, at(B[i], 81), at(B[i], 81));
        let denied = |ingress, egress| policy("host", vec![ingress], vec![egress]);
        let cuts = world.apply(&[denied(deny(), allow())]);
        assert_eq!(cuts.len(), 1, "{cuts:?}");
        assert_eq!(inbound.ends(SOON), [true, true]);
        let cuts = world.apply(&[denied(allow(), deny())]);
        let cuts: Vec<_> =
            cuts.into_iter().filter(|c| c.flow.destination == at(OUTSIDE[i], 0).ip()).collect();
        assert_eq!(cuts.len(), 2, "{cuts:?}");
        assert_eq!(cuts[0].endpoint.as_deref(), Some("host endpoint of eth0"));
        assert_eq!(outbound.ends(SOON), [true, true]);
        assert_eq!(through.ends(SOON), [true, true]);
        for kept in [ssh, local] {
            assert_eq!(kept.ends(Duration::ZERO), [false, false]);
            kept.server_keeps_sending();
            kept.wait_for_bytes(10_000);
        }
    }
}
