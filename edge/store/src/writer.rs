//! The one thread that writes. Requests that wait while it flushes go into the next flush together.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock, mpsc};

use apiserver::storage::{Change, ChangeKind, Expect, Object, State, StorageError, Write};
use tokio::sync::{oneshot, watch};

use crate::file::File;

/// The most requests that share one flush.
const GROUP: usize = 256;

type Answer = Result<Vec<Arc<Object>>, StorageError>;

/// One transaction and where its outcome goes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) writes: Vec<Write>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A copy of the database, and where its outcome goes.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) to: PathBuf,
    pub(crate) answer: mpsc::Sender<Result<(), rusqlite::Error>>,
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Task {
    Write(Request),
    Copy(Copy),
}

pub(crate) fn run(
    mut file: File,
    state: &RwLock<State>,
    queue: &mpsc::Receiver<Task>,
    told: &watch::Sender<u64>,
) {
    while let Ok(first) = queue.recv() {
        let rest = std::iter::from_fn(|| queue.try_recv().ok()).take(GROUP - 1);
        let (mut requests, mut copies) = (Vec::new(), Vec::new());
        for task in std::iter::once(first).chain(rest) {
            match task {
                Task::Write(request) => requests.push(request),
                Task::Copy(copy) => copies.push(copy),
            }
        }
        if !requests.is_empty() {
            write_group(&mut file, state, requests, told);
        }
        for Copy { to, answer } in copies {
            // Who asked may have gone away.
            drop(answer.send(file.copy(&to)));
        }
    }
}

/// Performs a group of transactions with one flush. Each stands or falls by itself, except that a
/// failing medium fails them all.
fn write_group(
    file: &mut File,
    state: &RwLock<State>,
    requests: Vec<Request>,
    told: &watch::Sender<u64>,
) {
    let mut group = Group::new(state);
    let mut done = Vec::new();
    for request in requests {
        match group.add(request.writes) {
            Ok(objects) => done.push((request.answer, objects)),
            // A requester that has gone away does not want to know.
            Err(error) => drop(request.answer.send(Err(error))),
        }
    }
    let changes = group.changes;
    let floor = read(state).floor;
    if let Err(error) = file.write(&changes, floor) {
        tracing::error!(%error, requests = done.len(), "store write failed");
        for (answer, _) in done {
            drop(answer.send(Err(error.clone())));
        }
        return;
    }
    let revision = {
        let mut state = state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for change in changes {
            state.push(change);
        }
        state.revision
    };
    told.send_replace(revision);
    for (answer, objects) in done {
        drop(answer.send(Ok(objects)));
    }
}

/// Changes accepted so far, not yet on the medium.
struct Group<'a> {
    state: &'a RwLock<State>,
    revision: u64,
    /// Objects as they will be: `None` if deleted.
    ahead: HashMap<Arc<str>, Option<Arc<Object>>>,
    changes: Vec<Change>,
}

impl<'a> Group<'a> {
    fn new(state: &'a RwLock<State>) -> Self {
        let revision = read(state).revision;
        Self { state, revision, ahead: HashMap::new(), changes: Vec::new() }
    }

    /// Adds a whole transaction or, on error, nothing of it.
    fn add(&mut self, writes: Vec<Write>) -> Answer {
        let mut current = Vec::with_capacity(writes.len());
        for write in &writes {
            current.push(self.examine(write)?);
        }
        let mut objects = Vec::with_capacity(writes.len());
        for (write, previous) in writes.into_iter().zip(current) {
            objects.push(self.change(write, previous));
        }
        Ok(objects)
    }

    fn current(&self, key: &str) -> Option<Arc<Object>> {
        match self.ahead.get(key) {
            Some(object) => object.clone(),
            None => read(self.state).objects.get(key).cloned(),
        }
    }

    /// Checks the condition of `write` and returns the object it replaces.
    fn examine(&self, write: &Write) -> Result<Option<Arc<Object>>, StorageError> {
        let key = || write.key.to_string();
        match (write.expect, self.current(&write.key)) {
            (Expect::Absent, None) => Ok(None),
            (Expect::Absent, Some(_)) => Err(StorageError::Exists { key: key() }),
            (Expect::At(_), None) => Err(StorageError::Missing { key: key() }),
            (Expect::At(revision), Some(object)) if object.revision() == revision => {
                Ok(Some(object))
            }
            (Expect::At(_), Some(object)) => {
                Err(StorageError::Stale { key: key(), found: object.revision() })
            }
        }
    }

    fn change(&mut self, write: Write, previous: Option<Arc<Object>>) -> Arc<Object> {
        self.revision += 1;
        let kind = match (&write.value, &previous) {
            (None, _) => ChangeKind::Deleted,
            (Some(_), None) => ChangeKind::Created,
            (Some(_), Some(_)) => ChangeKind::Updated,
        };
        let last = || previous.as_ref().map(|o| o.value().clone()).unwrap_or_default();
        let value = write.value.unwrap_or_else(last);
        let object = Arc::new(Object::new(write.key.clone(), self.revision, value));
        let ahead = (kind != ChangeKind::Deleted).then(|| object.clone());
        self.ahead.insert(write.key, ahead);
        self.changes.push(Change { kind, object: object.clone(), previous });
        object
    }
}

/// Readers and the writer leave the state whole, so a poisoned lock is still good.
pub(crate) fn read(state: &RwLock<State>) -> std::sync::RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
