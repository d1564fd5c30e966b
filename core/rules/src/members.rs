//! A calculated set: its members, and the form that they take in each family's table.

use std::collections::BTreeSet;

use ipnet::IpNet;
use model::IpVersion;
use model::output::{Member, SetId, SetKind};

use crate::cover::{Cover, CoverChange};
use crate::name;
use crate::object::{Field, Key, Name, SetSpec};
use crate::table::Table;

/// Sets smaller than this get no capacity: the kernel's growing hash is as good.
const SMALLEST_SIZED: usize = 1_024;

/// One family's half of a calculated set.
#[derive(Debug)]
pub(crate) struct Half {
    version: IpVersion,
    id: SetId,
    kind: SetKind,
    nets: Cover,
    tuples: BTreeSet<Key>,
    capacity: usize,
    name: Name,
}

impl Half {
    /// An empty set, in the table.
    pub(crate) fn new(id: &SetId, kind: SetKind, version: IpVersion, table: &mut Table) -> Self {
        let empty = Cover::default();
        let mut half = Self {
            version,
            id: id.clone(),
            kind,
            nets: empty,
            tuples: BTreeSet::new(),
            capacity: 0,
            name: name::set(id, ""),
        };
        half.name = half.wanted_name();
        table.put_set(half.name.clone(), half.spec());
        half
    }

    /// Its name in the table, which changes with its form.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Changes members; true if the name changed, so that rules must be written again.
    pub(crate) fn update(&mut self, add: &[Member], del: &[Member], table: &mut Table) -> bool {
        let mut change = Vec::new();
        for member in del {
            if !self.mine(member) {
                continue;
            }
            change.push((false, *member, self.forget(member)));
        }
        for member in add {
            if !self.mine(member) {
                continue;
            }
            change.push((true, *member, self.learn(member)));
        }
        self.grow();
        let wanted = self.wanted_name();
        if wanted != self.name {
            self.rebuild(wanted, table);
            return true;
        }
        for (added, member, cover) in change {
            self.program(added, &member, &cover, table);
        }
        false
    }

    /// The members that must go for these to be all.
    pub(crate) fn others(&self, keep: &[Member]) -> Vec<Member> {
        let keep: BTreeSet<&Member> = keep.iter().collect();
        let nets = self.nets.members().iter().map(|n| Member::Net(*n));
        let tuples = self.tuples.iter().filter_map(|k| match k {
            Key::AddrPort(a, p, port) => Some(Member::IpPort(*a, *p, *port)),
            _ => None,
        });
        nets.chain(tuples).filter(|m| !keep.contains(m)).collect()
    }

    fn mine(&self, member: &Member) -> bool {
        match (member, self.kind) {
            (Member::Net(n), SetKind::Net) => IpVersion::of_net(n) == self.version,
            (Member::IpPort(a, ..), SetKind::IpPort) => IpVersion::of(*a) == self.version,
            _ => false,
        }
    }

    fn learn(&mut self, member: &Member) -> CoverChange {
        match member {
            Member::Net(n) => self.nets.insert(*n),
            Member::IpPort(a, p, port) => {
                self.tuples.insert(Key::AddrPort(*a, *p, *port));
                CoverChange::default()
            }
        }
    }

    fn forget(&mut self, member: &Member) -> CoverChange {
        match member {
            Member::Net(n) => self.nets.remove(n),
            Member::IpPort(a, p, port) => {
                self.tuples.remove(&Key::AddrPort(*a, *p, *port));
                CoverChange::default()
            }
        }
    }

    fn grow(&mut self) {
        let count = self.nets.members().len().max(self.tuples.len());
        if count > self.capacity && count >= SMALLEST_SIZED {
            self.capacity = (count * 2).next_power_of_two();
        }
    }

    fn is_interval(&self) -> bool {
        self.kind == SetKind::Net && !self.nets.only_addresses()
    }

    fn wanted_name(&self) -> Name {
        let form = match (self.is_interval(), self.capacity) {
            (true, _) => "n".to_owned(),
            (false, 0) => "h".to_owned(),
            (false, c) => format!("h{}", c.trailing_zeros()),
        };
        name::set(&self.id, &form)
    }

    fn spec(&self) -> SetSpec {
        let interval = self.is_interval();
        let key = match self.kind {
            SetKind::Net => vec![Field::Addr],
            SetKind::IpPort => vec![Field::Addr, Field::Proto, Field::Port],
        };
        let size = (!interval && self.capacity > 0).then_some(self.capacity as u32);
        SetSpec { key, interval, verdicts: false, size, comment: self.id.clone() }
    }

    fn rebuild(&mut self, wanted: Name, table: &mut Table) {
        table.remove_set(&self.name);
        self.name = wanted;
        table.put_set(self.name.clone(), self.spec());
        let nets = if self.is_interval() {
            self.nets.maximal()
        } else {
            self.nets.members().iter().copied().collect()
        };
        for net in nets {
            table.put_element(&self.name, self.net_key(net), None);
        }
        for key in &self.tuples {
            table.put_element(&self.name, key.clone(), None);
        }
    }

    fn net_key(&self, net: IpNet) -> Key {
        if self.is_interval() { Key::Net(net) } else { Key::Addr(net.addr()) }
    }

    fn program(&self, added: bool, member: &Member, cover: &CoverChange, table: &mut Table) {
        for net in &cover.removed {
            table.remove_element(&self.name, &self.net_key(*net));
        }
        for net in &cover.added {
            table.put_element(&self.name, self.net_key(*net), None);
        }
        if let Member::IpPort(a, p, port) = member {
            let key = Key::AddrPort(*a, *p, *port);
            if added {
                table.put_element(&self.name, key, None);
            } else {
                table.remove_element(&self.name, &key);
            }
        }
    }
}
