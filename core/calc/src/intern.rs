//! Text as numbers: labels of a quarter of a million endpoints repeat a few thousand texts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::slab::Slab;

/// Stands for a text as long as it is held.
pub(crate) type Sym = u32;

/// A label: key and value.
pub(crate) type Pair = (Sym, Sym);

/// Counted, so that labels that come and go leave nothing behind (law 7).
#[derive(Default)]
pub(crate) struct Interner {
    by_text: HashMap<Arc<str>, Sym>,
    texts: Slab<(Arc<str>, u32)>,
}

impl Interner {
    /// Takes one hold on `text`.
    pub(crate) fn hold(&mut self, text: &Arc<str>) -> Sym {
        if let Some(&sym) = self.by_text.get(text) {
            self.texts[sym].1 += 1;
            return sym;
        }
        let sym = self.texts.insert((text.clone(), 1));
        self.by_text.insert(text.clone(), sym);
        sym
    }

    /// The number of a text that somebody holds.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        self.by_text.get(text).copied()
    }

    /// Gives one hold up.
    pub(crate) fn release(&mut self, sym: Sym) {
        let entry = &mut self.texts[sym];
        entry.1 -= 1;
        if entry.1 == 0
            && let Some((text, _)) = self.texts.remove(sym)
        {
            self.by_text.remove(&text);
        }
    }

    pub(crate) fn text(&self, sym: Sym) -> &str {
        &self.texts[sym].0
    }

    /// Holds every key and value; sorted by key number.
    pub(crate) fn hold_labels(&mut self, labels: &model::Labels) -> Box<[Pair]> {
        let mut pairs: Box<[Pair]> =
            labels.iter().map(|(k, v)| (self.hold(k), self.hold(v))).collect();
        pairs.sort_unstable();
        pairs
    }

    pub(crate) fn release_labels(&mut self, labels: &[Pair]) {
        for &(key, value) in labels {
            self.release(key);
            self.release(value);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_text.len()
    }
}
