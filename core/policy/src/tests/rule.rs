//! What one rule matches (1.3, 2.6): each field on packets that have it and on packets that all but have it.

use model::policy::Icmp;
use model::{IpVersion, NodeName};

use super::*;

const A: &str = "10.1.0.1";
const B: &str = "10.1.0.2";

fn port(protocol: Protocol, port: u16) -> Packet {
    Packet::to_port(addr(A), addr(B), protocol, port)
}

/// Whether the ingress rule of pod `b`, in a tier that drops everything else, lets the packet pass.
fn matches(v: &View, rule: Rule, packet: &Packet) -> bool {
    let v = with(v.clone(), [policy("p", "app == 'b'", Some(vec![rule]), None)]);
    evaluate(&v, packet).of(Ingress).unwrap().verdict == Allow
}

#[test]
fn version_and_protocol() {
    let v4 = port(Protocol::TCP, 80);
    let v6 = Packet::to_port(addr("fd01::1"), addr("fd01::2"), Protocol::TCP, 80);
    let udp = port(Protocol::UDP, 80);
    let any = || Rule::any(Action::Allow);
    for (what, rule, expected) in [
        ("anything", any(), [true, true, true]),
        ("IPv4", Rule { ip_version: Some(IpVersion::V4), ..any() }, [true, false, true]),
        ("IPv6", Rule { ip_version: Some(IpVersion::V6), ..any() }, [false, true, false]),
        ("TCP", Rule { protocol: Some(Protocol::TCP), ..any() }, [true, true, false]),
        ("not TCP", Rule { not_protocol: Some(Protocol::TCP), ..any() }, [false, false, true]),
    ] {
        let got = [v4, v6, udp].map(|packet| matches(&cluster(), rule.clone(), &packet));
        assert_eq!(got, expected, "{what}: TCP, TCP over IPv6, UDP");
    }
}

/// A type without a code means every code of it; both must be equal, and a packet that is not ICMP has
/// neither.
#[test]
fn icmp_type_and_code() {
    let ping = Packet::ping(addr(A), addr(B));
    let icmp = |kind, code| Packet { icmp: Some(Icmp { kind, code: Some(code) }), ..ping };
    let packets = [icmp(3, 1), icmp(3, 4), icmp(11, 1), port(Protocol::TCP, 3)];
    for (what, kind, code, expected) in [
        ("type", 3, None, [true, true, false, false]),
        ("type and code", 3, Some(1), [true, false, false, false]),
        ("code 0", 3, Some(0), [false, false, false, false]),
    ] {
        let icmp = Some(Icmp { kind, code });
        let of = |rule: Rule| packets.map(|p| matches(&cluster(), rule.clone(), &p));
        assert_eq!(of(Rule { icmp, ..Rule::any(Action::Allow) }), expected, "{what}");
        let not = Rule { not_icmp: icmp, ..Rule::any(Action::Allow) };
        assert_eq!(of(not), expected.map(|it| !it), "not {what}");
    }
}

/// A named port is a port of the endpoint at that address, under that name, with its protocol: of a pod
/// or a host endpoint. A number is nobody's.
#[test]
fn named_ports_are_resolved_by_endpoint() {
    let mut v = cluster();
    let named = |name: &str, protocol, port| NamedPort { name: name.into(), protocol, port };
    let id = WorkloadId { namespace: "ns".into(), name: "b".into() };
    let pod = Arc::make_mut(v.workloads.get_mut(&id).unwrap());
    pod.ports = vec![
        named("web", Protocol::TCP, 8080),
        named("dns", Protocol::UDP, 53),
        named("dns", Protocol::TCP, 53),
    ];
    let to = |ports: &[&str], protocol| {
        let ports = ports.iter().map(|name| Port::Named((*name).into())).collect();
        let destination = EntityMatch { ports, ..EntityMatch::default() };
        Rule { protocol, destination, ..Rule::any(Action::Allow) }
    };
    let (tcp, udp, sctp) = (Protocol::TCP, Protocol::UDP, Protocol::SCTP);
    for (what, rule, protocol, number, expected) in [
        ("its port", to(&["web"], Some(tcp)), tcp, 8080, true),
        ("another port", to(&["web"], Some(tcp)), tcp, 8081, false),
        ("a port of another name", to(&["web"], Some(tcp)), tcp, 53, false),
        ("another protocol", to(&["web"], None), udp, 8080, false),
        ("any protocol it is listed with", to(&["dns"], None), udp, 53, true),
        ("any protocol it is listed with", to(&["dns"], None), tcp, 53, true),
        ("a protocol it is not listed with", to(&["dns"], None), sctp, 53, false),
        ("the rule's protocol only", to(&["dns"], Some(udp)), udp, 53, true),
        ("the rule's protocol only", to(&["dns"], Some(udp)), tcp, 53, false),
        ("one of two", to(&["web", "dns"], None), udp, 53, true),
        ("a name that nobody has", to(&["none"], None), tcp, 8080, false),
    ] {
        assert_eq!(matches(&v, rule, &port(protocol, number)), expected, "{what}");
    }
    // The same of a host endpoint, which is picked by the selector beside the name.
    let mut hep = host_endpoint(eth0());
    (hep.node, hep.addresses) = (NodeName::from("n2"), vec![addr("10.0.0.2")]);
    hep.ports = vec![named("api", tcp, 6443)];
    v.hosts.insert("hep".into(), Arc::new(hep));
    for (what, selector, expected) in [
        ("a host endpoint's", "role == 'host'", [true, false]),
        ("one that is not picked", "role == 'other'", [false, false]),
    ] {
        let mut rule = to(&["api"], Some(tcp));
        rule.destination.selector = Some(Selector::parse(selector).unwrap());
        let v = with(v.clone(), [policy("p", "app == 'a'", None, Some(vec![rule]))]);
        let got = [6443, 80].map(|port| {
            let packet = Packet::to_port(addr(A), addr("10.0.0.2"), tcp, port);
            evaluate(&v, &packet).of(Egress).unwrap().verdict == Allow
        });
        assert_eq!(got, expected, "{what}");
    }
}

