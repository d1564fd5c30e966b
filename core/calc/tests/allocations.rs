//! How often the steady path asks for memory: every number that is not zero has its reason beside
//! it. Each change is made there and back a few times first, so that buffers have their size.

#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use calc::Calc;
use model::output::Output;
use model::policy::{EntityMatch, NetworkSet, NetworkSetId, PolicyId, PolicyKind, Profile, Stage};
use model::{Action, Labels, Policy, Rule, Update, WorkloadEndpoint, WorkloadId};
use selector::Selector;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more, and nobody who asks.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Arc::new(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
}

fn pod(node: &str, n: u8, app: &str) -> Update {
    let id = WorkloadId { namespace: "ns".into(), name: format!("{node}-{n}").into() };
    let workload = WorkloadEndpoint {
        id: id.clone(),
        node: node.into(),
        iface: format!("cali{n}").parse().expect("is a name"),
        addresses: vec![[10, 0, u8::from(node == "here"), n].into()],
        labels: labels(&[("app", app), ("orchestrator", "k8s")]),
        profiles: vec!["kns.ns".into()],
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    Update::Workload(id, Some(Arc::new(workload)))
}

fn gone(update: &Update) -> Update {
    match update {
        Update::Workload(id, _) => Update::Workload(id.clone(), None),
        Update::Policy(id, _) => Update::Policy(id.clone(), None),
        other => panic!("{other:?} is not taken away here"),
    }
}

fn set(last: u8) -> Update {
    let id = NetworkSetId { namespace: "".into(), name: "blocked".into() };
    let nets =
        (0..100).chain([last]).map(|n| format!("192.0.2.{n}/32").parse().expect("is a prefix"));
    let labels = labels(&[("list", "blocked")]);
    let set = NetworkSet { labels, profiles: Vec::new(), nets: nets.collect() };
    Update::NetworkSet(id, Some(Arc::new(set)))
}

fn policy(name: &str, selects: &str, source: &str, action: Action) -> Update {
    let selector = |text: &str| Selector::parse(text).expect("is a selector");
    let source = EntityMatch { selector: Some(selector(source)), ..EntityMatch::default() };
    let kind = PolicyKind::GlobalNetworkPolicy;
    let id = PolicyId { name: name.into(), namespace: "".into(), kind };
    let policy = Policy {
        id: id.clone(),
        tier: "default".into(),
        order: None,
        selector: selector(selects),
        applies_ingress: true,
        applies_egress: false,
        ingress: vec![Rule { source, ..Rule::any(action) }],
        egress: Vec::new(),
        stage: Stage::Normal,
        apply_on_forward: false,
        staged: false,
        everywhere: false,
    };
    Update::Policy(id, Some(Arc::new(policy)))
}

/// A node with ten pods of its own, fifty others, and twenty policies.
fn world() -> Calc {
    let mut calc = Calc::new("here".into());
    let profile = Profile { labels: labels(&[("team", "blue")]), ..Profile::default() };
    calc.update(Update::Profile("kns.ns".into(), Some(Arc::new(profile))));
    for n in 0..20 {
        let name = format!("policy-{n}");
        calc.update(policy(&name, "all()", &format!("app == 'app-{}'", n % 4), Action::Allow));
    }
    calc.update(policy("blocked", "all()", "list == 'blocked'", Action::Deny));
    calc.update(set(100));
    for n in 0..50 {
        calc.update(pod("there", n, &format!("app-{}", n % 8)));
    }
    for n in 0..10 {
        calc.update(pod("here", n, &format!("app-{}", n % 8)));
    }
    calc.update(Update::InSync);
    assert!(calc.flush().len() > 20);
    calc
}

/// The allocations of a change and of the change back, with what each says.
fn measured(calc: &mut Calc, changes: [&Update; 2]) -> [(usize, usize); 2] {
    let mut result = [(0, 0); 2];
    for _ in 0..20 {
        for (change, result) in changes.iter().zip(&mut result) {
            let change = (*change).clone();
            let before = COUNT.get();
            calc.update(change);
            let outputs: Vec<Output> = calc.flush();
            *result = (COUNT.get() - before, outputs.len());
        }
    }
    result
}

struct Class {
    what: &'static str,
    changes: [Update; 2],
    /// Of the change there, and back.
    allocations: [usize; 2],
    outputs: usize,
}

fn classes() -> Vec<Class> {
    let mut all = Vec::new();
    let mut class = |what, changes, allocations, outputs| {
        all.push(Class { what, changes, allocations, outputs });
    };
    let comes = |update: Update| {
        let gone = gone(&update);
        [update, gone]
    };
    let remote = |app| pod("there", 7, app);
    // The labels as numbers, to be kept or to be compared: one for every item that is told.
    class("a remote pod said again", [remote("app-7"), remote("app-7")], [1, 1], 0);
    class("a remote pod's label, no set", [remote("app-6"), remote("app-7")], [1, 1], 0);
    class("a remote pod in no set", comes(pod("there", 99, "app-7")), [1, 0], 0);
    // And what is handed out: the list of outputs, and that of members.
    class("a remote pod's label, a set", [remote("app-1"), remote("app-7")], [3, 3], 1);
    class("a remote pod in a set", comes(pod("there", 99, "app-1")), [3, 2], 1);
    // Labels, the prefixes to keep, outputs, a list of members that come and one of those that go.
    class("a member of a network set", [set(101), set(100)], [5, 5], 1);

    let local = |app| pod("here", 7, app);
    class("a local pod said again", [local("app-7"), local("app-7")], [1, 1], 0);
    // Beside the labels: the endpoint and its tiers, which downstream keeps; the outputs, twice (of
    // endpoints, and of all); and what is to be looked at in the flush, in order: a tree each of
    // endpoints, profiles and what they were, lists of those that changed.
    class("a local pod's label", [local("app-6"), local("app-7")], [13, 13], 1);
    // And its address: the claims and the route.
    class("a local pod", comes(pod("here", 99, "app-7")), [17, 9], 2);

    let allows = |selects, action| policy("policy-3", selects, "app == 'app-3'", action);
    let same = || allows("all()", Action::Allow);
    // The rules, to be compared.
    class("a policy said again", [same(), same()], [1, 1], 0);
    // The rules to keep, their selectors as the sets know them, and the policy that downstream keeps:
    // itself, its rules, for each rule the lists of its sets.
    class("a policy's action", [allows("all()", Action::Deny), same()], [14, 14], 1);
    let new = |selects| policy("policy-99", selects, "app == 'app-3'", Action::Allow);
    // As above; a piece of the list of policies and the list of pieces, for all ten pods; two for each
    // pod, as above.
    class("a policy on ten pods", comes(new("all()")), [51, 40], 11);
    // The rules and the selector to keep, and the selector to be matched: written, and cut to size.
    class("a policy on no pod", comes(new("app == 'elsewhere'")), [10, 0], 0);
    all
}

#[test]
fn the_steady_path_allocates_what_it_says_here() {
    let mut calc = world();
    for Class { what, changes: [there, back], allocations, outputs } in classes() {
        let measured = measured(&mut calc, [&there, &back]);
        assert_eq!(measured.map(|(count, _)| count), allocations, "{what}");
        assert_eq!(measured.map(|(_, outputs)| outputs), [outputs; 2], "{what}");
    }
}
