//! The open connections: how many there may be, and which of them have to go.
//!
//! A connection goes when its client does nothing for too long: no first request, no request at all, or
//! an answer left unread. When there are too many, a new one pushes out the one that matters least: never
//! one with a request in flight, one that has shown a token only after all that have not.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

use crate::audit::Ending;
use crate::http::Body;
use crate::limits::{Limits, Permit};

/// Every open connection.
#[derive(Debug)]
pub(crate) struct Connections {
    whole: usize,
    each: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_address: HashMap<IpAddr, BTreeMap<u64, Arc<Tracker>>>,
    all: usize,
    next: u64,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (whole, each) = (limits.connections, limits.connections_per_address);
        Self { whole, each, open: Mutex::default() }
    }

    /// A place for a connection from `address`, if need be that of a lesser one.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        let address = network(address);
        let mut open = self.open();
        let here = open.by_address.get(&address).map_or(0, BTreeMap::len);
        if here >= self.each {
            open.push_out(address)?;
        } else if open.all >= self.whole {
            let busiest = open.by_address.iter().max_by_key(|(_, those)| those.len());
            let busiest = *busiest?.0;
            open.push_out(busiest)?;
        }
        let (id, tracker) = (open.next, Arc::new(Tracker::new()));
        open.next += 1;
        open.all += 1;
        open.by_address.entry(address).or_default().insert(id, tracker.clone());
        Some(Admitted { table: self.clone(), address, id, tracker })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the connection from `address` that matters least, if there is one without a request.
    fn push_out(&mut self, address: IpAddr) -> Option<()> {
        let those = self.by_address.get(&address)?.iter();
        let ranked = those.filter_map(|(id, tracker)| Some((tracker.rank()?, *id)));
        let (_, id) = ranked.min()?;
        self.remove(address, id)?.closed.notify_one();
        Some(())
    }

    fn remove(&mut self, address: IpAddr, id: u64) -> Option<Arc<Tracker>> {
        let those = self.by_address.get_mut(&address)?;
        let removed = those.remove(&id)?;
        if those.is_empty() {
            self.by_address.remove(&address);
        }
        self.all -= 1;
        Some(removed)
    }
}

/// Of IPv6 the /64, all of which one client may have.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    table: Arc<Connections>,
    address: IpAddr,
    id: u64,
    pub(crate) tracker: Arc<Tracker>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // It is gone already if it was pushed out.
        drop(self.table.open().remove(self.address, self.id));
    }
}

/// Why a connection has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// No request for too long.
    Idle,
    /// No first request, or an answer left unread.
    Stalled,
}

/// What one connection is doing.
#[derive(Debug)]
pub(crate) struct Tracker {
    known: AtomicBool,
    /// Requests of many clients come over it.
    shared: AtomicBool,
    /// Told when the connection is to be closed.
    pub(crate) closed: Notify,
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    begun: bool,
    requests: usize,
    since: Instant,
    answers: Vec<Weak<Pace>>,
}

impl Tracker {
    fn new() -> Self {
        let work = Work { begun: false, requests: 0, since: Instant::now(), answers: Vec::new() };
        Self {
            known: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            closed: Notify::new(),
            work: Mutex::new(work),
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the client has shown who it is.
    pub(crate) fn authenticated(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Notes that a front proxy is at the other end: one client that does not take his answer must not end
    /// what the others wait for. What he leaves unread is bounded, and the proxy answers pings.
    pub(crate) fn shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Notes a request, until what this returns is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> InFlight {
        let mut work = self.work();
        work.begun = true;
        work.requests += 1;
        InFlight(self.clone())
    }

    /// The order in which connections are pushed out; `None` for those that are not.
    fn rank(&self) -> Option<(bool, Instant)> {
        let work = self.work();
        (work.requests == 0).then(|| (self.known.load(Ordering::Relaxed), work.since))
    }

    fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let mut work = self.work();
        if work.requests == 0 {
            let since = work.since.elapsed();
            if !work.begun && since >= limits.first {
                return Some(Overdue::Stalled);
            }
            return (since >= limits.idle).then_some(Overdue::Idle);
        }
        if self.shared.load(Ordering::Relaxed) {
            return None;
        }
        let mut stalled = false;
        work.answers.retain(|answer| {
            let Some(answer) = answer.upgrade() else { return false };
            stalled |= answer.waits().is_some_and(|since| since.elapsed() >= limits.stall);
            true
        });
        stalled.then_some(Overdue::Stalled)
    }

    /// Ends when the connection has to go.
    pub(crate) async fn watch(&self, limits: &Limits) -> Overdue {
        let shortest = limits.first.min(limits.idle).min(limits.stall);
        let tick = (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            tokio::time::sleep(tick).await;
            if let Some(overdue) = self.overdue(limits) {
                return overdue;
            }
        }
    }
}

/// A request that has come and whose answer has not gone out wholly.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Tracker>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut work = self.0.work();
        work.requests -= 1;
        work.since = Instant::now();
    }
}

