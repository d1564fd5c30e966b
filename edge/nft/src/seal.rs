//! What the tables held after the last transaction of all: a restarted agent need not read it again.
//!
//! The kernel numbers the transactions of a network namespace, whoever makes them. A seal says: after
//! transaction number so-and-so our tables had this content. If that is still the last transaction,
//! they have it now. It is kept where it cannot outlive what it is about: in the kernel, as user data
//! of a table that has nothing else. A seal is only as old as the last transaction, also our own, so
//! that it is made when there is nothing else to do.
//!
//! Content is known by sums of keyed hashes. The key is chance, and only root can read it: whoever
//! can choose elements cannot choose two contents with one sum.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use model::IpVersion;
use rules::{Chain, Name, Set, Table};

use crate::encode::{Header, family, spelled};
use crate::plan::{Known, Refused, effective, fingerprint};
use crate::wire::{Buffer, Message, flag, msg};

/// Sets are summed up in so many groups by name, so that one that changed does not make us read all.
const GROUPS: usize = 12;
/// Changes whenever the same content has another sum.
const FORMAT: u32 = 1;
/// The table that carries the seal, of the family `ip`.
const SEAL: &str = "calico-seal";
/// Own kind of user data.
const KIND: u8 = 0xcb;

/// The key of all hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secret([u64; 2]);

impl Secret {
    pub(crate) fn by_chance() -> Self {
        // The standard library's keys of hash tables come from the operating system.
        Self([(); 2].map(|()| RandomState::new().build_hasher().finish()))
    }

    fn hash(self, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0[0]);
        hasher.write_u64(self.0[1]);
        what.hash(&mut hasher);
        hasher.finish()
    }

    /// One element; those of a set are added up.
    pub(crate) fn element(self, key: &[u8], end: bool, verdict: Option<(i32, &str)>) -> u64 {
        self.hash((key, end, verdict))
    }

    /// All elements of a set that is wanted.
    pub(crate) fn elements(self, set: &Set) -> u64 {
        let all = set.elements.iter().flat_map(|(key, verdict)| spelled(key, verdict.as_ref()));
        all.fold(0, |sum, e| sum.wrapping_add(self.element(e.key.as_slice(), e.end, e.verdict)))
    }
}

/// One table's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    chains: u64,
    sets: [u64; GROUPS],
}

impl Content {
    pub(crate) fn of(known: &Known, secret: Secret) -> Self {
        let mut content = Self { chains: secret.hash(known.table), ..Self::default() };
        for chain in &known.chains {
            content.chains = content.chains.wrapping_add(secret.hash(chain));
        }
        for set in &known.sets {
            let sum = &mut content.sets[group(set.0)];
            *sum = sum.wrapping_add(secret.hash(set));
        }
        content
    }

    /// Whether both have the same set of a name, or neither has it.
    pub(crate) fn agrees_about(&self, other: &Self, set: &str) -> bool {
        self.sets[group(set)] == other.sets[group(set)]
    }
}

fn group(set: &str) -> usize {
    let mut hasher = rules::object::Fnv::default();
    set.hash(&mut hasher);
    (hasher.finish() % GROUPS as u64) as usize
}

/// A whole table that is wanted, as it is when all of it is in the kernel.
pub(crate) fn wanted(table: &Table, version: IpVersion, secret: Secret) -> Known {
    let none = Refused::default();
    let chain = |(name, chain): (&Name, &Arc<Chain>)| {
        (name.to_string(), fingerprint(&effective(name, chain, &none)))
    };
    let set = |(name, set): (&Name, &Set)| {
        (name.to_string(), (Header::of(&set.spec, version), secret.elements(set)))
    };
    Known {
        table: true,
        chains: table.chains().iter().map(chain).collect(),
        sets: table.sets().iter().map(set).collect(),
    }
}

/// The seal in one message of a dump of tables, if that is about the table that carries it.
pub(crate) fn of_table(message: &Message<'_>) -> Option<Seal> {
    let all = message.attributes();
    let is_it = message.number() == Some(msg::NEW_TABLE) && all.text(1) == Some(SEAL);
    Seal::from_user_data(all.get(6).filter(|_| is_it)?)
}

/// A seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// The number of the transaction that made it.
    pub(crate) generation: u32,
    pub(crate) secret: Secret,
    /// IPv4, IPv6.
    pub(crate) contents: [Content; 2],
}

