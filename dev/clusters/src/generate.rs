//! Random clusters.

use std::net::IpAddr;
use std::sync::Arc;

use model::endpoint::HostTarget;
use model::policy::{NetworkSet, NetworkSetId, Profile, Stage, Tier};
use model::update::Backend;
use model::{
    Action, HostEndpoint, Policy, PolicyId, PolicyKind, ProfileName, Protocol, Rule,
    WorkloadEndpoint, WorkloadId,
};
use policy::{Failsafe, NodeView, View};
use selector::Selector;

use crate::dice::Dice;
use crate::layout::{self, INTERFACES, NODES, PODS};
use crate::rules::{PORTS, SOURCE_PORTS, labels, named_ports, net, nets, rules, selector, service};

pub(crate) fn workload(d: &mut Dice, pod: u16) -> Arc<WorkloadEndpoint> {
    let mut addresses = layout::pod_addresses(pod);
    if d.one_in(8) {
        addresses.retain(IpAddr::is_ipv4);
    }
    let mut profiles: Vec<ProfileName> = vec![d.pick(&["kns.a", "kns.b"]).into()];
    if d.one_in(4) {
        profiles.push(d.pick(&["ksa.a", "missing"]).into());
    }
    if d.one_in(12) {
        profiles.clear();
    }
    Arc::new(WorkloadEndpoint {
        id: WorkloadId { namespace: "ns".into(), name: format!("w{pod}").into() },
        node: NODES[layout::pod_node(pod)].into(),
        iface: layout::pod_interface(pod).parse().expect("a short name"),
        addresses,
        labels: labels(d, &["app", "role"]),
        profiles,
        ports: named_ports(d),
        allowed_sources: vec![],
    })
}

/// Such policies are about hosts, so that few that select none are worth it.
fn host_selector(d: &mut Dice) -> Selector {
    if d.one_in(3) { selector(d) } else { Selector::parse("kind == 'host'").expect("a literal") }
}

pub(crate) fn policy(d: &mut Dice, n: u64) -> Arc<Policy> {
    let directions = d.roll(4);
    let stage = match d.roll(6) {
        0 => Stage::PreDnat,
        1 => Stage::Untracked,
        _ => Stage::Normal,
    };
    // Before destination NAT there is no egress.
    let pre_dnat = stage == Stage::PreDnat;
    let rules_of = |d: &mut Dice, none: bool| if none { Vec::new() } else { rules(d) };
    Arc::new(Policy {
        id: PolicyId {
            name: format!("p{n}").into(),
            namespace: "".into(),
            kind: d.pick(&[PolicyKind::GlobalNetworkPolicy, PolicyKind::NetworkPolicy]),
        },
        tier: d.pick(&["first", "default", "default", "last"]).into(),
        order: (!d.one_in(4)).then(|| d.roll(3) as f64),
        selector: if stage == Stage::Normal { selector(d) } else { host_selector(d) },
        applies_ingress: directions != 1 || pre_dnat,
        applies_egress: directions != 0 && !pre_dnat,
        ingress: rules(d),
        egress: rules_of(d, pre_dnat),
        stage,
        apply_on_forward: stage != Stage::Normal || d.one_in(4),
        staged: d.one_in(12),
        everywhere: d.one_in(8),
    })
}

pub(crate) fn profile(d: &mut Dice) -> Arc<Profile> {
    let some = |d: &mut Dice| {
        if d.one_in(4) { rules(d) } else { vec![Rule::any(Action::Allow)] }
    };
    let (ingress, egress) = (some(d), some(d));
    Arc::new(Profile { ingress, egress, labels: labels(d, &["pcns.team", "role"]) })
}

pub(crate) fn network_set(d: &mut Dice) -> Arc<NetworkSet> {
    let profiles = if d.one_in(2) { vec!["kns.a".into()] } else { vec![] };
    Arc::new(NetworkSet { labels: labels(d, &["app", "role"]), profiles, nets: nets(d) })
}

