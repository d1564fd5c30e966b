//! Host endpoints' policy beside a real kube-proxy, which translates for a real control plane: a node
//! port under policy before destination NAT, and what the host itself sends to services.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod scenario;

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::endpoint::HostTarget;
use model::output::{CalcRule, LocalHost, Output};
use model::policy::Stage;
use model::{Action, InSync, Protocol};
use nft::NftDriver;
use rules::config::Failsafe;
use rules::{Rules, RulesConfig};
use scenario::{early, host, net, pod, policy, profile, rule, tier, to_port};
use testkit::{ControlPlane, Controllers, Netns, Server, kube_program, tcp_reply};

const WAIT: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_mins(1);
const NODE: &str = "192.0.2.1";
const POD: &str = "10.65.0.2";
/// Both are the client's.
const CLIENTS: [&str; 2] = ["192.0.2.9", "192.0.2.10"];
/// Services: of the pod, by a node port, too; and of a machine outside the cluster.
const TO_POD: &str = "10.96.1.1";
const TO_OUTSIDE: &str = "10.96.1.2";
const NODE_PORT: u16 = 30080;
const FAILSAFE_PORT: u16 = 30081;

const OBJECTS: &str = r#"
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
   "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}},
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
   "spec": {"type": "NodePort", "clusterIP": "10.96.1.1", "ports": [
     {"name": "a", "port": 8080, "targetPort": 80, "nodePort": 30080},
     {"name": "b", "port": 8081, "targetPort": 80, "nodePort": 30081}]}},
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "out", "namespace": "default"},
   "spec": {"clusterIP": "10.96.1.2", "ports": [{"name": "a", "port": 8080, "targetPort": 81}]}},
  {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
   "metadata": {"name": "web-1", "namespace": "default",
     "labels": {"kubernetes.io/service-name": "web"}},
   "endpoints": [{"addresses": ["10.65.0.2"], "conditions": {"ready": true}}],
   "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
  {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
   "metadata": {"name": "out-1", "namespace": "default",
     "labels": {"kubernetes.io/service-name": "out"}},
   "endpoints": [{"addresses": ["192.0.2.9"], "conditions": {"ready": true}}],
   "ports": [{"name": "a", "port": 81}]}
]}"#;

/// A client, a node with kube-proxy and our tables, a pod.
struct World {
    client: Netns,
    node: Netns,
    _pod: Netns,
    rules: Rules,
    driver: NftDriver,
    _servers: [Server; 4],
    plane: ControlPlane,
    proxy: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

impl World {
    fn new(mode: &str) -> Self {
        let (client, node, inside) = (Netns::new(), Netns::new(), Netns::new());
        lay(&client, &node, &inside);
        let plane = ControlPlane::start_in(&node, NODE.parse().unwrap(), Controllers::Absent);
        plane.kubectl_with(&["create", "-f", "-"], OBJECTS).unwrap_or_else(|e| panic!("{e}"));
        let proxy = proxy(&node, &plane, mode);
        let failsafe = Failsafe { protocol: Protocol::TCP, port: FAILSAFE_PORT, net: None };
        let mut config = RulesConfig::default();
        config.failsafe_inbound.push(failsafe);
        let driver = node.run(|| NftDriver::open().unwrap());
        let mut rules = Rules::new(config);
        let web = Output::Workload(Arc::new(pod("web", "cali1", &[POD], vec![])));
        rules.apply(&[profile("kns.default", vec![rule(Action::Allow)]), web]);
        let servers =
            [(&inside, 80, "pod"), (&node, 99, "node"), (&node, 22, "ssh"), (&client, 81, "out")];
        let servers = servers.map(|(netns, port, name)| Server::start(netns, port, name));
        let mut world =
            Self { client, node, _pod: inside, rules, driver, _servers: servers, plane, proxy };
        world.apply(&[]);
        world
    }

