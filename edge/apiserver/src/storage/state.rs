//! What a store has in memory: the current objects and a bounded piece of history.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::{Change, ChangeKind, Changes, Listing, Object, StorageError};

/// The current objects, and the changes that led to them as far back as is kept.
#[derive(Debug, Default)]
pub struct State {
    /// The revision of the last change, or a later one up to which there was none.
    pub revision: u64,
    /// The current objects.
    pub objects: BTreeMap<Arc<str>, Arc<Object>>,
    /// The last changes, oldest first.
    history: VecDeque<Change>,
    /// The revision before the first one in `history`.
    pub floor: u64,
    /// Changes after this revision know the object they replaced.
    pub known: u64,
    /// How many changes `history` may hold, and how many bytes of objects in them.
    keep: usize,
    keep_bytes: usize,
    /// The size of each change in `history`, and of all.
    sizes: VecDeque<usize>,
    size: usize,
}

impl State {
    /// No objects, at revision 0, with room for a history of `keep` changes and `keep_bytes` of objects.
    pub fn new(keep: usize, keep_bytes: usize) -> Self {
        Self { keep, keep_bytes, ..Self::default() }
    }

    /// Takes in one change that the medium has accepted.
    pub fn push(&mut self, change: Change) {
        let object = &change.object;
        self.revision = object.revision();
        match change.kind {
            ChangeKind::Deleted => drop(self.objects.remove(object.key())),
            ChangeKind::Created | ChangeKind::Updated => {
                self.objects.insert(object.key().clone(), object.clone());
            }
        }
        let size = change.object.json().len();
        self.remember(change, size);
    }

    /// Adds a change of `size` bytes to the history without performing it.
    pub fn remember(&mut self, change: Change, size: usize) {
        self.history.push_back(change);
        self.sizes.push_back(size);
        self.size += size;
        while self.history.len() > self.keep || self.size > self.keep_bytes {
            let Some(old) = self.history.pop_front() else { break };
            self.floor = old.object.revision();
            self.size -= self.sizes.pop_front().unwrap_or_default();
        }
        self.known = self.known.max(self.floor);
    }

    /// The objects under `prefix` now, or as they were at revision `at`.
    ///
    /// # Errors
    /// [`StorageError::Expired`] if the history does not reach back to `at`.
    pub fn list(&self, prefix: &str, at: Option<u64>) -> Result<Listing, StorageError> {
        let at = at.unwrap_or(self.revision);
        let objects = self.part((prefix, None), at, usize::MAX)?;
        Ok(Listing { revision: at, objects })
    }

    /// The objects under `prefix` as they were at revision `at`: of those with a key behind `start`, if it
    /// is given, the first `most`. Cost: what is returned, and the changes after `at`.
    ///
    /// # Errors
    /// [`StorageError::Expired`] if the history does not reach back to `at`.
    pub fn part(
        &self,
        (prefix, start): (&str, Option<&str>),
        at: u64,
        most: usize,
    ) -> Result<Vec<Arc<Object>>, StorageError> {
        if at < self.known {
            return Err(StorageError::Expired { asked: at, oldest: self.known });
        }
        let wanted = |key: &str| key.starts_with(prefix) && start.is_none_or(|start| key > start);
        // What was otherwise then, the oldest change of each object last.
        let mut then: BTreeMap<&str, Option<&Arc<Object>>> = BTreeMap::new();
        for change in self.after(at).rev().filter(|c| wanted(c.object.key())) {
            then.insert(change.object.key(), change.previous.as_ref());
        }
        let from = start.filter(|start| *start > prefix).map_or(Included(prefix), Excluded);
        let now = self.objects.range::<str, _>((from, Unbounded));
        let mut now = now.take_while(|(k, _)| k.starts_with(prefix)).peekable();
        let mut then = then.into_iter().peekable();
        let mut objects = Vec::new();
        while objects.len() < most {
            let order = match (now.peek(), then.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((now, _)), Some((then, _))) => (***now).cmp(then),
            };
            if order.is_eq() {
                now.next();
            }
            let next = if order.is_lt() {
                now.next().map(|(_, object)| object)
            } else {
                then.next().and_then(|(_, object)| object)
            };
            objects.extend(next.cloned());
        }
        Ok(objects)
    }

    /// The changes under `prefix` after revision `after`.
    ///
    /// # Errors
    /// [`StorageError::Expired`] if the history does not reach back to `after`.
    pub fn changes(&self, prefix: &str, after: u64) -> Result<Changes, StorageError> {
        if after < self.floor {
            return Err(StorageError::Expired { asked: after, oldest: self.floor });
        }
        let ours = self.after(after).filter(|c| c.object.key().starts_with(prefix));
        Ok(Changes { upto: self.revision, changes: ours.cloned().collect() })
    }

    /// The part of the history after `revision`.
    fn after(&self, revision: u64) -> std::collections::vec_deque::Iter<'_, Change> {
        let start = self.history.partition_point(|c| c.object.revision() <= revision);
        self.history.range(start..)
    }
}
