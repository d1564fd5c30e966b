//! Everything that carries labels: endpoints, host endpoints, network sets; and the profiles that
//! they inherit from.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::endpoint::NamedPort;
use model::policy::{NetworkSet, NetworkSetId, Profile};
use model::{HostEndpoint, Labels, ProfileName, Protocol, WorkloadEndpoint, WorkloadId};

use crate::bits::Bits;
use crate::few::Few;
use crate::intern::{Interner, Pair, Sym};
use crate::slab::Slab;
use model::hash::FastMap;

/// Number of an item.
pub(crate) type ItemId = u32;

/// Number of a profile.
pub(crate) type ProfileId = u32;

/// Identity of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ItemKey {
    Workload(WorkloadId),
    Host(Arc<str>),
    NetworkSet(NetworkSetId),
}

/// An [`ItemKey`] with its namespace as a number, which the namespace's items share.
#[derive(PartialEq, Eq, Hash)]
struct FileKey {
    kind: Kind,
    namespace: Sym,
    name: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Workload,
    Host,
    NetworkSet,
}

impl ItemKey {
    fn parts(&self) -> (Kind, Option<&Arc<str>>, &Arc<str>) {
        match self {
            Self::Workload(id) => (Kind::Workload, Some(&id.namespace), &id.name),
            Self::Host(name) => (Kind::Host, None, name),
            Self::NetworkSet(id) => (Kind::NetworkSet, Some(&id.namespace), &id.name),
        }
    }
}

/// The part of an object that selectors and sets look at, in as few bytes as possible: a node
/// keeps one for every endpoint of the cluster.
#[derive(PartialEq)]
pub(crate) struct Item {
    pub(crate) labels: Box<[Pair]>, // sorted by key
    pub(crate) profiles: Few<ProfileId>,
    pub(crate) nets: Few<IpNet>, // sorted, no duplicates
    pub(crate) ports: Few<ItemPort>,
}

/// A named port of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemPort {
    pub(crate) name: Sym,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// An object as it arrives, in the shape that all three kinds share.
pub(crate) struct Source<'a> {
    labels: &'a Labels,
    profiles: &'a [ProfileName],
    nets: Few<IpNet>,
    ports: &'a [NamedPort],
}

impl<'a> From<&'a WorkloadEndpoint> for Source<'a> {
    fn from(e: &'a WorkloadEndpoint) -> Self {
        let nets = e.addresses.iter().map(|a| IpNet::from(*a)).collect();
        Self { labels: &e.labels, profiles: &e.profiles, nets, ports: &e.ports }
    }
}

impl<'a> From<&'a HostEndpoint> for Source<'a> {
    fn from(e: &'a HostEndpoint) -> Self {
        let nets = e.addresses.iter().map(|a| IpNet::from(*a)).collect();
        Self { labels: &e.labels, profiles: &e.profiles, nets, ports: &e.ports }
    }
}

impl<'a> From<&'a NetworkSet> for Source<'a> {
    fn from(s: &'a NetworkSet) -> Self {
        let whole = |net: &IpNet| if single(net).is_some() { *net } else { net.trunc() };
        let nets = s.nets.iter().map(whole).collect::<Vec<_>>().into();
        Self { labels: &s.labels, profiles: &s.profiles, nets, ports: &[] }
    }
}

/// A profile as a source of inherited labels.
struct ProfileEntry {
    name: ProfileName,
    labels: Box<[Pair]>,
    rules: Option<Arc<Profile>>, // without its labels; `None` if it does not exist
    users: u32,                  // items that list it
}

/// All items and profiles.
#[derive(Default)]
pub(crate) struct Items {
    pub(crate) interner: Interner,
    items: Slab<Item>,
    by_key: HashMap<FileKey, ItemId>,
    profiles: Slab<ProfileEntry>,
    profile_ids: HashMap<ProfileName, ProfileId>,
    profile_labels: Postings,
    no_rules: Arc<Profile>,
}

impl Items {
    pub(crate) fn id(&self, key: &ItemKey) -> Option<ItemId> {
        self.by_key.get(&self.file_key(key)?).copied()
    }

