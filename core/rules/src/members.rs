//! A calculated set: its members, and the form that they take in each family's table.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use model::output::{Member, SetId, SetKind};
use model::{IpVersion, Protocol};
use sha2::{Digest, Sha256};

use crate::cover::{Cover, CoverChange};
use crate::name;
use crate::object::{Field, Key, Load, Name, SetSpec};

/// Sets smaller than this share sets with others. Larger ones have a set of their own, with a
/// capacity.
const SMALLEST_OWN: usize = 1_024;
/// How many sets there are to share; as many bits of [`Tag`] choose one.
const SHARDS: u8 = 64;

/// Where a small set's members are: which shared set, and their tag there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag {
    kind: SetKind,
    shard: u8,
    number: u32,
}

impl Tag {
    /// From the set's name alone, so that every run has the same. Two names may have one tag.
    pub(crate) fn of(id: &SetId, kind: SetKind) -> Self {
        let digest = Sha256::digest(id.as_bytes());
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Self { kind, shard: digest[4] % SHARDS, number }
    }
}

/// Where a calculated set's members are in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The set.
    pub(crate) set: Name,
    /// With others, under this tag.
    tag: Option<u32>,
    /// Elements are ranges.
    interval: bool,
    /// Most elements, of a set of its own that has a capacity.
    capacity: Option<u32>,
}

impl Place {
    /// Whether other calculated sets may have members there, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.tag.is_some()
    }

    /// What to look up there, for members that look like `what`.
    pub(crate) fn loads(&self, what: Vec<Load>) -> Vec<Load> {
        self.tag.map(Load::Tag).into_iter().chain(what).collect()
    }

    fn net(&self, net: IpNet) -> Key {
        match self.tag {
            Some(tag) => Key::TagAddr(tag, net.addr()),
            None if self.interval => Key::Net(net),
            None => Key::Addr(net.addr()),
        }
    }

    fn tuple(&self, (address, protocol, port): Tuple) -> Key {
        match self.tag {
            Some(tag) => Key::TagAddrPort(tag, address, protocol, port),
            None => Key::AddrPort(address, protocol, port),
        }
    }
}

type Tuple = (IpAddr, Protocol, u16);

/// One family's half of a calculated set.
#[derive(Debug)]
pub(crate) struct Half {
    version: IpVersion,
    id: SetId,
    kind: SetKind,
    tag: Tag,
    /// No other set has its tag.
    may_share: bool,
    nets: Cover,
    tuples: BTreeSet<Tuple>,
    capacity: usize,
    form: Form,
    place: Place,
}

/// What the place depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Shared,
    Interval,
    /// With a capacity, if it is not 0.
    Hash(usize),
}

/// How elements change with members.
#[derive(Debug, Default)]
pub(crate) struct ElementChanges {
    /// Each after the other: an element that comes (or, if not, goes).
    pub(crate) steps: Vec<(bool, Key)>,
    /// They were elsewhere before, all of them: rules must be written again.
    pub(crate) moved: bool,
}

impl Half {
    /// With the members that are of its family.
    pub(crate) fn new(
        (id, kind, tag): (&SetId, SetKind, Tag),
        version: IpVersion,
        members: &[Member],
        may_share: bool,
    ) -> Self {
        // Of whatever form: it is found below.
        let place = Place { set: id.clone(), tag: None, interval: false, capacity: None };
        let mut half = Self {
            version,
            id: id.clone(),
            kind,
            tag,
            may_share,
            nets: Cover::default(),
            tuples: BTreeSet::new(),
            capacity: 0,
            form: Form::Interval,
            place,
        };
        let mine = members.iter().filter(|m| half.is_mine(m));
        let nets = mine.clone().filter_map(|m| match m {
            Member::Net(net) => Some(*net),
            Member::IpPort(..) => None,
        });
        let tuples = mine.filter_map(|m| match m {
            Member::IpPort(address, protocol, port) => Some((*address, *protocol, *port)),
            Member::Net(_) => None,
        });
        (half.nets, half.tuples) = (nets.collect(), tuples.collect());
        half.grow();
        half.form = half.wanted_form();
        half.place = half.place_of(half.form);
        half
    }

    /// Where its members are.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// Says whether another set has the same tag; true if the members' place is another now.
    pub(crate) fn share(&mut self, may_share: bool) -> bool {
        self.may_share = may_share;
        self.settle()
    }

