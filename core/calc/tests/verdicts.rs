//! Law 9, without a kernel: what a data plane would do with the calculation's outputs is what the
//! specification says of the objects themselves, packet by packet, on whichever node the pod is.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use calc::Calc;
use common::Downstream;
use model::output::{CalcMatch, CalcRule, EndpointTier, Member, SetId};
use model::policy::{EntityMatch, Icmp, NetworkSet, NetworkSetId, Profile, ServiceId, Stage, Tier};
use model::update::Backend;
use model::{
    Action, IpVersion, Labels, NamedPort, NodeName, Policy, PolicyId, PolicyKind, Port,
    ProfileName, Protocol, Rule, Update, WorkloadEndpoint, WorkloadId,
};
use policy::{Direction, Packet, Verdict, View, evaluate};
use proptest::prelude::*;
use selector::Selector;

/// A stream of choices that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()].clone()
    }
}

const NODES: [&str; 2] = ["n0", "n1"];
const PORTS: [u16; 3] = [80, 443, 8080];
const PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
const OUTSIDE: [&str; 3] = ["203.0.113.7", "198.51.100.1", "2001:db8::7"];

fn labels(d: &mut Dice, keys: &[&str]) -> Labels {
    let mut map = BTreeMap::new();
    for key in keys {
        if d.one_in(2) {
            map.insert(Arc::from(*key), Arc::from(d.pick(&["x", "y"])));
        }
    }
    Arc::new(map)
}

fn selector(d: &mut Dice) -> Selector {
    let text = d.pick(&[
        "all()",
        "app == 'x'",
        "app != 'x'",
        "has(role)",
        "!has(role)",
        "role in {'x', 'y'} && app == 'y'",
        "pcns.team == 'x'",
        "app not in {'x'} || pcns.team == 'y'",
    ]);
    Selector::parse(text).unwrap()
}

fn nets(d: &mut Dice) -> Vec<ipnet::IpNet> {
    let one =
        d.pick(&["10.1.0.0/29", "10.1.0.4/30", "203.0.113.0/24", "fd01::/126", "2001:db8::/32"]);
    vec![one.parse().unwrap()]
}

fn ports(d: &mut Dice) -> Vec<Port> {
    let range = |d: &mut Dice| {
        let first = d.pick(&PORTS);
        Port::Range(first, first + u16::try_from(d.roll(2) * 400).unwrap())
    };
    match d.roll(3) {
        0 => vec![Port::Named("web".into())],
        1 => vec![range(d)],
        _ => vec![range(d), Port::Named("web".into())],
    }
}

fn entity(d: &mut Dice, with_ports: bool) -> EntityMatch {
    let mut e = EntityMatch::default();
    if d.one_in(8) {
        e.service = Some(ServiceId { namespace: "ns".into(), name: "svc".into() });
        return e;
    }
    if d.one_in(3) {
        e.selector = Some(selector(d));
    }
    if d.one_in(6) {
        e.not_selector = Some(selector(d));
    }
    if d.one_in(5) {
        e.nets = nets(d);
    }
    if d.one_in(8) {
        e.not_nets = nets(d);
    }
    if with_ports && d.one_in(3) {
        e.ports = ports(d);
    }
    if with_ports && d.one_in(8) {
        e.not_ports = ports(d);
    }
    e
}

fn rule(d: &mut Dice, origin: u32) -> Rule {
    let mut r =
        Rule::any(d.pick(&[Action::Allow, Action::Allow, Action::Deny, Action::Log, Action::Pass]));
    r.origin = origin;
    match d.roll(5) {
        0 => {}
        1 => {
            r.protocol = Some(Protocol::ICMP);
            r.icmp = d.one_in(2).then_some(Icmp { kind: 8, code: None });
        }
        2 => r.not_protocol = Some(d.pick(&PROTOCOLS)),
        _ => r.protocol = Some(d.pick(&PROTOCOLS)),
    }
    if d.one_in(8) {
        r.ip_version = Some(d.pick(&IpVersion::ALL));
    }
    let with_ports = r.protocol.is_some_and(Protocol::has_ports);
    let source_ports = with_ports && d.one_in(4);
    r.source = entity(d, source_ports);
    r.destination = entity(d, with_ports);
    r
}

fn rules(d: &mut Dice) -> Vec<Rule> {
    (0..u32::try_from(d.roll(4)).unwrap()).map(|i| rule(d, i)).collect()
}

