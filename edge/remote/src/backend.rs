//! What the mirror asks of a store.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

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
    /// What the store keeps beside it that the API does not show, and that a write must give back.
    pub(crate) beside: Option<Box<Value>>,
}

/// All objects of a kind at one revision.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) entries: Vec<Entry>,
    /// Where there are objects that are known already as they are.
    pub(crate) same: Vec<Box<str>>,
}

/// Says whether the object at a place is known as of a revision: it need not be read again.
pub(crate) type Known<'a> = dyn Fn(&str, u64) -> bool + Sync + 'a;

/// A change.
#[derive(Debug)]
pub(crate) enum Event {
    Put(Entry),
    /// What was kept at `raw` is gone.
    Gone {
        /// The bytes that were kept, where the store tells.
        last: Option<Box<[u8]>>,
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
    /// The new object, as the API shows it. `None` deletes.
    pub(crate) value: Option<Value>,
    /// The uid of the object that is replaced or deleted, as the API shows it.
    pub(crate) uid: Option<String>,
    /// What was kept beside the object that is replaced.
    pub(crate) beside: Option<Value>,
}

/// What became of a write.
#[derive(Debug, PartialEq)]
pub(crate) enum Written {
    /// It has this revision, if the store tells, and the object is now this one, where that is not what was
    /// asked for to the letter.
    Done { revision: Option<u64>, value: Option<Value> },
    /// Its condition does not hold: the object there was last written at this revision, if there is one. The
    /// store is at `upto`, if it tells.
    Refused { found: Option<u64>, upto: u64 },
}

/// What shows every write that was acknowledged before it was asked for.
#[derive(Debug)]
pub(crate) enum Latest {
    /// Whatever is known, once it has come to this revision.
    At(u64),
    /// This.
    All(Snapshot),
}

/// Where one object is now: there at this revision, or not there.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) raw: String,
    pub(crate) revision: Option<u64>,
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
    /// The store has too much to do. Nothing was written.
    #[error("{text}")]
    Throttled {
        /// Its words.
        text: String,
        /// For how long it does not want to be asked again.
        after: Duration,
    },
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
    /// The store is an API server itself and answers this.
    #[error("{message}")]
    Answer {
        /// The HTTP code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// Anything else that trying again does not help.
    #[error("{0}")]
    Failed(String),
}

/// A store. A kind is named as keys begin: `group/resource`.
pub(crate) trait Backend: Send + Sync + 'static {
    /// The changes of a kind.
    type Watch: Watch;

    /// Whether this store keeps objects of this kind.
    fn keeps(&self, kind: &str) -> bool;
    /// Where a new object would be kept, or what is wrong with it.
    fn place(&self, key: &str, value: &Value) -> Result<String, String>;
    /// All objects of a kind.
    fn list(
        &self,
        kind: &str,
        known: &Known<'_>,
    ) -> impl Future<Output = Result<Snapshot, RemoteError>> + Send;
    /// The changes of a kind after a revision.
    fn watch(
        &self,
        kind: &str,
        after: u64,
    ) -> impl Future<Output = Result<Self::Watch, RemoteError>> + Send;
    /// What shows every write of the kind that anybody was told of before this was called. Everything up to
    /// `reached` is known here.
    fn latest(
        &self,
        kind: &str,
        reached: u64,
        known: &Known<'_>,
    ) -> impl Future<Output = Result<Latest, RemoteError>> + Send;
    /// Where the object at a key is now, if asking for one is less work than [`Self::latest`]. `raw` is where
    /// it was last.
    fn look(
        &self,
        key: &str,
        raw: Option<String>,
    ) -> impl Future<Output = Result<Option<Sight>, RemoteError>> + Send {
        let _ = (key, raw);
        std::future::ready(Ok(None))
    }
    /// Writes an object of a kind, if the condition holds.
    fn write(
        &self,
        kind: &str,
        write: RawWrite,
    ) -> impl Future<Output = Result<Written, RemoteError>> + Send;
}

/// The changes of a kind as they come.
pub(crate) trait Watch: Send + 'static {
    /// The next ones. Nothing is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Result<Batch, RemoteError>> + Send;
    /// Asks for the revision that has been reached, though nothing may have changed; where that can be asked.
    fn poke(&mut self) -> impl Future<Output = Result<(), RemoteError>> + Send {
        std::future::ready(Ok(()))
    }
}
