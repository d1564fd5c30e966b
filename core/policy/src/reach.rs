//! Who reaches whom: all pairs of many addresses at once.
//!
//! Addresses that no policy can tell apart are one [class](crate::classes). For each class, the packets
//! that it sends to all others are judged together, and those that it gets: rule by rule as in
//! `endpoint::decide`, but with a set of classes in the place of the packet. What a single rule matches,
//! and which places are asked, is `rule`'s and `place`'s word here as there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use model::policy::EntityMatch;
use model::{Action, IpVersion, NodeName, Protocol, Rule};
use selector::Selector;

use crate::bits::Bits;
use crate::classes::{Class, classes, rules};
use crate::decision::{Direction, Verdict};
use crate::endpoint::Kind;
use crate::judge::Judge;
use crate::order::{Order, Stretch};
use crate::packet::Packet;
use crate::place::{Finder, Place, Through, is_exempt};
use crate::rule::{self, End};
use crate::view::Overlay;

/// The verdicts of packets between each two of some addresses.
#[derive(Debug)]
pub struct Reach {
    class_of: Vec<u32>,
    /// The first of the addresses that belongs to the same pod.
    pod_of: Vec<u32>,
    /// By the sender's class: the classes that it reaches.
    reached: Vec<Bits>,
}

impl Reach {
    /// What [`Judge::evaluate`] says to the packet from the address of index `from` to that of `to`.
    /// They must be of one family.
    pub fn verdict(&self, from: usize, to: usize) -> Verdict {
        // What a pod sends to itself never leaves it.
        let one_pod = self.pod(from) == self.pod(to);
        if one_pod { Verdict::Allow } else { self.of_classes(from, to) }
    }

    /// As [`Self::verdict`], for addresses of different pods.
    pub fn of_classes(&self, from: usize, to: usize) -> Verdict {
        let reached = &self.reached[self.class(from)];
        if reached.has(self.class(to)) { Verdict::Allow } else { Verdict::Deny }
    }

    /// Number of an address's class, below [`Self::classes`].
    pub fn class(&self, address: usize) -> usize {
        self.class_of[address] as usize
    }

    /// The first of the addresses that belongs to the same pod as this one.
    pub fn pod(&self, address: usize) -> usize {
        self.pod_of[address] as usize
    }

    /// How many kinds of addresses there are, as far as policy is concerned.
    pub fn classes(&self) -> usize {
        self.reached.len()
    }
}

impl Judge<'_> {
    /// The verdicts of packets `like` this one, but for the addresses, between each two of `addresses`,
    /// which are pods' (others are right, too, but slow).
    ///
    /// Cost: with n classes, s different sides of rules and r rules on a pod, about
    /// n * s looks at a side and n * n * r / 64 steps. Memory: n * (n + s) bits.
    pub fn reach(&self, addresses: &[IpAddr], like: &Packet) -> Reach {
        let like = Packet { original: None, ..*like };
        let (classes, class_of) = classes(self, addresses, &like);
        let table = Table::new(self, &classes, like);
        let mut first = HashMap::new();
        let pod_of = addresses.iter().zip(0..).map(|(address, i)| {
            let pod = self.workloads_at(*address).first().map(|pod| &pod.id);
            *first.entry((pod, pod.is_none().then_some(*address))).or_insert(i)
        });
        Reach { pod_of: pod_of.collect(), reached: table.reached(), class_of }
    }
}

/// A rule whose headers packets like the one in question can have.
struct Match {
    /// IPv4, IPv6.
    versions: [bool; 2],
    /// Numbers of the sides; none matches every address.
    source: Option<usize>,
    destination: Option<usize>,
}

/// Which end of the packets is one class; the other is every class.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fixed {
    end: End,
    class: usize,
}

/// What packets are judged by.
struct Table<'a, 'v> {
    judge: &'a Judge<'v>,
    classes: &'a [Class<'v>],
    like: Packet,
    /// By the place of a rule in memory; those that such packets cannot match are not there.
    rules: HashMap<*const Rule, Match>,
    /// By number of a side: the classes that it matches.
    sides: Vec<Bits>,
    on_node: HashMap<&'v NodeName, Bits>,
    /// By far end: whose packets early policy is not asked about.
    exempt: HashMap<(Kind, Direction), Bits>,
}

