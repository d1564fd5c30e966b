//! The one queue between the asynchronous side and the apply loop.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confirm::{Marked, Object};
use model::{Update, WorkloadEndpoint, WorkloadId};
use std::sync::Arc;
use syncer::Pending;
use tokio::sync::oneshot;

use crate::felix::Configuration;

/// What the CNI server and others ask of the apply loop.
#[derive(Debug)]
pub(crate) enum Order {
    /// A pod has an interface now; `done` is answered once its policy is in force.
    Attach { container: String, endpoint: Arc<WorkloadEndpoint>, done: Option<oneshot::Sender<()>> },
    /// A container has none any more; `done` is answered once that is applied.
    Detach { id: WorkloadId, container: String, done: oneshot::Sender<()> },
    /// Answered once everything said so far is in the kernel.
    Barrier { done: oneshot::Sender<()> },
    /// What is needed to go back from an unconfirmed change is on disk.
    Prepared { id: Arc<str> },
}

/// What came together since the last look.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Before the updates.
    pub(crate) marks: Vec<(Object, Option<Arc<Marked>>)>,
    pub(crate) updates: Vec<Update>,
    pub(crate) orders: Vec<Order>,
    /// Another configuration.
    pub(crate) configuration: Option<Arc<Configuration>>,
    pub(crate) stop: bool,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// The last word on each object.
    marks: BTreeMap<Object, Option<Arc<Marked>>>,
    orders: Vec<Order>, // bounded by the number of CNI calls in progress
    /// The last one.
    configuration: Option<Arc<Configuration>>,
    kernel: bool,
    stop: bool,
}

/// Coalescing, bounded by objects (law 7).
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    pub(crate) fn update(&self, update: Update) {
        self.with(|s| s.pending.push(update));
    }

    pub(crate) fn order(&self, order: Order) {
        self.with(|s| s.orders.push(order));
    }

    /// An object is unconfirmed, or no longer; said before its update.
    pub(crate) fn mark(&self, object: Object, marked: Option<Arc<Marked>>) {
        self.with(|s| drop(s.marks.insert(object, marked)));
    }

    /// The dataplane is to be so from now on.
    pub(crate) fn configure(&self, configuration: Arc<Configuration>) {
        self.with(|s| s.configuration = Some(configuration));
    }

    /// Something happened in the kernel.
    pub(crate) fn kernel_changed(&self) {
        self.with(|s| s.kernel = true);
    }

    pub(crate) fn stop(&self) {
        self.with(|s| s.stop = true);
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do, or until `patience` is over.
    pub(crate) fn receive(&self, patience: Duration) -> Batch {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            let idle = state.pending.is_empty()
                && state.orders.is_empty()
                && state.marks.is_empty()
                && state.configuration.is_none();
            let left = deadline.saturating_duration_since(Instant::now());
            if !idle || state.kernel || state.stop || left.is_zero() {
                state.kernel = false;
                let orders = std::mem::take(&mut state.orders);
                let marks = std::mem::take(&mut state.marks).into_iter().collect();
                let configuration = state.configuration.take();
                let (updates, stop) = (state.pending.take(), state.stop);
                return Batch { marks, updates, orders, configuration, stop };
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
