//! Keeps the wanted tables in step with the calculation's outputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::output::{
    CalcMatch, CalcPolicy, CalcProfile, CalcRule, EndpointTier, LocalHost, LocalWorkload, Member,
    Output, RouteKind, SetId, SetKind,
};
use model::policy::Stage;
use model::{IfaceName, IpVersion, NodeName, PolicyId, ProfileName, WorkloadId};

use crate::affected::Affected;
use crate::config::RulesConfig;
use crate::cover::{Cover, CoverChange};
use crate::endpoint::Walk;
use crate::fixed::{self, Fixed};
use crate::flow;
use crate::group::Groups;
use crate::host::{self, HostHook};
use crate::judge::{Flow, Judge, Ruling};
use crate::name::{self, Direction};
use crate::needed::{self, Needed, Owner};
use crate::object::{Chain, Key, Name, Verdict};
use crate::rule::{Origin, Renderer};
use crate::sets::Sets;
use crate::table::{Table, Tables};
use crate::workload;

/// The wanted tables, and what they are made from. Touches memory only (law 2).
#[derive(Debug)]
pub struct Rules {
    config: RulesConfig,
    tables: Tables,
    sets: Sets,
    users: BTreeMap<SetId, BTreeSet<Owner>>,
    needed: Needed,
    /// The chains of policies and profiles that are written, with the sets that they ask for.
    asked: HashMap<(needed::Part, IpVersion), Vec<SetId>>,
    policies: BTreeMap<PolicyId, Arc<CalcPolicy>>,
    profiles: BTreeMap<ProfileName, Arc<CalcProfile>>,
    workloads: BTreeMap<WorkloadId, Arc<LocalWorkload>>,
    groups: Groups,
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
    /// Whose flows may have another verdict since the last look.
    affected: Affected,
    /// The first snapshot was complete: pods that come now are new, and have no flows.
    in_sync: bool,
}

impl Rules {
    /// Tables without any endpoint: from the first apply on, unknown workload interfaces are closed.
    pub fn new(config: RulesConfig) -> Self {
        let mut rules = Self {
            config,
            tables: Tables::default(),
            sets: Sets::default(),
            users: BTreeMap::new(),
            needed: Needed::default(),
            asked: HashMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::new(),
            workloads: BTreeMap::new(),
            groups: Groups::default(),
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
            affected: Affected::default(),
            in_sync: false,
        };
        rules.render();
        rules
    }

    /// Other choices of the administrator: the tables become what a cold start with them gives. The
    /// families stay as they are. Any flow may have another verdict afterwards.
    ///
    /// Writes every chain anew that depends on a choice, in memory: what is equal is no change for the
    /// kernel.
    pub fn configure(&mut self, config: RulesConfig) {
        let config = RulesConfig { families: self.config.families.clone(), ..config };
        if config == self.config {
            return;
        }
        self.config = config;
        self.affected.note_all();
        self.dirty.extend(self.policies.keys().cloned().map(Owner::Policy));
        self.dirty.extend(self.profiles.keys().cloned().map(Owner::Profile));
        self.groups.write_all_again();
        self.dirty_hosts = true;
        self.render();
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

    /// Whose flows may have another verdict since the last call.
    pub fn take_affected(&mut self) -> Affected {
        std::mem::take(&mut self.affected)
    }

    /// The bit of flows' marks that says "cut", if flows are cut.
    pub fn cut_bit(&self) -> Option<u32> {
        self.config.cut_bit()
    }

    /// What would become of each flow if it began now, and the name of the endpoint that says so.
    pub fn rulings<'a>(
        &'a self,
        flows: impl IntoIterator<Item = &'a Flow>,
    ) -> impl Iterator<Item = (Ruling, Option<String>)> {
        let judges = IpVersion::ALL.map(|v| (v, Judge::new(self.tables.of(v))));
        let by_iface: BTreeMap<&IfaceName, String> = self
            .workloads
            .values()
            .map(|w| (&w.endpoint.iface, w.endpoint.id.to_string()))
            .collect();
        flows.into_iter().map(move |flow| {
            let judge = judges.iter().find(|(v, _)| *v == flow.version());
            let ruling = judge.map_or(Ruling::Unclear, |(_, judge)| judge.ruling(flow));
            let endpoint = match &ruling {
                Ruling::Denied { endpoint: Some(iface), .. } => {
                    let pod = by_iface.get(iface).cloned();
                    Some(pod.unwrap_or_else(|| format!("host endpoint of {iface}")))
                }
                _ => None,
            };
            (ruling, endpoint)
        })
    }

