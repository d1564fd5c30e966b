//! All calculated sets: which of them some rule asks for, and where their members are.
//!
//! The kernel looks for a set by going through all sets of the table, for each rule that names one,
//! so that as many sets as rules cost it the square of their number. So small sets of addresses have
//! no set each: 64 shared ones hold the members of all, each behind the tag of its own set, and a
//! rule looks for tag and address. And a family's table has only what its rules ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::IpVersion;
use model::output::{Member, SetId, SetKind};

use crate::members::{ElementChanges, Half, Place, Tag};
use crate::object::Name;
use crate::table::{Table, Tables};

/// The sets of both families.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    halves: HashMap<SetId, BTreeMap<IpVersion, Half>>,
    /// How many chains ask for a set.
    wanted: HashMap<(SetId, IpVersion), u32>,
    /// How many sets that are asked for are in a shared one.
    shared: BTreeMap<(Name, IpVersion), u32>,
    /// The first that has a tag may share, the others have sets of their own.
    tags: BTreeMap<Tag, BTreeSet<SetId>>,
}

impl Sets {
    pub(crate) fn contains(&self, id: &SetId) -> bool {
        self.halves.contains_key(id)
    }

    /// Where the members are.
    pub(crate) fn place(&self, id: &SetId, version: IpVersion) -> Option<&Place> {
        Some(self.halves.get(id)?.get(&version)?.place())
    }

    /// Wants exactly these members. Returns the sets whose users must be written again.
    pub(crate) fn put(
        &mut self,
        (id, kind): (&SetId, SetKind),
        members: &[Member],
        versions: &[IpVersion],
        tables: &mut Tables,
    ) -> Vec<SetId> {
        let mut moved = Vec::new();
        if !self.contains(id) {
            // Policies that waited for the set are closed.
            moved.push(id.clone());
            moved.extend(self.add((id, kind), members, versions, tables));
            return moved;
        }
        for version in versions {
            let half = self.halves.get(id).and_then(|halves| halves.get(version));
            let gone = half.map(|half| half.others(members)).unwrap_or_default();
            if self.update(id, *version, [members, &gone], tables.of_mut(*version)) {
                moved.push(id.clone());
            }
        }
        moved
    }

    fn add(
        &mut self,
        (id, kind): (&SetId, SetKind),
        members: &[Member],
        versions: &[IpVersion],
        tables: &mut Tables,
    ) -> Vec<SetId> {
        let tag = Tag::of(id, kind);
        let others = self.tags.entry(tag).or_default();
        others.insert(id.clone());
        let first = others.first() == Some(id);
        for version in versions {
            let half = Half::new((id, kind, tag), *version, members, first);
            self.halves.entry(id.clone()).or_default().insert(*version, half);
            if self.is_wanted(id, *version) {
                self.show(id, *version, tables.of_mut(*version));
            }
        }
        self.settle(tag, tables)
    }

    /// Changes members. True if they are elsewhere now, so that rules must be written again.
    pub(crate) fn update(
        &mut self,
        id: &SetId,
        version: IpVersion,
        [add, del]: [&[Member]; 2],
        table: &mut Table,
    ) -> bool {
        let shown = self.is_wanted(id, version);
        let Some(half) = self.halves.get_mut(id).and_then(|halves| halves.get_mut(&version)) else {
            return false;
        };
        let before = half.place().clone();
        let ElementChanges { steps, moved } = half.update(add, del);
        if shown && moved {
            for (_, key) in steps {
                table.remove_element(&before.set, &key);
            }
            self.hide(&before, id, version, table);
            self.show(id, version, table);
        } else if shown {
            for (added, key) in steps {
                if added {
                    table.put_element(&before.set, key, None);
                } else {
                    table.remove_element(&before.set, &key);
                }
            }
        }
        moved
    }

    /// Wants no such set. Returns the sets whose users must be written again.
    pub(crate) fn remove(&mut self, id: &SetId, tables: &mut Tables) -> Vec<SetId> {
        let Some(halves) = self.halves.get(id) else { return Vec::new() };
        let places: Vec<_> = halves.iter().map(|(v, half)| (*v, half.place().clone())).collect();
        let tag = halves.values().next().map(Half::tag);
        for (version, place) in places {
            if self.is_wanted(id, version) {
                self.hide(&place, id, version, tables.of_mut(version));
            }
        }
        self.halves.remove(id);
        let mut moved = vec![id.clone()];
        if let Some(tag) = tag {
            let others = self.tags.entry(tag).or_default();
            others.remove(id);
            moved.extend(self.settle(tag, tables));
        }
        moved
    }