fn policy(d: &mut Dice, n: u64) -> Policy {
    let directions = d.roll(3);
    Policy {
        id: PolicyId {
            name: format!("p{n}").into(),
            namespace: "".into(),
            kind: d.pick(&[PolicyKind::GlobalNetworkPolicy, PolicyKind::NetworkPolicy]),
        },
        tier: d.pick(&["first", "default", "last"]).into(),
        order: (!d.one_in(4)).then(|| d.roll(3) as f64),
        selector: selector(d),
        applies_ingress: directions != 1,
        applies_egress: directions != 0,
        ingress: rules(d),
        egress: rules(d),
        stage: Stage::Normal,
        apply_on_forward: d.one_in(5),
        staged: d.one_in(8),
        everywhere: d.one_in(8),
    }
}

fn cluster(d: &mut Dice) -> View {
    let mut v = View::default();
    for (name, order, default_action) in
        [("first", 1.0, Action::Pass), ("default", 2.0, Action::Deny), ("last", 3.0, Action::Deny)]
    {
        v.tiers.insert(name.into(), Tier { name: name.into(), order: Some(order), default_action });
    }
    for ns in ["kns.a", "kns.b"] {
        let all = || vec![Rule::any(Action::Allow)];
        let profile =
            Profile { ingress: all(), egress: all(), labels: labels(d, &["pcns.team", "role"]) };
        v.profiles.insert(ProfileName::from(ns), Arc::new(profile));
    }
    for i in 0..6_u16 {
        let id = WorkloadId { namespace: "ns".into(), name: format!("w{i}").into() };
        let web =
            NamedPort { name: "web".into(), protocol: d.pick(&PROTOCOLS), port: d.pick(&PORTS) };
        let endpoint = WorkloadEndpoint {
            id: id.clone(),
            node: d.pick(&NODES).into(),
            iface: format!("cali{i}").parse().unwrap(),
            addresses: vec![
                format!("10.1.0.{}", i + 1).parse().unwrap(),
                format!("fd01::{}", i + 1).parse().unwrap(),
            ],
            labels: labels(d, &["app", "role"]),
            profiles: vec![d.pick(&["kns.a", "kns.b"]).into()],
            ports: if d.one_in(2) { vec![web] } else { vec![] },
            allowed_sources: vec![],
        };
        v.workloads.insert(id, Arc::new(endpoint));
    }
    for i in 0..d.roll(3) {
        let set =
            NetworkSet { labels: labels(d, &["app", "role"]), profiles: vec![], nets: nets(d) };
        v.network_sets.insert(
            NetworkSetId { namespace: "".into(), name: format!("s{i}").into() },
            Arc::new(set),
        );
    }
    let backend =
        Backend { address: "10.1.0.2".parse().unwrap(), protocol: Protocol::TCP, port: 80 };
    let service = ServiceId { namespace: "ns".into(), name: "svc".into() };
    v.update(Update::ServiceSlice("slice".into(), service, Some(Arc::new(vec![backend]))));
    for n in 0..d.roll(7) {
        let p = policy(d, n);
        v.policies.insert(p.id.clone(), Arc::new(p));
    }
    v
}

/// The view as updates, in an order that the dice decide.
fn updates(v: &View, d: &mut Dice) -> Vec<Update> {
    let mut all = Vec::new();
    all.extend(v.workloads.values().map(|w| Update::Workload(w.id.clone(), Some(w.clone()))));
    all.extend(v.policies.values().map(|p| Update::Policy(p.id.clone(), Some(p.clone()))));
    all.extend(v.tiers.values().map(|t| Update::Tier(t.name.clone(), Some(t.clone()))));
    all.extend(v.profiles.iter().map(|(n, p)| Update::Profile(n.clone(), Some(p.clone()))));
    all.extend(v.network_sets.iter().map(|(n, s)| Update::NetworkSet(n.clone(), Some(s.clone()))));
    for (id, slices) in &v.services {
        let told = |(slice, backends): (&Arc<str>, &Arc<Vec<_>>)| {
            Update::ServiceSlice(slice.clone(), id.clone(), Some(backends.clone()))
        };
        all.extend(slices.iter().map(told));
    }
    for i in (1..all.len()).rev() {
        all.swap(i, usize::try_from(d.roll(i as u64 + 1)).unwrap());
    }
    all.push(Update::InSync);
    all
}

/// What a data plane does with the outputs, read off the words of `model::output`.
struct Interpreter<'a> {
    down: &'a Downstream,
    packet: &'a Packet,
}

