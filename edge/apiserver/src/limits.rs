//! What clients may use up, all together and each: requests in flight, bodies being read, watches.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::status::{ApiError, Result};

/// What clients may use up. What is beyond is refused (429) or its connection is closed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections. Default 4,096.
    pub connections: usize,
    /// Open connections from one address (of IPv6, from one /64). Default 1,536.
    pub connections_per_address: usize,
    /// get and list requests being answered; one user may have three quarters of them. Default 400.
    pub reads: usize,
    /// Requests being answered that write; one user may have three quarters of them. Default 200.
    pub writes: usize,
    /// Watches; one user may have three quarters of them. Default 10,000.
    pub watches: usize,
    /// Bytes of request bodies that have come in and are not yet dealt with. Default 256 MiB.
    pub uploads: usize,
    /// How long the TLS handshake may take. Default 10 s.
    pub handshake: Duration,
    /// How long a connection may be open before its first request is whole. Default 10 s.
    pub first: Duration,
    /// How long the body of a request may take. Default 30 s.
    pub body: Duration,
    /// How long a connection may be open without a request. Default 60 s.
    pub idle: Duration,
    /// How long a client may leave what it asked for unread. Default 30 s.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_address: 1_536,
            reads: 400,
            writes: 200,
            watches: 10_000,
            uploads: 256 << 20,
            handshake: Duration::from_secs(10),
            first: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            stall: Duration::from_secs(30),
        }
    }
}

/// What a request takes a place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Read,
    Write,
    Watch,
}

/// Counts what is in use.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) limits: Limits,
    counts: [Mutex<Count>; 3],
    uploads: AtomicUsize,
}

#[derive(Debug, Default)]
struct Count {
    all: usize,
    by_user: HashMap<Arc<str>, usize>,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, counts: Default::default(), uploads: AtomicUsize::new(0) }
    }

    /// A place for a request of `user`, kept until the permit is dropped.
    pub(crate) fn enter(self: &Arc<Self>, class: Class, user: &str) -> Result<Permit> {
        let limit = match class {
            Class::Read => self.limits.reads,
            Class::Write => self.limits.writes,
            Class::Watch => self.limits.watches,
        };
        let mut count = self.count(class);
        let mine = count.by_user.get(user).copied().unwrap_or(0);
        if count.all >= limit || mine >= (limit * 3).div_ceil(4) {
            return Err(too_many("too many requests, please try again later"));
        }
        let user: Arc<str> = user.into();
        count.all += 1;
        *count.by_user.entry(user.clone()).or_default() += 1;
        drop(count);
        Ok(Permit { gate: self.clone(), class, user })
    }

    fn count(&self, class: Class) -> std::sync::MutexGuard<'_, Count> {
        self.counts[class as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account for the bytes of one request's body.
    pub(crate) fn upload(self: &Arc<Self>) -> Upload {
        Upload { gate: self.clone(), bytes: 0 }
    }
}

/// 429, with the time after which to try again.
fn too_many(message: &str) -> ApiError {
    ApiError::new(429, "TooManyRequests", message).with_details(json!({"retryAfterSeconds": 1}))
}

/// A request's place.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    class: Class,
    user: Arc<str>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut count = self.gate.count(self.class);
        count.all -= 1;
        if let Entry::Occupied(mut mine) = count.by_user.entry(self.user.clone()) {
            *mine.get_mut() -= 1;
            if *mine.get() == 0 {
                mine.remove();
            }
        }
    }
}

/// Bytes of one request's body that are held in memory.
#[derive(Debug)]
pub(crate) struct Upload {
    gate: Arc<Gate>,
    bytes: usize,
}

impl Upload {
    /// Takes in `more` bytes, if all bodies together leave room for them.
    pub(crate) fn take(&mut self, more: usize) -> Result<()> {
        let before = self.gate.uploads.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if before + more > self.gate.limits.uploads {
            return Err(too_many("too many large requests at once, please try again later"));
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.gate.uploads.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others() {
        let gate = Arc::new(Gate::new(Limits { reads: 8, uploads: 100, ..Limits::default() }));
        let mut held: Vec<_> = (0..6).map(|_| gate.enter(Class::Read, "greedy").unwrap()).collect();
        let refused = gate.enter(Class::Read, "greedy").unwrap_err();
        assert_eq!((refused.code, refused.reason), (429, "TooManyRequests"));
        assert_eq!(refused.details["retryAfterSeconds"], 1);
        gate.enter(Class::Write, "greedy").unwrap();
        held.extend((0..2).map(|_| gate.enter(Class::Read, "modest").unwrap()));
        assert_eq!(gate.enter(Class::Read, "third").unwrap_err().code, 429);
        drop(held);
        assert_eq!(gate.count(Class::Read).all, 0);
        assert!(gate.count(Class::Read).by_user.is_empty());
        let (mut one, mut two) = (gate.upload(), gate.upload());
        one.take(60).unwrap();
        assert_eq!(two.take(60).unwrap_err().code, 429);
        drop(two);
        one.take(40).unwrap();
        drop(one);
        assert_eq!(gate.uploads.load(Ordering::Relaxed), 0);
    }
}
