//! Laws 1 and 5 over random histories: whatever happened before, downstream ends with what a cold
//! start of the final objects gives, which is what a calculation without any index says; and no
//! output on the way refers to what is not there.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use calc::Calc;
use common::{Downstream, uses};
use ipnet::IpNet;
use model::endpoint::HostTarget;
use model::network::{Block, EncapMode, Node, Pool};
use model::output::{Member, RouteKind};
use model::policy::{EntityMatch, NetworkSet, NetworkSetId, Profile, ServiceId, Stage, Tier};
use model::update::Backend;
use model::{
    Action, HostEndpoint, Labels, NamedPort, NodeName, Policy, PolicyId, PolicyKind, Port,
    ProfileName, Protocol, Rule, Update, WorkloadEndpoint, WorkloadId,
};
use proptest::prelude::*;
use selector::Selector;

/// A small, fixed stream of choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }

    fn some<T>(&mut self, one_in: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.roll(one_in) == 0).then(|| value(self))
    }

    fn list<T>(&mut self, max: u64, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.roll(max + 1)).map(|_| item(self)).collect()
    }
}

const NODES: [&str; 3] = ["here", "far", "farther"];
const PROFILES: [&str; 3] = ["kns.a", "kns.b", "ksa.a.x"];

fn labels(d: &mut Dice) -> Labels {
    let pair =
        |d: &mut Dice| (d.pick(&["app", "role", "env"]).into(), d.pick(&["x", "y", "z"]).into());
    Arc::new(d.list(3, pair).into_iter().collect())
}

fn selector(d: &mut Dice) -> Selector {
    let text = d.pick(&[
        "all()",
        "has(app)",
        "app == 'x'",
        "app in {'x', 'y'}",
        "app == 'x' && role == 'y'",
        "app == 'x' || has(role)",
        "!has(env)",
        "env != 'z'",
        "role starts with 'x' && env not in {'x'}",
        "has(env) && !has(env)",
    ]);
    Selector::parse(text).expect("well formed")
}

fn address(d: &mut Dice) -> IpAddr {
    let text = d.pick(&["10.0.0.1", "10.0.0.2", "10.0.0.65", "10.0.1.1", "fd00::1", "fd00::41"]);
    text.parse().expect("well formed")
}

fn ports(d: &mut Dice) -> Vec<NamedPort> {
    d.list(2, |d| NamedPort {
        name: d.pick(&["http", "dns"]).into(),
        protocol: d.pick(&[Protocol::TCP, Protocol::UDP]),
        port: d.pick(&[80, 53]),
    })
}

fn profiles(d: &mut Dice) -> Vec<ProfileName> {
    d.list(2, |d| d.pick(&PROFILES).into())
}

fn workload(id: WorkloadId, d: &mut Dice) -> WorkloadEndpoint {
    WorkloadEndpoint {
        iface: format!("cali{}", id.name).parse().expect("well formed"),
        id,
        node: d.pick(&NODES).into(),
        addresses: d.list(2, address),
        labels: labels(d),
        profiles: profiles(d),
        ports: ports(d),
        allowed_sources: Vec::new(),
    }
}

fn host(name: &str, d: &mut Dice) -> HostEndpoint {
    HostEndpoint {
        name: name.into(),
        node: d.pick(&NODES).into(),
        target: HostTarget::All,
        addresses: d.list(2, address),
        labels: labels(d),
        profiles: profiles(d),
        ports: ports(d),
    }
}

fn entity(d: &mut Dice) -> EntityMatch {
    let port = |d: &mut Dice| match d.roll(3) {
        0 => Port::Range(80, 90),
        _ => Port::Named(d.pick(&["http", "dns"]).into()),
    };
    EntityMatch {
        selector: d.some(2, selector),
        not_selector: d.some(4, selector),
        ports: if d.roll(3) == 0 { d.list(2, port) } else { Vec::new() },
        not_ports: if d.roll(5) == 0 { d.list(1, port) } else { Vec::new() },
        service: d.some(4, |d| service(d.roll(2))),
        ..EntityMatch::default()
    }
}

fn rules(d: &mut Dice) -> Vec<Rule> {
    d.list(2, |d| Rule {
        protocol: d.some(2, |d| d.pick(&[Protocol::TCP, Protocol::UDP])),
        source: entity(d),
        destination: entity(d),
        ..Rule::any(d.pick(&[Action::Allow, Action::Deny, Action::Pass, Action::Log]))
    })
}

