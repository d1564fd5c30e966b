//! Addresses of pods that no policy can tell apart.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{IpVersion, NamedPort, NodeName, ProfileName, Rule, WorkloadEndpoint};
use selector::Selector;

use crate::judge::Judge;
use crate::packet::Packet;
use crate::view::View;

/// One of the addresses stands for all of its class.
pub(crate) struct Class<'v> {
    pub(crate) address: IpAddr,
    /// The pod there, if what its packets meet on their way depends on nothing but its node and
    /// its own policies.
    pub(crate) pod: Option<&'v WorkloadEndpoint>,
    /// The node, if it has host endpoints.
    pub(crate) node: Option<&'v NodeName>,
}

/// Everything about an address that a packet's verdict can depend on: two with one key are in one class.
/// What it compares is whatever a rule, a policy's selector or a failsafe port looks at.
#[derive(PartialEq, Eq, Hash)]
struct Key<'v> {
    /// Of an address that is in a class of its own.
    alone: Option<IpAddr>,
    version: IpVersion,
    node: Option<&'v NodeName>,
    /// The pods that have it, by their [`Look`].
    pods: Vec<u32>,
    /// Host endpoints that expect it.
    hosts: Vec<&'v str>,
    /// Lists of prefixes that contain it.
    nets: Vec<u32>,
    /// Services behind which it is, and whether on the packet's port.
    services: BTreeSet<(u32, bool)>,
}

/// A pod, as selectors and profiles see it.
#[derive(PartialEq, Eq, Hash)]
struct Look<'v> {
    /// The values of the labels that some selector asks for.
    labels: Vec<Option<&'v str>>,
    /// The profiles' rules; none for a profile that does not exist.
    profiles: Vec<Option<u32>>,
    ports: &'v [NamedPort],
}

/// Gives each of the things that it is shown a number, equal ones the same.
struct Numbers<T>(HashMap<T, u32>);

impl<T: Eq + Hash> Numbers<T> {
    fn of(&mut self, thing: T) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(thing).or_insert(next)
    }
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// The classes of `addresses` for packets `like` this one, and the class of each address. Cost: linear in
/// addresses, rules and prefixes (times the logarithm of the addresses).
pub(crate) fn classes<'v>(
    judge: &Judge<'v>,
    addresses: &[IpAddr],
    like: &Packet,
) -> (Vec<Class<'v>>, Vec<u32>) {
    let view = judge.view();
    let nets = containing(view, addresses);
    let services = backing(view, addresses, like);
    let mut looks = Looks::new(judge);
    let mut numbers = Numbers::default();
    let mut found = Vec::new();
    let mut class_of = Vec::with_capacity(addresses.len());
    for ((address, nets), services) in addresses.iter().zip(nets).zip(services) {
        let pods = judge.workloads_at(*address);
        // A node that has the address, or none that has the pod: the way is another then.
        let pod = pods.first().copied().filter(|_| judge.node_at(*address).is_none());
        let node = pod.map(|pod| &pod.node).filter(|node| !judge.hosts_on(node).is_empty());
        let key = Key {
            alone: pod.is_none().then_some(*address),
            version: IpVersion::of(*address),
            node,
            pods: pods.iter().map(|pod| looks.of(pod)).collect(),
            hosts: judge.hosts_at(*address).iter().map(|h| &*h.name).collect(),
            nets,
            services,
        };
        let class = numbers.of(key);
        if class as usize == found.len() {
            found.push(Class { address: *address, pod, node });
        }
        class_of.push(class);
    }
    (found, class_of)
}

/// All rules that a verdict between pods can depend on.
pub(crate) fn rules(view: &View) -> impl Iterator<Item = &Rule> {
    let policies = view.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress));
    policies.chain(view.profiles.values().flat_map(|p| p.ingress.iter().chain(&p.egress)))
}

