//! Small worlds, as the calculation would describe them.
#![allow(dead_code, reason = "each test file uses some")]

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::endpoint::HostTarget;
use model::output::{
    CalcMatch, CalcPolicy, CalcProfile, CalcRule, Encap, EndpointTier, LocalHost, LocalWorkload,
    Member, Output, Route, RouteKind, SetKind,
};
use model::policy::{Icmp, Stage};
use model::{
    Action, HostEndpoint, IpVersion, PolicyId, PolicyKind, Protocol, WorkloadEndpoint, WorkloadId,
};

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn member(text: &str) -> Member {
    Member::Net(text.parse().unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap())))
}

pub(crate) fn rule(action: Action) -> CalcRule {
    CalcRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch::default(),
        destination: CalcMatch::default(),
        http: None,
        origin: 0,
    }
}

pub(crate) fn allow() -> CalcRule {
    rule(Action::Allow)
}

pub(crate) fn deny() -> CalcRule {
    rule(Action::Deny)
}

pub(crate) fn policy_id(name: &str) -> PolicyId {
    PolicyId { name: name.into(), namespace: "default".into(), kind: PolicyKind::NetworkPolicy }
}

pub(crate) fn policy(name: &str, ingress: Vec<CalcRule>, egress: Vec<CalcRule>) -> Output {
    Output::Policy(Arc::new(CalcPolicy {
        id: policy_id(name),
        tier: "default".into(),
        stage: Stage::Normal,
        staged: false,
        ingress,
        egress,
    }))
}

/// As [`policy`], before connection tracking or destination NAT.
pub(crate) fn early(stage: Stage, name: &str, rules: [Vec<CalcRule>; 2]) -> Output {
    let [ingress, egress] = rules;
    let (id, tier) = (policy_id(name), "default".into());
    Output::Policy(Arc::new(CalcPolicy { id, tier, stage, staged: false, ingress, egress }))
}

/// A rule about TCP to a port.
pub(crate) fn to_port(action: Action, port: u16) -> CalcRule {
    let mut r = rule(action);
    r.protocol = Some(Protocol::TCP);
    r.destination.ports = vec![(port, port)];
    r
}

pub(crate) fn profile(name: &str, rules: Vec<CalcRule>) -> Output {
    let (ingress, egress) = (rules.clone(), rules);
    Output::Profile(Arc::new(CalcProfile { name: name.into(), ingress, egress }))
}

pub(crate) fn tier(name: &str, ingress: &[&str], egress: &[&str]) -> EndpointTier {
    let ids = |names: &[&str]| names.iter().map(|n| policy_id(n)).collect();
    EndpointTier {
        name: name.into(),
        default_action: Action::Deny,
        ingress: ids(ingress),
        egress: ids(egress),
    }
}

pub(crate) fn pod_id(name: &str) -> WorkloadId {
    WorkloadId { namespace: "default".into(), name: name.into() }
}