impl Interpreter<'_> {
    fn verdict(&self, id: &WorkloadId, direction: Direction) -> Verdict {
        let w = &self.down.workloads[id];
        for tier in &w.tiers {
            let policies = match direction {
                Direction::Ingress => &tier.ingress,
                Direction::Egress => &tier.egress,
            };
            if policies.is_empty() {
                continue;
            }
            match self.tier(policies, direction, tier) {
                Action::Allow => return Verdict::Allow,
                Action::Deny => return Verdict::Deny,
                Action::Pass | Action::Log => {}
            }
        }
        for name in &w.endpoint.profiles {
            let profile = &self.down.profiles[name];
            let rules = match direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            match self.rules(rules) {
                Some(Action::Allow) => return Verdict::Allow,
                Some(Action::Deny) => return Verdict::Deny,
                _ => {}
            }
        }
        Verdict::Deny
    }

    fn tier(&self, policies: &[PolicyId], direction: Direction, tier: &EndpointTier) -> Action {
        for id in policies {
            let policy = &self.down.policies[id];
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            if let Some(action) = self.rules(rules) {
                return action;
            }
        }
        tier.default_action
    }

    fn rules(&self, rules: &[CalcRule]) -> Option<Action> {
        let hits = rules.iter().filter(|r| self.matches(r));
        hits.map(|r| r.action).find(|a| *a != Action::Log)
    }

    fn matches(&self, r: &CalcRule) -> bool {
        let p = self.packet;
        let icmp = |i: &Icmp| {
            p.icmp.is_some_and(|g| g.kind == i.kind && i.code.is_none_or(|c| g.code == Some(c)))
        };
        r.ip_version.is_none_or(|v| v == p.version())
            && r.protocol.is_none_or(|x| x == p.protocol)
            && r.not_protocol.is_none_or(|x| x != p.protocol)
            && r.icmp.as_ref().is_none_or(icmp)
            && !r.not_icmp.as_ref().is_some_and(icmp)
            && self.side(&r.source, p.source, p.source_port)
            && self.side(&r.destination, p.destination, p.destination_port)
    }

    fn side(&self, m: &CalcMatch, address: IpAddr, port: u16) -> bool {
        let in_nets = |nets: &[ipnet::IpNet]| nets.iter().any(|n| n.contains(&address));
        let in_ranges = |ranges: &[(u16, u16)]| {
            self.packet.protocol.has_ports()
                && ranges.iter().any(|(a, b)| (*a..=*b).contains(&port))
        };
        let in_set = |id: &SetId| {
            self.down.sets[id].1.iter().any(|member| match member {
                Member::Net(net) => net.contains(&address),
                Member::IpPort(a, proto, p) => {
                    (*a, *proto, *p) == (address, self.packet.protocol, port)
                }
            })
        };
        (m.nets.is_empty() || in_nets(&m.nets))
            && !in_nets(&m.not_nets)
            && m.sets.iter().all(in_set)
            && !m.not_sets.iter().any(in_set)
            && ((m.ports.is_empty() && m.port_sets.is_empty())
                || in_ranges(&m.ports)
                || m.port_sets.iter().any(in_set))
            && !in_ranges(&m.not_ports)
            && !m.not_port_sets.iter().any(in_set)
            && m.service_sets.iter().all(in_set)
    }
}

fn packets(v: &View) -> Vec<Packet> {
    let mut ends: Vec<IpAddr> = v.workloads.values().flat_map(|w| w.addresses.clone()).collect();
    ends.extend(OUTSIDE.iter().map(|a| a.parse::<IpAddr>().unwrap()));
    let mut all = Vec::new();
    for source in &ends {
        for destination in &ends {
            if source == destination || source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            all.push(Packet::ping(*source, *destination));
            for protocol in PROTOCOLS {
                all.extend(PORTS.map(|p| Packet::to_port(*source, *destination, protocol, p)));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn outputs_mean_what_the_objects_mean(seed: u64) {
        let mut d = Dice(seed);
        let view = cluster(&mut d);
        let mut nodes = BTreeMap::new();
        for node in NODES {
            let mut calc = Calc::new(NodeName::from(node));
            let mut down = Downstream::default();
            for update in updates(&view, &mut d) {
                calc.update(update);
                if d.one_in(4) {
                    down.apply(&calc.flush());
                }
            }
            down.apply(&calc.flush());
            nodes.insert(NodeName::from(node), down);
        }
        for packet in packets(&view) {
            let decision = evaluate(&view, &packet);
            for step in &decision.steps {
                let policy::Point::Workload(id) = &step.point else { continue };
                let down = &nodes[&view.workloads[id].node];
                let got = Interpreter { down, packet: &packet }.verdict(id, step.direction);
                prop_assert_eq!(got, step.verdict, "{:?}\n{:#?}", packet, step);
            }
        }
    }
}
