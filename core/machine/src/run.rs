//! The packet's way through the chains of a table.

use crate::execute::{End, Machine};
use crate::packet::{Packet, Way};
use crate::table::{Base, Counters, Hook, Jump, Rule, Table};

/// How deep the kernel jumps.
const DEPTH: usize = 16;
/// More rules than any packet meets: chains that branch again and again are no loop, but come close.
const MOST: usize = 100_000;

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes every chain of this table.
    Accept,
    /// It is dropped or refused.
    Drop,
    /// That cannot be said, and why.
    Unknown(String),
}

/// A rule that the packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Where.
    pub hook: Hook,
    /// The chain.
    pub chain: String,
    /// The kernel's number of the rule; nothing for the policy of a base chain.
    pub handle: Option<u64>,
    /// What its maker says about it.
    pub comment: Option<String>,
    /// What it had counted when it was read.
    pub counters: Option<Counters>,
    /// What it did; empty for a rule that did not match.
    pub did: Vec<String>,
    /// Why it did not match.
    pub failed: Option<String>,
}

impl Met {
    /// Whether all its conditions held.
    pub fn matched(&self) -> bool {
        self.failed.is_none()
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Every rule that was looked at, in order.
    pub met: Vec<Met>,
}

impl Run {
    /// The last rule that matched: the one that decided, if the packet does not pass.
    pub fn decided(&self) -> Option<&Met> {
        self.met.iter().rev().find(|m| m.matched())
    }
}

/// Sends the first packet of a flow through the chains of a table, in the order of its hooks and of
/// their priorities. Its mark is zero at first, and nobody else's chains are asked.
pub fn run(table: &Table, packet: &Packet, way: &Way) -> Run {
    let mut machine = Machine::new(table, packet, way);
    let mut met = Vec::new();
    for (hook, input, output) in way.hooks() {
        let mut chains: Vec<(&str, &Base)> = table
            .chains
            .iter()
            .filter_map(|(name, c)| Some((name.as_str(), c.base.as_ref()?)))
            .filter(|(_, base)| base.hook == Some(hook))
            .collect();
        chains.sort_by_key(|(_, base)| base.priority);
        for (name, base) in chains {
            machine.enter(hook, base.priority, (input, output));
            let verdict = chain(&mut machine, table, (name, base), &mut met);
            if verdict != Verdict::Accept {
                return Run { verdict, met };
            }
        }
        machine.leave();
    }
    Run { verdict: Verdict::Accept, met }
}

/// A base chain, with the chains that it jumps to.
fn chain(
    machine: &mut Machine<'_>,
    table: &Table,
    (first, base): (&str, &Base),
    met: &mut Vec<Met>,
) -> Verdict {
    let (mut name, mut next) = (first.to_owned(), 0);
    let mut back: Vec<(String, usize)> = Vec::new();
    // The chains that led here, each with how deep it was. The kernel takes no loops, but what was
    // read may be anything.
    let mut path = vec![(0, first.to_owned())];
    loop {
        let Some(chain) = table.chains.get(&name) else {
            return Verdict::Unknown(format!("there is no chain {name}"));
        };
        let rule = chain.rules.get(next);
        let handle = rule.map_or(0, |r| r.handle);
        let end = match rule {
            // Its end is a return.
            None => End::Decided(Jump::Return),
            Some(_) if met.len() >= MOST => {
                return Verdict::Unknown(format!("chain {name}: more than {MOST} rules"));
            }
            Some(rule) => {
                let (end, did) = machine.rule(rule);
                let failed = if let End::NoMatch(why) = &end { Some(why.clone()) } else { None };
                met.push(Met { did, failed, ..look(machine.hook(), &name, rule) });
                end
            }
        };
        next += 1;
        let unknown = |why: &str| Verdict::Unknown(format!("chain {name} handle {handle}: {why}"));
        match end {
            End::NoMatch(_) | End::Decided(Jump::Continue) => {}
            End::Unknown(why) => return unknown(&why),
            End::Decided(Jump::Accept) => return Verdict::Accept,
            End::Decided(Jump::Drop) => return Verdict::Drop,
            End::Decided(Jump::Return) => {
                let Some(before) = back.pop() else { return policy(machine, (first, base), met) };
                path.retain(|(depth, _)| *depth <= back.len());
                (name, next) = before;
            }
            End::Decided(Jump::Jump(to) | Jump::Goto(to)) if path.iter().any(|(_, n)| *n == to) => {
                return unknown(&format!("chain {to} leads to itself"));
            }
            End::Decided(Jump::Jump(_)) if back.len() >= DEPTH => {
                return unknown("jumps go too deep");
            }
            End::Decided(Jump::Jump(to)) => {
                back.push((std::mem::replace(&mut name, to.clone()), next));
                path.push((back.len(), to));
                next = 0;
            }
            End::Decided(Jump::Goto(to)) => {
                path.push((back.len(), to.clone()));
                (name, next) = (to, 0);
            }
            End::Decided(Jump::Other(number)) => {
                return unknown(&format!("verdict {number} is not known here"));
            }
        }
    }
}

fn look(hook: Hook, chain: &str, rule: &Rule) -> Met {
    Met {
        hook,
        chain: chain.to_owned(),
        handle: Some(rule.handle),
        comment: rule.comment.clone(),
        counters: rule.counters(),
        did: Vec::new(),
        failed: None,
    }
}

/// What happens to a packet that no rule decided about.
fn policy(machine: &Machine<'_>, (name, base): (&str, &Base), met: &mut Vec<Met>) -> Verdict {
    if !base.drops {
        return Verdict::Accept;
    }
    met.push(Met {
        hook: machine.hook(),
        chain: name.to_owned(),
        handle: None,
        comment: Some("policy of the chain".to_owned()),
        counters: None,
        did: vec!["drop".to_owned()],
        failed: None,
    });
    Verdict::Drop
}
