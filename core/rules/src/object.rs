//! The objects of a table, in terms of what they mean; `edge/nft` knows how the kernel spells them.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::{IfaceName, Protocol};

use crate::config::RateLimit;

/// Name of a set, map or chain. Only letters, digits, `-`, `_`, `.`, so that people can type it.
pub type Name = Arc<str>;

/// One part of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// An address of the table's family.
    Addr,
    /// An IP protocol number.
    Proto,
    /// A port.
    Port,
    /// An interface name.
    Iface,
    /// Which of the sets that share one set is meant.
    Tag,
}

/// What a set is, without its elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// The key: one field, or several joined.
    pub key: Vec<Field>,
    /// Elements are ranges; only with one field.
    pub interval: bool,
    /// It is a map to verdicts.
    pub verdicts: bool,
    /// Most elements it can hold; makes big hash sets four times faster to fill.
    pub size: Option<u32>,
    /// For people.
    pub comment: Arc<str>,
}

/// A set or verdict map with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What it is.
    pub spec: SetSpec,
    /// Its elements; with a verdict in maps.
    pub elements: BTreeMap<Key, Option<Verdict>>,
}

/// Key of one element.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// One address.
    Addr(IpAddr),
    /// A prefix, in interval sets.
    Net(IpNet),
    /// Address, protocol, port.
    AddrPort(IpAddr, Protocol, u16),
    /// An interface.
    Iface(IfaceName),
    /// An interface and an address.
    IfaceAddr(IfaceName, IpAddr),
    /// A range of ports, in interval sets.
    Ports(u16, u16),
    /// A protocol.
    Proto(Protocol),
    /// One address, of the set with that tag.
    TagAddr(u32, IpAddr),
    /// Address, protocol, port, of the set with that tag.
    TagAddrPort(u32, IpAddr, Protocol, u16),
}

/// What a rule or map element decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// This base chain lets the packet pass.
    Accept,
    /// The packet ends here.
    Drop,
    /// Back to where this chain was jumped from.
    Return,
    /// Into another chain, coming back.
    Jump(Name),
    /// Into another chain, not coming back here.
    Goto(Name),
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the packet is from.
    Source,
    /// Where it goes.
    Destination,
}

/// Incoming or outgoing interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The interface that the packet came in by.
    In,
    /// The interface that it leaves by.
    Out,
}

/// Something to look up in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Load {
    /// Address of a side.
    Addr(Side),
    /// Port of a side.
    Port(Side),
    /// IP protocol.
    Proto,
    /// Interface name.
    Iface(Way),
    /// Nothing of the packet: this number, the same for every packet.
    Tag(u32),
}

impl Load {
    /// The field of a set's key that it is compared with.
    pub fn field(self) -> Field {
        match self {
            Self::Addr(_) => Field::Addr,
            Self::Port(_) => Field::Port,
            Self::Proto => Field::Proto,
            Self::Iface(_) => Field::Iface,
            Self::Tag(_) => Field::Tag,
        }
    }
}

/// A set named in a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetRef {
    /// A set of the table.
    Named(Name),
    /// A constant that lives and dies with the rule.
    Constant(Vec<Key>),
}

/// Connection tracking states, as bits.
pub mod state {
    /// No state fits.
    pub const INVALID: u32 = 1;
    /// Part of a flow that has seen both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Belongs to another flow: ICMP errors, helpers.
    pub const RELATED: u32 = 4;
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The interface is this one; a trailing `*` matches any ending.
    Iface {
        /// Which interface.
        way: Way,
        /// Its name.
        name: Arc<str>,
        /// Inverted.
        not: bool,
    },
    /// The IP protocol.
    Proto {
        /// The protocol.
        proto: Protocol,
        /// Inverted.
        not: bool,
    },
    /// The address is in the prefix.
    Net {
        /// Whose address.
        side: Side,
        /// The prefix.
        net: IpNet,
        /// Inverted.
        not: bool,
    },
    /// The port is in `min..=max`. Goes behind a match on a protocol with ports.
    Ports {
        /// Whose port.
        side: Side,
        /// Lowest.
        min: u16,
        /// Highest.
        max: u16,
        /// Inverted.
        not: bool,
    },
    /// ICMP type and code of the table's family. Goes behind a match on the protocol.
    Icmp {
        /// Type.
        kind: u8,
        /// Code, if it counts.
        code: Option<u8>,
        /// Inverted.
        not: bool,
    },
    /// The flow's state is one of these bits of [`state`].
    State(u32),
    /// `mark & mask` is zero, or, if `set`, is not zero.
    Mark {
        /// The bits.
        mask: u32,
        /// Any of them is set; else none.
        set: bool,
    },
    /// The destination of the packet's flow has been translated (or not). Neither is so for packets
    /// without a flow.
    Translated {
        /// Inverted.
        not: bool,
    },
    /// The mark of the packet's flow has one of these bits. Not so for packets without a flow.
    FlowMark(u32),
    /// The address is one of this host's.
    Local {
        /// Whose address.
        side: Side,
        /// Only addresses of the outgoing interface count.
        on_out_iface: bool,
        /// Inverted.
        not: bool,
    },
    /// The joined values are in a set.
    InSet {
        /// What to look up.
        what: Vec<Load>,
        /// Where.
        set: SetRef,
        /// Inverted.
        not: bool,
    },
}