fn policy(id: PolicyId, d: &mut Dice) -> Policy {
    Policy {
        id,
        tier: d.pick(&["default", "default", "first", "last"]).into(),
        order: d.some(2, |d| d.pick(&[1.0, 2.0])),
        selector: selector(d),
        applies_ingress: d.roll(3) > 0,
        applies_egress: d.roll(3) > 0,
        ingress: rules(d),
        egress: rules(d),
        stage: d.pick(&[Stage::Normal, Stage::Normal, Stage::PreDnat, Stage::Untracked]),
        apply_on_forward: d.roll(2) == 0,
        staged: d.roll(5) == 0,
        everywhere: d.roll(8) == 0,
    }
}

fn node(d: &mut Dice) -> Node {
    let v4 = |d: &mut Dice| {
        d.pick(&["192.168.0.1/24", "192.168.0.2/24", "192.168.1.3/24"])
            .parse()
            .expect("well formed")
    };
    let v6 = |d: &mut Dice| d.pick(&["fc00::1/64", "fc00:1::2/64"]).parse().expect("well formed");
    let addresses = d.some(1, v4).into_iter().chain(d.some(2, v6)).collect();
    let tunnels =
        |d: &mut Dice| d.pick(&["10.0.0.64", "10.0.0.2", "fd00::40"]).parse().expect("well formed");
    Node {
        addresses,
        vxlan_addresses: d.list(2, tunnels),
        vxlan_mac_v4: d.some(3, |_| [2, 0, 0, 0, 0, 1]),
        ..Node::default()
    }
}

fn pool(d: &mut Dice) -> Pool {
    let modes = [EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet];
    let vxlan = d.pick(&modes);
    Pool {
        cidr: d.pick(&["10.0.0.0/16", "10.0.0.0/24", "fd00::/112"]).parse().expect("well formed"),
        ipip: if vxlan == EncapMode::Never { d.pick(&modes) } else { EncapMode::Never },
        vxlan,
        nat_outgoing: d.roll(2) == 0,
        disabled: false,
    }
}

const BLOCKS: [&str; 4] = ["10.0.0.0/26", "10.0.0.64/26", "10.0.1.0/26", "fd00::40/122"];

fn block(cidr: IpNet, d: &mut Dice) -> Block {
    Block {
        cidr,
        affinity: d.some(1, |d| d.pick(&NODES).into()),
        borrowed: d.list(2, |d| (address(d), d.pick(&NODES).into())),
    }
}

fn service(n: u64) -> ServiceId {
    ServiceId { namespace: "a".into(), name: format!("svc{n}").into() }
}

/// One change: the kind of object, which one, and the seed of its content (`None`: gone).
type Op = (u8, u8, Option<u64>);

fn update((kind, key, seed): Op) -> Update {
    let key = u64::from(key);
    let name: Arc<str> = format!("{kind}-{key}").into();
    let mut dice = seed.map(Dice);
    macro_rules! object {
        ($build:expr) => {
            dice.as_mut().map($build).map(Arc::new)
        };
    }
    match kind {
        0..=2 => {
            let id = WorkloadId { namespace: "a".into(), name: format!("{key}").into() };
            Update::Workload(id.clone(), object!(|d| workload(id, d)))
        }
        3 => Update::Host(name.clone(), object!(|d| host(&name, d))),
        4..=6 => {
            let kind = PolicyKind::GlobalNetworkPolicy;
            let id = PolicyId { name: format!("p{key}").into(), namespace: "".into(), kind };
            Update::Policy(id.clone(), object!(|d| policy(id, d)))
        }
        7 => {
            let name = ["default", "first", "last"][key as usize % 3];
            let tier = |d: &mut Dice| Tier {
                name: name.into(),
                order: d.some(2, |d| d.pick(&[1.0, 2.0])),
                default_action: d.pick(&[Action::Deny, Action::Pass]),
            };
            Update::Tier(name.into(), dice.as_mut().map(tier))
        }
        8 => {
            let name = PROFILES[key as usize % 3];
            let profile =
                |d: &mut Dice| Profile { ingress: rules(d), egress: rules(d), labels: labels(d) };
            Update::Profile(name.into(), object!(profile))
        }
        9 => {
            let id = NetworkSetId { namespace: "".into(), name };
            let net = |d: &mut Dice| {
                d.pick(&["10.0.0.0/24", "10.0.0.1/32", "fd00::/64"]).parse().expect("well formed")
            };
            let set = |d: &mut Dice| NetworkSet {
                labels: labels(d),
                profiles: profiles(d),
                nets: d.list(3, net),
            };
            Update::NetworkSet(id, object!(set))
        }
        10 => {
            let backend = |d: &mut Dice| Backend {
                address: address(d),
                protocol: d.pick(&[Protocol::TCP, Protocol::UDP]),
                port: d.pick(&[80, 53]),
            };
            Update::ServiceSlice(name, service(key % 2), object!(|d| d.list(3, backend)))
        }
        11 => Update::Node(NODES[key as usize % 3].into(), object!(node)),
        12 => Update::Pool(format!("pool{}", key % 2).into(), dice.as_mut().map(pool)),
        _ => {
            let cidr: IpNet = BLOCKS[key as usize % 4].parse().expect("well formed");
            Update::Block(cidr, object!(|d| block(cidr, d)))
        }
    }
}

