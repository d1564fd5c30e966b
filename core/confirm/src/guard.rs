//! The state machine of one agent: which form of which object is in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::Update;
use serde::{Deserialize, Serialize};

use crate::mark::{Decision, Marked, Object};

/// Where a transaction is, on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Seen, but what is needed to go back is not on disk yet: the previous forms are in force.
    Seen,
    /// The new forms are in force until the time is over.
    Pending,
    /// The time is over, or the store says so: the previous forms are in force.
    Reverted,
    /// The store says that it stays.
    Confirmed,
}

impl Phase {
    fn goes_back(self) -> bool {
        matches!(self, Self::Seen | Self::Reverted)
    }
}

/// What is kept on disk of a transaction, beside the objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its id.
    pub transaction: Arc<str>,
    /// Where it is.
    pub phase: Phase,
    /// How much time was left.
    pub left: Duration,
    /// How much there was.
    pub window: Duration,
}

#[derive(Clone, Debug)]
struct Member {
    marked: Arc<Marked>,
    /// The form that the API has, once it is known.
    api: Option<Update>,
}

#[derive(Clone, Debug)]
struct Transaction {
    phase: Phase,
    /// By the clock of the caller.
    due: Duration,
    window: Duration,
    lead: Option<Object>,
    members: BTreeMap<Object, Member>,
}

/// See the module. Times are readings of one clock that never goes back.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    transactions: BTreeMap<Arc<str>, Transaction>,
}

impl Guard {
    /// After a start: what was on disk. `rebooted`: the clock is another one.
    ///
    /// After a reboot nobody knows how long the machine was down, so what was left at the last
    /// writing is left, less one [`step`]: a machine that keeps rebooting gets there as well.
    pub fn restore(kept: &[Left], now: Duration, rebooted: bool) -> Self {
        let mut it = Self::default();
        for Left { transaction, phase, left, window } in kept {
            let off = if rebooted { step(*window) } else { Duration::ZERO };
            let due = now.saturating_add((*left).min(*window).saturating_sub(off));
            let members = BTreeMap::new();
            let it_is = Transaction { phase: *phase, due, window: *window, lead: None, members };
            it.transactions.insert(transaction.clone(), it_is);
        }
        it
    }

    /// What belongs on disk.
    pub fn kept(&self, now: Duration) -> Vec<Left> {
        let each = self.transactions.iter().filter(|(_, t)| t.phase != Phase::Confirmed);
        each.map(|(id, t)| Left {
            transaction: id.clone(),
            phase: t.phase,
            left: t.due.saturating_sub(now),
            window: t.window,
        })
        .collect()
    }

    /// An object has a mark, or none any more. Must be told before the object's own update. What
    /// comes out is in force from now on.
    pub fn saw(
        &mut self,
        now: Duration,
        object: &Object,
        marked: Option<Arc<Marked>>,
    ) -> Vec<Update> {
        let id = marked.as_ref().map(|m| m.mark.transaction.clone());
        let known = self.leave(object, id.as_ref());
        let Some(marked) = marked else { return Vec::new() };
        let mark = &marked.mark;
        let window = mark.window();
        let transaction =
            self.transactions.entry(mark.transaction.clone()).or_insert_with(|| Transaction {
                phase: Phase::Seen,
                due: now.saturating_add(window),
                window,
                lead: None,
                members: BTreeMap::new(),
            });
        transaction.lead.get_or_insert_with(|| mark.lead.clone());
        let decision = mark.decision;
        let api = known.and_then(|m| m.api);
        transaction.members.insert(object.clone(), Member { marked, api });
        let leads = transaction.lead.as_ref() == Some(object);
        match decision.filter(|_| leads) {
            Some(Decision::Confirmed) => transaction.turn(Phase::Confirmed),
            Some(Decision::Reverted) => transaction.turn(Phase::Reverted),
            None => Vec::new(),
        }
    }

    /// Takes an object out of every transaction; transactions without objects are over.
    fn leave(&mut self, object: &Object, stays_in: Option<&Arc<str>>) -> Option<Member> {
        let mut found = None;
        self.transactions.retain(|id, t| {
            let Some(member) = t.members.remove(object) else { return true };
            if stays_in == Some(id) {
                found = Some(member);
                return true;
            }
            !t.members.is_empty()
        });
        found
    }

    /// The API says something; what is in force instead.
    pub fn hear(&mut self, update: Update) -> Update {
        for transaction in self.transactions.values_mut() {
            for member in transaction.members.values_mut() {
                if same(&member.marked.previous, &update) {
                    member.api = Some(update.clone());
                    let goes_back = transaction.phase.goes_back();
                    return if goes_back { member.marked.previous.clone() } else { update };
                }
            }
        }
        update
    }

    /// Everything that is needed to go back is on disk.
    pub fn prepared(&mut self, id: &str) -> Vec<Update> {
        match self.transactions.get_mut(id) {
            Some(t) if t.phase == Phase::Seen => t.turn(Phase::Pending),
            _ => Vec::new(),
        }
    }

    /// Every object was told once: transactions without objects are over.
    pub fn complete(&mut self) {
        self.transactions.retain(|_, t| !t.members.is_empty());
    }

    /// The transactions whose time is over now, and what is in force from now on.
    pub fn look(&mut self, now: Duration) -> (Vec<Arc<str>>, Vec<Update>) {
        let (mut over, mut updates) = (Vec::new(), Vec::new());
        for (id, t) in &mut self.transactions {
            if t.due <= now && matches!(t.phase, Phase::Seen | Phase::Pending) {
                over.push(id.clone());
                updates.extend(t.turn(Phase::Reverted));
            }
        }
        (over, updates)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Duration> {
        let open = |t: &&Transaction| matches!(t.phase, Phase::Seen | Phase::Pending);
        self.transactions.values().filter(open).map(|t| t.due).min()
    }

    /// How often what is left should be written to disk.
    pub fn pace(&self) -> Option<Duration> {
        self.transactions.values().map(|t| step(t.window)).min()
    }

    /// The transactions in a phase.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<str>, Phase, Duration, Vec<&Object>)> {
        self.transactions.iter().map(|(id, t)| (id, t.phase, t.due, t.members.keys().collect()))
    }

    /// The lead of a transaction, once an object of it was seen.
    pub fn lead(&self, id: &str) -> Option<&Object> {
        self.transactions.get(id)?.lead.as_ref()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }
}

impl Transaction {
    fn turn(&mut self, phase: Phase) -> Vec<Update> {
        let before = std::mem::replace(&mut self.phase, phase);
        if before.goes_back() == phase.goes_back() {
            return Vec::new();
        }
        // Not before the object's own update: there may be nothing to go back from.
        let form = |m: &Member| {
            let api = m.api.as_ref()?;
            Some(if phase.goes_back() { &m.marked.previous } else { api }.clone())
        };
        self.members.values().filter_map(form).collect()
    }
}

/// What a boot costs at least, and how often the rest is written down.
pub fn step(window: Duration) -> Duration {
    (window / 10).clamp(Duration::from_secs(1), Duration::from_secs(10))
}

/// Whether two updates speak of one object.
fn same(a: &Update, b: &Update) -> bool {
    match (a, b) {
        (Update::Host(a, _), Update::Host(b, _)) => a == b,
        (Update::Policy(a, _), Update::Policy(b, _)) => a == b,
        (Update::Tier(a, _), Update::Tier(b, _)) => a == b,
        (Update::Profile(a, _), Update::Profile(b, _)) => a == b,
        (Update::NetworkSet(a, _), Update::NetworkSet(b, _)) => a == b,
        _ => false, // kinds that have no marks
    }
}