pub(crate) fn host(d: &mut Dice, n: u64) -> Arc<HostEndpoint> {
    let node = usize::from(d.one_in(4));
    let interface = d.roll(2) as usize;
    let target = match d.roll(3) {
        0 => HostTarget::Iface(INTERFACES[interface].parse().expect("a short name")),
        1 => HostTarget::All,
        _ => HostTarget::ByAddress,
    };
    let mut addresses = layout::node_addresses(node, interface);
    if target != HostTarget::ByAddress && d.one_in(2) {
        addresses.clear();
    }
    let mut own = (*labels(d, &["app", "role"])).clone();
    own.insert("kind".into(), "host".into());
    let profiles = d.pick(&[vec![], vec!["kns.a".into()], vec!["all".into()]]);
    Arc::new(HostEndpoint {
        name: format!("h{n}").into(),
        node: NODES[node].into(),
        target,
        addresses,
        labels: Arc::new(own),
        profiles,
        ports: named_ports(d),
    })
}

fn failsafe(d: &mut Dice) -> Failsafe {
    let net = d.one_in(3).then(|| net(d));
    let protocol = d.pick(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
    // The others are ports of answers.
    let port = if d.one_in(4) { d.pick(&SOURCE_PORTS) } else { d.pick(&PORTS) };
    Failsafe { protocol, port, net }
}

fn backend(d: &mut Dice) -> Backend {
    let pod = d.roll(PODS.into()) as u16;
    Backend {
        address: d.pick(&layout::pod_addresses(pod)),
        protocol: d.pick(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP]),
        port: d.pick(&PORTS),
    }
}

pub(crate) fn backends(d: &mut Dice) -> Arc<Vec<Backend>> {
    let mut all = d.some(3, backend);
    all.sort_unstable();
    all.dedup();
    Arc::new(all)
}

/// A random cluster on the cables of [`crate::layout`].
pub fn cluster(d: &mut Dice) -> View {
    let mut v = View::default();
    for (n, node) in NODES.iter().enumerate() {
        let interface = |(i, name): (usize, &&str)| {
            (name.parse().expect("a short name"), layout::node_addresses(n, i))
        };
        let interfaces = INTERFACES.iter().enumerate().map(interface).collect();
        v.nodes.insert((*node).into(), NodeView { interfaces });
    }
    for (name, order) in [("first", 1.0), ("default", 2.0), ("last", 3.0)] {
        let likely = if name == "first" { Action::Pass } else { Action::Deny };
        let default_action = d.pick(&[likely, likely, Action::Pass, Action::Deny]);
        v.tiers.insert(name.into(), Tier { name: name.into(), order: Some(order), default_action });
    }
    for name in ["kns.a", "kns.b", "ksa.a"] {
        v.profiles.insert(name.into(), profile(d));
    }
    let all = || vec![Rule::any(Action::Allow)];
    let open = Profile { ingress: all(), egress: all(), ..Profile::default() };
    v.profiles.insert("all".into(), Arc::new(open));
    for pod in 0..PODS {
        let w = workload(d, pod);
        v.workloads.insert(w.id.clone(), w);
    }
    for i in 0..d.roll(3) {
        let id = NetworkSetId { namespace: "".into(), name: format!("s{i}").into() };
        v.network_sets.insert(id, network_set(d));
    }
    let slices = ["slice0", "slice1"].map(|name| (Arc::from(name), backends(d)));
    v.services.insert(service(), slices.into());
    if d.one_in(2) {
        for i in 0..d.roll(4) {
            let h = host(d, i);
            v.hosts.insert(h.name.clone(), h);
        }
    }
    for n in 0..d.roll(7) {
        let p = policy(d, n);
        v.policies.insert(p.id.clone(), p);
    }
    v.failsafe_inbound = d.some(3, failsafe);
    v.failsafe_outbound = d.some(3, failsafe);
    v.endpoint_to_host = d.pick(&[Action::Allow, Action::Deny, Action::Pass]);
    v
}
