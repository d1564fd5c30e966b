//! Host endpoints' policy before destination NAT and before connection tracking, with real
//! translation, real connections and the kernel's own table of flows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod scenario;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::endpoint::HostTarget;
use model::output::{CalcRule, LocalHost, Output};
use model::policy::Stage;
use model::{Action, InSync};
use nft::NftDriver;
use rules::config::DenyAction;
use rules::{Rules, RulesConfig};
use scenario::{early, host, pod, profile, rule, tier, to_port};
use testkit::{Netns, Server, tcp_reply};

const WAIT: Duration = Duration::from_millis(400);
/// Both families of the node, and of the pod behind it.
const NODE: [&str; 2] = ["192.0.2.1", "fd02::1"];
const POD: [&str; 2] = ["10.65.0.2", "fd00:65::2"];

/// A client, a node, a pod. Port 30080 of the node leads to port 80 of the pod, for the client and
/// for the node's own processes.
struct World {
    client: Netns,
    node: Netns,
    _pod: Netns,
    rules: Rules,
    driver: NftDriver,
    _servers: [Server; 2],
}

impl World {
    fn new() -> Self {
        Self::with(RulesConfig::default())
    }

    fn with(config: RulesConfig) -> Self {
        let (client, node, inside) = (Netns::new(), Netns::new(), Netns::new());
        for netns in [&client, &node, &inside] {
            netns.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
        }
        let (far, pod_end) = (client.path(), inside.path());
        node.sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip link set lo up
             ip link add eth0 type veth peer name eth0 netns {}
             ip link add cali1 type veth peer name eth0 netns {}
             ip link set eth0 up; ip link set cali1 up
             ip addr add 192.0.2.1/24 dev eth0; ip addr add fd02::1/64 dev eth0 nodad
             ip addr add 169.254.1.1/32 dev cali1; ip addr add fd00:65::1/128 dev cali1 nodad
             ip route add 10.65.0.2/32 dev cali1; ip route add fd00:65::2/128 dev cali1
             ip route add 10.96.0.2/32 dev cali1; ip route add fd96::2/128 dev cali1
             ip route add default via 192.0.2.9; ip route add default via fd02::9
             nft 'table inet services {{
                chain arriving {{
                  type nat hook prerouting priority -100
                  ip daddr 192.0.2.1 tcp dport 30080 dnat ip to 10.65.0.2:80
                  ip6 daddr fd02::1 tcp dport 30080 dnat ip6 to [fd00:65::2]:80
                }}
                chain own {{
                  type nat hook output priority -100
                  ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.65.0.2:80
                  ip6 daddr fd96::1 tcp dport 80 dnat ip6 to [fd00:65::2]:80
                  ip daddr 10.96.0.2 tcp dport 80 dnat ip to 192.0.2.9:81
                  ip6 daddr fd96::2 tcp dport 80 dnat ip6 to [fd02::9]:81
                  ip daddr 10.96.0.3 tcp dport 80 dnat ip to 192.0.2.1:99
                  ip6 daddr fd96::3 tcp dport 80 dnat ip6 to [fd02::1]:99
                }}
                chain leaving {{
                  type nat hook postrouting priority 100
                  oifname cali1 masquerade
                }}
             }}'",
            far.display(),
            pod_end.display()
        ));
        client.sh("ip link set eth0 up; ip addr add 192.0.2.9/24 dev eth0
                   ip addr add fd02::9/64 dev eth0 nodad
                   ip route add default via 192.0.2.1; ip route add default via fd02::1");
        inside.sh("ip link set eth0 up; ip addr add 10.65.0.2/32 dev eth0
                   ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0
                   ip addr add fd00:65::2/128 dev eth0 nodad; ip route add fd00:65::1 dev eth0
                   ip route add default via fd00:65::1 dev eth0");
        let servers = [Server::start(&inside, 80, "pod"), Server::start(&node, 99, "node")];
        let driver = node.run(|| NftDriver::open().unwrap());
        let mut rules = Rules::new(config);
        let web = Output::Workload(Arc::new(pod("web", "cali1", &POD, vec![])));
        rules.apply(&[profile("kns.default", vec![rule(Action::Allow)]), web]);
        let mut world = Self { client, node, _pod: inside, rules, driver, _servers: servers };
        world.apply(&[]);
        world
    }

    fn apply(&mut self, outputs: &[Output]) {
        self.rules.apply(outputs);
        let Self { node, rules, driver, .. } = self;
        let report = node.run(|| driver.apply(rules, Some(&InSync::for_tests())).unwrap());
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    /// What the client gets from each of the addresses; both families always agree here.
    fn asks(&self, addresses: [&str; 2], port: u16) -> Option<String> {
        let one = |to: &str| {
            let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
            tcp_reply(&self.client, to, WAIT)
        };
        let [v4, v6] = addresses.map(one);
        assert_eq!(v4, v6, "families disagree about port {port}");
        v4
    }

    /// What a process of the node gets.
    fn host_asks(&self, addresses: [&str; 2], port: u16) -> Option<String> {
        let one = |to: &str| {
            let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
            tcp_reply(&self.node, to, WAIT)
        };
        let [v4, v6] = addresses.map(one);
        assert_eq!(v4, v6, "families disagree about {addresses:?} port {port}");
        v4
    }

    /// Flows to or from the port in the kernel's table.
    fn tracked(&self, port: u16) -> usize {
        let all = ["ipv4", "ipv6"].map(|f| self.node.out(&format!("conntrack -L -f {f}")));
        let port = format!("dport={port} ");
        all.iter().flat_map(|text| text.lines()).filter(|line| line.contains(&port)).count()
    }
}

/// The host endpoint of `eth0`, open but for what the stages say.
fn eth0(change: impl FnOnce(&mut LocalHost)) -> Output {
    let mut eth0 = host("eth0", HostTarget::Iface("eth0".parse().unwrap()));
    let endpoint = Arc::get_mut(&mut eth0.endpoint).unwrap();
    endpoint.profiles = vec!["kns.default".into()];
    change(&mut eth0);
    Output::Host(Arc::new(eth0))
}

/// Who answered.
type Answer = Option<String>;

fn says(text: &str) -> Answer {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `rules` before destination NAT, at `eth0`.
fn before_nat(rules: Vec<CalcRule>) -> [Output; 2] {
    let policy = early(Stage::PreDnat, "early", [rules, vec![]]);
    [policy, eth0(|h| h.pre_dnat = vec![tier("default", &["early"], &[])])]
}

#[test]
fn policy_before_nat_sees_the_port_that_was_asked_for() {
    let mut world = World::new();
    assert_eq!(world.asks(NODE, 30080), says("pod"), "the translation works");
    assert_eq!(world.asks(POD, 80), says("pod"));
    world.apply(&before_nat(vec![to_port(Action::Deny, 30080)]));
    assert_eq!(world.asks(NODE, 30080), None, "denied by the port before translation");
    assert_eq!(world.asks(POD, 80), says("pod"), "the same pod, by its own address");
    world.apply(&before_nat(vec![to_port(Action::Deny, 80)]));
    assert_eq!(world.asks(NODE, 30080), says("pod"), "port 80 is not what was asked for");
    assert_eq!(world.asks(POD, 80), None);
    // No rule matches: what follows decides, whatever the tier's default is.
    world.apply(&before_nat(vec![to_port(Action::Deny, 1)]));
    assert_eq!(world.asks(NODE, 30080), says("pod"));
    assert_eq!(world.asks(NODE, 99), says("node"));
}

#[test]
fn what_is_allowed_before_nat_skips_the_hosts_later_policy_and_no_pods() {
    let mut world = World::new();
    let closed = |h: &mut LocalHost| {
        h.pre_dnat = vec![tier("default", &["early"], &[])];
        h.normal = vec![tier("default", &["nothing"], &[])];
        h.forward = h.normal.clone();
    };
    let allow = |port| early(Stage::PreDnat, "early", [vec![to_port(Action::Allow, port)], vec![]]);
    let nothing = scenario::policy("nothing", vec![], vec![]);
    world.apply(&[allow(1), nothing, eth0(closed)]);
    assert_eq!(world.asks(NODE, 30080), None, "the policy of forwarded traffic allows nothing");
    assert_eq!(world.asks(NODE, 99), None, "nor does that of the host itself");
    world.apply(&[allow(30080)]);
    assert_eq!(world.asks(NODE, 30080), says("pod"));
    world.apply(&[allow(99)]);
    assert_eq!(world.asks(NODE, 99), says("node"));
    let pod = pod("web", "cali1", &POD, vec![tier("default", &["nothing"], &[])]);
    world.apply(&[allow(30080), Output::Workload(Arc::new(pod))]);
    assert_eq!(world.asks(NODE, 30080), None, "the pod's own policy stays");
}

#[test]
fn the_wildcards_policy_before_nat_acts_where_no_endpoint_has_a_name() {
    let mut world = World::new();
    let mut every = host("every", HostTarget::All);
    Arc::get_mut(&mut every.endpoint).unwrap().profiles = vec!["kns.default".into()];
    every.pre_dnat = vec![tier("default", &["early"], &[])];
    every.untracked = vec![tier("default", &["raw"], &["raw"])];
    let deny = |stage, name| early(stage, name, [vec![to_port(Action::Deny, 30080)], vec![]]);
    let raw = [vec![to_port(Action::Deny, 99)], vec![]];
    world.apply(&[
        deny(Stage::PreDnat, "early"),
        early(Stage::Untracked, "raw", raw),
        Output::Host(Arc::new(every)),
    ]);
    assert_eq!(world.asks(NODE, 30080), None);
    assert_eq!(world.asks(NODE, 99), says("node"), "untracked policy knows no wildcard");
    world.apply(&[eth0(|_| ())]);
    assert_eq!(world.asks(NODE, 30080), says("pod"), "eth0 has an endpoint of its own");
}

/// Services that only the node's processes know: the pod's port 80, the client's port 81, and the
/// node's own port 99. The second is routed as if it were a pod's.
const TO_POD: [&str; 2] = ["10.96.0.1", "fd96::1"];
const TO_CLIENT: [&str; 2] = ["10.96.0.2", "fd96::2"];
const TO_SELF: [&str; 2] = ["10.96.0.3", "fd96::3"];

#[test]
fn what_the_host_sends_to_services_is_judged_by_the_interface_it_leaves_by() {
    let mut world = World::new();
    let _server = Server::start(&world.client, 81, "client");
    let all =
        |world: &World| [TO_POD, TO_CLIENT, TO_SELF].map(|service| world.host_asks(service, 80));
    assert_eq!(all(&world), ["pod", "client", "node"].map(says), "the translation works");
    let closed = |h: &mut LocalHost| h.normal = vec![tier("default", &[], &["out"])];
    let out = |port| scenario::policy("out", vec![], vec![to_port(Action::Allow, port)]);
    world.apply(&[out(80), eth0(closed)]);
    // Pods are not behind eth0, nor is the host itself.
    assert_eq!(all(&world), ["pod", "", "node"].map(says), "the port of the service is not asked");
    world.apply(&[out(81)]);
    assert_eq!(all(&world), ["pod", "client", "node"].map(says), "that of the backend is");
    assert_eq!(world.host_asks(["192.0.2.9", "fd02::9"], 81), says("client"), "straight");
    world.apply(&[out(1)]);
    assert_eq!(all(&world), ["pod", "", "node"].map(says));
    let mut every = host("every", HostTarget::All);
    every.normal = vec![tier("default", &[], &["out"])];
    let gone = Output::HostGone("eth0".into());
    world.apply(&[gone, Output::Host(Arc::new(every))]);
    assert_eq!(all(&world), ["pod", "", "node"].map(says), "of the wildcard, too");
}

#[test]
fn where_refusals_are_answered_services_are_judged_by_the_interface_of_before() {
    let mut world = World::with(RulesConfig { deny: DenyAction::Reject, ..RulesConfig::default() });
    let closed = |h: &mut LocalHost| h.normal = vec![tier("default", &[], &["out"])];
    let out = scenario::policy("out", vec![], vec![to_port(Action::Allow, 80)]);
    world.apply(&[out, eth0(closed)]);
    assert_eq!(world.host_asks(TO_POD, 80), says("pod"));
    assert_eq!(world.host_asks(TO_SELF, 80), None);
}

#[test]
fn untracked_traffic_has_no_flow() {
    let mut world = World::new();
    assert_eq!(world.asks(NODE, 99), says("node"));
    assert_eq!(world.tracked(99), 2, "one flow a family");
    world.node.sh("conntrack -F");
    let mut answers = to_port(Action::Allow, 99);
    std::mem::swap(&mut answers.source.ports, &mut answers.destination.ports);
    let both = [vec![to_port(Action::Allow, 99)], vec![answers]];
    // The host itself is closed: only what untracked policy allows gets in.
    let raw = |h: &mut LocalHost| {
        h.untracked = vec![tier("default", &["raw"], &["raw"])];
        h.normal = vec![tier("default", &["nothing"], &["nothing"])];
    };
    let nothing = scenario::policy("nothing", vec![], vec![]);
    world.apply(&[nothing, early(Stage::Untracked, "raw", both), eth0(raw)]);
    assert_eq!(world.asks(NODE, 99), says("node"), "both directions are allowed explicitly");
    assert_eq!(world.tracked(99), 0, "no flow");
    assert_eq!(world.asks(NODE, 30080), says("pod"), "silence before tracking decides nothing");
    assert!(world.tracked(30080) > 0, "and tracks as ever");
    let one_way = [vec![to_port(Action::Allow, 99)], vec![]];
    world.apply(&[early(Stage::Untracked, "raw", one_way)]);
    assert_eq!(world.asks(NODE, 99), None, "without a flow answers are not known as such");
    let denied = [vec![to_port(Action::Deny, 30080)], vec![]];
    world.apply(&[early(Stage::Untracked, "raw", denied)]);
    assert_eq!(world.asks(NODE, 30080), None, "denied before tracking and translation");
}

#[test]
fn failsafe_ports_survive() {
    let mut world = World::new();
    let ssh = Server::start(&world.node, 22, "ssh");
    let all = || [vec![rule(Action::Deny)], vec![rule(Action::Deny)]];
    let policies = [("early", Stage::PreDnat), ("raw", Stage::Untracked)];
    world.apply(&policies.map(|(name, stage)| early(stage, name, all())));
    let closed = |h: &mut LocalHost| {
        h.pre_dnat = vec![tier("default", &["early"], &[])];
        h.untracked = vec![tier("default", &["raw"], &["raw"])];
        h.normal = vec![tier("default", &["raw"], &["raw"])];
    };
    world.apply(&[eth0(closed)]);
    assert_eq!(world.asks(NODE, 99), None);
    assert_eq!(world.asks(NODE, 22), says("ssh"), "and its answers come back");
    drop(ssh);
    // Out of the host: TCP to 6443 is a failsafe port, and so are the answers from it.
    let _api = Server::start(&world.client, 6443, "api");
    let to = |port| SocketAddr::new("192.0.2.9".parse().unwrap(), port);
    assert_eq!(tcp_reply(&world.node, to(6443), WAIT), says("api"));
    let _other = Server::start(&world.client, 6444, "other");
    assert_eq!(tcp_reply(&world.node, to(6444), WAIT), None);
}
