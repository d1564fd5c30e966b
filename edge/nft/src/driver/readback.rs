//! What the kernel has, read back and compared with what is wanted.

use std::collections::BTreeSet;

use model::{InSync, IpVersion};
use rules::object::Name;
use rules::{Rules, Set, Table};

use super::{NftDriver, NftError, Part};
use crate::decode::{Observed, ReadElement, elements};
use crate::encode::{Header, RawElement, TABLE, family, raw_elements};
use crate::plan::{ElementChange, Known, Plan, effective, fingerprint, whole};
use crate::seal::{self, Content, Seal, Secret};
use crate::wire::{Buffer, Message, msg};

/// Times that tables are read anew because they change meanwhile; then what was read must do, and
/// the events that are there by then lead to another look.
const READINGS: u32 = 3;
/// Of more chains than this the rules are read in one list.
const MOST_CHAINS: usize = 2_000;

/// What was sealed of a family beside what is wanted of it.
struct Sealed<'a> {
    there: &'a Content,
    content: Content,
    wanted: Known,
}

impl<'a> Sealed<'a> {
    fn new(seal: &'a Seal, (version, table): (IpVersion, &Table), secret: Secret) -> Self {
        let wanted = seal::wanted(table, version, secret);
        Self { there: seal.content(version), content: Content::of(&wanted, secret), wanted }
    }

    /// Whether all is as it is wanted.
    fn is_all(&self) -> bool {
        *self.there == self.content
    }

    /// A set that is as it is wanted.
    fn set(&self, name: &str) -> Option<&(Header, u64)> {
        let same = self.there.agrees_about(&self.content, name);
        self.wanted.sets.get(name).filter(|_| same)
    }
}

impl NftDriver {
    /// Reads a family back and compares; nothing to do for a table that must not be touched yet.
    pub(super) fn read_part(
        &mut self,
        version: IpVersion,
        rules: &Rules,
        (sync, seal): (Option<&InSync>, Option<&Seal>),
    ) -> Result<Option<Part>, NftError> {
        if sync.is_none() && !self.swept && !self.known.contains_key(&version) {
            let observed = self.observe(version, &[msg::GET_TABLE, msg::GET_CHAIN])?;
            if observed.chains.contains_key("filter-forward") {
                self.held.insert(version);
                return Ok(None);
            }
        }
        self.held.remove(&version);
        let table = rules.tables().of(version);
        let refused = self.refused.entry(version).or_default().clone();
        let sealed = match seal.map(|seal| Sealed::new(seal, (version, table), self.secret)) {
            Some(sealed) if refused.is_empty() && sealed.is_all() => {
                self.known.insert(version, sealed.wanted);
                return Ok(Some(Part { version, plan: Plan::default() }));
            }
            other => other,
        };
        let all = [msg::GET_TABLE, msg::GET_CHAIN, msg::GET_SET, msg::GET_RULE];
        let observed = self.observe(version, &all)?;
        let sweep = sync.is_some() || self.swept;
        let mut plan = Plan::difference(table, (version, &observed), &refused, sweep);
        let before = self.known.remove(&version);
        let mut known = Known::of(&observed);
        let sets = if plan.replace { None } else { Some(table.sets()) };
        for (name, set) in sets.into_iter().flatten() {
            let Some((header, sum)) = known.sets.get_mut(&**name) else { continue };
            let kept = before.as_ref().filter(|_| !self.drift.touches(version, name));
            let kept = kept.and_then(|known| known.sets.get(&**name));
            let sealed = sealed.as_ref().and_then(|sealed| sealed.set(name));
            if let Some((_, is)) = kept.or(sealed).filter(|(h, _)| h == header) {
                *sum = *is;
                continue;
            }
            let change;
            (*sum, change) = self.compare(version, (name, set), sweep)?;
            if change != ElementChange::default() {
                plan.elements.insert(name.clone(), change);
            }
        }
        for (name, chain) in table.chains() {
            let unchanged = !plan.put_chains.contains(name) && !plan.replace;
            if let (true, Some(print)) = (unchanged, known.chains.get_mut(&**name)) {
                *print = fingerprint(&effective(name, chain, &refused));
            }
        }
        self.known.insert(version, known);
        Ok(Some(Part { version, plan }))
    }

