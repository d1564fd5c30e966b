//! Law 1: tables that came about by different histories are equal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::output::{
    CalcMatch, CalcPolicy, CalcRule, EndpointTier, LocalWorkload, Member, Output, SetId, SetKind,
};
use model::policy::Stage;
use model::{Action, IpVersion, PolicyId, PolicyKind, WorkloadEndpoint, WorkloadId};
use proptest::prelude::*;
use rules::{Name, Rules, RulesConfig, Set, SetChange, Table};

fn id() -> PolicyId {
    let kind = PolicyKind::NetworkPolicy;
    PolicyId { name: "p".into(), namespace: "ns".into(), kind }
}

/// A pod that has the policy for these directions.
fn pod(number: u8, [ingress, egress]: [bool; 2], versions: &[IpVersion]) -> Output {
    let address = |version: &IpVersion| match version {
        IpVersion::V4 => format!("10.0.0.{number}").parse().unwrap(),
        IpVersion::V6 => format!("fd00::{number}").parse().unwrap(),
    };
    let endpoint = WorkloadEndpoint {
        id: WorkloadId { namespace: "ns".into(), name: format!("pod-{number}").into() },
        node: "here".into(),
        iface: format!("cali{number}").parse().unwrap(),
        addresses: versions.iter().map(address).collect(),
        labels: Arc::default(),
        profiles: vec![],
        ports: vec![],
        allowed_sources: vec![],
    };
    let list = |acts: bool| acts.then(id).into_iter().collect();
    let tier = EndpointTier {
        name: "default".into(),
        default_action: Action::Deny,
        ingress: list(ingress),
        egress: list(egress),
    };
    Output::Workload(Arc::new(LocalWorkload { endpoint: Arc::new(endpoint), tiers: vec![tier] }))
}

fn from_set(set: &str) -> CalcRule {
    CalcRule {
        action: Action::Allow,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch { sets: vec![set.into()], ..CalcMatch::default() },
        destination: CalcMatch::default(),
        http: None,
        origin: 0,
    }
}

fn policy(staged: bool) -> Output {
    policy_with(staged, vec![])
}

fn policy_with(staged: bool, ingress: Vec<CalcRule>) -> Output {
    Output::Policy(Arc::new(CalcPolicy {
        id: id(),
        tier: "default".into(),
        stage: Stage::Normal,
        staged,
        ingress,
        egress: vec![],
    }))
}

fn assert_equal(a: &Rules, b: &Rules) {
    for version in a.families() {
        let [a, b] = [a, b].map(|r| r.tables().of(*version));
        assert!(a.chains() == b.chains(), "{version:?}");
        assert!(a.sets() == b.sets(), "{version:?}: {:#?}, {:#?}", a.sets(), b.sets());
    }
}

fn after(outputs: &[&[Output]]) -> Rules {
    let mut rules = Rules::new(RulesConfig::default());
    for some in outputs {
        rules.apply(some);
    }
    rules
}

#[test]
fn a_policy_that_becomes_staged_leaves_nothing() {
    let pods = [pod(1, [true, true], &IpVersion::ALL)];
    let nothing = after(&[&pods]);
    let mut rules = after(&[&pods]);
    let chains = |r: &Rules| r.families().iter().map(|v| r.tables().of(*v).chains().len()).sum();
    let before: usize = chains(&nothing);
    rules.apply(&[policy(false)]);
    assert_eq!(chains(&rules), before + 4, "two directions, two families");
    rules.apply(&[policy(true)]);
    assert_equal(&nothing, &rules);
}

/// A family's table has what its endpoints ask for, and nothing else.
#[test]
fn what_no_endpoint_asks_for_is_not_there() {
    let set = Output::Set(
        "s:x".into(),
        SetKind::Net,
        ["10.0.0.0/8", "fd00::/8"].iter().map(|n| Member::Net(n.parse().unwrap())).collect(),
    );
    let mut rules = after(&[&[set, policy_with(false, vec![from_set("s:x")])]]);
    let mut is_there = |step: &[Output]| {
        rules.apply(step);
        IpVersion::ALL.map(|v| {
            let table = rules.tables().of(v);
            let chain = |name| table.chains().contains_key(name);
            [chain("pi-np.ns.p"), chain("po-np.ns.p"), table.sets().contains_key("s-x.n")]
        })
    };
    let none = [false; 3];
    assert_eq!(is_there(&[]), [none, none], "no endpoint");
    let v4 = [IpVersion::V4];
    assert_eq!(is_there(&[pod(1, [false, true], &v4)]), [[false, true, false], none]);
    assert_eq!(is_there(&[pod(2, [true, false], &v4)]), [[true; 3], none]);
    let both = [[true, true, true], [true, false, true]];
    assert_eq!(is_there(&[pod(2, [true, false], &IpVersion::ALL)]), both);
    assert_eq!(is_there(&[pod(2, [false, true], &v4)]), [[false, true, false], none]);
}

/// While a set is missing the policy is closed; then it is what it would have been.
#[test]
fn a_set_may_come_after_its_policy() {
    let set = Output::Set("s:x".into(), SetKind::Net, vec![]);
    let policy = policy_with(false, vec![from_set("s:x")]);
    let pod = pod(1, [true, false], &IpVersion::ALL);
    let early = after(&[&[set.clone(), policy.clone(), pod.clone()]]);
    assert!(early.tables().of(IpVersion::V6).chains().contains_key("pi-np.ns.p"));
    assert_equal(&early, &after(&[&[policy, pod], &[set]]));
}

