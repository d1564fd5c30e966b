//! One rule after the other: instructions on registers.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::packet::{Packet, Tracking, Way};
use crate::register::Registers;
use crate::set::Data;
use crate::table::{Comparison, Expression, Hook, Jump, Load, Rule, Store, Table};

/// Connection tracking begins behind this priority, where a packet enters the host's stack.
const CONNECTION_TRACKING: i32 = -200;
/// Destinations are translated here.
const DESTINATION_NAT: i32 = -100;
/// Bytes of an interface's name.
const NAME: usize = 16;

/// How a rule ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A condition did not hold.
    NoMatch(String),
    /// All held.
    Decided(Jump),
    /// It cannot be said whether all hold, and it matters.
    Unknown(String),
}

/// The kernel's state about one packet.
pub(crate) struct Machine<'a> {
    table: &'a Table,
    packet: &'a Packet,
    way: &'a Way,
    registers: Registers,
    /// Where each value in a register came from.
    names: Vec<(usize, String)>,
    mark: Vec<Option<u8>>,
    flow_mark: Vec<Option<u8>>,
    /// Connection tracking has seen it.
    tracked: bool,
    /// A rule kept it out of connection tracking.
    kept_out: bool,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
struct Place<'a> {
    hook: Hook,
    input: &'a str,
    output: &'a str,
    /// Before its destination is translated.
    early: bool,
}

/// What one instruction did to the rule.
enum Next {
    Go,
    /// It depends on something that is not known.
    Maybe(String),
    End(End),
}

impl<'a> Machine<'a> {
    pub(crate) fn new(table: &'a Table, packet: &'a Packet, way: &'a Way) -> Self {
        Self {
            table,
            packet,
            way,
            registers: Registers::default(),
            names: Vec::new(),
            mark: vec![Some(0); 4],
            flow_mark: vec![Some(0); 4],
            tracked: false,
            kept_out: false,
            place: Place { hook: Hook::Prerouting, input: "", output: "", early: true },
        }
    }

    /// Goes to a base chain.
    pub(crate) fn enter(&mut self, hook: Hook, priority: i32, (input, output): (&'a str, &'a str)) {
        let first = matches!(hook, Hook::Prerouting | Hook::Output);
        self.tracked |= !first || priority > CONNECTION_TRACKING;
        let early = first && priority <= DESTINATION_NAT;
        self.place = Place { hook, input, output, early };
    }

    /// Behind all chains of a hook.
    pub(crate) fn leave(&mut self) {
        self.tracked = true;
    }

    pub(crate) fn hook(&self) -> Hook {
        self.place.hook
    }

    /// Runs one rule; tells what it did, too.
    pub(crate) fn rule(&mut self, rule: &Rule) -> (End, Vec<String>) {
        self.registers = Registers::default();
        self.names.clear();
        let mut did = Vec::new();
        let mut unsure: Option<String> = None;
        for expression in &rule.expressions {
            // What has an effect must not hang on something that is not known.
            if let (Some(why), true) = (&unsure, has_effect(expression)) {
                return (End::Unknown(why.clone()), did);
            }
            match self.execute(expression, &mut did) {
                Next::Go => {}
                Next::Maybe(why) => unsure = unsure.or(Some(why)),
                Next::End(End::NoMatch(why)) => return (End::NoMatch(why), Vec::new()),
                Next::End(end) => return (end, did),
            }
        }
        if let Some(why) = unsure {
            did.push(format!("perhaps ({why})"));
        }
        (End::Decided(Jump::Continue), did)
    }