/// The key of an update: its text up to its content.
fn key(update: &Update) -> String {
    match update {
        Update::Workload(k, _) => format!("w{k}"),
        Update::Host(k, _) => format!("h{k}"),
        Update::Policy(k, _) => format!("p{k}"),
        Update::Tier(k, _) => format!("t{k}"),
        Update::Profile(k, _) => format!("f{k}"),
        Update::NetworkSet(k, _) => format!("s{k:?}"),
        Update::ServiceSlice(k, s, _) => format!("v{k}{s:?}"),
        Update::Node(k, _) => format!("n{k}"),
        Update::Pool(k, _) => format!("o{k}"),
        Update::Block(k, _) => format!("b{k}"),
        Update::InSync => "in sync".into(),
    }
}

fn cold(objects: &BTreeMap<String, Update>, reverse: bool) -> Downstream {
    let mut calc = Calc::new("here".into());
    let mut down = Downstream::default();
    let mut updates: Vec<&Update> = objects.values().collect();
    if reverse {
        updates.reverse();
    }
    for update in updates {
        calc.update(update.clone());
    }
    down.apply(&calc.flush());
    down
}

/// The objects, as a calculation without any index sees them.
#[derive(Default)]
struct Naive {
    workloads: Vec<Arc<WorkloadEndpoint>>,
    hosts: Vec<Arc<HostEndpoint>>,
    sets: Vec<Arc<NetworkSet>>,
    policies: Vec<Arc<Policy>>,
    profiles: BTreeMap<ProfileName, Arc<Profile>>,
    pools: usize,
}

impl Naive {
    fn of(objects: &BTreeMap<String, Update>) -> Self {
        let mut naive = Self::default();
        for update in objects.values() {
            match update {
                Update::Workload(_, Some(w)) => naive.workloads.push(w.clone()),
                Update::Host(_, Some(h)) => naive.hosts.push(h.clone()),
                Update::NetworkSet(_, Some(s)) => naive.sets.push(s.clone()),
                Update::Policy(_, Some(p)) => naive.policies.push(p.clone()),
                Update::Profile(n, Some(p)) => drop(naive.profiles.insert(n.clone(), p.clone())),
                Update::Pool(_, Some(_)) => naive.pools += 1,
                _ => (),
            }
        }
        naive
    }