/// One thing that a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule when the rate is exceeded.
    Limit(RateLimit),
    /// Writes a line to the kernel log.
    Log(Arc<str>),
    /// Shows the packet's headers to who listens to a netfilter log group.
    Show {
        /// The group.
        group: u16,
        /// What is said about the packet.
        prefix: Arc<str>,
    },
    /// `mark = (mark & !clear) | set`.
    Mark {
        /// Bits to clear.
        clear: u32,
        /// Bits to set.
        set: u32,
    },
    /// Keeps the packet out of connection tracking.
    Notrack,
    /// Replaces the source by the outgoing interface's address, with random ports.
    Masquerade {
        /// Ports to use, `min..=max`.
        ports: Option<(u16, u16)>,
    },
    /// Replaces the source.
    Snat {
        /// By this address.
        to: IpAddr,
        /// Ports to use, `min..=max`.
        ports: Option<(u16, u16)>,
    },
    /// Drops with an ICMP "port unreachable".
    Reject,
    /// Drops with a TCP reset. Goes behind a match on TCP.
    Reset,
    /// Decides.
    Verdict(Verdict),
    /// Decides by a verdict map; goes on with the next rule if the key is not in it.
    VerdictMap {
        /// What to look up.
        what: Vec<Load>,
        /// The map.
        map: Name,
    },
}

/// One rule: when all conditions hold, the statements run in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Conditions, cheapest first.
    pub when: Vec<Match>,
    /// What follows.
    pub then: Vec<Statement>,
    /// For people.
    pub comment: Option<Arc<str>>,
    /// If the kernel refuses this rule of a base chain, the chain does without it.
    pub optional: bool,
}

/// Where a base chain is hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Where and when a base chain runs. Its policy is always "accept": what must be dropped is dropped
/// by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// Order within the hook, lowest first: -300 raw, -150 mangle, 0 filter, 100 source NAT.
    pub priority: i32,
    /// It is of type `nat`: consulted for the first packet of a flow.
    pub nat: bool,
}

/// What takes a chain's place when the kernel refuses one of its rules (law 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnRefusal {
    /// A chain that drops everything.
    Close,
    /// Only optional rules are left out; the rest is needed.
    Omit,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Hook of a base chain.
    pub base: Option<Base>,
    /// Rules, in order.
    pub rules: Vec<Rule>,
    /// For people.
    pub comment: Option<Arc<str>>,
    /// What if it cannot be programmed.
    pub on_refusal: OnRefusal,
}

impl Chain {
    /// A regular chain that closes when it is refused.
    pub fn regular(comment: impl Into<Arc<str>>, rules: Vec<Rule>) -> Self {
        Self { base: None, rules, comment: Some(comment.into()), on_refusal: OnRefusal::Close }
    }

    /// The chain that stands in for a refused one.
    pub fn closed(&self) -> Self {
        let drop = Rule::new().counter().verdict(Verdict::Drop).comment("refused by the kernel");
        Self { rules: vec![drop], ..self.clone() }
    }

    /// Names of the sets that the rules look into.
    pub fn sets(&self) -> impl Iterator<Item = &Name> {
        self.rules.iter().flat_map(|r| {
            let matches = r.when.iter().filter_map(|m| match m {
                Match::InSet { set: SetRef::Named(name), .. } => Some(name),
                _ => None,
            });
            let maps = r.then.iter().filter_map(|s| match s {
                Statement::VerdictMap { map, .. } => Some(map),
                _ => None,
            });
            matches.chain(maps)
        })
    }
}

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn when(mut self, m: Match) -> Self {
        self.when.push(m);
        self
    }

    /// Adds a statement.
    pub fn then(mut self, s: Statement) -> Self {
        self.then.push(s);
        self
    }

    /// Adds a counter.
    pub fn counter(self) -> Self {
        self.then(Statement::Counter)
    }

    /// Adds a verdict.
    pub fn verdict(self, v: Verdict) -> Self {
        self.then(Statement::Verdict(v))
    }

    /// Says what it is for.
    pub fn comment(mut self, c: impl Into<Arc<str>>) -> Self {
        self.comment = Some(c.into());
        self
    }

    /// Makes it dispensable.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// A fingerprint, equal for equal rules of the same build. It is stored beside the rule in the
    /// kernel, so that a restarted agent recognises its own rules without decoding them.
    pub fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        FORMAT.hash(&mut hasher);
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Changes whenever `edge/nft` spells the same rule differently, so that old rules are replaced.
const FORMAT: u32 = 1;

/// FNV-1a: stable between runs, unlike the standard library's hasher.
#[derive(Clone, Copy, Debug)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
