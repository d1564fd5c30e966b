//! Who else has chains in the kernel, and what they can do to packets.

use std::collections::{BTreeMap, BTreeSet};

use machine::{Data, Expression, Jump};
use model::IpVersion;

use crate::driver::NftError;
use crate::encode::{TABLE, family};
use crate::read::{element, rule};
use crate::socket::Socket;
use crate::wire::{Attributes, Message, msg};

/// Something that happens to packets and may surprise policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Dropped or refused.
    Drop,
    /// Addresses or ports are replaced.
    Translate,
    /// Kept out of connection tracking.
    Untrack,
    /// Sent elsewhere: to another interface or a local socket.
    Redirect,
    /// Handed to a program that decides.
    Queue,
    /// Something that is not understood here.
    Unknown,
}

impl Effect {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Translate => "translate",
            Self::Untrack => "untrack",
            Self::Redirect => "redirect",
            Self::Queue => "queue",
            Self::Unknown => "unknown",
        }
    }
}

/// A chain that packets come through, of anybody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HookedChain {
    /// `ip`, `ip6`, `inet`, `bridge`, `netdev`, `arp`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Its table is ours.
    pub ours: bool,
    /// Where it is hooked.
    pub hook: &'static str,
    /// Order within the hook, lowest first.
    pub priority: i32,
    /// What it, and every chain that it can lead to, may do.
    pub effects: BTreeSet<Effect>,
}

/// Every base chain of this network namespace, with what it may do. The rules of our own tables are not read.
pub fn hooked_chains() -> Result<Vec<HookedChain>, NftError> {
    let mut socket = Socket::open()?;
    let mut all = All::default();
    let take = |message: Message<'_>| {
        all.chain(message.family().unwrap_or_default(), &message.attributes());
    };
    socket.dump(msg::GET_CHAIN, 0, |_| {}, take)?;
    let others: BTreeSet<(u8, String)> =
        all.tables.iter().filter(|t| !is_ours(t)).cloned().collect();
    for (family, table) in &others {
        let take = |message: Message<'_>| all.rule(*family, &message.attributes());
        socket.dump(msg::GET_RULE, *family, |out| out.text(1, table), take)?;
    }
    for (place, map) in std::mem::take(&mut all.maps) {
        let (family, table, _) = &place;
        let mut leads = BTreeSet::new();
        socket.dump(
            msg::GET_ELEMENT,
            *family,
            |out| {
                out.text(1, table);
                out.text(2, &map);
            },
            |message| {
                let list = message.attributes().nested(3);
                let found = list.filter_map(|(_, bytes)| element(&Attributes(bytes)));
                leads.extend(found.filter_map(|e| match e.data {
                    Some(Data::Verdict(jump)) => Some(end_of(&jump)),
                    _ => None,
                }));
            },
        )?;
        all.bodies.entry(place).or_default().ends.extend(leads);
    }
    Ok(all.hooked())
}

fn is_ours((number, table): &(u8, String)) -> bool {
    table == TABLE && IpVersion::ALL.into_iter().any(|v| family(v) == *number)
}

/// Family, table, chain.
type Place = (u8, String, String);

/// Where a verdict leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Effect(Effect),
    Chain(String),
    Nothing,
}

#[derive(Debug, Default)]
struct Body {
    ends: BTreeSet<End>,
}

#[derive(Debug, Default)]
struct All {
    /// Family and name.
    tables: BTreeSet<(u8, String)>,
    /// Hook and priority.
    bases: BTreeMap<Place, (u32, i32)>,
    bodies: BTreeMap<Place, Body>,
    /// Maps that decide, by the chain that asks them.
    maps: BTreeSet<(Place, String)>,
}

impl All {
    fn chain(&mut self, family: u8, all: &Attributes<'_>) {
        let (Some(table), Some(name)) = (all.text(1), all.text(3)) else { return };
        let place = (family, table.to_owned(), name.to_owned());
        self.tables.insert((family, table.to_owned()));
        if all.get(4).is_some() {
            let hook = all.nested(4);
            let (number, priority) = (hook.be32(1).unwrap_or(0), hook.be32(2).unwrap_or(0));
            self.bases.insert(place.clone(), (number, priority as i32));
            if all.be32(5) == Some(0) {
                let body = self.bodies.entry(place).or_default();
                body.ends.insert(End::Effect(Effect::Drop));
            }
        }
    }

