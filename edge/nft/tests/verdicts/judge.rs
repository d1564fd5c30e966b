//! The kernel's word against the specification's.

use std::collections::BTreeMap;
use std::fmt::Debug;

use calc::Calc;
use clusters::Dice;
use clusters::layout::{self, INTERFACES};
use dataplane::hosts::HostManager;
use model::output::Output;
use model::policy::Stage;
use model::{Action, HostInterface, IfaceName, InSync, NodeName, Update};
use nft::NftDriver;
use policy::{Decision, Packet, Point, Verdict, View, evaluate};
use rules::config::{EndpointToHost, Failsafe};
use rules::object::Name;
use rules::{Flow, Rules, RulesConfig, Ruling};
use testkit::Netns;

use crate::world::{Place, World, place, way};

/// What the agent of node `n0` has between the datastore and the kernel.
pub(crate) struct Agent {
    calc: Calc,
    hosts: HostManager,
    rules: Rules,
    driver: NftDriver,
}

impl Agent {
    pub(crate) fn new(node: &Netns, view: &View) -> Self {
        Self {
            calc: Calc::new(NodeName::from(layout::NODES[0])),
            hosts: HostManager::default(),
            rules: Rules::new(config(view)),
            driver: node.run(|| NftDriver::open().unwrap()),
        }
    }

