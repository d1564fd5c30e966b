//! The kinds of `projectcalico.org/v3`.

pub mod bgp;
pub mod bgp_filter;
pub mod cluster;
pub mod endpoint;
pub mod felix;
pub mod ipam;
pub mod node;
pub mod node_status;
pub mod policy;

pub use bgp::{BGPConfiguration, BGPConfigurationSpec, BGPPeer, BGPPeerSpec};
pub use bgp_filter::{BGPFilter, BGPFilterSpec};
pub use cluster::{
    ClusterInformation, ClusterInformationSpec, KubeControllersConfiguration,
    KubeControllersConfigurationSpec,
};
pub use endpoint::{
    EndpointPort, GlobalNetworkSet, GlobalNetworkSetSpec, HostEndpoint, HostEndpointSpec,
    NetworkSet, NetworkSetSpec, WorkloadEndpoint, WorkloadEndpointSpec,
};
pub use felix::{FelixConfiguration, FelixConfigurationSpec};
pub use ipam::{
    AllocationAttribute, BlockAffinity, BlockAffinitySpec, IPAMBlock, IPAMBlockSpec,
    IPAMConfiguration, IPAMConfigurationSpec, IPAMHandle, IPAMHandleSpec, IPPool, IPPoolSpec,
    IPReservation, IPReservationSpec,
};
pub use node::{Node, NodeBgpSpec, NodeSpec};
pub use node_status::{CalicoNodeStatus, CalicoNodeStatusSpec};
pub use policy::{
    Action, EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, NetworkPolicy,
    NetworkPolicySpec, PolicyType, Profile, ProfileSpec, Rule, StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec, StagedNetworkPolicy, StagedNetworkPolicySpec, Tier,
    TierSpec,
};
