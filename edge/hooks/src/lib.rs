//! Who else can drop, translate, untrack or redirect packets on this machine, before policy is asked and behind what it
//! accepts.
//!
//! What goes in: nothing but the kernel, as the network namespace of the calling thread shows it. What comes out: one
//! [`Finding`] for each base chain of other nf_tables tables, each hook of a legacy iptables table, each queue with tc
//! filters, each XDP program, each BPF program linked to a device (tcx) or to netfilter; with what it may do and what an
//! administrator can do about it.
//!
//! Invariants: nothing is changed, no module is loaded, no command is executed. What a finding "may" do is what its rules,
//! and those that they lead to, could do to some packet: conditions are not weighed. What does nothing to a packet
//! is no finding.
//!
//! Deliberately absent: BPF programs of control groups, hooks that kernel modules make by themselves (the kernel lists
//! them only with an option that few distributions set).
//!
//! Start reading at [`look`].

#![allow(unsafe_code, reason = "system calls that no library has; each has a SAFETY sentence")]

mod bpf;
mod chains;
mod devices;
mod iptables;

use std::collections::BTreeSet;
use std::io;

use netlink::Socket;
pub use nft::Effect;
use serde::{Serialize, Serializer};

/// What nobody should think was looked at.
pub const NOT_SEEN: &str =
    "not looked at: BPF programs of control groups and hooks of kernel modules";

/// What kind of program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A base chain of an nf_tables table that is not ours.
    Nft,
    /// A hook of a legacy iptables table.
    Iptables,
    /// Filters of traffic control.
    Tc,
    /// A BPF program linked to a device.
    Tcx,
    /// A BPF program in front of everything.
    Xdp,
    /// A BPF program linked to netfilter.
    Bpf,
}

/// On which side of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// Before policy is asked.
    Before,
    /// Behind what it accepts.
    After,
}

impl Kind {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::Tc => "tc",
            Self::Tcx => "tcx",
            Self::Xdp => "xdp",
            Self::Bpf => "bpf",
        }
    }
}

impl When {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// Somebody else's say about packets. Ordered as they are shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind of program it is.
    pub kind: Kind,
    /// On which side of policy.
    pub when: When,
    /// Where packets meet it: a hook of netfilter, `ingress`, `egress`, `device`.
    pub hook: &'static str,
    /// Order within a netfilter hook, lowest first.
    pub priority: Option<i32>,
    /// What an administrator knows it by.
    pub name: String,
    /// What it may do.
    #[serde(serialize_with = "words")]
    pub effects: BTreeSet<Effect>,
    /// What to do about it.
    pub advice: &'static str,
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

fn words<S: Serializer>(effects: &BTreeSet<Effect>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(effects.iter().map(|e| e.as_str()))
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("nf_tables: {0}")]
    Nft(#[from] nft::NftError),
    #[error("devices: {0}")]
    Netlink(#[from] netlink::Error),
    #[error("{table}: {source}")]
    Iptables { table: String, source: io::Error },
    #[error("BPF programs: {0}")]
    Bpf(io::Error),
}

/// What was found, and what could not be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Sorted.
    pub found: Vec<Finding>,
    /// What the kernel did not answer, and why: a right that is missing, most of all.
    pub unseen: Vec<String>,
}

impl Look {
    fn add(&mut self, part: Result<Vec<Finding>, Error>) {
        match part {
            Ok(found) => self.found.extend(found),
            Err(error) => self.unseen.push(error.to_string()),
        }
    }
}

/// Asks the kernel. Costs two system calls a device, dumps of devices and queues (6 ms for 1,000 devices), and a dump of
/// every rule that is not ours.
pub fn look() -> Look {
    let mut look = Look::default();
    look.add(chains::look());
    look.add(iptables::look());
    match Socket::open().and_then(|mut socket| Ok((devices::links(&mut socket)?, socket))) {
        Ok((links, mut socket)) => {
            look.add(devices::look(&mut socket, &links));
            look.add(devices::tcx(&links));
        }
        Err(error) => look.add(Err(error.into())),
    }
    look.add(bpf::netfilter_links().map_err(Error::Bpf));
    look.found.sort();
    look
}

/// What to do about something in netfilter that has these effects: the worst first.
fn advice(when: When, effects: &BTreeSet<Effect>) -> &'static str {
    let has = |effect| effects.contains(&effect);
    if has(Effect::Untrack) && when == When::Before {
        "answers of flows that it keeps out of connection tracking need policy of their own: leave \
         workloads' addresses out of it"
    } else if has(Effect::Drop) || has(Effect::Queue) {
        match when {
            When::After => {
                "what policy accepts can still be dropped here: accept workloads' interfaces or \
                 addresses in it"
            }
            When::Before => {
                "what policy would accept may not come to it: accept workloads' addresses in it"
            }
        }
    } else if has(Effect::Redirect) {
        "packets that it takes away are not asked about where they were sent"
    } else if has(Effect::Translate) {
        match when {
            When::Before => {
                "policy sees the destination as translated; as it was sent only preDNAT policy does: \
                 right for services"
            }
            When::After => "make sure that it leaves packets between workloads alone",
        }
    } else {
        "look at its rules: not all of them are understood here"
    }
}
