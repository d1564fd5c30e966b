//! The apply loop over drivers that write down what they are told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane::tunnels::TunnelConfig;
use dataplane::{Config, Connections, Dataplane, DriverError, Network, Outcome, Policies, Refused};
use ipnet::IpNet;
use model::endpoint::HostTarget;
use model::network::Node;
use model::output::{LocalHost, LocalWorkload, Output};
use model::{
    HostEndpoint, HostInterface, IfaceName, InSync, IpVersion, NextHop, Tunnel, TunnelEnd,
    WorkloadEndpoint, WorkloadId,
};

/// What the drivers did, in order, and how they shall behave.
#[derive(Default)]
struct World {
    log: Vec<String>,
    policies_fail: bool,
    swept: bool,
    network_refuses: bool,
    interfaces: BTreeMap<IfaceName, HostInterface>,
    interfaces_changed: bool,
    kernel_pods: BTreeSet<String>,
    kernel_routes: BTreeMap<IpNet, NextHop>,
    tunnel_ports: Vec<u16>,
}

#[derive(Default, Clone)]
struct Fake {
    world: Rc<RefCell<World>>,
    interfaces: BTreeMap<IfaceName, HostInterface>,
    pods: BTreeSet<String>,
    routes: BTreeMap<IpNet, NextHop>,
}

impl Policies for Fake {
    fn feed(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Workload(w) => drop(self.pods.insert(w.endpoint.id.to_string())),
                Output::WorkloadGone(id) => drop(self.pods.remove(&id.to_string())),
                Output::Host(host) => {
                    let line = format!("host {} {:?}", host.endpoint.name, host.endpoint.target);
                    self.world.borrow_mut().log.push(line);
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, _: Option<&InSync>) -> Result<Outcome, DriverError> {
        let mut world = self.world.borrow_mut();
        if world.policies_fail {
            return Err(DriverError("busy".into()));
        }
        let changed = world.kernel_pods != self.pods;
        let World { log, kernel_pods, .. } = &mut *world;
        log.extend(self.pods.difference(kernel_pods).map(|pod| format!("policy +{pod}")));
        log.extend(kernel_pods.difference(&self.pods).map(|pod| format!("policy -{pod}")));
        kernel_pods.clone_from(&self.pods);
        Ok(Outcome { changed, refused: Vec::new() })
    }
}

impl Network for Fake {
    fn poll(&mut self) -> Result<bool, DriverError> {
        let mut world = self.world.borrow_mut();
        self.interfaces.clone_from(&world.interfaces);
        Ok(std::mem::take(&mut world.interfaces_changed))
    }
    fn host_interfaces(&self) -> &BTreeMap<IfaceName, HostInterface> {
        &self.interfaces
    }
    fn want_route(&mut self, dst: IpNet, hop: Option<NextHop>) {
        match hop {
            Some(hop) => drop(self.routes.insert(dst, hop)),
            None => drop(self.routes.remove(&dst)),
        }
    }
    fn want_tunnel(&mut self, _: IpVersion, tunnel: Option<Tunnel>) {
        self.world.borrow_mut().tunnel_ports.extend(tunnel.map(|tunnel| tunnel.port));
    }
    fn want_tunnel_end(&mut self, _: IpAddr, _: Option<TunnelEnd>) {}
    fn has_route(&self, dst: &IpNet) -> bool {
        self.world.borrow().kernel_routes.contains_key(dst)
    }
    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError> {
        let mut world = self.world.borrow_mut();
        world.swept |= in_sync.is_some();
        if world.network_refuses {
            let refused = Refused { object: "route".into(), error: "no".into() };
            return Ok(Outcome { changed: false, refused: vec![refused] });
        }
        let World { log, kernel_routes, .. } = &mut *world;
        let added = self.routes.keys().filter(|dst| !kernel_routes.contains_key(dst));
        log.extend(added.map(|dst| format!("route +{dst}")));
        let gone = kernel_routes.keys().filter(|dst| !self.routes.contains_key(dst));
        log.extend(gone.map(|dst| format!("route -{dst}")));
        kernel_routes.clone_from(&self.routes);
        Ok(Outcome { changed: true, refused: Vec::new() })
    }
}

impl Connections for Fake {
    fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), DriverError> {
        let mut world = self.world.borrow_mut();
        world.log.extend(addresses.iter().map(|a| format!("forget {a}")));
        Ok(())
    }
}

