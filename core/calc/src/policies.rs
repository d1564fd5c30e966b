//! Policies, tiers and profiles: which are needed here, and in which order they act on an endpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use model::output::{CalcPolicy, CalcProfile, CalcRule, Output};
use model::policy::{Profile, Stage, Tier};
use model::{Action, Policy, PolicyId, ProfileName, Rule, TierName};
use selector::Selector;

use crate::arrangement::{Arrangement, EndpointKind};
use crate::book::{Book, Entry, PolicyNumber};
use crate::classes::{ClassId, Classes, World};
use crate::groups::Groups;
use crate::index::{LabelIndex, SelectorId};
use crate::items::{ItemId, Items, ProfileId};
use crate::kept::{KeptPolicy, KeptRule, Pool};
use crate::scan;
use crate::sets::{SetNumber, Sets};

struct ActiveProfile {
    users: u32,
    sets: Vec<SetNumber>,
    sent: Option<SentProfile>,
}

/// What downstream has for the name of a profile.
enum SentProfile {
    /// The stand-in for one that does not exist.
    DenyAll,
    /// The rules of this version.
    Rules(Arc<Profile>),
}

impl SentProfile {
    /// Whether sending `now` would say the same again.
    fn says(&self, now: Option<&Profile>) -> bool {
        match (self, now) {
            (Self::DenyAll, None) => true,
            (Self::Rules(old), Some(now)) => old.ingress == now.ingress && old.egress == now.egress,
            _ => false,
        }
    }
}

/// Everything about the policies of this node.
#[derive(Default)]
pub(crate) struct Policies {
    book: Book,
    pool: Pool,
    index: LabelIndex, // over local endpoints only
    selectors: HashMap<Selector, SelectorId>,
    groups: Groups,
    classes: Classes,
    room: Vec<SelectorId>, // for what an endpoint matches
    hosts: HashSet<ItemId>,
    profiles: HashMap<ProfileName, ActiveProfile>,
    dirty_policies: BTreeSet<PolicyNumber>,
    gone_policies: BTreeSet<PolicyId>, // deleted while downstream has them
    dirty_profiles: BTreeSet<ProfileName>,
    touched: BTreeSet<ItemId>, // local endpoints that other selectors may match now
}

impl Policies {
    /// A policy is new, changed or gone.
    pub(crate) fn set_policy(
        &mut self,
        id: &PolicyId,
        policy: Option<&Policy>,
        items: &mut Items,
        sets: &mut Sets,
    ) {
        match (self.book.number(id), policy) {
            (None, None) => (),
            (None, Some(policy)) => {
                debug_assert_eq!(*id, policy.id, "an update is filed under the id of its object");
                self.add_policy(policy, items);
            }
            (Some(number), None) => self.remove_policy(id, number, items, sets),
            (Some(number), Some(policy)) => {
                debug_assert_eq!(*id, policy.id, "an update is filed under the id of its object");
                self.change_policy(number, policy, items);
            }
        }
    }

    fn add_policy(&mut self, policy: &Policy, items: &mut Items) {
        let emitted = self.gone_policies.remove(&policy.id);
        let kept = self.pool.keep(policy);
        let selector = self.hold_selector(&policy.selector, &kept.selector, items);
        let entry =
            Entry { policy: kept, selector, sets: Vec::new(), emitted, rules_changed: true };
        let number = self.book.insert(entry);
        self.join(number);
    }

    fn remove_policy(
        &mut self,
        id: &PolicyId,
        number: PolicyNumber,
        items: &mut Items,
        sets: &mut Sets,
    ) {
        self.leave(number, items);
        self.dirty_policies.remove(&number);
        let Some(entry) = self.book.remove(number) else { return };
        self.pool.drop_policy(&entry.policy);
        sets.release_all(entry.sets);
        if entry.emitted {
            self.gone_policies.insert(id.clone());
        }
    }

