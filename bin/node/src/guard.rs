//! Unconfirmed changes on this node: the files, the clock and the requests around [`confirm::Guard`].
//!
//! The apply loop owns the state machine. What takes time happens beside it: a task keeps what is
//! needed to go back ([`keep`]), another carries a decision into the store ([`follow`]). The files,
//! in the library folder: `unconfirmed.json`, which transactions and how much time is left, and
//! `unconfirmed-snapshot.json`, the datastore as it was when the last of them was first seen. With
//! it an agent that starts while it is cut off goes back all the same ([`reach`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use confirm::{Decision, Guard, Left, Marked, Object, Phase};
use datastore::{Backoff, Datastore};
use model::Update;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::inbox::{Inbox, Order};
use crate::place::Place;
use crate::pods::Pods;
use crate::settings::Settings;
use crate::status::Shared;

/// A disk that refuses is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// How long the API has to answer an agent that starts when the time is over.
const ANSWER: Duration = Duration::from_secs(3);

/// And how long to tell it everything.
const LISTS: Duration = Duration::from_secs(30);

/// The file of what is left.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Journal {
    /// Which run of the kernel.
    boot: String,
    /// Its clock when this was written.
    at: Duration,
    transactions: Vec<Left>,
}

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    journal: PathBuf,
    snapshot: PathBuf,
}

