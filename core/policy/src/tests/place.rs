//! Which host endpoint speaks for an interface, and what no policy can forbid (2.2, 2.3).

use model::policy::Icmp;

use super::*;

/// A node whose interfaces are `eth0` (the way out), `eth1` and `eth2`.
fn with_interfaces() -> View {
    let mut v = cluster();
    let interfaces = [("eth0", "10.0.0.1"), ("eth1", "10.0.1.1"), ("eth2", "10.0.2.1")];
    let interfaces = interfaces.map(|(name, ip)| (name.parse().unwrap(), vec![addr(ip)]));
    v.nodes.insert("n1".into(), NodeView { interfaces: interfaces.into() });
    v
}

fn iface(name: &str) -> HostTarget {
    HostTarget::Iface(name.parse().unwrap())
}

/// An explicit name beats an expected address, that beats the wildcard; of several the lowest name.
#[test]
fn which_host_endpoint_speaks_for_an_interface() {
    let eth1 = || vec![addr("10.0.1.1")];
    type Named = (&'static str, HostTarget, Vec<IpAddr>);
    type Case = (&'static str, Vec<Named>, [Option<&'static str>; 3]);
    let cases: [Case; 7] = [
        ("none", vec![], [None, None, None]),
        ("by name", vec![("a", iface("eth1"), vec![])], [None, Some("a"), None]),
        (
            "by name, whatever it expects",
            vec![("a", iface("eth2"), eth1())],
            [None, None, Some("a")],
        ),
        ("by address", vec![("a", HostTarget::ByAddress, eth1())], [None, Some("a"), None]),
        (
            "name, address, wildcard",
            vec![
                ("a", HostTarget::All, eth1()),
                ("b", HostTarget::ByAddress, vec![addr("10.0.2.1"), addr("10.0.1.1")]),
                ("c", iface("eth1"), vec![]),
            ],
            [Some("a"), Some("c"), Some("b")],
        ),
        (
            "the lowest name",
            vec![
                ("b", iface("eth1"), vec![]),
                ("a", iface("eth1"), vec![]),
                ("z", HostTarget::ByAddress, vec![addr("10.0.2.1")]),
                ("y", HostTarget::ByAddress, vec![addr("10.0.2.1")]),
                ("w", HostTarget::All, vec![]),
                ("v", HostTarget::All, vec![]),
            ],
            [Some("v"), Some("a"), Some("y")],
        ),
        ("an address of none", vec![("a", HostTarget::ByAddress, vec![])], [None, None, None]),
    ];
    for (what, endpoints, expected) in cases {
        let mut v = with_interfaces();
        for (name, target, addresses) in endpoints {
            let hep = HostEndpoint { name: name.into(), addresses, ..host_endpoint(target) };
            v.hosts.insert(name.into(), Arc::new(hep));
        }
        let got = ["10.0.0.1", "10.0.1.1", "10.0.2.1"].map(|to| {
            let decision = tcp(&v, "203.0.113.7", to, 80);
            match &decision.of(Ingress).unwrap().point {
                crate::Point::Host(name, forwarded) => {
                    assert!(!forwarded, "{what}");
                    Some(name.to_string())
                }
                _ => None,
            }
        });
        assert_eq!(got, expected.map(|name| name.map(String::from)), "{what}: eth0, eth1, eth2");
    }
}

/// A pod's multicast listener and neighbour discovery reaches its own host, whatever its egress policy
/// and `DefaultEndpointToHostAction` say; other ICMPv6 does not, nor does ICMP of these numbers.
#[test]
fn neighbour_discovery_from_a_pod_to_its_host() {
    let v = with(cluster(), [policy("deny", "all()", None, Some(vec![]))]);
    assert_eq!(v.endpoint_to_host, Action::Deny);
    let from = |source, destination, kind| {
        let ping = Packet::ping(addr(source), addr(destination));
        evaluate(&v, &Packet { icmp: Some(Icmp { kind, code: Some(0) }), ..ping })
    };
    for kind in 0..=u8::MAX {
        let allowed = [130, 131, 132, 133, 135, 136].contains(&kind);
        let decision = from("fd01::1", "fd00::1", kind);
        assert_eq!(decision.verdict == Allow, allowed, "ICMPv6 type {kind}");
        expect("host", &decision, Ingress, if allowed { Allow } else { Deny }, Reason::SameHost);
        assert_eq!(from("10.1.0.1", "10.0.0.1", kind).verdict, Deny, "ICMP type {kind}");
    }
    // Open to the host, closed by the pod's own policy; and the other way round.
    let mut open = v.clone();
    open.endpoint_to_host = Action::Allow;
    let closed = cluster();
    for (what, v, verdicts) in [
        ("policy", &open, [Deny, Allow]),
        ("host", &closed, [Allow, Deny]),
        ("both", &v, [Deny; 2]),
    ] {
        let decision = tcp(v, "10.1.0.1", "10.0.0.1", 80);
        let got = [Egress, Ingress].map(|direction| decision.of(direction).unwrap().verdict);
        assert_eq!(got, verdicts, "closed by {what}");
    }
}

