//! One transaction: the messages of both families, and which object each is about.

use std::collections::BTreeMap;

use model::IpVersion;
use rules::Table;
use rules::object::Name;

use crate::encode::{Element, Encoder, spelled};
use crate::plan::{Plan, Refused, effective};

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Frame,
    Table(IpVersion),
    Chain(IpVersion, Name),
    Rule(IpVersion, Name, usize),
    Set(IpVersion, Name),
    Elements(IpVersion, Name),
}

/// Messages with their objects: message `n` has the sequence number `first + n`.
#[derive(Debug)]
pub(crate) struct Batch {
    encoder: Encoder,
    first: u32,
    objects: Vec<Object>,
}

impl Batch {
    pub(crate) fn new(first: u32) -> Self {
        let mut batch = Self { encoder: Encoder::default(), first, objects: Vec::new() };
        let seq = batch.seq(Object::Frame);
        batch.encoder.out.frame(true, seq);
        batch
    }

    fn seq(&mut self, object: Object) -> u32 {
        self.objects.push(object);
        self.first.wrapping_add(self.objects.len() as u32 - 1)
    }

    /// The bytes, and the sequence number after the last.
    pub(crate) fn finish(&mut self) -> (&[u8], u32) {
        let seq = self.seq(Object::Frame);
        self.encoder.out.frame(false, seq);
        (&self.encoder.out.bytes, seq)
    }

    pub(crate) fn object(&self, seq: u32) -> Option<&Object> {
        self.objects.get(seq.wrapping_sub(self.first) as usize)
    }

    /// Adds a family's part, referents before references (law 5), so that every message refers to
    /// something that is there at that point of the transaction.
    pub(crate) fn add(
        &mut self,
        v: IpVersion,
        plan: &Plan,
        table: &Table,
        known: &BTreeMap<String, u64>,
        refused: &Refused,
    ) {
        if plan.replace {
            let seq = self.seq(Object::Table(v));
            self.encoder.table(v, false, seq);
        }
        let seq = self.seq(Object::Table(v));
        self.encoder.table(v, true, seq);
        let usable = |name: &&Name| !refused.sets.contains_key(*name);
        for name in plan.put_sets.iter().filter(usable) {
            let seq = self.seq(Object::Set(v, name.clone()));
            self.encoder.set(v, name, &table.sets()[name], seq);
        }
        self.chains(v, plan, table, (known, refused));
        for (name, change) in plan.elements.iter().filter(|(n, _)| usable(n)) {
            self.elements(v, name, &change.del, false);
            self.elements(v, name, &change.add, true);
        }
        for name in plan.put_sets.iter().filter(usable) {
            let elements = &table.sets()[name].elements;
            self.elements(v, name, elements.iter().flat_map(|(k, e)| spelled(k, e.as_ref())), true);
        }
        for name in &plan.del_chains {
            let seq = self.seq(Object::Chain(v, name.clone()));
            self.encoder.flush_chain(v, name, seq);
        }
        // Empty chains use no set any more; a map that is gone leads to no chain any more.
        for name in &plan.del_sets {
            let seq = self.seq(Object::Set(v, name.clone()));
            self.encoder.delete_set(v, name, seq);
        }
        for name in &plan.del_chains {
            let seq = self.seq(Object::Chain(v, name.clone()));
            self.encoder.delete_chain(v, name, seq);
        }
    }

    fn chains(
        &mut self,
        v: IpVersion,
        plan: &Plan,
        table: &Table,
        (known, refused): (&BTreeMap<String, u64>, &Refused),
    ) {
        let there = |name: &Name| known.contains_key(&**name) && !plan.replace;
        for name in plan.put_chains.iter().filter(|n| !there(n)) {
            let seq = self.seq(Object::Chain(v, name.clone()));
            self.encoder.chain(v, name, &table.chains()[name], seq);
        }
        for name in &plan.put_chains {
            let wanted = &table.chains()[name];
            if there(name) {
                let seq = self.seq(Object::Chain(v, name.clone()));
                self.encoder.flush_chain(v, name, seq);
            }
            let effective = effective(name, wanted, refused);
            let closed =
                !refused.is_empty() && effective.rules.len() == 1 && *effective == wanted.closed();
            let mut index = 0;
            for rule in &effective.rules {
                while refused.omitted.contains_key(&(name.clone(), index)) && !closed {
                    index += 1;
                }
                let seq = self.seq(Object::Rule(v, name.clone(), index));
                self.encoder.rule(v, name, rule, seq);
                index += 1;
            }
        }
    }

    fn elements<E: Element>(
        &mut self,
        v: IpVersion,
        name: &Name,
        elements: impl IntoIterator<Item = E>,
        add: bool,
    ) {
        let mut elements = elements.into_iter().peekable();
        if elements.peek().is_some() {
            let seq = self.seq(Object::Elements(v, name.clone()));
            self.encoder.elements((v, name), elements, add, seq);
        }
    }
}
