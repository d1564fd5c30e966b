//! Ports, where the rule names no protocol.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use model::output::{
    CalcMatch, CalcPolicy, CalcRule, EndpointTier, LocalWorkload, Output, SetKind,
};
use model::policy::Stage;
use model::{Action, IpVersion, PolicyId, PolicyKind, Protocol, WorkloadEndpoint, WorkloadId};
use rules::object::{Load, Match};
use rules::{Rules, RulesConfig};

fn id() -> PolicyId {
    let kind = PolicyKind::NetworkPolicy;
    PolicyId { name: "p".into(), namespace: "ns".into(), kind }
}

/// One that has the policy.
fn pod() -> Output {
    let endpoint = WorkloadEndpoint {
        id: WorkloadId { namespace: "ns".into(), name: "pod".into() },
        node: "here".into(),
        iface: "cali1".parse().unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        labels: Arc::default(),
        profiles: vec![],
        ports: vec![],
        allowed_sources: vec![],
    };
    let tier = EndpointTier {
        name: "default".into(),
        default_action: Action::Deny,
        ingress: vec![id()].into(),
        egress: vec![].into(),
    };
    Output::Workload(Arc::new(LocalWorkload { endpoint: Arc::new(endpoint), tiers: vec![tier] }))
}

/// Per rule of the chain: whether it is about protocols with ports only, or about the others only,
/// and whether it asks for ports.
fn rendered(protocol: Option<Protocol>, to: CalcMatch) -> Vec<(Option<bool>, bool)> {
    let rule = CalcRule {
        action: Action::Allow,
        ip_version: None,
        protocol,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch::default(),
        destination: to,
        http: None,
        origin: 0,
    };
    let mut rules = Rules::new(RulesConfig::default());
    let set = Output::Set("svc:x".into(), SetKind::IpPort, vec![]);
    rules.apply(&[
        set,
        Output::Policy(Arc::new(CalcPolicy {
            id: id(),
            tier: "default".into(),
            stage: Stage::Normal,
            staged: false,
            ingress: vec![rule],
            egress: vec![],
        })),
        pod(),
    ]);
    let chain = &rules.tables().of(IpVersion::V4).chains()["pi-np.ns.p"];
    let shape = |when: &Vec<Match>| {
        let with_ports = when.iter().find_map(|m| match m {
            Match::InSet { what, not, .. } if *what == [Load::Proto] => Some(!not),
            _ => None,
        });
        (with_ports, when.iter().any(|m| matches!(m, Match::Ports { .. })))
    };
    chain.rules.iter().map(|r| shape(&r.when)).collect()
}

#[test]
fn a_packet_without_ports_is_on_none() {
    let on = || CalcMatch { ports: vec![(80, 80)], ..CalcMatch::default() };
    let off = || CalcMatch { not_ports: vec![(80, 80)], ..CalcMatch::default() };
    let service = || CalcMatch { service_sets: vec!["svc:x".into()], ..CalcMatch::default() };
    let (tcp, lite) = (Some(Protocol::TCP), Some(Protocol::UDPLITE));
    for (what, protocol, to, wanted) in [
        ("any protocol", None, on(), vec![(Some(true), true)]),
        ("any protocol, not", None, off(), vec![(Some(true), true), (Some(false), false)]),
        ("TCP", tcp, on(), vec![(None, true)]),
        ("TCP, not", tcp, off(), vec![(None, true)]),
        ("no ports", lite, on(), vec![]),
        ("no ports, not", lite, off(), vec![(None, false)]),
        ("nothing", lite, CalcMatch::default(), vec![(None, false)]),
        ("a service without ports", lite, service(), vec![]),
        ("a service", tcp, service(), vec![(None, false)]),
    ] {
        assert_eq!(rendered(protocol, to), wanted, "{what}");
    }
}