/// Ports are those of TCP, UDP and SCTP: of another protocol not even a range of all of them matches.
#[test]
fn numbers_are_ports_of_protocols_that_have_them() {
    let ports = vec![Port::Range(0, 65535)];
    let destination = EntityMatch { ports, ..EntityMatch::default() };
    let rule = Rule { destination, ..Rule::any(Action::Allow) };
    for (protocol, expected) in [
        (Protocol::TCP, true),
        (Protocol::UDP, true),
        (Protocol::SCTP, true),
        (Protocol::ICMP, false),
        (Protocol::UDPLITE, false),
    ] {
        assert_eq!(matches(&cluster(), rule.clone(), &port(protocol, 0)), expected, "{protocol}");
    }
}

/// A selector is about whatever has the address: a pod, a host endpoint, a network set (2.6).
#[test]
fn selectors_see_all_kinds_of_endpoints() {
    let mut v = cluster();
    v.hosts.insert("hep".into(), Arc::new(host_endpoint(eth0())));
    let set = NetworkSet {
        labels: labels(&[("set", "yes")]),
        profiles: vec!["kns.ns".into()],
        nets: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
    };
    v.network_sets.insert(NetworkSetId { namespace: "ns".into(), name: "s".into() }, set.into());
    // From a pod, a node with a host endpoint, a node without one, inside the set, outside.
    let sources = ["10.1.0.1", "10.0.0.1", "10.0.0.2", "203.0.113.7", "198.51.100.7"];
    for (selector, expected) in [
        ("app == 'a'", [true, false, false, false, false]),
        ("role == 'host'", [false, true, false, false, false]),
        ("set == 'yes'", [false, false, false, true, false]),
        // Labels that a set has from its namespace.
        ("pcns.team == 'red'", [true, false, false, true, false]),
        // Who is nobody satisfies not even this.
        ("all()", [true, true, false, true, false]),
    ] {
        let selected = Some(Selector::parse(selector).unwrap());
        let of = |not: bool| {
            let mut rule = Rule::any(Action::Allow);
            let side = &mut rule.source;
            *(if not { &mut side.not_selector } else { &mut side.selector }) = selected.clone();
            let v = with(v.clone(), [policy("p", "app in {'b', 'c'}", Some(vec![rule]), None)]);
            let ask = |source: &str| {
                // To a pod of another node: what a host sends to its own pods no policy sees.
                let to = if source == "10.0.0.2" { "10.1.0.2" } else { "10.1.1.1" };
                tcp(&v, source, to, 80)
            };
            sources.map(|source| ask(source).of(Ingress).unwrap().verdict == Allow)
        };
        assert_eq!(of(false), expected, "{selector}");
        assert_eq!(of(true), expected.map(|it| !it), "not {selector}");
    }
}

/// As a destination a service is its backends' addresses and ports, as a source their addresses.
#[test]
fn services_are_their_backends() {
    let mut v = cluster();
    let backend = |address, protocol, port| Backend { address: addr(address), protocol, port };
    for (slice, backends) in [
        ("empty", vec![]),
        ("one", vec![backend(B, Protocol::TCP, 8080), backend(A, Protocol::UDP, 53)]),
    ] {
        v.update(Update::ServiceSlice(slice.into(), service("svc"), Some(Arc::new(backends))));
    }
    let rule = |source: bool| {
        let mut rule = Rule::any(Action::Allow);
        let side = if source { &mut rule.source } else { &mut rule.destination };
        side.service = Some(service("svc"));
        rule
    };
    for (what, protocol, number, expected) in [
        ("its port", Protocol::TCP, 8080, true),
        ("another port", Protocol::TCP, 8081, false),
        ("another protocol", Protocol::UDP, 8080, false),
        ("another backend's port", Protocol::UDP, 53, false),
    ] {
        assert_eq!(matches(&v, rule(false), &port(protocol, number)), expected, "to {what}");
        assert!(matches(&v, rule(true), &port(protocol, number)), "from a backend, {what}");
    }
    let stranger = Packet::to_port(addr("10.1.1.1"), addr(B), Protocol::TCP, 8080);
    assert!(!matches(&v, rule(true), &stranger), "from who is no backend");
}
