//! The one thread that owns the calculation and the dataplane.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use calc::Calc;
use model::output::Output;
use model::{InSync, NodeName, Update, WorkloadId};
use telemetry::{Report, Reporter};
use tokio::sync::oneshot;

use crate::drivers::{self, Kernel};
use crate::felix::Configuration;
use crate::guard::Keeper;
use crate::inbox::{Batch, Inbox, Order};
use crate::overlay::Overlay;
use crate::policies::Again;
use crate::status::Shared;

/// How long the loop sleeps at most: it must report that it is alive.
const IDLE: Duration = Duration::from_secs(5);

/// After so many outputs at once there is memory to give back.
const MANY: usize = 1_000;

/// Calculation, overlay, dataplane.
pub(crate) struct Engine {
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    reporter: Reporter,
    overlay: Overlay,
    keeper: Keeper,
    calc: Calc,
    dataplane: Kernel,
    /// A configuration that is not in force yet, and the generation with which it is.
    configuring: Option<(u64, Arc<Configuration>)>,
    in_sync: Option<InSync>,
    waiting: Vec<(Waited, oneshot::Sender<()>)>,
    retry: Duration,
    /// When the rules want to be looked at again.
    again: Again,
}

/// What an order waits for.
enum Waited {
    InForce(WorkloadId),
    Applied(u64),
}

impl Engine {
    pub(crate) fn new(
        node: NodeName,
        dataplane: Kernel,
        (inbox, shared): (Arc<Inbox>, Arc<Shared>),
        (reporter, again, keeper): (Reporter, Again, Keeper),
    ) -> Self {
        Self {
            inbox,
            shared,
            reporter,
            overlay: Overlay::new(node.clone()),
            keeper,
            calc: Calc::new(node),
            dataplane,
            configuring: None,
            in_sync: None,
            waiting: Vec::new(),
            retry: IDLE,
            again,
        }
    }

    /// Until told to stop.
    pub(crate) fn run(mut self) {
        self.reporter.report(Report::waiting("waiting for the datastore"));
        loop {
            let batch = self.inbox.receive(self.patience());
            if batch.stop {
                return;
            }
            self.take_in(batch);
            match self.in_sync {
                Some(witness) => self.apply(witness),
                None => self.reporter.report(Report::waiting("waiting for the datastore")),
            }
        }
    }

    fn patience(&self) -> Duration {
        self.keeper.patience().unwrap_or(IDLE).min(self.retry).min(IDLE)
    }

    fn take_in(&mut self, batch: Batch) {
        let started = Instant::now();
        let count = batch.updates.len();
        for (object, marked) in batch.marks {
            let updates = self.keeper.saw(&object, marked);
            self.feed(updates);
        }
        for update in batch.updates {
            if update == Update::InSync {
                self.in_sync = Some(InSync::after_snapshot());
            }
            let update = self.overlay.hear(self.keeper.hear(update));
            self.calc.update(update);
        }
        if let Some(configuration) = batch.configuration {
            let tunnels = drivers::tunnels(&configuration);
            let (generation, policies) = self.dataplane.configure(tunnels);
            policies.configure(&configuration);
            self.configuring = Some((generation, configuration));
        }
        for order in batch.orders {
            self.obey(order);
        }
        let updates = self.keeper.look();
        self.feed(updates);
        if count > 0 {
            self.shared.metrics.updates.inc_by(count as i64);
            self.shared.metrics.update_seconds.observe(started.elapsed().as_secs_f64());
        }
    }

    fn feed(&mut self, updates: Vec<Update>) {
        for update in updates {
            self.calc.update(update);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Attach { container, endpoint, done } => {
                let id = endpoint.id.clone();
                let update = self.overlay.attach(container, endpoint);
                self.calc.update(update);
                self.waiting.extend(done.map(|done| (Waited::InForce(id), done)));
            }
            Order::Prepared { id } => {
                let updates = self.keeper.prepared(&id);
                self.feed(updates);
            }
            Order::Barrier { done } => self.waiting.push((Waited::Applied(u64::MAX), done)),
            Order::Detach { id, container, done } => {
                if let Some(update) = self.overlay.detach(&id, &container) {
                    self.calc.update(update);
                }
                if self.in_sync.is_some() {
                    self.waiting.push((Waited::Applied(u64::MAX), done));
                } else {
                    // The interface is gone already; the rest follows the first snapshot.
                    let _ = done.send(());
                }
            }
        }
    }

    fn apply(&mut self, witness: InSync) {
        let started = Instant::now();
        let outputs = self.calc.flush();
        self.shared.metrics.outputs.inc_by(outputs.len() as i64);
        let generation = self.dataplane.feed(&outputs);
        for (waited, _) in &mut self.waiting {
            if let Waited::Applied(at @ u64::MAX) = waited {
                *at = generation;
            }
        }
        let applied = self.dataplane.apply(Some(&witness));
        self.answer();
        let in_force = self.dataplane.generation_in_force();
        if let Some((_, configuration)) = self.configuring.take_if(|(at, _)| *at <= in_force) {
            tracing::info!(took = ?started.elapsed(), "the changed configuration is in force");
            self.shared.configured(&configuration);
        }
        let first = outputs.contains(&Output::InSync);
        if first {
            tracing::info!(took = ?started.elapsed(), "first apply done");
        }
        if first || outputs.len() > MANY {
            crate::memory::give_back();
        }
        for failure in &applied.failures {
            tracing::warn!(driver = failure.driver, error = failure.error, "apply failed");
        }
        self.shared.mtu.store(self.dataplane.pod_mtu(), Ordering::Relaxed);
        self.shared.applied(&applied, self.calc.counts());
        let in_force = |id: &&WorkloadId| self.dataplane.is_in_force(id);
        self.shared.in_force(|| self.overlay.local().filter(in_force).cloned().collect());
        self.retry = applied.retry_after.unwrap_or(IDLE).min(self.again.get().unwrap_or(IDLE));
        self.reporter.report(if applied.failures.is_empty() {
            Report::good()
        } else {
            let failed: Vec<_> = applied.failures.iter().map(|f| f.error.as_str()).collect();
            Report::waiting(failed.join("; "))
        });
    }

    fn answer(&mut self) {
        let in_force = self.dataplane.generation_in_force();
        for (waited, done) in std::mem::take(&mut self.waiting) {
            let ready = match &waited {
                Waited::InForce(id) => self.dataplane.is_in_force(id),
                Waited::Applied(generation) => *generation <= in_force,
            };
            if ready {
                let _ = done.send(()); // the caller may have given up
            } else if !done.is_closed() {
                self.waiting.push((waited, done));
            }
        }
    }
}