    fn change_policy(&mut self, number: PolicyNumber, policy: &Policy, items: &mut Items) {
        let kept = self.pool.keep(policy);
        let old = &self.book[number].policy;
        if *old == kept {
            self.pool.drop_policy(&kept);
            return;
        }
        let moved = old.selector != kept.selector || !same_place(old, &kept);
        if moved {
            let selector = self.hold_selector(&policy.selector, &kept.selector, items);
            self.leave_for(number, selector, items);
            self.book[number].selector = selector;
        }
        let entry = &mut self.book[number];
        let old = std::mem::replace(&mut entry.policy, kept);
        entry.rules_changed = true;
        self.pool.drop_policy(&old);
        if moved {
            self.join(number);
        }
        self.dirty_policies.insert(number);
    }

    /// Files a policy with its selector, in order, and with the classes of endpoints that it selects.
    fn join(&mut self, number: PolicyNumber) {
        let Entry { policy, selector, .. } = &self.book[number];
        let group = self.groups.of(*selector);
        if group.is_empty() {
            // The selector is new here: its endpoints leave their classes.
            self.touched.extend(self.index.matched(*selector).iter());
        }
        let at = self.book.place(group, policy);
        self.groups.insert(*selector, at, number);
        self.classes.policy_comes(*selector, policy, &self.book);
        self.dirty_policies.insert(number);
    }

    fn leave(&mut self, number: PolicyNumber, items: &mut Items) {
        self.leave_for(number, SelectorId::MAX, items);
    }

    /// Takes a policy from its selector, which goes if it was the last and is not `next`.
    fn leave_for(&mut self, number: PolicyNumber, next: SelectorId, items: &mut Items) {
        let Entry { policy, selector, .. } = &self.book[number];
        let selector = *selector;
        self.classes.policy_goes(selector, policy, &self.book);
        let at = self.book.place(self.groups.of(selector), policy);
        self.groups.remove(selector, at);
        if self.groups.of(selector).is_empty() && selector != next {
            self.touched.extend(self.index.matched(selector).iter());
            self.selectors.remove(&policy.selector);
            self.index.remove_selector(selector, items);
        }
    }

    /// `kept` is the same as `selector`, in the form in which it is kept.
    fn hold_selector(
        &mut self,
        selector: &Selector,
        kept: &Selector,
        items: &mut Items,
    ) -> SelectorId {
        if let Some(&id) = self.selectors.get(kept) {
            return id;
        }
        let id = self.index.add_selector(selector, items);
        self.selectors.insert(kept.clone(), id);
        id
    }

    /// A tier is new, changed or gone. It changes the order of its policies on every endpoint.
    pub(crate) fn set_tier(&mut self, name: TierName, tier: Option<Tier>) {
        if self.book.set_tier(name, tier) {
            for group in self.groups.lists() {
                self.book.sort(group);
            }
            self.classes.order_changed();
        }
    }

    /// A local endpoint appears.
    pub(crate) fn insert(&mut self, id: ItemId, kind: EndpointKind, items: &Items) {
        if kind == EndpointKind::Host {
            self.hosts.insert(id);
        }
        let mut now = std::mem::take(&mut self.room);
        self.index.insert(id, items, &mut now);
        self.selected_changed(id, &now);
        self.room = now;
    }

    /// A local endpoint goes, before it changes or leaves `items`.
    pub(crate) fn remove(&mut self, id: ItemId, items: &Items) {
        let mut before = std::mem::take(&mut self.room);
        self.index.matches_of(id, items, &mut before);
        self.index.remove(id, &before, items);
        self.selected_changed(id, &before);
        self.room = before;
        self.hosts.remove(&id);
        self.touched.remove(&id);
    }

    /// See [`Sets::heirs`].
    pub(crate) fn heirs(
        &self,
        profile: ProfileId,
        items: &Items,
    ) -> Vec<(ItemId, Vec<SelectorId>)> {
        self.index.heirs(profile, items)
    }

    /// See [`Sets::rematch`].
    pub(crate) fn rematch(&mut self, heirs: &[(ItemId, Vec<SelectorId>)], items: &Items) {
        let mut now = Vec::new();
        for (id, before) in heirs {
            self.index.rematch(*id, before, items, &mut now);
            let lost: Vec<_> = before.iter().filter(|s| !now.contains(s)).copied().collect();
            let won: Vec<_> = now.iter().filter(|s| !before.contains(s)).copied().collect();
            self.selected_changed(*id, &lost);
            self.selected_changed(*id, &won);
        }
    }

