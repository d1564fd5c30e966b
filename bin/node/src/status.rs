//! What the parts of the agent know about each other: the status document and the metrics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use confirm::Decision;
use dataplane::Applied;
use flows::Cut;
use hooks::Finding;
use model::WorkloadId;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde_json::{Value, json};
use syncer::SyncState;
use telemetry::{Health, Registry};
use tokio::sync::{Notify, watch};

use crate::felix::Configuration;

/// So many cut flows are told in the status document; the log has them all.
const LAST_CUTS: usize = 20;

/// Metrics of the agent's own; those of the dataplane are the dataplane's.
pub(crate) struct Metrics {
    pub(crate) updates: Gauge,
    pub(crate) outputs: Gauge,
    pub(crate) update_seconds: Histogram,
    endpoints: Gauge,
    policies: Gauge,
    sets: Gauge,
    resyncs: Gauge,
    resync_state: Gauge,
    refused: Gauge,
    unconfirmed: Gauge,
    pub(crate) reverted: Counter,
    foreign: Family<[(&'static str, &'static str); 2], Gauge>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let it = Self {
            updates: Gauge::default(),
            outputs: Gauge::default(),
            update_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            endpoints: Gauge::default(),
            policies: Gauge::default(),
            sets: Gauge::default(),
            resyncs: Gauge::default(),
            resync_state: Gauge::default(),
            refused: Gauge::default(),
            unconfirmed: Gauge::default(),
            reverted: Counter::default(),
            foreign: Family::default(),
        };
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(name, help, gauge.clone());
        };
        gauge("felix_active_local_endpoints", "Active endpoints on this host", &it.endpoints);
        gauge("felix_active_local_policies", "Active policies on this host", &it.policies);
        gauge("felix_ipsets_calico", "Active sets of addresses on this host", &it.sets);
        gauge("felix_calc_graph_updates_processed", "Updates processed", &it.updates);
        gauge("felix_calc_graph_output_events", "Outputs of the calculation", &it.outputs);
        gauge("felix_resyncs_started", "Lists of the datastore begun", &it.resyncs);
        gauge("felix_resync_state", "1 waiting, 2 listing, 3 in sync", &it.resync_state);
        gauge("felix_refused_objects", "Objects that count as absent or fail closed", &it.refused);
        gauge("felix_unconfirmed_changes", "Changes that wait for a confirmation", &it.unconfirmed);
        registry.register(
            "felix_reverted_changes",
            "Changes that were not confirmed in time",
            it.reverted.clone(),
        );
        registry.register(
            "felix_foreign_hooks",
            "Hooks by which other programs decide about packets, before policy or after it",
            it.foreign.clone(),
        );
        registry.register(
            "felix_calc_graph_update_time_seconds",
            "Seconds to take in a batch of updates",
            it.update_seconds.clone(),
        );
        it
    }
}

#[derive(Default)]
struct Facts {
    failing: BTreeMap<&'static str, String>,
    /// Objects that could not be understood.
    misread: BTreeMap<String, Vec<String>>,
    /// Objects that the kernel refuses.
    unprogrammed: BTreeMap<String, String>,
    driver_failures: BTreeMap<String, String>,
    endpoints: usize,
    policies: usize,
    sets: usize,
    generation: u64,
    /// The last flows that were cut, in words, and how many there were.
    cut: (VecDeque<String>, u64),
    configuration: Value,
    /// Changes that wait for a confirmation, and the last that ended.
    unconfirmed: Value,
    settled: VecDeque<Value>,
    /// Who else decides about packets.
    foreign: Value,
}