    fn rule(&mut self, family: u8, all: &Attributes<'_>) {
        let (Some(table), Some(chain)) = (all.text(1), all.text(2)) else { return };
        let place: Place = (family, table.to_owned(), chain.to_owned());
        let raw = all.nested(4).map(|(_, bytes)| Attributes(bytes));
        for (expression, raw) in rule(all).expressions.iter().zip(raw) {
            if let Expression::Lookup { set, decides: true, .. } = expression {
                self.maps.insert((place.clone(), set.clone()));
            }
            let target = raw.nested(2).text(1).unwrap_or_default();
            let end = effect(expression, target);
            self.bodies.entry(place.clone()).or_default().ends.insert(end);
        }
    }

    fn hooked(&self) -> Vec<HookedChain> {
        let one = |(place, (hook, priority)): (&Place, &(u32, i32))| {
            let family = family_name(place.0)?;
            let (mut effects, mut seen) = (BTreeSet::new(), BTreeSet::new());
            self.walk(place, &mut effects, &mut seen);
            Some(HookedChain {
                family,
                table: place.1.clone(),
                chain: place.2.clone(),
                ours: is_ours(&(place.0, place.1.clone())),
                hook: hook_name(family, *hook),
                priority: *priority,
                effects,
            })
        };
        self.bases.iter().filter_map(one).collect()
    }

    fn walk(&self, place: &Place, effects: &mut BTreeSet<Effect>, seen: &mut BTreeSet<Place>) {
        let mut open = vec![place.clone()];
        while let Some(place) = open.pop() {
            if !seen.insert(place.clone()) {
                continue;
            }
            for end in self.bodies.get(&place).into_iter().flat_map(|b| &b.ends) {
                match end {
                    End::Effect(effect) => drop(effects.insert(*effect)),
                    End::Chain(name) => open.push((place.0, place.1.clone(), name.clone())),
                    End::Nothing => {}
                }
            }
        }
    }
}

fn end_of(jump: &Jump) -> End {
    match jump {
        Jump::Drop => End::Effect(Effect::Drop),
        Jump::Jump(to) | Jump::Goto(to) => End::Chain(to.clone()),
        Jump::Accept | Jump::Continue | Jump::Return => End::Nothing,
        Jump::Other(_) => End::Effect(Effect::Unknown),
    }
}

/// What an instruction may do; `target` is the name of one that iptables has.
fn effect(expression: &Expression, target: &str) -> End {
    let effect = match expression {
        Expression::Verdict(jump) => return end_of(jump),
        Expression::Reject => Effect::Drop,
        Expression::Nat(_) => Effect::Translate,
        Expression::Notrack => Effect::Untrack,
        Expression::Other(name) => match name.as_str() {
            "queue" => Effect::Queue,
            "tproxy" | "fwd" | "dup" | "synproxy" => Effect::Redirect,
            "target" => return effect_of_target(target).map_or(End::Nothing, End::Effect),
            // Conditions, counters, limits: they let packets go on.
            _ => return End::Nothing,
        },
        _ => return End::Nothing,
    };
    End::Effect(effect)
}

/// What a target of iptables, by its name, does to a packet; none for one that leaves it as it is.
pub fn effect_of_target(name: &str) -> Option<Effect> {
    Some(match name {
        "NFQUEUE" => Effect::Queue,
        "TPROXY" | "TEE" | "SYNPROXY" => Effect::Redirect,
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Effect::Translate,
        "REJECT" | "DROP" => Effect::Drop,
        "CT" | "NOTRACK" => Effect::Untrack,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CHECKSUM" => return None,
        _ => Effect::Unknown,
    })
}

fn family_name(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    })
}

fn hook_name(family: &str, number: u32) -> &'static str {
    let names: &[&str] = match family {
        "netdev" => &["ingress", "egress"],
        "arp" => &["input", "output", "forward"],
        _ => &["prerouting", "input", "forward", "output", "postrouting", "ingress"],
    };
    names.get(number as usize).copied().unwrap_or("unknown")
}
