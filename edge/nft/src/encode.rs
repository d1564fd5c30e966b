//! Objects as netlink attributes.

use std::net::IpAddr;

use model::{IpVersion, Protocol};
use rules::object::{Base, Field, Hook, Load, Side, Way};
use rules::{Chain, Key, Match, Rule, Set, SetSpec, Statement, Verdict};

use crate::expr::Expressions;
use crate::wire::{Buffer, flag, msg};

/// The table of each family.
pub(crate) const TABLE: &str = "calico";

/// Longest comment: `nft` reads 128 bytes, and the kernel keeps 256 bytes of user data.
const LONGEST_COMMENT: usize = 120;
/// Own kind of rule user data; `nft` skips kinds that it does not know.
pub(crate) const DIGEST: u8 = 0xca;
/// Bytes of elements in one message; an attribute ends at 64 kB.
const ELEMENT_BYTES: usize = 48_000;

/// Bytes of an interface's name.
const IFACE: usize = 16;
/// Bytes of the longest key of ours: an interface and an IPv6 address.
const LONGEST_KEY: usize = 32;

/// Flags of a set.
pub(crate) mod set_flag {
    pub(crate) const ANONYMOUS: u32 = 0x1;
    pub(crate) const CONSTANT: u32 = 0x2;
    pub(crate) const INTERVAL: u32 = 0x4;
    pub(crate) const MAP: u32 = 0x8;
}

/// The kernel's number of a family.
pub(crate) fn family(version: IpVersion) -> u8 {
    match version {
        IpVersion::V4 => 2,  // NFPROTO_IPV4
        IpVersion::V6 => 10, // NFPROTO_IPV6
    }
}

/// How a set looks to the kernel: what must be equal for an existing one to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Header {
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_length: u32,
    pub(crate) size: u32,
}

impl Header {
    pub(crate) fn of(spec: &SetSpec, version: IpVersion) -> Self {
        let number = |f: &Field| match (f, version) {
            (Field::Addr, IpVersion::V4) => 7,
            (Field::Addr, IpVersion::V6) => 8,
            (Field::Proto, _) => 12,
            (Field::Port, _) => 13,
            (Field::Iface, _) => 41,
            (Field::Tag, _) => 19, // a mark
        };
        let key_type = spec.key.iter().fold(0, |all, f| all << 6 | number(f));
        let widths = spec.key.iter().map(|f| width(*f, version));
        let joined = spec.key.len() > 1;
        let padded = |w: usize| if joined { w.next_multiple_of(4) } else { w };
        let key_length = widths.map(padded).sum::<usize>() as u32;
        let interval = if spec.interval { set_flag::INTERVAL } else { 0 };
        let map = if spec.verdicts { set_flag::MAP } else { 0 };
        Self { flags: interval | map, key_type, key_length, size: spec.size.unwrap_or(0) }
    }
}

fn width(field: Field, version: IpVersion) -> usize {
    match (field, version) {
        (Field::Addr, IpVersion::V4) | (Field::Tag, _) => 4,
        (Field::Addr, IpVersion::V6) | (Field::Iface, _) => 16,
        (Field::Proto, _) => 1,
        (Field::Port, _) => 2,
    }
}

/// One element as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RawElement {
    pub(crate) key: Vec<u8>,
    /// It ends an interval: the first key that is no longer in it.
    pub(crate) end: bool,
    /// Verdict code, and the chain.
    pub(crate) verdict: Option<(i32, String)>,
}

/// The bytes of a key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyBytes {
    bytes: [u8; LONGEST_KEY],
    length: usize,
}

impl KeyBytes {
    fn with(mut self, part: &[u8]) -> Self {
        let end = self.length + part.len();
        self.bytes[self.length..end].copy_from_slice(part);
        self.length = end;
        self
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => self.with(&a.octets()),
            IpAddr::V6(a) => self.with(&a.octets()),
        }
    }

    fn iface(self, name: &str) -> Self {
        let end = self.length + IFACE;
        let mut all = self.with(name.as_bytes());
        all.length = end;
        all
    }

    /// Protocol and port, each padded as parts of a joined key are.
    fn port(self, protocol: Protocol, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.with(&[protocol.0, 0, 0, 0, high, low, 0, 0])
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The number after this big-endian one; none after the last.
    fn after(mut self) -> Option<Self> {
        for b in self.bytes[..self.length].iter_mut().rev() {
            let (next, overflow) = b.overflowing_add(1);
            *b = next;
            if !overflow {
                return Some(self);
            }
        }
        None
    }
}

