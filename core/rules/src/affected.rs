//! Whose flows may have another verdict than when they began.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use model::output::{LocalWorkload, Member};

/// More single addresses than this: it is easier to look at all flows.
const MOST_ADDRESSES: usize = 4_096;
/// The same for prefixes.
const MOST_NETS: usize = 32;

/// Flows with an end in one of these may have another verdict than before. That a flow is among them
/// says nothing yet: [`crate::Rules::ruling`] does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    all: bool,
    translated: bool,
    addresses: BTreeSet<IpAddr>,
    nets: BTreeSet<IpNet>,
}

impl Affected {
    /// All flows.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether no flow is.
    pub fn is_empty(&self) -> bool {
        !self.all && self.addresses.is_empty() && self.nets.is_empty()
    }

    /// Takes in another's.
    pub fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.translated |= other.translated;
        self.addresses.extend(other.addresses);
        self.nets.extend(other.nets);
        self.bound();
    }

    /// Whether a flow with these ends is.
    pub fn concerns(&self, ends: &[IpAddr]) -> bool {
        let one = |end: &IpAddr| {
            self.addresses.contains(end) || self.nets.iter().any(|net| net.contains(end))
        };
        self.all || ends.iter().any(one)
    }

    /// The addresses, if they are all, and if a flow that is affected has one of them as who began it
    /// or as who answers: then the kernel can find them.
    pub fn addresses(&self) -> Option<&BTreeSet<IpAddr>> {
        let listed = !self.all && !self.translated && self.nets.is_empty();
        listed.then_some(&self.addresses)
    }

    pub(crate) fn note_all(&mut self) {
        *self = Self::all();
    }

    pub(crate) fn note_pod(&mut self, pod: &LocalWorkload) {
        self.addresses.extend(&pod.endpoint.addresses);
        self.nets.extend(&pod.endpoint.allowed_sources);
        self.bound();
    }

    /// Changed members of a set: rules about it give another answer for these and for nobody else.
    /// `hosts`: some of the rules may see destinations as they are before translation.
    pub(crate) fn note_members(&mut self, members: &[Member], hosts: bool) {
        self.translated |= hosts && !members.is_empty();
        for member in members {
            match member {
                Member::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                    self.addresses.insert(net.addr());
                }
                Member::Net(net) => drop(self.nets.insert(net.trunc())),
                Member::IpPort(address, ..) => drop(self.addresses.insert(*address)),
            }
        }
        self.bound();
    }

    fn bound(&mut self) {
        if self.all || self.addresses.len() > MOST_ADDRESSES || self.nets.len() > MOST_NETS {
            self.note_all();
        }
    }
}