    fn labels(&self, own: &Labels, profiles: &[ProfileName]) -> BTreeMap<Arc<str>, Arc<str>> {
        let mut all = BTreeMap::new();
        for name in profiles.iter().rev() {
            let inherited = self.profiles.get(name).map(|p| p.labels.clone()).unwrap_or_default();
            all.extend(inherited.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        all.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
        all
    }

    fn members(&self, selector: &Selector) -> BTreeSet<Member> {
        let mut members = BTreeSet::new();
        let mut add = |own, profiles, nets: Vec<IpNet>| {
            if selector.matches(&self.labels(own, profiles)) {
                members.extend(nets.into_iter().map(Member::Net));
            }
        };
        let nets = |a: &[IpAddr]| a.iter().map(|a| IpNet::from(*a)).collect();
        self.workloads.iter().for_each(|w| add(&w.labels, &w.profiles, nets(&w.addresses)));
        self.hosts.iter().for_each(|h| add(&h.labels, &h.profiles, nets(&h.addresses)));
        self.sets.iter().for_each(|s| add(&s.labels, &s.profiles, s.nets.clone()));
        members
    }

    fn check(&self, down: &Downstream) {
        let here = NodeName::from("here");
        for policy in &self.policies {
            let selects =
                |own, profiles: &[_]| policy.selector.matches(&self.labels(own, profiles));
            let on_host =
                self.hosts.iter().any(|h| h.node == here && selects(&h.labels, &h.profiles));
            let on_pod = policy.stage == Stage::Normal
                && self.workloads.iter().any(|w| w.node == here && selects(&w.labels, &w.profiles));
            let wanted = on_host || on_pod || policy.everywhere;
            assert_eq!(down.policies.contains_key(&policy.id), wanted, "{policy:?}");
            let Some(calc) = down.policies.get(&policy.id) else { continue };
            for (rule, calc) in policy.ingress.iter().zip(&calc.ingress) {
                let Some(selector) = &rule.source.not_selector else { continue };
                let (_, members) = &down.sets[selector.id()];
                assert!(uses(calc).any(|s| **s == *selector.id()));
                assert_eq!(*members, self.members(selector), "{selector}");
            }
        }
        for w in self.workloads.iter().filter(|w| w.node == here) {
            let sent = &down.workloads[&w.id];
            let listed: BTreeSet<_> =
                sent.tiers.iter().flat_map(|t| t.ingress.iter().cloned()).collect();
            let known = ["default"];
            let wanted = self.policies.iter().filter(|p| {
                p.applies_ingress
                    && !p.staged
                    && p.stage == Stage::Normal
                    && p.selector.matches(&self.labels(&w.labels, &w.profiles))
            });
            for policy in wanted.clone().filter(|p| known.contains(&p.tier.as_str())) {
                assert!(listed.contains(&policy.id), "{policy:?} is not on {w:?}");
            }
            let wanted: BTreeSet<_> = wanted.map(|p| p.id.clone()).collect();
            assert!(listed.is_subset(&wanted));
        }
        let routes = |kind| down.routes.values().filter(move |r| r.kind == kind).count();
        let addresses: BTreeSet<_> = self
            .workloads
            .iter()
            .filter(|w| w.node == here)
            .flat_map(|w| w.addresses.clone())
            .collect();
        assert_eq!(routes(RouteKind::LocalWorkload), addresses.len());
        assert!(routes(RouteKind::Pool) <= self.pools);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_history_reaches_the_state_of_a_cold_start(
        ops in prop::collection::vec((0u8..14, 0u8..6, prop::option::weighted(0.7, any::<u64>()), any::<bool>()), 1..60),
    ) {
        let mut calc = Calc::new("here".into());
        let mut down = Downstream::default();
        let mut objects: BTreeMap<String, Update> = BTreeMap::new();
        for (kind, which, seed, flush) in ops {
            let change = update((kind, which, seed));
            match seed {
                Some(_) => drop(objects.insert(key(&change), change.clone())),
                None => drop(objects.remove(&key(&change))),
            }
            calc.update(change);
            if flush {
                down.apply(&calc.flush());
            }
        }
        down.apply(&calc.flush());
        prop_assert!(calc.flush().is_empty(), "the second flush is free");
        forget_defaults(&mut down);
        Naive::of(&objects).check(&down);
        for reverse in [false, true] {
            let mut fresh = cold(&objects, reverse);
            forget_defaults(&mut fresh);
            prop_assert_eq!(&down, &fresh);
        }
        // And back to nothing.
        for gone in objects.into_values() {
            calc.update(without(gone));
        }
        down.apply(&calc.flush());
        forget_defaults(&mut down);
        prop_assert_eq!(&down, &Downstream::default());
        prop_assert_eq!(calc.counts().sets, 0);
    }
}

/// A node without its object equals a node that was never heard of.
fn forget_defaults(down: &mut Downstream) {
    if down.this.as_deref() == Some(&Node::default()) {
        down.this = None;
    }
}

fn without(update: Update) -> Update {
    match update {
        Update::Workload(k, _) => Update::Workload(k, None),
        Update::Host(k, _) => Update::Host(k, None),
        Update::Policy(k, _) => Update::Policy(k, None),
        Update::Tier(k, _) => Update::Tier(k, None),
        Update::Profile(k, _) => Update::Profile(k, None),
        Update::NetworkSet(k, _) => Update::NetworkSet(k, None),
        Update::ServiceSlice(k, s, _) => Update::ServiceSlice(k, s, None),
        Update::Node(k, _) => Update::Node(k, None),
        Update::Pool(k, _) => Update::Pool(k, None),
        Update::Block(k, _) => Update::Block(k, None),
        Update::InSync => Update::InSync,
    }
}