/// Since when a part of an answer waits to be taken by the client, if one does.
#[derive(Debug, Default)]
struct Pace(Mutex<Option<Instant>>);

impl Pace {
    fn waits(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// An answer's body that knows how fast it is taken, and what to give back when it is gone.
pub(crate) struct Answer {
    body: Body,
    pace: Arc<Pace>,
    _in_flight: InFlight,
    _held: Held,
}

/// What is given back and written when the answer is gone.
pub(crate) type Held = (Option<Permit>, Option<Ending>);

impl Answer {
    pub(crate) fn new(body: Body, in_flight: InFlight, held: Held) -> Self {
        let pace = Arc::new(Pace::default());
        pace.set(Some(Instant::now()));
        in_flight.0.work().answers.push(Arc::downgrade(&pace));
        Self { body, pace, _in_flight: in_flight, _held: held }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        // From here on it is the client that lets wait, unless there is nothing yet.
        this.pace.set(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { connections: 4, connections_per_address: 3, ..Limits::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_connection_pushes_out_the_one_that_matters_least() {
        let table = Arc::new(Connections::new(&limits()));
        let busy = table.admit(ip("10.0.0.1")).unwrap();
        let held = busy.tracker.request();
        let known = table.admit(ip("10.0.0.1")).unwrap();
        known.tracker.authenticated();
        let silent = table.admit(ip("10.0.0.1")).unwrap();
        let fourth = table.admit(ip("::ffff:10.0.0.1")).unwrap();
        let gone = |admitted: &Admitted| {
            !table.open().by_address[&ip("10.0.0.1")].contains_key(&admitted.id)
        };
        assert!(gone(&silent) && !gone(&known) && !gone(&busy));
        let work = [fourth.tracker.request(), known.tracker.request()];
        assert!(table.admit(ip("10.0.0.1")).is_none(), "all have work");
        let other = table.admit(ip("10.0.0.2")).unwrap();
        assert!(table.admit(ip("10.0.0.3")).is_none(), "the busiest address has work only");
        drop(work);
        let third = table.admit(ip("10.0.0.3")).unwrap();
        assert!(gone(&fourth) && !gone(&known), "shown no token");
        drop((silent, fourth, known, busy, other, third, held));
        let open = table.open();
        assert!(open.all == 0 && open.by_address.is_empty(), "{open:?}");
    }

    #[test]
    fn neighbours_in_a_64_are_one_client() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8::1")));
    }

    #[test]
    fn what_is_overdue() {
        let mut limits = limits();
        let tracker = Arc::new(Tracker::new());
        assert_eq!(tracker.overdue(&limits), None);
        limits.first = Duration::ZERO;
        assert_eq!(tracker.overdue(&limits), Some(Overdue::Stalled));
        let request = tracker.request();
        limits.idle = Duration::ZERO;
        assert_eq!(tracker.overdue(&limits), None, "it has work");
        let pace = Arc::new(Pace::default());
        pace.set(Some(Instant::now()));
        tracker.work().answers.push(Arc::downgrade(&pace));
        limits.stall = Duration::ZERO;
        assert_eq!(tracker.overdue(&limits), Some(Overdue::Stalled));
        tracker.shared();
        assert_eq!(tracker.overdue(&limits), None, "others share it");
        drop(request);
        assert_eq!(tracker.overdue(&limits), Some(Overdue::Idle));
    }
}
