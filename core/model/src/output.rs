//! What the calculation says this node must program.
//!
//! Order within one batch: sets before the policies that use them, policies and profiles before the
//! endpoints that use them, tunnel ends before routes; removals the other way round (law 5).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::endpoint::{HostEndpoint, WorkloadEndpoint};
use crate::ids::{NodeName, ProfileName, TierName, WorkloadId};
use crate::policy::{Action, HttpMatch, Icmp, IpVersion, PolicyId, Protocol, Stage};
pub use crate::policy_list::PolicyList;

/// Stable id of a set: `s:` + hash for selectors, `n:` + hash for named ports, `svc:` + hash for
/// services (`svcnoport:` where the ports do not count).
pub type SetId = Arc<str>;

/// What the members of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Addresses and prefixes, any overlap, both families.
    Net,
    /// Address, protocol and port.
    IpPort,
}

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// A masked prefix; a single address is a /32 or /128. Members may overlap.
    Net(IpNet),
    /// Address, protocol, port (host order).
    IpPort(IpAddr, Protocol, u16),
}

impl Member {
    #[inline(never)]
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }

    /// Three numbers that sort as the fields do: prefixes before ports, IPv4 before IPv6.
    fn rank(&self) -> (u8, u128, u32) {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(a) => (0, u128::from(a.to_bits())),
            IpAddr::V6(a) => (1, a.to_bits()),
        };
        match *self {
            Self::Net(net) => {
                let (family, address) = bits(net.addr());
                (family, address, net.prefix_len().into())
            }
            Self::IpPort(address, protocol, port) => {
                let (family, address) = bits(address);
                (2 + family, address, u32::from(protocol.0) << 16 | u32::from(port))
            }
        }
    }
}

// By hand: sets of hundreds of thousands are sorted, mostly of IPv4 prefixes, and the derived
// comparison goes field by field through enums.
impl Ord for Member {
    #[inline]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let short = |net: &ipnet::Ipv4Net| {
            u64::from(net.addr().to_bits()) << 8 | u64::from(net.prefix_len())
        };
        match (self, other) {
            (Self::Net(IpNet::V4(a)), Self::Net(IpNet::V4(b))) => short(a).cmp(&short(b)),
            _ => self.compare(other),
        }
    }
}

impl PartialOrd for Member {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One side of a [`CalcRule`]: what is left are constants and sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CalcMatch {
    /// Any of these prefixes; empty matches all.
    pub nets: Vec<IpNet>,
    /// None of these prefixes.
    pub not_nets: Vec<IpNet>,
    /// The address is in each of these `Net` sets.
    pub sets: Vec<SetId>,
    /// The address is in none of these `Net` sets.
    pub not_sets: Vec<SetId>,
    /// Port ranges `min..=max`. A port matches if it is in one of these **or** the
    /// `(address, protocol, port)` is in one of `port_sets`; both empty match all.
    pub ports: Vec<(u16, u16)>,
    /// `IpPort` sets that stand for named ports (see `ports`).
    pub port_sets: Vec<SetId>,
    /// None of these port ranges.
    pub not_ports: Vec<(u16, u16)>,
    /// Not in any of these `IpPort` sets.
    pub not_port_sets: Vec<SetId>,
    /// The `(address, protocol, port)` is in each of these `IpPort` sets: services.
    pub service_sets: Vec<SetId>,
}

/// A rule with selectors replaced by sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CalcRule {
    /// What happens on a match.
    pub action: Action,
    /// Only this family; `None` both.
    pub ip_version: Option<IpVersion>,
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// Not this protocol.
    pub not_protocol: Option<Protocol>,
    /// Only this ICMP type and code.
    pub icmp: Option<Icmp>,
    /// Not this ICMP type and code.
    pub not_icmp: Option<Icmp>,
    /// Source.
    pub source: CalcMatch,
    /// Destination.
    pub destination: CalcMatch,
    /// Layer 7 part, not enforced by packet data planes.
    pub http: Option<HttpMatch>,
    /// Index of the rule in the object as the user wrote it.
    pub origin: u32,
}

/// A policy that some endpoint of this node needs.
#[derive(Clone, Debug, PartialEq)]
pub struct CalcPolicy {
    /// Identity.
    pub id: PolicyId,
    /// The tier it stands in.
    pub tier: TierName,
    /// Where it acts.
    pub stage: Stage,
    /// Staged policies are passed on for the flow log and never programmed.
    pub staged: bool,
    /// Rules for traffic to the endpoint.
    pub ingress: Vec<CalcRule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<CalcRule>,
}

/// A profile that some endpoint of this node lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalcProfile {
    /// Name.
    pub name: ProfileName,
    /// Rules for traffic to the endpoint.
    pub ingress: Vec<CalcRule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<CalcRule>,
}

/// The policies of one tier that apply to an endpoint, in order of evaluation. Staged policies are
/// not listed. A tier with no policy for a direction does not act in that direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTier {
    /// Name.
    pub name: TierName,
    /// What happens to a packet that no policy decided: `Deny` or `Pass`.
    pub default_action: Action,
    /// Policies for traffic to the endpoint.
    pub ingress: PolicyList,
    /// Policies for traffic from the endpoint.
    pub egress: PolicyList,
}