    /// Says which interfaces have an address that the host endpoint `name` expects.
    pub fn resolve_host(&mut self, name: &Arc<str>, ifaces: Vec<IfaceName>) {
        let before = if ifaces.is_empty() {
            self.host_ifaces.remove(name).unwrap_or_default()
        } else {
            self.host_ifaces.insert(name.clone(), ifaces.clone()).unwrap_or_default()
        };
        if before != ifaces {
            self.affected.note_all();
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
            Output::Workload(workload) => self.put_workload(workload.clone()),
            Output::WorkloadGone(id) => self.remove_workload(id),
            Output::Host(host) => {
                self.affected.note_all();
                self.dirty_hosts = true;
                self.hosts.insert(host.endpoint.name.clone(), host.clone());
            }
            Output::HostGone(name) => {
                self.affected.note_all();
                self.dirty_hosts |= self.hosts.remove(name).is_some();
            }
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
            Output::InSync => self.in_sync = true,
            Output::Vtep(_) | Output::VtepGone(..) => {}
        }
    }

    fn put_set(&mut self, id: &SetId, kind: SetKind, members: &[Member]) {
        if self.sets.contains(id) {
            let owners: Vec<_> = self.users.get(id).into_iter().flatten().cloned().collect();
            for owner in &owners {
                self.affect(owner);
            }
        }
        let (versions, tables) = (&self.config.families, &mut self.tables);
        let moved = self.sets.put((id, kind), members, versions, tables);
        self.moved(&moved);
    }

    fn update_set(&mut self, id: &SetId, added: &[Member], removed: &[Member]) {
        for members in [added, removed] {
            self.affected.note_members(members, !self.hosts.is_empty());
        }
        for version in self.config.families.clone() {
            if self.sets.update(id, version, [added, removed], self.tables.of_mut(version)) {
                self.moved(std::slice::from_ref(id));
            }
        }
    }

    fn remove_set(&mut self, id: &SetId) {
        let moved = self.sets.remove(id, &mut self.tables);
        self.moved(&moved);
    }

    /// Rules about these sets must be written again.
    fn moved(&mut self, sets: &[SetId]) {
        let users = sets.iter().filter_map(|id| self.users.get(id)).flatten();
        self.dirty.extend(users.cloned());
    }