impl Seal {
    pub(crate) fn content(&self, version: IpVersion) -> &Content {
        match version {
            IpVersion::V4 => &self.contents[0],
            IpVersion::V6 => &self.contents[1],
        }
    }

    /// The transaction that puts it into the kernel, if the last one was number `after`. User data of a
    /// table do not change: it is made anew.
    pub(crate) fn transaction(&self, after: u32, mut seq: impl FnMut() -> u32) -> Buffer {
        let mut out = Buffer::default();
        out.frame_after(after, seq());
        let family = family(IpVersion::V4);
        for (number, flags) in
            [(msg::NEW_TABLE, flag::CREATE), (msg::DEL_TABLE, 0), (msg::NEW_TABLE, flag::CREATE)]
        {
            out.begin(number, flags, family, seq());
            out.text(1, SEAL);
            if number == msg::NEW_TABLE {
                out.bytes(6, &self.to_user_data());
            }
            out.end();
        }
        out.frame(false, seq());
        out
    }

    /// User data of a table: at most 256 bytes.
    fn to_user_data(&self) -> Vec<u8> {
        let mut value = [FORMAT.to_be_bytes(), self.generation.to_be_bytes()].concat();
        let contents = self.contents.iter().flat_map(|c| [c.chains].into_iter().chain(c.sets));
        for number in self.secret.0.into_iter().chain(contents) {
            value.extend(number.to_be_bytes());
        }
        [&[KIND, value.len() as u8], &value[..]].concat()
    }

    fn from_user_data(data: &[u8]) -> Option<Self> {
        let [KIND, length, value @ ..] = data else { return None };
        let (head, numbers) = value.get(..usize::from(*length))?.split_at_checked(8)?;
        let (format, generation) = head.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*format) != FORMAT {
            return None;
        }
        let mut numbers =
            numbers.chunks_exact(8).filter_map(|c| Some(u64::from_be_bytes(c.try_into().ok()?)));
        let mut next = || numbers.next();
        let secret = Secret([next()?, next()?]);
        let mut contents = [Content::default(), Content::default()];
        for content in &mut contents {
            content.chains = next()?;
            for sum in &mut content.sets {
                *sum = next()?;
            }
        }
        let generation = u32::from_be_bytes(generation.try_into().ok()?);
        Some(Self { generation, secret, contents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        let mut contents = [Content::default(), Content::default()];
        contents[0].chains = 7;
        contents[1].sets[GROUPS - 1] = u64::MAX;
        Seal { generation: 3, secret: Secret::by_chance(), contents }
    }

    #[test]
    fn a_seal_is_read_as_it_was_written() {
        let data = seal().to_user_data();
        assert!(data.len() <= 256, "{} bytes", data.len());
        let seal = Seal::from_user_data(&data).expect("it is one");
        assert_eq!(seal.to_user_data(), data);
        assert_eq!((seal.generation, seal.contents[1].sets[GROUPS - 1]), (3, u64::MAX));
    }

    #[test]
    fn what_is_no_seal_is_none() {
        let data = seal().to_user_data();
        for length in 0..data.len() {
            assert_eq!(Seal::from_user_data(&data[..length]), None, "cut to {length}");
        }
        for at in [0, 5] {
            let mut other = data.clone();
            other[at] ^= 1;
            assert_eq!(Seal::from_user_data(&other), None, "another kind or format");
        }
    }

    #[test]
    fn elements_make_a_difference_wherever_they_are() {
        let secret = Secret::by_chance();
        let sum = |elements: &[(&[u8], bool)]| {
            elements
                .iter()
                .fold(0u64, |sum, (k, end)| sum.wrapping_add(secret.element(k, *end, None)))
        };
        assert_eq!(sum(&[(&[1], false), (&[2], true)]), sum(&[(&[2], true), (&[1], false)]));
        assert_ne!(sum(&[(&[1], false), (&[2], true)]), sum(&[(&[1], true), (&[2], false)]));
        assert_ne!(sum(&[(&[1, 2], false)]), sum(&[(&[1], false), (&[2], false)]));
        let verdict = |v| secret.element(&[1], false, v);
        assert_ne!(verdict(Some((-4, "a"))), verdict(Some((-4, "b"))));
    }
}