    /// An endpoint started or stopped to match these selectors: the policies behind them may have
    /// become needed or not needed here.
    fn selected_changed(&mut self, id: ItemId, selectors: &[SelectorId]) {
        if selectors.is_empty() {
            return;
        }
        self.touched.insert(id);
        for selector in selectors {
            // With two or more matches left, or two now, nothing changes but for host endpoints,
            // whose policies depend on the kind of what they select.
            if self.index.matched(*selector).len() <= 1 || self.hosts.contains(&id) {
                self.dirty_policies.extend(self.groups.of(*selector));
            }
        }
    }

    /// A local endpoint lists this profile (`true`) or no longer does.
    pub(crate) fn use_profile(&mut self, name: &ProfileName, more: Uses) {
        let entry = self.profiles.entry(name.clone()).or_insert_with(|| ActiveProfile {
            users: 0,
            sets: Vec::new(),
            sent: None,
        });
        match more {
            Uses::OneMore => entry.users += 1,
            Uses::OneLess => entry.users -= 1,
        }
        self.dirty_profiles.insert(name.clone());
    }

    /// A profile is new, changed or gone.
    pub(crate) fn profile_changed(&mut self, name: &ProfileName) {
        if self.profiles.contains_key(name) {
            self.dirty_profiles.insert(name.clone());
        }
    }

    /// Whether some endpoint here needs the policy.
    fn needed(&self, entry: &Entry) -> bool {
        let matched = self.index.matched(entry.selector);
        entry.policy.everywhere
            || match entry.policy.stage {
                Stage::Normal => !matched.is_empty(),
                // Workloads know no such policies.
                Stage::PreDnat | Stage::Untracked => {
                    self.hosts.iter().any(|h| matched.contains(*h))
                }
            }
    }

    /// Policies and profiles that became needed or changed go to `puts`, others to `gone`.
    pub(crate) fn flush(&mut self, world: (&mut Items, &mut Sets), out: &mut Batch) {
        let (items, sets) = world;
        let mut puts: Vec<Arc<CalcPolicy>> = Vec::new();
        let mut gone: Vec<PolicyId> = std::mem::take(&mut self.gone_policies).into_iter().collect();
        for number in std::mem::take(&mut self.dirty_policies) {
            let needed = self.needed(&self.book[number]);
            let entry = &mut self.book[number];
            if needed && (!entry.emitted || entry.rules_changed) {
                puts.push(entry.convert(items, sets));
            } else if !needed && entry.emitted {
                entry.emitted = false;
                sets.release_all(std::mem::take(&mut entry.sets));
                gone.push(entry.policy.id.clone());
            }
        }
        puts.sort_by(|a, b| a.id.cmp(&b.id));
        gone.sort_unstable();
        out.puts.extend(puts.into_iter().map(Output::Policy));
        self.flush_profiles(items, sets, out);
        out.gone.extend(gone.into_iter().map(Output::PolicyGone));
    }

    fn flush_profiles(&mut self, items: &mut Items, sets: &mut Sets, out: &mut Batch) {
        for name in std::mem::take(&mut self.dirty_profiles) {
            let Some(entry) = self.profiles.get_mut(&name) else { continue };
            if entry.users == 0 {
                if entry.sent.is_some() {
                    out.gone.push(Output::ProfileGone(name.clone()));
                }
                sets.release_all(std::mem::take(&mut entry.sets));
                self.profiles.remove(&name);
                continue;
            }
            let profile = items.profile(&name).cloned();
            if entry.sent.as_ref().is_some_and(|sent| sent.says(profile.as_deref())) {
                continue;
            }
            let old = std::mem::take(&mut entry.sets);
            let mut scan = Scan { items, sets, used: Vec::new() };
            let calc = match &profile {
                Some(p) => CalcProfile {
                    name: name.clone(),
                    ingress: scan.rules(&p.ingress),
                    egress: scan.rules(&p.egress),
                },
                None => deny_all(&name),
            };
            entry.sets = scan.used;
            entry.sent = Some(profile.map_or(SentProfile::DenyAll, SentProfile::Rules));
            sets.release_all(old);
            out.puts.push(Output::Profile(Arc::new(calc)));
        }
    }

