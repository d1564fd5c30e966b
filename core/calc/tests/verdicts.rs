//! Law 9, without a kernel: what a data plane would do with the calculation's outputs is what the
//! specification says of the objects themselves, packet by packet, on whichever node the pod is.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;

use calc::Calc;
use clusters::Dice;
use clusters::layout::NODES;
use common::Downstream;
use model::output::{CalcMatch, CalcRule, EndpointTier, Member, PolicyList, SetId};
use model::policy::Icmp;
use model::{Action, NodeName, WorkloadId};
use policy::{Direction, Packet, Point, Reason, Verdict, evaluate};
use proptest::prelude::*;

/// What a data plane does with the outputs, read off the words of `model::output`.
struct Interpreter<'a> {
    down: &'a Downstream,
    packet: &'a Packet,
}

impl Interpreter<'_> {
    fn verdict(&self, id: &WorkloadId, direction: Direction) -> Verdict {
        let w = &self.down.workloads[id];
        for tier in &w.tiers {
            let policies = match direction {
                Direction::Ingress => &tier.ingress,
                Direction::Egress => &tier.egress,
            };
            if policies.is_empty() {
                continue;
            }
            match self.tier(policies, direction, tier) {
                Action::Allow => return Verdict::Allow,
                Action::Deny => return Verdict::Deny,
                Action::Pass | Action::Log => {}
            }
        }
        for name in &w.endpoint.profiles {
            let profile = &self.down.profiles[name];
            let rules = match direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            match self.rules(rules) {
                Some(Action::Allow) => return Verdict::Allow,
                Some(Action::Deny) => return Verdict::Deny,
                _ => {}
            }
        }
        Verdict::Deny
    }

    fn tier(&self, policies: &PolicyList, direction: Direction, tier: &EndpointTier) -> Action {
        for id in policies {
            let policy = &self.down.policies[id];
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            if let Some(action) = self.rules(rules) {
                return action;
            }
        }
        tier.default_action
    }

    fn rules(&self, rules: &[CalcRule]) -> Option<Action> {
        let hits = rules.iter().filter(|r| self.matches(r));
        hits.map(|r| r.action).find(|a| *a != Action::Log)
    }

    fn matches(&self, r: &CalcRule) -> bool {
        let p = self.packet;
        let icmp = |i: &Icmp| {
            p.icmp.is_some_and(|g| g.kind == i.kind && i.code.is_none_or(|c| g.code == Some(c)))
        };
        r.ip_version.is_none_or(|v| v == p.version())
            && r.protocol.is_none_or(|x| x == p.protocol)
            && r.not_protocol.is_none_or(|x| x != p.protocol)
            && r.icmp.as_ref().is_none_or(icmp)
            && !r.not_icmp.as_ref().is_some_and(icmp)
            && self.side(&r.source, p.source, p.source_port)
            && self.side(&r.destination, p.destination, p.destination_port)
    }

    fn side(&self, m: &CalcMatch, address: IpAddr, port: u16) -> bool {
        let in_nets = |nets: &[ipnet::IpNet]| nets.iter().any(|n| n.contains(&address));
        let in_ranges = |ranges: &[(u16, u16)]| {
            self.packet.protocol.has_ports()
                && ranges.iter().any(|(a, b)| (*a..=*b).contains(&port))
        };
        let in_set = |id: &SetId| {
            self.down.sets[id].1.iter().any(|member| match member {
                Member::Net(net) => net.contains(&address),
                Member::IpPort(a, proto, p) => {
                    (*a, *proto, *p) == (address, self.packet.protocol, port)
                }
            })
        };
        (m.nets.is_empty() || in_nets(&m.nets))
            && !in_nets(&m.not_nets)
            && m.sets.iter().all(in_set)
            && !m.not_sets.iter().any(in_set)
            && ((m.ports.is_empty() && m.port_sets.is_empty())
                || in_ranges(&m.ports)
                || m.port_sets.iter().any(in_set))
            && !in_ranges(&m.not_ports)
            && !m.not_port_sets.iter().any(in_set)
            && m.service_sets.iter().all(in_set)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn outputs_mean_what_the_objects_mean(seed: u64) {
        let mut d = Dice::new(seed);
        let view = clusters::cluster(&mut d);
        let mut nodes = BTreeMap::new();
        for node in NODES {
            let mut calc = Calc::new(NodeName::from(node));
            let mut down = Downstream::default();
            for update in clusters::updates(&view, &mut d) {
                calc.update(update);
                if d.one_in(4) {
                    down.apply(&calc.flush());
                }
            }
            down.apply(&calc.flush());
            nodes.insert(NodeName::from(node), down);
        }
        for packet in clusters::sample(&mut d, 400) {
            let decision = evaluate(&view, &packet);
            for step in &decision.steps {
                let Point::Workload(id) = &step.point else { continue };
                if step.reason == Reason::SameHost {
                    continue; // by its way, before any policy
                }
                let down = &nodes[&view.workloads[id].node];
                let got = Interpreter { down, packet: &packet }.verdict(id, step.direction);
                prop_assert_eq!(got, step.verdict, "{:?}\n{:#?}", packet, step);
            }
        }
    }
}
