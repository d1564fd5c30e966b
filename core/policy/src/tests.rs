//! Section 2 of the capability inventory, case by case.

mod path;
mod place;
mod rule;
mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::endpoint::HostTarget;
use model::policy::{EntityMatch, NetworkSet, NetworkSetId, Profile, ServiceId, Stage, Tier};
use model::update::{Backend, Update};
use model::{
    Action, HostEndpoint, NamedPort, NodeName, Policy, PolicyId, PolicyKind, Port, ProfileName,
    Protocol, Rule, WorkloadEndpoint, WorkloadId,
};
use selector::Selector;

use crate::{
    Decision, Direction, Failsafe, NodeView, Overlay, Packet, Reason, Verdict, View, evaluate,
};

fn addr(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> model::Labels {
    Arc::new(pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect::<BTreeMap<_, _>>())
}

/// Two nodes, pods `a` and `b` on n1, `c` on n2 (namespace `ns`, profile allows), tiers as installed.
fn cluster() -> View {
    let mut v = View::default();
    for (name, ip) in [("n1", "10.0.0.1"), ("n2", "10.0.0.2")] {
        let interfaces = vec![(
            "eth0".parse().unwrap(),
            vec![addr(ip), addr(&format!("fd00::{name}").replace('n', ""))],
        )];
        v.nodes.insert(name.into(), NodeView { interfaces });
    }
    for (pod, node, v4, v6) in [
        ("a", "n1", "10.1.0.1", "fd01::1"),
        ("b", "n1", "10.1.0.2", "fd01::2"),
        ("c", "n2", "10.1.1.1", "fd01::11"),
    ] {
        let id = WorkloadId { namespace: "ns".into(), name: pod.into() };
        let ports = vec![NamedPort { name: "web".into(), protocol: Protocol::TCP, port: 8080 }];
        let endpoint = WorkloadEndpoint {
            id: id.clone(),
            node: node.into(),
            iface: format!("cali{pod}").parse().unwrap(),
            addresses: vec![addr(v4), addr(v6)],
            labels: labels(&[("app", pod), ("projectcalico.org/namespace", "ns")]),
            profiles: vec!["kns.ns".into()],
            ports,
            allowed_sources: vec![],
        };
        v.workloads.insert(id, Arc::new(endpoint));
    }
    let profile = Profile {
        ingress: vec![Rule::any(Action::Allow)],
        egress: vec![Rule::any(Action::Allow)],
        labels: labels(&[("pcns.team", "red")]),
    };
    v.profiles.insert(ProfileName::from("kns.ns"), Arc::new(profile));
    for (name, order, default_action) in [
        ("kube-admin", 1e3, Action::Pass),
        ("default", 1e6, Action::Deny),
        ("kube-baseline", 1e7, Action::Pass),
    ] {
        v.tiers.insert(name.into(), Tier { name: name.into(), order: Some(order), default_action });
    }
    v
}

fn policy(
    name: &str,
    selector: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Policy {
    Policy {
        id: PolicyId {
            name: name.into(),
            namespace: "".into(),
            kind: PolicyKind::GlobalNetworkPolicy,
        },
        tier: "default".into(),
        order: Some(100.0),
        selector: Selector::parse(selector).unwrap(),
        applies_ingress: ingress.is_some(),
        applies_egress: egress.is_some(),
        ingress: ingress.unwrap_or_default(),
        egress: egress.unwrap_or_default(),
        stage: Stage::Normal,
        apply_on_forward: false,
        staged: false,
        everywhere: false,
    }
}

fn with(mut v: View, policies: impl IntoIterator<Item = Policy>) -> View {
    for p in policies {
        v.policies.insert(p.id.clone(), Arc::new(p));
    }
    v
}

fn from(selector: &str) -> Rule {
    let mut rule = Rule::any(Action::Allow);
    rule.source.selector = Some(Selector::parse(selector).unwrap());
    rule
}

fn tcp(v: &View, source: &str, destination: &str, port: u16) -> Decision {
    evaluate(v, &Packet::to_port(addr(source), addr(destination), Protocol::TCP, port))
}

#[track_caller]
fn expect(what: &str, d: &Decision, direction: Direction, verdict: Verdict, reason: Reason) {
    let step = d.of(direction).unwrap_or_else(|| panic!("{what}: no {direction:?} step in {d:#?}"));
    assert_eq!((step.verdict, step.reason), (verdict, reason), "{what}: {d:#?}");
}

use Direction::{Egress, Ingress};
use Verdict::{Allow, Deny};

#[test]
fn without_policy_the_namespace_profile_decides() {
    let mut v = cluster();
    expect("profile", &tcp(&v, "10.1.0.1", "10.1.1.1", 80), Ingress, Allow, Reason::Profile);
    expect("family", &tcp(&v, "fd01::1", "fd01::11", 80), Ingress, Allow, Reason::Profile);
    v.profiles.clear();
    expect("missing", &tcp(&v, "10.1.0.1", "10.1.1.1", 80), Egress, Deny, Reason::Profile);
}

#[test]
fn selection_isolates_in_the_selected_direction_only() {
    let v = with(cluster(), [policy("p", "app == 'c'", Some(vec![from("app == 'a'")]), None)]);
    expect("allowed", &tcp(&v, "10.1.0.1", "10.1.1.1", 80), Ingress, Allow, Reason::Rule);
    expect("other pod", &tcp(&v, "10.1.0.2", "10.1.1.1", 80), Ingress, Deny, Reason::TierDefault);
    expect("way out", &tcp(&v, "10.1.1.1", "10.1.0.2", 80), Ingress, Allow, Reason::Profile);
}

#[test]
fn both_ends_must_allow() {
    let v = with(
        cluster(),
        [
            policy("in", "app == 'c'", Some(vec![Rule::any(Action::Allow)]), None),
            policy("out", "app == 'a'", None, Some(vec![])),
        ],
    );
    let d = tcp(&v, "10.1.0.1", "10.1.1.1", 80);
    assert_eq!(d.verdict, Deny);
    expect("egress", &d, Egress, Deny, Reason::TierDefault);
    expect("ingress", &d, Ingress, Allow, Reason::Rule);
}

#[test]
fn order_then_name_decides_and_a_missing_order_is_last() {
    let mut deny = policy("b-deny", "all()", Some(vec![Rule::any(Action::Deny)]), None);
    let mut allow = policy("a-allow", "all()", Some(vec![Rule::any(Action::Allow)]), None);
    let verdict = |v: &View| tcp(v, "10.1.0.1", "10.1.0.2", 80).verdict;
    assert_eq!(verdict(&with(cluster(), [deny.clone(), allow.clone()])), Allow, "name breaks ties");
    deny.order = Some(99.0);
    assert_eq!(verdict(&with(cluster(), [deny.clone(), allow.clone()])), Deny, "lower first");
    (deny.order, allow.order) = (None, Some(1e300));
    assert_eq!(verdict(&with(cluster(), [deny, allow])), Allow, "none is last");
}

#[test]
fn pass_and_tier_defaults() {
    let mut admin = policy("admin", "all()", Some(vec![Rule::any(Action::Pass)]), None);
    admin.tier = "kube-admin".into();
    admin.ingress[0].protocol = Some(Protocol::TCP);
    let deny = policy("deny", "app == 'b'", Some(vec![]), None);
    let mut base = policy("base", "all()", Some(vec![Rule::any(Action::Deny)]), None);
    base.tier = "kube-baseline".into();
    let v = with(cluster(), [admin.clone(), deny.clone(), base.clone()]);
    let d = tcp(&v, "10.1.0.1", "10.1.0.2", 80);
    expect("default tier ends", &d, Ingress, Deny, Reason::TierDefault);
    let d = tcp(&v, "10.1.0.2", "10.1.0.1", 80);
    expect("baseline reached where default selects nothing", &d, Ingress, Deny, Reason::Rule);
    assert_eq!(d.of(Ingress).unwrap().tier.as_ref().unwrap().as_str(), "kube-baseline");
    let mut staged = deny;
    staged.staged = true;
    let v = with(cluster(), [staged]);
    expect("staged", &tcp(&v, "10.1.0.1", "10.1.0.2", 80), Ingress, Allow, Reason::Profile);
}

#[test]
fn log_goes_on_and_trace_names_the_field() {
    let mut wrong = Rule::any(Action::Deny);
    wrong.destination.ports = vec![Port::Range(81, 90)];
    wrong.protocol = Some(Protocol::TCP);
    let rules = vec![Rule::any(Action::Log), wrong, Rule::any(Action::Allow)];
    let v = with(cluster(), [policy("p", "app == 'b'", Some(rules), None)]);
    let d = tcp(&v, "10.1.0.1", "10.1.0.2", 80);
    let step = d.of(Ingress).unwrap();
    let failed: Vec<_> = step.considered.iter().map(|c| c.failed).collect();
    assert_eq!(failed, [None, Some("destination.ports"), None]);
    assert_eq!(step.verdict, Allow);
}

/// A rule with one thing set, and whether a TCP packet a:40000 -> b:8080 matches it.
#[test]
fn rule_fields() {
    let side = |f: &dyn Fn(&mut EntityMatch)| {
        let mut e = EntityMatch::default();
        f(&mut e);
        e
    };
    let sel = |s: &str| Some(Selector::parse(s).unwrap());
    let web = || vec![Port::Named("web".into())];
    let net = |s: &str| vec![s.parse().unwrap()];
    let dst: Vec<(&str, EntityMatch, bool)> = vec![
        ("net", side(&|e| e.nets = net("10.1.0.0/24")), true),
        ("other net", side(&|e| e.nets = net("10.2.0.0/16")), false),
        ("net of the other family", side(&|e| e.nets = net("fd01::/16")), false),
        ("not net", side(&|e| e.not_nets = net("10.1.0.2/32")), false),
        ("not net of the other family", side(&|e| e.not_nets = net("::/0")), true),
        ("selector", side(&|e| e.selector = sel("app == 'b'")), true),
        ("inherited label", side(&|e| e.selector = sel("pcns.team == 'red'")), true),
        ("own label wins", side(&|e| e.selector = sel("app == 'c'")), false),
        ("not selector", side(&|e| e.not_selector = sel("app == 'b'")), false),
        ("network set", side(&|e| e.selector = sel("set == 'yes'")), true),
        ("port range", side(&|e| e.ports = vec![Port::Range(8000, 8080)]), true),
        ("not port", side(&|e| e.not_ports = vec![Port::Range(8080, 8080)]), false),
        ("named port", side(&|e| e.ports = web()), true),
        (
            "named port or number",
            side(&|e| e.ports = vec![Port::Named("x".into()), Port::Range(8080, 8080)]),
            true,
        ),
        ("not named port", side(&|e| e.not_ports = web()), false),
        (
            "named port of other pods",
            side(&|e| (e.ports, e.selector) = (web(), sel("app == 'c'"))),
            false,
        ),
        ("service", side(&|e| e.service = Some(service("svc"))), true),
        ("absent service", side(&|e| e.service = Some(service("gone"))), false),
    ];
    let mut v = cluster();
    let set = NetworkSet {
        labels: labels(&[("set", "yes")]),
        profiles: vec![],
        nets: net("10.1.0.2/32"),
    };
    v.network_sets.insert(NetworkSetId { namespace: "".into(), name: "s".into() }, Arc::new(set));
    let backend = Backend { address: addr("10.1.0.2"), protocol: Protocol::TCP, port: 8080 };
    v.update(Update::ServiceSlice("slice".into(), service("svc"), Some(Arc::new(vec![backend]))));
    for (what, destination, matches) in dst {
        let rule = Rule { protocol: Some(Protocol::TCP), destination, ..Rule::any(Action::Allow) };
        let v = with(v.clone(), [policy("p", "app == 'b'", Some(vec![rule]), None)]);
        let got = tcp(&v, "10.1.0.1", "10.1.0.2", 8080).verdict == Allow;
        assert_eq!(got, matches, "{what}");
    }
}

#[test]
fn what_a_host_sends_to_a_service_is_judged_as_it_leaves() {
    let mut v = cluster();
    v.hosts.insert("hep".into(), Arc::new(host_endpoint(eth0())));
    let only = Rule {
        protocol: Some(Protocol::TCP),
        destination: EntityMatch { ports: vec![Port::Range(8080, 8080)], ..EntityMatch::default() },
        ..Rule::any(Action::Allow)
    };
    let mut v = with(v, [policy("p", "role == 'host'", None, Some(vec![only]))]);
    let ask = |v: &View, to: &str, port, service_port| {
        let packet = Packet::to_port(addr("10.0.0.1"), addr(to), Protocol::TCP, port);
        let original = Some((addr("10.96.0.1"), service_port));
        evaluate(v, &Packet { original, ..packet }).verdict
    };
    assert_eq!(ask(&v, "203.0.113.7", 8080, 80), Allow, "the backend's port counts");
    assert_eq!(ask(&v, "203.0.113.7", 80, 8080), Deny, "that of the service does not");
    assert_eq!(ask(&v, "10.1.0.1", 80, 80), Allow, "a pod of this host, whatever eth0 says");
    assert_eq!(ask(&v, "10.0.0.1", 80, 80), Allow, "and the host itself");
    assert_eq!(ask(&v, "10.1.1.1", 80, 80), Deny, "a pod of another node, routed by eth0");
    v.overlay = Overlay::Tunnelled;
    assert_eq!(ask(&v, "10.1.1.1", 80, 80), Allow, "in a tunnel, which has no endpoint");
    let mut raw = policy("raw", "role == 'host'", None, Some(vec![Rule::any(Action::Deny)]));
    (raw.stage, raw.apply_on_forward) = (Stage::Untracked, true);
    let v = with(v, [raw]);
    for to in ["203.0.113.7", "10.1.0.1", "10.1.1.1", "10.0.0.1"] {
        assert_eq!(ask(&v, to, 8080, 80), Deny, "{to}: before it is translated it leaves by eth0");
    }
}

fn service(name: &str) -> ServiceId {
    ServiceId { namespace: "ns".into(), name: name.into() }
}

fn host_endpoint(target: HostTarget) -> HostEndpoint {
    HostEndpoint {
        name: "hep".into(),
        node: NodeName::from("n1"),
        target,
        addresses: vec![addr("10.0.0.1")],
        labels: labels(&[("role", "host")]),
        profiles: vec![],
        ports: vec![],
    }
}

#[test]
fn host_endpoints() {
    let ssh = |v: &View| tcp(v, "203.0.113.7", "10.0.0.1", 22);
    let mut v = cluster();
    expect("no endpoint", &ssh(&v), Ingress, Allow, Reason::NotAnEndpoint);
    for target in
        [HostTarget::Iface("eth0".parse().unwrap()), HostTarget::ByAddress, HostTarget::All]
    {
        v.hosts.insert("hep".into(), Arc::new(host_endpoint(target)));
        expect("no policy, no profile", &ssh(&v), Ingress, Deny, Reason::NoProfile);
        expect(
            "other node",
            &tcp(&v, "203.0.113.7", "10.0.0.2", 22),
            Ingress,
            Allow,
            Reason::NotAnEndpoint,
        );
    }
    let through = tcp(&v, "203.0.113.7", "10.1.0.1", 80);
    assert_eq!(through.verdict, Allow, "forwarded traffic is allowed without applyOnForward");
    v.failsafe_inbound = vec![Failsafe { protocol: Protocol::TCP, port: 22, net: None }];
    let v = with(v, [policy("deny", "role == 'host'", Some(vec![Rule::any(Action::Deny)]), None)]);
    expect("failsafe", &ssh(&v), Ingress, Allow, Reason::Failsafe);
    expect("deny", &tcp(&v, "203.0.113.7", "10.0.0.1", 80), Ingress, Deny, Reason::Rule);
    for (kind, verdict) in [(133, Allow), (135, Allow), (136, Allow), (128, Deny), (137, Deny)] {
        let ping = Packet::ping(addr("2001:db8::7"), addr("fd00::1"));
        let icmp = Some(model::policy::Icmp { kind, code: Some(0) });
        let decision = evaluate(&v, &Packet { icmp, ..ping });
        assert_eq!(decision.verdict, verdict, "neighbour discovery, type {kind}");
    }
}

#[test]
fn forward_policy_sees_what_its_interface_carries() {
    let mut v = cluster();
    v.hosts
        .insert("hep".into(), Arc::new(host_endpoint(HostTarget::Iface("eth0".parse().unwrap()))));
    let mut deny = policy("fwd", "role == 'host'", Some(vec![Rule::any(Action::Deny)]), None);
    deny.apply_on_forward = true;
    let mut v = with(v, [deny]);
    assert_eq!(tcp(&v, "10.1.1.1", "10.1.0.1", 80).verdict, Deny, "routed");
    v.overlay = Overlay::Tunnelled;
    assert_eq!(tcp(&v, "10.1.1.1", "10.1.0.1", 80).verdict, Allow, "inside the tunnel");
    assert_eq!(tcp(&v, "203.0.113.7", "10.1.0.1", 80).verdict, Deny, "from outside");
}

#[test]
fn forward_policy_of_a_wildcard_sees_pods_too() {
    let (a, b, c) = ("10.1.0.1", "10.1.0.2", "10.1.1.1");
    let mut v = cluster();
    v.hosts.insert("hep".into(), Arc::new(host_endpoint(HostTarget::All)));
    let deny = || Some(vec![Rule::any(Action::Deny)]);
    for (what, ingress, egress, from_a) in
        [("in", deny(), None, [Deny, Deny]), ("out", None, deny(), [Deny, Deny])]
    {
        let mut fwd = policy("fwd", "role == 'host'", ingress, egress);
        fwd.apply_on_forward = true;
        let v = with(v.clone(), [fwd]);
        let got = [b, c].map(|to| tcp(&v, a, to, 80).verdict);
        assert_eq!(got, from_a, "{what}");
        assert_eq!(tcp(&v, c, a, 80).verdict, Deny, "{what}: into a pod");
        assert_eq!(tcp(&v, "10.0.0.1", a, 80).verdict, Allow, "{what}: not forwarded");
        assert_eq!(tcp(&v, c, "10.0.0.2", 80).verdict, Deny, "{what}: endpoint to host");
    }
}

#[test]
fn pods_and_their_own_host() {
    let mut v = with(cluster(), [policy("deny", "all()", Some(vec![]), None)]);
    expect("host to pod", &tcp(&v, "10.0.0.1", "10.1.0.1", 80), Ingress, Allow, Reason::SameHost);
    expect(
        "other host to pod",
        &tcp(&v, "10.0.0.2", "10.1.0.1", 80),
        Ingress,
        Deny,
        Reason::TierDefault,
    );
    expect(
        "pod to host, DROP",
        &tcp(&v, "10.1.0.1", "10.0.0.1", 80),
        Ingress,
        Deny,
        Reason::SameHost,
    );
    v.endpoint_to_host = Action::Allow;
    expect(
        "pod to host, ACCEPT",
        &tcp(&v, "10.1.0.1", "10.0.0.1", 80),
        Ingress,
        Allow,
        Reason::SameHost,
    );
}

#[test]
fn icmp_types_and_codes() {
    let mut echo = Rule::any(Action::Allow);
    echo.protocol = Some(Protocol::ICMP);
    echo.icmp = Some(model::policy::Icmp { kind: 8, code: None });
    let v = with(cluster(), [policy("ping", "app == 'b'", Some(vec![echo]), None)]);
    assert_eq!(evaluate(&v, &Packet::ping(addr("10.1.0.1"), addr("10.1.0.2"))).verdict, Allow);
    assert_eq!(evaluate(&v, &Packet::ping(addr("fd01::1"), addr("fd01::2"))).verdict, Deny);
    assert_eq!(tcp(&v, "10.1.0.1", "10.1.0.2", 8).verdict, Deny);
}

/// Policy of a host endpoint `hep` at `eth0` of n1, with a profile that allows.
fn early(stage: Stage, target: HostTarget, ingress: Vec<Rule>, egress: Vec<Rule>) -> View {
    let mut v = cluster();
    let mut hep = host_endpoint(target);
    hep.profiles = vec!["kns.ns".into()];
    v.hosts.insert("hep".into(), Arc::new(hep));
    let mut p = policy("early", "role == 'host'", Some(ingress), Some(egress));
    (p.stage, p.apply_on_forward) = (stage, true);
    v.failsafe_inbound = vec![Failsafe { protocol: Protocol::TCP, port: 22, net: None }];
    v.failsafe_outbound = vec![Failsafe { protocol: Protocol::TCP, port: 6443, net: None }];
    with(v, [p])
}

fn eth0() -> HostTarget {
    HostTarget::Iface("eth0".parse().unwrap())
}

#[test]
fn policy_before_nat_and_tracking_is_final_or_silent() {
    let (outside, node, pod) = ("203.0.113.7", "10.0.0.1", "10.1.0.1");
    let deny_80 = || {
        let ports = vec![Port::Range(80, 80)];
        let destination = EntityMatch { ports, ..EntityMatch::default() };
        Rule { protocol: Some(Protocol::TCP), destination, ..Rule::any(Action::Deny) }
    };
    for stage in [Stage::PreDnat, Stage::Untracked] {
        let v = early(stage, eth0(), vec![deny_80()], vec![]);
        for (to, port, verdict) in
            [(node, 80, Deny), (node, 81, Allow), (pod, 80, Deny), (pod, 81, Allow)]
        {
            let d = tcp(&v, outside, to, port);
            assert_eq!(d.verdict, verdict, "{stage:?} to {to}:{port}: {d:#?}");
            assert_eq!(d.of(Ingress).unwrap().stage == stage, verdict == Deny, "{stage:?}");
        }
        // Allowed early: what follows of the host is not asked, what follows of the pod is.
        let mut closed = policy("closed", "all()", Some(vec![]), None);
        closed.apply_on_forward = true;
        let open = early(stage, eth0(), vec![Rule::any(Action::Allow)], vec![]);
        let v = with(open, [closed]);
        assert_eq!(tcp(&v, outside, node, 80).verdict, Allow, "{stage:?}");
        let d = tcp(&v, outside, pod, 80);
        let verdicts: Vec<_> = d.steps.iter().map(|s| s.verdict).collect();
        assert_eq!(verdicts, [Allow, Allow, Deny], "{stage:?}: outside, host, pod");
        let v = early(stage, eth0(), vec![Rule::any(Action::Deny)], vec![]);
        assert_eq!(tcp(&v, outside, node, 22).verdict, Allow, "{stage:?}: failsafe");
    }
}

#[test]
fn what_was_asked_for_is_judged_before_nat() {
    let mut node_port = Rule::any(Action::Deny);
    node_port.destination.nets = vec!["10.0.0.1/32".parse().unwrap()];
    let v = early(Stage::PreDnat, eth0(), vec![node_port], vec![]);
    let routed = Packet::to_port(addr("203.0.113.7"), addr("10.1.0.1"), Protocol::TCP, 80);
    assert_eq!(evaluate(&v, &routed).verdict, Allow);
    let original = Some((addr("10.0.0.1"), 30080));
    assert_eq!(evaluate(&v, &Packet { original, ..routed }).verdict, Deny);
    let failsafe = Some((addr("10.0.0.1"), 22));
    assert_eq!(evaluate(&v, &Packet { original: failsafe, ..routed }).verdict, Allow);
}

#[test]
fn who_is_asked_before_nat_and_tracking() {
    let deny = || vec![Rule::any(Action::Deny)];
    let (outside, node, pod, other) = ("203.0.113.7", "10.0.0.1", "10.1.0.1", "10.0.0.2");
    let cases: [(&str, Stage, HostTarget, [Verdict; 5]); 4] = [
        ("by name", Stage::PreDnat, eth0(), [Deny, Deny, Allow, Allow, Allow]),
        ("wildcard, pods too", Stage::PreDnat, HostTarget::All, [Deny, Deny, Allow, Deny, Deny]),
        // Only what starts at the host passes the hook on the way out.
        ("untracked", Stage::Untracked, eth0(), [Deny, Deny, Deny, Allow, Allow]),
        ("no wildcard", Stage::Untracked, HostTarget::All, [Allow, Allow, Allow, Allow, Allow]),
    ];
    for (what, stage, target, expected) in cases {
        let mut v = early(stage, target, deny(), deny());
        v.endpoint_to_host = Action::Allow;
        let ways = [(outside, node), (outside, pod), (node, outside), (pod, other), (pod, node)];
        let got = ways.map(|(from, to)| tcp(&v, from, to, 80).verdict);
        assert_eq!(got, expected, "{what}");
    }
    // Answers of and to failsafe ports look like questions before connection tracking.
    let v = early(Stage::Untracked, eth0(), deny(), deny());
    let answer = |from, to, source_port| {
        let packet = Packet::to_port(addr(from), addr(to), Protocol::TCP, 40_000);
        evaluate(&v, &Packet { source_port, ..packet }).verdict
    };
    assert_eq!([answer(node, outside, 22), answer(outside, node, 6443)], [Allow, Allow]);
    assert_eq!([answer(node, outside, 6443), answer(outside, node, 22)], [Deny, Deny]);
}
