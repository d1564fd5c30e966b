//! Any order of events, with restarts and reboots at any point: a transaction is in force whole or
//! not at all, never after its time, and in the end as the store decided.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use confirm::guard::step;
use confirm::{Decision, Guard, Left, Mark, Marked, Object, Phase};
use model::Update;
use proptest::prelude::*;
use serde_json::{Value, json};

const WINDOW: u64 = 20;

fn set(name: &str, net: Option<&str>) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name}, "spec": {"nets": net.into_iter().collect::<Vec<_>>()}})
}

fn update(object: &Value) -> Update {
    api::convert::update::update(object, "cali").unwrap().unwrap().update.unwrap()
}

fn gone(update: &Update) -> Update {
    let Update::NetworkSet(id, _) = update else { panic!("{update:?}") };
    Update::NetworkSet(id.clone(), None)
}

/// This one is deleted, the others are written.
const DELETED: usize = 2;

fn new_form(n: usize) -> Update {
    let written = update(&set(&format!("s{n}"), Some("10.0.0.0/8")));
    if n == DELETED { gone(&written) } else { written }
}

/// Even objects were there before, odd ones were created.
fn old_form(n: usize) -> Update {
    if n.is_multiple_of(2) { update(&set(&format!("s{n}"), None)) } else { gone(&new_form(n)) }
}

fn object(n: usize) -> Object {
    Object::of(&set(&format!("s{n}"), None)).unwrap()
}

fn marked(n: usize, decision: Option<Decision>) -> Arc<Marked> {
    let name = format!("s{n}");
    let previous = if n.is_multiple_of(2) { set(&name, None) } else { Value::Null };
    let lead = object(0);
    let deletes = n == DELETED;
    let mark = Mark { transaction: "t".into(), within: WINDOW, lead, decision, deletes, previous };
    let mut carrier = set(&name, Some("10.0.0.0/8"));
    mark.put_on(&mut carrier);
    let read = Mark::of(&carrier).unwrap().unwrap();
    assert_eq!(read, mark, "it survives the annotation");
    Arc::new(Marked::new(read, Some(gone(&new_form(n)))).unwrap())
}

/// The store and one agent that hears of it.
#[derive(Default)]
struct World {
    guard: Guard,
    now: Duration,
    /// In the calculation.
    force: BTreeMap<String, Update>,
    disk: Vec<Left>,
    /// Objects that the agent has heard of since it started.
    heard: Vec<usize>,
    decided: Option<Decision>,
    first_sight: Option<Duration>,
    reboots: u32,
}

impl World {
    fn feed(&mut self, updates: Vec<Update>) {
        for update in updates {
            let Update::NetworkSet(id, _) = &update else { panic!("{update:?}") };
            self.force.insert(id.name.to_string(), update);
        }
    }

    fn hear(&mut self, n: usize) {
        self.first_sight.get_or_insert(self.now);
        let decision = self.decided.filter(|_| n == 0);
        let updates = self.guard.saw(self.now, &object(n), Some(marked(n, decision)));
        self.feed(updates);
        let update = self.guard.hear(new_form(n));
        self.feed(vec![update]);
        if !self.heard.contains(&n) {
            self.heard.push(n);
        }
    }

    fn write(&mut self) {
        let kept = self.guard.kept(self.now).into_iter();
        self.disk = kept.filter(|t| t.phase != Phase::Seen).collect();
    }

    fn restart(&mut self, rebooted: bool) {
        self.guard = Guard::restore(&self.disk, self.now, rebooted);
        self.reboots += u32::from(rebooted);
        if self.disk.is_empty() {
            self.first_sight = None; // it was never in force
        }
        self.heard.clear();
        self.force.clear();
    }

    /// Every object in the same sense.
    fn is_whole(&self) -> Result<(), String> {
        let new = self.heard.iter().filter(|n| self.force[&format!("s{n}")] == new_form(**n));
        let (new, all) = (new.count(), self.heard.len());
        let old = self.heard.iter().filter(|n| self.force[&format!("s{n}")] == old_form(**n));
        if (new == all || new == 0) && new + old.count() == all {
            return Ok(());
        }
        Err(format!("{new} of {all}: {:?}", self.force))
    }
}

#[derive(Clone, Debug)]
enum Op {
    Hear(usize),
    Prepared,
    Pass(u64),
    Restart,
    Reboot,
    Decide(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4_usize).prop_map(Op::Hear),
        2 => Just(Op::Prepared),
        3 => (0..8_u64).prop_map(Op::Pass),
        1 => Just(Op::Restart),
        1 => Just(Op::Reboot),
        1 => any::<bool>().prop_map(Op::Decide),
    ]
}

