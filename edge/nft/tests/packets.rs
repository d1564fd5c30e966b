//! Packets: two pods on a node, judged by the tables in the kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod nflog;
mod scenario;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::InSync;
use model::output::Output;
use nflog::Listener;
use nft::NftDriver;
use rules::config::EndpointToHost;
use rules::{Rules, RulesConfig};
use scenario::{Scenario, allow, deny, member, pod, policy, profile, tier};
use testkit::{Netns, Server, tcp_reply};

const WAIT: Duration = Duration::from_millis(400);

/// A node with two pods, `a` (10.65.0.2, fd00:65::2) and `b` (.3), and the tables.
struct World {
    node: Netns,
    a: Netns,
    b: Netns,
    rules: Rules,
    driver: NftDriver,
    #[expect(dead_code, reason = "they answer while they live")]
    servers: [Server; 2],
}

impl World {
    fn new(config: RulesConfig, outputs: &[Output]) -> Self {
        let (node, a, b) = (Netns::new(), Netns::new(), Netns::new());
        for netns in [&node, &a, &b] {
            netns.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
        }
        node.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        for (pod, n) in [(&a, 2), (&b, 3)] {
            let path = pod.path();
            let path = path.display();
            node.sh(&format!(
                "ip link add cali{0} type veth peer name eth0 netns {path}; \
                 ip link set cali{0} up; \
                 ip addr add 169.254.1.1/32 dev cali{0}; ip addr add fd00:65::1/128 dev cali{0} nodad; \
                 ip route add 10.65.0.{n}/32 dev cali{0}; ip route add fd00:65::{n}/128 dev cali{0}",
                n - 1
            ));
            pod.sh(&format!(
                "ip link set eth0 up; ip addr add 10.65.0.{n}/32 dev eth0; \
                 ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0; \
                 ip addr add fd00:65::{n}/128 dev eth0 nodad; ip route add fd00:65::1 dev eth0; \
                 ip route add default via fd00:65::1 dev eth0"
            ));
        }
        let servers = [Server::start(&b, 80, "b"), Server::start(&node, 99, "node")];
        let mut rules = Rules::new(config);
        rules.apply(outputs);
        let driver = node.run(|| NftDriver::open().unwrap());
        let mut world = Self { node, a, b, rules, driver, servers };
        world.apply(&[]);
        world
    }

