//! What the wanted tables say about the first packet of a flow.
//!
//! An established flow is not asked about again by the rules; when they change, somebody must. This is
//! a small machine that takes a flow's first packet, as connection tracking remembers it, the way that
//! the kernel would: through the base chains of the hooks in order, before and after destination NAT.
//! It reads the tables as data: what they mean is written down once, in the chains.
//!
//! It never guesses. What cannot be known from a flow's entry makes the ruling [`Ruling::Unclear`], and
//! so do drops that are not policy's: the packets of a pod that is not known (yet).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::policy::Icmp;
use model::{IfaceName, IpVersion, Protocol};

use crate::fixed::NOT_POLICY;
use crate::object::{
    Chain, Hook, Key, Load, Match, Name, Rule, Set, SetRef, Side, Statement, Verdict, Way,
};
use crate::table::Table;

/// Destination NAT comes here among the chains of a hook.
const NAT: i32 = -100;
/// The kernel allows 16 jumps; more than this cannot be.
const DEEPEST: u32 = 32;

/// Where an address is, seen from this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// It is this host's.
    Here,
    /// Behind that interface.
    Behind(IfaceName),
    /// Nobody knows.
    Unknown,
}

/// A flow as its first packet had it, and where that went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// Who began.
    pub source: IpAddr,
    /// Its port, where the protocol has ports; else 0.
    pub source_port: u16,
    /// Where the packet was sent.
    pub sent_to: IpAddr,
    /// The port it was sent to.
    pub sent_port: u16,
    /// Where it went after destination NAT; the same without.
    pub destination: IpAddr,
    /// The port there.
    pub destination_port: u16,
    /// Type and code, of ICMP.
    pub icmp: Option<Icmp>,
    /// Where `source` is.
    pub from: Place,
    /// Where `sent_to` is: what the host's own packets are routed by before they are translated.
    pub towards: Place,
    /// Where `destination` is.
    pub to: Place,
}

/// What would become of the flow if it began now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It would pass this host.
    Passes,
    /// Policy would end it.
    Denied {
        /// The interface that the deciding endpoint was found by, if it was.
        endpoint: Option<IfaceName>,
        /// What decided, in words: the chain's comment and the rule's.
        by: String,
    },
    /// Its entry does not tell.
    Unclear,
}

/// The base chains of a table, in the order in which packets meet them.
#[derive(Debug)]
pub struct Judge<'a> {
    table: &'a Table,
    base: Vec<(Hook, i32, &'a Name, &'a Chain)>,
    /// `lo`.
    loopback: Option<IfaceName>,
}

impl<'a> Judge<'a> {
    /// Looks through the table's chains once, to judge many flows.
    pub fn new(table: &'a Table) -> Self {
        let base = table.chains().iter().filter_map(|(name, chain)| {
            let base = chain.base.filter(|b| !b.nat)?;
            Some((base.hook, base.priority, name, &**chain))
        });
        let mut base: Vec<_> = base.collect();
        base.sort_by_key(|(_, priority, ..)| *priority);
        Self { table, base, loopback: "lo".parse().ok() }
    }

    /// What would become of the flow.
    pub fn ruling(&self, flow: &Flow) -> Ruling {
        let (from, to) = (iface(&flow.from), iface(&flow.to));
        let hooks: &[(Hook, Option<&IfaceName>, Option<&IfaceName>)] =
            match (&flow.from, &flow.to, &flow.towards) {
                // The host with itself.
                (Place::Here, Place::Here, _) => return Ruling::Passes,
                (Place::Here, Place::Behind(_), Place::Behind(first)) => {
                    &[(Hook::Output, None, Some(first)), (Hook::Postrouting, None, to)]
                }
                // A service that is asked for by an address of the host.
                (Place::Here, Place::Behind(_), Place::Here) => {
                    &[(Hook::Output, None, self.loopback.as_ref()), (Hook::Postrouting, None, to)]
                }
                (Place::Behind(_), Place::Here, _) => {
                    &[(Hook::Prerouting, from, None), (Hook::Input, from, None)]
                }
                (Place::Behind(_), Place::Behind(_), _) => &[
                    (Hook::Prerouting, from, None),
                    (Hook::Forward, from, to),
                    (Hook::Postrouting, None, to),
                ],
                _ => return Ruling::Unclear,
            };
        let mut packet = Packet::new(flow, self.table);
        for (hook, way_in, way_out) in hooks {
            (packet.way_in, packet.way_out) = (*way_in, *way_out);
            packet.nat |= !matches!(hook, Hook::Prerouting | Hook::Output);
            for (_, priority, name, chain) in self.base.iter().filter(|(h, ..)| h == hook) {
                packet.nat |= *priority > NAT;
                match packet.chain(name, chain, 0) {
                    Left::Returned | Left::Accepted => {}
                    Left::Dropped(by) => {
                        return Ruling::Denied { endpoint: packet.endpoint.cloned(), by };
                    }
                    Left::Unclear => return Ruling::Unclear,
                }
            }
        }
        Ruling::Passes
    }
}

