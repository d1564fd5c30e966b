//! Which items match which selectors, kept current.
//!
//! Neither direction scans: an item is tried against the selectors that ask for one of its labels,
//! a selector against the items that carry the rarest label it asks for.

use crate::bits::Bits;
use crate::few::Few;
use crate::intern::{Pair, Sym};
use crate::items::{ItemId, Items, Postings, ProfileId};
use crate::program::{self, Needs, Program};
use crate::slab::Slab;
use model::hash::FastMap;
use selector::Selector;

/// Number of a selector in an index.
pub(crate) type SelectorId = u32;

/// Where a selector waits for items.
enum Anchor {
    /// Nothing can match.
    Nowhere,
    /// No label is needed.
    Everywhere,
    /// Items with this key.
    Key(Sym),
    /// Items with this key and one of these values.
    Values(Sym, Few<Sym>),
}

struct Entry {
    program: Program,
    anchor: Anchor,
    matches: Bits,
}

/// An index over some of the items.
#[derive(Default)]
pub(crate) struct LabelIndex {
    members: Bits,
    own: Postings,
    heirs: FastMap<ProfileId, Bits>, // items by the profiles that they list
    selectors: Slab<Entry>,
    by_value: FastMap<Pair, Vec<SelectorId>>,
    by_key: FastMap<Sym, Vec<SelectorId>>,
    anywhere: Vec<SelectorId>,
}

impl LabelIndex {
    /// Adds a selector and finds its matches.
    pub(crate) fn add_selector(&mut self, selector: &Selector, items: &mut Items) -> SelectorId {
        let program = Program::compile(selector, &mut items.interner);
        let needs = program::needs(selector, &mut items.interner);
        let matches = match &needs {
            None => Bits::default(),
            Some(needs) => self.search(&program, needs, items),
        };
        let anchor = self.pick_anchor(needs);
        let id = self.selectors.insert(Entry { program, anchor, matches });
        self.wait(id);
        id
    }

    /// Removes a selector.
    pub(crate) fn remove_selector(&mut self, id: SelectorId, items: &mut Items) {
        let Some(entry) = self.selectors.remove(id) else { return };
        entry.program.release(&mut items.interner);
        match entry.anchor {
            Anchor::Nowhere => (),
            Anchor::Everywhere => self.anywhere.retain(|s| *s != id),
            Anchor::Key(key) => unlist(&mut self.by_key, key, id),
            Anchor::Values(key, values) => {
                values.iter().for_each(|v| unlist(&mut self.by_value, (key, *v), id));
            }
        }
    }

    /// The items that a selector matches.
    pub(crate) fn matched(&self, id: SelectorId) -> &Bits {
        &self.selectors[id].matches
    }

    /// Adds an item; `now` becomes the selectors that it matches, ascending.
    pub(crate) fn insert(&mut self, id: ItemId, items: &Items, now: &mut Vec<SelectorId>) {
        let item = items.item(id);
        self.members.insert(id);
        self.own.insert(id, &item.labels);
        for &profile in item.profiles.iter() {
            self.heirs.entry(profile).or_default().insert(id);
        }
        self.rematch(id, &[], items, now);
    }

    /// Removes an item that still has the labels it was inserted with.
    pub(crate) fn remove(&mut self, id: ItemId, matched: &[SelectorId], items: &Items) {
        let item = items.item(id);
        self.members.remove(id);
        self.own.remove(id, &item.labels);
        for &profile in item.profiles.iter() {
            if let Some(heirs) = self.heirs.get_mut(&profile) {
                heirs.remove(id);
                if heirs.is_empty() {
                    self.heirs.remove(&profile);
                }
            }
        }
        for &selector in matched {
            self.selectors[selector].matches.remove(id);
        }
    }

    /// `found` becomes the selectors that an item is known to match, ascending.
    pub(crate) fn matches_of(&self, id: ItemId, items: &Items, found: &mut Vec<SelectorId>) {
        self.candidates(id, items, found);
        found.retain(|&s| self.selectors[s].matches.contains(id));
    }

    /// Matches an item again after its labels changed, own or inherited; `now` becomes the selectors
    /// that it matches, ascending.
    pub(crate) fn rematch(
        &mut self,
        id: ItemId,
        before: &[SelectorId],
        items: &Items,
        now: &mut Vec<SelectorId>,
    ) {
        let item = items.item(id);
        self.candidates(id, items, now);
        now.retain(|&s| {
            self.selectors[s].program.matches(&|key| items.value(item, key), &items.interner)
        });
        for &selector in before {
            if now.binary_search(&selector).is_err() {
                self.selectors[selector].matches.remove(id);
            }
        }
        for &selector in now.iter() {
            self.selectors[selector].matches.insert(id);
        }
    }

