//! The storage: kinds that are read when they are first asked for, and followed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use apiserver::storage::{
    Changes, Expect, Listing, Object, State, Storage, StorageError, Wanted, Write,
};
use datastore::Backoff;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Backend, Latest, RawWrite, RemoteError, Snapshot, Watch, Written};
use crate::slot::{Reading, Slot};

/// No request waits longer for the store.
const PATIENCE: Duration = Duration::from_secs(10);
/// A change that has happened comes by itself within this time, unless something is wrong.
const SOON: Duration = Duration::from_secs(1);
/// How often a kind is looked for that is not there.
const ABSENT: Duration = Duration::from_secs(10);
/// How often somebody who waits asks how far the store has come.
const ASK: Duration = Duration::from_millis(50);

/// Calico's kinds in another store.
pub(crate) struct Mirror<B: Backend> {
    shared: Arc<Shared<B>>,
    slots: RwLock<HashMap<Box<str>, Arc<Slot>>>,
    followers: Mutex<JoinSet<()>>,
}

struct Shared<B> {
    backend: B,
    /// The revision of a change, after each.
    told: watch::Sender<u64>,
}

impl<B: Backend> Mirror<B> {
    pub(crate) fn new(backend: B) -> Self {
        let shared = Arc::new(Shared { backend, told: watch::channel(0).0 });
        Self { shared, slots: RwLock::default(), followers: Mutex::default() }
    }

    /// The kind that a key or prefix is of, if it has been asked for.
    fn slot(&self, key: &str) -> Option<Arc<Slot>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(kind(key)?).cloned()
    }

    /// The same; from now on it is followed. Says whether it was not before.
    fn open(&self, key: &str) -> Option<(Arc<Slot>, bool)> {
        if let Some(slot) = self.slot(key) {
            return Some((slot, false));
        }
        let kind = kind(key).filter(|kind| self.shared.backend.keeps(kind))?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(kind) {
            return Some((slot.clone(), false));
        }
        let slot = Arc::new(Slot::new(kind));
        slots.insert(kind.into(), slot.clone());
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.spawn(follow(self.shared.clone(), slot.clone()));
        Some((slot, true))
    }

    fn look<T>(&self, key: &str, look: impl FnOnce(&State) -> T) -> Option<T> {
        self.slot(key).map(|slot| slot.with(look))
    }

    async fn commit_one(&self, write: Write) -> Result<Arc<Object>, StorageError> {
        let (slot, _) = self.open(&write.key).ok_or_else(|| unkept(&write.key))?;
        // Whatever is to be replaced must have been seen.
        until(&slot, Goal::Upto(1), false, PATIENCE).await?;
        let raw = match (slot.raw(&write.key), &write.value) {
            (Some(raw), _) => raw,
            (None, Some(value)) => {
                let place = self.shared.backend.place(&write.key, value);
                place.map_err(StorageError::Invalid)?
            }
            (None, None) => return Err(StorageError::Missing { key: write.key.to_string() }),
        };
        let before = slot.with(|state| state.objects.get(&write.key).cloned());
        let uid = before.and_then(|o| Some(o.value()["metadata"]["uid"].as_str()?.to_owned()));
        let beside = slot.beside(&raw);
        let sent = RawWrite {
            raw: raw.clone(),
            expect: write.expect,
            value: write.value.clone(),
            uid,
            beside,
        };
        match self.shared.backend.write(&slot.kind, sent).await.map_err(refused)? {
            Written::Done { revision, value } => {
                self.shared.written(&slot, &raw, write.expect, revision).await;
                Ok(result(&slot, write, revision, value))
            }
            Written::Refused { found, upto } => {
                // Who tries again finds what was in the way.
                let goal = match (found, write.expect) {
                    (Some(found), _) => Goal::Seen(&raw, found),
                    (None, Expect::At(at)) if upto == 0 => Goal::Moved(&raw, at),
                    (None, _) => Goal::Upto(upto),
                };
                self.shared.catch_up(&slot, goal).await;
                let key = write.key.to_string();
                Err(match (write.expect, found) {
                    (Expect::Absent, _) => StorageError::Exists { key },
                    (_, None) => StorageError::Missing { key },
                    (_, Some(found)) => StorageError::Stale { key, found },
                })
            }
        }
    }
}

/// The object that a write has made, or the last state of what it has deleted.
fn result(slot: &Slot, write: Write, revision: Option<u64>, value: Option<Value>) -> Arc<Object> {
    let now = slot.with(|state| state.objects.get(&write.key).cloned());
    if let Some(object) = now.filter(|object| Some(object.revision()) == revision) {
        return object;
    }
    let value = value.or(write.value).unwrap_or_else(|| json!({"metadata": {}}));
    let revision = revision.unwrap_or_else(|| slot.reached());
    Arc::new(Object::new(write.key, revision, value))
}

