//! One verdict where a pod has 294 policies of 68 rules, a quarter of them with one of 3,708 network sets
//! (256,000 prefixes in all); and who reaches whom among 10,000 pods with 1,000 policies.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use model::policy::{EntityMatch, NetworkSet, NetworkSetId, Profile, Stage, Tier};
use model::{
    Action, Labels, Policy, PolicyId, PolicyKind, Port, Protocol, Rule, WorkloadEndpoint,
    WorkloadId,
};
use policy::{Judge, Packet, View};
use selector::Selector;

fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    let pairs = pairs.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v)));
    Arc::new(pairs.collect::<BTreeMap<_, _>>())
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn net(n: u32, prefix: u8) -> IpNet {
    IpNet::new(address(n), prefix).expect("is a prefix").trunc()
}

/// A view without pods, whose profiles let everything pass.
fn empty() -> View {
    let mut view = View::default();
    for (name, ..) in Tier::BUILT_IN {
        view.tiers.insert(name.into(), Tier::built_in(name).expect("is built in"));
    }
    view
}

/// A pod of namespace `n-{namespace}`, on one of a hundred nodes.
fn pod(view: &mut View, n: u32, namespace: u32, labels: Labels) {
    let namespace = format!("n-{namespace}");
    let profile = format!("kns.{namespace}");
    let all = || vec![Rule::any(Action::Allow)];
    let open = Profile { ingress: all(), egress: all(), labels: Labels::default() };
    view.profiles.entry(profile.as_str().into()).or_insert_with(|| Arc::new(open));
    let id = WorkloadId { namespace: namespace.into(), name: format!("pod-{n}").into() };
    let pod = WorkloadEndpoint {
        id: id.clone(),
        node: format!("node-{}", n % 100).into(),
        iface: "cali0".parse().expect("is an interface name"),
        addresses: vec![address(n)],
        labels,
        profiles: vec![profile.as_str().into()],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    view.workloads.insert(id, Arc::new(pod));
}

fn policy(view: &mut View, name: String, selector: &str, ingress: Vec<Rule>) {
    let kind = PolicyKind::GlobalNetworkPolicy;
    let id = PolicyId { name: name.into(), namespace: "".into(), kind };
    let policy = Policy {
        id: id.clone(),
        tier: "default".into(),
        order: None,
        selector: Selector::parse(selector).expect("is a selector"),
        applies_ingress: true,
        applies_egress: false,
        ingress,
        egress: Vec::new(),
        stage: Stage::Normal,
        apply_on_forward: false,
        staged: false,
        everywhere: false,
    };
    view.policies.insert(id, Arc::new(policy));
}

fn to_port(port: u16, source: EntityMatch) -> Rule {
    let destination =
        EntityMatch { ports: vec![Port::Range(port, port)], ..EntityMatch::default() };
    Rule { protocol: Some(Protocol::TCP), source, destination, ..Rule::any(Action::Allow) }
}

fn from(selector: &str) -> EntityMatch {
    let selector = Some(Selector::parse(selector).expect("is a selector"));
    EntityMatch { selector, ..EntityMatch::default() }
}

/// The last rule of all is the one that matches.
fn production() -> View {
    let mut view = empty();
    for n in 0..101 {
        pod(&mut view, n, 0, Labels::default());
    }
    for set in 0..3_708 {
        let size = if set == 0 { 54_566 } else { 54 };
        let nets = (0..size).map(|n| net(0x0010_0000 + set * 300 + n, 32)).collect();
        let id = NetworkSetId { namespace: "".into(), name: format!("set-{set}").into() };
        let labels = labels([("set", set.to_string())]);
        let set = NetworkSet { labels, nets, profiles: Vec::new() };
        view.network_sets.insert(id, Arc::new(set));
    }
    for p in 0..294_u32 {
        let rule = |r: u32| match (p * 68 + r) % 4 {
            0 => {
                let source = from(&format!("set == '{}'", (p * 68 + r) % 3_708));
                to_port(8_080, source)
            }
            1 => to_port(10_000 + r as u16, EntityMatch::default()),
            _ => {
                let nets = vec![net(0x0080_0000 + (p * 68 + r) * 256, 24)];
                to_port(8_080, EntityMatch { nets, ..EntityMatch::default() })
            }
        };
        let mut rules: Vec<Rule> = (0..68).map(rule).collect();
        if p == 293 {
            rules[67] = to_port(8_080, EntityMatch::default());
        }
        policy(&mut view, format!("p-{p:03}"), "all()", rules);
    }
    view
}

/// A hundred namespaces of a hundred pods, twenty applications in each; ten policies a namespace: each
/// lets in a neighbour, a partner from another namespace, or a prefix with a hole.
fn many() -> View {
    let mut view = empty();
    for n in 0..10_000 {
        let (namespace, app) = (n / 100, n % 20);
        let labels = labels([
            ("projectcalico.org/namespace", format!("n-{namespace}")),
            ("app", format!("app-{app}")),
            ("pod-template-hash", format!("{}", n % 25)),
        ]);
        pod(&mut view, n, namespace, labels);
    }
    for p in 0..1_000 {
        let (namespace, app) = (p / 10, p % 10);
        let here = format!("projectcalico.org/namespace == 'n-{namespace}'");
        let there = format!("projectcalico.org/namespace == 'n-{}'", (namespace + 7 * app) % 100);
        let nets = vec![net(p * 10, 20)];
        let not_nets = vec![net(p * 10, 26)];
        let rules = vec![
            to_port(8_080, from(&format!("{here} && app == 'app-{}'", app + 1))),
            to_port(8_080, from(&format!("{there} && app == 'app-{}'", app + 5))),
            to_port(8_080, EntityMatch { nets, not_nets, ..EntityMatch::default() }),
        ];
        policy(&mut view, format!("p-{p}"), &format!("{here} && app == 'app-{app}'"), rules);
    }
    view
}

fn verdicts(c: &mut Criterion) {
    let view = production();
    let judge = Judge::new(&view);
    let packet = |n| Packet::to_port(address(n), address(100), Protocol::TCP, 8_080);
    let packets: Vec<Packet> = (0..100).map(packet).collect();
    let mut group = c.benchmark_group("policy/verdict");
    let mut at = 0;
    group.bench_function("decide", |b| {
        b.iter(|| {
            at = (at + 1) % packets.len();
            judge.decide(black_box(&packets[at]))
        });
    });
    group.sample_size(10);
    group.bench_function("evaluate", |b| b.iter(|| judge.evaluate(black_box(&packets[0]))));
    group.finish();
}

fn matrix(c: &mut Criterion) {
    let view = many();
    let addresses: Vec<IpAddr> = (0..10_000).map(address).collect();
    let like = Packet::to_port(address(0), address(1), Protocol::TCP, 8_080);
    let mut group = c.benchmark_group("policy/matrix");
    group.sample_size(10);
    group.bench_function("10,000 pods, 1,000 policies", |b| {
        b.iter(|| Judge::new(black_box(&view)).reach(&addresses, &like));
    });
    group.finish();
}

criterion_group!(benches, verdicts, matrix);
criterion_main!(benches);
