//! Law 1: tables that came about by different histories are equal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use model::output::{CalcPolicy, Output};
use model::policy::Stage;
use model::{PolicyId, PolicyKind};
use rules::{Rules, RulesConfig};

fn policy(staged: bool) -> Output {
    let kind = PolicyKind::NetworkPolicy;
    Output::Policy(Arc::new(CalcPolicy {
        id: PolicyId { name: "p".into(), namespace: "ns".into(), kind },
        tier: "default".into(),
        stage: Stage::Normal,
        staged,
        ingress: vec![],
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