    /// The flows of everybody who has the policy or profile may have another verdict now.
    fn affect(&mut self, owner: &Owner) {
        let lists = |tier: &EndpointTier| match owner {
            Owner::Policy(id) => tier.ingress.contains(id) || tier.egress.contains(id),
            Owner::Profile(_) => false,
        };
        let host = |host: &Arc<LocalHost>| {
            let tiers = [&host.normal, &host.forward, &host.pre_dnat, &host.untracked];
            let profiled = match owner {
                Owner::Policy(_) => false,
                Owner::Profile(name) => host.endpoint.profiles.contains(name),
            };
            profiled || tiers.into_iter().flatten().any(lists)
        };
        if self.hosts.values().any(host) {
            self.affected.note_all();
        }
        let pods: Vec<_> = match owner {
            Owner::Policy(id) => self.groups.pods(|kind| kind.lists_policy(id)).collect(),
            Owner::Profile(name) => self.groups.pods(|k| k.profiles.contains(name)).collect(),
        };
        for pod in pods.into_iter().filter_map(|id| self.workloads.get(id)) {
            self.affected.note_pod(pod);
        }
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
            self.groups.policy_came_or_went(&policy.id);
            self.dirty_hosts |= !self.hosts.is_empty();
        }
        let owner = Owner::Policy(policy.id.clone());
        let used = |p: &CalcPolicy| used_sets([&p.ingress, &p.egress]);
        self.reindex(&owner, &old.as_deref().map(used).unwrap_or_default(), &used(policy));
        self.dirty.insert(owner);
    }

    fn remove_policy(&mut self, id: &PolicyId) {
        if let Some(old) = self.policies.remove(id) {
            self.groups.policy_came_or_went(id);
            self.dirty_hosts |= !self.hosts.is_empty();
            let owner = Owner::Policy(id.clone());
            self.reindex(&owner, &used_sets([&old.ingress, &old.egress]), &[]);
            self.dirty.insert(owner);
        }
    }

    fn put_profile(&mut self, profile: &Arc<CalcProfile>) {
        let old = self.profiles.insert(profile.name.clone(), profile.clone());
        if old.is_none() {
            self.groups.profile_came_or_went(&profile.name);
            self.dirty_hosts |= !self.hosts.is_empty();
        }
        let owner = Owner::Profile(profile.name.clone());
        let used = |p: &CalcProfile| used_sets([&p.ingress, &p.egress]);
        self.reindex(&owner, &old.as_deref().map(used).unwrap_or_default(), &used(profile));
        self.dirty.insert(owner);
    }

    fn remove_profile(&mut self, name: &ProfileName) {
        if let Some(old) = self.profiles.remove(name) {
            self.groups.profile_came_or_went(name);
            self.dirty_hosts |= !self.hosts.is_empty();
            let owner = Owner::Profile(name.clone());
            self.reindex(&owner, &used_sets([&old.ingress, &old.egress]), &[]);
            self.dirty.insert(owner);
        }
    }

    fn put_workload(&mut self, workload: Arc<LocalWorkload>) {
        let id = workload.endpoint.id.clone();
        let old = self.workloads.get(&id);
        if old.map_or(!self.in_sync, |old| workload::judged_otherwise(old, &workload)) {
            self.affected.note_pod(&workload);
        }
        if self.workloads.get(&id).is_some_and(|old| workload::moved(old, &workload)) {
            self.remove_workload(&id);
        }
        let speaks = |v: &IpVersion| workload::speaks(&workload.endpoint, *v);
        let versions: Vec<_> = self.config.families.iter().copied().filter(speaks).collect();
        self.groups.join(&workload, &versions);
        self.workloads.insert(id.clone(), workload);
        self.dirty_workloads.insert(id);
    }

    fn remove_workload(&mut self, id: &WorkloadId) {
        let Some(old) = self.workloads.remove(id) else { return };
        self.groups.leave(id);
        self.dirty_workloads.remove(id);
        let iface = &old.endpoint.iface;
        // Another pod may have the same interface name only while one replaces the other.
        if let Some(heir) = self.workloads.values().find(|w| w.endpoint.iface == *iface) {
            self.dirty_workloads.insert(heir.endpoint.id.clone());
        }
        for version in self.config.families.clone() {
            workload::remove(&old, self.tables.of_mut(version));
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
        if self.in_sync {
            // Before, all pods are looked at anyway.
            let dirty = std::mem::take(&mut self.dirty);
            for owner in &dirty {
                self.affect(owner);
            }
            self.dirty = dirty;
        }
        let groups = self.groups.take_dirty();
        for version in self.config.families.clone() {
            if self.dirty_hosts {
                self.render_hosts(version);
            }
            // What is new first: a chain that one that goes and one that comes both lead to stays.
            let (new, gone): (Vec<_>, Vec<_>) =
                groups.iter().partition(|name| self.groups.kind(name, version).is_some());
            for name in new.into_iter().chain(gone) {
                self.render_group(name, version);
            }
            for id in &self.dirty_workloads {
                let (Some(workload), Some(chains)) =
                    (self.workloads.get(id), self.groups.chains(id))
                else {
                    continue;
                };
                workload::put(workload, chains, version, self.tables.of_mut(version));
            }
        }
        for owner in std::mem::take(&mut self.dirty) {
            for version in self.config.families.clone() {
                for direction in Direction::ALL {
                    self.render_owner(&owner, direction, version);
                }
            }
        }
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

    fn render_group(&mut self, name: &Name, version: IpVersion) {
        let kind = self.groups.kind(name, version);
        let chain = kind.map(|kind| {
            let rules = self.walk(kind.direction, |walk| walk.kind(kind));
            Chain::regular(kind.comment(), rules)
        });
        let parts = kind.map(needed::by).unwrap_or_default();
        self.dirty.extend(self.needed.put(name, version, parts));
        let table = self.tables.of_mut(version);
        match chain {
            Some(chain) => table.put_chain(name.clone(), chain),
            None => table.remove_chain(name),
        }
    }

    /// Writes a policy's or profile's chain, where something leads to it.
    fn render_owner(&mut self, owner: &Owner, direction: Direction, version: IpVersion) {
        let key = ((owner.clone(), direction), version);
        let needed = self.needed.contains(&key);
        let chain = needed.then(|| self.owned(owner, direction, version)).flatten();
        let before = self.asked.remove(&key);
        if chain.is_none() && before.is_none() {
            return;
        }
        let name = match owner {
            Owner::Policy(id) => name::policy(direction, id),
            Owner::Profile(id) => name::profile(direction, id),
        };
        let table = self.tables.of_mut(version);
        match chain {
            Some((chain, sets)) => {
                for id in &sets {
                    self.sets.want(id, version, table);
                }
                self.asked.insert(key, sets);
                table.put_chain(name, chain);
            }
            None => table.remove_chain(&name),
        }
        for id in before.iter().flatten() {
            self.sets.unwant(id, version, table);
        }
    }

    /// The chain of a policy or profile that is there, and the sets that it asks for.
    fn owned(
        &self,
        owner: &Owner,
        direction: Direction,
        version: IpVersion,
    ) -> Option<(Chain, Vec<SetId>)> {
        let place = |id: &SetId| self.sets.place(id, version);
        let render = |stage, rules: &[CalcRule], origin: &Origin<'_>| {
            let renderer = Renderer { config: &self.config, version, stage, place: &place };
            renderer.rules(rules, origin)
        };
        let word = direction.word();
        let (comment, rules, calculated) = match owner {
            Owner::Policy(id) => {
                let policy = self.policies.get(id)?;
                let origin = Origin {
                    tier: policy.tier.as_str(),
                    kind: id.kind.as_str(),
                    namespace: &id.namespace,
                    name: &id.name,
                    owner: flow::Owner::Policy(id),
                    direction,
                };
                let calculated = direction.choose(&policy.ingress, &policy.egress);
                let rules = render(policy.stage, calculated, &origin);
                (format!("{word} {id} tier {}", policy.tier), rules, calculated)
            }
            Owner::Profile(id) => {
                let profile = self.profiles.get(id)?;
                let (tier, kind, namespace, name) = ("", "Profile", "", id.as_str());
                let owner = flow::Owner::Profile(name);
                let origin = Origin { tier, kind, namespace, name, owner, direction };
                let calculated = direction.choose(&profile.ingress, &profile.egress);
                let rules = render(Stage::Normal, calculated, &origin);
                (format!("{word} Profile {id}"), rules, calculated)
            }
        };
        Some((Chain::regular(comment, rules), used_sets([calculated])))
    }

    fn render_hosts(&mut self, version: IpVersion) {
        let (ifaces, wildcard) = host::resolve(&self.hosts, &self.host_ifaces);
        let mut chains: BTreeMap<Name, Chain> = BTreeMap::new();
        let mut parts: BTreeMap<Name, Vec<needed::Part>> = BTreeMap::new();
        let mut hooks: BTreeMap<HostHook, Option<Name>> = BTreeMap::new();
        for hook in HostHook::ALL {
            let everywhere = wildcard.as_ref().filter(|_| hook.knows_wildcard());
            let used: BTreeSet<&Arc<str>> = ifaces.values().chain(everywhere).collect();
            for name in used.into_iter().filter(|name| hook.concerns(&self.hosts[*name])) {
                let host = &self.hosts[name];
                let chain = self.walk(hook.direction(), |walk| hook.rules(host, walk));
                chains.insert(hook.chain(name), chain);
                parts.insert(hook.chain(name), hook.needs(host));
                let last = hooks.entry(hook).or_default();
                if everywhere == Some(name) {
                    *last = Some(hook.chain(name));
                }
            }
        }
        self.host_chains.extend(chains.keys().cloned());
        for name in &self.host_chains {
            let parts = parts.remove(name).unwrap_or_default();
            self.dirty.extend(self.needed.put(name, version, parts));
        }
        let table = self.tables.of_mut(version);
        for name in self.host_chains.iter().filter(|n| !chains.contains_key(*n)) {
            table.remove_chain(name);
        }
        for (name, chain) in chains {
            table.put_chain(name, chain);
        }
        let fixed = Fixed { config: &self.config, version, hooks };
        fixed.put(table);
        for hook in fixed.hooks.keys() {
            dispatch_hosts(*hook, &ifaces, &self.hosts, table);
        }
    }
}

