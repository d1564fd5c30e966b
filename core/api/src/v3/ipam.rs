//! Pools and the state of address management.
//!
//! The state kinds are written by address management only, in exactly the JSON that every other
//! implementation in the cluster reads and writes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::Conditions;
use crate::meta::{Cluster, choice, kind, part};

choice!(
    /// When packets are encapsulated.
    EncapMode { Never, Always, CrossSubnet }
);
choice!(
    /// What the addresses of a pool are used for.
    AllowedUse { Workload, Tunnel, LoadBalancer }
);
choice!(
    /// Whether addresses are given out without being asked for by pool.
    AssignmentMode { Automatic, Manual }
);
choice!(
    /// On or off.
    Switch { Enabled, Disabled }
);

part!(
    /// A range of addresses for pods, tunnels or load balancers.
    #[schemars(extend("required" = ["cidr"]))]
    IPPoolSpec {
        /// The whole range. Cannot be changed.
        cidr: String,
        /// When VXLAN is used.
        vxlan_mode: Option<EncapMode>,
        /// When IP-in-IP is used.
        ipip_mode: Option<EncapMode>,
        /// Masquerade traffic that leaves the pools.
        nat_outgoing: bool,
        /// No new allocations.
        disabled: bool,
        /// Do not announce the pool over BGP.
        #[serde(rename = "disableBGPExport")]
        disable_bgp_export: bool,
        /// Prefix length of a block. Cannot be changed.
        #[schemars(range(min = 0, max = 128))]
        block_size: Option<i32>,
        /// Nodes that take addresses from this pool.
        node_selector: String,
        /// Namespaces whose pods take addresses from this pool.
        namespace_selector: String,
        /// What the addresses are used for.
        #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "set"))]
        allowed_uses: Vec<AllowedUse>,
        /// Whether addresses are given out without being asked for by pool.
        assignment_mode: Option<AssignmentMode>,
    }
);
kind!(IPPoolSpec, IPPool, "ippools", Cluster, Conditions);

part!(
    /// Addresses that are never assigned automatically.
    IPReservationSpec {
        /// The prefixes.
        #[serde(rename = "reservedCIDRs")]
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        reserved_cidrs: Vec<String>,
    }
);
kind!(IPReservationSpec, IPReservation, "ipreservations", Cluster);

/// Address management for the whole cluster; the object is named `default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IPAMConfigurationSpec {
    /// Nodes may not borrow addresses from blocks of others.
    pub strict_affinity: bool,
    /// Most blocks a node may hold; 0 means the built-in limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_blocks_per_host: i32,
    /// Nodes claim new blocks by themselves.
    pub auto_allocate_blocks: bool,
    /// Whether a virtual machine keeps its address when it moves.
    #[serde(skip_serializing_if = "crate::meta::absent", rename = "kubeVirtVMAddressPersistence")]
    pub kube_virt_vm_address_persistence: Option<Switch>,
    /// Seconds during which a released address is not given out again.
    #[serde(skip_serializing_if = "crate::meta::absent")]
    #[schemars(range(min = 0, max = 1200))]
    pub ip_cooldown_seconds: Option<i32>,
}

impl Default for IPAMConfigurationSpec {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            max_blocks_per_host: 0,
            auto_allocate_blocks: true,
            kube_virt_vm_address_persistence: None,
            ip_cooldown_seconds: None,
        }
    }
}
kind!(IPAMConfigurationSpec, IPAMConfiguration, "ipamconfigurations", Cluster);

/// A block of addresses: who holds it and what is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["cidr", "allocations", "unallocated", "attributes"]))]
pub struct IPAMBlockSpec {
    /// The block.
    pub cidr: String,
    /// `host:NODE` or `virtual:NAME`; none if nobody holds it.
    #[serde(skip_serializing_if = "crate::meta::absent")]
    pub affinity: Option<String>,
    /// When the affinity was claimed (RFC 3339).
    #[serde(skip_serializing_if = "crate::meta::absent")]
    pub affinity_claim_time: Option<String>,
    /// By ordinal within the block: index into `attributes`, or null if free.
    pub allocations: Vec<Option<u32>>,
    /// Free ordinals, in the order in which they are given out.
    pub unallocated: Vec<u32>,
    /// What is known about allocations.
    pub attributes: Vec<AllocationAttribute>,
    /// Counts writes of the block.
    pub sequence_number: u64,
    /// By ordinal (as text): the block's sequence number at allocation.
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Being deleted: nobody may use the block any more.
    pub deleted: bool,
    /// Not used any more; written for older readers.
    pub strict_affinity: bool,
}
kind!(IPAMBlockSpec, IPAMBlock, "ipamblocks", Cluster);

/// What is known about an allocation. The names are those on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AllocationAttribute {
    /// The handle that it is released by.
    #[serde(skip_serializing_if = "crate::meta::absent")]
    pub handle_id: Option<String>,
    /// Its owner: `node`, `pod`, `namespace`, `type`, `timestamp` ...
    #[serde(skip_serializing_if = "crate::meta::absent")]
    pub secondary: BTreeMap<String, String>,
    /// The owner to be, during a live migration.
    #[serde(skip_serializing_if = "crate::meta::absent")]
    pub alternate: BTreeMap<String, String>,
    /// When it was released (RFC 3339), while it may not be given out again.
    #[serde(skip_serializing_if = "crate::meta::absent", rename = "releasedAt")]
    pub released_at: Option<String>,
}

/// Addresses that are released together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["handleID", "block"]))]
pub struct IPAMHandleSpec {
    /// The id, in its own case.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Number of addresses, by block.
    pub block: BTreeMap<String, u32>,
    /// Being deleted.
    pub deleted: bool,
}
kind!(IPAMHandleSpec, IPAMHandle, "ipamhandles", Cluster);

/// Says that a node holds, or is about to hold or to leave, a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["state", "node", "cidr"]))]
pub struct BlockAffinitySpec {
    /// `confirmed`, `pending` or `pendingDeletion`.
    pub state: String,
    /// The node.
    pub node: String,
    /// `host` or `virtual`.
    #[serde(rename = "type", skip_serializing_if = "crate::meta::absent")]
    pub kind: Option<String>,
    /// The block.
    pub cidr: String,
    /// Being deleted: `true` or `false`, as a boolean or as text.
    #[serde(deserialize_with = "bool_or_text")]
    pub deleted: bool,
}
kind!(BlockAffinitySpec, BlockAffinity, "blockaffinities", Cluster);

/// The older CRD of this kind keeps the flag as text.
fn bool_or_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Flag(bool),
        Text(String),
    }
    Ok(match Either::deserialize(from)? {
        Either::Flag(flag) => flag,
        Either::Text(text) => text == "true",
    })
}
