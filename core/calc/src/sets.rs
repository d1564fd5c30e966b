//! Sets of addresses, prefixes and ports, shared by all rules that ask for the same thing.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use model::Protocol;
use model::output::{Member, Output, SetId, SetKind};
use model::policy::ServiceId;
use model::update::Backend;
use selector::Selector;
use sha2::{Digest as _, Sha224};

use crate::index::{LabelIndex, SelectorId};
use crate::intern::Sym;
use crate::items::{Item, ItemId, Items, ProfileId, single};
use crate::slab::Slab;
use model::hash::FastMap;

/// Number of a set.
pub(crate) type SetNumber = u32;

/// What a set holds: the thing that rules ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SetKey {
    /// Addresses and prefixes of the items that match.
    Nets(Selector),
    /// `(address, protocol, port)` of the ports of this name on the items that match.
    NamedPort {
        /// Whose ports.
        selector: Selector,
        /// Of this protocol only.
        protocol: Option<Protocol>,
        /// The ports' name.
        name: Arc<str>,
    },
    /// `(address, protocol, port)` of a service's backends.
    Service(ServiceId),
    /// Addresses of a service's backends.
    ServiceAddresses(ServiceId),
}

impl SetKey {
    /// The stable id.
    fn id(&self) -> SetId {
        match self {
            Self::Nets(selector) => selector.id().into(),
            Self::NamedPort { selector, protocol, name } => {
                let protocol = protocol.map_or_else(|| "any".into(), |p| p.0.to_string());
                hashed("n", &format!("{},{protocol},{name}", selector.id()))
            }
            Self::Service(s) => hashed("svc", &format!("{}/{}", s.namespace, s.name)),
            Self::ServiceAddresses(s) => {
                hashed("svcnoport", &format!("{}/{}", s.namespace, s.name))
            }
        }
    }

    fn kind(&self) -> SetKind {
        match self {
            Self::Nets(_) | Self::ServiceAddresses(_) => SetKind::Net,
            Self::NamedPort { .. } | Self::Service(_) => SetKind::IpPort,
        }
    }

    fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Nets(selector) | Self::NamedPort { selector, .. } => Some(selector),
            Self::Service(_) | Self::ServiceAddresses(_) => None,
        }
    }

    fn service(&self) -> Option<&ServiceId> {
        match self {
            Self::Service(id) | Self::ServiceAddresses(id) => Some(id),
            Self::Nets(_) | Self::NamedPort { .. } => None,
        }
    }
}

fn hashed(prefix: &str, content: &str) -> SetId {
    let digest = Sha224::digest(format!("{prefix}:{content}"));
    format!("{prefix}:{}", URL_SAFE_NO_PAD.encode(digest)).into()
}

struct Set {
    key: SetKey,
    id: SetId,
    users: u32, // places in rules
    filter: Filter,
    members: FastMap<Member, u32>, // counted: two items may claim one address
    emitted: bool,
    dirty: bool,                      // is on the list of those to look at
    changed: FastMap<Member, Before>, // since the last flush; empty unless emitted
}

/// What an item or backend contributes.
#[derive(Clone, Copy)]
enum Filter {
    Nets,
    Ports { name: Sym, protocol: Option<Protocol> },
    Backends,
}

/// Whether a changed member was there at the last flush.
type Before = bool;

/// A set that changes keeps room for so many changes; more are a rare event.
const KEPT: usize = 16;

impl Set {
    fn add(&mut self, member: Member) {
        let count = self.members.entry(member).or_insert(0);
        *count += 1;
        if *count == 1 && self.emitted {
            self.changed.entry(member).or_insert(false);
        }
    }

    fn take(&mut self, member: Member) {
        let Some(count) = self.members.get_mut(&member) else { return };
        *count -= 1;
        if *count == 0 {
            self.members.remove(&member);
            if self.emitted {
                self.changed.entry(member).or_insert(true);
            }
        }
    }

    /// The next flush is to look at it.
    fn look_at(&mut self, number: SetNumber, dirty: &mut Vec<SetNumber>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(number);
        }
    }

    /// What to tell since the last flush, in order of members.
    fn delta(&mut self) -> Option<Output> {
        if !self.emitted {
            self.emitted = true;
            let mut members: Vec<Member> = self.members.keys().copied().collect();
            members.sort_unstable();
            return Some(Output::Set(self.id.clone(), self.key.kind(), members));
        }
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (member, before) in self.changed.drain() {
            match (before, self.members.contains_key(&member)) {
                (false, true) => added.push(member),
                (true, false) => removed.push(member),
                _ => (),
            }
        }
        if self.changed.capacity() > KEPT {
            self.changed = FastMap::default();
        }
        added.sort_unstable();
        removed.sort_unstable();
        let silent = added.is_empty() && removed.is_empty();
        (!silent).then(|| Output::SetDelta { id: self.id.clone(), added, removed })
    }
}