    /// Of the sets with a tag, the first may share.
    fn settle(&mut self, tag: Tag, tables: &mut Tables) -> Vec<SetId> {
        let Some(ids) = self.tags.get(&tag).cloned() else { return Vec::new() };
        if ids.is_empty() {
            self.tags.remove(&tag);
        }
        let mut moved = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let versions: Vec<_> =
                self.halves.get(id).into_iter().flatten().map(|(v, _)| *v).collect();
            for version in versions {
                let half = self.halves.get_mut(id).and_then(|halves| halves.get_mut(&version));
                let Some(half) = half else { continue };
                let before = half.place().clone();
                if !half.share(i == 0) {
                    continue;
                }
                moved.push(id.clone());
                if self.is_wanted(id, version) {
                    let table = tables.of_mut(version);
                    self.hide(&before, id, version, table);
                    self.show(id, version, table);
                }
            }
        }
        moved
    }

    fn is_wanted(&self, id: &SetId, version: IpVersion) -> bool {
        self.wanted.contains_key(&(id.clone(), version))
    }

    /// One more chain asks for the set.
    pub(crate) fn want(&mut self, id: &SetId, version: IpVersion, table: &mut Table) {
        let count = self.wanted.entry((id.clone(), version)).or_default();
        *count += 1;
        if *count == 1 && self.contains(id) {
            self.show(id, version, table);
        }
    }

    /// One chain less does.
    pub(crate) fn unwant(&mut self, id: &SetId, version: IpVersion, table: &mut Table) {
        let key = (id.clone(), version);
        let Some(count) = self.wanted.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(&key);
            if let Some(place) = self.place(id, version).cloned() {
                self.hide(&place, id, version, table);
            }
        }
    }

    fn show(&mut self, id: &SetId, version: IpVersion, table: &mut Table) {
        let half = self.halves.get(id).and_then(|halves| halves.get(&version));
        let Some(half) = half else { return };
        let place = half.place();
        if place.is_shared() {
            *self.shared.entry((place.set.clone(), version)).or_default() += 1;
        }
        table.put_set(place.set.clone(), half.spec());
        table.put_elements(&place.set, half.keys(place));
    }

    /// Takes a set's members away from where they were.
    fn hide(&mut self, place: &Place, id: &SetId, version: IpVersion, table: &mut Table) {
        let key = (place.set.clone(), version);
        let Some(count) = self.shared.get_mut(&key).filter(|_| place.is_shared()) else {
            table.remove_set(&place.set);
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.shared.remove(&key);
            table.remove_set(&place.set);
            return;
        }
        let half = self.halves.get(id).and_then(|halves| halves.get(&version));
        for key in half.into_iter().flat_map(|half| half.keys(place)) {
            table.remove_element(&place.set, &key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Two names with one tag: found among a million.
    const TWINS: [&str; 2] = ["s:twin-1387278", "s:twin-2104"];

    fn member(text: &str) -> Member {
        Member::Net(text.parse().unwrap())
    }

    fn tables_of(ids: &[&str]) -> (Sets, Tables) {
        let (mut sets, mut tables) = (Sets::default(), Tables::default());
        for id in ids {
            let id: SetId = Arc::from(*id);
            let members = [member("10.0.0.1/32")];
            sets.put((&id, SetKind::Net), &members, &[IpVersion::V4], &mut tables);
            sets.want(&id, IpVersion::V4, tables.of_mut(IpVersion::V4));
        }
        (sets, tables)
    }

    /// In whatever order they come, the first by name shares, and the other has a set of its own.
    #[test]
    fn two_sets_with_one_tag_do_not_mix() {
        let [a, b] = TWINS;
        assert_eq!(
            Tag::of(&a.into(), SetKind::Net),
            Tag::of(&b.into(), SetKind::Net),
            "the example is none"
        );
        let (mut sets, mut tables) = tables_of(&[a, b]);
        let (_, other) = tables_of(&[b, a]);
        let table = |tables: &Tables| tables.of(IpVersion::V4).sets().clone();
        assert_eq!(table(&tables), table(&other));
        let places = TWINS.map(|id| sets.place(&id.into(), IpVersion::V4).unwrap().is_shared());
        assert_eq!(places, [true, false]);

        // What is left is as if the other had never been.
        let moved = sets.remove(&a.into(), &mut tables);
        assert_eq!(moved, [SetId::from(a), b.into()]);
        sets.unwant(&a.into(), IpVersion::V4, tables.of_mut(IpVersion::V4));
        assert_eq!(table(&tables), table(&tables_of(&[b]).1));
    }
}