impl Files {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            journal: folder.join("unconfirmed.json"),
            snapshot: folder.join("unconfirmed-snapshot.json"),
        }
    }

    /// What the last run left. A damaged file is told and counts as none.
    fn read(&self) -> Journal {
        let text = match std::fs::read_to_string(&self.journal) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Journal::default();
            }
            Err(error) => {
                tracing::error!(file = %self.journal.display(), %error, "cannot be read");
                return Journal::default();
            }
        };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::error!(file = %self.journal.display(), %error, "cannot be understood");
            Journal::default()
        })
    }

    fn restore(&self, now: Duration) -> Guard {
        let Journal { boot, at, mut transactions } = self.read();
        let rebooted = boot != boot_id();
        for t in transactions.iter_mut().filter(|_| !rebooted) {
            t.left = t.left.saturating_sub(now.saturating_sub(at));
        }
        Guard::restore(&transactions, now, rebooted)
    }

    /// Makes the file say what the state is; without transactions there are no files.
    fn write(&self, transactions: Vec<Left>, now: Duration) -> std::io::Result<()> {
        if transactions.is_empty() {
            for file in [&self.journal, &self.snapshot] {
                match std::fs::remove_file(file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        let journal = Journal { boot: boot_id(), at: now, transactions };
        datastore::snapshot::replace(&self.journal, |out| Ok(serde_json::to_writer(out, &journal)?))
    }
}

/// The kernel's clock since it started, sleep included; it cannot be set.
pub(crate) fn uptime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// What the tasks beside the apply loop are to do.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Keep what is needed to go back from it, after a while.
    Keep(Arc<str>, Duration),
    /// It is over here: so say the store, which the lead stands for.
    Follow(Arc<str>, Object, Decision),
}

/// The state machine, in the apply loop.
pub(crate) struct Keeper {
    guard: Guard,
    files: Files,
    errands: mpsc::UnboundedSender<Errand>, // one or two a transaction
    shared: Arc<Shared>,
    /// What the journal was last told, and when.
    written: (Vec<(Arc<str>, Phase)>, Duration),
    /// Transactions that the store has been asked to follow, and with which objects.
    asked: BTreeMap<Arc<str>, BTreeSet<Object>>,
    /// Transactions for which [`keep`] was sent.
    kept: BTreeSet<Arc<str>>,
}

impl Keeper {
    pub(crate) fn new(
        files: Files,
        errands: mpsc::UnboundedSender<Errand>,
        shared: Arc<Shared>,
    ) -> Self {
        let guard = files.restore(uptime());
        let kept = guard.all().map(|(id, ..)| id.clone()).collect();
        let states = guard.all().map(|(id, phase, ..)| (id.clone(), phase)).collect();
        let (written, asked) = ((states, Duration::ZERO), BTreeMap::new());
        Self { guard, files, errands, shared, written, asked, kept }
    }

    /// Before the updates of the same batch.
    pub(crate) fn saw(&mut self, object: &Object, marked: Option<Arc<Marked>>) -> Vec<Update> {
        if let Some(Marked { mark, .. }) = marked.as_deref() {
            tracing::info!(%object, transaction = %mark.transaction, within = mark.within,
                "unconfirmed change");
        }
        self.guard.saw(uptime(), object, marked)
    }

    pub(crate) fn hear(&mut self, update: Update) -> Update {
        if update == Update::InSync {
            self.guard.complete();
        }
        if self.guard.is_empty() { update } else { self.guard.hear(update) }
    }

    /// What is needed to go back from it is on disk. Only once the journal is as well the change
    /// gets in force.
    pub(crate) fn prepared(&mut self, id: &Arc<str>) -> Vec<Update> {
        let mut then = self.guard.clone();
        let updates = then.prepared(id);
        if let Err(error) = self.files.write(on_disk(&then, uptime()), uptime()) {
            tracing::error!(%error, transaction = %id, "an unconfirmed change is not in force yet");
            let _ = self.errands.send(Errand::Keep(id.clone(), AGAIN));
            return Vec::new();
        }
        self.guard = then;
        tracing::warn!(transaction = %id, "an unconfirmed change is in force");
        updates
    }

    /// After each batch: what is due, what is to be done. Comes out what is in force from now on.
    pub(crate) fn look(&mut self) -> Vec<Update> {
        if self.guard.is_empty() && self.written.0.is_empty() && self.kept.is_empty() {
            return Vec::new();
        }
        let now = uptime();
        let (over, updates) = self.guard.look(now);
        for id in over {
            tracing::warn!(transaction = %id, "not confirmed in time: what was before is in force");
            self.shared.metrics.reverted.inc();
        }
        self.journal(now);
        self.send_errands();
        self.shared.unconfirmed(self.document(now));
        updates
    }

    /// Written when something has changed, and from time to time, for the sake of reboots.
    fn journal(&mut self, now: Duration) {
        let kept = on_disk(&self.guard, now);
        let state: Vec<_> = kept.iter().map(|t| (t.transaction.clone(), t.phase)).collect();
        let old = self.guard.pace().is_some_and(|pace| now >= self.written.1 + pace);
        if state == self.written.0 && (state.is_empty() || !old) {
            return;
        }
        match self.files.write(kept, now) {
            Ok(()) => self.written = (state, now),
            Err(error) => tracing::error!(%error, "unconfirmed changes are not on disk"),
        }
    }

    /// Each once: nobody waits for them.
    fn send_errands(&mut self) {
        let here: BTreeSet<Arc<str>> = self.guard.all().map(|t| t.0.clone()).collect();
        self.asked.retain(|id, _| here.contains(id));
        self.kept.retain(|id| here.contains(id));
        for (id, phase, _, objects) in self.guard.all() {
            let decision = match phase {
                Phase::Seen => {
                    if self.kept.insert(id.clone()) {
                        let _ = self.errands.send(Errand::Keep(id.clone(), Duration::ZERO));
                    }
                    continue;
                }
                Phase::Pending => continue,
                Phase::Reverted => Decision::Reverted,
                Phase::Confirmed => Decision::Confirmed,
            };
            let Some(lead) = self.guard.lead(id) else { continue };
            // An object that came late is asked for as well.
            let asked = self.asked.entry(id.clone()).or_default();
            let before = asked.len();
            asked.extend(objects.into_iter().cloned());
            if asked.len() > before {
                // The task lives as long as the agent.
                let _ = self.errands.send(Errand::Follow(id.clone(), lead.clone(), decision));
            }
        }
    }

    /// How long the apply loop may sleep.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let due = self.guard.next().map(|due| due.saturating_sub(uptime()));
        due.into_iter().chain(self.guard.pace()).min().map(|d| d + Duration::from_millis(10))
    }

    fn document(&self, now: Duration) -> Value {
        let each = self.guard.all().map(|(id, phase, due, objects)| {
            let objects: Vec<_> = objects.into_iter().map(ToString::to_string).collect();
            let left = due.saturating_sub(now).as_secs();
            json!({"transaction": id, "phase": phase, "secondsLeft": left, "objects": objects})
        });
        each.collect()
    }
}

/// What belongs on disk. What nobody has prepared for is not in force and needs no memory.
fn on_disk(guard: &Guard, now: Duration) -> Vec<Left> {
    guard.kept(now).into_iter().filter(|t| t.phase != Phase::Seen).collect()
}

/// Does the errands, until the agent stops.
pub(crate) async fn run(
    mut errands: mpsc::UnboundedReceiver<Errand>,
    (place, files): (Arc<Place>, Files),
    (inbox, shared): (Arc<Inbox>, Arc<Shared>),
) {
    let one_at_a_time = Arc::new(tokio::sync::Mutex::new(files));
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Keep(id, wait) => {
                let (place, inbox) = (place.clone(), inbox.clone());
                let files = one_at_a_time.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    keep(&place, &*files.lock().await, &id).await;
                    inbox.order(Order::Prepared { id });
                });
            }
            Errand::Follow(id, lead, decision) => {
                let (datastore, shared) = (place.datastore.clone(), shared.clone());
                tokio::spawn(
                    async move { follow(&datastore, &shared, &id, &lead, decision).await },
                );
            }
        }
    }
}

