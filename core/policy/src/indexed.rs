//! The rules of one endpoint in one direction, prepared for many packets.
//!
//! Which rules match is the meeting of three sets, a bit a rule: those whose headers match, those whose
//! source side does, those whose destination side does. Each set depends on few fields of the packet and
//! is remembered by them; the rule that decides is the first in all three. What a rule's part
//! matches is `rule`'s word.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

use model::hash::FastMap;
use model::policy::{EntityMatch, Icmp};
use model::{Action, IpVersion, Protocol, Rule};

use crate::bits::Bits;
use crate::decision::{Direction, Reason, Step, Verdict};
use crate::endpoint::{Kind, Subject};
use crate::judge::Judge;
use crate::order::{Order, Placed};
use crate::packet::Packet;
use crate::rule::{self, End};

/// How much an endpoint's sets may take before they are forgotten, bytes.
const REMEMBERED: usize = 16 << 20;

/// One side of the rules: what is different among them.
#[derive(Debug)]
struct Sides<'v> {
    end: End,
    /// A rule with this side, and all rules that have it.
    different: Vec<(&'v Rule, Bits)>,
    /// Rules that match every address.
    any: Bits,
    /// Whether some side asks for a port.
    by_port: bool,
    known: Memory<(IpAddr, Protocol, u16)>,
}

/// Sets by what they depend on.
#[derive(Debug)]
struct Memory<K>(RefCell<FastMap<K, Rc<Bits>>>);

impl<K> Default for Memory<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash> Memory<K> {
    fn get(&self, key: K, make: impl FnOnce() -> Bits) -> Rc<Bits> {
        let mut known = self.0.borrow_mut();
        if let Some(bits) = known.get(&key) {
            return bits.clone();
        }
        let bits = Rc::new(make());
        if known.len() * bits.words().len() * 8 > REMEMBERED {
            known.clear();
        }
        known.insert(key, bits.clone());
        bits
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Index<'v> {
    order: Order<'v>,
    headers: Memory<(IpVersion, Protocol, Option<Icmp>)>,
    sources: Sides<'v>,
    destinations: Sides<'v>,
}

impl<'v> Index<'v> {
    pub(crate) fn new(order: Order<'v>) -> Self {
        let sources = Sides::new(End::Source, &order.rules);
        let destinations = Sides::new(End::Destination, &order.rules);
        Self { order, headers: Memory::default(), sources, destinations }
    }

    /// Whether there are rules, also such that log.
    pub(crate) fn has_rules(&self) -> bool {
        self.order.has_rules
    }

    /// What [`crate::endpoint::decide`] says, without what it considered.
    pub(crate) fn decide(
        &self,
        judge: &Judge<'_>,
        subject: &Subject<'_>,
        (kind, direction): (Kind, Direction),
        packet: &Packet,
    ) -> Option<Step> {
        let headers = self.headers.get((packet.version(), packet.protocol, packet.icmp), || {
            let rules = &self.order.rules;
            Bits::of(rules.len(), |i| rule::headers(rules[i].rule, packet).is_ok())
        });
        let source = self.sources.matching(judge, packet);
        let destination = self.destinations.matching(judge, packet);
        let matched = Bits::first_in([&headers, &source, &destination]);
        let step = |verdict, reason| {
            let point = subject.point.clone();
            let plain = Step::plain(point, direction, verdict, reason, Vec::new());
            Step { stage: kind.stage(), ..plain }
        };
        for stretch in &self.order.stretches {
            let first = matched(stretch.rules.clone());
            if let Some(Placed { rule, policy }) = first.map(|i| &self.order.rules[i]) {
                let verdict = match rule.action {
                    Action::Allow => Verdict::Allow,
                    Action::Deny => Verdict::Deny,
                    // Those that log were left out.
                    Action::Pass | Action::Log => continue,
                };
                let reason = policy.map_or(Reason::Profile, |_| Reason::Rule);
                let (tier, policy) = (stretch.tier.cloned(), policy.cloned());
                let rule = Some(rule.origin);
                return Some(Step { tier, policy, rule, ..step(verdict, reason) });
            }
            if let Some(reason) = stretch.otherwise {
                let rule = (reason == Reason::Profile).then_some(0);
                let tier = stretch.tier.cloned();
                return Some(Step { tier, rule, ..step(Verdict::Deny, reason) });
            }
        }
        None
    }
}

impl<'v> Sides<'v> {
    fn new(end: End, rules: &[Placed<'v>]) -> Self {
        let mut numbers: HashMap<(&EntityMatch, Option<Protocol>), usize> = HashMap::new();
        let mut different: Vec<(&'v Rule, Bits)> = Vec::new();
        let mut any = Bits::none(rules.len());
        let nothing = EntityMatch::default();
        for (at, rule) in rules.iter().map(|placed| placed.rule).enumerate() {
            let side = end.of(rule);
            if *side == nothing {
                any.insert(at);
                continue;
            }
            let number = *numbers.entry((side, rule.protocol)).or_insert(different.len());
            if number == different.len() {
                different.push((rule, Bits::none(rules.len())));
            }
            different[number].1.insert(at);
        }
        let asks = |side: &EntityMatch| {
            !(side.ports.is_empty() && side.not_ports.is_empty() && side.service.is_none())
        };
        let by_port = different.iter().any(|(rule, _)| asks(end.of(rule)));
        Self { end, different, any, by_port, known: Memory::default() }
    }

    fn matching(&self, judge: &Judge<'_>, packet: &Packet) -> Rc<Bits> {
        let (address, port) = match self.end {
            End::Source => (packet.source, packet.source_port),
            End::Destination => (packet.destination, packet.destination_port),
        };
        let key = (address, packet.protocol, if self.by_port { port } else { 0 });
        self.known.get(key, || {
            let mut matching = self.any.clone();
            for (rule, all) in &self.different {
                if rule::side(judge, rule, packet, self.end).is_ok() {
                    matching.add(all);
                }
            }
            matching
        })
    }
}
