//! One calculated rule as rules of a chain.

use std::sync::Arc;

use ipnet::IpNet;
use model::output::{CalcMatch, CalcRule, SetId};
use model::policy::{Action, IpVersion, Protocol, Stage};

use crate::config::{DenyAction, Marks, RulesConfig};
use crate::flow;
use crate::members::Place;
use crate::name::Direction;
use crate::object::{Key, Load, Match, Rule, SetRef, Side, Statement, Verdict};

/// What the rules stand in: for log lines and comments.
pub(crate) struct Origin<'a> {
    pub(crate) tier: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) owner: flow::Owner<'a>,
    pub(crate) direction: Direction,
}

/// Renders the rules of one policy or profile for one family.
pub(crate) struct Renderer<'a> {
    pub(crate) config: &'a RulesConfig,
    pub(crate) version: IpVersion,
    /// Where the policy acts.
    pub(crate) stage: Stage,
    /// Where a calculated set's members are in this family's table.
    pub(crate) place: &'a dyn Fn(&SetId) -> Option<&'a Place>,
}

/// This rule can match no packet of this family.
struct Never;

impl Renderer<'_> {
    /// The rules, in order. A set that is not known closes the policy: nobody can say what it means.
    pub(crate) fn rules(&self, rules: &[CalcRule], origin: &Origin<'_>) -> Vec<Rule> {
        let known = |m: &CalcMatch| {
            let sets = m.sets.iter().chain(&m.not_sets).chain(&m.port_sets);
            let mut sets = sets.chain(&m.not_port_sets).chain(&m.service_sets);
            sets.all(|id| (self.place)(id).is_some())
        };
        if !rules.iter().all(|r| known(&r.source) && known(&r.destination)) {
            let comment = "a set of this policy is missing";
            return vec![Rule::new().counter().verdict(Verdict::Drop).comment(comment)];
        }
        rules.iter().flat_map(|rule| self.rule(rule, origin)).collect()
    }

    fn rule(&self, rule: &CalcRule, origin: &Origin<'_>) -> Vec<Rule> {
        let Ok(alternatives) = self.matches(rule) else { return Vec::new() };
        let comment: Arc<str> = format!("rule {}", rule.origin).into();
        let finish = |when: Vec<Match>| {
            let then = self.action(rule, origin);
            Rule { when, then, comment: Some(comment.clone()), optional: false }
        };
        alternatives.into_iter().map(finish).collect()
    }

    fn action(&self, rule: &CalcRule, origin: &Origin<'_>) -> Vec<Statement> {
        let Marks { accept, pass } = self.config.marks();
        let mark = |set| Statement::Mark { clear: 0, set };
        let back = Statement::Verdict(Verdict::Return);
        let owner = (origin.owner, rule.origin);
        let show = flow::of_rule(self.config, origin.direction, owner, rule.action);
        let counted = || [Statement::Counter].into_iter().chain(show.clone());
        match rule.action {
            Action::Allow => counted().chain([mark(accept), back]).collect(),
            Action::Pass => counted().chain([mark(pass), back]).collect(),
            Action::Deny => counted().chain([self.deny()]).collect(),
            Action::Log => {
                let limit = self.config.log_limit.map(Statement::Limit);
                let log = Statement::Log(log_prefix(&self.config.log_prefix, origin));
                [Statement::Counter].into_iter().chain(limit).chain([log]).collect()
            }
        }
    }

    /// Not every kernel can answer before it knows where a packet goes.
    fn deny(&self) -> Statement {
        match self.stage {
            Stage::Normal => deny(self.config),
            Stage::PreDnat | Stage::Untracked => Statement::Verdict(Verdict::Drop),
        }
    }

    /// One list of conditions for each way to match.
    fn matches(&self, rule: &CalcRule) -> Result<Vec<Vec<Match>>, Never> {
        let own_icmp = match self.version {
            IpVersion::V4 => Protocol::ICMP,
            IpVersion::V6 => Protocol::ICMPV6,
        };
        let foreign_icmp = |p| matches!(p, Protocol::ICMP | Protocol::ICMPV6) && p != own_icmp;
        if rule.ip_version.is_some_and(|v| v != self.version)
            || rule.protocol.is_some_and(foreign_icmp)
        {
            return Err(Never);
        }
        let mut all = Vec::new();
        all.extend(rule.protocol.map(|proto| Match::Proto { proto, not: false }));
        all.extend(rule.not_protocol.map(|proto| Match::Proto { proto, not: true }));
        let sides = [(Side::Source, &rule.source), (Side::Destination, &rule.destination)];
        for (side, m) in sides {
            self.addresses(side, m, &mut all)?;
            self.tuples(side, m, rule.protocol, &mut all)?;
        }
        for (icmp, not) in [(rule.icmp, false), (rule.not_icmp, true)] {
            all.extend(icmp.map(|i| Match::Icmp { kind: i.kind, code: i.code, not }));
        }
        let listed = sides.iter().any(|(_, m)| !m.ports.is_empty() || !m.port_sets.is_empty());
        let numbers = sides.iter().any(|(_, m)| !m.ports.is_empty() || !m.not_ports.is_empty());
        let (ports, no_ports) = match rule.protocol {
            Some(p) => (p.has_ports(), !p.has_ports()),
            None => (true, numbers),
        };
        // A packet of a protocol without ports is on none of the listed ones.
        let portless = (no_ports && !listed).then(|| {
            let distinct = rule.protocol.is_none().then(|| with_ports(true));
            all.iter().cloned().chain(distinct).collect()
        });
        if numbers && rule.protocol.is_none() {
            all.push(with_ports(false));
        }
        let mut ways = if ports { vec![all] } else { vec![] };
        // What only logs goes on with the next: it must not be met twice.
        let apart = rule.action == Action::Log;
        for (side, m) in sides {
            ways = self.ports(side, m, ways, apart);
        }
        ways.extend(portless);
        Ok(ways)
    }

    fn addresses(&self, side: Side, m: &CalcMatch, all: &mut Vec<Match>) -> Result<(), Never> {
        let mine = |nets: &[IpNet]| {
            nets.iter().copied().filter(|n| IpVersion::of_net(n) == self.version).collect()
        };
        let nets: Vec<IpNet> = mine(&m.nets);
        if !m.nets.is_empty() && nets.is_empty() {
            return Err(Never);
        }
        all.extend(in_nets(side, nets, false));
        all.extend(in_nets(side, mine(&m.not_nets), true));
        let addr = || vec![Load::Addr(side)];
        for (sets, not) in [(&m.sets, false), (&m.not_sets, true)] {
            all.extend(sets.iter().filter_map(|id| self.in_set(addr(), id, not)));
        }
        Ok(())
    }

    /// Sets of address, protocol and port: they hold protocols with ports only.
    fn tuples(
        &self,
        side: Side,
        m: &CalcMatch,
        protocol: Option<Protocol>,
        all: &mut Vec<Match>,
    ) -> Result<(), Never> {
        if protocol.is_some_and(|p| !p.has_ports()) {
            return if m.service_sets.is_empty() { Ok(()) } else { Err(Never) };
        }
        let tuple = || vec![Load::Addr(side), Load::Proto, Load::Port(side)];
        for (sets, not) in [(&m.service_sets, false), (&m.not_port_sets, true)] {
            all.extend(sets.iter().filter_map(|id| self.in_set(tuple(), id, not)));
        }
        Ok(())
    }

    fn in_set(&self, what: Vec<Load>, id: &SetId, not: bool) -> Option<Match> {
        let place = (self.place)(id)?;
        let set = SetRef::Named(place.set.clone());
        Some(Match::InSet { what: place.loads(what), set, not })
    }

    /// Port numbers, or any of the sets of named ports: each is a way of its own; with `apart` no packet
    /// goes two of them.
    fn ports(
        &self,
        side: Side,
        m: &CalcMatch,
        ways: Vec<Vec<Match>>,
        apart: bool,
    ) -> Vec<Vec<Match>> {
        let not: Vec<Match> = in_ranges(side, &m.not_ports, true).into_iter().collect();
        let tuple = || vec![Load::Addr(side), Load::Proto, Load::Port(side)];
        let numbers = |not| in_ranges(side, &m.ports, not);
        let named = |id| Some((self.in_set(tuple(), id, false)?, self.in_set(tuple(), id, true)?));
        // Each with its opposite.
        let named = m.port_sets.iter().filter_map(named);
        let single: Vec<_> = numbers(false).zip(numbers(true)).into_iter().chain(named).collect();
        let choice = |at: usize| {
            let earlier = if apart { &single[..at] } else { &[] };
            let earlier = earlier.iter().map(|(_, opposite)| opposite.clone());
            earlier.chain([single[at].0.clone()]).collect()
        };
        let mut choices: Vec<Vec<Match>> = (0..single.len()).map(choice).collect();
        if choices.is_empty() {
            choices.push(Vec::new());
        }
        let with = |way: &Vec<Match>, choice: &Vec<Match>| [&way[..], &not, choice].concat();
        ways.iter().flat_map(|w| choices.iter().map(move |c| with(w, c))).collect()
    }
}