impl<'a, 'v> Table<'a, 'v> {
    fn new(judge: &'a Judge<'v>, classes: &'a [Class<'v>], like: Packet) -> Self {
        let view = judge.view();
        let mut sides = Sides {
            judge,
            classes,
            like,
            numbers: HashMap::new(),
            bits: Vec::new(),
            labelled: Labelled::default(),
        };
        let mut matches = HashMap::new();
        for rule in rules(view) {
            matches.extend(sides.matches(rule).map(|it| (std::ptr::from_ref(rule), it)));
        }
        let sides = sides.bits;
        let mut on_node = HashMap::new();
        for (i, class) in classes.iter().enumerate() {
            if let Some(node) = class.node {
                on_node.entry(node).or_insert_with(|| Bits::none(classes.len())).insert(i);
            }
        }
        let mut exempt = HashMap::new();
        for kind in [Kind::Untracked, Kind::PreDnat] {
            for direction in [Direction::Ingress, Direction::Egress] {
                let holds = |i: usize| {
                    let packet = between(&like, classes[i].address, classes[i].address);
                    is_exempt(view, kind, direction, &packet)
                };
                exempt.insert((kind, direction), Bits::of(classes.len(), holds));
            }
        }
        Self { judge, classes, like, rules: matches, sides, on_node, exempt }
    }

    /// By the sender's class: the classes that it reaches.
    fn reached(&self) -> Vec<Bits> {
        let all = self.classes.len();
        let mut reached: Vec<Bits> = (0..all).map(|class| self.lets_out(class)).collect();
        // What a class lets in is a column; 64 of them at once are a word of each row.
        for block in 0..all.div_ceil(64) {
            let mut words = vec![0_u64; all];
            for (bit, class) in (block * 64..all.min(block * 64 + 64)).enumerate() {
                self.lets_in(class).iter().for_each(|from| words[from] |= 1 << bit);
            }
            for (row, word) in reached.iter_mut().zip(words) {
                row.words_mut()[block] &= word;
            }
        }
        self.one_by_one(&mut reached);
        reached
    }

    /// The classes that are out of the ordinary, pair by pair.
    fn one_by_one(&self, reached: &mut [Bits]) {
        for (from, row) in self.classes.iter().zip(reached) {
            let odd = |to: &Class<'_>| from.pod.is_none() || to.pod.is_none();
            for (i, to) in self.classes.iter().enumerate().filter(|(_, to)| odd(to)) {
                let packet = between(&self.like, from.address, to.address);
                let one_family = IpVersion::of(from.address) == IpVersion::of(to.address);
                if one_family && self.judge.decide(&packet).verdict == Verdict::Allow {
                    row.insert(i);
                } else {
                    row.take(i);
                }
            }
        }
    }

    fn lets_out(&self, class: usize) -> Bits {
        let Some(pod) = self.classes[class].pod else { return Bits::none(self.classes.len()) };
        let fixed = Fixed { end: End::Source, class };
        self.lets(fixed, |finder, through| finder.leaves(pod, through).collect())
    }

    fn lets_in(&self, class: usize) -> Bits {
        let Some(pod) = self.classes[class].pod else { return Bits::none(self.classes.len()) };
        let fixed = Fixed { end: End::Destination, class };
        self.lets(fixed, |finder, through| finder.arrives(pod, through).collect())
    }

    /// The classes at the other end whose packets pass all places, which depend on whether they are
    /// on the same node. Where the node has no host endpoints, they do not.
    fn lets(
        &self,
        fixed: Fixed,
        places: impl Fn(&Finder<'_, 'v>, Option<Through>) -> Vec<Place<'v>>,
    ) -> Bits {
        let finder = Finder { judge: self.judge, ends: &[], translated: false };
        let passed = |through| {
            let mut passed = Bits::all(self.classes.len());
            for place in places(&finder, through) {
                passed.remove(&self.denied(fixed, &place));
            }
            passed
        };
        let tunnelled = self.judge.view().overlay == Overlay::Tunnelled;
        let mut others = passed(Some(Through::Forwarded { tunnelled }));
        if let Some(here) = self.classes[fixed.class].node.and_then(|node| self.on_node.get(node)) {
            let mut neighbours = passed(None);
            neighbours.keep(here);
            others.remove(here);
            others.add(&neighbours);
        }
        others
    }

    /// Whose packets are dropped at one place.
    fn denied(&self, fixed: Fixed, place: &Place<'_>) -> Bits {
        let mut asked = Asked {
            table: self,
            fixed,
            direction: place.direction,
            open: Bits::all(self.classes.len()),
            denied: Bits::none(self.classes.len()),
        };
        for kind in place.early {
            let mut exempt = self.exempt(fixed, *kind, place.direction);
            exempt.keep(&asked.open);
            asked.open.remove(&exempt);
            asked.all(place, *kind);
            asked.open.add(&exempt);
        }
        if let Some(kind) = place.last {
            asked.all(place, kind);
        }
        asked.denied
    }

    fn exempt(&self, fixed: Fixed, kind: Kind, direction: Direction) -> Bits {
        let far_end = match direction {
            Direction::Ingress => End::Source,
            Direction::Egress => End::Destination,
        };
        let exempt = &self.exempt[&(kind, direction)];
        match fixed.end == far_end {
            false => exempt.clone(),
            true if exempt.has(fixed.class) => Bits::all(self.classes.len()),
            true => Bits::none(self.classes.len()),
        }
    }
}

/// Packets on their way through one place.
struct Asked<'a, 'v> {
    table: &'a Table<'a, 'v>,
    fixed: Fixed,
    direction: Direction,
    /// Those about which nobody has decided.
    open: Bits,
    denied: Bits,
}