/// An element as it is spelled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spelled<'a> {
    pub(crate) key: KeyBytes,
    /// It ends an interval.
    pub(crate) end: bool,
    pub(crate) verdict: Option<(i32, &'a str)>,
}

impl RawElement {
    pub(crate) fn verdict(&self) -> Option<(i32, &str)> {
        self.verdict.as_ref().map(|(code, chain)| (*code, chain.as_str()))
    }
}

/// An element's spelling: one, or two in interval sets.
pub(crate) fn spelled<'a>(
    key: &Key,
    verdict: Option<&'a Verdict>,
) -> impl Iterator<Item = Spelled<'a>> + use<'a> {
    let none = KeyBytes::default();
    let (first, last) = match key {
        Key::Addr(a) => (none.address(*a), None),
        Key::Net(n) => (none.address(n.network()), Some(none.address(n.broadcast()))),
        Key::AddrPort(a, proto, port) => (none.address(*a).port(*proto, *port), None),
        Key::TagAddr(tag, a) => (none.with(&tag.to_ne_bytes()).address(*a), None),
        Key::TagAddrPort(tag, a, proto, port) => {
            (none.with(&tag.to_ne_bytes()).address(*a).port(*proto, *port), None)
        }
        Key::Iface(name) => (none.iface(name.as_str()), None),
        Key::IfaceAddr(name, a) => (none.iface(name.as_str()).address(*a), None),
        Key::Ports(min, max) => {
            (none.with(&min.to_be_bytes()), Some(none.with(&max.to_be_bytes())))
        }
        Key::Proto(p) => (none.with(&[p.0]), None),
    };
    let begin = Spelled { key: first, end: false, verdict: verdict.map(raw_verdict) };
    let end = last.and_then(KeyBytes::after).map(|key| Spelled { key, end: true, verdict: None });
    std::iter::once(begin).chain(end)
}

/// As [`spelled`], to be kept.
pub(crate) fn raw_elements(key: &Key, verdict: Option<&Verdict>) -> Vec<RawElement> {
    let kept = |s: Spelled<'_>| RawElement {
        key: s.key.as_slice().to_vec(),
        end: s.end,
        verdict: s.verdict.map(|(code, chain)| (code, chain.to_owned())),
    };
    spelled(key, verdict).map(kept).collect()
}

/// What can be sent as an element.
pub(crate) trait Element {
    fn put(&self, out: &mut Buffer);
}

impl Element for &RawElement {
    fn put(&self, out: &mut Buffer) {
        put_element(out, &self.key, self.end, self.verdict());
    }
}

impl Element for Spelled<'_> {
    fn put(&self, out: &mut Buffer) {
        put_element(out, self.key.as_slice(), self.end, self.verdict);
    }
}

pub(crate) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(crate) fn iface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFACE, 0);
    bytes
}

fn raw_verdict(verdict: &Verdict) -> (i32, &str) {
    match verdict {
        Verdict::Drop => (0, ""),
        Verdict::Accept => (1, ""),
        Verdict::Jump(chain) => (-3, chain),
        Verdict::Goto(chain) => (-4, chain),
        Verdict::Return => (-5, ""),
    }
}

pub(crate) fn put_verdict(out: &mut Buffer, (code, chain): (i32, &str)) {
    let verdict = out.nest(2);
    out.be32(1, code as u32);
    if !chain.is_empty() {
        out.text(2, chain);
    }
    out.close(verdict);
}

/// A kind, a length and a text that ends in zero.
fn comment_data(kind: u8, comment: &str) -> Vec<u8> {
    let mut end = comment.len().min(LONGEST_COMMENT);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    [&[kind, end as u8 + 1], &comment.as_bytes()[..end], &[0]].concat()
}