    fn apply(&mut self, outputs: &[Output]) {
        self.rules.apply(outputs);
        let Self { node, rules, driver, .. } = self;
        let report = node.run(|| driver.apply(rules, Some(&InSync::for_tests())).unwrap());
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    /// What each of the client's addresses gets from a port of the node.
    fn asks(&self, port: u16) -> [String; 2] {
        CLIENTS.map(|from| {
            self.client.sh(&format!("ip route replace {NODE}/32 dev eth0 src {from}"));
            ask(&self.client, NODE, port)
        })
    }

    /// What processes of the node get from the services of the pod and of the machine outside.
    fn host_asks(&self) -> [String; 2] {
        [TO_POD, TO_OUTSIDE].map(|service| ask(&self.node, service, 8080))
    }

    /// Until kube-proxy has programmed everything.
    fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        let all = || (self.asks(NODE_PORT), self.asks(FAILSAFE_PORT), self.host_asks());
        let pod = ["pod", "pod"].map(str::to_owned);
        let wanted = (pod.clone(), pod, ["pod", "out"].map(str::to_owned));
        while all() != wanted {
            let logs = || self.plane.logs();
            assert!(Instant::now() < until, "kube-proxy: {:?}\n{}", all(), logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// What answers, or nothing.
fn ask(from: &Netns, to: &str, port: u16) -> String {
    let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
    tcp_reply(from, to, WAIT).unwrap_or_default()
}

fn lay(client: &Netns, node: &Netns, inside: &Netns) {
    node.sh(&format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         ip link add eth0 type veth peer name eth0 netns {}
         ip link add cali1 type veth peer name eth0 netns {}
         ip link set eth0 up; ip link set cali1 up
         ip addr add {NODE}/24 dev eth0; ip addr add 169.254.1.1/32 dev cali1
         ip route add {POD}/32 dev cali1; ip route add default via 192.0.2.9",
        client.path().display(),
        inside.path().display()
    ));
    let addresses = CLIENTS.map(|a| format!("ip addr add {a}/24 dev eth0; ")).concat();
    client.sh(&format!("ip link set eth0 up; {addresses} ip route add default via {NODE}"));
    inside.sh(&format!(
        "ip link set eth0 up; ip addr add {POD}/32 dev eth0
         ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0"
    ));
}

fn proxy(node: &Netns, plane: &ControlPlane, mode: &str) -> Child {
    let mut command = Command::new(kube_program("cluster"));
    command.args(["kube-proxy", "--hostname-override=n1", "--cluster-cidr=10.65.0.0/16"]);
    command.arg(format!("--kubeconfig={}", plane.kubeconfig().display()));
    command.arg(format!("--proxy-mode={mode}"));
    // Switches of the whole machine.
    command.args(["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s"]);
    command.arg("--conntrack-tcp-timeout-close-wait=0s");
    node.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// The host endpoint of `eth0`, open but for what the stages say.
fn eth0(change: impl FnOnce(&mut LocalHost)) -> Output {
    let mut eth0 = host("eth0", HostTarget::Iface("eth0".parse().unwrap()));
    Arc::get_mut(&mut eth0.endpoint).unwrap().profiles = vec!["kns.default".into()];
    change(&mut eth0);
    Output::Host(Arc::new(eth0))
}

fn before_nat(rules: Vec<CalcRule>) -> [Output; 2] {
    let policy = early(Stage::PreDnat, "early", [rules, vec![]]);
    [policy, eth0(|h| h.pre_dnat = vec![tier("default", &["early"], &[])])]
}

fn from(source: &str, rule: CalcRule) -> CalcRule {
    let mut rule = rule;
    rule.source.nets = vec![net(&format!("{source}/32"))];
    rule
}

fn policy_is_enforced_beside(mode: &str) {
    let mut world = World::new(mode);
    world.ready();
    let none = [String::new(), String::new()];
    let only = |i: usize| std::array::from_fn(|n| if n == i { "pod" } else { "" }.to_owned());

    // By source, at the port that was asked for.
    world.apply(&before_nat(vec![from(CLIENTS[0], to_port(Action::Deny, NODE_PORT))]));
    assert_eq!(world.asks(NODE_PORT), only(1));
    let allow = from(CLIENTS[0], to_port(Action::Allow, NODE_PORT));
    world.apply(&before_nat(vec![allow, rule(Action::Deny)]));
    assert_eq!(world.asks(NODE_PORT), only(0));
    assert_eq!(world.asks(99), none, "nothing else");
    world.apply(&before_nat(vec![to_port(Action::Deny, 80)]));
    assert_eq!(world.asks(NODE_PORT), ["pod", "pod"], "the pod's port is not what was asked for");

    // Failsafe ports stay open, also one that is a node port.
    world.apply(&before_nat(vec![rule(Action::Deny)]));
    assert_eq!(world.asks(NODE_PORT), none);
    assert_eq!(world.asks(22), ["ssh", "ssh"]);
    assert_eq!(world.asks(FAILSAFE_PORT), ["pod", "pod"]);
    // The host's own way to services has nothing to do with it.
    assert_eq!(world.host_asks(), ["pod", "out"]);

    // What the host sends is judged by where it goes in the end.
    let out = |port| policy("out", vec![], vec![to_port(Action::Allow, port)]);
    let closed = |h: &mut LocalHost| h.normal = vec![tier("default", &[], &["out"])];
    world.apply(&[out(8080), eth0(closed)]);
    assert_eq!(
        world.host_asks(),
        ["pod", ""],
        "the service's port is allowed; a pod is not eth0's"
    );
    world.apply(&[out(81)]);
    assert_eq!(world.host_asks(), ["pod", "out"], "the backend's port is");
    assert_eq!(world.asks(NODE_PORT), ["pod", "pod"], "answers of forwarded connections pass");
}

#[test]
fn policy_is_enforced_beside_kube_proxy_with_nftables() {
    policy_is_enforced_beside("nftables");
}

#[test]
fn policy_is_enforced_beside_kube_proxy_with_iptables() {
    policy_is_enforced_beside("iptables");
}