    /// The items that list a profile, with the selectors that each is known to match.
    pub(crate) fn heirs(
        &self,
        profile: ProfileId,
        items: &Items,
    ) -> Vec<(ItemId, Vec<SelectorId>)> {
        let known = |id| {
            let mut matches = Vec::new();
            self.matches_of(id, items, &mut matches);
            (id, matches)
        };
        self.heirs.get(&profile).into_iter().flat_map(Bits::iter).map(known).collect()
    }

    /// `found` becomes the selectors that may match an item, ascending.
    fn candidates(&self, id: ItemId, items: &Items, found: &mut Vec<SelectorId>) {
        found.clone_from(&self.anywhere);
        for pair in items.all_labels(items.item(id)) {
            found.extend(self.by_value.get(&pair).into_iter().flatten());
            found.extend(self.by_key.get(&pair.0).into_iter().flatten());
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Items that match a program, searched where the rarest of its needs is.
    fn search(&self, program: &Program, needs: &[Needs], items: &Items) -> Bits {
        let mut found = Bits::default();
        let mut try_item = |id| {
            let item = items.item(id);
            if program.matches(&|key| items.value(item, key), &items.interner) {
                found.insert(id);
            }
        };
        let rarest = needs.iter().min_by_key(|n| self.carriers(n, items));
        let Some(need) = rarest else {
            self.members.iter().for_each(try_item);
            return found;
        };
        let values = need.values.as_deref();
        let others: Vec<&Bits> = needs
            .iter()
            .filter(|n| !std::ptr::eq(*n, need))
            .filter_map(|n| self.only_list(n, items))
            .collect();
        let own = self.own.lists(need.key, values);
        let inherited = items.profiles_with(need.key, values).filter_map(|p| self.heirs.get(&p));
        if program.is_one_need() {
            // An own label hides inherited ones: only heirs must be looked at.
            inherited.for_each(|list| list.iter().for_each(&mut try_item));
            own.for_each(|list| found.add_all(list));
            return found;
        }
        for list in own.chain(inherited) {
            list.common(&others).for_each(&mut try_item);
        }
        found
    }

    /// The one list of items that can fulfil a need, if it is one.
    fn only_list<'a>(&'a self, need: &'a Needs, items: &Items) -> Option<&'a Bits> {
        let values = need.values.as_deref();
        let mut lists = self.own.lists(need.key, values);
        let list = lists.next()?;
        let alone =
            lists.next().is_none() && items.profiles_with(need.key, values).next().is_none();
        alone.then_some(list)
    }

    /// How many items carry what is needed.
    fn carriers(&self, need: &Needs, items: &Items) -> usize {
        let values = need.values.as_deref();
        let own: usize = self.own.lists(need.key, values).map(Bits::len).sum();
        let heirs = items.profiles_with(need.key, values).filter_map(|p| self.heirs.get(&p));
        own + heirs.map(Bits::len).sum::<usize>()
    }

    /// Where fewest selectors wait already: a label that every selector asks for (the
    /// orchestrator, say) tells nothing.
    fn pick_anchor(&self, needs: Option<Vec<Needs>>) -> Anchor {
        let crowd = |need: &Needs| match &need.values {
            None => self.by_key.get(&need.key).map_or(1, |l| l.len() + 1),
            Some(values) => {
                values.iter().map(|v| self.by_value.get(&(need.key, *v)).map_or(0, Vec::len)).sum()
            }
        };
        let Some(needs) = needs else { return Anchor::Nowhere };
        match needs.into_iter().min_by_key(crowd) {
            None => Anchor::Everywhere,
            Some(Needs { key, values: None }) => Anchor::Key(key),
            Some(Needs { key, values: Some(values) }) => Anchor::Values(key, values),
        }
    }

    /// Files a selector under its anchor.
    fn wait(&mut self, id: SelectorId) {
        match &self.selectors[id].anchor {
            Anchor::Nowhere => (),
            Anchor::Everywhere => self.anywhere.push(id),
            Anchor::Key(key) => self.by_key.entry(*key).or_default().push(id),
            Anchor::Values(key, values) => {
                for value in values.iter() {
                    self.by_value.entry((*key, *value)).or_default().push(id);
                }
            }
        }
    }
}

/// Takes a selector off a list, and the list off the map when it was the last.
fn unlist<K: std::hash::Hash + Eq>(map: &mut FastMap<K, Vec<SelectorId>>, key: K, id: SelectorId) {
    if let Some(list) = map.get_mut(&key) {
        list.retain(|s| *s != id);
        if list.is_empty() {
            map.remove(&key);
        }
    }
}