/// A set's members, by number; those from 200 on are prefixes.
fn members(numbers: &[u8]) -> Vec<Member> {
    let text = |n: &u8| match n {
        200.. => format!("10.{n}.0.0/16"),
        _ => format!("10.1.1.{n}/32"),
    };
    numbers.iter().map(|n| Member::Net(text(n).parse().unwrap())).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Vec<u8>),
    Delta(u8, Vec<u8>, Vec<u8>),
    SetGone(u8),
    Policy(Vec<u8>),
    PolicyGone,
    Pod(u8, bool),
    PodGone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec(prop_oneof![0u8..4, Just(200), Just(201)], 0..4);
    prop_oneof![
        (0u8..3, numbers()).prop_map(|(set, of)| Step::Set(set, of)),
        (0u8..3, numbers(), numbers()).prop_map(|(set, add, del)| Step::Delta(set, add, del)),
        (0u8..3).prop_map(Step::SetGone),
        prop::collection::vec(0u8..3, 0..3).prop_map(Step::Policy),
        Just(Step::PolicyGone),
        (0u8..2, any::<bool>()).prop_map(|(pod, acts)| Step::Pod(pod, acts)),
        (0u8..2).prop_map(Step::PodGone),
    ]
}

/// What there is.
#[derive(Default)]
struct World {
    sets: BTreeMap<u8, BTreeSet<u8>>,
    policy: Option<Vec<u8>>,
    pods: BTreeMap<u8, bool>,
}

impl World {
    fn id(set: u8) -> SetId {
        format!("s:{set}").into()
    }

    fn set(set: u8, of: &BTreeSet<u8>) -> Output {
        let of: Vec<u8> = of.iter().copied().collect();
        Output::Set(Self::id(set), SetKind::Net, members(&of))
    }

    fn policy(sets: &[u8]) -> Output {
        policy_with(false, sets.iter().map(|s| from_set(&Self::id(*s))).collect())
    }

    fn pod(number: u8, acts: bool) -> Output {
        pod(number, [acts, false], &[IpVersion::V4])
    }

    /// What is told about the step; nothing for one that cannot be.
    fn take(&mut self, step: Step) -> Option<Output> {
        Some(match step {
            Step::Set(set, of) => {
                let of: BTreeSet<u8> = of.into_iter().collect();
                self.sets.insert(set, of.clone());
                Self::set(set, &of)
            }
            Step::Delta(set, add, del) => {
                let there = self.sets.get_mut(&set)?;
                let del: Vec<u8> = del.into_iter().filter(|n| there.remove(n)).collect();
                let add: Vec<u8> = add.into_iter().filter(|n| there.insert(*n)).collect();
                let (added, removed) = (members(&add), members(&del));
                Output::SetDelta { id: Self::id(set), added, removed }
            }
            Step::SetGone(set) => {
                self.sets.remove(&set)?;
                Output::SetGone(Self::id(set))
            }
            Step::Policy(sets) => Self::policy(self.policy.insert(sets)),
            Step::PolicyGone => {
                self.policy.take()?;
                Output::PolicyGone(id())
            }
            Step::Pod(number, acts) => {
                self.pods.insert(number, acts);
                Self::pod(number, acts)
            }
            Step::PodGone(number) => {
                self.pods.remove(&number)?;
                let name = format!("pod-{number}").into();
                Output::WorkloadGone(WorkloadId { namespace: "ns".into(), name })
            }
        })
    }

    fn outputs(&self) -> Vec<Output> {
        let sets = self.sets.iter().map(|(set, of)| Self::set(*set, of));
        let policy = self.policy.iter().map(|sets| Self::policy(sets));
        let pods = self.pods.iter().map(|(number, acts)| Self::pod(*number, *acts));
        sets.chain(policy).chain(pods).collect()
    }
}

/// A table as a driver has it that only hears of changes.
fn follow(kernel: &mut BTreeMap<Name, Set>, table: &mut Table) {
    for (name, change) in table.take_changes().sets {
        match (table.sets().get(&name), change) {
            (None, _) => drop(kernel.remove(&name)),
            (Some(set), SetChange::Whole) => drop(kernel.insert(name, set.clone())),
            (Some(set), SetChange::Elements(keys)) => {
                let there = &mut kernel.get_mut(&name).expect("only its elements changed").elements;
                for (key, before) in keys {
                    assert_eq!(there.get(&key), before.as_ref(), "{name}: {key:?}");
                    match set.elements.get(&key) {
                        Some(now) => drop(there.insert(key, now.clone())),
                        None => drop(there.remove(&key)),
                    }
                }
            }
        }
    }
}

proptest! {
    /// Sets that come, go, change their form and are asked for or not: only what is there now counts,
    /// and the changes that are told add up to it.
    #[test]
    fn any_history_of_sets_ends_where_a_cold_start_does(
        steps in prop::collection::vec((step(), any::<bool>()), 1..32)
    ) {
        let (mut warm, mut world) = (Rules::new(RulesConfig::default()), World::default());
        let mut kernel = BTreeMap::new();
        for (step, look) in steps {
            if let Some(output) = world.take(step) {
                warm.apply(&[output]);
            }
            if look {
                follow(&mut kernel, warm.tables_mut().of_mut(IpVersion::V4));
            }
        }
        follow(&mut kernel, warm.tables_mut().of_mut(IpVersion::V4));
        prop_assert!(kernel == *warm.tables().of(IpVersion::V4).sets());
        assert_equal(&warm, &after(&[&world.outputs()]));
    }
}
