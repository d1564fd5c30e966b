//! SQLite storage for the API server: the embedded, single-file datastore.
//!
//! In go transactions of compare-and-swap writes; out come objects, listings as of a revision, and the
//! changes since a revision; backups, and stores made of them. Invariants: revisions grow by one per write and never repeat, over
//! restarts neither; an acknowledged write is on the medium; readers see only what is; a list at a
//! revision and the changes after it give every later list. Deliberately absent: any knowledge of
//! Kubernetes beyond `metadata.resourceVersion`, more than one process on a file, sharding.
//! Start reading at [`Store`], then `writer`.

mod backup;
mod check;
mod control;
mod error;
mod file;
mod migrate;
mod restore;
mod serve;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

use apiserver::storage::{Changes, Listing, Object, State, Storage, StorageError, Write};
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

pub use backup::{Manifest, backup};
pub use check::{Report, check, check_backup};
pub use error::{MaintenanceError, OpenError};
use file::File;
pub use restore::{Restored, restore};
pub use serve::{ServeError, ServeOptions, issue, serve};
use writer::{Copy, Request, Task, read};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: the disk is flushed before each acknowledgement.
    #[default]
    Power,
    /// The death of the process at any moment, but not of the machine.
    Process,
}

/// Where and how to store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The SQLite file. Its folder is made if it is not there.
    pub path: PathBuf,
    /// What an acknowledged write survives. Default: a power cut.
    pub durability: Durability,
    /// How many changes are kept for watches that resume. Default 20,000.
    pub history: usize,
    /// How many bytes of objects those changes may hold in memory. Default 256 MiB.
    pub history_bytes: usize,
    /// How long to wait for another process to let go of the file. Default 5 s.
    pub busy_timeout: Duration,
}

impl Options {
    /// The defaults, for the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::default(),
            history: 20_000,
            history_bytes: 256 << 20,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// The embedded store. Cheap to share behind an `Arc`; dropping it closes the file.
#[derive(Debug)]
pub struct Store {
    state: Arc<RwLock<State>>,
    queue: Option<mpsc::Sender<Task>>,
    told: watch::Receiver<u64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens or creates the file and reads it into memory.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let (file, state) = File::open(options)?;
        let (tell, told) = watch::channel(state.revision);
        let state = Arc::new(RwLock::new(state));
        let (queue, requests) = mpsc::channel();
        let shared = state.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer::run(file, &shared, &requests, &tell))
            .map_err(|source| OpenError::Prepare { path: options.path.clone(), source })?;
        Ok(Self { state, queue: Some(queue), told, thread: Some(thread) })
    }
}

impl Store {
    /// Copies the database to a file, which is made.
    fn copy(&self, to: &Path) -> Result<(), MaintenanceError> {
        let gone = || MaintenanceError::Refused("the writer has stopped".into());
        let (answer, outcome) = mpsc::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Task::Copy(Copy { to: to.into(), answer })).map_err(|_| gone())?;
        let copied = outcome.recv().map_err(|_| gone())?;
        copied.map_err(|source| MaintenanceError::Database { path: to.into(), source })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so already.
            drop(thread.join());
        }
    }
}

impl Storage for Store {
    fn revision(&self, _prefix: &str) -> u64 {
        read(&self.state).revision
    }

    fn get(&self, key: &str) -> Option<Arc<Object>> {
        read(&self.state).objects.get(key).cloned()
    }

    fn list(&self, prefix: &str, at: Option<u64>) -> Result<Listing, StorageError> {
        read(&self.state).list(prefix, at)
    }

    fn part(
        &self,
        (prefix, start): (&str, &str),
        at: u64,
        most: usize,
    ) -> Result<Vec<Arc<Object>>, StorageError> {
        read(&self.state).part((prefix, Some(start)), at, most)
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Arc<Object>>, StorageError>> {
        let (answer, outcome) = oneshot::channel();
        let sent =
            self.queue.as_ref().map(|queue| queue.send(Task::Write(Request { writes, answer })));
        Box::pin(async move {
            let gone = || StorageError::Failed("the writer has stopped".into());
            match sent {
                Some(Ok(())) => outcome.await.map_err(|_| gone())?,
                _ => Err(gone()),
            }
        })
    }

    fn changes(&self, prefix: &str, after: u64) -> Result<Changes, StorageError> {
        read(&self.state).changes(prefix, after)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.clone()
    }
}
