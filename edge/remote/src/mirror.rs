//! The storage: kinds that are read when they are first asked for, and followed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use apiserver::storage::{Changes, Listing, Object, State, Storage, StorageError, Write};
use datastore::Backoff;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Backend, RawWrite, RemoteError, Watch, Written};
use crate::slot::{Reading, Slot};

/// No request waits longer for the store.
const PATIENCE: Duration = Duration::from_secs(10);
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
        slots.get(plural(key)?).cloned()
    }

    /// The same; from now on it is followed.
    fn open(&self, key: &str) -> Option<Arc<Slot>> {
        if let Some(slot) = self.slot(key) {
            return Some(slot);
        }
        let plural = plural(key).filter(|plural| self.shared.backend.keeps(plural))?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(plural.into()).or_insert_with(|| {
            let slot = Arc::new(Slot::new(plural));
            let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
            followers.spawn(follow(self.shared.clone(), slot.clone()));
            slot
        });
        Some(slot.clone())
    }

    fn look<T>(&self, key: &str, look: impl FnOnce(&State) -> T) -> Option<T> {
        self.slot(key).map(|slot| slot.with(look))
    }

    async fn commit_one(&self, write: Write) -> Result<Arc<Object>, StorageError> {
        let slot = self.open(&write.key).ok_or_else(|| unkept(&write.key))?;
        // Whatever is to be replaced must have been seen.
        until(&slot, 1, false).await?;
        let raw = match (slot.raw(&write.key), &write.value) {
            (Some(raw), _) => raw,
            (None, Some(value)) => {
                let place = self.shared.backend.place(&slot.plural, &write.key, value);
                place.map_err(StorageError::Invalid)?
            }
            (None, None) => return Err(StorageError::Missing { key: write.key.to_string() }),
        };
        let value = write.value.as_ref().map(|v| self.shared.backend.encode(&slot.plural, v));
        let sent = RawWrite { raw, expect: write.expect, value };
        match self.shared.backend.write(sent).await.map_err(refused)? {
            Written::Done(revision) => {
                // Who writes finds it written.
                if let Err(error) = until(&slot, revision, true).await {
                    tracing::warn!(key = &*write.key, %error, "a write has not come back yet");
                }
                let now = slot.with(|state| state.objects.get(&write.key).cloned());
                Ok(now.filter(|object| object.revision() == revision).unwrap_or_else(|| {
                    let value = write.value.unwrap_or_else(|| serde_json::json!({"metadata": {}}));
                    Arc::new(Object::new(write.key, revision, value))
                }))
            }
            Written::Refused { found, upto } => {
                // Who tries again finds what was in the way.
                drop(until(&slot, found.unwrap_or(upto), true).await);
                let key = write.key.to_string();
                Err(match (write.expect, found) {
                    (apiserver::storage::Expect::Absent, _) => StorageError::Exists { key },
                    (_, None) => StorageError::Missing { key },
                    (_, Some(found)) => StorageError::Stale { key, found },
                })
            }
        }
    }
}

/// `plural` of `group/plural/...`, where the group is Calico's.
fn plural(key: &str) -> Option<&str> {
    key.strip_prefix("projectcalico.org/")?.split('/').next().filter(|plural| !plural.is_empty())
}

fn unkept(key: &str) -> StorageError {
    StorageError::Failed(format!("{key}: this datastore keeps no objects of that kind"))
}

fn refused(error: RemoteError) -> StorageError {
    match error {
        RemoteError::Unavailable(text) => StorageError::Unavailable(text),
        RemoteError::Unknown(text) => StorageError::Unknown(text),
        RemoteError::Full(text) => StorageError::Full(text),
        RemoteError::Forbidden(text) => StorageError::Forbidden(text),
        error @ (RemoteError::Config(_) | RemoteError::Compacted | RemoteError::Failed(_)) => {
            StorageError::Failed(error.to_string())
        }
    }
}

/// Waits until everything up to `revision` is known. With `ask`, the store is asked how far it has come:
/// there may be no change to tell.
async fn until(slot: &Slot, revision: u64, ask: bool) -> Result<(), StorageError> {
    let end = Instant::now() + PATIENCE;
    let mut reading = slot.reading.subscribe();
    loop {
        match &*reading.borrow_and_update() {
            Reading::Reached(reached) if *reached >= revision => return Ok(()),
            // Waiting helps against nothing else.
            Reading::Begun(Some(error)) if !matches!(error, RemoteError::Unavailable(_)) => {
                return Err(refused(error.clone()));
            }
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
                _ => format!("no answer within {} s", PATIENCE.as_secs()),
            };
            return Err(StorageError::Unavailable(why));
        }
    }
}

/// Reads a kind and follows it, for ever.
async fn follow<B: Backend>(shared: Arc<Shared<B>>, slot: Arc<Slot>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut listed = false;
    loop {
        let ended = if listed {
            changes(&shared, &slot, &mut backoff).await
        } else {
            shared.backend.list(&slot.plural).await.map(|snapshot| {
                let revision = snapshot.revision;
                slot.install(snapshot);
                shared.told.send_replace(revision);
                listed = true;
            })
        };
        let Err(error) = ended else { continue };
        slot.fail(&error);
        if matches!(error, RemoteError::Compacted) {
            listed = false;
            continue;
        }
        tracing::warn!(kind = &*slot.plural, %error, "the datastore cannot be read, trying again");
        backoff.wait().await;
    }
}

async fn changes<B: Backend>(
    shared: &Shared<B>,
    slot: &Slot,
    backoff: &mut Backoff,
) -> Result<(), RemoteError> {
    let after = slot.with(|state| state.revision);
    let mut watch = shared.backend.watch(&slot.plural, after).await?;
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
        fresh: bool,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let Some(slot) = self.open(prefix) else { return Ok(()) };
            until(&slot, 1, false).await?;
            if !fresh {
                return Ok(());
            }
            let ask = async {
                let latest = self.shared.backend.latest(&slot.plural);
                until(&slot, latest.await.map_err(refused)?, true).await
            };
            slot.share(ask).await
        })
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
