//! What the kernel says about our table, believed only as far as it parses.

use std::collections::BTreeMap;

use crate::encode::{DIGEST, Header, TABLE, set_flag};
use crate::wire::{Attributes, Message, msg};

/// A base chain's hook, priority and type, as read.
pub(crate) type ReadBase = (u32, i32, String);

/// A chain as read: its hook, and what its rules carry as fingerprints (`None`: not ours).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadChain {
    pub(crate) base: Option<ReadBase>,
    pub(crate) rules: Vec<Option<u64>>,
}

/// One family's table as read, without elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) table: bool,
    pub(crate) chains: BTreeMap<String, ReadChain>,
    pub(crate) sets: BTreeMap<String, Header>,
}

impl Observed {
    /// Takes one message of a dump of tables, chains, rules or sets.
    pub(crate) fn take(&mut self, message: &Message<'_>) {
        let all = message.attributes();
        if all.text(1) != Some(TABLE) {
            return;
        }
        match message.number() {
            Some(msg::NEW_TABLE) => self.table = true,
            Some(msg::NEW_CHAIN) => {
                if let Some(name) = all.text(3) {
                    self.chains.entry(name.to_owned()).or_default().base = base(&all);
                }
            }
            Some(msg::NEW_RULE) => {
                let Some(name) = all.text(2) else { return };
                let digest = digest(all.get(7).unwrap_or_default());
                if let Some(chain) = self.chains.get_mut(name) {
                    chain.rules.push(digest);
                } else {
                    let chain = ReadChain { base: None, rules: vec![digest] };
                    self.chains.insert(name.to_owned(), chain);
                }
            }
            Some(msg::NEW_SET) => {
                if let (Some(name), Some(header)) = (all.text(2), header(&all))
                    && header.flags & set_flag::ANONYMOUS == 0
                {
                    self.sets.insert(name.to_owned(), header);
                }
            }
            _ => {}
        }
    }
}

fn base(all: &Attributes<'_>) -> Option<ReadBase> {
    all.get(4)?;
    let hook = all.nested(4);
    Some((hook.be32(1)?, hook.be32(2)? as i32, all.text(7)?.to_owned()))
}

fn header(all: &Attributes<'_>) -> Option<Header> {
    Some(Header {
        flags: all.be32(3).unwrap_or(0), // zero is not sent
        key_type: all.be32(4)?,
        key_length: all.be32(5)?,
        size: all.nested(9).be32(1).unwrap_or(0),
    })
}

/// The fingerprint in a rule's user data.
pub(crate) fn digest(mut data: &[u8]) -> Option<u64> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == DIGEST {
            return Some(u64::from_be_bytes(value.try_into().ok()?));
        }
        data = &rest[usize::from(*length)..];
    }
    None
}

/// An element as read: its key, whether it ends an interval, and its verdict.
pub(crate) type ReadElement<'a> = (&'a [u8], bool, Option<(i32, &'a str)>);

/// The elements in one message of a dump of elements.
pub(crate) fn elements<'a>(message: &Message<'a>) -> impl Iterator<Item = ReadElement<'a>> {
    let list = message.attributes().nested(3);
    list.filter_map(|(_, bytes)| element(&Attributes(bytes)))
}

fn element<'a>(all: &Attributes<'a>) -> Option<ReadElement<'a>> {
    let key = all.nested(1).get(1)?;
    let end = all.be32(3).unwrap_or(0) & 1 != 0;
    let verdict = all.nested(2).get(2).map(Attributes);
    let verdict = verdict.and_then(|v| Some((v.be32(1)? as i32, v.text(2).unwrap_or_default())));
    Some((key, end, verdict))
}

/// Reads anything as if it came from the kernel: for the fuzz target.
pub fn read_anything(bytes: &[u8]) {
    let mut observed = Observed::default();
    let mut drift = crate::monitor::Drift::default();
    let mut table = machine::Table::default();
    for message in crate::wire::Messages(bytes) {
        observed.take(&message);
        drift.note(&message);
        elements(&message).for_each(drop);
        let _ = crate::seal::of_table(&message);
        crate::read::take(&mut table, TABLE, &message);
        crate::trace::read_anything(&message);
    }
    let (source, destination) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let packet = machine::Packet {
        source,
        destination,
        protocol: 6,
        source_port: 40_000,
        destination_port: 80,
        icmp: None,
        original: None,
    };
    let way = machine::Way { input: Some("cali1".into()), ..machine::Way::default() };
    drop(machine::run(&table, &packet, &way));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Neither noise nor a cut message makes the reader fail.
        #[test]
        fn noise_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read_anything(&bytes);
        }

        /// Nor do messages as the kernel sends them, with some bytes changed, or cut short.
        #[test]
        fn damage_is_harmless(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = REAL.with(Vec::clone);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            read_anything(&bytes);
            read_anything(&bytes[..length.index(bytes.len())]);
        }
    }

    thread_local! {
        /// A whole table as messages. What is written and what is read look the same.
        static REAL: Vec<u8> = {
            let rules = rules::Rules::new(rules::RulesConfig::default());
            let mut batch = crate::batch::Batch::new(1);
            for version in rules.families() {
                let table = rules.tables().of(*version);
                let plan = crate::plan::Plan::fresh(table, false);
                batch.add(*version, &plan, table, &BTreeMap::new(), &crate::plan::Refused::default());
            }
            batch.finish().0.to_vec()
        };
    }

    #[test]
    fn undamaged_messages_are_read() {
        let mut observed = Observed::default();
        REAL.with(|bytes| crate::wire::Messages(bytes).for_each(|m| observed.take(&m)));
        assert!(observed.table && observed.sets.contains_key("from-pods"));
        let forward = &observed.chains["filter-forward"];
        assert!(forward.base.is_some() && forward.rules.iter().all(Option::is_some));
    }

    #[test]
    fn a_fingerprint_is_found_behind_a_comment() {
        let data = [&[0, 2, b'x', 0, DIGEST, 8][..], &7u64.to_be_bytes()].concat();
        assert_eq!(digest(&data), Some(7));
        assert_eq!(digest(&data[..10]), None, "cut");
        assert_eq!(digest(&[0, 2, b'x', 0]), None, "only a comment");
    }
}