/// One endpoint an interface. One that has nothing to say still keeps the wildcard's away.
fn dispatch_hosts(
    hook: HostHook,
    ifaces: &BTreeMap<IfaceName, Arc<str>>,
    hosts: &BTreeMap<Arc<str>, Arc<LocalHost>>,
    table: &mut Table,
) {
    let map = Name::from(hook.map());
    let verdict = |name: &Arc<str>| {
        if hook.concerns(&hosts[name]) { Verdict::Goto(hook.chain(name)) } else { Verdict::Return }
    };
    let wanted: BTreeMap<Key, Verdict> =
        ifaces.iter().map(|(iface, name)| (Key::Iface(iface.clone()), verdict(name))).collect();
    let there = table.sets().get(&map).map(|s| s.elements.keys().cloned().collect());
    let there: Vec<Key> = there.unwrap_or_default();
    for key in there.iter().filter(|k| !wanted.contains_key(*k)) {
        table.remove_element(&map, key);
    }
    for (key, verdict) in wanted {
        table.put_element(&map, key, Some(verdict));
    }
}

fn used_sets<const N: usize>(rules: [&Vec<CalcRule>; N]) -> Vec<SetId> {
    let of_side = |m: &CalcMatch| {
        let sets = m.sets.iter().chain(&m.not_sets).chain(&m.port_sets);
        sets.chain(&m.not_port_sets).chain(&m.service_sets).cloned().collect::<Vec<_>>()
    };
    let of_rule = |r: &CalcRule| [of_side(&r.source), of_side(&r.destination)].concat();
    rules.into_iter().flatten().flat_map(of_rule).collect()
}
