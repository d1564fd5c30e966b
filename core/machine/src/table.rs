//! A table as it was read.

use std::collections::BTreeMap;

use crate::set::Set;

/// One family's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name, those without a name of their own included.
    pub sets: BTreeMap<String, Set>,
}

/// A chain with its rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it is hooked; nothing for a chain that is only jumped to.
    pub base: Option<Base>,
    /// What its maker says about it.
    pub comment: Option<String>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A place on a packet's way through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Every packet that arrives.
    Prerouting,
    /// Packets to this host.
    Input,
    /// Packets through this host.
    Forward,
    /// Packets from this host.
    Output,
    /// Every packet that leaves.
    Postrouting,
}

impl Hook {
    /// As `nft` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// Where and when a base chain runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The hook; nothing for one that no IP packet passes here, such as `ingress`.
    pub hook: Option<Hook>,
    /// Order within the hook, lowest first.
    pub priority: i32,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// A packet that no rule decides about is dropped.
    pub drops: bool,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The kernel's number for it.
    pub handle: u64,
    /// What its maker says about it.
    pub comment: Option<String>,
    /// Its instructions, in order.
    pub expressions: Vec<Expression>,
}

impl Rule {
    /// What it has counted, if it counts.
    pub fn counters(&self) -> Option<Counters> {
        self.expressions.iter().find_map(|e| match e {
            Expression::Counter(counters) => Some(*counters),
            _ => None,
        })
    }
}

/// What a rule has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Where the packet goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jump {
    /// The base chain lets it pass.
    Accept,
    /// It ends here.
    Drop,
    /// With the next rule.
    Continue,
    /// Behind the jump into this chain.
    Return,
    /// In another chain, then behind this rule.
    Jump(String),
    /// In another chain, then behind the last jump.
    Goto(String),
    /// A verdict that this interpreter does not know: its number.
    Other(i32),
}

/// Something that is read about the packet, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Bytes of the packet: of which header (0 link, 1 network, 2 transport), from where, how many.
    Payload {
        /// Header.
        base: u32,
        /// First byte.
        offset: usize,
        /// How many.
        length: usize,
    },
    /// What the kernel knows about the packet.
    Meta(u32),
    /// What connection tracking knows about its flow.
    Ct(u32),
    /// What routing knows about an address.
    Fib {
        /// 1 outgoing interface, 2 its name, 3 the kind of address.
        result: u32,
        /// Which address, seen from where.
        flags: u32,
    },
}

/// Something that can be written about the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// What the kernel knows about the packet.
    Meta(u32),
    /// What connection tracking knows about its flow.
    Ct(u32),
}

/// How two values are compared, byte by byte from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// One instruction. Registers are named by their first byte in the register file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Reads into a register.
    Load(Load, usize),
    /// Writes from a register.
    Store(Store, usize),
    /// Goes on only if the comparison holds.
    Compare(usize, Comparison, Vec<u8>),
    /// Goes on only if the value is in the range, or, if told so, is not.
    Range {
        /// The value.
        register: usize,
        /// It must not be in the range.
        not: bool,
        /// Lowest.
        from: Vec<u8>,
        /// Highest.
        to: Vec<u8>,
    },
    /// `(from & mask) ^ xor`
    Bitwise {
        /// Where the value is.
        from: usize,
        /// Where the result goes.
        to: usize,
        /// Bits to keep.
        mask: Vec<u8>,
        /// Bits to turn over.
        xor: Vec<u8>,
    },
    /// Turns the bytes of each number over, where this machine's order is not the network's.
    ByteOrder {
        /// Where the value is.
        from: usize,
        /// Where the result goes.
        to: usize,
        /// Bytes in all.
        length: usize,
        /// Bytes of each number.
        size: usize,
    },
    /// A constant.
    Constant(usize, Vec<u8>),
    /// Decides.
    Verdict(Jump),
    /// Looks into a set; goes on only if the value is in it, or, if told so, is not. From a map, the
    /// data go to a register, or the verdict decides.
    Lookup {
        /// The set.
        set: String,
        /// The value.
        register: usize,
        /// Where a map's data go.
        to: Option<usize>,
        /// It is a map to verdicts.
        decides: bool,
        /// The value must not be in the set.
        not: bool,
    },
    /// Counts.
    Counter(Counters),
    /// Writes to the kernel's log or to a program that listens.
    Log(String),
    /// Goes on only while a rate is not exceeded.
    Limit,
    /// Keeps the packet out of connection tracking.
    Notrack,
    /// Refuses the packet.
    Reject,
    /// Replaces addresses or ports, and ends the chain: `masquerade`, `snat`, `dnat`, `redirect`.
    Nat(String),
    /// Something that this interpreter does not know.
    Other(String),
}