/// A failsafe port is one protocol's, of one direction, and of the far ends that it names.
#[test]
fn failsafe_ports() {
    let mut v = cluster();
    v.hosts.insert("hep".into(), Arc::new(host_endpoint(eth0())));
    let net = Some("203.0.113.0/24".parse().unwrap());
    v.failsafe_inbound = vec![Failsafe { protocol: Protocol::TCP, port: 22, net }];
    v.failsafe_outbound = vec![Failsafe { protocol: Protocol::UDP, port: 53, net }];
    let (near, far, host) = ("203.0.113.7", "198.51.100.7", "10.0.0.1");
    for (what, from, to, protocol, port, verdict) in [
        ("inbound", near, host, Protocol::TCP, 22, Allow),
        ("inbound, another port", near, host, Protocol::TCP, 53, Deny),
        ("inbound, another protocol", near, host, Protocol::UDP, 22, Deny),
        ("inbound, another far end", far, host, Protocol::TCP, 22, Deny),
        ("inbound, what is outbound", near, host, Protocol::UDP, 53, Deny),
        ("outbound", host, near, Protocol::UDP, 53, Allow),
        ("outbound, another port", host, near, Protocol::UDP, 22, Deny),
        ("outbound, another protocol", host, near, Protocol::TCP, 53, Deny),
        ("outbound, another far end", host, far, Protocol::UDP, 53, Deny),
        ("outbound, what is inbound", host, near, Protocol::TCP, 22, Deny),
    ] {
        let packet = Packet::to_port(addr(from), addr(to), protocol, port);
        let decision = evaluate(&v, &packet);
        assert_eq!(decision.verdict, verdict, "{what}: {decision:#?}");
    }
}

/// A host endpoint that was asked and is silent says what it looked at; one without rules says nothing.
#[test]
fn silence_is_told_with_the_rules_that_were_looked_at() {
    let other = || Rule { protocol: Some(Protocol::SCTP), ..Rule::any(Action::Deny) };
    let ask = |rules: Vec<Rule>, stage| {
        let mut v = early(stage, eth0(), rules, vec![]);
        // What no rule of a tier matches goes on to the next one, and out of the last one.
        v.tiers.get_mut(&model::TierName::from("default")).unwrap().default_action = Action::Pass;
        let decision = tcp(&v, "203.0.113.7", "10.1.0.1", 80);
        let steps: Vec<_> = decision.steps.iter().map(|s| (s.reason, s.considered.len())).collect();
        assert_eq!(decision.verdict, Allow);
        steps
    };
    let (outside, pod) = ((Reason::NotAnEndpoint, 0), (Reason::Profile, 1));
    for stage in [Stage::Normal, Stage::PreDnat, Stage::Untracked] {
        assert_eq!(ask(vec![], stage), [outside, pod], "{stage:?}");
        let silent = (Reason::Undecided, 2);
        assert_eq!(ask(vec![other(), other()], stage), [outside, silent, pod], "{stage:?}");
    }
    // Before a failsafe port is found open, early policy that has no word on it was asked.
    let v = early(Stage::Untracked, eth0(), vec![other()], vec![]);
    let early = tcp(&v, "203.0.113.7", "10.0.0.1", 22);
    let step = early.of(Ingress).unwrap();
    assert_eq!((step.reason, step.considered.len()), (Reason::Failsafe, 0), "exempt, not asked");
}