fn iface(place: &Place) -> Option<&IfaceName> {
    match place {
        Place::Behind(iface) => Some(iface),
        Place::Here | Place::Unknown => None,
    }
}

/// How a packet left a chain.
enum Left {
    /// At its end, or by a return.
    Returned,
    Accepted,
    Dropped(String),
    Unclear,
}

/// The packet on its way.
struct Packet<'a> {
    flow: &'a Flow,
    table: &'a Table,
    /// It has been translated.
    nat: bool,
    way_in: Option<&'a IfaceName>,
    way_out: Option<&'a IfaceName>,
    mark: u32,
    /// The last interface that a verdict was found by.
    endpoint: Option<&'a IfaceName>,
}

impl<'a> Packet<'a> {
    fn new(flow: &'a Flow, table: &'a Table) -> Self {
        Self { flow, table, nat: false, way_in: None, way_out: None, mark: 0, endpoint: None }
    }

    fn chain(&mut self, name: &Name, chain: &Chain, depth: u32) -> Left {
        if depth > DEEPEST {
            return Left::Unclear;
        }
        for rule in &chain.rules {
            match rule.when.iter().try_fold(true, |all, m| Some(all && self.holds(m)?)) {
                Some(true) => {}
                Some(false) => continue,
                None => return Left::Unclear,
            }
            if let Some(left) = self.run(name, chain, rule, depth) {
                return left;
            }
        }
        Left::Returned
    }

    /// What the statements of a rule that matches do; none if the next rule is asked.
    fn run(&mut self, name: &Name, chain: &Chain, rule: &Rule, depth: u32) -> Option<Left> {
        for statement in &rule.then {
            let verdict = match statement {
                Statement::Mark { clear, set } => {
                    self.mark = (self.mark & !clear) | set;
                    continue;
                }
                Statement::Verdict(verdict) => verdict.clone(),
                Statement::VerdictMap { what, map } => {
                    let Some(set) = self.table.sets().get(map) else { return Some(Left::Unclear) };
                    let Some(verdict) = self.look_up(what, set) else { continue };
                    if let [Load::Iface(way)] = what[..] {
                        self.endpoint = self.iface(way);
                    }
                    verdict
                }
                Statement::Reject | Statement::Reset => Verdict::Drop,
                // Packets without a flow are judged one by one.
                Statement::Notrack => return Some(Left::Unclear),
                Statement::Counter
                | Statement::Limit(_)
                | Statement::Log(_)
                | Statement::Show { .. }
                | Statement::Masquerade { .. }
                | Statement::Snat { .. } => continue,
            };
            return match verdict {
                Verdict::Accept => Some(Left::Accepted),
                Verdict::Return => Some(Left::Returned),
                Verdict::Drop if NOT_POLICY.contains(&&**name) => Some(Left::Unclear),
                Verdict::Drop => Some(Left::Dropped(words(name, chain, rule))),
                Verdict::Jump(to) => match self.enter(&to, depth) {
                    Left::Returned => None,
                    left => Some(left),
                },
                Verdict::Goto(to) => Some(self.enter(&to, depth)),
            };
        }
        None
    }

    fn enter(&mut self, name: &Name, depth: u32) -> Left {
        match self.table.chains().get(name) {
            Some(chain) => self.chain(name, chain, depth + 1),
            None => Left::Unclear,
        }
    }

