//! SQLite storage for the API server: the embedded, single-file datastore.
//!
//! In go transactions of compare-and-swap writes; out come objects, listings as of a revision, and the
//! changes since a revision. Invariants: revisions grow by one per write and never repeat, over
//! restarts neither; an acknowledged write is on the medium; readers see only what is; a list at a
//! revision and the changes after it give every later list. Deliberately absent: any knowledge of
//! Kubernetes beyond `metadata.resourceVersion`, more than one process on a file, sharding.
//! Start reading at [`Store`], then `writer`.

mod error;
mod file;
mod serve;
mod state;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

use apiserver::storage::{Changes, Listing, Object, Storage, StorageError, Write};
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

pub use error::OpenError;
use file::File;
pub use serve::{ServeError, ServeOptions, issue, serve};
use state::State;
use writer::{Request, read};

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
    queue: Option<mpsc::Sender<Request>>,
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
    fn revision(&self) -> u64 {
        read(&self.state).revision
    }

    fn get(&self, key: &str) -> Option<Arc<Object>> {
        read(&self.state).objects.get(key).cloned()
    }

    fn list(&self, prefix: &str, at: Option<u64>) -> Result<Listing, StorageError> {
        read(&self.state).list(prefix, at)
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Arc<Object>>, StorageError>> {
        let (answer, outcome) = oneshot::channel();
        let sent = self.queue.as_ref().map(|queue| queue.send(Request { writes, answer }));
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