/// Number of the set in this batch, for rules that are sent before the kernel has named it.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(crate) out: Buffer,
    pub(crate) set_id: u32,
}

impl Encoder {
    pub(crate) fn table(&mut self, version: IpVersion, wanted: bool, seq: u32) {
        let number = if wanted { msg::NEW_TABLE } else { msg::DEL_TABLE };
        let flags = if wanted { flag::CREATE } else { 0 };
        self.out.begin(number, flags, family(version), seq);
        self.out.text(1, TABLE);
        self.out.end();
    }

    pub(crate) fn chain(&mut self, version: IpVersion, name: &str, chain: &Chain, seq: u32) {
        self.out.begin(msg::NEW_CHAIN, flag::CREATE, family(version), seq);
        self.out.text(1, TABLE);
        self.out.text(3, name);
        if let Some(base) = &chain.base {
            let (hook, priority, kind) = hook(*base);
            let nest = self.out.nest(4);
            self.out.be32(1, hook);
            self.out.be32(2, priority as u32);
            self.out.close(nest);
            self.out.be32(5, 1); // policy accept
            self.out.text(7, kind);
        }
        if let Some(comment) = &chain.comment {
            self.out.bytes(12, &comment_data(0, comment));
        }
        self.out.end();
    }

    pub(crate) fn delete_chain(&mut self, version: IpVersion, name: &str, seq: u32) {
        self.out.begin(msg::DEL_CHAIN, 0, family(version), seq);
        self.out.text(1, TABLE);
        self.out.text(3, name);
        self.out.end();
    }

    pub(crate) fn flush_chain(&mut self, version: IpVersion, name: &str, seq: u32) {
        self.out.begin(msg::DEL_RULE, 0, family(version), seq);
        self.out.text(1, TABLE);
        self.out.text(2, name);
        self.out.end();
    }

    /// The rule, and before it the constants that it looks into.
    pub(crate) fn rule(&mut self, version: IpVersion, chain: &str, rule: &Rule, seq: u32) {
        let mut expressions = Expressions::new(version);
        for m in &rule.when {
            if let Match::InSet { set: rules::object::SetRef::Constant(keys), what, .. } = m {
                self.set_id += 1;
                let id = self.set_id;
                self.constant(version, what, keys, seq);
                expressions.condition(m, id);
            } else {
                expressions.condition(m, 0);
            }
        }
        for statement in &rule.then {
            expressions.statement(statement);
        }
        self.out.begin(msg::NEW_RULE, flag::CREATE | flag::APPEND, family(version), seq);
        self.out.text(1, TABLE);
        self.out.text(2, chain);
        self.out.bytes(4 | 0x8000, &expressions.finish());
        let comment = rule.comment.as_deref().map(|c| comment_data(0, c)).unwrap_or_default();
        let digest = [&[DIGEST, 8], &rule.digest().to_be_bytes()[..]].concat();
        self.out.bytes(7, &[comment, digest].concat());
        self.out.end();
    }

    fn constant(&mut self, version: IpVersion, what: &[Load], keys: &[Key], seq: u32) {
        let interval = keys.iter().any(|k| matches!(k, Key::Net(_) | Key::Ports(..)));
        let spec = SetSpec {
            key: what.iter().map(|l| l.field()).collect(),
            interval,
            verdicts: false,
            size: None,
            comment: "".into(),
        };
        let mut header = Header::of(&spec, version);
        header.flags |= set_flag::ANONYMOUS | set_flag::CONSTANT;
        self.set_header(version, "__set%d", &header, &spec, seq);
        let elements = keys.iter().flat_map(|k| spelled(k, None));
        self.elements((version, "__set%d"), elements, true, seq);
    }

    pub(crate) fn set(&mut self, version: IpVersion, name: &str, set: &Set, seq: u32) {
        self.set_id += 1;
        self.set_header(version, name, &Header::of(&set.spec, version), &set.spec, seq);
    }

