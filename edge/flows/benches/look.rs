//! What a change of policy costs on a node with 100,000 flows, of which one pod has ten: the time that
//! the thread of its own takes, and the time of the apply loop.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails and tells by these"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flows::Cutter;
use model::output::{
    CalcMatch, CalcPolicy, CalcProfile, CalcRule, EndpointTier, LocalWorkload, Output,
};
use model::policy::Stage;
use model::{Action, PolicyId, PolicyKind, WorkloadEndpoint, WorkloadId};
use netlink::codec::Request;
use netlink::{Error, Socket};
use rules::{Rules, RulesConfig};
use testkit::in_netns;

const FLOWS: u32 = 100_000;
const OF_THE_POD: u32 = 10;
const ROUNDS: usize = 9;
const AF_INET: u8 = 2;
const POD: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);

/// An entry of UDP, as if two packets had passed.
fn entry(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Request {
    let tuple = |r: Request, from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2]| {
        r.nest(1, |r| r.attr_ip(1, from.into()).attr_ip(2, to.into()))
            .nest(2, |r| r.attr_u8(1, 17).attr_be16(2, ports[0]).attr_be16(3, ports[1]))
    };
    let header = [AF_INET, 0, 0, 0];
    Request::new("make a flow", 1 << 8, 0x400, &header)
        .nest(1, |r| tuple(r, source, destination, [port, 53]))
        .nest(2, |r| tuple(r, destination, source, [53, port]))
        .attr(7, &3600u32.to_be_bytes())
}

fn fill() {
    let mut socket = Socket::open_protocol(12).unwrap();
    let requests: Vec<_> = (0..FLOWS)
        .map(|i| {
            let other = Ipv4Addr::from(0x0a42_0000 + i % 5_000);
            let source = if i < OF_THE_POD { POD } else { other };
            entry(source, Ipv4Addr::from(0x0a43_0000 + i / 40), 1_024 + (i % 60_000) as u16)
        })
        .collect();
    for answer in socket.batch(&requests).unwrap() {
        answer.map_err(|refusal| Error::Refused { what: "make a flow", refusal }).unwrap();
    }
}

fn policy(action: Action, version: u32) -> Output {
    let kind = PolicyKind::NetworkPolicy;
    let rule = CalcRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch::default(),
        destination: CalcMatch::default(),
        http: None,
        origin: version,
    };
    Output::Policy(Arc::new(CalcPolicy {
        id: PolicyId { name: "p".into(), namespace: "ns".into(), kind },
        tier: "default".into(),
        stage: Stage::Normal,
        staged: false,
        ingress: vec![rule.clone()],
        egress: vec![rule],
    }))
}

fn pod() -> Output {
    let endpoint = WorkloadEndpoint {
        id: WorkloadId { namespace: "ns".into(), name: "pod".into() },
        node: "n".into(),
        iface: "cali1".parse().unwrap(),
        addresses: vec![POD.into()],
        labels: Arc::default(),
        profiles: vec!["kns.ns".into()],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    let kind = PolicyKind::NetworkPolicy;
    let id = || PolicyId { name: "p".into(), namespace: "ns".into(), kind };
    let tier = EndpointTier {
        name: "default".into(),
        default_action: Action::Deny,
        ingress: vec![id()].into(),
        egress: vec![id()].into(),
    };
    Output::Workload(Arc::new(LocalWorkload { endpoint: Arc::new(endpoint), tiers: vec![tier] }))
}

/// Until the flows were looked at: how many were judged, the time of this thread, and that of all.
fn look(cutter: &mut Cutter, rules: &mut Rules) -> (i64, Duration, Duration) {
    let judged = cutter.metrics().judged.get();
    let (started, mut here) = (Instant::now(), Duration::ZERO);
    loop {
        let begun = Instant::now();
        let _ = cutter.poll(rules);
        here += begun.elapsed();
        if cutter.is_idle() {
            return (cutter.metrics().judged.get() - judged, here, started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn main() {
    in_netns(|| {
        testkit::sh(
            "ip link add cali1 type veth peer name pod; ip link set pod up; ip link set cali1 up
             ip route add 10.65.0.2 dev cali1
             ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up
             ip addr add 192.0.2.1/24 dev eth0; ip route add default dev eth0",
        );
        fill();
        let mut rules = Rules::new(RulesConfig::default());
        let profile = CalcProfile { name: "kns.ns".into(), ingress: vec![], egress: vec![] };
        rules.apply(&[policy(Action::Allow, 0), Output::Profile(Arc::new(profile)), pod()]);
        rules.apply(&[Output::InSync]);
        let mut cutter = Cutter::open(rules.cut_bit().unwrap(), || {}).unwrap();
        let (judged, ..) = look(&mut cutter, &mut rules);
        assert_eq!(judged, i64::from(OF_THE_POD));
        for (what, net) in [("one pod of 100,000 flows", false), ("all of 100,000 flows", true)] {
            let (mut here, mut there) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                if net {
                    // A change that may concern anybody.
                    cutter.switch(false);
                    cutter.switch(true);
                } else {
                    rules.apply(&[policy(Action::Allow, 1 + round as u32)]);
                }
                let before = cutter.looked();
                let (judged, loop_time, _) = look(&mut cutter, &mut rules);
                assert_eq!(judged, i64::from(if net { FLOWS } else { OF_THE_POD }));
                here.push(loop_time);
                there.push(cutter.looked().checked_sub(before).unwrap());
            }
            println!(
                "flows: {what}: {:?} of its own thread, {:?} of the apply loop (p50 of {ROUNDS})",
                median(there),
                median(here)
            );
        }
    });
}
