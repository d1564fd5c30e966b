//! The driver: makes the kernel's tables what is wanted, and keeps them so.

mod readback;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use model::{InSync, IpVersion};
use rules::object::{Name, OnRefusal};
use rules::{Changes, Rules};

use crate::batch::{Batch, Object};
use crate::encode::{Header, RawElement};
use crate::metrics::Metrics;
use crate::monitor::{Author, Drift, Monitor, following};
use crate::plan::{Known, Plan, Refused, effective, fingerprint};
use crate::seal::{Content, Seal, Secret};
use crate::socket::{Refusal, Socket};

/// Our table is read back and repaired at most this often, whatever others do to it.
const READ_BACK_PAUSE: Duration = Duration::from_millis(25);
/// And no longer than one part in so many of the time: large tables wait longer.
const READ_BACK_SHARE: u32 = 20;
/// Who changes our tables again and again is told of once in so long.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What the kernel refused is offered again this often, if nobody says otherwise.
const RETRY_EVERY: Duration = Duration::from_secs(30);
/// Transactions of more bytes than this are not heard of.
const HEARD: usize = 1 << 16;
/// Changes are sealed this long after the first of them.
const SEAL_AFTER: Duration = Duration::from_secs(1);
/// Times that a transaction is built again without the objects refused so far.
const ATTEMPTS: u32 = 16;

/// Why nothing could be applied.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket to the kernel failed.
    #[error("nf_tables socket: {0}")]
    Socket(#[from] io::Error),
    /// Something that must not be left out is refused: the kernel keeps what it has.
    #[error("the kernel refuses {object}: {error}")]
    Needed {
        /// The object.
        object: String,
        /// Why.
        error: io::Error,
    },
    /// The tables changed while they were read, again and again.
    #[error("tables changed {0} times while being read")]
    DumpInterrupted(u32),
}

/// An object that is in force in its fail-closed form, or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedObject {
    /// Family and name, for example `ip chain pi-np.default.web (ingress NetworkPolicy default/web)`.
    pub object: String,
    /// Why.
    pub error: String,
}

/// What an apply achieved.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Something was written.
    pub changed: bool,
    /// Everything that is refused now, not only what this apply tried.
    pub refused: Vec<RefusedObject>,
    /// Call again after this time: a read-back or a retry is due then.
    pub again_in: Option<Duration>,
    /// What others had done to our tables was undone; who they were, as far as the kernel says.
    pub repaired: Option<Vec<Author>>,
}

/// Programs the tables `calico` of both families.
#[derive(Debug)]
pub struct NftDriver {
    socket: Socket,
    monitor: Monitor,
    known: BTreeMap<IpVersion, Known>,
    refused: BTreeMap<IpVersion, Refused>,
    drift: Drift,
    swept: bool,
    /// Families whose table of an earlier run stays as it is until the snapshot is complete.
    held: BTreeSet<IpVersion>,
    /// What was noted while the tables were read.
    later: Drift,
    /// When the drift that is still to be repaired was noticed.
    noticed: Option<Instant>,
    /// The tables are not read before.
    next_read: Option<Instant>,
    read_back_pause: Duration,
    retry_at: Option<Instant>,
    retry_every: Duration,
    told: Option<Instant>,
    /// The key of the sums in `known`.
    secret: Secret,
    /// When the first change came that is not sealed.
    unsealed: Option<Instant>,
    metrics: Metrics,
}

/// One family's part of an apply.
struct Part {
    version: IpVersion,
    plan: Plan,
}