#[derive(Default)]
struct Service {
    slices: HashMap<Arc<str>, Arc<Vec<Backend>>>,
    sets: Vec<SetNumber>,
}

/// All sets in use, and the index that fills them.
#[derive(Default)]
pub(crate) struct Sets {
    sets: Slab<Set>,
    by_key: HashMap<SetKey, SetNumber>,
    index: LabelIndex,
    selectors: HashMap<Selector, SelectorId>,
    families: FastMap<SelectorId, Vec<SetNumber>>, // the sets that come from one selector
    services: HashMap<ServiceId, Service>,
    dirty: Vec<SetNumber>,
    before: Vec<SelectorId>, // room for what an item matched, and matches
    now: Vec<SelectorId>,
}

impl Sets {
    /// One more place in a rule needs this set.
    pub(crate) fn acquire(&mut self, key: SetKey, items: &mut Items) -> (SetNumber, SetId) {
        let number = match self.by_key.get(&key) {
            Some(&number) => number,
            None => self.create(key, items),
        };
        let set = &mut self.sets[number];
        set.users += 1;
        (number, set.id.clone())
    }

    /// One place fewer. An unused set goes with the next flush, unless it is needed again.
    pub(crate) fn release(&mut self, number: SetNumber) {
        let set = &mut self.sets[number];
        set.users -= 1;
        if set.users == 0 {
            set.look_at(number, &mut self.dirty);
        }
    }

    /// Many places fewer.
    pub(crate) fn release_all(&mut self, numbers: Vec<SetNumber>) {
        for number in numbers {
            self.release(number);
        }
    }

    fn create(&mut self, key: SetKey, items: &mut Items) -> SetNumber {
        let filter = match &key {
            SetKey::Nets(_) => Filter::Nets,
            SetKey::NamedPort { protocol, name, .. } => {
                Filter::Ports { name: items.interner.hold(name), protocol: *protocol }
            }
            SetKey::Service(_) | SetKey::ServiceAddresses(_) => Filter::Backends,
        };
        let mut set = Set {
            id: key.id(),
            users: 0,
            filter,
            members: FastMap::default(),
            emitted: false,
            dirty: false,
            changed: FastMap::default(),
            key,
        };
        if let Some(id) = set.key.service() {
            let kind = set.key.kind();
            let service = self.services.entry(id.clone()).or_default();
            for backend in service.slices.values().flat_map(|s| s.iter()) {
                set.add(backend_member(kind, backend));
            }
        }
        let selector = set.key.selector().cloned().map(|s| self.hold_selector(s, items));
        if let Some(selector) = selector {
            let matched = self.index.matched(selector);
            if matches!(filter, Filter::Nets) {
                set.members.reserve(matched.len()); // nearly everything has one address
            }
            for id in matched.iter() {
                contributions(items.item(id), filter, |m| set.add(m));
            }
        }
        let (key, service) = (set.key.clone(), set.key.service().cloned());
        let number = self.sets.insert(set);
        self.by_key.insert(key, number);
        if let Some(selector) = selector {
            self.families.entry(selector).or_default().push(number);
        }
        if let Some(service) = service {
            self.services.entry(service).or_default().sets.push(number);
        }
        self.sets[number].look_at(number, &mut self.dirty);
        number
    }

    fn hold_selector(&mut self, selector: Selector, items: &mut Items) -> SelectorId {
        if let Some(&id) = self.selectors.get(&selector) {
            return id;
        }
        let id = self.index.add_selector(&selector, items);
        self.selectors.insert(selector, id);
        id
    }

