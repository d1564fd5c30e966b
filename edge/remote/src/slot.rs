//! One kind: its objects as far as they are known here.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use apiserver::storage::{Change, ChangeKind, Object, State};
use serde_json::Value;
use tokio::sync::{Mutex, Notify, watch};

use crate::backend::{Batch, Entry, Event, RemoteError, Snapshot};

/// How many changes are kept for watches that resume, and how many bytes of objects in them.
const HISTORY: usize = 10_000;
const HISTORY_BYTES: usize = 64 << 20;

/// How far the reading of a kind has come.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// Not yet; and why, if it failed.
    Begun(Option<RemoteError>),
    /// Everything up to this revision is there.
    Reached(u64),
}

/// One kind.
pub(crate) struct Slot {
    /// `group/resource`.
    pub(crate) kind: Box<str>,
    known: RwLock<Known>,
    pub(crate) reading: watch::Sender<Reading>,
    /// Somebody waits for the revision that has been reached.
    pub(crate) poke: Notify,
    /// Held while the whole of it is asked for: once at a time.
    pub(crate) listing: Mutex<()>,
    rounds: Rounds,
}

/// Questions to the store that many askers share: whoever comes while one is asked waits for the next one,
/// which serves all who wait.
#[derive(Default)]
struct Rounds {
    /// How many have begun.
    begun: AtomicU64,
    /// The last one that has ended well. Held while one is asked.
    ended: Mutex<u64>,
}

#[derive(Default)]
struct Known {
    state: State,
    /// Where the store keeps what we know under a key, and back.
    raws: HashMap<Arc<str>, Box<str>>,
    keys: HashMap<Box<str>, Arc<str>>,
    /// What it keeps beside some of it.
    beside: HashMap<Box<str>, Box<Value>>,
}

impl Slot {
    pub(crate) fn new(kind: &str) -> Self {
        let known = Known { state: State::new(HISTORY, HISTORY_BYTES), ..Known::default() };
        Self {
            kind: kind.into(),
            known: RwLock::new(known),
            reading: watch::channel(Reading::Begun(None)).0,
            poke: Notify::new(),
            listing: Mutex::default(),
            rounds: Rounds::default(),
        }
    }

    /// Performs `ask`, or waits for somebody else's that begins after this was called.
    pub(crate) async fn share<E>(&self, ask: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let before = self.rounds.begun.load(Ordering::SeqCst);
        let mut ended = self.rounds.ended.lock().await;
        if *ended > before {
            return Ok(());
        }
        let this = self.rounds.begun.fetch_add(1, Ordering::SeqCst) + 1;
        ask.await?;
        *ended = this;
        Ok(())
    }

    /// Looks at the state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.read().state)
    }

    /// Where the store keeps the object at `key`.
    pub(crate) fn raw(&self, key: &str) -> Option<String> {
        self.read().raws.get(key).map(ToString::to_string)
    }

    /// What the store keeps beside the object at a place.
    pub(crate) fn beside(&self, raw: &str) -> Option<Value> {
        self.read().beside.get(raw).map(|value| Value::clone(value))
    }

    /// The revision of the object at a place, if there is one.
    pub(crate) fn at(&self, raw: &str) -> Option<u64> {
        self.read().at(raw)
    }

    /// The revision up to which everything is known.
    pub(crate) fn reached(&self) -> u64 {
        self.read().state.revision
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a whole listing. What differs from what was known becomes changes, so that watchers miss none.
    /// A listing of a time up to which everything is known tells nothing.
    pub(crate) fn install(&self, snapshot: Snapshot) {
        let mut known = self.write();
        if known.state.revision == 0 {
            for mut entry in snapshot.entries {
                if !known.name(&mut entry) {
                    continue;
                }
                let object = Object::new(entry.key.clone(), entry.revision, entry.value);
                known.state.objects.insert(entry.key, Arc::new(object));
            }
            known.state.floor = snapshot.revision;
            known.state.known = snapshot.revision;
        } else if snapshot.revision > known.state.revision {
            let raws = snapshot.entries.iter().map(|e| &e.raw).chain(&snapshot.same);
            let listed: HashSet<&str> = raws.map(|raw| &**raw).collect();
            let gone = known.keys.keys().filter(|raw| !listed.contains(&***raw)).cloned();
            let gone = gone.map(|raw| Event::Gone { raw, revision: snapshot.revision, last: None });
            let gone: Vec<Event> = gone.collect();
            let mut entries = snapshot.entries;
            entries.sort_by_key(|entry| entry.revision);
            let events = entries.into_iter().map(Event::Put).chain(gone);
            events.for_each(|event| known.take(event));
        }
        known.state.revision = known.state.revision.max(snapshot.revision);
        let reached = known.state.revision;
        drop(known);
        self.reading.send_replace(Reading::Reached(reached));
    }

    /// Takes in changes. Says whether there was anything new among them: a listing may have been ahead.
    pub(crate) fn apply(&self, batch: Batch) -> bool {
        let mut known = self.write();
        let news = !batch.events.is_empty() && batch.revision > known.state.revision;
        batch.events.into_iter().filter(|_| news).for_each(|event| known.take(event));
        known.state.revision = known.state.revision.max(batch.revision);
        let reached = known.state.revision;
        drop(known);
        self.reading.send_replace(Reading::Reached(reached));
        news
    }

    /// Notes why the first listing failed.
    pub(crate) fn fail(&self, error: &RemoteError) {
        self.reading.send_if_modified(|reading| match reading {
            Reading::Begun(why) => {
                *why = Some(error.clone());
                true
            }
            Reading::Reached(_) => false,
        });
    }
}