    fn apply(&mut self, outputs: &[Output]) {
        self.rules.apply(outputs);
        let report = self.driver.apply(&mut self.rules, Some(&InSync::for_tests())).unwrap();
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    fn reaches(from: &Netns, to: &str, port: u16) -> bool {
        let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
        tcp_reply(from, to, WAIT).is_some()
    }

    /// Both families always agree here.
    fn a_reaches_b(&self) -> bool {
        let both = ["10.65.0.3", "fd00:65::3"].map(|to| Self::reaches(&self.a, to, 80));
        assert_eq!(both[0], both[1], "families disagree");
        both[0]
    }
}

fn b_with(ingress: &[&str]) -> Output {
    let tiers = if ingress.is_empty() { vec![] } else { vec![tier("default", ingress, &[])] };
    Output::Workload(Arc::new(pod("b", "cali2", &["10.65.0.3", "fd00:65::3"], tiers)))
}

#[test]
fn policy_between_pods() {
    let mut world = World::new(RulesConfig::default(), &Scenario::two_pods().outputs());
    assert!(world.a_reaches_b(), "the rule names a");
    let delta = |added: Vec<_>, removed: Vec<_>| Output::SetDelta {
        id: "s:clients".into(),
        added,
        removed,
    };
    let a = || vec![member("10.65.0.2"), member("fd00:65::2")];
    world.apply(&[delta(vec![], a())]);
    assert!(!world.a_reaches_b(), "a is no client any more");
    world.apply(&[delta(vec![member("10.64.0.0/10"), member("fd00::/8")], vec![])]);
    assert!(world.a_reaches_b(), "a is in a prefix");
    world.apply(&[policy("web", vec![deny()], vec![]), b_with(&["web"])]);
    assert!(!world.a_reaches_b(), "denied by a rule");
    world.apply(&[b_with(&[])]);
    assert!(world.a_reaches_b(), "no policy: the profile allows");
    world.apply(&[profile("kns.default", vec![])]);
    assert!(!world.a_reaches_b(), "no policy and no rule in the profile");
}

#[test]
fn pass_and_order_of_tiers() {
    let pass = scenario::rule(model::Action::Pass);
    let tiers = vec![tier("first", &["one", "never"], &[]), tier("second", &["two"], &[])];
    let mut outputs = Scenario::two_pods().outputs();
    outputs.extend([
        policy("one", vec![pass, deny()], vec![]),
        policy("never", vec![deny()], vec![]),
        policy("two", vec![allow()], vec![]),
        Output::Workload(Arc::new(pod("b", "cali2", &["10.65.0.3", "fd00:65::3"], tiers))),
    ]);
    let mut world = World::new(RulesConfig::default(), &outputs);
    assert!(world.a_reaches_b(), "passed to the second tier");
    world.apply(&[policy("two", vec![], vec![])]);
    assert!(!world.a_reaches_b(), "the second tier's end");
    world.apply(&[policy("one", vec![], vec![]), policy("never", vec![allow()], vec![])]);
    assert!(world.a_reaches_b(), "allowed by the first tier's second policy");
}

#[test]
fn hosts_and_their_pods() {
    let outputs = Scenario::two_pods().outputs();
    let mut world = World::new(RulesConfig::default(), &outputs);
    world.apply(&[policy("web", vec![deny()], vec![])]);
    for to in ["10.65.0.3", "fd00:65::3"] {
        assert!(World::reaches(&world.node, to, 80), "the host reaches its pods: {to}");
    }
    for to in ["169.254.1.1", "fd00:65::1"] {
        assert!(!World::reaches(&world.a, to, 99), "endpoint to host is drop: {to}");
    }
    let config = RulesConfig { endpoint_to_host: EndpointToHost::Accept, ..RulesConfig::default() };
    let world = World::new(config, &outputs);
    for to in ["169.254.1.1", "fd00:65::1"] {
        assert!(World::reaches(&world.a, to, 99), "endpoint to host is accept: {to}");
    }
}

#[test]
fn forged_sources_and_unknown_pods_are_dropped() {
    let mut world = World::new(RulesConfig::default(), &Scenario::two_pods().outputs());
    world
        .node
        .sh("ip route add 10.65.0.99/32 dev cali1; ip -6 route add fd00:65::99/128 dev cali1");
    world.a.sh("ip addr add 10.65.0.99/32 dev eth0; ip route change default via 169.254.1.1 src 10.65.0.99");
    assert!(!World::reaches(&world.a, "10.65.0.3", 80), "not a's address");
    assert!(World::reaches(&world.a, "fd00:65::3", 80));
    let a = pod("a", "cali1", &["10.65.0.2", "fd00:65::2"], vec![]);
    let mut endpoint = (*a.endpoint).clone();
    endpoint.allowed_sources = vec!["10.65.0.96/29".parse().unwrap()];
    let a = model::output::LocalWorkload { endpoint: Arc::new(endpoint), ..a };
    let everyone = Output::Workload(Arc::new(a));
    world.apply(&[everyone, policy("web", vec![allow()], vec![])]);
    assert!(World::reaches(&world.a, "10.65.0.3", 80), "an allowed source");
    let id = model::WorkloadId { namespace: "default".into(), name: "a".into() };
    world.apply(&[Output::WorkloadGone(id)]);
    assert!(!world.a_reaches_b(), "an unknown pod is closed");
}

/// Law 6. The kernel really refuses the rule: the set's elements are addresses with ports, and it is
/// asked for an address alone.
#[test]
fn a_refused_policy_closes_its_own_pods_only_and_is_offered_again() {
    let soon = Duration::from_millis(200);
    let mut world = World::new(RulesConfig::default(), &Scenario::two_pods().outputs());
    let _answers = Server::start(&world.a, 80, "a");
    world.driver.retry_every(soon);
    let reached = |world: &World| {
        let all = [(&world.a, "10.65.0.3"), (&world.a, "fd00:65::3")];
        let all = all.into_iter().chain([(&world.b, "10.65.0.2"), (&world.b, "fd00:65::2")]);
        all.map(|(from, to)| World::reaches(from, to, 80)).collect::<Vec<_>>()
    };
    let mut bad = allow();
    bad.source.sets = vec!["n:ports".into()];
    let set = |kind| Output::Set("n:ports".into(), kind, vec![]);
    let tiers = vec![tier("default", &["bad"], &[])];
    let addresses = ["10.65.0.2", "fd00:65::2"];
    world.rules.apply(&[
        set(model::output::SetKind::IpPort),
        policy("bad", vec![bad, allow()], vec![]),
        Output::Workload(Arc::new(pod("a", "cali1", &addresses, tiers))),
    ]);
    let apply = |world: &mut World| {
        world.driver.apply(&mut world.rules, Some(&InSync::for_tests())).unwrap()
    };
    let report = apply(&mut world);
    let objects: Vec<_> = report.refused.iter().map(|r| r.object.as_str()).collect();
    assert_eq!(
        objects,
        ["ip", "ip6"].map(|f| format!(
            "{f} chain pi-np.default.bad (ingress NetworkPolicy default/bad tier default)"
        ))
    );
    assert_eq!(reached(&world), [true, true, false, false], "b is open, a is closed");

    // Others may change meanwhile; the refused one is not forgotten, and offered again in time.
    world.rules.apply(&[policy("web", vec![deny()], vec![])]);
    let mut report = apply(&mut world);
    assert_eq!((report.changed, report.refused.len()), (true, 2));
    assert_eq!(reached(&world), [false; 4], "the other policy changed");
    // Two waits: what is overdue waits for the read-back, which comes once a second at most.
    for _ in 0..2 {
        let wait = report.again_in.expect("a retry is due");
        assert!(!wait.is_zero() && wait <= Duration::from_secs(1), "{wait:?}");
        std::thread::sleep(wait);
        report = apply(&mut world);
        assert_eq!(report.refused.len(), 2, "offered again, refused again");
    }
    assert_eq!(reached(&world), [false; 4], "still closed");

    // What the set holds is what the rule asks for: now the kernel takes both.
    world.apply(&[Output::SetGone("n:ports".into())]);
    world.apply(&[set(model::output::SetKind::Net), policy("web", vec![allow()], vec![])]);
    assert_eq!(reached(&world), [true; 4], "both policies are in force");
}

#[test]
fn established_connections_survive_a_new_policy() {
    use std::io::{Read, Write};
    let mut world = World::new(RulesConfig::default(), &Scenario::two_pods().outputs());
    let listener = world.b.run(|| std::net::TcpListener::bind("10.65.0.3:81").unwrap());
    world.apply(&[policy("web", vec![allow()], vec![])]);
    let mut client = world.a.run(|| std::net::TcpStream::connect("10.65.0.3:81").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    world.apply(&[policy("web", vec![deny()], vec![])]);
    assert!(!World::reaches(&world.a, "10.65.0.3", 81), "new ones are denied");
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all(b"still here").unwrap();
    let mut text = [0; 10];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still here");
}

#[test]
fn collectors_of_flows_are_told_by_which_rule_packets_pass_or_end() {
    let config = RulesConfig { flow_logs: true, ..RulesConfig::default() };
    let world = World::new(config, &Scenario::two_pods().outputs());
    // The first packets of all wait until the links are up and neighbours are known.
    let settled = |to| (0..20).any(|_| World::reaches(&world.a, to, 80));
    assert!(settled("10.65.0.3") && settled("fd00:65::3"));
    let listeners = [1, 2].map(|group| world.node.run(|| Listener::open(group)));
    let told = || {
        listeners.each_ref().map(|l| {
            let mut texts = l.told(Duration::from_millis(300));
            // The headers, not the packet.
            assert!(texts.iter().all(|(_, length)| (40..=80).contains(length)), "{texts:?}");
            texts.dedup();
            texts.into_iter().map(|(text, _)| text).collect::<Vec<_>>()
        })
    };
    assert!(World::reaches(&world.a, "10.65.0.3", 80));
    assert_eq!(told(), [["API0|np/default/web"], ["ARE0|kns.default"]], "first packets only");
    assert!(!World::reaches(&world.a, "10.65.0.3", 81));
    assert_eq!(told(), [["DPI|default"], ["ARE0|kns.default"]]);
    assert!(World::reaches(&world.a, "fd00:65::3", 80));
    assert_eq!(told(), [["API0|np/default/web"], ["ARE0|kns.default"]], "of both families");
}