    fn set_header(&mut self, v: IpVersion, name: &str, header: &Header, spec: &SetSpec, seq: u32) {
        let out = &mut self.out;
        out.begin(msg::NEW_SET, flag::CREATE, family(v), seq);
        out.text(1, TABLE);
        out.text(2, name);
        out.be32(3, header.flags);
        out.be32(4, header.key_type);
        out.be32(5, header.key_length);
        if spec.verdicts {
            out.be32(6, 0xffff_ff00); // a verdict
            out.be32(7, 0);
        }
        if header.size > 0 {
            let desc = out.nest(9);
            out.be32(1, header.size);
            out.close(desc);
        }
        out.be32(10, self.set_id);
        // Byte order of the key (1 host, 2 network): without it, `nft list` prints names as "".
        let order: u32 = if spec.key == [Field::Iface] { 1 } else { 2 };
        let order = [&[0, 4], &order.to_ne_bytes()[..]].concat();
        let comment =
            if spec.comment.is_empty() { Vec::new() } else { comment_data(7, &spec.comment) };
        out.bytes(13, &[order, comment].concat());
        out.end();
    }

    pub(crate) fn delete_set(&mut self, version: IpVersion, name: &str, seq: u32) {
        self.out.begin(msg::DEL_SET, 0, family(version), seq);
        self.out.text(1, TABLE);
        self.out.text(2, name);
        self.out.end();
    }

    /// Adds or removes elements, in as many messages as it takes, all of one number.
    pub(crate) fn elements<E: Element>(
        &mut self,
        (version, set): (IpVersion, &str),
        elements: impl IntoIterator<Item = E>,
        add: bool,
        seq: u32,
    ) {
        let (number, flags) =
            if add { (msg::NEW_ELEMENT, flag::CREATE) } else { (msg::DEL_ELEMENT, 0) };
        let mut rest = elements.into_iter().peekable();
        while rest.peek().is_some() {
            let out = &mut self.out;
            out.begin(number, flags, family(version), seq);
            out.text(1, TABLE);
            out.text(2, set);
            if set == "__set%d" {
                out.be32(4, self.set_id);
            }
            let list = out.nest(3);
            while out.nested(&list) < ELEMENT_BYTES
                && let Some(element) = rest.next()
            {
                element.put(out);
            }
            out.close(list);
            out.end();
        }
    }
}

fn put_element(out: &mut Buffer, bytes: &[u8], end: bool, verdict: Option<(i32, &str)>) {
    let nest = out.nest(1);
    if end {
        out.be32(3, 1);
    }
    let key = out.nest(1);
    out.bytes(1, bytes);
    out.close(key);
    if let Some(verdict) = verdict {
        let data = out.nest(2);
        put_verdict(out, verdict);
        out.close(data);
    }
    out.close(nest);
}

/// Hook number, priority and type of a base chain.
pub(crate) fn hook(base: Base) -> (u32, i32, &'static str) {
    let number = match base.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    (number, base.priority, if base.nat { "nat" } else { "filter" })
}

/// Where an address or port stands in a packet: base header, offset, length.
pub(crate) fn payload(load: Load, version: IpVersion) -> Option<(u32, u32, u32)> {
    Some(match (load, version) {
        (Load::Addr(Side::Source), IpVersion::V4) => (1, 12, 4),
        (Load::Addr(Side::Destination), IpVersion::V4) => (1, 16, 4),
        (Load::Addr(Side::Source), IpVersion::V6) => (1, 8, 16),
        (Load::Addr(Side::Destination), IpVersion::V6) => (1, 24, 16),
        (Load::Port(Side::Source), _) => (2, 0, 2),
        (Load::Port(Side::Destination), _) => (2, 2, 2),
        _ => return None,
    })
}

/// The kernel's number of something about a packet.
pub(crate) fn meta(load: Load) -> Option<u32> {
    match load {
        Load::Iface(Way::In) => Some(6),
        Load::Iface(Way::Out) => Some(7),
        Load::Proto => Some(16),
        _ => None,
    }
}

/// Bytes that a loaded value takes.
pub(crate) fn load_width(load: Load, version: IpVersion) -> u32 {
    width(load.field(), version) as u32
}

/// Only for statements that decide.
pub(crate) fn verdict_of(statement: &Statement) -> Option<(i32, &str)> {
    match statement {
        Statement::Verdict(v) => Some(raw_verdict(v)),
        _ => None,
    }
}