/// Pods' looks, by number.
struct Looks<'a, 'v> {
    judge: &'a Judge<'v>,
    keys: Vec<std::sync::Arc<str>>,
    profiles: HashMap<&'v ProfileName, Option<u32>>,
    rules: Numbers<(&'v [Rule], &'v [Rule])>,
    known: Numbers<Look<'v>>,
}

impl<'a, 'v> Looks<'a, 'v> {
    fn new(judge: &'a Judge<'v>) -> Self {
        let view = judge.view();
        let sides = rules(view).flat_map(|r| [&r.source, &r.destination]);
        let of_rules = sides.flat_map(|side| side.selector.iter().chain(&side.not_selector));
        let selectors: HashSet<&Selector> =
            of_rules.chain(view.policies.values().map(|p| &p.selector)).collect();
        let keys: BTreeSet<_> = selectors.into_iter().flat_map(Selector::keys).collect();
        let (profiles, rules, known) = (HashMap::new(), Numbers::default(), Numbers::default());
        Self { judge, keys: keys.into_iter().collect(), profiles, rules, known }
    }

    fn of(&mut self, pod: &'v WorkloadEndpoint) -> u32 {
        let view = self.judge.view();
        let labels = view.labels(&pod.labels, &pod.profiles);
        let labels = self.keys.iter().map(|key| labels.look(key)).collect();
        let rules = &mut self.rules;
        let mut profile = |name| {
            *self.profiles.entry(name).or_insert_with(|| {
                view.profiles.get(name).map(|p| rules.of((&*p.ingress, &*p.egress)))
            })
        };
        let profiles = pod.profiles.iter().map(&mut profile).collect();
        self.known.of(Look { labels, profiles, ports: &pod.ports })
    }
}

/// For each address the lists of prefixes that contain it: those of rules, network sets and failsafe
/// ports.
fn containing(view: &View, addresses: &[IpAddr]) -> Vec<Vec<u32>> {
    let mut order: Vec<usize> = (0..addresses.len()).collect();
    order.sort_unstable_by_key(|i| addresses[*i]);
    let sides = rules(view).flat_map(|r| [&r.source, &r.destination]);
    let mut lists: HashSet<&[IpNet]> =
        sides.flat_map(|side| [&*side.nets, &*side.not_nets]).collect();
    lists.extend(view.network_sets.values().map(|set| set.nets.as_slice()));
    let failsafe = view.failsafe_inbound.iter().chain(&view.failsafe_outbound);
    lists.extend(failsafe.filter_map(|f| f.net.as_ref().map(std::slice::from_ref)));
    let mut found = vec![Vec::new(); addresses.len()];
    for (number, list) in lists.into_iter().enumerate() {
        let number = number as u32;
        for net in list {
            let from = order.partition_point(|i| addresses[*i] < net.network());
            let inside = order[from..].iter().take_while(|i| addresses[**i] <= net.broadcast());
            for i in inside {
                let of_address: &mut Vec<u32> = &mut found[*i];
                if of_address.last() != Some(&number) {
                    of_address.push(number);
                }
            }
        }
    }
    found
}

/// For each address the services that rules name and that it stands behind.
fn backing(view: &View, addresses: &[IpAddr], like: &Packet) -> Vec<BTreeSet<(u32, bool)>> {
    let mut at: HashMap<IpAddr, Vec<usize>> = HashMap::new();
    for (i, address) in addresses.iter().enumerate() {
        at.entry(*address).or_default().push(i);
    }
    let sides = rules(view).flat_map(|r| [&r.source, &r.destination]);
    let named: BTreeSet<_> = sides.filter_map(|side| side.service.as_ref()).collect();
    let mut found = vec![BTreeSet::new(); addresses.len()];
    for (number, service) in named.into_iter().enumerate() {
        let slices = view.services.get(service).into_iter().flat_map(|slices| slices.values());
        for backend in slices.flat_map(|slice| slice.iter()) {
            let asked = (backend.protocol, backend.port) == (like.protocol, like.destination_port);
            for i in at.get(&backend.address).into_iter().flatten() {
                found[*i].insert((number as u32, asked));
            }
        }
    }
    found
}
