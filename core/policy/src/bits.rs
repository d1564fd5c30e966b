//! Sets of small numbers, a bit each.

/// Words that are looked at together.
const WIDE: usize = 8;

/// A set of numbers below a bound that its maker knows. Sets that meet must have one bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// Nothing below `bound`.
    pub(crate) fn none(bound: usize) -> Self {
        Self(vec![0; bound.div_ceil(64)])
    }

    /// Everything below `bound`.
    pub(crate) fn all(bound: usize) -> Self {
        let mut all = Self(vec![u64::MAX; bound.div_ceil(64)]);
        if let Some(last) = all.0.last_mut().filter(|_| !bound.is_multiple_of(64)) {
            *last = (1 << (bound % 64)) - 1;
        }
        all
    }

    /// The numbers below `bound` that fulfil `holds`.
    pub(crate) fn of(bound: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut found = Self::none(bound);
        (0..bound).filter(|n| holds(*n)).for_each(|n| found.insert(n));
        found
    }

    pub(crate) fn insert(&mut self, n: usize) {
        self.0[n / 64] |= 1 << (n % 64);
    }

    pub(crate) fn take(&mut self, n: usize) {
        self.0[n / 64] &= !(1 << (n % 64));
    }

    pub(crate) fn has(&self, n: usize) -> bool {
        self.0[n / 64] >> (n % 64) & 1 == 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |(at, word): (usize, &u64)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        };
        self.0.iter().enumerate().flat_map(bits)
    }

    /// The words, of 64 numbers each, the lowest bit first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }

    /// As [`Self::words`]. Bits at and above the bound must stay clear.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }

    /// Finds the first number of a range that is in all three.
    pub(crate) fn first_in(all: [&Self; 3]) -> impl Fn(std::ops::Range<usize>) -> Option<usize> {
        let [a, b, c] = all.map(|bits| bits.0.as_slice());
        move |range| {
            let mut at = range.start / 64;
            let mut mask = u64::MAX << (range.start % 64);
            let whole = range.end / 64;
            while at * 64 < range.end {
                let common = a[at] & b[at] & c[at] & mask;
                if common != 0 {
                    let found = at * 64 + common.trailing_zeros() as usize;
                    return (found < range.end).then_some(found);
                }
                (at, mask) = (at + 1, u64::MAX);
                // Several at a time, which the compiler makes wide instructions of.
                while at + WIDE <= whole {
                    let [a, b, c] = [a, b, c].map(|words| &words[at..at + WIDE]);
                    if (0..WIDE).fold(0, |any, i| any | (a[i] & b[i] & c[i])) != 0 {
                        break;
                    }
                    at += WIDE;
                }
            }
            None
        }
    }

    pub(crate) fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }

    pub(crate) fn remove(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bits;

    fn set(of: &BTreeSet<usize>, bound: usize) -> Bits {
        Bits::of(bound, |n| of.contains(&n))
    }

    proptest! {
        #[test]
        fn bits_are_sets(
            bound in prop_oneof![0_usize..200, 0_usize..2_000],
            a in proptest::collection::btree_set(prop_oneof![0_usize..200, 0_usize..2_000], 0..60),
            b in proptest::collection::btree_set(prop_oneof![0_usize..200, 0_usize..2_000], 0..60),
            (from, to) in prop_oneof![(0_usize..200, 0_usize..200), (0_usize..2_000, 0_usize..2_000)],
        ) {
            let range = from.min(bound)..to.min(bound);
            let below = |s: BTreeSet<usize>| -> BTreeSet<usize> {
                s.into_iter().filter(|n| *n < bound).collect()
            };
            let (a, b) = (below(a), below(b));
            let list = |bits: &Bits| bits.iter().collect::<BTreeSet<_>>();
            let changed = |change: fn(&mut Bits, &Bits)| {
                let mut bits = set(&a, bound);
                change(&mut bits, &set(&b, bound));
                list(&bits)
            };
            prop_assert_eq!(changed(Bits::keep), &a & &b);
            prop_assert_eq!(changed(Bits::remove), &a - &b);
            prop_assert_eq!(changed(Bits::add), &a | &b);
            prop_assert_eq!(list(&Bits::all(bound)), (0..bound).collect::<BTreeSet<_>>());
            prop_assert_eq!(Bits::none(bound).is_empty(), true);
            prop_assert_eq!(set(&a, bound).is_empty(), a.is_empty());
            let found = Bits::first_in([&set(&a, bound), &set(&b, bound), &Bits::all(bound)])(range.clone());
            prop_assert_eq!(found, (&a & &b).into_iter().find(|n| range.contains(n)));
            prop_assert!((0..bound).all(|n| set(&a, bound).has(n) == a.contains(&n)));
            let taken = changed(|bits, b| b.iter().for_each(|n| bits.take(n)));
            prop_assert_eq!(taken, &a - &b);
        }
    }
}
