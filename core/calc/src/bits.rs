//! A sparse set of small numbers.

/// Numbers are handed out in ascending order and reused, so that growing a set is nearly always an
/// append, and a dense set costs two bits a number. Of all sets most have one number or none, for
/// which nothing is allocated.
#[derive(Clone, Debug, Default)]
pub(crate) enum Bits {
    #[default]
    None,
    One(u32),
    Many(Box<Words>), // until the last number goes
}

/// Sorted words of 64 numbers each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    words: Vec<(u32, u64)>, // invariant: ascending, no empty word
    len: u32,
}

impl Bits {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(many) => many.len as usize,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn contains(&self, n: u32) -> bool {
        self.word(n >> 6) & bit(n) != 0
    }

    /// Adds `n`; whether it was new.
    pub(crate) fn insert(&mut self, n: u32) -> bool {
        match self {
            Self::None => *self = Self::One(n),
            Self::One(one) if *one == n => return false,
            Self::One(one) => {
                let mut many = Words::default();
                many.insert(*one);
                many.insert(n);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => return many.insert(n),
        }
        true
    }

    /// Removes `n`; whether it was there.
    pub(crate) fn remove(&mut self, n: u32) -> bool {
        let old = match self {
            Self::None => false,
            Self::One(one) => *one == n,
            Self::Many(many) => many.remove(n),
        };
        if matches!(self, Self::One(_)) && old || self.is_empty() {
            *self = Self::None;
        }
        old
    }

    /// Adds all of another set, in one walk over both.
    pub(crate) fn add_all(&mut self, other: &Self) {
        let mut words = Vec::with_capacity(self.words().count().max(other.words().count()));
        let mut theirs = other.words().peekable();
        for (high, word) in self.words() {
            while let Some(before) = theirs.next_if(|w| w.0 < high) {
                words.push(before);
            }
            let both = theirs.next_if(|w| w.0 == high).map_or(word, |w| word | w.1);
            words.push((high, both));
        }
        words.extend(theirs);
        let len = words.iter().map(|w| w.1.count_ones()).sum();
        if len > 0 {
            *self = Self::Many(Box::new(Words { words, len }));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words().flat_map(numbers)
    }

    /// The numbers that are in all the others too.
    pub(crate) fn common<'a>(&'a self, others: &'a [&Self]) -> impl Iterator<Item = u32> + 'a {
        let meet = move |(high, word): (u32, u64)| {
            let both = |left: u64, other: &&Self| match left {
                0 => 0,
                left => left & other.word(high),
            };
            (high, others.iter().fold(word, both))
        };
        self.words().map(meet).flat_map(numbers)
    }

    fn words(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(n) => (Some((n >> 6, bit(*n))), &[][..]),
            Self::Many(many) => (None, &many.words[..]),
        };
        one.into_iter().chain(many.iter().copied())
    }

    /// The word of these high bits; 0 if it is empty.
    fn word(&self, high: u32) -> u64 {
        match self {
            Self::One(n) if n >> 6 == high => bit(*n),
            Self::None | Self::One(_) => 0,
            Self::Many(many) => many.find(high).map_or(0, |at| many.words[at].1),
        }
    }
}

impl Words {
    fn insert(&mut self, n: u32) -> bool {
        let at = match self.find(n >> 6) {
            Ok(at) => at,
            Err(at) => {
                self.words.insert(at, (n >> 6, 0));
                at
            }
        };
        let new = self.words[at].1 & bit(n) == 0;
        self.words[at].1 |= bit(n);
        self.len += u32::from(new);
        new
    }

    fn remove(&mut self, n: u32) -> bool {
        let Ok(at) = self.find(n >> 6) else { return false };
        let old = self.words[at].1 & bit(n) != 0;
        self.words[at].1 &= !bit(n);
        if self.words[at].1 == 0 {
            self.words.remove(at);
        }
        self.len -= u32::from(old);
        old
    }

    fn find(&self, high: u32) -> Result<usize, usize> {
        match self.words.last() {
            Some(&(last, _)) if last < high => Err(self.words.len()),
            Some(&(last, _)) if last == high => Ok(self.words.len() - 1),
            _ => self.words.binary_search_by_key(&high, |w| w.0),
        }
    }
}

fn numbers((high, word): (u32, u64)) -> impl Iterator<Item = u32> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let low = rest.trailing_zeros();
        (low < 64).then(|| {
            rest &= rest - 1;
            (high << 6) | low
        })
    })
}

fn bit(n: u32) -> u64 {
    1 << (n & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in prop::collection::vec((any::<bool>(), 0u32..300), 0..200)) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (add, n) in ops {
                if add {
                    prop_assert_eq!(bits.insert(n), set.insert(n));
                } else {
                    prop_assert_eq!(bits.remove(n), set.remove(&n));
                }
                prop_assert_eq!(bits.contains(n), set.contains(&n));
            }
            prop_assert_eq!(bits.len(), set.len());
            prop_assert_eq!(bits.is_empty(), set.is_empty());
            prop_assert!(bits.iter().eq(set.iter().copied()));
        }

        #[test]
        fn all_of_another(a in prop::collection::btree_set(0u32..999, 0..50), b in prop::collection::btree_set(0u32..999, 0..50)) {
            let bits = |set: &BTreeSet<u32>| {
                let mut bits = Bits::default();
                for n in set {
                    bits.insert(*n);
                }
                bits
            };
            let (mut both, union): (_, BTreeSet<u32>) = (bits(&a), a.union(&b).copied().collect());
            both.add_all(&bits(&b));
            prop_assert!(both.words().eq(bits(&union).words()));
            prop_assert_eq!(both.len(), union.len());
        }

        #[test]
        fn common_numbers(lists in prop::collection::vec(prop::collection::btree_set(0u32..200, 0..150), 1..4)) {
            let all: Vec<Bits> = lists
                .iter()
                .map(|list| {
                    let mut bits = Bits::default();
                    for n in list {
                        bits.insert(*n);
                    }
                    bits
                })
                .collect();
            let others: Vec<&Bits> = all.iter().skip(1).collect();
            let wanted = lists[0].iter().filter(|n| lists.iter().all(|l| l.contains(n)));
            prop_assert!(all[0].common(&others).eq(wanted.copied()));
        }
    }
}
