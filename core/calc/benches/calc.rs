//! A cluster of 250,000 pods, 200 of them here, and 10,000 policies of five rules over thirty
//! labels: the whole snapshot at once, then single changes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use calc::Calc;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use model::policy::{EntityMatch, Policy, PolicyId, PolicyKind, Profile, Rule, Stage};
use model::{Action, Labels, Update, WorkloadEndpoint, WorkloadId};
use selector::Selector;

const MARKS: u32 = 30;

fn labels(n: u32) -> Labels {
    let shares = [10, 11, 20, 30, 40].map(|m| (format!("one-in-{m}"), format!("value-{}", n % m)));
    let mark = (format!("mark-{}", n % MARKS), "true".to_owned());
    let pairs = shares.into_iter().chain([mark]).map(|(k, v)| (k.into(), v.into()));
    Arc::new(pairs.collect())
}

fn pod(node: &str, n: u32, seed: u32) -> Update {
    let id = WorkloadId {
        namespace: format!("ns-{}", n % 100).into(),
        name: format!("{node}-{n}").into(),
    };
    let workload = WorkloadEndpoint {
        id: id.clone(),
        node: node.into(),
        iface: "cali0".parse().expect("is an interface name"),
        addresses: vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))],
        labels: labels(seed),
        profiles: vec![format!("kns.ns-{}", n % 100).into()],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    Update::Workload(id, Some(Arc::new(workload)))
}

fn policy(n: u32, selects: &str, source: &str) -> Update {
    let rule = |selector: &str| Rule {
        source: EntityMatch { selector: Selector::parse(selector).ok(), ..EntityMatch::default() },
        ..Rule::any(Action::Allow)
    };
    let name = format!("policy-{n}").into();
    let id = PolicyId { name, namespace: "".into(), kind: PolicyKind::GlobalNetworkPolicy };
    let policy = Policy {
        id: id.clone(),
        tier: "default".into(),
        order: None,
        selector: Selector::parse(selects).expect("is a selector"),
        applies_ingress: true,
        applies_egress: false,
        ingress: (0..5)
            .map(|i| rule(&source.replace('#', &((n + i) % MARKS).to_string())))
            .collect(),
        egress: Vec::new(),
        stage: Stage::Normal,
        apply_on_forward: false,
        staged: false,
        everywhere: false,
    };
    Update::Policy(id, Some(Arc::new(policy)))
}

fn snapshot(remote: u32, policies: u32) -> Vec<Update> {
    let profile = |n| {
        let name: Arc<str> = format!("ns-{n}").into();
        let labels = Arc::new([("pcns.projectcalico.org/name".into(), name)].into());
        let profile = Profile { labels, ..Profile::default() };
        Update::Profile(format!("kns.ns-{n}").into(), Some(Arc::new(profile)))
    };
    let policy = |n| policy(n, &format!("has(mark-{})", n % MARKS), "has(mark-#)");
    (0..policies)
        .map(policy)
        .chain((0..100).map(profile))
        .chain((0..remote).map(|n| pod("far", n, n)))
        .chain((0..200).map(|n| pod("here", remote + n, n)))
        .collect()
}

fn fed(updates: &[Update]) -> Calc {
    let mut calc = Calc::new("here".into());
    for update in updates {
        calc.update(update.clone());
    }
    calc
}

fn benches(c: &mut Criterion) {
    let updates = snapshot(250_000, 10_000);
    c.bench_function("calc/cold/250k_pods_10k_policies", |b| {
        b.iter_batched(
            || (),
            |()| {
                let mut calc = fed(&updates);
                let outputs = calc.flush();
                (calc, outputs)
            },
            BatchSize::PerIteration,
        );
    });
    let mut calc = fed(&updates);
    calc.flush();
    drop(updates);
    let mut alternate = |what: &str, changes: [Update; 2]| {
        let mut turn = 0;
        // There and back: the first changes also pay for the memory that the snapshot gave back.
        for change in changes.iter().rev().cycle().take(8) {
            calc.update(change.clone());
            calc.flush();
        }
        c.bench_function(&format!("calc/one_change/{what}"), |b| {
            b.iter(|| {
                turn += 1;
                calc.update(changes[turn % 2].clone());
                calc.flush()
            });
        });
    };
    alternate("remote_pod_label", [pod("far", 7, 1), pod("far", 7, 2)]);
    alternate("local_pod_label", [pod("here", 250_007, 1), pod("here", 250_007, 2)]);
    let rules = |source| policy(7, "has(mark-7)", source);
    alternate("policy_rules", [rules("has(mark-#)"), rules("has(one-in-40)")]);
    let moved = |selects| policy(7, selects, "has(mark-#)");
    alternate("policy_selector", [moved("has(mark-8)"), moved("one-in-11 == 'value-3'")]);
}

criterion_group! {
    name = calc;
    config = Criterion::default().sample_size(10);
    targets = benches
}
criterion_main!(calc);
