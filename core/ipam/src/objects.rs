//! The three kinds of object, in upstream's JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::names::{affinity_name, block_name, handle_name};

/// A kind of object that the protocol reads and writes. The value is the `spec` of the object.
pub trait Kind: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `kind` of the API object.
    const KIND: &'static str;
    /// Plural name in the API's paths.
    const PLURAL: &'static str;
    /// Name of the object.
    fn name(&self) -> String;
    /// The mark of an object on its way out: readers treat it as absent.
    fn deleted(&mut self) -> &mut bool;
}

/// What is known about one or more allocated addresses of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The handle that the addresses are released by.
    #[serde(rename = "handle_id", default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Who uses them: `namespace`, `pod`, `node`, `timestamp`, or `node` and `type`.
    #[serde(rename = "secondary", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<BTreeMap<String, String>>,
    /// The other end of a live migration; kept as found.
    #[serde(rename = "alternate", default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<BTreeMap<String, String>>,
    /// When they were released, where a cool-down applies; kept as found.
    #[serde(rename = "releasedAt", default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
}

/// A block of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Its addresses.
    pub cidr: IpNet,
    /// `host:<node>` or `virtual:<name>`; none for a block that only lends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// When the affinity was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<Timestamp>,
    /// Per address: index into `attributes` of who has it.
    pub allocations: Vec<Option<usize>>,
    /// Free addresses, the longest free first.
    pub unallocated: Vec<usize>,
    /// Attributes of the allocated addresses.
    pub attributes: Vec<Attribute>,
    /// Grows with every write of the block.
    #[serde(default)]
    pub sequence_number: u64,
    /// Per allocated address (its index as text): the block's sequence number when it was given out.
    #[serde(default)]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// On its way out.
    #[serde(default)]
    pub deleted: bool,
    /// Unused since long, but written by every version.
    #[serde(default)]
    pub strict_affinity: bool,
}

/// Addresses that are released together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// The id, as given.
    #[serde(rename = "handleID")]
    pub id: String,
    /// How many addresses of which block.
    #[serde(rename = "block", default)]
    pub blocks: BTreeMap<IpNet, u64>,
    /// On its way out.
    #[serde(default)]
    pub deleted: bool,
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AffinityState {
    /// Announced; the block may or may not exist.
    Pending,
    /// The block exists and is the node's.
    Confirmed,
    /// Being released.
    PendingDeletion,
}

/// A node's claim to a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// How far.
    pub state: AffinityState,
    /// The node.
    pub node: String,
    /// `host` or `virtual`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The block.
    pub cidr: IpNet,
    /// On its way out.
    #[serde(default)]
    pub deleted: bool,
}

impl Affinity {
    /// A first claim of a node.
    pub fn pending(node: &str, cidr: IpNet) -> Self {
        let holder = Some("host".to_owned());
        Self { state: AffinityState::Pending, node: node.into(), holder, cidr, deleted: false }
    }

    /// Whether it is a claim of this node.
    pub fn is_of(&self, node: &str) -> bool {
        self.node == node && self.holder.as_deref().is_none_or(|h| h == "host")
    }
}

impl Kind for Block {
    const KIND: &'static str = "IPAMBlock";
    const PLURAL: &'static str = "ipamblocks";
    fn name(&self) -> String {
        block_name(self.cidr)
    }
    fn deleted(&mut self) -> &mut bool {
        &mut self.deleted
    }
}

impl Kind for Handle {
    const KIND: &'static str = "IPAMHandle";
    const PLURAL: &'static str = "ipamhandles";
    fn name(&self) -> String {
        handle_name(&self.id)
    }
    fn deleted(&mut self) -> &mut bool {
        &mut self.deleted
    }
}

impl Kind for Affinity {
    const KIND: &'static str = "BlockAffinity";
    const PLURAL: &'static str = "blockaffinities";
    fn name(&self) -> String {
        affinity_name(&self.node, self.cidr)
    }
    fn deleted(&mut self) -> &mut bool {
        &mut self.deleted
    }
}

/// The address at an index of a block; the caller keeps the index inside.
pub(crate) fn address_at(cidr: IpNet, index: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(a) => IpAddr::V4((u32::from(a).wrapping_add(index as u32)).into()),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a).wrapping_add(index)).into()),
    }
}

/// How far an address is from the start of the range.
pub(crate) fn index_of(cidr: IpNet, addr: IpAddr) -> Option<u128> {
    if !cidr.contains(&addr) {
        return None;
    }
    match (cidr.network(), addr) {
        (IpAddr::V4(base), IpAddr::V4(a)) => Some(u128::from(u32::from(a) - u32::from(base))),
        (IpAddr::V6(base), IpAddr::V6(a)) => Some(u128::from(a) - u128::from(base)),
        _ => None,
    }
}
