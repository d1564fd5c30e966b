//! Classes of endpoints: those that the same selectors match have the same policies.
//!
//! A node has many endpoints and few kinds of them. What a policy changes is changed once for a
//! class, and in place: a list of ten thousand policies is not made again for one of them.
//!
//! Invariant: unless it is to be made again, the arrangement of a class is that of the policies that
//! stand behind its selectors now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::arrangement::{Arrangement, EndpointKind};
use crate::bits::Bits;
use crate::book::{Book, PolicyNumber};
use crate::groups::Groups;
use crate::index::SelectorId;
use crate::items::ItemId;
use crate::kept::KeptPolicy;
use crate::slab::Slab;
use model::hash::FastMap;

/// Number of a class. Given to another class only after the next [`Classes::flush`].
pub(crate) type ClassId = u32;

/// After so many changes since the last flush an arrangement is better made again.
const MANY: u32 = 64;

/// What makes a class: the selectors ascend.
type Key = (EndpointKind, Arc<[SelectorId]>);

struct Class {
    key: Key,
    members: Bits,
    arrangement: Arrangement,
    changes: u32, // since the last flush; `MANY`: to be made again
}

/// All policies, by number and by selector.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) book: &'a Book,
    pub(crate) groups: &'a Groups,
}

#[derive(Default)]
pub(crate) struct Classes {
    classes: Slab<Class>,
    by_key: FastMap<Key, ClassId>,
    by_selector: FastMap<SelectorId, Bits>,
    changed: BTreeSet<ClassId>,
    left: BTreeSet<ClassId>, // an endpoint left: perhaps the last
}

impl Classes {
    pub(crate) fn arrangement(&self, class: ClassId) -> &Arrangement {
        &self.classes[class].arrangement
    }

    /// A policy comes to a selector.
    pub(crate) fn policy_comes(&mut self, at: SelectorId, policy: &KeptPolicy, book: &Book) {
        self.each(at, |class| class.arrangement.insert(class.key.0, policy, book));
    }

    /// A policy goes from a selector: it is still in the book, at its old place.
    pub(crate) fn policy_goes(&mut self, at: SelectorId, policy: &KeptPolicy, book: &Book) {
        self.each(at, |class| class.arrangement.remove(class.key.0, policy, book));
    }

    fn each(&mut self, at: SelectorId, mut edit: impl FnMut(&mut Class) -> bool) {
        for id in self.by_selector.get(&at).into_iter().flat_map(Bits::iter) {
            let class = &mut self.classes[id];
            if class.changes < MANY && edit(class) {
                class.changes += 1;
                self.changed.insert(id);
            }
        }
    }

    /// Tiers changed: every arrangement may be another.
    pub(crate) fn order_changed(&mut self) {
        for &id in self.by_key.values() {
            self.classes[id].changes = MANY;
            self.changed.insert(id);
        }
    }

    /// An endpoint goes, or changes.
    pub(crate) fn leave(&mut self, id: ItemId, class: ClassId) {
        self.classes[class].members.remove(id);
        self.left.insert(class);
    }

    /// Files an endpoint that these selectors match; `before` is the class that it was in.
    pub(crate) fn put(
        &mut self,
        id: ItemId,
        kind: EndpointKind,
        selectors: &[SelectorId],
        before: Option<ClassId>,
        world: World<'_>,
    ) -> ClassId {
        let same = |class: &ClassId| {
            let (its_kind, its_selectors) = &self.classes[*class].key;
            *its_kind == kind && **its_selectors == *selectors
        };
        let class = before.filter(same).unwrap_or_else(|| {
            let key = (kind, selectors.into());
            match self.by_key.get(&key) {
                Some(&class) => class,
                None => self.create(key, before, world),
            }
        });
        if let Some(before) = before.filter(|before| *before != class) {
            self.leave(id, before);
        }
        self.classes[class].members.insert(id);
        class
    }

    fn create(&mut self, key: Key, before: Option<ClassId>, world: World<'_>) -> ClassId {
        let near = before.and_then(|before| self.classes[before].becoming(&key, world));
        let arrangement = near.unwrap_or_else(|| world.arrange(&key));
        let (members, changes) = (Bits::default(), 0);
        let class = Class { key: key.clone(), members, arrangement, changes };
        let id = self.classes.insert(class);
        for selector in key.1.iter() {
            self.by_selector.entry(*selector).or_default().insert(id);
        }
        self.by_key.insert(key, id);
        id
    }

    /// Makes again what must be, adds the endpoints of classes that changed to `found`, and forgets
    /// classes without endpoints.
    pub(crate) fn flush(&mut self, world: World<'_>, found: &mut BTreeMap<ItemId, ClassId>) {
        for id in std::mem::take(&mut self.left) {
            if self.classes.get(id).is_some_and(|class| class.members.is_empty()) {
                self.forget(id);
            }
        }
        for id in std::mem::take(&mut self.changed) {
            let Some(class) = self.classes.get_mut(id) else { continue };
            if class.changes == MANY {
                class.arrangement = world.arrange(&class.key);
            }
            class.changes = 0;
            found.extend(class.members.iter().map(|member| (member, id)));
        }
    }

    fn forget(&mut self, id: ClassId) {
        let Some(class) = self.classes.remove(id) else { return };
        self.by_key.remove(&class.key);
        self.changed.remove(&id);
        for selector in class.key.1.iter() {
            if let Some(classes) = self.by_selector.get_mut(selector) {
                classes.remove(id);
                if classes.is_empty() {
                    self.by_selector.remove(selector);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.by_selector.is_empty()
    }
}

impl Class {
    /// The arrangement of another class, if little is to be done to this one's for it.
    fn becoming(&self, key: &Key, world: World<'_>) -> Option<Arrangement> {
        let (kind, wanted) = key;
        if self.changes == MANY || self.key.0 != *kind {
            return None;
        }
        let lost = |s: &&SelectorId| wanted.binary_search(s).is_err();
        let lost: Vec<PolicyNumber> = world.behind(self.key.1.iter().filter(lost));
        let won = |s: &&SelectorId| self.key.1.binary_search(s).is_err();
        let won: Vec<PolicyNumber> = world.behind(wanted.iter().filter(won));
        let count: usize = wanted.iter().map(|s| world.groups.of(*s).len()).sum();
        // A change takes what arranging some 16 policies takes.
        if (lost.len() + won.len()) * 16 > count {
            return None;
        }
        let mut arrangement = self.arrangement.clone();
        for number in lost {
            arrangement.remove(*kind, &world.book[number].policy, world.book);
        }
        for number in won {
            arrangement.insert(*kind, &world.book[number].policy, world.book);
        }
        Some(arrangement)
    }
}

impl World<'_> {
    /// The policies behind selectors.
    fn behind<'a>(&self, selectors: impl Iterator<Item = &'a SelectorId>) -> Vec<PolicyNumber> {
        selectors.flat_map(|s| self.groups.of(*s)).copied().collect()
    }

    fn arrange(&self, (kind, selectors): &Key) -> Arrangement {
        let mut numbers = self.behind(selectors.iter());
        self.book.sort(&mut numbers);
        let policies: Vec<&KeptPolicy> = numbers.iter().map(|n| &self.book[*n].policy).collect();
        Arrangement::of(*kind, &policies, self.book)
    }
}