pub(crate) fn pod(
    name: &str,
    iface: &str,
    addresses: &[&str],
    tiers: Vec<EndpointTier>,
) -> LocalWorkload {
    let endpoint = WorkloadEndpoint {
        id: pod_id(name),
        node: "n1".into(),
        iface: iface.parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        labels: Arc::default(),
        profiles: vec!["kns.default".into()],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    LocalWorkload { endpoint: Arc::new(endpoint), tiers }
}

pub(crate) fn host(name: &str, target: HostTarget) -> LocalHost {
    let endpoint = HostEndpoint {
        name: name.into(),
        node: "n1".into(),
        target,
        addresses: Vec::new(),
        labels: Arc::default(),
        profiles: Vec::new(),
        ports: Vec::new(),
    };
    let endpoint = Arc::new(endpoint);
    let none = Vec::new;
    LocalHost { endpoint, normal: none(), forward: none(), pre_dnat: none(), untracked: none() }
}

pub(crate) fn pool(cidr: &str, nat_outgoing: bool) -> Output {
    Output::Route(Route {
        dst: net(cidr),
        kind: RouteKind::Pool,
        node: None,
        node_address: None,
        same_subnet: false,
        encap: Encap::None,
        nat_outgoing,
    })
}

/// Outputs in the order of the calculation.
#[derive(Default)]
pub(crate) struct Scenario(pub(crate) Vec<Output>);

impl Scenario {
    pub(crate) fn outputs(self) -> Vec<Output> {
        self.0
    }

    pub(crate) fn two_pods() -> Self {
        let mut web = allow();
        web.protocol = Some(Protocol::TCP);
        web.source.sets = vec!["s:clients".into()];
        web.destination.ports = vec![(80, 80)];
        let mut b =
            pod("b", "cali2", &["10.65.0.3", "fd00:65::3"], vec![tier("default", &["web"], &[])]);
        let extra = vec![net("192.0.2.0/24"), net("fd00:99::/64")];
        Arc::get_mut(&mut b.endpoint).unwrap().allowed_sources = extra;
        Self(vec![
            Output::Set(
                "s:clients".into(),
                SetKind::Net,
                vec![member("10.65.0.2"), member("fd00:65::2")],
            ),
            policy("web", vec![web], vec![]),
            profile("kns.default", vec![allow()]),
            Output::Workload(Arc::new(pod("a", "cali1", &["10.65.0.2", "fd00:65::2"], vec![]))),
            Output::Workload(Arc::new(b)),
        ])
    }

    /// A rule for each kind of condition and action.
    pub(crate) fn every_field() -> Self {
        let addresses = vec![member("10.0.0.0/8"), member("10.1.0.0/16"), member("fd00::/16")];
        let tuple = |a: &str, p| Member::IpPort(a.parse().unwrap(), Protocol::TCP, p);
        let tuples = vec![tuple("10.65.0.3", 8080), tuple("fd00:65::3", 8080)];
        let with = |change: &dyn Fn(&mut CalcRule)| {
            let mut r = allow();
            change(&mut r);
            r
        };
        let icmp = |kind, code| Some(Icmp { kind, code });
        let mut rules = vec![
            with(&|r| r.ip_version = Some(IpVersion::V6)),
            with(&|r| r.not_protocol = Some(Protocol::UDP)),
            with(&|r| r.source.nets = vec![net("10.0.0.0/9")]),
            with(&|r| {
                r.source.nets = vec![net("10.0.0.0/8"), net("192.168.0.0/16"), net("fd00::/8")];
            }),
            with(&|r| r.destination.not_nets = vec![net("10.0.0.0/8"), net("10.1.0.0/16")]),
            with(&|r| r.destination.not_nets = vec![net("fd00::/8")]),
            with(&|r| r.source.sets = vec!["s:nets".into()]),
            with(&|r| r.destination.not_sets = vec!["s:nets".into()]),
            with(&|r| r.destination.service_sets = vec!["svc:x".into()]),
            with(&|r| r.destination.port_sets = vec!["n:http".into()]),
            with(&|r| r.source.not_port_sets = vec!["n:http".into()]),
            with(&|r| {
                r.protocol = Some(Protocol::TCP);
                r.source.ports = vec![(1024, 65535)];
                r.destination.ports = vec![(80, 80), (443, 445), (446, 450)];
                r.destination.port_sets = vec!["n:http".into()];
            }),
            with(&|r| {
                r.protocol = Some(Protocol::SCTP);
                r.destination.not_ports = vec![(1, 99)];
                r.source.not_ports = vec![(5, 5), (65535, 65535)];
            }),
            with(&|r| {
                r.protocol = Some(Protocol::ICMP);
                r.icmp = icmp(8, None);
            }),
            with(&|r| {
                r.protocol = Some(Protocol::ICMP);
                r.not_icmp = icmp(3, Some(4));
            }),
            with(&|r| {
                r.protocol = Some(Protocol::ICMPV6);
                r.icmp = icmp(128, Some(0));
            }),
            with(&|r| r.protocol = Some(Protocol::UDPLITE)),
            rule(Action::Log),
            rule(Action::Pass),
            rule(Action::Deny),
        ];
        for (i, r) in rules.iter_mut().enumerate() {
            r.origin = i as u32;
        }
        Self(vec![
            Output::Set("s:nets".into(), SetKind::Net, addresses),
            Output::Set("n:http".into(), SetKind::IpPort, tuples.clone()),
            Output::Set("svc:x".into(), SetKind::IpPort, tuples),
            policy("all-fields", rules, vec![]),
            Output::Workload(Arc::new(pod(
                "a",
                "cali1",
                &["10.65.0.2", "fd00:65::2"],
                vec![tier("default", &["all-fields"], &[])],
            ))),
        ])
    }

    /// Policy before connection tracking and before destination NAT.
    pub(crate) fn early_hosts() -> Self {
        let mut answer = to_port(Action::Allow, 53);
        std::mem::swap(&mut answer.source.ports, &mut answer.destination.ports);
        let mut named = host("named", HostTarget::Iface("eth0".parse().unwrap()));
        named.untracked = vec![tier("default", &["dns"], &["dns"])];
        let mut wildcard = host("every", HostTarget::All);
        wildcard.pre_dnat = vec![tier("default", &["node-ports"], &[])];
        let node_ports = vec![to_port(Action::Allow, 30080), rule(Action::Deny)];
        let dns = [vec![to_port(Action::Allow, 53)], vec![answer]];
        Self(vec![
            early(Stage::Untracked, "dns", dns),
            early(Stage::PreDnat, "node-ports", [node_ports, vec![]]),
            Output::Host(Arc::new(named)),
            Output::Host(Arc::new(wildcard)),
            Output::HostAddresses("n2".into(), vec!["172.18.0.2".parse().unwrap()]),
        ])
    }

    pub(crate) fn hosts() -> Self {
        let eth0 = || HostTarget::Iface("eth0".parse().unwrap());
        let mut named = host("named", eth0());
        named.normal = vec![tier("default", &["ssh"], &[])];
        named.forward = vec![tier("default", &["ssh"], &["ssh"])];
        let wildcard = host("every", HostTarget::All);
        let mut ssh = allow();
        ssh.protocol = Some(Protocol::TCP);
        ssh.destination.ports = vec![(2222, 2222)];
        let addresses = |a: &str| vec![a.parse().unwrap()];
        Self(vec![
            policy("ssh", vec![ssh.clone()], vec![ssh]),
            Output::Host(Arc::new(named)),
            Output::Host(Arc::new(wildcard)),
            pool("10.65.0.0/16", true),
            pool("10.66.0.0/16", false),
            pool("fd00:65::/64", true),
            Output::HostAddresses("n2".into(), addresses("172.18.0.2")),
            Output::HostAddresses("n3".into(), addresses("fd18::3")),
        ])
    }
}
