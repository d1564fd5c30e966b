//! Where a packet goes decides who is asked (2.1, 2.2).

use super::*;

/// Everything that can be closed is: pods and hosts, in both directions.
fn closed() -> View {
    let mut v = cluster();
    v.hosts.insert("hep".into(), Arc::new(host_endpoint(eth0())));
    with(v, [policy("closed", "all()", Some(vec![]), Some(vec![]))])
}

/// Points are written short: a pod's name, a host endpoint's name, `-` where there is none.
fn way(v: &View, from: &str, to: &str) -> Vec<(Direction, String, Verdict)> {
    let point = |point: &crate::Point| match point {
        crate::Point::Workload(id) => id.name.to_string(),
        crate::Point::Host(name, _) => name.to_string(),
        crate::Point::Unprotected => "-".to_owned(),
    };
    let steps = tcp(v, from, to, 80).steps;
    steps.iter().map(|s| (s.direction, point(&s.point), s.verdict)).collect()
}

#[test]
fn who_is_asked_on_which_way() {
    let (a, b, c) = ("10.1.0.1", "10.1.0.2", "10.1.1.1");
    let (n1, n2, outside) = ("10.0.0.1", "10.0.0.2", "203.0.113.7");
    for (what, from, to, expected) in [
        ("to itself, whatever its policy", a, a, vec![(Egress, "a", Allow), (Ingress, "a", Allow)]),
        ("pods of one node", a, b, vec![(Egress, "a", Deny), (Ingress, "b", Deny)]),
        ("pods of two nodes", a, c, vec![(Egress, "a", Deny), (Ingress, "c", Deny)]),
        ("a pod's own host", a, n1, vec![(Egress, "a", Deny), (Ingress, "-", Deny)]),
        (
            "another host, which is not protected",
            a,
            n2,
            vec![(Egress, "a", Deny), (Ingress, "-", Allow)],
        ),
        ("another host", c, n1, vec![(Egress, "c", Deny), (Ingress, "hep", Deny)]),
        ("a host to its own pod", n1, a, vec![(Ingress, "a", Allow)]),
        ("a host to another's pod", n1, c, vec![(Egress, "hep", Deny), (Ingress, "c", Deny)]),
        ("a host to itself", n1, n1, vec![(Ingress, "-", Allow)]),
        ("a host to another", n1, n2, vec![(Egress, "hep", Deny), (Ingress, "-", Allow)]),
        ("out of the cluster", a, outside, vec![(Egress, "a", Deny), (Ingress, "-", Allow)]),
        ("into the cluster", outside, n1, vec![(Egress, "-", Allow), (Ingress, "hep", Deny)]),
        ("past it", outside, outside, vec![(Egress, "-", Allow), (Ingress, "-", Allow)]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(d, p, v)| (d, p.to_owned(), v)).collect();
        assert_eq!(way(&closed(), from, to), expected, "{what}");
    }
}

/// `DefaultEndpointToHostAction` is about a pod and the host that it is on.
#[test]
fn another_host_is_no_pods_own() {
    let mut v = cluster();
    for (action, own) in [(Action::Deny, Deny), (Action::Pass, Allow), (Action::Allow, Allow)] {
        v.endpoint_to_host = action;
        assert_eq!(tcp(&v, "10.1.0.1", "10.0.0.1", 80).verdict, own, "{action:?}, its own");
        assert_eq!(tcp(&v, "10.1.0.1", "10.0.0.2", 80).verdict, Allow, "{action:?}, another");
    }
}

/// A profile that is listed and does not exist denies, in both directions, also where one that allows
/// comes after it; one that comes before it has decided (2.1).
#[test]
fn a_missing_profile_denies_in_its_turn() {
    for (profiles, verdict) in [
        (vec!["kns.ns"], Allow),
        (vec!["missing"], Deny),
        (vec!["missing", "kns.ns"], Deny),
        (vec!["kns.ns", "missing"], Allow),
        (vec![], Deny),
    ] {
        let mut v = cluster();
        let id = WorkloadId { namespace: "ns".into(), name: "b".into() };
        let pod = Arc::make_mut(v.workloads.get_mut(&id).unwrap());
        pod.profiles = profiles.iter().map(|name| ProfileName::from(*name)).collect();
        for (from, to) in [("10.1.0.1", "10.1.0.2"), ("10.1.0.2", "10.1.0.1")] {
            assert_eq!(tcp(&v, from, to, 80).verdict, verdict, "{profiles:?}, {from} to {to}");
        }
    }
}