    fn destroy(&mut self, number: SetNumber, items: &mut Items) -> Option<SetId> {
        let set = self.sets.remove(number)?;
        self.by_key.remove(&set.key);
        if let Filter::Ports { name, .. } = set.filter {
            items.interner.release(name);
        }
        if let Some(service) = set.key.service()
            && let Some(entry) = self.services.get_mut(service)
        {
            entry.sets.retain(|s| *s != number);
            self.forget_service(service);
        }
        if let Some(selector) = set.key.selector()
            && let Some(&id) = self.selectors.get(selector)
            && let Some(family) = self.families.get_mut(&id)
        {
            family.retain(|s| *s != number);
            if family.is_empty() {
                self.families.remove(&id);
                self.selectors.remove(selector);
                self.index.remove_selector(id, items);
            }
        }
        set.emitted.then_some(set.id)
    }

    /// A new item.
    pub(crate) fn insert(&mut self, id: ItemId, items: &Items) {
        let mut now = std::mem::take(&mut self.now);
        self.index.insert(id, items, &mut now);
        self.change(None, &now, Some(items.item(id)));
        self.now = now;
    }

    /// An item goes; it must still be in `items`.
    pub(crate) fn remove(&mut self, id: ItemId, items: &Items) {
        let mut before = std::mem::take(&mut self.before);
        self.index.matches_of(id, items, &mut before);
        self.index.remove(id, &before, items);
        self.change(Some((&before, items.item(id))), &[], None);
        self.before = before;
    }

    /// An item is replaced by `new`; what it was is returned, still holding its texts.
    pub(crate) fn replace(&mut self, id: ItemId, new: Item, items: &mut Items) -> Item {
        let old = items.item(id);
        let mut before = std::mem::take(&mut self.before);
        self.index.matches_of(id, items, &mut before);
        let old = if old.labels == new.labels && old.profiles == new.profiles {
            let old = items.replace(id, new);
            self.change(Some((&before, &old)), &before, Some(items.item(id)));
            old
        } else {
            self.index.remove(id, &before, items);
            let old = items.replace(id, new);
            let mut now = std::mem::take(&mut self.now);
            self.index.insert(id, items, &mut now);
            self.change(Some((&before, &old)), &now, Some(items.item(id)));
            self.now = now;
            old
        };
        self.before = before;
        old
    }

    /// What the heirs of a profile match, before its labels change: for [`Sets::rematch`].
    pub(crate) fn heirs(
        &self,
        profile: ProfileId,
        items: &Items,
    ) -> Vec<(ItemId, Vec<SelectorId>)> {
        self.index.heirs(profile, items)
    }

    /// Matches items again whose inherited labels changed.
    pub(crate) fn rematch(&mut self, heirs: &[(ItemId, Vec<SelectorId>)], items: &Items) {
        let mut now = Vec::new();
        for (id, before) in heirs {
            self.index.rematch(*id, before, items, &mut now);
            let item = items.item(*id);
            self.change(Some((before, item)), &now, Some(item));
        }
    }

    /// Moves contributions: `before` lists the selectors that matched and the item as it was, `now`
    /// and `item` what is. Members in both are not touched.
    fn change(
        &mut self,
        before: Option<(&[SelectorId], &Item)>,
        now: &[SelectorId],
        item: Option<&Item>,
    ) {
        let (was, old) = before.map_or((&[][..], None), |(s, i)| (s, Some(i)));
        for selector in was {
            if now.binary_search(selector).is_err() {
                self.each_set(*selector, |set| {
                    contributions_of(old, set.filter).for_each(|m| set.take(m));
                });
            }
        }
        for selector in now {
            let same = was.binary_search(selector).is_ok();
            if same && unchanged(old, item) {
                continue;
            }
            let old = old.filter(|_| same);
            self.each_set(*selector, |set| {
                if let (Filter::Nets, Some(old), Some(new)) = (set.filter, old, item) {
                    let (old, new) = uncommon(&old.nets, &new.nets);
                    difference(new, old).for_each(|n| set.add(Member::Net(*n)));
                    difference(old, new).for_each(|n| set.take(Member::Net(*n)));
                    return;
                }
                // Adding first keeps a member that both have from leaving in between.
                contributions_of(item, set.filter).for_each(|m| set.add(m));
                contributions_of(old, set.filter).for_each(|m| set.take(m));
            });
        }
    }

    fn each_set(&mut self, selector: SelectorId, mut edit: impl FnMut(&mut Set)) {
        for &number in self.families.get(&selector).map_or(&[][..], |f| f) {
            let set = &mut self.sets[number];
            edit(set);
            if !set.changed.is_empty() {
                set.look_at(number, &mut self.dirty);
            }
        }
    }