    /// The sum of the elements that a set has, and what must change.
    fn compare(
        &mut self,
        version: IpVersion,
        (name, set): (&Name, &Set),
        sweep: bool,
    ) -> Result<(u64, ElementChange), NftError> {
        let secret = self.secret;
        let mut sum = 0_u64;
        let add = |(sum, (key, end, verdict)): (&mut u64, ReadElement<'_>)| {
            *sum = sum.wrapping_add(secret.element(key, end, verdict));
        };
        self.elements(version, name, &mut sum, add)?;
        if sum == secret.elements(set) {
            return Ok((sum, ElementChange::default()));
        }
        let mut there: Vec<RawElement> = Vec::new();
        self.elements(version, name, &mut there, |(there, (key, end, verdict))| {
            let verdict = verdict.map(|(code, chain)| (code, chain.to_owned()));
            there.push(RawElement { key: key.to_vec(), end, verdict });
        })?;
        // One that was met twice is there once.
        let there: BTreeSet<RawElement> = there.into_iter().collect();
        let one = |e: &RawElement| secret.element(&e.key, e.end, e.verdict());
        let sum = there.iter().map(one).fold(0, u64::wrapping_add);
        let raw = set.elements.iter();
        let wanted = whole(raw.flat_map(|(k, e)| raw_elements(k, e.as_ref())));
        let there = whole(there);
        let add: Vec<_> = wanted.difference(&there).cloned().collect();
        let mut del: Vec<_> = there.difference(&wanted).cloned().collect();
        // A verdict that changed is a removal too; what only lacks one must be spared.
        if !sweep {
            let keys: BTreeSet<_> = add.iter().map(|e| &e[0].key).collect();
            del.retain(|e| keys.contains(&e[0].key));
        }
        let [add, del] = [add, del].map(|all| all.concat());
        Ok((sum, ElementChange { add, del }))
    }

    fn observe(&mut self, version: IpVersion, what: &[u8]) -> Result<Observed, NftError> {
        let mut reading = 0;
        loop {
            reading += 1;
            let (mut observed, mut whole) = (Observed::default(), true);
            for number in what {
                // For each piece of a list the kernel goes through all that came before: it is asked
                // for the rules of each chain, unless chains are so many that asking costs more.
                let each = *number == msg::GET_RULE && observed.chains.len() <= MOST_CHAINS;
                let chains: Vec<Option<String>> = if each {
                    observed.chains.keys().cloned().map(Some).collect()
                } else {
                    vec![None]
                };
                for chain in chains {
                    let fill = |out: &mut Buffer| {
                        if *number != msg::GET_TABLE {
                            out.text(1, TABLE);
                        }
                        if let Some(chain) = &chain {
                            out.text(2, chain);
                        }
                    };
                    let mut take = |message: Message<'_>| observed.take(&message);
                    whole &= self.dump((*number, version), fill, &mut take)?;
                }
            }
            if whole || reading == READINGS {
                return Ok(observed);
            }
        }
    }

    /// Gathers the elements of a set.
    fn elements<T: Default>(
        &mut self,
        version: IpVersion,
        set: &Name,
        found: &mut T,
        mut gather: impl FnMut((&mut T, ReadElement<'_>)),
    ) -> Result<(), NftError> {
        let mut reading = 0;
        loop {
            reading += 1;
            *found = T::default();
            let fill = |out: &mut Buffer| {
                out.text(1, TABLE);
                out.text(2, set);
            };
            let mut take = |message: Message<'_>| {
                elements(&message).for_each(|element| gather((&mut *found, element)));
            };
            let whole = self.dump((msg::GET_ELEMENT, version), fill, &mut take)?;
            if whole || reading == READINGS {
                return Ok(());
            }
        }
    }

    /// One dump; false if our table changed meanwhile. That others changed theirs is no matter, or a
    /// program that commits all the time would keep us reading for ever: the kernel goes through the
    /// objects of one table by their place among them, whatever comes and goes in other tables.
    fn dump(
        &mut self,
        (number, version): (u8, IpVersion),
        fill: impl Fn(&mut Buffer),
        take: &mut impl FnMut(Message<'_>),
    ) -> Result<bool, NftError> {
        let mut reading = 0;
        loop {
            reading += 1;
            if self.socket.dump(number, family(version), &fill, &mut *take)? {
                return Ok(true);
            }
            self.monitor.drain(&mut self.later)?;
            if !self.later.is_empty() {
                return Ok(false);
            }
            // Only chains are counted over all tables of a family: what was missed for that is met
            // in another reading.
            if number != msg::GET_CHAIN || reading == READINGS {
                return Ok(true);
            }
        }
    }

    /// The seal of an earlier run, if nobody has changed any table since; from then on it is also the
    /// key of our own.
    pub(super) fn seal_in_force(&mut self) -> Result<Option<Seal>, NftError> {
        let mut found = None;
        let mut take = |message: Message<'_>| found = seal::of_table(&message).or(found.take());
        self.dump((msg::GET_TABLE, IpVersion::V4), |_| {}, &mut take)?;
        let found = found.filter(|seal| self.monitor.generation() == Some(seal.generation));
        if let Some(seal) = &found {
            self.secret = seal.secret;
            self.known.clear();
        }
        Ok(found)
    }
}
