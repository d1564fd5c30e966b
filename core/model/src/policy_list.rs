//! The policies of an endpoint, in order: a list whose versions share what they have in common.
//!
//! A node may have ten thousand policies on each of its pods. One more of them must not cost ten
//! thousand copies, nor a comparison of as many. So a list is cut into pieces of some 64 policies,
//! and a version that differs by one policy has all pieces but one from the other.
//!
//! Where it is cut follows from the policies themselves: equal lists have equal pieces, however
//! they came to be.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::FlatMap;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use crate::PolicyId;

/// Neighbours in a list.
pub type Piece = Arc<[PolicyId]>;

/// The policies of a list, in order.
pub type Iter<'a> = FlatMap<
    slice::Iter<'a, Piece>,
    slice::Iter<'a, PolicyId>,
    fn(&'a Piece) -> slice::Iter<'a, PolicyId>,
>;

/// Policies in order. A clone costs one count; a change copies one piece of some 64 policies and one
/// pointer for each other piece; a comparison looks into pieces that are not shared.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PolicyList {
    // Invariant: every piece but the last ends with the only policy in it that `ends` one, and none
    // is empty.
    pieces: Arc<[Piece]>,
}

impl PolicyList {
    /// How many there are. Looks at each piece.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> Iter<'_> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// Whether `id` is among them. Looks at each.
    pub fn contains(&self, id: &PolicyId) -> bool {
        self.iter().any(|other| other == id)
    }

    /// The policy at `at`, counted from 0.
    pub fn get(&self, at: usize) -> Option<&PolicyId> {
        let (piece, within) = self.find(at);
        self.pieces.get(piece)?.get(within)
    }

    /// How many stand before the first that `before` does not hold for; it must hold for none after
    /// that.
    pub fn partition_point(&self, mut before: impl FnMut(&PolicyId) -> bool) -> usize {
        let whole = self.pieces.partition_point(|piece| piece.last().is_some_and(&mut before));
        let rest = self.pieces.get(whole).map_or(0, |piece| piece.partition_point(before));
        self.pieces[..whole].iter().map(|piece| piece.len()).sum::<usize>() + rest
    }

    /// Puts a policy where `at` policies come before it; at the end if there are not so many.
    pub fn insert(&mut self, at: usize, id: PolicyId) {
        let (mut piece, within) = self.find(at);
        if piece == self.pieces.len() && self.pieces.last().is_some_and(|last| !is_closed(last)) {
            piece -= 1;
        }
        let old = self.pieces.get(piece).map_or(&[][..], |piece| piece);
        let (left, right) = old.split_at(within.min(old.len()));
        let (left, ended) = (left.iter().cloned().chain([id.clone()]), ends(&id));
        let range = piece..(piece + 1).min(self.pieces.len());
        if ended && !right.is_empty() {
            self.replace(range, &[left.collect(), right.into()]);
        } else {
            self.replace(range, &[left.chain(right.iter().cloned()).collect()]);
        }
    }

    /// Takes the policy at `at` out, if there is one.
    pub fn remove(&mut self, at: usize) {
        let (piece, within) = self.find(at);
        let Some(old) = self.pieces.get(piece) else { return };
        // Without what ends it, a piece goes on with the next one.
        let joined = self.pieces.get(piece + 1).filter(|_| within + 1 == old.len());
        let rest = joined.map_or(&[][..], |next| next);
        let kept = old[..within].iter().chain(&old[within + 1..]).chain(rest);
        let new: Piece = kept.cloned().collect();
        let range = piece..piece + 1 + usize::from(joined.is_some());
        if new.is_empty() { self.replace(range, &[]) } else { self.replace(range, &[new]) }
    }

    /// The piece that the policy at `at` is in, and where in it; past the end, the number of pieces
    /// and that of policies in the last.
    fn find(&self, at: usize) -> (usize, usize) {
        let mut within = at;
        for (n, piece) in self.pieces.iter().enumerate() {
            if within < piece.len() {
                return (n, within);
            }
            within -= piece.len();
        }
        (self.pieces.len(), self.pieces.last().map_or(0, |piece| piece.len()))
    }

    fn replace(&mut self, range: Range<usize>, new: &[Piece]) {
        let (before, after) = (&self.pieces[..range.start], &self.pieces[range.end..]);
        self.pieces = before.iter().chain(new).chain(after).cloned().collect();
    }
}