    /// A slice of a service's backends.
    pub(crate) fn set_slice(
        &mut self,
        slice: Arc<str>,
        id: &ServiceId,
        backends: Option<Arc<Vec<Backend>>>,
    ) {
        let service = self.services.entry(id.clone()).or_default();
        let old = match &backends {
            Some(new) => service.slices.insert(slice, new.clone()),
            None => service.slices.remove(&slice),
        };
        for &number in &service.sets {
            let set = &mut self.sets[number];
            let kind = set.key.kind();
            for backend in backends.iter().flat_map(|b| b.iter()) {
                set.add(backend_member(kind, backend));
            }
            for backend in old.iter().flat_map(|b| b.iter()) {
                set.take(backend_member(kind, backend));
            }
            set.look_at(number, &mut self.dirty);
        }
        self.forget_service(id);
    }

    fn forget_service(&mut self, id: &ServiceId) {
        if self.services.get(id).is_some_and(|s| s.slices.is_empty() && s.sets.is_empty()) {
            self.services.remove(id);
        }
    }

    /// New and changed sets to `puts`, sets that nothing uses to `gone`, both in order of ids.
    pub(crate) fn flush(
        &mut self,
        items: &mut Items,
        puts: &mut Vec<Output>,
        gone: &mut Vec<Output>,
    ) {
        let (first, mut lost) = (puts.len(), Vec::new());
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in dirty.drain(..) {
            let Some(set) = self.sets.get_mut(number) else { continue };
            set.dirty = false;
            if set.users == 0 {
                lost.extend(self.destroy(number, items));
            } else {
                puts.extend(set.delta());
            }
        }
        self.dirty = dirty;
        puts[first..].sort_unstable_by(|a, b| id_of(a).cmp(&id_of(b)));
        lost.sort_unstable();
        gone.extend(lost.into_iter().map(Output::SetGone));
    }

    /// Number of sets in use.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }
}

fn id_of(output: &Output) -> Option<&SetId> {
    match output {
        Output::Set(id, ..) | Output::SetDelta { id, .. } => Some(id),
        _ => None,
    }
}

/// Both lists without what they begin with and end with in common: two long lists mostly agree.
fn uncommon<'a, T: PartialEq>(mut a: &'a [T], mut b: &'a [T]) -> (&'a [T], &'a [T]) {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (a, b) = (&a[same..], &b[same..]);
    let same = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    (&a[..a.len() - same], &b[..b.len() - same])
}

/// What is in `a` and not in `b`, both sorted, in one walk over both.
fn difference<'a>(a: &'a [IpNet], b: &'a [IpNet]) -> impl Iterator<Item = &'a IpNet> {
    let mut rest = b;
    a.iter().filter(move |net| {
        let smaller = rest.iter().take_while(|other| other < net).count();
        rest = &rest[smaller..];
        rest.first() != Some(*net)
    })
}

fn unchanged(old: Option<&Item>, new: Option<&Item>) -> bool {
    match (old, new) {
        (Some(a), Some(b)) => std::ptr::eq(a, b) || (a.nets == b.nets && a.ports == b.ports),
        _ => false,
    }
}

fn backend_member(kind: SetKind, backend: &Backend) -> Member {
    match kind {
        SetKind::Net => Member::Net(backend.address.into()),
        SetKind::IpPort => Member::IpPort(backend.address, backend.protocol, backend.port),
    }
}

fn contributions(item: &Item, filter: Filter, each: impl FnMut(Member)) {
    contributions_of(Some(item), filter).for_each(each);
}

/// The members that an item gives to a set.
fn contributions_of(item: Option<&Item>, filter: Filter) -> impl Iterator<Item = Member> + '_ {
    let nets = item.filter(|_| matches!(filter, Filter::Nets)).map_or(&[][..], |i| &i.nets);
    let wanted = match filter {
        Filter::Ports { name, protocol } => Some((name, protocol)),
        Filter::Nets | Filter::Backends => None,
    };
    let ports = wanted.and(item).map_or(&[][..], |i| &i.ports);
    let ports = ports.iter().filter(move |port| {
        wanted.is_some_and(|(name, protocol)| {
            port.name == name && protocol.is_none_or(|p| p == port.protocol)
        })
    });
    let ports = ports.flat_map(move |port| {
        let addresses = item.map_or(&[][..], |i| &i.nets).iter().filter_map(single);
        addresses.map(move |a| Member::IpPort(a, port.protocol, port.port))
    });
    nets.iter().map(|net| Member::Net(*net)).chain(ports)
}