struct Bench {
    world: Rc<RefCell<World>>,
    dataplane: Dataplane<Fake, Fake, Fake>,
}

impl Bench {
    fn new() -> Self {
        let fake = Fake::default();
        let world = fake.world.clone();
        let config = Config::new("node".into());
        Self { world, dataplane: Dataplane::new(config, fake.clone(), fake.clone(), fake) }
    }

    fn apply(&mut self) -> (dataplane::Applied, Vec<String>) {
        let applied = self.dataplane.apply(Some(&InSync::for_tests()));
        (applied, std::mem::take(&mut self.world.borrow_mut().log))
    }
}

fn id(name: &str) -> WorkloadId {
    WorkloadId { namespace: "ns".into(), name: name.into() }
}

fn pod(name: &str, addresses: &[&str]) -> Output {
    let endpoint = WorkloadEndpoint {
        id: id(name),
        node: "node".into(),
        iface: format!("cali{name}").parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        labels: Arc::default(),
        profiles: Vec::new(),
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    Output::Workload(Arc::new(LocalWorkload { endpoint: Arc::new(endpoint), tiers: Vec::new() }))
}

#[test]
fn a_route_follows_its_policy_and_leaves_before_it() {
    let mut bench = Bench::new();
    let generation = bench.dataplane.feed(&[pod("a", &["10.0.0.1", "fd00::1"])]);
    assert!(!bench.dataplane.is_in_force(&id("a")));
    let (applied, log) = bench.apply();
    assert_eq!(log, ["policy +ns/a", "route +10.0.0.1/32", "route +fd00::1/128"]);
    assert_eq!((applied.generation, applied.retry_after), (generation, None));
    assert!(bench.dataplane.is_in_force(&id("a")));
    bench.dataplane.feed(&[pod("a", &["10.0.0.2"])]);
    let (_, log) = bench.apply();
    assert_eq!(
        log,
        [
            "route +10.0.0.2/32",
            "route -10.0.0.1/32",
            "route -fd00::1/128",
            "forget 10.0.0.1",
            "forget fd00::1"
        ]
    );
    bench.dataplane.feed(&[Output::WorkloadGone(id("a"))]);
    let (_, log) = bench.apply();
    assert_eq!(log, ["route -10.0.0.2/32", "policy -ns/a", "forget 10.0.0.2"]);
    assert!(!bench.dataplane.is_in_force(&id("a")));
}

#[test]
fn another_configuration_is_in_force_once_it_is_applied() {
    let mut bench = Bench::new();
    bench.apply();
    bench.world.borrow_mut().policies_fail = true;
    let tunnels = TunnelConfig { port: 8472, ..TunnelConfig::default() };
    let (generation, policies) = bench.dataplane.configure(tunnels);
    policies.pods.insert("ns/told".into());
    bench.apply();
    assert!(bench.dataplane.generation_in_force() < generation, "the rules are not there yet");
    bench.world.borrow_mut().policies_fail = false;
    let (applied, log) = bench.apply();
    assert_eq!((applied.generation, log), (generation, vec!["policy +ns/told".to_owned()]));
    assert_eq!(bench.world.borrow().tunnel_ports, [0; 0], "a node without tunnel addresses");

    let node = Node {
        addresses: vec!["192.0.2.1/24".parse().unwrap()],
        vxlan_addresses: vec!["10.65.0.0".parse().unwrap()],
        ..Node::default()
    };
    bench.dataplane.feed(&[Output::ThisNode(Arc::new(node))]);
    bench.apply();
    bench.dataplane.configure(TunnelConfig { port: 4790, ..tunnels });
    bench.apply();
    assert_eq!(bench.world.borrow().tunnel_ports, [8472, 4790]);
}

#[test]
fn without_its_policy_no_pod_gets_a_route_and_others_keep_theirs() {
    let mut bench = Bench::new();
    bench.dataplane.feed(&[pod("a", &["10.0.0.1"])]);
    bench.apply();
    bench.world.borrow_mut().policies_fail = true;
    let generation = bench.dataplane.feed(&[pod("b", &["10.0.0.2"])]);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let (applied, log) = bench.apply();
        assert_eq!(log, [""; 0]);
        assert!(applied.generation < generation);
        assert_eq!(applied.failures[0].driver, "policies");
        pauses.push(applied.retry_after.unwrap());
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!((pauses[0], pauses[11]), (Duration::from_millis(50), Duration::from_secs(10)));
    assert!(bench.dataplane.is_in_force(&id("a")) && !bench.dataplane.is_in_force(&id("b")));
    bench.world.borrow_mut().policies_fail = false;
    let (applied, log) = bench.apply();
    assert_eq!(log, ["policy +ns/b", "route +10.0.0.2/32"]);
    assert_eq!((applied.generation, applied.retry_after), (generation, None));
}

#[test]
fn leftover_routes_are_not_swept_while_a_pod_waits_for_its_policy() {
    let mut bench = Bench::new();
    bench.world.borrow_mut().policies_fail = true;
    bench.dataplane.feed(&[pod("a", &["10.0.0.1"])]);
    bench.dataplane.feed(&[pod("b", &["10.0.0.2"]), Output::WorkloadGone(id("b"))]);
    bench.apply();
    assert!(!bench.world.borrow().swept, "the route of pod a may be there from the last run");
    bench.world.borrow_mut().policies_fail = false;
    bench.apply();
    assert!(bench.world.borrow().swept);
}

#[test]
fn a_changed_pod_is_in_force_only_with_its_new_policy() {
    let mut bench = Bench::new();
    bench.dataplane.feed(&[pod("a", &["10.0.0.1"])]);
    bench.apply();
    bench.world.borrow_mut().policies_fail = true;
    bench.dataplane.feed(&[pod("a", &["10.0.0.1"])]);
    bench.apply();
    assert!(!bench.dataplane.is_in_force(&id("a")));
}

#[test]
fn what_the_network_refuses_is_tried_again_and_does_not_hold_policies_back() {
    let mut bench = Bench::new();
    bench.world.borrow_mut().network_refuses = true;
    let generation = bench.dataplane.feed(&[pod("a", &["10.0.0.1"])]);
    let (applied, log) = bench.apply();
    assert_eq!(log, ["policy +ns/a"]);
    assert_eq!((applied.generation, applied.refused.len()), (generation, 1));
    assert!(applied.retry_after.is_some() && applied.failures.is_empty());
    assert!(!bench.dataplane.is_in_force(&id("a")));
    bench.world.borrow_mut().network_refuses = false;
    let (applied, _) = bench.apply();
    assert_eq!(applied.retry_after, None);
    assert!(bench.dataplane.is_in_force(&id("a")));
}

#[test]
fn an_address_that_changes_hands_in_one_batch_keeps_a_route() {
    for order in [0, 1] {
        let mut bench = Bench::new();
        bench.dataplane.feed(&[pod("a", &["10.0.0.1"])]);
        bench.apply();
        let mut batch = vec![Output::WorkloadGone(id("a")), pod("b", &["10.0.0.1"])];
        batch.rotate_left(order);
        bench.dataplane.feed(&batch);
        bench.apply();
        assert!(bench.dataplane.is_in_force(&id("b")), "order {order}");
        let hop = NextHop::Link("calib".parse().unwrap());
        assert_eq!(bench.world.borrow().kernel_routes.values().next(), Some(&hop));
    }
}

#[test]
fn host_endpoints_follow_the_addresses_of_interfaces() {
    let mut bench = Bench::new();
    let endpoint = HostEndpoint {
        name: "hep".into(),
        node: "node".into(),
        target: HostTarget::ByAddress,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        labels: Arc::default(),
        profiles: Vec::new(),
        ports: Vec::new(),
    };
    bench.dataplane.feed(&[Output::Host(Arc::new(LocalHost {
        endpoint: Arc::new(endpoint),
        normal: Vec::new(),
        forward: Vec::new(),
        pre_dnat: Vec::new(),
        untracked: Vec::new(),
    }))]);
    assert_eq!(bench.apply().1, [""; 0], "no interface has the address yet");
    {
        let mut world = bench.world.borrow_mut();
        let addresses = ["192.0.2.1".parse().unwrap()].into();
        let interface = HostInterface { running: true, mtu: 1400, addresses };
        world.interfaces.insert("eth0".parse().unwrap(), interface);
        world.interfaces_changed = true;
    }
    let (_, log) = bench.apply();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("host hep Iface") && log[0].contains("eth0"), "{log:?}");
    assert_eq!(bench.dataplane.pod_mtu(), 1400);
    assert_eq!(bench.apply().1, [""; 0]);
}