    /// Tells the calculation, and the rules now and then.
    pub(crate) fn feed(&mut self, updates: Vec<Update>, dice: &mut Dice) {
        for update in updates {
            self.calc.update(update);
            if dice.one_in(4) {
                self.flush();
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        for output in self.calc.flush() {
            match &output {
                Output::Host(host) => self.hosts.want(&host.endpoint.name, Some(host)),
                Output::HostGone(name) => self.hosts.want(name, None),
                _ => {
                    self.rules.apply(&[output]);
                    continue;
                }
            }
            let outputs = self.hosts.resolve(&interfaces());
            self.rules.apply(&outputs);
        }
    }

    pub(crate) fn apply(&mut self, node: &Netns) {
        let Self { rules, driver, .. } = self;
        let report = node.run(|| driver.apply(rules, Some(&InSync::for_tests())).unwrap());
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    /// What is said about an established flow is what the kernel says about its first packet. Returns
    /// about how many something is said.
    pub(crate) fn agrees(&self, view: &View, packets: &[Packet], seed: u64) -> usize {
        let flows: Vec<Flow> = packets.iter().map(flow).collect();
        let mut said = 0;
        for (packet, (ruling, _)) in packets.iter().zip(self.rules.rulings(&flows)) {
            let verdict = match &ruling {
                Ruling::Passes => Verdict::Allow,
                Ruling::Denied { .. } => Verdict::Deny,
                Ruling::Unclear => continue,
            };
            said += 1;
            let wanted = expected(view, packet);
            assert!(
                wanted == Some(verdict),
                "seed {seed}: {packet:?} is {ruling:?}, not {wanted:?}"
            );
        }
        said
    }

    /// Law 1: an agent that knows the last state only wants the same tables, and finds them.
    pub(crate) fn is_as_if_fresh(&self, node: &Netns, view: &View, seed: u64) {
        let mut fresh = Self::new(node, view);
        let mut dice = Dice::new(seed);
        fresh.feed(clusters::updates(view, &mut dice), &mut dice);
        for version in self.rules.families() {
            let [old, new] = [&self.rules, &fresh.rules].map(|r| r.tables().of(*version));
            same(old.chains(), new.chains(), seed);
            same(old.sets(), new.sets(), seed);
        }
        let Self { rules, driver, .. } = &mut fresh;
        let report = node.run(|| driver.apply(rules, Some(&InSync::for_tests())).unwrap());
        assert!(!report.changed, "seed {seed}: the kernel has not what a fresh agent wants");
    }
}

fn same<T: PartialEq + Debug>(old: &BTreeMap<Name, T>, fresh: &BTreeMap<Name, T>, seed: u64) {
    for name in old.keys().chain(fresh.keys()) {
        let [old, fresh] = [old, fresh].map(|all| all.get(name));
        assert!(old == fresh, "seed {seed}: {name} depends on history: {old:#?}, not {fresh:#?}");
    }
}

fn config(view: &View) -> RulesConfig {
    let list = |from: &[policy::Failsafe]| {
        let one =
            |f: &policy::Failsafe| Failsafe { protocol: f.protocol, port: f.port, net: f.net };
        from.iter().map(one).collect()
    };
    RulesConfig {
        failsafe_inbound: list(&view.failsafe_inbound),
        failsafe_outbound: list(&view.failsafe_outbound),
        endpoint_to_host: match view.endpoint_to_host {
            Action::Allow => EndpointToHost::Accept,
            Action::Deny => EndpointToHost::Drop,
            Action::Pass | Action::Log => EndpointToHost::Return,
        },
        ..RulesConfig::default()
    }
}

/// As connection tracking would remember the packet.
fn flow(packet: &Packet) -> Flow {
    let (from, to) = way(packet);
    let (sent_to, sent_port) =
        packet.original.unwrap_or((packet.destination, packet.destination_port));
    // Services are behind the first interface.
    let towards = if packet.original.is_some() { Place::Interface(0) } else { to };
    let seen = |place| match place {
        Place::Pod(pod) => rules::Place::Behind(layout::pod_interface(pod).parse().unwrap()),
        Place::Interface(i) => rules::Place::Behind(INTERFACES[i].parse().unwrap()),
        Place::Host => rules::Place::Here,
    };
    Flow {
        protocol: packet.protocol,
        source: packet.source,
        source_port: packet.source_port,
        sent_to,
        sent_port,
        destination: packet.destination,
        destination_port: packet.destination_port,
        icmp: packet.icmp,
        from: seen(from),
        towards: seen(towards),
        to: seen(to),
    }
}

fn interfaces() -> BTreeMap<IfaceName, HostInterface> {
    let one = |(i, name): (usize, &&str)| {
        let addresses = layout::node_addresses(0, i).into_iter().collect();
        (name.parse().unwrap(), HostInterface { addresses, running: true, mtu: 1500 })
    };
    INTERFACES.iter().enumerate().map(one).collect()
}

/// What the node must do with the packet; nothing for one that never comes to it, or that the
/// specification is not about.
pub(crate) fn expected(view: &View, packet: &Packet) -> Option<Verdict> {
    let here = NodeName::from(layout::NODES[0]);
    let (from, to) = way(packet);
    if from == to || matches!((from, to), (Place::Interface(_), Place::Interface(_))) {
        return None;
    }
    // Its way to the service would be that of a socket that is bound to the other interface.
    let by_first = layout::node_addresses(0, 0).contains(&packet.source);
    if packet.original.is_some() && from == Place::Host && !by_first {
        return None;
    }
    let known = |a| view.workload_at(a).is_some();
    match [packet.source, packet.destination].map(|a| (place(a), known(a))) {
        // Not (or no longer) the address of that interface: forged, or an unknown pod.
        [(Some(Place::Pod(_)), false), _] => return Some(Verdict::Deny),
        [_, (Some(Place::Pod(_)), false)] => return None,
        _ => {}
    }
    let node = |point: &Point| match point {
        Point::Workload(id) => view.workloads[id].node.clone(),
        Point::Host(name, _) => view.hosts[name].node.clone(),
        Point::Unprotected => here.clone(),
    };
    // What other nodes do with it before and after is not our business.
    let decision = evaluate(view, packet);
    let untracked = |s: &policy::Step| s.stage == Stage::Untracked && s.verdict == Verdict::Allow;
    if packet.original.is_some() && decision.steps.iter().any(untracked) {
        // What is not tracked is not translated.
        return None;
    }
    let denied =
        decision.steps.iter().any(|s| s.verdict == Verdict::Deny && node(&s.point) == here);
    Some(if denied { Verdict::Deny } else { Verdict::Allow })
}

/// A packet that the kernel treats in another way.
pub(crate) struct Difference {
    pub(crate) packet: Packet,
    pub(crate) decision: Decision,
    pub(crate) got: Verdict,
}

/// How many of the packets pass, if all is as it should be.
pub(crate) fn compare(
    world: &mut World,
    view: &View,
    packets: &[Packet],
) -> Result<usize, Box<Difference>> {
    let passed = world.passes(packets);
    for (packet, passed) in packets.iter().zip(&passed) {
        let got = if *passed { Verdict::Allow } else { Verdict::Deny };
        if expected(view, packet) != Some(got) {
            let decision = evaluate(view, packet);
            return Err(Box::new(Difference { packet: *packet, decision, got }));
        }
    }
    Ok(passed.iter().filter(|p| **p).count())
}

/// The smallest cluster found that shows a difference for the packet, made from nothing.
pub(crate) fn shrink(world: &mut World, view: &View, packet: &Packet) -> String {
    if !differs(world, view, packet) {
        return "only after the changes: a cluster made from nothing shows no difference"
            .to_owned();
    }
    let mut smallest = view.clone();
    while let Some(less) =
        clusters::smaller(&smallest).into_iter().find(|v| differs(world, v, packet))
    {
        smallest = less;
    }
    let decision = evaluate(&smallest, packet);
    let (from, to) = way(packet);
    let tables = world.node.out("nft list ruleset");
    format!(
        "Smallest cluster:\n{}\nThe packet goes from {from:?} to {to:?}; the \
         specification says {:?}: {decision:#?}\n{tables}",
        clusters::yaml(&smallest),
        expected(&smallest, packet)
    )
}

fn differs(world: &mut World, view: &View, packet: &Packet) -> bool {
    if expected(view, packet).is_none() {
        return false;
    }
    let mut dice = Dice::new(0);
    let mut agent = Agent::new(&world.node, view);
    agent.feed(clusters::updates(view, &mut dice), &mut dice);
    agent.apply(&world.node);
    compare(world, view, &[*packet]).is_err()
}