    fn execute(&mut self, expression: &Expression, did: &mut Vec<String>) -> Next {
        match expression {
            Expression::Load(load, to) => return self.load(*load, *to),
            Expression::Constant(to, value) => self.registers.put_known(*to, value),
            Expression::Store(store, from) => self.store(*store, *from, did),
            Expression::Compare(register, how, want) => return self.compare(*register, *how, want),
            Expression::Range { register, not, from, to } => {
                return self.range(*register, *not, from, to);
            }
            Expression::Bitwise { from, to, mask, xor } => self.bitwise((*from, *to), mask, xor),
            Expression::ByteOrder { from, to, length, size } => {
                self.byte_order((*from, *to), *length, *size);
            }
            Expression::Lookup { set, register, to, decides, not } => {
                return self.lookup(set, *register, (*to, *decides, *not), did);
            }
            Expression::Verdict(jump) => {
                did.push(words(jump));
                return Next::End(End::Decided(jump.clone()));
            }
            Expression::Counter(_) => {}
            Expression::Log(prefix) => did.push(format!("log {prefix:?}")),
            Expression::Limit => return Next::Maybe("a rate may be exceeded".to_owned()),
            Expression::Notrack => {
                self.kept_out |= !self.tracked;
                did.push("notrack".to_owned());
            }
            Expression::Reject => {
                did.push("reject".to_owned());
                return Next::End(End::Decided(Jump::Drop));
            }
            Expression::Nat(what) => {
                did.push(what.clone());
                return Next::End(End::Decided(Jump::Accept));
            }
            Expression::Other(name) => {
                let why = format!("the instruction {name:?} is not known here");
                return Next::End(End::Unknown(why));
            }
        }
        Next::Go
    }

    /// The packet as it is here.
    fn packet(&self) -> Packet {
        if self.place.early { self.packet.before_translation() } else { *self.packet }
    }

    fn tracking(&self) -> Tracking {
        match (self.kept_out, self.tracked) {
            (true, _) => Tracking::Untracked,
            (false, true) => self.packet.tracking(),
            (false, false) => Tracking::Invalid,
        }
    }

    fn load(&mut self, load: Load, to: usize) -> Next {
        let value = match load {
            Load::Payload { base, offset, length } => {
                let header = match base {
                    1 => self.packet().network(),
                    2 => self.packet().transport(),
                    _ => Vec::new(),
                };
                (offset..offset + length).map(|i| header.get(i).copied().flatten()).collect()
            }
            Load::Meta(key) => self.meta(key),
            Load::Ct(0) => known(&self.tracking().bit().to_ne_bytes()),
            // There is no flow to ask.
            Load::Ct(_) if self.tracking() != Tracking::New => {
                return Next::End(End::NoMatch("the packet has no tracked flow".to_owned()));
            }
            Load::Ct(1) => known(&[0]),
            Load::Ct(2) => self.status(),
            Load::Ct(3) => self.flow_mark.clone(),
            Load::Ct(10) => known(&[self.packet.protocol]),
            Load::Ct(_) => vec![None; 16],
            Load::Fib { result, flags } => self.fib(result, flags),
        };
        self.registers.put(to, &value);
        self.names.retain(|(at, _)| *at != to);
        self.names.push((to, name(load, self.packet.source.is_ipv6())));
        Next::Go
    }

    /// Of a first packet's flow before its source is translated, as far as this is about the
    /// destination: the rest is how far connection tracking has come.
    fn status(&self) -> Vec<Option<u8>> {
        const DESTINATION_TRANSLATED: u32 = 0x20;
        let translated = self.packet.original.is_some() && !self.place.early;
        let bits = if translated { DESTINATION_TRANSLATED } else { 0 };
        let lowest = if cfg!(target_endian = "little") { 0 } else { 3 };
        let one = |(i, byte): (usize, u8)| (i == lowest).then_some(byte);
        bits.to_ne_bytes().into_iter().enumerate().map(one).collect()
    }