impl Known {
    /// Notes where an object is kept, unless it is kept at two places, as while it is moved from an older one
    /// to its own, and this is the older, which is longer.
    fn name(&mut self, entry: &mut Entry) -> bool {
        self.keys.insert(entry.raw.clone(), entry.key.clone());
        match entry.beside.take() {
            Some(beside) => drop(self.beside.insert(entry.raw.clone(), beside)),
            None => drop(self.beside.remove(&entry.raw)),
        }
        if self.raws.get(&entry.key).is_some_and(|shown| shown.len() < entry.raw.len()) {
            return false;
        }
        self.raws.insert(entry.key.clone(), entry.raw.clone());
        true
    }

    fn at(&self, raw: &str) -> Option<u64> {
        let key = self.keys.get(raw)?;
        let shown = self.raws.get(key).is_some_and(|shown| &**shown == raw);
        self.state.objects.get(key).filter(|_| shown).map(|object| object.revision())
    }

    /// Takes in a change, unless it has been seen. Of one transaction all changes have the same revision.
    fn take(&mut self, event: Event) {
        let (object, gone) = match event {
            Event::Put(mut entry) => {
                if self.at(&entry.raw).is_some_and(|now| entry.revision <= now)
                    || !self.name(&mut entry)
                {
                    return;
                }
                (Object::new(entry.key, entry.revision, entry.value), false)
            }
            Event::Gone { raw, revision, .. } => {
                let Some(key) = self.keys.get(&raw).cloned() else { return };
                if self.raws.get(&key).is_some_and(|shown| *shown != raw) {
                    // The older of two places of one object.
                    self.keys.remove(&raw);
                    self.beside.remove(&raw);
                    return;
                }
                let last = self.state.objects.get(&key).cloned();
                let Some(last) = last.filter(|last| last.revision() < revision) else { return };
                self.keys.remove(&raw);
                self.beside.remove(&raw);
                self.raws.remove(&key);
                (Object::new(key, revision, last.value().clone()), true)
            }
        };
        let previous = self.state.objects.get(object.key()).cloned();
        let kind = match (gone, &previous) {
            (true, _) => ChangeKind::Deleted,
            (false, None) => ChangeKind::Created,
            (false, Some(_)) => ChangeKind::Updated,
        };
        let revision = self.state.revision.max(object.revision());
        self.state.push(Change { kind, object: Arc::new(object), previous });
        self.state.revision = revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(name: &str, revision: u64) -> Entry {
        Entry {
            key: format!("g/r/{name}").into(),
            raw: format!("/raw/{name}").into(),
            revision,
            value: json!({"metadata": {"name": name}, "at": revision}),
            beside: None,
        }
    }

    fn snapshot(revision: u64, entries: Vec<Entry>) -> Snapshot {
        Snapshot { revision, entries, same: Vec::new() }
    }

    fn gone(name: &str, revision: u64) -> Event {
        Event::Gone { raw: format!("/raw/{name}").into(), revision, last: None }
    }

    fn put(name: &str, revision: u64) -> Event {
        Event::Put(entry(name, revision))
    }

    fn changes(slot: &Slot, after: u64) -> Vec<(ChangeKind, String, u64)> {
        let found = slot.with(|state| state.changes("g/r/", after)).unwrap();
        let show = |c: &Change| (c.kind, c.object.key().to_string(), c.object.revision());
        found.changes.iter().map(show).collect()
    }

    #[test]
    fn a_listing_after_a_gap_is_told_as_changes() {
        use ChangeKind::{Created, Deleted, Updated};
        let slot = Slot::new("r");
        slot.install(snapshot(10, vec![entry("a", 3), entry("b", 4)]));
        assert!(slot.with(|s| s.changes("g/r/", 9)).is_err(), "before the first listing");
        assert!(slot.apply(Batch { revision: 12, events: vec![put("c", 12)] }));
        // Meanwhile: a gone, b changed, c gone and made anew, d made.
        let entries = vec![entry("d", 20), entry("b", 15), entry("c", 18)];
        slot.install(snapshot(25, entries));
        assert_eq!(
            changes(&slot, 12),
            [
                (Updated, "g/r/b".into(), 15),
                (Updated, "g/r/c".into(), 18),
                (Created, "g/r/d".into(), 20),
                (Deleted, "g/r/a".into(), 25),
            ]
        );
        assert_eq!(slot.with(|s| s.objects.len()), 3);
        assert_eq!(slot.with(|s| s.revision), 25);
        assert_eq!(slot.raw("g/r/a"), None);
        assert_eq!(slot.raw("g/r/d").as_deref(), Some("/raw/d"));
    }

    /// A question that begins after one came is his answer; one that had begun before is not.
    #[tokio::test]
    async fn who_waits_shares_the_next_question() {
        let slot = Arc::new(Slot::new("r"));
        let asked = Arc::new(AtomicU64::new(0));
        let (go, wait) = watch::channel(false);
        let asker = || {
            let (slot, asked, mut wait) = (slot.clone(), asked.clone(), wait.clone());
            tokio::spawn(async move {
                let ask = async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    wait.wait_for(|go| *go).await.map(drop)
                };
                slot.share(ask).await
            })
        };
        let first = asker();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| asker()).collect();
        tokio::task::yield_now().await;
        go.send_replace(true);
        first.await.unwrap().unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one for the first, one for all others");
    }

    #[test]
    fn what_was_seen_is_not_seen_again() {
        let slot = Slot::new("r");
        slot.install(snapshot(5, vec![entry("a", 5)]));
        let events = vec![put("a", 5), gone("x", 6), put("a", 7), put("b", 7), gone("a", 8)];
        assert!(slot.apply(Batch { revision: 8, events }));
        assert!(!slot.apply(Batch { revision: 30, events: Vec::new() }));
        assert_eq!(slot.with(|s| s.revision), 30);
        assert_eq!(changes(&slot, 5).len(), 3, "two of one transaction, and one");
        // What a stream repeats after it was opened again changes nothing.
        slot.apply(Batch { revision: 8, events: vec![put("b", 7), gone("a", 8)] });
        assert_eq!(changes(&slot, 5).len(), 3);
        assert_eq!(slot.with(|s| s.revision), 30);
    }

    /// A listing of a whole kind may be ahead of the changes that come one by one, or behind them.
    #[test]
    fn listings_and_changes_come_in_any_order() {
        use ChangeKind::{Created, Deleted};
        let slot = Slot::new("r");
        slot.install(snapshot(10, vec![entry("a", 3), entry("b", 4)]));
        let same = vec!["/raw/a".into()];
        slot.install(Snapshot { revision: 20, entries: vec![entry("c", 15)], same });
        let expected = [(Created, "g/r/c".into(), 15), (Deleted, "g/r/b".into(), 20)];
        assert_eq!(changes(&slot, 10), expected);
        // What led there comes later, and says nothing new.
        for (revision, event) in [(12, put("d", 12)), (13, gone("d", 13)), (14, gone("b", 14))] {
            assert!(!slot.apply(Batch { revision, events: vec![event] }));
        }
        assert!(slot.apply(Batch { revision: 21, events: vec![gone("c", 21)] }));
        slot.install(snapshot(18, vec![entry("a", 3), entry("c", 15)]));
        assert_eq!(changes(&slot, 20), [(Deleted, "g/r/c".into(), 21)], "it is of before that");
        assert_eq!((slot.at("/raw/a"), slot.at("/raw/c")), (Some(3), None));
    }

    /// As long as an object is kept at two places, it is the one at its own that counts.
    #[test]
    fn an_object_moves_to_another_place() {
        let at = |raw: &str, revision| Entry { raw: raw.into(), ..entry("p", revision) };
        let slot = Slot::new("r");
        slot.install(snapshot(10, vec![at("default.p", 3)]));
        assert_eq!(slot.raw("g/r/p").as_deref(), Some("default.p"));
        slot.apply(Batch { revision: 11, events: vec![Event::Put(at("p", 11))] });
        slot.apply(Batch { revision: 12, events: vec![Event::Put(at("default.p", 12))] });
        assert_eq!(slot.raw("g/r/p").as_deref(), Some("p"));
        let event = Event::Gone { raw: "default.p".into(), revision: 13, last: None };
        slot.apply(Batch { revision: 13, events: vec![event] });
        assert_eq!((slot.at("p"), slot.at("default.p")), (Some(11), None));
        assert_eq!(changes(&slot, 10), [(ChangeKind::Updated, "g/r/p".into(), 11)]);
    }
}
