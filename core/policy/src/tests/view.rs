//! The view of a cluster: what changes put in and take out, and what it knows of addresses.

use std::collections::HashSet;

use super::*;
use crate::Judge;

#[test]
fn an_update_puts_in_and_takes_out() {
    let full = {
        let mut v = with(cluster(), [policy("p", "all()", Some(vec![]), None)]);
        v.hosts.insert("hep".into(), Arc::new(host_endpoint(HostTarget::All)));
        let set = NetworkSet { labels: labels(&[]), profiles: vec![], nets: vec![] };
        let id = NetworkSetId { namespace: "".into(), name: "s".into() };
        v.network_sets.insert(id, Arc::new(set));
        v
    };
    let (mut v, mut empty) = (View::default(), full.clone());
    for (id, it) in &full.workloads {
        v.update(Update::Workload(id.clone(), Some(it.clone())));
        empty.update(Update::Workload(id.clone(), None));
    }
    for (name, it) in &full.hosts {
        v.update(Update::Host(name.clone(), Some(it.clone())));
        empty.update(Update::Host(name.clone(), None));
    }
    for (id, it) in &full.policies {
        v.update(Update::Policy(id.clone(), Some(it.clone())));
        empty.update(Update::Policy(id.clone(), None));
    }
    for (name, it) in &full.tiers {
        v.update(Update::Tier(name.clone(), Some(it.clone())));
        empty.update(Update::Tier(name.clone(), None));
    }
    for (name, it) in &full.profiles {
        v.update(Update::Profile(name.clone(), Some(it.clone())));
        empty.update(Update::Profile(name.clone(), None));
    }
    for (id, it) in &full.network_sets {
        v.update(Update::NetworkSet(id.clone(), Some(it.clone())));
        empty.update(Update::NetworkSet(id.clone(), None));
    }
    assert_eq!((v.workloads, v.hosts), (full.workloads, full.hosts));
    assert_eq!((v.policies, v.tiers, v.profiles), (full.policies, full.tiers, full.profiles));
    assert_eq!(v.network_sets, full.network_sets);
    assert!(empty.workloads.is_empty() && empty.hosts.is_empty() && empty.policies.is_empty());
    assert!(empty.tiers.is_empty() && empty.profiles.is_empty() && empty.network_sets.is_empty());
}

#[test]
fn whose_an_address_is() {
    let v = cluster();
    for (address, pod, node) in [
        ("10.1.0.2", Some("b"), None),
        ("fd01::11", Some("c"), None),
        ("10.0.0.2", None, Some("n2")),
        ("fd00::1", None, Some("n1")),
        ("203.0.113.7", None, None),
    ] {
        let found = v.workload_at(addr(address)).map(|w| &*w.id.name);
        assert_eq!(found, pod, "{address}");
        assert_eq!(v.node_at(addr(address)).map(NodeName::as_str), node, "{address}");
    }
}

/// What would be if a staged policy were in force: it stands for the one of its name and kind (2.7).
#[test]
fn staged_policies_take_the_place_of_those_of_their_name() {
    let kind =
        |policy: Policy, kind| Policy { id: PolicyId { kind, ..policy.id.clone() }, ..policy };
    let staged = |name: &str, rules| {
        let it = policy(name, "app == 'b'", Some(rules), None);
        kind(Policy { staged: true, ..it }, PolicyKind::StagedGlobalNetworkPolicy)
    };
    let allow = || vec![Rule::any(Action::Allow)];
    let of_another = policy("untouched", "app == 'c'", Some(vec![]), None);
    let replaced = policy("p", "app == 'b'", Some(allow()), None);
    let mut v = with(cluster(), [of_another, replaced, staged("p", vec![]), staged("new", vec![])]);
    assert_eq!(tcp(&v, "10.1.0.1", "10.1.0.2", 80).verdict, Allow, "staged ones do not count");
    v.enforce_staged();
    let names: Vec<_> = v.policies.keys().map(|id| (id.kind, &*id.name)).collect();
    let global = PolicyKind::GlobalNetworkPolicy;
    assert_eq!(names, [(global, "new"), (global, "p"), (global, "untouched")]);
    assert!(v.policies.values().all(|policy| !policy.staged));
    assert_eq!(tcp(&v, "10.1.0.1", "10.1.0.2", 80).verdict, Deny);
}

/// A packet without a decided direction has no step there, and the deciding one says who and why.
#[test]
fn the_step_that_decides() {
    let closed = policy("closed", "app == 'c'", Some(vec![Rule::any(Action::Deny)]), None);
    let v = with(cluster(), [closed]);
    let decision = tcp(&v, "10.1.0.1", "10.1.1.1", 80);
    let step = decision.of(Ingress).unwrap();
    assert_eq!(step.policy.as_ref().map(|id| &*id.name), Some("closed"));
    let tier = step.tier.as_ref().map(model::TierName::as_str);
    assert_eq!((tier, step.rule), (Some("default"), Some(0)));
    let reasons = [
        Reason::Rule,
        Reason::TierDefault,
        Reason::Profile,
        Reason::NoProfile,
        Reason::Failsafe,
        Reason::SameHost,
        Reason::NotAnEndpoint,
        Reason::Undecided,
    ];
    let words = reasons.map(Reason::as_str);
    assert_eq!(
        words,
        [
            "rule",
            "tier-default",
            "profile",
            "no-profile",
            "failsafe",
            "same-host",
            "not-an-endpoint",
            "undecided"
        ],
        "scripts rely on these"
    );
}

/// Addresses are of one class if no rule can tell them apart, and only then.
#[test]
fn how_many_kinds_of_addresses_there_are() {
    // No policy: the pods are alike, but for the family.
    let like = Packet::to_port(addr("10.1.0.1"), addr("10.1.0.2"), Protocol::TCP, 80);
    let classes = |v: &View, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|a| addr(a)).collect();
        let reach = Judge::new(v).reach(&addresses, &like);
        let different: HashSet<_> = (0..addresses.len()).map(|i| reach.class(i)).collect();
        assert_eq!(different.len(), reach.classes());
        reach.classes()
    };
    let (v4, both) = (["10.1.0.1", "10.1.0.2", "10.1.1.1"], ["10.1.0.1", "10.1.1.1", "fd01::1"]);
    assert_eq!(classes(&cluster(), &v4), 1);
    assert_eq!(classes(&cluster(), &both), 2);
    let v = with(cluster(), [policy("p", "app == 'b'", Some(vec![]), None)]);
    assert_eq!(classes(&v, &v4), 3, "a selector asks for the label, which is different of each");
    let v = with(cluster(), [policy("p", "has(other)", Some(vec![]), None)]);
    assert_eq!(classes(&v, &v4), 1, "nobody has the label");
    let mut net = Rule::any(Action::Deny);
    net.source.nets = vec!["10.1.0.0/24".parse().unwrap()];
    let v = with(cluster(), [policy("p", "all()", Some(vec![net]), None)]);
    assert_eq!(classes(&v, &v4), 2, "a prefix");
}