impl NftDriver {
    /// In the network namespace of the calling thread. Reads nothing yet.
    pub fn open() -> Result<Self, NftError> {
        let mut socket = Socket::open()?;
        let monitor = Monitor::open(&mut socket)?;
        Ok(Self {
            socket,
            monitor,
            known: BTreeMap::new(),
            refused: BTreeMap::new(),
            drift: Drift::everything(),
            swept: false,
            held: BTreeSet::new(),
            later: Drift::default(),
            noticed: None,
            next_read: None,
            read_back_pause: READ_BACK_PAUSE,
            retry_at: None,
            retry_every: RETRY_EVERY,
            told: None,
            secret: Secret::by_chance(),
            unsealed: None,
            metrics: Metrics::default(),
        })
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How long to wait at least between two looks at tables that others change; at first 25 ms.
    pub fn read_back_pause(&mut self, pause: Duration) {
        self.read_back_pause = pause;
    }

    /// How often the kernel is offered again what it refused; at first every 30 seconds.
    pub fn retry_every(&mut self, pause: Duration) {
        self.retry_every = pause;
    }

    /// Readable when someone changed tables; then call [`Self::drain_events`].
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// Takes in what others did; true if they touched our table, so that an apply is due.
    pub fn drain_events(&mut self) -> Result<bool, NftError> {
        self.monitor.drain(&mut self.drift)?;
        if !self.drift.is_empty() {
            self.noticed.get_or_insert_with(Instant::now);
        }
        Ok(!self.drift.is_empty())
    }

    /// Whether tables that are not ours changed since the last call, as far as events told.
    pub fn others_changed(&mut self) -> bool {
        self.monitor.others_changed()
    }

    /// Makes the kernel what `rules` want, in one transaction. Without the witness, a table that an
    /// earlier run left stays in force as it is, untouched (law 3).
    ///
    /// # Errors
    /// Nothing was changed then; the next apply reads the tables back and tries again.
    pub fn apply(&mut self, rules: &mut Rules, sync: Option<&InSync>) -> Result<Report, NftError> {
        self.drain_events()?;
        let done = self.apply_once(rules, sync, Instant::now());
        if done.is_err() {
            self.drift = Drift::everything();
            self.next_read = None;
        }
        done
    }

    fn apply_once(
        &mut self,
        rules: &mut Rules,
        sync: Option<&InSync>,
        now: Instant,
    ) -> Result<Report, NftError> {
        if sync.is_some() && !self.swept {
            self.drift = Drift::everything();
            self.next_read = None;
        }
        let retry = self.retry_at.is_some_and(|at| at <= now);
        if retry {
            self.drift = Drift::everything();
        }
        let read = !self.drift.is_empty() && self.next_read.is_none_or(|at| at <= now);
        if read && retry {
            self.refused.clear();
            self.retry_at = None;
        }
        let seal = if read && sync.is_some() && !self.swept { self.seal_in_force()? } else { None };
        let mut parts = Vec::new();
        for version in rules.families().to_vec() {
            let changes = rules.tables_mut().of_mut(version).take_changes();
            self.forgive(version, &changes);
            if read {
                parts.extend(self.read_part(version, rules, (sync, seal.as_ref()))?);
            } else if !self.held.contains(&version) {
                parts.push(self.changed_part(version, rules, &changes));
            }
        }
        let undone = self.swept && read && parts.iter().any(|p| !p.plan.is_empty());
        let before = if read {
            self.swept |= sync.is_some();
            std::mem::replace(&mut self.drift, std::mem::take(&mut self.later))
        } else {
            Drift::default()
        };
        let changed = match self.write(rules, &mut parts) {
            Err(NftError::Needed { object, error }) if self.swept => {
                tracing::warn!(object, %error, "refused: the whole table is written anew");
                self.write_anew(rules)?
            }
            other => other?,
        };
        if read {
            let pause = (now.elapsed() * READ_BACK_SHARE).max(self.read_back_pause);
            self.next_read = Some(Instant::now() + pause);
        }
        let noticed = if read { self.noticed.take() } else { None };
        let repaired = noticed.filter(|_| undone && before.is_by_others());
        let repaired = repaired.map(|noticed| self.tell_repair(&before, noticed));
        let refused = self.report(rules);
        if !refused.is_empty() && self.retry_at.is_none() {
            self.retry_at = Some(now + self.retry_every);
        }
        let due = if self.drift.is_empty() { None } else { self.next_read };
        // One that is overdue waits for the read-back.
        let retry_at = self.retry_at.filter(|at| *at > now);
        let again = due.into_iter().chain(retry_at).min();
        let again_in = again.map(|at| at.saturating_duration_since(now));
        Ok(Report { changed, refused, again_in, repaired })
    }

    /// Counts, and tells who it was, but not more often than anybody wants to read.
    fn tell_repair(&mut self, drift: &Drift, noticed: Instant) -> Vec<Author> {
        self.metrics.repairs.inc();
        self.metrics.repair_seconds.observe(noticed.elapsed().as_secs_f64());
        let authors: Vec<Author> = drift.authors().cloned().collect();
        if self.told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            let by: Vec<_> = authors.iter().map(|a| format!("{} ({})", a.process, a.pid)).collect();
            let (by, repairs) = (by.join(", "), self.metrics.repairs.get());
            let took = noticed.elapsed();
            tracing::warn!(by, repairs, ?took, "another program changed our tables: repaired");
        }
        authors
    }

    /// A changed object gets a new chance.
    fn forgive(&mut self, version: IpVersion, changes: &Changes) {
        let refused = self.refused.entry(version).or_default();
        refused.closed.retain(|name, _| !changes.chains.contains(name));
        refused.omitted.retain(|(name, _), _| !changes.chains.contains(name));
    }