/// How a denied packet ends.
pub(crate) fn deny(config: &RulesConfig) -> Statement {
    match config.deny {
        DenyAction::Drop => Statement::Verdict(Verdict::Drop),
        DenyAction::Reject => Statement::Reject,
    }
}

/// TCP, UDP or SCTP (or, inverted, another one): the protocols whose ports a rule may name.
fn with_ports(not: bool) -> Match {
    let keys = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].map(Key::Proto).to_vec();
    Match::InSet { what: vec![Load::Proto], set: SetRef::Constant(keys), not }
}

/// In any of the prefixes (or, inverted, in none). None at all gives no condition.
pub(crate) fn in_nets(side: Side, nets: Vec<IpNet>, not: bool) -> Option<Match> {
    let mut cover = crate::cover::Cover::default();
    for net in nets {
        cover.insert(net.trunc());
    }
    match cover.maximal()[..] {
        [] => None,
        [net] => Some(Match::Net { side, net, not }),
        ref several => {
            let keys = several.iter().copied().map(Key::Net).collect();
            Some(Match::InSet { what: vec![Load::Addr(side)], set: SetRef::Constant(keys), not })
        }
    }
}

/// In any of the port ranges (or, inverted, in none). None at all gives no condition.
fn in_ranges(side: Side, ranges: &[(u16, u16)], not: bool) -> Option<Match> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (min, max) in sorted {
        match joined.last_mut() {
            Some((_, end)) if u32::from(min) <= u32::from(*end) + 1 => *end = max.max(*end),
            _ => joined.push((min, max)),
        }
    }
    match joined[..] {
        [] => None,
        [(min, max)] => Some(Match::Ports { side, min, max, not }),
        ref several => {
            let keys = several.iter().map(|(min, max)| Key::Ports(*min, *max)).collect();
            Some(Match::InSet { what: vec![Load::Port(side)], set: SetRef::Constant(keys), not })
        }
    }
}

