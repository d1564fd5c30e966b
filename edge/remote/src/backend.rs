//! What the mirror asks of a store.

use std::future::Future;
use std::sync::Arc;

use apiserver::storage::Expect;
use serde_json::Value;

/// An object as the store has it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where the API server looks for it: `group/resource/[namespace/]name`.
    pub(crate) key: Arc<str>,
    /// Where the store keeps it.
    pub(crate) raw: Box<str>,
    /// The revision of its last change.
    pub(crate) revision: u64,
    pub(crate) value: Value,
}

/// All objects of a kind at one revision.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) entries: Vec<Entry>,
}

/// A change.
#[derive(Debug)]
pub(crate) enum Event {
    Put(Entry),
    /// What was kept at `raw` is gone.
    Gone {
        raw: Box<str>,
        revision: u64,
    },
}

/// Changes, oldest first, and the revision up to which there are no others.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) revision: u64,
    pub(crate) events: Vec<Event>,
}

/// A write of one object.
#[derive(Clone, Debug)]
pub(crate) struct RawWrite {
    pub(crate) raw: String,
    pub(crate) expect: Expect,
    /// `None` deletes.
    pub(crate) value: Option<Vec<u8>>,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It has this revision.
    Done(u64),
    /// Its condition does not hold: the object there was last written at this revision, if there is one. The
    /// store is at `upto`.
    Refused { found: Option<u64>, upto: u64 },
}

/// Why a store did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// What was configured makes no sense, or its files cannot be read.
    #[error("{0}")]
    Config(String),
    /// Nobody answers, or not now. Nothing was written.
    #[error("{0}")]
    Unavailable(String),
    /// A write was sent and never answered.
    #[error("{0}")]
    Unknown(String),
    /// We may not.
    #[error("{0}")]
    Forbidden(String),
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// The history does not reach back that far.
    #[error("the history that was asked for is gone")]
    Compacted,
    /// Anything else that trying again does not help.
    #[error("{0}")]
    Failed(String),
}

/// A store.
pub(crate) trait Backend: Send + Sync + 'static {
    /// The changes of a kind.
    type Watch: Watch;

    /// Whether this store keeps objects of this kind, by its name in URLs.
    fn keeps(&self, plural: &str) -> bool;
    /// Where a new object would be kept, or what is wrong with it.
    fn place(&self, plural: &str, key: &str, value: &Value) -> Result<String, String>;
    /// The bytes that are kept of an object.
    fn encode(&self, plural: &str, value: &Value) -> Vec<u8>;
    /// All objects of a kind.
    fn list(&self, plural: &str) -> impl Future<Output = Result<Snapshot, RemoteError>> + Send;
    /// The changes of a kind after a revision.
    fn watch(
        &self,
        plural: &str,
        after: u64,
    ) -> impl Future<Output = Result<Self::Watch, RemoteError>> + Send;
    /// A revision that is not older than any write that anybody was told of before this was called.
    fn latest(&self, plural: &str) -> impl Future<Output = Result<u64, RemoteError>> + Send;
    /// Writes, if the condition holds.
    fn write(&self, write: RawWrite) -> impl Future<Output = Result<Written, RemoteError>> + Send;
}

/// The changes of a kind as they come.
pub(crate) trait Watch: Send + 'static {
    /// The next ones. Nothing is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Result<Batch, RemoteError>> + Send;
    /// Asks for the revision that has been reached, though nothing may have changed.
    fn poke(&mut self) -> impl Future<Output = Result<(), RemoteError>> + Send;
}