impl Asked<'_, '_> {
    /// Asks the policies of one kind; what they leave open stays so.
    fn all(&mut self, place: &Place<'_>, kind: Kind) {
        let order = Order::new(self.table.judge, &place.subject, (kind, self.direction));
        for Stretch { rules, otherwise, .. } in &order.stretches {
            let mut passed = Bits::none(self.table.classes.len());
            for placed in &order.rules[rules.clone()] {
                if self.open.is_empty() {
                    break;
                }
                self.one(placed.rule, &mut passed);
            }
            if otherwise.is_some() {
                self.denied.add(&self.open);
                self.open = passed;
            } else {
                self.open.add(&passed);
            }
        }
    }

    /// Takes from the open packets those that a rule decides about.
    fn one(&mut self, rule: &Rule, passed: &mut Bits) {
        let Some(it) = self.table.rules.get(&std::ptr::from_ref(rule)) else { return };
        let Fixed { end, class } = self.fixed;
        let (near, far) = match end {
            End::Source => (it.source, it.destination),
            End::Destination => (it.destination, it.source),
        };
        let version = IpVersion::of(self.table.classes[class].address);
        let near_fails = near.is_some_and(|side| !self.table.sides[side].has(class));
        if !it.versions[usize::from(version == IpVersion::V6)] || near_fails {
            return;
        }
        let mut matched = self.open.clone();
        if let Some(far) = far {
            matched.keep(&self.table.sides[far]);
        }
        match rule.action {
            Action::Deny => self.denied.add(&matched),
            Action::Pass => passed.add(&matched),
            // Those that log were left out.
            Action::Allow | Action::Log => {}
        }
        self.open.remove(&matched);
    }
}

/// The different sides of rules, by number.
struct Sides<'a, 'v> {
    judge: &'a Judge<'v>,
    classes: &'a [Class<'v>],
    like: Packet,
    numbers: HashMap<(End, &'v EntityMatch, Option<Protocol>), usize>,
    bits: Vec<Bits>,
    labelled: Labelled,
}

impl<'v> Sides<'_, 'v> {
    /// The classes that a side may match, as far as what its selector needs says.
    fn candidates(&mut self, entity: &EntityMatch) -> Bits {
        let mut left = Bits::all(self.classes.len());
        let needs = entity.selector.as_ref().map(Selector::restrictions).unwrap_or_default();
        for (key, need) in needs.iter().filter(|(_, need)| need.must_be_present) {
            let Some(values) = &need.values else { continue };
            let of_label = self.labelled.of_label(self.judge, self.classes, key);
            let mut any = of_label.others.clone();
            for classes in values.iter().filter_map(|value| of_label.by_value.get(value)) {
                any.add(classes);
            }
            left.keep(&any);
        }
        left
    }

    /// What a rule matches; none if it matches no such packet.
    fn matches(&mut self, rule: &'v Rule) -> Option<Match> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let versions = any.map(|any| rule::headers(rule, &between(&self.like, any, any)).is_ok());
        versions.contains(&true).then(|| Match {
            versions,
            source: self.side(rule, End::Source),
            destination: self.side(rule, End::Destination),
        })
    }

    fn side(&mut self, rule: &'v Rule, end: End) -> Option<usize> {
        let entity = end.of(rule);
        if *entity == EntityMatch::default() {
            return None;
        }
        let next = self.bits.len();
        let number = *self.numbers.entry((end, entity, rule.protocol)).or_insert(next);
        if number == next {
            let mut matching = self.candidates(entity);
            for i in matching.clone().iter() {
                let address = self.classes[i].address;
                let packet = between(&self.like, address, address);
                if rule::side(self.judge, rule, &packet, end).is_err() {
                    matching.take(i);
                }
            }
            self.bits.push(matching);
        }
        Some(number)
    }
}

/// Classes by the values of their pods' labels, as far as somebody asked.
#[derive(Default)]
struct Labelled(HashMap<Arc<str>, OfLabel>);

struct OfLabel {
    by_value: HashMap<Arc<str>, Bits>,
    /// Classes whose addresses are others' than pods', too.
    others: Bits,
}

impl Labelled {
    fn of_label(&mut self, judge: &Judge<'_>, classes: &[Class<'_>], key: &Arc<str>) -> &OfLabel {
        self.0.entry(key.clone()).or_insert_with(|| {
            let mut by_value: HashMap<Arc<str>, Bits> = HashMap::new();
            let mut others = Bits::none(classes.len());
            for (i, class) in classes.iter().enumerate() {
                let is_hosts = !judge.hosts_at(class.address).is_empty();
                if is_hosts || !judge.sets_at(class.address).is_empty() {
                    others.insert(i);
                }
                for pod in judge.workloads_at(class.address) {
                    if let Some(value) = judge.view().labels(&pod.labels, &pod.profiles).look(key) {
                        let same = by_value.entry(value.into());
                        same.or_insert_with(|| Bits::none(classes.len())).insert(i);
                    }
                }
            }
            OfLabel { by_value, others }
        })
    }
}

fn between(like: &Packet, source: IpAddr, destination: IpAddr) -> Packet {
    Packet { source, destination, ..*like }
}