impl<B: Backend> Shared<B> {
    /// Who writes finds it written.
    async fn written(&self, slot: &Slot, raw: &str, expect: Expect, revision: Option<u64>) {
        let goal = match (revision, expect) {
            (Some(revision), _) => Goal::Upto(revision),
            (None, Expect::At(at)) => Goal::Moved(raw, at),
            (None, Expect::Absent) => return,
        };
        self.catch_up(slot, goal).await;
    }

    /// Waits for a change that has happened; when it does not come by itself, asks for all there is.
    async fn catch_up(&self, slot: &Slot, goal: Goal<'_>) {
        if until(slot, goal, true, SOON).await.is_ok() {
            return;
        }
        let caught_up = async {
            self.latest(slot).await?;
            until(slot, goal, true, PATIENCE).await
        };
        if let Err(error) = caught_up.await {
            tracing::warn!(kind = &*slot.kind, %error, "a write has not come back yet");
        }
    }

    /// Waits until everything is known that was acknowledged to anybody before.
    async fn latest(&self, slot: &Slot) -> Result<(), StorageError> {
        slot.share(async {
            let known = |raw: &str, revision| slot.at(raw) == Some(revision);
            let asked = {
                let _one = slot.listing.lock().await;
                self.backend.latest(&slot.kind, slot.reached(), &known).await
            };
            match asked.map_err(refused)? {
                Latest::At(revision) => until(slot, Goal::Upto(revision), true, PATIENCE).await,
                Latest::All(snapshot) => {
                    self.install(slot, snapshot);
                    Ok(())
                }
            }
        })
        .await
    }

    /// The same of one object.
    async fn latest_of(&self, slot: &Slot, key: &str) -> Result<(), StorageError> {
        let raw = slot.raw(key);
        let before = raw.as_deref().and_then(|raw| slot.at(raw));
        let Some(sight) = self.backend.look(key, raw).await.map_err(refused)? else {
            return self.latest(slot).await;
        };
        let goal = match (sight.revision, before) {
            (Some(revision), _) => Goal::Seen(&sight.raw, revision),
            (None, Some(before)) => Goal::Moved(&sight.raw, before),
            (None, None) => return Ok(()),
        };
        match until(slot, goal, false, SOON).await {
            Ok(()) => Ok(()),
            Err(_) => self.latest(slot).await,
        }
    }

    fn install(&self, slot: &Slot, snapshot: Snapshot) {
        slot.install(snapshot);
        self.told.send_replace(slot.reached());
    }
}

/// `group/resource` of a key or prefix that goes on after that.
fn kind(key: &str) -> Option<&str> {
    let group = key.find('/')?;
    let resource = key[group + 1..].find('/').filter(|length| *length > 0)?;
    Some(&key[..=group + resource])
}

pub(crate) fn unkept(key: &str) -> StorageError {
    StorageError::Failed(format!("{key}: this datastore keeps no objects of that kind"))
}