    fn meta(&self, key: u32) -> Vec<Option<u8>> {
        let v6 = self.packet.source.is_ipv6();
        let interface = |name: &str| {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(NAME, 0);
            known(&bytes)
        };
        match key {
            1 => known(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] }),
            3 => self.mark.clone(),
            6 => interface(self.place.input),
            7 => interface(self.place.output),
            15 => known(&[if v6 { 10 } else { 2 }]),
            16 => known(&[self.packet.protocol]),
            _ => vec![None; 16],
        }
    }

    /// The kind of an address: local, or what it is else.
    fn fib(&self, result: u32, flags: u32) -> Vec<Option<u8>> {
        const UNICAST: u32 = 1;
        const LOCAL: u32 = 2;
        const MULTICAST: u32 = 5;
        let packet = self.packet();
        let (address, interface) = match (result, flags) {
            (3, 1) => (packet.source, None),
            (3, 2) => (packet.destination, None),
            (3, 0x11) => (packet.source, Some(self.place.output)),
            (3, 0x12) => (packet.destination, Some(self.place.output)),
            (3, 0x9) => (packet.source, Some(self.place.input)),
            (3, 0xa) => (packet.destination, Some(self.place.input)),
            _ => return vec![None; 16],
        };
        let mut local = self.way.local.iter();
        let is_local = local.any(|(on, a)| *a == address && interface.is_none_or(|i| i == on));
        let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
        let kind = match () {
            () if is_local => LOCAL,
            () if address.is_loopback() && interface.is_none_or(|i| i == "lo") => LOCAL,
            () if address.is_multicast() => MULTICAST,
            // Broadcast addresses of networks are known to routing only.
            () if broadcast => return vec![None; 4],
            () => UNICAST,
        };
        known(&kind.to_ne_bytes())
    }

    fn store(&mut self, store: Store, from: usize, did: &mut Vec<String>) {
        let value = self.registers.get(from, 4);
        let shown = || {
            let all: Option<Vec<u8>> = value.iter().copied().collect();
            let number = all.and_then(|b| Some(u32::from_ne_bytes(b.try_into().ok()?)));
            number.map_or("?".to_owned(), |n| format!("{n:#010x}"))
        };
        match store {
            Store::Meta(3) => {
                did.push(format!("meta mark set {}", shown()));
                self.mark = value;
            }
            Store::Ct(3) if self.tracking() == Tracking::New => {
                did.push(format!("ct mark set {}", shown()));
                self.flow_mark = value;
            }
            // Nothing that any verdict here could depend on: it reads back as not known.
            Store::Meta(key) => did.push(format!("meta {key} set")),
            Store::Ct(key) => did.push(format!("ct {key} set")),
        }
    }

    fn compare(&self, register: usize, how: Comparison, want: &[u8]) -> Next {
        let have = self.registers.get(register, want.len());
        let whole: Option<Vec<u8>> = have.iter().copied().collect();
        let equal = match &whole {
            Some(whole) => Some(whole == want),
            None if have.iter().zip(want).any(|(h, w)| h.is_some_and(|h| h != *w)) => Some(false),
            None => None,
        };
        let ordering = || whole.as_ref().map(|have| have.as_slice().cmp(want));
        let holds = match how {
            Comparison::Equal => equal,
            Comparison::NotEqual => equal.map(|e| !e),
            Comparison::Less => ordering().map(std::cmp::Ordering::is_lt),
            Comparison::LessOrEqual => ordering().map(std::cmp::Ordering::is_le),
            Comparison::Greater => ordering().map(std::cmp::Ordering::is_gt),
            Comparison::GreaterOrEqual => ordering().map(std::cmp::Ordering::is_ge),
        };
        let how = match how {
            Comparison::Equal => "",
            Comparison::NotEqual => "not ",
            Comparison::Less => "less than ",
            Comparison::LessOrEqual => "at most ",
            Comparison::Greater => "more than ",
            Comparison::GreaterOrEqual => "at least ",
        };
        let name = self.name(register);
        self.condition(holds, register, want.len(), || format!("want {how}{}", value(&name, want)))
    }

    fn range(&self, register: usize, not: bool, from: &[u8], to: &[u8]) -> Next {
        let have = self.registers.known(register, from.len());
        let holds = have.map(|h| (from <= &h[..] && &h[..] <= to) != not);
        let name = self.name(register);
        self.condition(holds, register, from.len(), || {
            let word = if not { "not " } else { "" };
            format!("want {word}{} to {}", value(&name, from), value(&name, to))
        })
    }

    fn condition(
        &self,
        holds: Option<bool>,
        register: usize,
        length: usize,
        want: impl Fn() -> String,
    ) -> Next {
        match holds {
            Some(true) => Next::Go,
            Some(false) => {
                let why = format!("{}, {}", self.shown(register, length), want());
                Next::End(End::NoMatch(why))
            }
            None => Next::Maybe(format!("{} is not known", self.name(register))),
        }
    }

    fn bitwise(&mut self, (from, to): (usize, usize), mask: &[u8], xor: &[u8]) {
        let have = self.registers.get(from, mask.len());
        let bits = xor.iter().copied().chain(std::iter::repeat(0));
        let one = |((have, mask), xor): ((Option<u8>, &u8), u8)| match (have, mask) {
            (_, 0) => Some(xor),
            (Some(byte), mask) => Some(byte & mask ^ xor),
            (None, _) => None,
        };
        let result: Vec<_> = have.into_iter().zip(mask).zip(bits).map(one).collect();
        self.registers.put(to, &result);
        let constant = mask.iter().all(|byte| *byte == 0) && xor.iter().any(|byte| *byte != 0);
        let name = if constant {
            "tag".to_owned()
        } else {
            format!("{} & {}", self.name(from), value("", mask))
        };
        self.names.retain(|(at, _)| *at != to);
        self.names.push((to, name));
    }

    fn byte_order(&mut self, (from, to): (usize, usize), length: usize, size: usize) {
        let mut bytes = self.registers.get(from, length);
        if cfg!(target_endian = "little") {
            bytes.chunks_mut(size.max(1)).for_each(<[_]>::reverse);
        }
        self.registers.put(to, &bytes);
    }

    fn lookup(
        &mut self,
        set: &str,
        register: usize,
        (to, decides, not): (Option<usize>, bool, bool),
        did: &mut Vec<String>,
    ) -> Next {
        let table = self.table;
        let Some(found) = table.sets.get(set) else {
            return Next::End(End::Unknown(format!("there is no set {set}")));
        };
        let length = found.key_length;
        let Some(key) = self.registers.known(register, length) else {
            if !found.may_have(&self.registers.get(register, length)) {
                if not {
                    return Next::Go;
                }
                let why = format!("{}, which is not in {set}", self.shown(register, length));
                return Next::End(End::NoMatch(why));
            }
            let why = format!("{} is not known", self.name(register));
            return if decides { Next::End(End::Unknown(why)) } else { Next::Maybe(why) };
        };
        let element = found.find(&key);
        if element.is_some() == not {
            let word = if not { "" } else { " not" };
            let why = format!("{}, which is{word} in {set}", self.shown(register, length));
            return Next::End(End::NoMatch(why));
        }
        match element.and_then(|e| e.data.as_ref()) {
            Some(Data::Verdict(jump)) if decides => {
                did.push(format!("{} by map {set}", words(jump)));
                Next::End(End::Decided(jump.clone()))
            }
            Some(Data::Value(bytes)) if to.is_some() => {
                self.registers.put_known(to.unwrap_or_default(), bytes);
                Next::Go
            }
            Some(Data::Other(what)) => {
                Next::End(End::Unknown(format!("map {set} has {what}, which is not known here")))
            }
            _ if decides || to.is_some() => {
                Next::End(End::Unknown(format!("map {set} has no data for its element")))
            }
            _ => Next::Go,
        }
    }

    /// What is in a register, for people: of joined values the name of each.
    fn name(&self, register: usize) -> Cow<'_, str> {
        let mut name = self.names.iter().filter(|(at, _)| *at == register);
        name.next_back().map_or(Cow::Borrowed("a value"), |(_, name)| Cow::Borrowed(name.as_str()))
    }

    fn shown(&self, register: usize, length: usize) -> String {
        let within = |at: &usize| (register..register + length).contains(at);
        let mut parts: Vec<_> = self.names.iter().filter(|(at, _)| within(at)).collect();
        parts.sort_by_key(|(at, _)| *at);
        if parts.len() < 2 {
            let name = self.name(register);
            let bytes = self.registers.known(register, length);
            let bytes = bytes.map_or("not known".to_owned(), |b| value(&name, &b));
            return format!("{name} is {bytes}");
        }
        let ends: Vec<usize> =
            parts.iter().skip(1).map(|(at, _)| *at).chain([register + length]).collect();
        let one = |((at, name), end): (&(usize, String), usize)| {
            let bytes = self.registers.known(*at, end - at).unwrap_or_default();
            let bytes = &bytes[..bytes.len().min(width(name, bytes.len()))];
            format!("{name} is {}", value(name, bytes))
        };
        let all: Vec<String> = parts.into_iter().zip(ends).map(one).collect();
        all.join(", ")
    }
}

