//! What the API server asks of a store: current objects by key, a revision counter, and the changes
//! since a revision. Keys are `group/resource/[namespace/]name`; values are Kubernetes objects.

mod state;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

pub use state::State;

/// An object as it was stored at one revision.
#[derive(Debug)]
pub struct Object {
    key: Arc<str>,
    revision: u64,
    value: Value,
    json: OnceLock<Bytes>,
}

impl Object {
    /// Wraps `value`, whose `metadata.resourceVersion` becomes `revision`.
    pub fn new(key: Arc<str>, revision: u64, mut value: Value) -> Self {
        stamp(&mut value, revision);
        Self { key, revision, value, json: OnceLock::new() }
    }

    /// The key it is stored under.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The revision that wrote it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The object, with its `metadata.resourceVersion`.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The object as JSON text, encoded at most once.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(self.value.to_string()))
    }
}

/// Writes `revision` into `metadata.resourceVersion`.
fn stamp(value: &mut Value, revision: u64) {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}

/// What a write requires of the object it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There must be none.
    Absent,
    /// It must still be the one written at this revision.
    At(u64),
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub key: Arc<str>,
    /// Compare-and-swap condition.
    pub expect: Expect,
    /// The new object, or `None` to delete it.
    pub value: Option<Value>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// There was none before.
    Created,
    /// It replaced one.
    Updated,
    /// It is gone; the change carries its last state.
    Deleted,
}

/// One entry of the history.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object after the change; for a deletion its last state, stamped with the deleting revision.
    pub object: Arc<Object>,
    /// The object before, where it is known: for changes read back after a restart it may not be.
    pub previous: Option<Arc<Object>>,
}

/// Objects under a prefix, in key order, all as of one revision.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The revision the listing shows.
    pub revision: u64,
    /// The objects, by key.
    pub objects: Vec<Arc<Object>>,
}

/// The changes after a revision.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Everything up to and including this revision has been looked at.
    pub upto: u64,
    /// The changes under the prefix, oldest first.
    pub changes: Vec<Change>,
}

/// Why a store did not do what it was asked. Nothing was written, except perhaps for [`Self::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The object was to be created and is there already.
    #[error("{key} exists already")]
    Exists {
        /// Which.
        key: String,
    },
    /// The object was to be replaced or deleted and is not there.
    #[error("{key} does not exist")]
    Missing {
        /// Which.
        key: String,
    },
    /// Somebody else wrote the object meanwhile.
    #[error("{key} was changed meanwhile: it is at revision {found}")]
    Stale {
        /// Which.
        key: String,
        /// Its revision now.
        found: u64,
    },
    /// The history no longer reaches back to the revision asked for.
    #[error("revision {asked} is too old: history starts after {oldest}")]
    Expired {
        /// The revision asked for.
        asked: u64,
        /// The oldest revision that can still be asked for.
        oldest: u64,
    },
    /// The disk is full.
    #[error("the disk is full, nothing was written: {0}")]
    Full(String),
    /// Any other failure of the medium.
    #[error("the store failed, nothing was written: {0}")]
    Failed(String),
    /// The store behind this one cannot keep such an object.
    #[error("{0}")]
    Invalid(String),
    /// The store behind this one does not let us.
    #[error("the datastore refuses: {0}")]
    Forbidden(String),
    /// The store behind this one is an API server itself, and this is what it answers.
    #[error("the datastore answers {code}: {message}")]
    Answered {
        /// The HTTP code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The store behind this one does not answer, or does not take the write now.
    #[error("the datastore cannot be reached, nothing was written: {0}")]
    Unavailable(String),
    /// The store behind this one was asked to write and did not answer: whether it did is not known.
    #[error("the datastore did not answer, it may have written: {0}")]
    Unknown(String),
}

/// What a read must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Whatever is known.
    Known,
    /// Every write that was acknowledged to anybody before.
    Latest,
    /// The same, of the one object at this key; of others what is known.
    LatestOf(&'a str),
}

/// A transactional, revisioned store of objects.
///
/// Reads never wait for the medium: [`Storage::settle`] does. Each write gets a revision higher than that of
/// the last one with the same beginning `group/resource/`; revisions never go back, over restarts neither. A
/// write that was acknowledged survives the process.
pub trait Storage: Send + Sync + 'static {
    /// Waits until reads under `prefix`, which is a `group/resource/`, show what is wanted.
    fn settle<'a>(
        &'a self,
        prefix: &'a str,
        wanted: Wanted<'a>,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        let _ = (prefix, wanted);
        Box::pin(std::future::ready(Ok(())))
    }
    /// Whether what has been read keeps up by itself. If not, an object must be asked for each time, also
    /// before it is written.
    fn follows(&self) -> bool {
        true
    }
    /// Somebody waits until what is under `prefix` has come to `revision`, with or without changes.
    fn hasten(&self, prefix: &str, revision: u64) {
        let _ = (prefix, revision);
    }
    /// The revision of the last write of anything under `prefix`, or a later one.
    fn revision(&self, prefix: &str) -> u64;
    /// The current object at `key`.
    fn get(&self, key: &str) -> Option<Arc<Object>>;
    /// The objects whose key starts with `prefix`, as of `at` (default: now).
    fn list(&self, prefix: &str, at: Option<u64>) -> Result<Listing, StorageError>;
    /// Of the objects under `prefix` as of `at` that come behind the key `start`, the first `most`.
    fn part(
        &self,
        place: (&str, &str),
        at: u64,
        most: usize,
    ) -> Result<Vec<Arc<Object>>, StorageError>;
    /// Performs all of `writes` or none. Returns the objects in the order of the writes.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Arc<Object>>, StorageError>>;
    /// The changes after revision `after` whose key starts with `prefix`.
    fn changes(&self, prefix: &str, after: u64) -> Result<Changes, StorageError>;
    /// Tells the revision of a write after each one; of which prefix is not said.
    fn subscribe(&self) -> watch::Receiver<u64>;
}