/// Whether a piece ends after this policy: one of 64 does. FNV-1a, whose last bytes reach few bits
/// until they are mixed.
fn ends(id: &PolicyId) -> bool {
    let bytes = id.name.bytes().chain(id.namespace.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed >> 58 == 0
}

fn is_closed(piece: &[PolicyId]) -> bool {
    piece.last().is_some_and(ends)
}

impl From<Vec<PolicyId>> for PolicyList {
    fn from(ids: Vec<PolicyId>) -> Self {
        Self { pieces: ids.split_inclusive(ends).map(Piece::from).collect() }
    }
}

impl<'a> IntoIterator for &'a PolicyList {
    type Item = &'a PolicyId;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<PolicyId> for PolicyList {
    fn from_iter<I: IntoIterator<Item = PolicyId>>(ids: I) -> Self {
        ids.into_iter().collect::<Vec<_>>().into()
    }
}

/// Of the length and both ends, so that it costs little; [`PolicyList::eq`] tells the rest.
impl Hash for PolicyList {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        let first = self.pieces.first().and_then(|piece| piece.first());
        let last = self.pieces.last().and_then(|piece| piece.last());
        (first, last).hash(state);
    }
}

impl fmt::Debug for PolicyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyKind;

    fn id(n: u64) -> PolicyId {
        let name = format!("policy-{n}").into();
        PolicyId { name, namespace: "ns".into(), kind: PolicyKind::NetworkPolicy }
    }

    /// A fixed sequence that looks like chance.
    fn chances() -> impl FnMut(usize) -> usize {
        let mut state = 88_172_645_463_325_252_u64;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        }
    }

    /// Whatever is put in and taken out, a list is that of its policies, to the last piece.
    #[test]
    fn a_list_knows_no_history() {
        let mut chance = chances();
        let (mut list, mut wanted) = (PolicyList::default(), Vec::new());
        for n in 0..6_000 {
            let grows = chance(100) < if n < 3_000 { 70 } else { 30 };
            if grows {
                let at = chance(wanted.len() + 1);
                list.insert(at, id(n));
                wanted.insert(at, id(n));
            } else if !wanted.is_empty() {
                let at = chance(wanted.len());
                list.remove(at);
                wanted.remove(at);
            }
            if n % 20 == 0 || wanted.len() < 3 {
                assert!(list.iter().eq(&wanted));
                assert_eq!(list.len(), wanted.len());
                assert_eq!(list.is_empty(), wanted.is_empty());
                let again = PolicyList::from(wanted.clone());
                assert!(list == again, "{:?}", lengths(&list));
            }
            let at = chance(wanted.len() + 2);
            assert_eq!(list.get(at), wanted.get(at));
        }
    }

    fn lengths(list: &PolicyList) -> Vec<usize> {
        list.pieces.iter().map(|piece| piece.len()).collect()
    }

    #[test]
    fn a_change_copies_one_piece() {
        let ids: Vec<_> = (0..10_000).map(id).collect();
        let list = PolicyList::from(ids);
        assert!((100..250).contains(&list.pieces.len()), "{:?}", lengths(&list));
        assert!(lengths(&list).into_iter().max() < Some(800), "{:?}", lengths(&list));
        for at in [0, 1, 4_567, 9_999, 10_000] {
            let mut other = list.clone();
            other.insert(at, id(10_001));
            assert!(other != list);
            assert_eq!(other.get(at), Some(&id(10_001)));
            let shared = |piece: &&Piece| list.pieces.iter().any(|p| Arc::ptr_eq(p, piece));
            let same = other.pieces.iter().filter(shared).count();
            assert!(same + 2 >= list.pieces.len());
            other.remove(at);
            assert!(other == list);
        }
    }

    #[test]
    fn past_the_end() {
        let mut list = PolicyList::default();
        list.remove(0);
        list.insert(7, id(1));
        list.insert(7, id(2));
        list.remove(2);
        assert!(list.iter().eq(&[id(1), id(2)]));
        assert_eq!(format!("{:?}", PolicyList::default()), "[]");
    }

    #[test]
    fn where_an_order_has_its_place() {
        let ids: Vec<_> = (0..500).map(id).collect();
        let list = PolicyList::from(ids.clone());
        for at in 0..=500 {
            assert_eq!(list.partition_point(|p| ids[..at].contains(p)), at);
        }
    }
}