/// The configured prefix with its placeholders filled, as long as nftables allows.
fn log_prefix(template: &str, origin: &Origin<'_>) -> Arc<str> {
    let full = if origin.namespace.is_empty() {
        origin.name.to_owned()
    } else {
        format!("{}/{}", origin.namespace, origin.name)
    };
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let filled = match rest[at + 1..].chars().next() {
            Some('t') => Some(origin.tier),
            Some('k') => Some(origin.kind),
            Some('n') => Some(origin.name),
            Some('p') => Some(full.as_str()),
            _ => None,
        };
        text.push_str(filled.unwrap_or("%"));
        rest = &rest[at + if filled.is_some() { 2 } else { 1 }..];
    }
    text.push_str(rest);
    text.push_str(": ");
    while text.len() > 127 {
        text.pop();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_log_lines_is_filled_and_fits() {
        let origin = Origin {
            tier: "security",
            kind: "NetworkPolicy",
            namespace: "shop",
            name: "web",
            owner: flow::Owner::Profile("web"),
            direction: Direction::Ingress,
        };
        let prefix = |template: &str| log_prefix(template, &origin).to_string();
        assert_eq!(prefix("calico-packet"), "calico-packet: ");
        assert_eq!(prefix("%t %k %n %p"), "security NetworkPolicy web shop/web: ");
        assert_eq!(prefix("100% %x%%t%"), "100% %x%security%: ", "other signs stay");
        assert_eq!(prefix(&"%p".repeat(40)).len(), 127);
        let global = Origin { namespace: "", ..origin };
        assert_eq!(&*log_prefix("%p", &global), "web: ", "no namespace, no slash");
        assert!(log_prefix(&"é".repeat(100), &global).len() <= 127);
    }
}
