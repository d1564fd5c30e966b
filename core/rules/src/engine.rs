//! Keeps the wanted tables in step with the calculation's outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::output::{
    CalcMatch, CalcPolicy, CalcProfile, CalcRule, LocalHost, LocalWorkload, Member, Output,
    RouteKind, SetId, SetKind,
};
use model::{IfaceName, IpVersion, NodeName, PolicyId, ProfileName, WorkloadEndpoint, WorkloadId};

use crate::config::RulesConfig;
use crate::cover::{Cover, CoverChange};
use crate::endpoint::Walk;
use crate::fixed::{self, Fixed};
use crate::host;
use crate::members::Half;
use crate::name::{self, Direction};
use crate::object::{Chain, Key, Name, Verdict};
use crate::rule::{Origin, Renderer};
use crate::table::{Table, Tables};

/// Chains of policies and profiles that must be written again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Policy(PolicyId),
    Profile(ProfileName),
}

/// The wanted tables, and what they are made from. Touches memory only (law 2).
#[derive(Debug)]
pub struct Rules {
    config: RulesConfig,
    tables: Tables,
    sets: BTreeMap<(SetId, IpVersion), Half>,
    users: BTreeMap<SetId, BTreeSet<Owner>>,
    policies: BTreeMap<PolicyId, Arc<CalcPolicy>>,
    profiles: BTreeMap<ProfileName, Arc<CalcProfile>>,
    workloads: BTreeMap<WorkloadId, Arc<LocalWorkload>>,
    hosts: BTreeMap<Arc<str>, Arc<LocalHost>>,
    host_ifaces: BTreeMap<Arc<str>, Vec<IfaceName>>,
    host_chains: BTreeSet<Name>,
    pools: [(&'static str, BTreeMap<IpVersion, Cover>); 2],
    nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    own_addresses: Vec<IpAddr>,
    host_addresses: BTreeMap<IpAddr, u32>,
    dirty: BTreeSet<Owner>,
    dirty_workloads: BTreeSet<WorkloadId>,
    dirty_hosts: bool,
}

impl Rules {
    /// Tables without any endpoint: from the first apply on, unknown workload interfaces are closed.
    pub fn new(config: RulesConfig) -> Self {
        let mut rules = Self {
            config,
            tables: Tables::default(),
            sets: BTreeMap::new(),
            users: BTreeMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::new(),
            workloads: BTreeMap::new(),
            hosts: BTreeMap::new(),
            host_ifaces: BTreeMap::new(),
            host_chains: BTreeSet::new(),
            pools: [(fixed::ALL_POOLS, BTreeMap::new()), (fixed::NAT_POOLS, BTreeMap::new())],
            nodes: BTreeMap::new(),
            own_addresses: Vec::new(),
            host_addresses: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_workloads: BTreeSet::new(),
            dirty_hosts: true,
        };
        rules.render();
        rules
    }

    /// Families that have a table.
    pub fn families(&self) -> &[IpVersion] {
        &self.config.families
    }

    /// The wanted tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The wanted tables, to take their changes.
    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Says which interfaces have an address that the host endpoint `name` expects.
    pub fn resolve_host(&mut self, name: &Arc<str>, ifaces: Vec<IfaceName>) {
        let before = if ifaces.is_empty() {
            self.host_ifaces.remove(name).unwrap_or_default()
        } else {
            self.host_ifaces.insert(name.clone(), ifaces.clone()).unwrap_or_default()
        };
        if before != ifaces {
            self.dirty_hosts = true;
            self.render();
        }
    }

    /// Takes outputs in the order of the calculation.
    pub fn apply(&mut self, outputs: &[Output]) {
        for output in outputs {
            self.take(output);
        }
        self.render();
    }

    fn take(&mut self, output: &Output) {
        match output {
            Output::Set(id, kind, members) => self.put_set(id, *kind, members),
            Output::SetDelta { id, added, removed } => self.update_set(id, added, removed),
            Output::SetGone(id) => self.remove_set(id),
            Output::Policy(policy) => self.put_policy(policy),
            Output::PolicyGone(id) => self.remove_policy(id),
            Output::Profile(profile) => self.put_profile(profile),
            Output::ProfileGone(name) => self.remove_profile(name),
            Output::Workload(workload) => self.put_workload(workload),
            Output::WorkloadGone(id) => self.remove_workload(id),
            Output::Host(host) => {
                self.dirty_hosts = true;
                self.hosts.insert(host.endpoint.name.clone(), host.clone());
            }
            Output::HostGone(name) => self.dirty_hosts |= self.hosts.remove(name).is_some(),
            Output::Route(route) => {
                let pool = route.kind == RouteKind::Pool;
                self.pool(0, route.dst, pool);
                self.pool(1, route.dst, pool && route.nat_outgoing);
            }
            Output::RouteGone(dst) => [0, 1].into_iter().for_each(|i| self.pool(i, *dst, false)),
            Output::ThisNode(node) => {
                let new = node.addresses.iter().map(IpNet::addr).collect();
                let old = std::mem::replace(&mut self.own_addresses, new);
                let new = self.own_addresses.clone();
                self.change_hosts(&old, &new);
            }
            Output::HostAddresses(node, addresses) => {
                let old = self.nodes.insert(node.clone(), addresses.clone()).unwrap_or_default();
                if addresses.is_empty() {
                    self.nodes.remove(node);
                }
                self.change_hosts(&old, addresses);
            }
            Output::Vtep(_) | Output::VtepGone(..) | Output::InSync => {}
        }
    }

    fn put_set(&mut self, id: &SetId, kind: SetKind, members: &[Member]) {
        for version in self.config.families.clone() {
            let table = self.tables.of_mut(version);
            let key = (id.clone(), version);
            // Policies that waited for the set are closed.
            let mut renamed = !self.sets.contains_key(&key);
            let half = self.sets.entry(key).or_insert_with(|| Half::new(id, kind, version, table));
            let gone = half.others(members);
            renamed |= half.update(members, &gone, self.tables.of_mut(version));
            if renamed {
                self.renamed(id);
            }
        }
    }

    fn update_set(&mut self, id: &SetId, added: &[Member], removed: &[Member]) {
        for version in self.config.families.clone() {
            let Some(half) = self.sets.get_mut(&(id.clone(), version)) else { continue };
            if half.update(added, removed, self.tables.of_mut(version)) {
                self.renamed(id);
            }
        }
    }

    fn remove_set(&mut self, id: &SetId) {
        for version in self.config.families.clone() {
            if let Some(half) = self.sets.remove(&(id.clone(), version)) {
                self.tables.of_mut(version).remove_set(half.name());
            }
        }
        self.renamed(id);
    }

    fn renamed(&mut self, id: &SetId) {
        self.dirty.extend(self.users.get(id).into_iter().flatten().cloned());
    }

    /// Keeps the index from sets to the policies that use them.
    fn reindex(&mut self, owner: &Owner, old: &[SetId], new: &[SetId]) {
        for id in old {
            if let Some(users) = self.users.get_mut(id) {
                users.remove(owner);
                if users.is_empty() {
                    self.users.remove(id);
                }
            }
        }
        for id in new {
            self.users.entry(id.clone()).or_default().insert(owner.clone());
        }
    }

    fn put_policy(&mut self, policy: &Arc<CalcPolicy>) {
        if policy.staged {
            // It may have been enforced before.
            self.remove_policy(&policy.id);
            return;
        }
        let old = self.policies.insert(policy.id.clone(), policy.clone());
        if old.is_none() {
            self.came_or_went(|w| lists_policy(w, &policy.id));
        }
        let owner = Owner::Policy(policy.id.clone());
        let used = |p: &CalcPolicy| used_sets([&p.ingress, &p.egress]);
        self.reindex(&owner, &old.as_deref().map(used).unwrap_or_default(), &used(policy));
        self.dirty.insert(owner);
    }

    fn remove_policy(&mut self, id: &PolicyId) {
        if let Some(old) = self.policies.remove(id) {
            self.came_or_went(|w| lists_policy(w, id));
            let owner = Owner::Policy(id.clone());
            self.reindex(&owner, &used_sets([&old.ingress, &old.egress]), &[]);
            self.dirty.insert(owner);
        }
    }

    fn put_profile(&mut self, profile: &Arc<CalcProfile>) {
        let old = self.profiles.insert(profile.name.clone(), profile.clone());
        if old.is_none() {
            self.came_or_went(|w| w.endpoint.profiles.contains(&profile.name));
        }
        let owner = Owner::Profile(profile.name.clone());
        let used = |p: &CalcProfile| used_sets([&p.ingress, &p.egress]);
        self.reindex(&owner, &old.as_deref().map(used).unwrap_or_default(), &used(profile));
        self.dirty.insert(owner);
    }

    fn remove_profile(&mut self, name: &ProfileName) {
        if let Some(old) = self.profiles.remove(name) {
            self.came_or_went(|w| w.endpoint.profiles.contains(name));
            let owner = Owner::Profile(name.clone());
            self.reindex(&owner, &used_sets([&old.ingress, &old.egress]), &[]);
            self.dirty.insert(owner);
        }
    }

    /// Endpoints that list what does not exist drop in its place: they must be written again when it
    /// comes or goes.
    fn came_or_went(&mut self, lists: impl Fn(&LocalWorkload) -> bool) {
        let listing = self.workloads.iter().filter(|(_, w)| lists(w));
        self.dirty_workloads.extend(listing.map(|(id, _)| id.clone()));
        self.dirty_hosts |= !self.hosts.is_empty();
    }

    fn put_workload(&mut self, workload: &Arc<LocalWorkload>) {
        let id = workload.endpoint.id.clone();
        let moved = |old: &Arc<LocalWorkload>| {
            let (a, b) = (&old.endpoint, &workload.endpoint);
            a.iface != b.iface
                || a.addresses != b.addresses
                || a.allowed_sources != b.allowed_sources
        };
        if self.workloads.get(&id).is_some_and(moved) {
            self.remove_workload(&id);
        }
        self.workloads.insert(id.clone(), workload.clone());
        self.dirty_workloads.insert(id);
    }

    fn remove_workload(&mut self, id: &WorkloadId) {
        let Some(old) = self.workloads.remove(id) else { return };
        self.dirty_workloads.remove(id);
        let endpoint = &old.endpoint;
        // Another pod may have the same interface name only while one replaces the other.
        if let Some(heir) = self.workloads.values().find(|w| w.endpoint.iface == endpoint.iface) {
            self.dirty_workloads.insert(heir.endpoint.id.clone());
        }
        let iface = Key::Iface(endpoint.iface.clone());
        for version in self.config.families.clone() {
            let table = self.tables.of_mut(version);
            for map in [fixed::FROM_PODS, fixed::TO_PODS, fixed::POD_EXTRA_SOURCES] {
                table.remove_element(&map.into(), &iface);
            }
            for address in &endpoint.addresses {
                let key = fixed::source_key(&endpoint.iface, *address);
                table.remove_element(&fixed::POD_SOURCES.into(), &key);
            }
            for direction in Direction::ALL {
                table.remove_chain(&name::workload(direction, &endpoint.iface));
            }
            table.remove_chain(&name::extra_sources(&endpoint.iface));
        }
    }

    fn pool(&mut self, which: usize, dst: IpNet, wanted: bool) {
        let version = IpVersion::of_net(&dst);
        if !self.config.families.contains(&version) {
            return;
        }
        let (set, covers) = &mut self.pools[which];
        let cover = covers.entry(version).or_default();
        let CoverChange { added, removed } =
            if wanted { cover.insert(dst) } else { cover.remove(&dst) };
        let (table, set) = (self.tables.of_mut(version), Name::from(*set));
        for net in removed {
            table.remove_element(&set, &Key::Net(net));
        }
        for net in added {
            table.put_element(&set, Key::Net(net), None);
        }
    }

    fn change_hosts(&mut self, old: &[IpAddr], new: &[IpAddr]) {
        let set = Name::from(fixed::ALL_HOSTS);
        let known = |a: &&IpAddr| self.config.families.contains(&IpVersion::of(**a));
        for address in new.iter().filter(known) {
            let count = self.host_addresses.entry(*address).or_default();
            *count += 1;
            let table = self.tables.of_mut(IpVersion::of(*address));
            table.put_element(&set, Key::Addr(*address), None);
        }
        for address in old {
            let Some(count) = self.host_addresses.get_mut(address) else { continue };
            *count -= 1;
            if *count == 0 {
                self.host_addresses.remove(address);
                let table = self.tables.of_mut(IpVersion::of(*address));
                table.remove_element(&set, &Key::Addr(*address));
            }
        }
    }

    fn render(&mut self) {
        for version in self.config.families.clone() {
            if self.dirty_hosts {
                self.render_hosts(version);
            }
            for owner in &self.dirty {
                render_owner(
                    owner,
                    &self.config,
                    version,
                    (&self.policies, &self.profiles, &self.sets),
                    self.tables.of_mut(version),
                );
            }
            for id in self.dirty_workloads.clone() {
                self.render_workload(&id, version);
            }
        }
        self.dirty.clear();
        self.dirty_workloads.clear();
        self.dirty_hosts = false;
    }

    fn walk<T>(&self, direction: Direction, work: impl FnOnce(&Walk<'_>) -> T) -> T {
        work(&Walk {
            config: &self.config,
            direction,
            has_policy: &|id| self.policies.contains_key(id),
            has_profile: &|name| self.profiles.contains_key(name),
        })
    }

    fn render_workload(&mut self, id: &WorkloadId, version: IpVersion) {
        let Some(workload) = self.workloads.get(id).cloned() else { return };
        let endpoint = &workload.endpoint;
        if !speaks(endpoint, version) {
            return;
        }
        let chains = Direction::ALL.map(|direction| {
            let rules = self.walk(direction, |walk| {
                let mut rules: Vec<_> = walk.invalid().into_iter().collect();
                rules.extend(walk.tiers(&workload.tiers));
                rules.extend(walk.profiles(&endpoint.profiles));
                rules
            });
            let comment = format!("{} of pod {id}", direction.word());
            (direction, name::workload(direction, &endpoint.iface), Chain::regular(comment, rules))
        });
        let table = self.tables.of_mut(version);
        for (direction, name, chain) in chains {
            table.put_chain(name.clone(), chain);
            let map = match direction {
                Direction::Ingress => fixed::TO_PODS,
                Direction::Egress => fixed::FROM_PODS,
            };
            let key = Key::Iface(endpoint.iface.clone());
            table.put_element(&map.into(), key, Some(Verdict::Goto(name)));
        }
        render_sources(&workload, version, table);
    }

    fn render_hosts(&mut self, version: IpVersion) {
        let (ifaces, wildcard) = host::resolve(&self.hosts, &self.host_ifaces);
        let used: BTreeSet<&Arc<str>> = ifaces.values().chain(&wildcard).collect();
        let mut chains: BTreeMap<Name, Chain> = BTreeMap::new();
        for name in used {
            for (which, chain_name) in host::chain_names(name).into_iter().enumerate() {
                let host = &self.hosts[name];
                let chain =
                    self.walk(host::direction(which), |walk| host::chain(which, host, walk));
                chains.insert(chain_name, chain);
            }
        }
        let wildcard_chains = wildcard.as_ref().map(host::chain_names);
        let hosts = !chains.is_empty();
        let fixed = Fixed {
            config: &self.config,
            version,
            hosts,
            wildcard: [0, 1, 2, 3].map(|i| wildcard_chains.as_ref().map(|c| c[i].clone())),
        };
        let table = self.tables.of_mut(version);
        let gone: Vec<Name> =
            self.host_chains.iter().filter(|n| !chains.contains_key(*n)).cloned().collect();
        for name in &gone {
            table.remove_chain(name);
        }
        self.host_chains.extend(chains.keys().cloned());
        for (name, chain) in chains {
            table.put_chain(name, chain);
        }
        fixed.put(table);
        if hosts {
            dispatch_hosts(&ifaces, table);
        } else {
            Fixed::remove_hosts(table);
        }
    }
}

/// Whether an endpoint has anything of that family. If not, its packets are an unknown pod's: dropped,
/// like those with a source that is not the pod's. Every chain costs whenever the kernel takes in a
/// transaction, because it checks all ways through a table.
fn speaks(endpoint: &WorkloadEndpoint, version: IpVersion) -> bool {
    let addresses = endpoint.addresses.iter().any(|a| IpVersion::of(*a) == version);
    addresses || endpoint.allowed_sources.iter().any(|n| IpVersion::of_net(n) == version)
}

fn lists_policy(workload: &LocalWorkload, id: &PolicyId) -> bool {
    let mut all = workload.tiers.iter().flat_map(|t| t.ingress.iter().chain(&t.egress));
    all.any(|listed| listed == id)
}

fn dispatch_hosts(ifaces: &BTreeMap<IfaceName, Arc<str>>, table: &mut Table) {
    for (which, map) in fixed::HOST_MAPS.into_iter().enumerate() {
        let map = Name::from(map);
        let wanted: BTreeMap<Key, Verdict> = ifaces
            .iter()
            .map(|(iface, name)| {
                let chain = host::chain_names(name)[which].clone();
                (Key::Iface(iface.clone()), Verdict::Goto(chain))
            })
            .collect();
        let there = table.sets().get(&map).map(|s| s.elements.keys().cloned().collect());
        let there: Vec<Key> = there.unwrap_or_default();
        for key in there.iter().filter(|k| !wanted.contains_key(*k)) {
            table.remove_element(&map, key);
        }
        for (key, verdict) in wanted {
            table.put_element(&map, key, Some(verdict));
        }
    }
}

fn render_sources(workload: &LocalWorkload, version: IpVersion, table: &mut Table) {
    let endpoint = &workload.endpoint;
    for address in endpoint.addresses.iter().filter(|a| IpVersion::of(**a) == version) {
        let key = fixed::source_key(&endpoint.iface, *address);
        table.put_element(&fixed::POD_SOURCES.into(), key, None);
    }
    let mine = endpoint.allowed_sources.iter().filter(|n| IpVersion::of_net(n) == version);
    let nets: Vec<IpNet> = mine.copied().collect();
    if nets.is_empty() {
        return;
    }
    let chain = name::extra_sources(&endpoint.iface);
    let comment = format!("allowed sources of pod {}", endpoint.id);
    table.put_chain(chain.clone(), Chain::regular(comment, fixed::extra_sources(nets)));
    let key = Key::Iface(endpoint.iface.clone());
    table.put_element(&fixed::POD_EXTRA_SOURCES.into(), key, Some(Verdict::Jump(chain)));
}

type Known<'a> = (
    &'a BTreeMap<PolicyId, Arc<CalcPolicy>>,
    &'a BTreeMap<ProfileName, Arc<CalcProfile>>,
    &'a BTreeMap<(SetId, IpVersion), Half>,
);

fn render_owner(
    owner: &Owner,
    config: &RulesConfig,
    version: IpVersion,
    (policies, profiles, sets): Known<'_>,
    table: &mut Table,
) {
    let set_name = |id: &SetId| sets.get(&(id.clone(), version)).map(|h| h.name().clone());
    let renderer = Renderer { config, version, set_name: &set_name };
    for direction in Direction::ALL {
        let (name, rendered) = match owner {
            Owner::Policy(id) => {
                let render = |p: &Arc<CalcPolicy>| {
                    let origin = Origin {
                        tier: p.tier.as_str(),
                        kind: id.kind.as_str(),
                        namespace: &id.namespace,
                        name: &id.name,
                    };
                    let rules = renderer.rules(direction.choose(&p.ingress, &p.egress), &origin);
                    Chain::regular(format!("{} {id} tier {}", direction.word(), p.tier), rules)
                };
                (name::policy(direction, id), policies.get(id).map(render))
            }
            Owner::Profile(id) => {
                let render = |p: &Arc<CalcProfile>| {
                    let (tier, kind, namespace, name) = ("", "Profile", "", id.as_str());
                    let origin = Origin { tier, kind, namespace, name };
                    let rules = renderer.rules(direction.choose(&p.ingress, &p.egress), &origin);
                    Chain::regular(format!("{} Profile {id}", direction.word()), rules)
                };
                (name::profile(direction, id), profiles.get(id).map(render))
            }
        };
        match rendered {
            Some(chain) => table.put_chain(name, chain),
            None => table.remove_chain(&name),
        }
    }
}

fn used_sets(rules: [&Vec<CalcRule>; 2]) -> Vec<SetId> {
    let of_side = |m: &CalcMatch| {
        let sets = m.sets.iter().chain(&m.not_sets).chain(&m.port_sets);
        sets.chain(&m.not_port_sets).chain(&m.service_sets).cloned().collect::<Vec<_>>()
    };
    let of_rule = |r: &CalcRule| [of_side(&r.source), of_side(&r.destination)].concat();
    rules.into_iter().flatten().flat_map(of_rule).collect()
}