pub(crate) fn refused(error: RemoteError) -> StorageError {
    match error {
        RemoteError::Unavailable(text) | RemoteError::Throttled { text, .. } => {
            StorageError::Unavailable(text)
        }
        RemoteError::Unknown(text) => StorageError::Unknown(text),
        RemoteError::Full(text) => StorageError::Full(text),
        RemoteError::Forbidden(text) => StorageError::Forbidden(text),
        RemoteError::Answer { code, message } => StorageError::Answered { code, message },
        error @ (RemoteError::Config(_) | RemoteError::Compacted | RemoteError::Failed(_)) => {
            StorageError::Failed(error.to_string())
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Goal<'a> {
    /// Everything up to this revision is known.
    Upto(u64),
    /// The object at this place is known as it was at this revision, or later.
    Seen(&'a str, u64),
    /// The object at this place is not the one any more that was written at this revision.
    Moved(&'a str, u64),
}

impl Goal<'_> {
    fn is_reached(self, slot: &Slot, reached: u64) -> bool {
        match self {
            Self::Upto(revision) => reached >= revision,
            // Gone again, if it is not there although what made it is known.
            Self::Seen(raw, revision) => {
                slot.at(raw).map_or(reached >= revision, |now| now >= revision)
            }
            Self::Moved(raw, revision) => slot.at(raw) != Some(revision),
        }
    }
}

/// Waits until a goal is reached. With `ask`, the store is asked how far it has come: there may be no change
/// to tell.
async fn until(
    slot: &Slot,
    goal: Goal<'_>,
    ask: bool,
    patience: Duration,
) -> Result<(), StorageError> {
    let end = Instant::now() + patience;
    let mut reading = slot.reading.subscribe();
    loop {
        let now = reading.borrow_and_update().clone();
        match now {
            Reading::Reached(reached) if goal.is_reached(slot, reached) => return Ok(()),
            // Waiting helps against nothing else.
            Reading::Begun(Some(error)) if !passes(&error) => return Err(refused(error)),
            _ => {}
        }
        if ask {
            slot.poke.notify_one();
        }
        let wait = end.min(Instant::now() + ASK);
        let moved = timeout_at(wait, reading.changed()).await;
        if moved.is_err() && Instant::now() >= end {
            let why = match &*reading.borrow() {
                Reading::Begun(Some(error)) => error.to_string(),
                _ => format!("no answer within {} s", patience.as_secs()),
            };
            return Err(StorageError::Unavailable(why));
        }
    }
}

/// Whether an error goes away by itself.
fn passes(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Unavailable(_) | RemoteError::Throttled { .. })
}

/// Reads a kind and follows it, for ever.
async fn follow<B: Backend>(shared: Arc<Shared<B>>, slot: Arc<Slot>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut listed = false;
    loop {
        let ended = if listed {
            changes(&shared, &slot, &mut backoff).await
        } else {
            let known = |raw: &str, revision| slot.at(raw) == Some(revision);
            let _one = slot.listing.lock().await;
            shared.backend.list(&slot.kind, &known).await.map(|snapshot| {
                shared.install(&slot, snapshot);
                listed = true;
            })
        };
        let Err(error) = ended else { continue };
        slot.fail(&error);
        if matches!(error, RemoteError::Answer { code: 404, .. }) {
            // There is no such kind there, which is no trouble; it may come.
            tokio::time::sleep(ABSENT).await;
            listed = false;
            continue;
        }
        if matches!(error, RemoteError::Compacted) {
            listed = false;
        } else {
            tracing::warn!(kind = &*slot.kind, %error, "the datastore cannot be read, trying again");
        }
        if let RemoteError::Throttled { after, .. } = error {
            tokio::time::sleep(after).await;
        }
        backoff.wait().await;
    }
}

async fn changes<B: Backend>(
    shared: &Shared<B>,
    slot: &Slot,
    backoff: &mut Backoff,
) -> Result<(), RemoteError> {
    let after = slot.with(|state| state.revision);
    let mut watch = shared.backend.watch(&slot.kind, after).await?;
    loop {
        tokio::select! {
            batch = watch.next() => {
                let batch = batch?;
                backoff.reset();
                let revision = batch.revision;
                if slot.apply(batch) {
                    shared.told.send_replace(revision);
                }
            }
            () = slot.poke.notified() => watch.poke().await?,
        }
    }
}

impl<B: Backend> Storage for Mirror<B> {
    fn settle<'a>(
        &'a self,
        prefix: &'a str,
        wanted: Wanted<'a>,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let Some((slot, new)) = self.open(prefix) else { return Ok(()) };
            until(&slot, Goal::Upto(1), false, PATIENCE).await?;
            match wanted {
                Wanted::Known => Ok(()),
                // It has been read since this was called.
                _ if new => Ok(()),
                Wanted::Latest => self.shared.latest(&slot).await,
                Wanted::LatestOf(key) => self.shared.latest_of(&slot, key).await,
            }
        })
    }

    fn hasten(&self, prefix: &str, revision: u64) {
        let Some(slot) = self.slot(prefix).filter(|slot| slot.reached() < revision) else { return };
        let shared = self.shared.clone();
        tokio::spawn(async move {
            if slot.reached() < revision
                && let Err(error) = shared.latest(&slot).await
            {
                tracing::debug!(kind = &*slot.kind, %error, "a kind cannot be brought up to date");
            }
        });
    }

    fn revision(&self, prefix: &str) -> u64 {
        self.look(prefix, |state| state.revision).unwrap_or_default()
    }

    fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.look(key, |state| state.objects.get(key).cloned())?
    }

    fn list(&self, prefix: &str, at: Option<u64>) -> Result<Listing, StorageError> {
        let none = || Ok(Listing { revision: at.unwrap_or_default(), objects: Vec::new() });
        self.look(prefix, |state| state.list(prefix, at)).unwrap_or_else(none)
    }

    fn part(
        &self,
        place: (&str, &str),
        at: u64,
        most: usize,
    ) -> Result<Vec<Arc<Object>>, StorageError> {
        let (prefix, start) = (place.0, Some(place.1));
        let found = self.look(prefix, |state| state.part((prefix, start), at, most));
        found.unwrap_or_else(|| Ok(Vec::new()))
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Arc<Object>>, StorageError>> {
        Box::pin(async move {
            let mut writes = writes.into_iter();
            match (writes.next(), writes.next()) {
                (None, _) => Ok(Vec::new()),
                (Some(write), None) => Ok(vec![self.commit_one(write).await?]),
                _ => Err(StorageError::Failed("one object at a time, wanted several".into())),
            }
        })
    }

    fn changes(&self, prefix: &str, after: u64) -> Result<Changes, StorageError> {
        let none = || Ok(Changes { upto: after, changes: Vec::new() });
        self.look(prefix, |state| state.changes(prefix, after)).unwrap_or_else(none)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.told.subscribe()
    }
}