proptest! {
    #[test]
    fn never_half_and_never_too_late(ops in prop::collection::vec(op(), 1..60)) {
        let mut w = World::default();
        for op in &ops {
            match op {
                Op::Hear(n) => w.hear(*n),
                Op::Prepared => {
                    // On disk before it is in force.
                    let mut then = w.guard.clone();
                    let updates = then.prepared("t");
                    w.guard = then;
                    w.write();
                    w.feed(updates);
                }
                Op::Pass(seconds) => w.now += Duration::from_secs(*seconds),
                Op::Restart => { w.write(); w.restart(false) }
                Op::Reboot => w.restart(true),
                Op::Decide(yes) => {
                    let word = if *yes { Decision::Confirmed } else { Decision::Reverted };
                    w.decided.get_or_insert(word);
                }
            }
            let (_, updates) = w.guard.look(w.now);
            w.feed(updates);
            prop_assert_eq!(w.is_whole(), Ok(()), "after {:?}", op);
            // Counted from first sight; a reboot starts with what was left when last written.
            let due = w.first_sight.map(|t| t + Duration::from_secs(WINDOW));
            let over = w.reboots == 0 && w.decided.is_none() && due.is_some_and(|d| d <= w.now);
            let in_force = w.heard.first().map(|n| w.force[&format!("s{n}")] == new_form(*n));
            prop_assert!(!over || in_force != Some(true), "in force after its time");
        }
        // The end: the lead tells what the store decided.
        w.decided.get_or_insert(Decision::Reverted);
        (0..4).for_each(|n| w.hear(n));
        let confirmed = w.decided == Some(Decision::Confirmed);
        for n in 0..4 {
            let want = if confirmed { new_form(n) } else { old_form(n) };
            prop_assert_eq!(&w.force[&format!("s{n}")], &want);
        }
        // What the store has done in the end needs no guard.
        (0..4).for_each(|n| drop(w.guard.saw(w.now, &object(n), None)));
        prop_assert!(w.guard.is_empty());
    }
}

#[test]
fn a_transaction_counts_from_first_sight() {
    let mut w = World { now: Duration::from_secs(100), ..World::default() };
    w.hear(1);
    assert_eq!(w.force["s1"], old_form(1), "not before the way back is on disk");
    let updates = w.guard.prepared("t");
    w.feed(updates);
    assert_eq!(w.force["s1"], new_form(1));
    w.now += Duration::from_secs(WINDOW - 1);
    w.hear(0);
    assert_eq!(w.force["s0"], new_form(0));
    assert_eq!(w.guard.next(), Some(Duration::from_secs(100 + WINDOW)));
    assert!(w.guard.look(w.now).0.is_empty());
    w.now += Duration::from_secs(1);
    let (over, updates) = w.guard.look(w.now);
    assert_eq!(over.len(), 1);
    w.feed(updates);
    assert_eq!((&w.force["s0"], &w.force["s1"]), (&old_form(0), &old_form(1)), "together");
    assert!(w.guard.look(w.now).0.is_empty(), "once");
}

#[test]
fn restarts_do_not_prolong() {
    let window = Duration::from_secs(WINDOW);
    let left = Left { transaction: "t".into(), phase: Phase::Pending, left: window, window };
    let now = Duration::from_secs(7);
    assert_eq!(Guard::restore(std::slice::from_ref(&left), now, false).next(), Some(now + window));
    // However often the machine starts again before anything is written.
    let mut disk = vec![left];
    let mut boots = 0;
    while Guard::restore(&disk, now, true).next() > Some(now) {
        disk = Guard::restore(&disk, now, true).kept(now);
        boots += 1;
        assert!(boots <= 20, "it is not over after {boots} boots");
    }
    assert_eq!(boots, WINDOW / step(window).as_secs() - 1);
}

#[test]
fn a_decision_of_the_store_comes_first() {
    for (what, end) in [("taken back", Decision::Reverted), ("kept", Decision::Confirmed)] {
        let mut w = World::default();
        (0..3).for_each(|n| w.hear(n));
        let updates = w.guard.prepared("t");
        w.feed(updates);
        // Here it is over already, which the store does not know.
        w.now += Duration::from_secs(WINDOW);
        let (_, updates) = w.guard.look(w.now);
        w.feed(updates);
        assert_eq!(w.force["s2"], old_form(2));
        w.decided = Some(end);
        w.hear(0);
        let want = if end == Decision::Confirmed { new_form(2) } else { old_form(2) };
        assert_eq!(w.force["s2"], want, "{what}");
        w.now += Duration::from_secs(WINDOW);
        assert!(w.guard.look(w.now).1.is_empty(), "{what}: for good");
    }
}

#[test]
fn bad_marks_are_named() {
    let good = marked(0, None).mark.clone();
    let other = Mark { previous: set("other", None), ..good.clone() };
    let hasty = Mark { within: 0, ..good.clone() };
    let absent = Mark { deletes: true, previous: Value::Null, ..good };
    for (what, text) in [
        ("no JSON", "{".to_owned()),
        ("nothing in it", "{}".to_owned()),
        ("another object", json!(other).to_string()),
        ("no time", json!(hasty).to_string()),
        ("nothing to delete", json!(absent).to_string()),
    ] {
        let mut object = set("s0", None);
        object["metadata"]["annotations"] = json!({confirm::mark::ANNOTATION: text});
        let error = Mark::of(&object).unwrap_err().to_string();
        assert!(error.contains(confirm::mark::ANNOTATION), "{what}: {error}");
    }
    assert_eq!(Mark::of(&set("s0", None)), Ok(None));
}

#[test]
fn what_comes_back_keeps_what_the_server_knows() {
    let mark = marked(0, None).mark.clone();
    let mut live = set("s0", Some("10.0.0.0/8"));
    live["metadata"]["resourceVersion"] = "7".into();
    live["metadata"]["labels"] = json!({"new": "label"});
    let mut want = set("s0", None);
    want["metadata"]["resourceVersion"] = "7".into();
    assert_eq!(mark.restored(&live), Some(want));
    assert_eq!(marked(1, None).mark.restored(&live), None, "it was created");
    let ended = |n, decision| marked(n, None).mark.ended(decision, &live).is_some();
    let there = [0, 1, DELETED]
        .map(|n| [Decision::Confirmed, Decision::Reverted].map(|decision| ended(n, decision)));
    assert_eq!(there, [[true, true], [true, false], [false, true]]);
}
