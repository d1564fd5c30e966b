//! Who is alive, who is ready, and who has not been heard of for too long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What a component's reports are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aspects {
    /// Counts for `/liveness`.
    pub live: bool,
    /// Counts for `/readiness`.
    pub ready: bool,
}

/// One report of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// It works.
    pub live: bool,
    /// It does its job.
    pub ready: bool,
    /// What it waits for, if it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Report {
    /// Alive and ready.
    pub fn good() -> Self {
        Self { live: true, ready: true, detail: String::new() }
    }

    /// Alive, not ready yet.
    pub fn waiting(detail: impl Into<String>) -> Self {
        Self { live: true, ready: false, detail: detail.into() }
    }
}

/// A component, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its last report; a component that was never heard of is neither live nor ready.
    #[serde(flatten)]
    pub report: Report,
    /// It should have reported again since.
    pub overdue: bool,
}

#[derive(Debug)]
struct Entry {
    aspects: Aspects,
    /// As it was registered.
    own: Option<Duration>,
    timeout: Option<Duration>,
    last: Report,
    since: Instant,
}

/// All components of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

/// A component's voice.
#[derive(Clone, Debug)]
pub struct Reporter {
    health: Health,
    name: String,
}

impl Health {
    /// Adds a component. With a timeout it has to report at least that often.
    pub fn register(&self, name: &str, aspects: Aspects, timeout: Option<Duration>) -> Reporter {
        let (own, last, since) = (timeout, Report::default(), Instant::now());
        let entry = Entry { aspects, own, timeout, last, since };
        self.lock().insert(name.to_owned(), entry);
        Reporter { health: self.clone(), name: name.to_owned() }
    }

    /// From now on these components have to report at least as often as is said here (zero: they do not
    /// have to), and all others as often as when they were added.
    pub fn set_timeouts(&self, timeouts: &BTreeMap<String, Duration>) {
        for (name, entry) in self.lock().iter_mut() {
            let other = timeouts.get(name).map(|time| Some(*time).filter(|time| !time.is_zero()));
            entry.timeout = other.unwrap_or(entry.own);
        }
    }

    /// Every component.
    pub fn components(&self) -> Vec<Component> {
        self.components_at(Instant::now())
    }

    /// Everybody who counts for it is alive.
    pub fn live(&self) -> bool {
        self.all(Instant::now(), |a| a.live, |r| r.live)
    }

    /// Everybody who counts for it is ready.
    pub fn ready(&self) -> bool {
        self.all(Instant::now(), |a| a.ready, |r| r.ready)
    }

    fn all(&self, now: Instant, counts: fn(&Aspects) -> bool, good: fn(&Report) -> bool) -> bool {
        let entries = self.lock();
        entries.values().filter(|e| counts(&e.aspects)).all(|e| good(&e.last) && !e.overdue(now))
    }

    fn components_at(&self, now: Instant) -> Vec<Component> {
        let one = |(name, e): (&String, &Entry)| Component {
            name: name.clone(),
            report: e.last.clone(),
            overdue: e.overdue(now),
        };
        self.lock().iter().map(one).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn overdue(&self, now: Instant) -> bool {
        self.timeout.is_some_and(|t| now.saturating_duration_since(self.since) > t)
    }
}

impl Reporter {
    /// Says how the component is.
    pub fn report(&self, report: Report) {
        if let Some(entry) = self.health.lock().get_mut(&self.name) {
            entry.last = report;
            entry.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_health() {
        let health = Health::default();
        let both = Aspects { live: true, ready: true };
        let looper = health.register("loop", both, Some(Duration::from_secs(10)));
        let ready_only = Aspects { live: false, ready: true };
        let sync = health.register("sync", ready_only, None);
        assert!(!health.live() && !health.ready(), "nobody has reported");
        looper.report(Report::good());
        sync.report(Report::waiting("first list"));
        assert!(health.live() && !health.ready());
        sync.report(Report::good());
        assert!(health.ready());
        let later = Instant::now() + Duration::from_secs(11);
        assert!(!health.all(later, |a| a.live, |r| r.live), "the loop is overdue");
        let overdue: Vec<_> =
            health.components_at(later).into_iter().filter(|c| c.overdue).map(|c| c.name).collect();
        assert_eq!(overdue, ["loop"]);
        for (seconds, live) in [(12, true), (10, false), (0, true)] {
            health.set_timeouts(&[("loop".to_owned(), Duration::from_secs(seconds))].into());
            assert_eq!(health.all(later, |a| a.live, |r| r.live), live, "{seconds} s");
        }
        health.set_timeouts(&BTreeMap::new());
        assert!(!health.all(later, |a| a.live, |r| r.live), "as it was at first");
    }
}
