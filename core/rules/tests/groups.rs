//! Pods with the same policies share chains, whatever way they came there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use model::output::{EndpointTier, LocalWorkload, Output};
use model::{Action, IpVersion, PolicyId, PolicyKind, WorkloadEndpoint, WorkloadId};
use proptest::prelude::*;
use rules::{Rules, RulesConfig};

/// What a pod is like: its policies by number, for each direction, and whether it has an IPv6
/// address.
type Kind = (Vec<u8>, Vec<u8>, bool);

fn id(pod: u8) -> WorkloadId {
    WorkloadId { namespace: "ns".into(), name: format!("p{pod}").into() }
}

fn policy(number: u8) -> PolicyId {
    let kind = PolicyKind::NetworkPolicy;
    PolicyId { name: format!("policy-{number}").into(), namespace: "ns".into(), kind }
}

fn pod(pod: u8, (ingress, egress, dual): &Kind) -> Output {
    let mut addresses = vec![IpAddr::from([10, 0, 0, pod])];
    if *dual {
        addresses.push(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, pod.into()).into());
    }
    let endpoint = WorkloadEndpoint {
        id: id(pod),
        node: "here".into(),
        iface: format!("cali{pod}").parse().unwrap(),
        addresses,
        labels: Arc::default(),
        profiles: vec!["kns.ns".into()],
        ports: vec![],
        allowed_sources: vec![],
    };
    let tier = EndpointTier {
        name: "default".into(),
        default_action: Action::Deny,
        ingress: ingress.iter().copied().map(policy).collect(),
        egress: egress.iter().copied().map(policy).collect(),
    };
    let acts = !ingress.is_empty() || !egress.is_empty();
    let tiers = acts.then_some(tier).into_iter().collect();
    Output::Workload(Arc::new(LocalWorkload { endpoint: Arc::new(endpoint), tiers }))
}

fn equal(a: &Rules, b: &Rules) -> bool {
    a.families().iter().all(|version| {
        let [a, b] = [a, b].map(|r| r.tables().of(*version));
        a.chains() == b.chains() && a.sets() == b.sets()
    })
}

#[test]
fn one_more_pod_of_a_kind_adds_no_chain() {
    let mut rules = Rules::new(RulesConfig::default());
    rules.apply(&[pod(1, &(vec![1, 2], vec![], true))]);
    for version in IpVersion::ALL {
        rules.tables_mut().of_mut(version).take_changes();
    }
    rules.apply(&[pod(2, &(vec![1, 2], vec![], true))]);
    for version in IpVersion::ALL {
        let changes = rules.tables_mut().of_mut(version).take_changes();
        assert!(changes.chains.is_empty(), "{:?}", changes.chains);
        assert_eq!(changes.sets.len(), 3, "to, from and sources: {:?}", changes.sets);
    }
}

#[test]
fn the_order_of_policies_makes_another_kind() {
    let mut rules = Rules::new(RulesConfig::default());
    let chains = |r: &Rules| r.tables().of(IpVersion::V4).chains().len();
    let before = chains(&rules);
    rules.apply(&[pod(1, &(vec![1, 2], vec![], false)), pod(2, &(vec![2, 1], vec![], false))]);
    assert_eq!(chains(&rules), before + 3, "two to them, one from them");
}

proptest! {
    /// Whatever came, changed and went: only what is there now counts, and the last pod of a kind
    /// takes its chains away.
    #[test]
    fn any_history_ends_where_a_cold_start_does(
        steps in prop::collection::vec(
            (1u8..5, prop::option::weighted(0.7, (
                prop::collection::vec(0u8..3, 0..3),
                prop::collection::vec(0u8..3, 0..2),
                any::<bool>(),
            ))),
            1..24,
        )
    ) {
        let mut warm = Rules::new(RulesConfig::default());
        let mut now: BTreeMap<u8, Kind> = BTreeMap::new();
        for (number, kind) in steps {
            if let Some(kind) = kind {
                warm.apply(&[pod(number, &kind)]);
                now.insert(number, kind);
            } else {
                warm.apply(&[Output::WorkloadGone(id(number))]);
                now.remove(&number);
            }
        }
        let mut cold = Rules::new(RulesConfig::default());
        let outputs: Vec<_> = now.iter().map(|(number, kind)| pod(*number, kind)).collect();
        cold.apply(&outputs);
        prop_assert!(equal(&warm, &cold), "{:#?}\n{:#?}", warm.tables(), cold.tables());
    }
}