    /// Files the endpoints of this node whose selectors changed, and those of `fresh`, with their
    /// classes; `place` tells the kind of an endpoint and the class that it was in. Returns the
    /// endpoints whose list of policies may be another.
    pub(crate) fn arrange(
        &mut self,
        fresh: impl IntoIterator<Item = ItemId>,
        mut place: impl FnMut(ItemId) -> Option<(EndpointKind, Option<ClassId>)>,
        items: &Items,
    ) -> BTreeMap<ItemId, ClassId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.extend(fresh);
        let world = World { book: &self.book, groups: &self.groups };
        let mut found = BTreeMap::new();
        for id in touched {
            let Some((kind, before)) = place(id) else { continue };
            self.index.matches_of(id, items, &mut self.room);
            found.insert(id, self.classes.put(id, kind, &self.room, before, world));
        }
        self.classes.flush(world, &mut found);
        found
    }

    /// An endpoint goes, or changes: see [`Classes::leave`].
    pub(crate) fn leave_class(&mut self, id: ItemId, class: ClassId) {
        self.classes.leave(id, class);
    }

    /// The tiers of the endpoints of a class.
    pub(crate) fn arrangement(&self, class: ClassId) -> &Arrangement {
        self.classes.arrangement(class)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let nothing = self.selectors.is_empty() && self.groups.is_empty();
        nothing && self.pool.is_empty() && self.classes.is_empty()
    }

    /// Number of policies that downstream has.
    pub(crate) fn emitted(&self) -> usize {
        self.book.emitted()
    }
}

/// What one flush says: everything that appears or changes, and what goes, each in its own order.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Output>,
    pub(crate) gone: Vec<Output>,
}

/// Whether one user of a profile comes or goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    OneMore,
    OneLess,
}

/// Turns rules into their data-plane form, noting each use of a set.
struct Scan<'a> {
    items: &'a mut Items,
    sets: &'a mut Sets,
    used: Vec<SetNumber>,
}

impl Scan<'_> {
    fn rules(&mut self, rules: &[Rule]) -> Vec<CalcRule> {
        let mut set = |key| {
            let (number, id) = self.sets.acquire(key, self.items);
            self.used.push(number);
            id
        };
        rules.iter().map(|r| scan::rule(r, &mut set)).collect()
    }

    fn kept(&mut self, rules: &[KeptRule]) -> Vec<CalcRule> {
        let rules: Vec<Rule> = rules.iter().map(KeptRule::rule).collect();
        self.rules(&rules)
    }
}

impl Entry {
    /// The policy as downstream gets it. New sets are taken before old ones are given up, so that
    /// what both versions use stays.
    fn convert(&mut self, items: &mut Items, sets: &mut Sets) -> Arc<CalcPolicy> {
        let policy = &self.policy;
        let mut scan = Scan { items, sets, used: Vec::new() };
        let calc = CalcPolicy {
            id: policy.id.clone(),
            tier: policy.tier.clone(),
            stage: policy.stage,
            staged: policy.staged,
            ingress: scan.kept(&policy.ingress),
            egress: scan.kept(&policy.egress),
        };
        let used = scan.used;
        let old = std::mem::replace(&mut self.sets, used);
        sets.release_all(old);
        self.emitted = true;
        self.rules_changed = false;
        Arc::new(calc)
    }
}

/// Whether two versions of a policy stand at the same place on the same endpoints.
fn same_place(a: &KeptPolicy, b: &KeptPolicy) -> bool {
    (&a.tier, a.order, a.stage, a.staged) == (&b.tier, b.order, b.stage, b.staged)
        && (a.applies_ingress, a.applies_egress) == (b.applies_ingress, b.applies_egress)
        && (a.apply_on_forward, a.everywhere) == (b.apply_on_forward, b.everywhere)
}

/// Stands in for a profile that is listed but missing: closed.
fn deny_all(name: &ProfileName) -> CalcProfile {
    let deny = || vec![scan::any(Action::Deny)];
    CalcProfile { name: name.clone(), ingress: deny(), egress: deny() }
}