fn has_effect(expression: &Expression) -> bool {
    match expression {
        Expression::Store(..)
        | Expression::Verdict(_)
        | Expression::Notrack
        | Expression::Reject
        | Expression::Nat(_)
        | Expression::Other(_) => true,
        Expression::Lookup { decides, .. } => *decides,
        _ => false,
    }
}

fn known(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().copied().map(Some).collect()
}

fn words(jump: &Jump) -> String {
    match jump {
        Jump::Accept => "accept".to_owned(),
        Jump::Drop => "drop".to_owned(),
        Jump::Continue => "continue".to_owned(),
        Jump::Return => "return".to_owned(),
        Jump::Jump(to) => format!("jump {to}"),
        Jump::Goto(to) => format!("goto {to}"),
        Jump::Other(number) => format!("verdict {number}"),
    }
}

/// What people call it.
fn name(load: Load, v6: bool) -> String {
    let fixed = match load {
        Load::Payload { base: 1, offset, length: 4 | 16 } => match (offset, v6) {
            (12, false) | (8, true) => "source address",
            (16, false) | (24, true) => "destination address",
            _ => "",
        },
        Load::Payload { base: 2, offset: 0, length: 2 } => "source port",
        Load::Payload { base: 2, offset: 2, length: 2 } => "destination port",
        Load::Payload { base: 2, offset: 0, length: 1 } => "ICMP type",
        Load::Payload { base: 2, offset: 1, length: 1 } => "ICMP code",
        Load::Meta(3) => "mark",
        Load::Meta(6) => "incoming interface",
        Load::Meta(7) => "outgoing interface",
        Load::Meta(16) => "protocol",
        Load::Ct(0) => "state of the flow",
        Load::Ct(2) => "status of the flow",
        Load::Ct(3) => "mark of the flow",
        Load::Fib { result: 3, .. } => "kind of address",
        _ => "",
    };
    if !fixed.is_empty() {
        return fixed.to_owned();
    }
    match load {
        Load::Payload { base, offset, length } => {
            let header = ["link", "network", "transport"].get(base as usize).unwrap_or(&"inner");
            format!("{header} header bytes {offset} to {}", offset + length)
        }
        Load::Meta(key) => format!("meta {key}"),
        Load::Ct(key) => format!("ct {key}"),
        Load::Fib { result, flags } => format!("fib {result} {flags:#x}"),
    }
}

/// Bytes that count of a value among joined ones.
fn width(name: &str, most: usize) -> usize {
    match name {
        "protocol" => 1,
        "source port" | "destination port" => 2,
        _ => most,
    }
}

/// A value for people, by what it is.
fn value(name: &str, bytes: &[u8]) -> String {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
    if name.ends_with("address") && !name.starts_with("kind") {
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            return IpAddr::from(v4).to_string();
        }
        if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
            return IpAddr::from(v6).to_string();
        }
    }
    if name.ends_with("interface") {
        let text: Vec<u8> = bytes.iter().copied().take_while(|b| *b != 0).collect();
        let more = if bytes.len() < NAME { "*" } else { "" };
        return format!("{:?}", format!("{}{more}", String::from_utf8_lossy(&text)));
    }
    if name.ends_with("port") || name == "protocol" || name.starts_with("ICMP") {
        return number(bytes).to_string();
    }
    let native = match <[u8; 4]>::try_from(bytes) {
        Ok(four) => u64::from(u32::from_ne_bytes(four)),
        Err(_) if bytes.len() <= 8 => number(bytes),
        Err(_) => return format!("{bytes:02x?}"),
    };
    format!("{native:#x}")
}