/// A local pod interface with everything that decides about its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalWorkload {
    /// The endpoint.
    pub endpoint: Arc<WorkloadEndpoint>,
    /// Tiers in order; only those with a policy for this endpoint.
    pub tiers: Vec<EndpointTier>,
}

/// A local host endpoint with everything that decides about its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalHost {
    /// The endpoint.
    pub endpoint: Arc<HostEndpoint>,
    /// Normal policies: traffic to and from host processes.
    pub normal: Vec<EndpointTier>,
    /// Policies with `applyOnForward`: traffic through the host.
    pub forward: Vec<EndpointTier>,
    /// Policies before destination NAT.
    pub pre_dnat: Vec<EndpointTier>,
    /// Policies before connection tracking.
    pub untracked: Vec<EndpointTier>,
}

/// Why a prefix is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// A pod of this node. (Its device route follows from the endpoint itself.)
    LocalWorkload,
    /// A block of this node: unknown addresses in it must not loop.
    LocalBlock,
    /// Pods of another node: a block, or a single borrowed address.
    RemoteWorkload,
    /// The tunnel address of another node.
    RemoteTunnel,
    /// Another node's own address.
    RemoteHost,
    /// A whole pool: no next hop; says what NAT-outgoing and encapsulation apply to.
    Pool,
}

/// How packets to a prefix leave this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// Routed.
    None,
    /// IP-in-IP.
    Ipip,
    /// VXLAN.
    Vxlan,
}

/// One entry of this node's view of where prefixes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub dst: IpNet,
    /// Why.
    pub kind: RouteKind,
    /// The node that it is behind.
    pub node: Option<NodeName>,
    /// That node's own address of the prefix's family.
    pub node_address: Option<IpAddr>,
    /// Whether that node is on this node's subnet.
    pub same_subnet: bool,
    /// Encapsulation, cross-subnet already decided.
    pub encap: Encap,
    /// The pool masquerades traffic that leaves the cluster.
    pub nat_outgoing: bool,
}

/// The far end of a VXLAN tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// The node.
    pub node: NodeName,
    /// Family of the tunnelled packets.
    pub version: IpVersion,
    /// Its tunnel address.
    pub address: IpAddr,
    /// Its own (underlay) address.
    pub parent: IpAddr,
    /// MAC of its tunnel device: as published, else derived from the node's name the way that
    /// every node does it.
    pub mac: [u8; 6],
}

/// One thing to program, or to forget.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A set with all its members: new, or replaced.
    Set(SetId, SetKind, Vec<Member>),
    /// Changed members of a set.
    SetDelta {
        /// The set.
        id: SetId,
        /// New members.
        added: Vec<Member>,
        /// Members that are gone.
        removed: Vec<Member>,
    },
    /// A set that nothing uses any more.
    SetGone(SetId),
    /// A policy that is needed, new or changed.
    Policy(Arc<CalcPolicy>),
    /// A policy that no endpoint here needs any more.
    PolicyGone(PolicyId),
    /// A profile that is needed, new or changed. A profile that an endpoint lists but that does not
    /// exist comes with one `Deny` rule a direction.
    Profile(Arc<CalcProfile>),
    /// A profile that no endpoint here lists any more.
    ProfileGone(ProfileName),
    /// A local pod, new or changed.
    Workload(Arc<LocalWorkload>),
    /// A local pod that is gone.
    WorkloadGone(WorkloadId),
    /// A local host endpoint, new or changed.
    Host(Arc<LocalHost>),
    /// A local host endpoint that is gone.
    HostGone(Arc<str>),
    /// A route entry, new or changed.
    Route(Route),
    /// A route entry that is gone.
    RouteGone(IpNet),
    /// A tunnel end, new or changed.
    Vtep(Vtep),
    /// A tunnel end that is gone.
    VtepGone(NodeName, IpVersion),
    /// This node itself, new or changed: addresses, tunnel addresses.
    ThisNode(Arc<crate::network::Node>),
    /// Another node's own addresses, for the all-hosts set; empty when gone.
    HostAddresses(NodeName, Vec<IpAddr>),
    /// The first snapshot is complete: from here on, what is not wanted may be swept (law 3).
    InSync,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_sort_as_their_fields_do() {
        let mut members: Vec<Member> = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/32",
            "10.0.0.1/32",
            "255.0.0.0/8",
            "::/0",
            "::/128",
            "fd00::/8",
        ]
        .map(|net| Member::Net(net.parse().unwrap()))
        .into();
        for address in ["10.0.0.1", "10.0.0.2", "::1"] {
            for (protocol, port) in [(6, 80), (6, 443), (17, 53)] {
                members.push(Member::IpPort(address.parse().unwrap(), Protocol(protocol), port));
            }
        }
        for (i, a) in members.iter().enumerate() {
            for (j, b) in members.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }
}