    /// None if it cannot be told.
    fn holds(&self, m: &Match) -> Option<bool> {
        Some(match m {
            Match::Iface { way, name, not } => {
                let iface = self.iface(*way).map_or("", IfaceName::as_str);
                let equal = match name.strip_suffix('*') {
                    Some(prefix) => iface.starts_with(prefix),
                    None => iface == &**name,
                };
                equal != *not
            }
            Match::Proto { proto, not } => (self.flow.protocol == *proto) != *not,
            Match::Net { side, net, not } => net.contains(&self.address(*side)) != *not,
            Match::Ports { side, min, max, not } => {
                (*min..=*max).contains(&self.port(*side)) != *not
            }
            Match::Icmp { kind, code, not } => {
                let icmp = self.flow.icmp?;
                let equal = icmp.kind == *kind && code.is_none_or(|c| icmp.code == Some(c));
                equal != *not
            }
            // It is a new flow's.
            Match::State(_) | Match::FlowMark(_) => false,
            Match::Translated { not } => self.is_translated() != *not,
            Match::Mark { mask, set } => (self.mark & mask != 0) == *set,
            Match::Local { side, on_out_iface: false, not } => {
                let place = match side {
                    Side::Source => &self.flow.from,
                    Side::Destination => &self.flow.to,
                };
                (*place == Place::Here) != *not
            }
            Match::Local { on_out_iface: true, .. } => return None,
            Match::InSet { what, set, not } => {
                let found = match set {
                    SetRef::Named(name) => {
                        let set = self.table.sets().get(name)?;
                        self.find(what, set).is_some()
                    }
                    SetRef::Constant(keys) => keys.iter().any(|key| self.is(what, key)),
                };
                found != *not
            }
        })
    }

    fn look_up(&self, what: &[Load], set: &Set) -> Option<Verdict> {
        self.find(what, set).cloned().flatten()
    }

    /// The element that holds the packet's values.
    fn find<'s>(&self, what: &[Load], set: &'s Set) -> Option<&'s Option<Verdict>> {
        let key = match *what {
            // Ranges that do not overlap: the last that begins before the value is the only one.
            [Load::Addr(side)] if set.spec.interval => {
                let address = self.address(side);
                let last = Key::Net(IpNet::from(address));
                let (key, verdict) = set.elements.range(..=last).next_back()?;
                return matches!(key, Key::Net(net) if net.contains(&address)).then_some(verdict);
            }
            [Load::Addr(side)] => Key::Addr(self.address(side)),
            [Load::Tag(tag), Load::Addr(side)] => Key::TagAddr(tag, self.address(side)),
            [Load::Tag(tag), Load::Addr(a), Load::Proto, Load::Port(b)] if self.has_ports() => {
                Key::TagAddrPort(tag, self.address(a), self.flow.protocol, self.port(b))
            }
            [Load::Iface(way)] => Key::Iface(self.iface(way)?.clone()),
            [Load::Iface(way), Load::Addr(side)] => {
                Key::IfaceAddr(self.iface(way)?.clone(), self.address(side))
            }
            [Load::Addr(a), Load::Proto, Load::Port(b)] if self.has_ports() => {
                Key::AddrPort(self.address(a), self.flow.protocol, self.port(b))
            }
            _ => {
                return set.elements.iter().find(|(k, _)| self.is(what, k)).map(|(_, v)| v);
            }
        };
        set.elements.get(&key)
    }

    fn is(&self, what: &[Load], key: &Key) -> bool {
        match (what, key) {
            ([Load::Addr(side)], Key::Addr(a)) => self.address(*side) == *a,
            ([Load::Addr(side)], Key::Net(net)) => net.contains(&self.address(*side)),
            ([Load::Proto], Key::Proto(p)) => self.flow.protocol == *p,
            ([Load::Port(side)], Key::Ports(min, max)) => (*min..=*max).contains(&self.port(*side)),
            _ => false,
        }
    }

    fn is_translated(&self) -> bool {
        let Flow { sent_to, sent_port, destination, destination_port, .. } = self.flow;
        self.nat && (sent_to, sent_port) != (destination, destination_port)
    }

    fn has_ports(&self) -> bool {
        self.flow.icmp.is_none()
    }

    fn iface(&self, way: Way) -> Option<&'a IfaceName> {
        match way {
            Way::In => self.way_in,
            Way::Out => self.way_out,
        }
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.flow.source,
            Side::Destination if self.nat => self.flow.destination,
            Side::Destination => self.flow.sent_to,
        }
    }

    fn port(&self, side: Side) -> u16 {
        match side {
            Side::Source => self.flow.source_port,
            Side::Destination if self.nat => self.flow.destination_port,
            Side::Destination => self.flow.sent_port,
        }
    }
}

fn words(name: &Name, chain: &Chain, rule: &Rule) -> String {
    let chain: &Arc<str> = chain.comment.as_ref().unwrap_or(name);
    match &rule.comment {
        Some(rule) => format!("{chain}: {rule}"),
        None => chain.to_string(),
    }
}

impl Flow {
    /// Its family.
    pub fn version(&self) -> IpVersion {
        IpVersion::of(self.source)
    }
}
