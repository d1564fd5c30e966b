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

use model::policy::{EntityMatch, Icmp};
use model::{Action, IpVersion, PolicyId, Protocol, Rule, TierName};

use crate::bits::Bits;
use crate::decision::{Direction, Reason, Step, Verdict};
use crate::endpoint::{Kind, Subject};
use crate::judge::{Applied, Judge};
use crate::packet::Packet;
use crate::rule::{self, End};

/// How much an endpoint's sets may take before they are forgotten, bytes.
const REMEMBERED: usize = 16 << 20;

/// A rule, and where it stands.
#[derive(Debug)]
struct Placed<'v> {
    rule: &'v Rule,
    /// None for a profile's.
    policy: Option<&'v PolicyId>,
}

/// A tier or a profile: rules up to `end`, and what follows when none decides.
#[derive(Debug)]
struct Stretch<'v> {
    end: usize,
    tier: Option<&'v TierName>,
    otherwise: Otherwise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    /// The next one.
    Next,
    /// Drop, for this reason.
    Deny(Reason),
}

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
struct Memory<K>(RefCell<HashMap<K, Rc<Bits>>>);

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
    rules: Vec<Placed<'v>>,
    stretches: Vec<Stretch<'v>>,
    /// Rules that log are looked at, and decide nothing.
    pub(crate) has_rules: bool,
    headers: Memory<(IpVersion, Protocol, Option<Icmp>)>,
    sources: Sides<'v>,
    destinations: Sides<'v>,
}

impl<'v> Index<'v> {
    /// `applied` is what acts on `subject` ([`Judge::applied`]).
    pub(crate) fn new(
        judge: &Judge<'v>,
        subject: &Subject<'_>,
        (kind, direction): (Kind, Direction),
        applied: &Applied<'v>,
    ) -> Self {
        let mut made = Builder { rules: Vec::new(), stretches: Vec::new(), has_rules: false };
        let implicit_deny = !matches!(kind, Kind::PreDnat | Kind::Untracked);
        for (tier, policies) in applied {
            for policy in policies {
                made.add(direction.of(&policy.ingress, &policy.egress), Some(&policy.id));
            }
            let denies = implicit_deny && tier.default_action == Action::Deny;
            let otherwise = Otherwise::Deny(Reason::TierDefault);
            made.end(Some(&tier.name), if denies { otherwise } else { Otherwise::Next });
        }
        if matches!(kind, Kind::Workload | Kind::HostLocal) {
            for name in subject.profiles {
                match judge.view().profiles.get(name) {
                    Some(profile) => {
                        made.add(direction.of(&profile.ingress, &profile.egress), None);
                        made.end(None, Otherwise::Next);
                    }
                    // A profile that is listed but does not exist denies everything (2.1).
                    None => made.end(None, Otherwise::Deny(Reason::Profile)),
                }
            }
            made.end(None, Otherwise::Deny(Reason::NoProfile));
        }
        let Builder { rules, stretches, has_rules } = made;
        let sources = Sides::new(End::Source, &rules);
        let destinations = Sides::new(End::Destination, &rules);
        Self { rules, stretches, has_rules, headers: Memory::default(), sources, destinations }
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
            Bits::of(self.rules.len(), |i| rule::headers(self.rules[i].rule, packet).is_ok())
        });
        let source = self.sources.matching(judge, packet);
        let destination = self.destinations.matching(judge, packet);
        let matched = Bits::first_in([&headers, &source, &destination]);
        let step = |verdict, reason| {
            let point = subject.point.clone();
            let plain = Step::plain(point, direction, verdict, reason, Vec::new());
            Step { stage: kind.stage(), ..plain }
        };
        let mut start = 0;
        for stretch in &self.stretches {
            let first = matched(start..stretch.end);
            start = stretch.end;
            if let Some(Placed { rule, policy }) = first.map(|i| &self.rules[i]) {
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
            if let Otherwise::Deny(reason) = stretch.otherwise {
                let rule = (reason == Reason::Profile).then_some(0);
                let tier = stretch.tier.cloned();
                return Some(Step { tier, rule, ..step(Verdict::Deny, reason) });
            }
        }
        None
    }
}

struct Builder<'v> {
    rules: Vec<Placed<'v>>,
    stretches: Vec<Stretch<'v>>,
    has_rules: bool,
}

impl<'v> Builder<'v> {
    fn add(&mut self, rules: &'v [Rule], policy: Option<&'v PolicyId>) {
        self.has_rules |= !rules.is_empty();
        let decide = rules.iter().filter(|rule| rule.action != Action::Log);
        self.rules.extend(decide.map(|rule| Placed { rule, policy }));
    }

    fn end(&mut self, tier: Option<&'v TierName>, otherwise: Otherwise) {
        self.stretches.push(Stretch { end: self.rules.len(), tier, otherwise });
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