    /// Changes members; says what that means for elements, if they stay where they are.
    pub(crate) fn update(&mut self, add: &[Member], del: &[Member]) -> ElementChanges {
        let mut changes = ElementChanges::default();
        for (added, members) in [(false, del), (true, add)] {
            for member in members {
                if !self.is_mine(member) {
                    continue;
                }
                self.change(added, member, &mut changes.steps);
            }
        }
        self.grow();
        changes.moved = self.settle();
        changes
    }

    fn change(&mut self, added: bool, member: &Member, steps: &mut Vec<(bool, Key)>) {
        match *member {
            Member::Net(net) => {
                let CoverChange { added, removed } =
                    if added { self.nets.insert(net) } else { self.nets.remove(&net) };
                steps.extend(removed.into_iter().map(|n| (false, self.place.net(n))));
                steps.extend(added.into_iter().map(|n| (true, self.place.net(n))));
            }
            Member::IpPort(address, protocol, port) => {
                let tuple = (address, protocol, port);
                let changed =
                    if added { self.tuples.insert(tuple) } else { self.tuples.remove(&tuple) };
                steps.extend(changed.then(|| (added, self.place.tuple(tuple))));
            }
        }
    }

    /// The members that must go for these to be all.
    pub(crate) fn others(&self, keep: &[Member]) -> Vec<Member> {
        if self.nets.members().is_empty() && self.tuples.is_empty() {
            return Vec::new();
        }
        let keep: BTreeSet<&Member> = keep.iter().collect();
        let nets = self.nets.members().iter().map(|n| Member::Net(*n));
        let tuples = self.tuples.iter().map(|(a, p, port)| Member::IpPort(*a, *p, *port));
        nets.chain(tuples).filter(|m| !keep.contains(m)).collect()
    }

    fn is_mine(&self, member: &Member) -> bool {
        match (member, self.kind) {
            (Member::Net(n), SetKind::Net) => IpVersion::of_net(n) == self.version,
            (Member::IpPort(a, ..), SetKind::IpPort) => IpVersion::of(*a) == self.version,
            _ => false,
        }
    }

    fn grow(&mut self) {
        let count = self.nets.members().len().max(self.tuples.len());
        if count > self.capacity && count >= SMALLEST_OWN {
            self.capacity = (count * 2).next_power_of_two();
        }
    }

    fn settle(&mut self) -> bool {
        let form = self.wanted_form();
        let moved = form != self.form;
        if moved {
            self.form = form;
            self.place = self.place_of(form);
        }
        moved
    }

    fn wanted_form(&self) -> Form {
        match self.capacity {
            _ if self.kind == SetKind::Net && !self.nets.only_addresses() => Form::Interval,
            0 if self.may_share => Form::Shared,
            capacity => Form::Hash(capacity),
        }
    }

    fn place_of(&self, form: Form) -> Place {
        let own = |form: &str| Place {
            set: name::set(&self.id, form),
            tag: None,
            interval: false,
            capacity: None,
        };
        match form {
            Form::Shared => Place {
                set: name::shared(self.kind, self.tag.shard),
                tag: Some(self.tag.number),
                interval: false,
                capacity: None,
            },
            Form::Interval => Place { interval: true, ..own("n") },
            Form::Hash(0) => own("h"),
            Form::Hash(c) => {
                Place { capacity: Some(c as u32), ..own(&format!("h{}", c.trailing_zeros())) }
            }
        }
    }

    /// What the set is that its members are in.
    pub(crate) fn spec(&self) -> SetSpec {
        let Place { tag, interval, capacity, .. } = self.place;
        let key: &[Field] = match self.kind {
            SetKind::Net => &[Field::Addr],
            SetKind::IpPort => &[Field::Addr, Field::Proto, Field::Port],
        };
        let tagged = tag.map(|_| Field::Tag);
        let comment =
            if tag.is_some() { "members of small sets, by tag".into() } else { self.id.clone() };
        SetSpec {
            key: tagged.into_iter().chain(key.iter().copied()).collect(),
            interval,
            verdicts: false,
            size: capacity,
            comment,
        }
    }

    /// Its elements in a place.
    pub(crate) fn keys(&self, place: &Place) -> impl Iterator<Item = Key> {
        let nets = self.nets.maximal().into_iter().map(|n| place.net(n));
        nets.chain(self.tuples.iter().map(|t| place.tuple(*t)))
    }
}