    fn changed_part(&self, version: IpVersion, rules: &Rules, changes: &Changes) -> Part {
        let (none, refused_none) = (Known::default(), Refused::default());
        let known = self.known.get(&version).unwrap_or(&none);
        let refused = self.refused.get(&version).unwrap_or(&refused_none);
        let table = rules.tables().of(version);
        let mut plan = if known.table {
            Plan::changes(table, known, changes)
        } else {
            Plan::fresh(table, false)
        };
        plan.put_chains.retain(|name| {
            let wanted = fingerprint(&effective(name, &table.chains()[name], refused));
            known.chains.get(&**name) != Some(&wanted)
        });
        // A set that was removed and made again between two looks.
        plan.replace |= plan.put_sets.iter().any(|name| known.sets.contains_key(&**name));
        if plan.replace {
            plan = Plan::fresh(table, true);
        }
        Part { version, plan }
    }

    /// Seals changes that are a second old, so that a restart need not read what nobody touched.
    /// Returns when to call again, if there is something to seal then.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn seal_in_time(&mut self) -> Result<Option<Duration>, NftError> {
        let Some(since) = self.unsealed else { return Ok(None) };
        let due = SEAL_AFTER.saturating_sub(since.elapsed());
        if !due.is_zero() {
            return Ok(Some(due));
        }
        if self.seal()? {
            return Ok(None);
        }
        if !self.is_settled() {
            // What is offered again has its own time. What is to be repaired may be news.
            let now = Instant::now();
            let due = self.next_read.unwrap_or(now).saturating_duration_since(now);
            return Ok((!self.drift.is_empty()).then_some(due));
        }
        // Somebody was faster.
        self.unsealed = Some(Instant::now());
        Ok(Some(SEAL_AFTER))
    }

    /// Whether all is in the kernel as it is wanted, as far as events told.
    fn is_settled(&self) -> bool {
        let whole = self.refused.values().all(Refused::is_empty);
        whole && self.swept && self.held.is_empty() && self.drift.is_empty()
    }

    /// Seals what the tables hold, if that is known for certain.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn seal(&mut self) -> Result<bool, NftError> {
        self.drain_events()?;
        // Every change up to that transaction is known: the kernel takes this only if there was none
        // since.
        let Some(last) = self.monitor.generation().filter(|_| self.is_settled()) else {
            return Ok(false);
        };
        let none = Known::default();
        let content = |v| Content::of(self.known.get(&v).unwrap_or(&none), self.secret);
        let generation = following(last);
        let contents = IpVersion::ALL.map(content);
        let seal = Seal { generation, secret: self.secret, contents };
        let transaction = seal.transaction(last, || self.socket.next_seq());
        let done = self.socket.transact(&transaction.bytes)?.is_empty();
        if done {
            self.unsealed = None;
        }
        Ok(done)
    }

    /// Sends the transaction; what is refused is closed or left out, and the rest sent again.
    fn write(&mut self, rules: &Rules, parts: &mut [Part]) -> Result<bool, NftError> {
        for _ in 0..ATTEMPTS {
            if parts.iter().all(|p| p.plan.is_empty()) {
                return Ok(false);
            }
            let mut batch = Batch::new(self.socket.next_seq());
            for part in parts.iter().filter(|p| !p.plan.is_empty()) {
                let refused = self.refused.entry(part.version).or_default();
                let table = rules.tables().of(part.version);
                let known = self.known.entry(part.version).or_default();
                batch.add(part.version, &part.plan, table, &known.chains, refused);
            }
            let (bytes, last) = batch.finish();
            let refusals = if bytes.len() <= HEARD {
                self.socket.transact(bytes)?
            } else {
                let transact = |socket: &mut Socket| {
                    let refusals = socket.transact(bytes)?;
                    let done = refusals.is_empty();
                    Ok((refusals, done))
                };
                self.monitor.without(&mut self.drift, &mut self.socket, transact)?
            };
            while self.socket.next_seq() != last {}
            if refusals.is_empty() {
                self.unsealed.get_or_insert_with(Instant::now);
                for part in parts.iter() {
                    self.learn(rules, part);
                }
                return Ok(true);
            }
            for refusal in refusals {
                self.refuse(rules, parts, &batch, refusal)?;
            }
        }
        let error = io::Error::other("still refused without what was refused before");
        Err(NftError::Needed { object: "the transaction".to_owned(), error })
    }

    /// The last resort: what cannot be changed in place, because something unknown stands in the
    /// way, is replaced in one transaction. Counters start again; flows go on.
    fn write_anew(&mut self, rules: &Rules) -> Result<bool, NftError> {
        let anew = |version: &IpVersion| Part {
            version: *version,
            plan: Plan::fresh(rules.tables().of(*version), true),
        };
        let mut parts: Vec<Part> = rules.families().iter().map(anew).collect();
        self.write(rules, &mut parts)
    }

    fn refuse(
        &mut self,
        rules: &Rules,
        parts: &mut [Part],
        batch: &Batch,
        refusal: Refusal,
    ) -> Result<(), NftError> {
        let Refusal { seq, error } = refusal;
        let object = batch.object(seq).cloned().unwrap_or(Object::Frame);
        let why = error.to_string();
        let needed = |object: String, error| Err(NftError::Needed { object, error });
        match object {
            Object::Rule(version, name, index) => {
                let chain = &rules.tables().of(version).chains()[&name];
                let refused = self.refused.entry(version).or_default();
                if chain.on_refusal == OnRefusal::Close {
                    let again = refused.closed.insert(name.clone(), why).is_some();
                    tracing::warn!(chain = &*name, error = %error, again, "closed: kernel refuses it");
                } else if chain.rules.get(index).is_some_and(|r| r.optional) {
                    refused.omitted.insert((name, index), why);
                } else {
                    return needed(format!("rule {index} of chain {name}"), error);
                }
            }
            Object::Set(version, name) | Object::Elements(version, name) => {
                let table = rules.tables().of(version);
                let uses = |c: &rules::Chain| c.sets().any(|s| *s == name);
                let users = table.chains().iter().filter(|(_, c)| uses(c));
                let part = parts.iter_mut().find(|p| p.version == version);
                let Some(part) = part.filter(|_| table.sets().contains_key(&name)) else {
                    return needed(format!("set {name}"), error);
                };
                for (user, chain) in users {
                    if chain.on_refusal != OnRefusal::Close || is_dispatch(user) {
                        return needed(format!("set {name}"), error);
                    }
                    part.plan.put_chains.insert(user.clone());
                }
                tracing::warn!(set = &*name, error = %error, "left out: kernel refuses it");
                self.refused.entry(version).or_default().sets.insert(name, why);
            }
            Object::Chain(_, name) => return needed(format!("chain {name}"), error),
            Object::Table(_) | Object::Frame => return needed("the table".to_owned(), error),
        }
        Ok(())
    }

    /// After a transaction: the plan is in the kernel.
    fn learn(&mut self, rules: &Rules, part: &Part) {
        let table = rules.tables().of(part.version);
        let refused = self.refused.entry(part.version).or_default();
        let known = self.known.entry(part.version).or_default();
        if part.plan.replace {
            *known = Known::default();
        }
        known.table |= !part.plan.is_empty();
        for name in &part.plan.put_chains {
            let print = fingerprint(&effective(name, &table.chains()[name], refused));
            known.chains.insert(name.to_string(), print);
        }
        for name in part.plan.put_sets.iter().filter(|n| !refused.sets.contains_key(*n)) {
            let set = &table.sets()[name];
            let header = Header::of(&set.spec, part.version);
            known.sets.insert(name.to_string(), (header, self.secret.elements(set)));
        }
        for (name, change) in &part.plan.elements {
            let Some((_, sum)) = known.sets.get_mut(&**name) else { continue };
            let of = |all: &[RawElement]| {
                let one = |e: &RawElement| self.secret.element(&e.key, e.end, e.verdict());
                all.iter().map(one).fold(0, u64::wrapping_add)
            };
            *sum = sum.wrapping_sub(of(&change.del)).wrapping_add(of(&change.add));
        }
        for name in &part.plan.del_chains {
            known.chains.remove(&**name);
        }
        for name in &part.plan.del_sets {
            known.sets.remove(&**name);
        }
    }

    fn report(&self, rules: &Rules) -> Vec<RefusedObject> {
        let mut all = Vec::new();
        for (version, refused) in &self.refused {
            let family = match version {
                IpVersion::V4 => "ip",
                IpVersion::V6 => "ip6",
            };
            let chains = rules.tables().of(*version).chains();
            let comment = |name: &Name| {
                let comment = chains.get(name).and_then(|c| c.comment.clone());
                comment.map(|c| format!(" ({c})")).unwrap_or_default()
            };
            let mut add = |object: String, error: &String| {
                all.push(RefusedObject { object, error: error.clone() });
            };
            for (name, error) in &refused.closed {
                add(format!("{family} chain {name}{}", comment(name)), error);
            }
            for ((name, index), error) in &refused.omitted {
                add(format!("{family} rule {index} of chain {name}"), error);
            }
            for (name, error) in &refused.sets {
                add(format!("{family} set {name}"), error);
            }
        }
        all
    }
}

/// Chains that every endpoint goes through: closing one would close them all.
fn is_dispatch(name: &Name) -> bool {
    matches!(&**name, "from-pod" | "to-pod" | "pod-to-host" | "unknown-source")
        || name.ends_with("-hook")
}
