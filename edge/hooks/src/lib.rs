//! Who else can drop, translate, untrack or redirect packets on this machine, before policy is asked and behind what it
//! accepts.
//!
//! What goes in: nothing but the kernel, as the network namespace of the calling thread shows it. What comes out: one
//! [`Finding`] for each base chain of other nf_tables tables, each hook of a legacy iptables table, each queue with tc
//! filters, each XDP program, each BPF program linked to a device (tcx) or to netfilter, each hook that a part of the
//! kernel makes by itself where the kernel lists those (IPVS, flow tables, ebtables, what no one has heard of); with what
//! it may do and what an administrator can do about it.
//!
//! Invariants: nothing that decides about packets is changed or loaded, and no command is executed. The kernel itself
//! loads what answers questions about netfilter when it is asked and they are modules: `nfnetlink`, `nf_tables`,
//! `nfnetlink_hook`; none of them has a hook of its own. What a finding "may" do is what its rules, and those that they
//! lead to, could do to some packet: conditions are not weighed; of a hook of the kernel's, what its code can do. What
//! does nothing to a packet is no finding.
//!
//! Deliberately absent: BPF programs of control groups; hooks of the family ARP, which see no packet of ours; hooks of
//! kernel modules where the kernel does not list them, which is said ([`Look::not_seen`]).
//!
//! Start reading at [`look`].

#![allow(unsafe_code, reason = "system calls that no library has; each has a SAFETY sentence")]

mod bpf;
mod chains;
mod devices;
mod iptables;
mod modules;

use std::collections::BTreeSet;
use std::io;

pub use modules::Modules;
use netlink::Socket;
pub use nft::Effect;
use nft::{HookedChain, hooked_chains};
use serde::{Serialize, Serializer};

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
    /// A function of the kernel, or of one of its modules.
    Module,
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
            Self::Module => "module",
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
    Nft(nft::NftError),
    #[error("devices: {0}")]
    Netlink(#[from] netlink::Error),
    #[error("hooks of kernel modules: {0}")]
    Modules(netlink::Error),
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
    /// Whether hooks of kernel modules are among it.
    pub modules: Modules,
}

impl Look {
    /// What nobody should think was looked at.
    pub fn not_seen(&self) -> &'static str {
        match self.modules {
            Modules::Listed => "not looked at: BPF programs of control groups",
            Modules::NotListed => {
                "not looked at: BPF programs of control groups, and hooks of kernel modules, which this kernel does not \
                 list (CONFIG_NETFILTER_NETLINK_HOOK)"
            }
        }
    }

    fn add(&mut self, part: Result<Vec<Finding>, Error>) {
        match part {
            Ok(found) => self.found.extend(found),
            Err(error) => self.unseen.push(error.to_string()),
        }
    }
}

/// Asks the kernel. Costs two system calls a device, dumps of devices and queues (6 ms for 1,000 devices), and a dump of
/// every rule that is not ours. Where the kernel lists hooks, two more dumps a device: ten times as long.
pub fn look() -> Look {
    look_again(Modules::Listed)
}

/// Like [`look`], for who looks often: `modules` is what an earlier look found. A kernel that does not list hooks is
/// not asked for them again, because it would look for a module that does, by running `modprobe`, each time.
pub fn look_again(modules: Modules) -> Look {
    let mut look = Look { modules, ..Look::default() };
    let chains = hooked_chains();
    look.add(iptables::look());
    let mut links = Vec::new();
    match Socket::open().and_then(|mut socket| Ok((devices::links(&mut socket)?, socket))) {
        Ok((all, mut socket)) => {
            links = all;
            look.add(devices::look(&mut socket, &links));
            look.add(devices::tcx(&links));
        }
        Err(error) => look.add(Err(error.into())),
    }
    look.add(bpf::netfilter_links().map_err(Error::Bpf));
    if modules == Modules::Listed {
        let listed = modules::look(chains.as_deref().unwrap_or_default(), &links);
        if matches!(listed, Ok(None)) {
            look.modules = Modules::NotListed;
        }
        look.add(listed.map(Option::unwrap_or_default));
    }
    look.add(chains.map(|all| chains::look(&all)).map_err(Error::Nft));
    look.found.sort();
    look
}

/// On which side of policy a function in this hook is: the last chain of ours there decides; without one, where it
/// would be.
fn when(hook: &str, priority: i32, chains: &[HookedChain]) -> When {
    let last = chains.iter().filter(|c| c.ours && c.hook == hook).map(|c| c.priority).max();
    match hook {
        "ingress" | "prerouting" => When::Before,
        "postrouting" | "egress" => When::After,
        _ if priority < last.unwrap_or(0) => When::Before,
        _ => When::After,
    }
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