    /// `None` if nothing of its namespace is known.
    fn file_key(&self, key: &ItemKey) -> Option<FileKey> {
        let (kind, namespace, name) = key.parts();
        let namespace = namespace.map_or(Some(Sym::MAX), |ns| self.interner.find(ns))?;
        Some(FileKey { kind, namespace, name: name.clone() })
    }

    pub(crate) fn item(&self, id: ItemId) -> &Item {
        &self.items[id]
    }

    /// Builds an item, holding its texts and profiles.
    pub(crate) fn make(&mut self, source: Source<'_>) -> Item {
        let Source { labels, profiles, mut nets, ports } = source;
        // Large sets mostly come in order.
        if !nets.is_sorted_by(is_before) {
            let mut sorted = nets.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            nets = sorted.into();
        }
        let port = |p: &NamedPort, interner: &mut Interner| ItemPort {
            name: interner.hold(&p.name),
            protocol: p.protocol,
            port: p.port,
        };
        Item {
            labels: self.interner.hold_labels(labels),
            profiles: profiles.iter().map(|name| self.hold_profile(name)).collect(),
            nets,
            ports: ports.iter().map(|p| port(p, &mut self.interner)).collect(),
        }
    }

    /// Files an item under a key that has none.
    pub(crate) fn insert(&mut self, key: &ItemKey, item: Item) -> ItemId {
        let (kind, namespace, name) = key.parts();
        let namespace = namespace.map_or(Sym::MAX, |ns| self.interner.hold(ns));
        let id = self.items.insert(item);
        self.by_key.insert(FileKey { kind, namespace, name: name.clone() }, id);
        id
    }

    /// Puts `item` in the place of the one there is, which is returned: see [`Items::drop_item`].
    pub(crate) fn replace(&mut self, id: ItemId, item: Item) -> Item {
        std::mem::replace(&mut self.items[id], item)
    }

    pub(crate) fn remove(&mut self, key: &ItemKey) -> Option<Item> {
        let key = self.file_key(key)?;
        let id = self.by_key.remove(&key)?;
        if key.kind != Kind::Host {
            self.interner.release(key.namespace);
        }
        self.items.remove(id)
    }

    /// Gives up what [`Items::make`] held.
    pub(crate) fn drop_item(&mut self, item: Item) {
        self.interner.release_labels(&item.labels);
        for port in item.ports.iter() {
            self.interner.release(port.name);
        }
        for &profile in item.profiles.iter() {
            self.profiles[profile].users -= 1;
            self.forget_profile(profile);
        }
    }

    fn hold_profile(&mut self, name: &ProfileName) -> ProfileId {
        let id = self.profile_id(name);
        self.profiles[id].users += 1;
        id
    }

    /// The number of a profile, known or not.
    pub(crate) fn profile_id(&mut self, name: &ProfileName) -> ProfileId {
        if let Some(&id) = self.profile_ids.get(name) {
            return id;
        }
        let entry =
            ProfileEntry { name: name.clone(), labels: Box::default(), rules: None, users: 0 };
        let id = self.profiles.insert(entry);
        self.profile_ids.insert(name.clone(), id);
        id
    }

    pub(crate) fn profile(&self, name: &ProfileName) -> Option<&Arc<Profile>> {
        let id = self.profile_ids.get(name)?;
        self.profiles[*id].rules.as_ref()
    }

    /// Whether the profile now has exactly these labels.
    pub(crate) fn has_profile_labels(&self, id: ProfileId, labels: Option<&Labels>) -> bool {
        let now = &self.profiles[id].labels;
        let count = labels.map_or(0, |l| l.len());
        let text = |sym| self.interner.text(sym);
        now.len() == count
            && now.iter().all(|&(k, v)| {
                labels.and_then(|l| l.get(text(k))).is_some_and(|have| **have == *text(v))
            })
    }

    /// Replaces a profile. Items that inherit from it must be matched again if its labels changed.
    pub(crate) fn set_profile(&mut self, id: ProfileId, object: Option<Arc<Profile>>) {
        let labels = match &object {
            Some(profile) => self.interner.hold_labels(&profile.labels),
            None => Box::default(),
        };
        let rules = object.map(|profile| self.bare(&profile));
        let entry = &mut self.profiles[id];
        entry.rules = rules;
        let old = std::mem::replace(&mut entry.labels, labels);
        self.profile_labels.remove(id, &old);
        self.profile_labels.insert(id, &self.profiles[id].labels);
        self.interner.release_labels(&old);
        self.forget_profile(id);
    }