/// See the module. Shared by all parts.
pub(crate) struct Shared {
    node: String,
    pub(crate) metrics: Metrics,
    /// For pods made from now on.
    pub(crate) mtu: AtomicU32,
    /// Nodes of the cluster run another agent than ours.
    pub(crate) upstream: AtomicBool,
    /// Tables of other programs changed.
    pub(crate) others_changed: Notify,
    in_sync: AtomicBool,
    /// Endpoints of this node whose policy is in the kernel, as soon as somebody wants to know.
    in_force: OnceLock<watch::Sender<BTreeSet<WorkloadId>>>,
    facts: Mutex<Facts>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(node: &str, registry: &mut Registry) -> Self {
        Self {
            node: node.to_owned(),
            metrics: Metrics::register(registry),
            mtu: AtomicU32::new(0),
            upstream: AtomicBool::new(false),
            others_changed: Notify::new(),
            in_sync: AtomicBool::new(false),
            in_force: OnceLock::new(),
            facts: Mutex::default(),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After each apply.
    pub(crate) fn applied(&self, applied: &Applied, counts: calc::Counts) {
        let mut facts = self.facts();
        facts.unprogrammed =
            applied.refused.iter().map(|r| (r.object.clone(), r.error.clone())).collect();
        facts.driver_failures =
            applied.failures.iter().map(|f| (f.driver.to_owned(), f.error.clone())).collect();
        facts.generation = applied.generation;
        (facts.endpoints, facts.policies, facts.sets) =
            (counts.endpoints, counts.policies, counts.sets);
        self.metrics.endpoints.set(counts.endpoints as i64);
        self.metrics.policies.set(counts.policies as i64);
        self.metrics.sets.set(counts.sets as i64);
        self.metrics.refused.set((facts.unprogrammed.len() + facts.misread.len()) as i64);
        self.metrics.resync_state.set(3);
        self.in_sync.store(true, Ordering::Relaxed);
    }

    /// From now on, which endpoints of this node are in force is told.
    pub(crate) fn report_endpoints(&self) -> watch::Receiver<BTreeSet<WorkloadId>> {
        self.in_force.get_or_init(|| watch::Sender::new(BTreeSet::new())).subscribe()
    }

    /// After each apply: which they are, if somebody wants to know.
    pub(crate) fn in_force(&self, which: impl FnOnce() -> BTreeSet<WorkloadId>) {
        let Some(sender) = self.in_force.get() else { return };
        let which = which();
        sender.send_if_modified(|before| {
            let new = *before != which;
            *before = which;
            new
        });
    }

    /// Established flows that policy denies now were cut.
    pub(crate) fn cut(&self, cuts: &[Cut]) {
        let mut facts = self.facts();
        let (last, count) = &mut facts.cut;
        *count += cuts.len() as u64;
        for Cut { flow, endpoint, by } in cuts {
            last.truncate(LAST_CUTS - 1);
            let from = SocketAddr::new(flow.source, flow.source_port);
            let to = SocketAddr::new(flow.destination, flow.destination_port);
            let endpoint = endpoint.as_deref().unwrap_or("host endpoint");
            last.push_front(format!("{} {from} > {to} at {endpoint}: {by}", flow.protocol));
        }
    }

    /// From the syncer.
    pub(crate) fn sync_state(&self, state: SyncState) {
        let mut facts = self.facts();
        match state {
            SyncState::Listing(_) => {
                self.metrics.resyncs.inc();
                if !self.in_sync.load(Ordering::Relaxed) {
                    self.metrics.resync_state.set(2);
                }
            }
            SyncState::Connected(kind) => drop(facts.failing.remove(kind)),
            SyncState::Failing(kind, error) => drop(facts.failing.insert(kind, error)),
        }
    }

    /// From the syncer.
    pub(crate) fn misread(&self, object: &str, reasons: &[String]) {
        let mut facts = self.facts();
        if reasons.is_empty() {
            facts.misread.remove(object);
        } else {
            facts.misread.insert(object.to_owned(), reasons.to_vec());
        }
        self.metrics.refused.set((facts.unprogrammed.len() + facts.misread.len()) as i64);
    }

    /// Who else decides about packets.
    pub(crate) fn foreign(&self, found: &BTreeSet<Finding>) {
        self.metrics.foreign.clear();
        for Finding { kind, when, .. } in found {
            let labels = [("kind", kind.as_str()), ("when", when.as_str())];
            self.metrics.foreign.get_or_create(&labels).inc();
        }
        self.facts().foreign = json!(found);
    }

    /// Changes that wait for a confirmation.
    pub(crate) fn unconfirmed(&self, document: Value) {
        let count = document.as_array().map_or(0, Vec::len);
        self.metrics.unconfirmed.set(count as i64);
        self.facts().unconfirmed = document;
    }

    /// A change has ended in the store.
    pub(crate) fn settled(&self, id: &str, end: Decision) {
        let settled = &mut self.facts().settled;
        settled.truncate(LAST_CUTS - 1);
        settled.push_front(json!({"transaction": id, "decision": end}));
    }

    /// What the agent runs with.
    pub(crate) fn configured(&self, configuration: &Configuration) {
        self.facts().configuration = configuration.document();
    }

    /// The document of `calicoctl node config`; null until the configuration is known.
    pub(crate) fn configuration(&self) -> Value {
        self.facts().configuration.clone()
    }

    /// The status document: `calicoctl node status`.
    pub(crate) fn document(&self, health: &Health) -> Value {
        let facts = self.facts();
        let misread = facts.misread.iter().map(|(o, r)| json!({"object": o, "reasons": r}));
        let refused = facts.unprogrammed.iter().map(|(o, r)| json!({"object": o, "reasons": [r]}));
        json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "live": health.live(),
            "ready": health.ready(),
            "inSync": self.in_sync.load(Ordering::Relaxed),
            "datastore": {"connected": facts.failing.is_empty(), "failing": facts.failing},
            "endpoints": facts.endpoints,
            "policies": facts.policies,
            "sets": facts.sets,
            "generation": facts.generation,
            "cutFlows": {"count": facts.cut.1, "last": facts.cut.0},
            "unconfirmed": facts.unconfirmed,
            "settled": facts.settled,
            "foreignHooks": facts.foreign,
            "mtu": self.mtu.load(Ordering::Relaxed),
            "refused": misread.chain(refused).collect::<Vec<_>>(),
            "failures": facts.driver_failures,
            "components": health.components(),
        })
    }
}
