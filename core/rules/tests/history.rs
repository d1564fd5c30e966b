//! Law 1: tables that came about by different histories are equal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use model::output::{CalcMatch, CalcPolicy, CalcRule, Output, SetKind};
use model::policy::Stage;
use model::{Action, PolicyId, PolicyKind};
use rules::{Rules, RulesConfig};

fn policy(staged: bool) -> Output {
    policy_with(staged, vec![])
}

fn policy_with(staged: bool, ingress: Vec<CalcRule>) -> Output {
    let kind = PolicyKind::NetworkPolicy;
    Output::Policy(Arc::new(CalcPolicy {
        id: PolicyId { name: "p".into(), namespace: "ns".into(), kind },
        tier: "default".into(),
        stage: Stage::Normal,
        staged,
        ingress,
        egress: vec![],
    }))
}

#[test]
fn a_policy_that_becomes_staged_leaves_nothing() {
    let nothing = Rules::new(RulesConfig::default());
    let mut rules = Rules::new(RulesConfig::default());
    let chains = |r: &Rules| r.families().iter().map(|v| r.tables().of(*v).chains().len()).sum();
    let before: usize = chains(&nothing);
    rules.apply(&[policy(false)]);
    assert_eq!(chains(&rules), before + 4, "two directions, two families");
    rules.apply(&[policy(true)]);
    for version in nothing.families() {
        let [a, b] = [&nothing, &rules].map(|r| r.tables().of(*version).chains());
        assert!(a == b, "{version:?}");
    }
}

/// While a set is missing the policy is closed; then it is what it would have been.
#[test]
fn a_set_may_come_after_its_policy() {
    let rule = CalcRule {
        action: Action::Allow,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch { sets: vec!["s:x".into()], ..CalcMatch::default() },
        destination: CalcMatch::default(),
        http: None,
        origin: 0,
    };
    let set = Output::Set("s:x".into(), SetKind::Net, vec![]);
    let policy = policy_with(false, vec![rule]);
    let [mut early, mut late] = [(), ()].map(|()| Rules::new(RulesConfig::default()));
    early.apply(&[set.clone(), policy.clone()]);
    late.apply(&[policy]);
    late.apply(&[set]);
    for version in early.families() {
        let [a, b] = [&early, &late].map(|r| r.tables().of(*version).chains());
        assert!(a == b, "{version:?}");
    }
}