/// Until it has worked: the change is not in force before.
async fn keep(place: &Place, files: &Files, id: &str) {
    let mut backoff = Backoff::default();
    let kinds = syncer::resources(place.alone.is_some());
    let datastore = &place.datastore;
    while let Err(error) = datastore::snapshot::save(datastore, &kinds, &files.snapshot).await {
        tracing::error!(%error, transaction = id, "an unconfirmed change is not in force yet");
        backoff.wait().await;
    }
}

/// Until the store has heard of it, from whomever.
async fn follow(
    datastore: &Datastore,
    shared: &Shared,
    id: &str,
    lead: &Object,
    decision: Decision,
) {
    let mut backoff = Backoff::default();
    loop {
        backoff.wait().await; // agents are many: most come when it is done
        match datastore::settle(datastore, id, lead, decision).await {
            Ok(settled) => {
                for object in &settled.objects {
                    let decision = settled.decision;
                    tracing::info!(transaction = id, %object, ?decision, "the store has followed");
                }
                return shared.settled(id, settled.decision.unwrap_or(decision));
            }
            Err(error) => {
                tracing::warn!(transaction = id, %error, "the store has not followed yet");
            }
        }
    }
}

/// Where the cluster is kept. After a start in the middle of an unconfirmed change the API may be
/// out of reach because of it. Then, when its time is over, it is the datastore as it was before:
/// that is said as well, see [`back`].
pub(crate) async fn reach(settings: &Settings) -> Result<(Place, bool)> {
    let files = Files::new(&settings.lib_dir);
    let mut real = Box::pin(Place::connect(settings));
    loop {
        let guard = files.restore(uptime());
        if guard.is_empty() {
            return Ok((real.await?, false));
        }
        let left = over_at(&guard).saturating_sub(uptime());
        if let Ok(place) = tokio::time::timeout(left.max(ANSWER), &mut real).await {
            let place = place?;
            // As long as there is time, who loses it before he knows everything starts again: see [`stranded`].
            let all = async || {
                let all = tokio::time::timeout(LISTS, tells_all(&place)).await;
                all.is_ok_and(|all| all)
            };
            if !left.is_zero() || all().await {
                return Ok((place, false));
            }
            real = Box::pin(Place::connect(settings));
        }
        tracing::warn!("cut off during an unconfirmed change whose time is over: going back");
        match datastore::snapshot::open(&files.snapshot) {
            Ok(datastore) => return Ok((Place::as_it_was(settings, datastore).await?, true)),
            Err(error) => tracing::error!(%error, "what was before cannot be read"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// When the first of them is over.
fn over_at(guard: &Guard) -> Duration {
    let over = |(_, phase, due, _)| if phase == Phase::Pending { due } else { Duration::ZERO };
    guard.all().map(over).min().unwrap_or(Duration::MAX)
}

/// Whether everything can be read that an agent works with.
async fn tells_all(place: &Place) -> bool {
    let kinds = syncer::resources(place.alone.is_some());
    let read = datastore::snapshot::read_through(&place.datastore, &kinds).await;
    if let Err(error) = &read {
        tracing::warn!(%error, "the datastore does not tell all that there is");
    }
    read.is_ok()
}

/// Ends when an agent that has started in the middle of an unconfirmed change must go back and does not know to what:
/// the time is over, and the API, which was there at first, says no more before everything was listed once. Who starts
/// again goes back, see [`reach`].
pub(crate) async fn stranded(settings: &Settings, cut_off: bool, pods: &Pods) {
    let guard = Files::new(&settings.lib_dir).restore(uptime());
    if cut_off || guard.is_empty() {
        return std::future::pending().await;
    }
    let (over, started) = (over_at(&guard), uptime());
    // Where the time was over before, the API has told all only now: it is there, and may be slow.
    let patience = if over <= started { LISTS } else { ANSWER };
    let (mut told, mut last) = (0, over.max(started));
    while uptime() < last.saturating_add(patience) {
        tokio::time::sleep(AGAIN).await;
        if *pods.listed.borrow() {
            return std::future::pending().await;
        }
        let now = pods.told.load(Ordering::Relaxed);
        if std::mem::replace(&mut told, now) != now {
            last = last.max(uptime());
        }
    }
    tracing::warn!(
        "the time of an unconfirmed change is over, and the API was lost before it told everything"
    );
}

/// Ends when the API answers again, and tells all that there is; never, if it was there all the time.
pub(crate) async fn back(settings: &Settings, cut_off: bool) {
    if !cut_off {
        return std::future::pending().await;
    }
    loop {
        match Place::connect(settings).await {
            Ok(place) if tells_all(&place).await => break,
            Ok(_) => {}
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "the API refuses to say how it keeps policy");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    tracing::info!("the API answers again: starting again with it");
}
