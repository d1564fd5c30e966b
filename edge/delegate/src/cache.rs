//! Answers, for as long as they are good, and so many of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use apiserver::Unanswered;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

/// What a question is known by. Of a token nothing can be told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// Remembers answers. Those who ask the same at the same time share one.
pub(crate) struct Cache<V> {
    limit: usize,
    kept: Mutex<Kept<V>>,
}

struct Kept<V> {
    by_key: HashMap<Key, Arc<Slot<V>>>,
    /// In the order in which they came.
    order: VecDeque<(Key, u64)>,
    next: u64,
}

struct Slot<V> {
    id: u64,
    answer: OnceCell<(Instant, Result<V, Unanswered>)>,
}

impl<V> Slot<V> {
    /// Whether it is worth keeping: what is being asked is, too.
    fn fresh(&self, now: Instant) -> bool {
        self.answer.get().is_none_or(|(until, _)| *until > now)
    }
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(limit: usize) -> Self {
        let kept = Kept { by_key: HashMap::new(), order: VecDeque::new(), next: 0 };
        Self { limit, kept: Mutex::new(kept) }
    }

    /// The answer to `key`, made by `ask` if there is none: for how long it is good, and what it is.
    pub(crate) async fn get(
        &self,
        key: Key,
        ask: impl Future<Output = (Duration, Result<V, Unanswered>)>,
    ) -> Result<V, Unanswered> {
        let slot = self.slot(key, Instant::now());
        let made = async {
            let (keep, answer) = ask.await;
            (Instant::now() + keep, answer)
        };
        slot.answer.get_or_init(|| made).await.1.clone()
    }

    fn slot(&self, key: Key, now: Instant) -> Arc<Slot<V>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = kept.by_key.get(&key).filter(|slot| slot.fresh(now)) {
            return slot.clone();
        }
        let id = kept.next;
        kept.next += 1;
        let slot = Arc::new(Slot { id, answer: OnceCell::new() });
        kept.by_key.insert(key, slot.clone());
        kept.order.push_back((key, id));
        kept.tidy(self.limit, now);
        slot
    }
}

impl<V> Kept<V> {
    /// Forgets what is no longer good, and the oldest of what is too much.
    fn tidy(&mut self, limit: usize, now: Instant) {
        while let Some((key, id)) = self.order.front().copied() {
            let current = self.by_key.get(&key).filter(|slot| slot.id == id);
            let much = self.by_key.len() > limit || self.order.len() > 2 * limit;
            match current {
                Some(slot) if slot.fresh(now) && !much => return,
                Some(_) => drop(self.by_key.remove(&key)),
                None => {}
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use futures_util::future::join;

    const LONG: Duration = Duration::from_mins(1);

    fn get(cache: &Cache<u32>, key: &str, keep: Duration, answer: u32) -> u32 {
        let ask = std::future::ready((keep, Ok(answer)));
        cache.get(Key::of(&[key]), ask).now_or_never().unwrap().unwrap()
    }

    #[test]
    fn answers_are_kept_for_a_time_and_in_bounded_number() {
        let cache = Cache::new(3);
        assert_eq!(get(&cache, "a", LONG, 1), 1);
        assert_eq!(get(&cache, "a", LONG, 2), 1, "remembered");
        assert_eq!(get(&cache, "b", Duration::ZERO, 1), 1);
        assert_eq!(get(&cache, "b", LONG, 2), 2, "no longer good");
        for at in 0..100 {
            get(&cache, &at.to_string(), LONG, at);
        }
        assert_eq!(get(&cache, "99", LONG, 0), 99);
        assert_eq!(get(&cache, "a", LONG, 3), 3, "forgotten");
        for at in 0..100 {
            get(&cache, "hot", Duration::ZERO, at);
        }
        let kept = cache.kept.lock().unwrap();
        assert!(kept.by_key.len() <= 3 && kept.order.len() <= 6, "{}", kept.order.len());
    }

    #[test]
    fn parts_are_not_run_together() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_ne!(Key::of(&["a"]), Key::of(&["a", ""]));
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once_at_a_time() {
        let cache = Cache::new(8);
        let ask = |answer: u32| async move {
            tokio::task::yield_now().await;
            (LONG, Err::<u32, _>(Unanswered(format!("away {answer}"))))
        };
        let key = Key::of(&["q"]);
        let (one, two) = join(cache.get(key, ask(1)), cache.get(key, ask(2))).await;
        assert_eq!(one, Err(Unanswered("away 1".into())));
        assert_eq!(one, two);

        // Who gives up does not leave the others without an answer.
        let slow = cache.get(Key::of(&["r"]), std::future::pending());
        assert!(slow.now_or_never().is_none());
        assert_eq!(get(&cache, "r", LONG, 5), 5);
    }
}