    /// A profile without its labels, which are kept as numbers. Most have no rules either, and are
    /// one and the same then.
    fn bare(&self, profile: &Profile) -> Arc<Profile> {
        if profile.ingress.is_empty() && profile.egress.is_empty() {
            return self.no_rules.clone();
        }
        let (ingress, egress) = (profile.ingress.clone(), profile.egress.clone());
        Arc::new(Profile { ingress, egress, labels: self.no_rules.labels.clone() })
    }

    fn forget_profile(&mut self, id: ProfileId) {
        let gone = |p: &ProfileEntry| p.users == 0 && p.rules.is_none();
        if self.profiles.get(id).is_some_and(gone)
            && let Some(entry) = self.profiles.remove(id)
        {
            self.profile_ids.remove(&entry.name);
        }
    }

    /// The value of a label: the item's own, else that of the first listed profile that has it.
    pub(crate) fn value(&self, item: &Item, key: Sym) -> Option<Sym> {
        lookup(&item.labels, key)
            .or_else(|| item.profiles.iter().find_map(|&p| lookup(&self.profiles[p].labels, key)))
    }

    /// Own and inherited labels, with those that are hidden by others of the same key.
    pub(crate) fn all_labels<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = Pair> + 'a {
        let inherited = item.profiles.iter().flat_map(|&p| self.profiles[p].labels.iter());
        item.labels.iter().chain(inherited).copied()
    }

    /// Profiles that give a label, of one of `values` if given.
    pub(crate) fn profiles_with<'a>(
        &'a self,
        key: Sym,
        values: Option<&'a [Sym]>,
    ) -> impl Iterator<Item = ProfileId> + 'a {
        self.profile_labels.lists(key, values).flat_map(Bits::iter)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.profile_ids.is_empty() && self.interner.len() == 0
    }
}

fn lookup(labels: &[Pair], key: Sym) -> Option<Sym> {
    labels.iter().find(|pair| pair.0 == key).map(|pair| pair.1)
}

/// Who carries a label: numbers by label.
#[derive(Default)]
pub(crate) struct Postings {
    lists: FastMap<Pair, Bits>,
    values: FastMap<Sym, BTreeSet<Sym>>, // by key; only those with a list
}

impl Postings {
    pub(crate) fn insert(&mut self, id: u32, labels: &[Pair]) {
        for &pair in labels {
            let list = self.lists.entry(pair).or_default();
            if list.is_empty() {
                self.values.entry(pair.0).or_default().insert(pair.1);
            }
            list.insert(id);
        }
    }

    pub(crate) fn remove(&mut self, id: u32, labels: &[Pair]) {
        for pair in labels {
            let Some(list) = self.lists.get_mut(pair) else { continue };
            list.remove(id);
            if list.is_empty() {
                self.lists.remove(pair);
                if let Some(values) = self.values.get_mut(&pair.0) {
                    values.remove(&pair.1);
                    if values.is_empty() {
                        self.values.remove(&pair.0);
                    }
                }
            }
        }
    }

    /// The lists of a key, of some of its values or all.
    pub(crate) fn lists<'a>(
        &'a self,
        key: Sym,
        values: Option<&'a [Sym]>,
    ) -> impl Iterator<Item = &'a Bits> + 'a {
        let every = values.is_none().then(|| self.values.get(&key)).flatten();
        let some = values.unwrap_or_default().iter().chain(every.into_iter().flatten());
        some.filter_map(move |&value| self.lists.get(&(key, value)))
    }
}

/// The order of prefixes, without a call for the most frequent kind.
fn is_before(a: &IpNet, b: &IpNet) -> bool {
    match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => {
            (a.addr().to_bits(), a.prefix_len()) < (b.addr().to_bits(), b.prefix_len())
        }
        _ => a < b,
    }
}

/// The address of a single-address prefix.
pub(crate) fn single(net: &IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}
