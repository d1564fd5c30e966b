//! Policies, rules, tiers, profiles and network sets, parsed.
//!
//! Namespace and service-account matches of the API have already become label selectors here
//! (`pcns.` and `pcsa.` prefixed inherited labels, `projectcalico.org/namespace`,
//! `projectcalico.org/serviceaccount`), so that the calculation knows one kind of match only.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use selector::Selector;

use crate::ids::TierName;

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Accept, and stop.
    Allow,
    /// Drop, and stop.
    Deny,
    /// Log, and go on with the next rule.
    Log,
    /// Leave the tier and go on with the next one.
    Pass,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both, for loops over families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(addr: std::net::IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a prefix.
    pub fn of_net(net: &IpNet) -> Self {
        Self::of(net.addr())
    }
}

/// An IP protocol number, 1 to 255. ICMP and ICMPv6 are 1 and 58.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    /// Whether rules with this protocol may match on ports.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("ICMP"),
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self::SCTP => f.write_str("SCTP"),
            Self::UDPLITE => f.write_str("UDPLite"),
            Self(n) => write!(f, "{n}"),
        }
    }
}

/// A port match: an inclusive range, host order, or a name resolved per endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// `min..=max`; a single port has both equal.
    Range(u16, u16),
    /// A port name of the endpoints that the rule's side matches.
    Named(Arc<str>),
}

/// ICMP type, and code if given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Icmp {
    /// Type, 0 to 254.
    pub kind: u8,
    /// Code; `None` matches any.
    pub code: Option<u8>,
}

/// A Kubernetes service named by a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    /// Namespace of the service.
    pub namespace: Arc<str>,
    /// Name of the service.
    pub name: Arc<str>,
}

/// One side (source or destination) of a rule. All given fields must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntityMatch {
    /// Any of these prefixes; empty matches all.
    pub nets: Vec<IpNet>,
    /// None of these prefixes.
    pub not_nets: Vec<IpNet>,
    /// Endpoints and network sets, namespaces and service accounts already folded in.
    pub selector: Option<Selector>,
    /// Not one of these endpoints and network sets.
    pub not_selector: Option<Selector>,
    /// Any of these ports; empty matches all. Named ports are looked up on the endpoints of this
    /// side that `selector` matches (all endpoints if there is none).
    pub ports: Vec<Port>,
    /// None of these ports.
    pub not_ports: Vec<Port>,
    /// The service's endpoint addresses (and, on the destination side, ports).
    pub service: Option<ServiceId>,
}

/// HTTP part of a rule. The packet data planes enforce layers 3 and 4 of such a rule only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// Any of these methods; empty matches all.
    pub methods: Vec<String>,
    /// Any of these paths: `(prefix?, text)`.
    pub paths: Vec<(bool, String)>,
}

/// One rule of a policy or profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
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
    /// The packet's source.
    pub source: EntityMatch,
    /// The packet's destination.
    pub destination: EntityMatch,
    /// Layer 7 part, carried for the flow log and the L7 policy server.
    pub http: Option<HttpMatch>,
    /// Index of the rule in the object as written by the user (one Kubernetes rule becomes several).
    pub origin: u32,
}

impl Rule {
    /// A rule that matches everything.
    pub fn any(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EntityMatch::default(),
            destination: EntityMatch::default(),
            http: None,
            origin: 0,
        }
    }
}

/// The kinds of policy that exist, in the order of their names (the last tie-break of 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// `policy.networking.k8s.io` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
    /// Staged global policy.
    StagedGlobalNetworkPolicy,
    /// Staged Kubernetes policy.
    StagedKubernetesNetworkPolicy,
    /// Staged policy.
    StagedNetworkPolicy,
}

impl PolicyKind {
    /// The kind that a staged one would become; any other is itself.
    #[must_use]
    pub fn enforced(self) -> Self {
        match self {
            Self::StagedGlobalNetworkPolicy => Self::GlobalNetworkPolicy,
            Self::StagedKubernetesNetworkPolicy => Self::KubernetesNetworkPolicy,
            Self::StagedNetworkPolicy => Self::NetworkPolicy,
            other => other,
        }
    }

    /// The kind as upstream writes it in flow logs and comments.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
        }
    }
}

/// Identity of a policy. The derived order (name, namespace, kind) is the tie-break of policies of
/// equal `order` in a tier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    /// Name.
    pub name: Arc<str>,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: Arc<str>,
    /// Kind.
    pub kind: PolicyKind,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.as_str(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
        }
    }
}

/// Where on the packet's way a policy acts (2.3). Workloads are subject to `Normal` policies,
/// with or without `apply_on_forward`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Filter hooks, after connection tracking and NAT.
    #[default]
    Normal,
    /// Before destination NAT; host endpoints only, ingress only.
    PreDnat,
    /// Before connection tracking; host endpoints only.
    Untracked,
}

/// A policy of any kind, in one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Identity.
    pub id: PolicyId,
    /// The tier it stands in.
    pub tier: TierName,
    /// Position in the tier; `None` comes last.
    pub order: Option<f64>,
    /// Which endpoints it selects; namespace and service account already folded in.
    pub selector: Selector,
    /// Whether it acts on traffic to the endpoint.
    pub applies_ingress: bool,
    /// Whether it acts on traffic from the endpoint.
    pub applies_egress: bool,
    /// Rules for traffic to the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<Rule>,
    /// Where it acts.
    pub stage: Stage,
    /// Host endpoints: also acts on forwarded traffic.
    pub apply_on_forward: bool,
    /// Evaluated for flow logs, never programmed (2.7).
    pub staged: bool,
    /// Kept active on every node (`AssumeNeededOnEveryNode`).
    pub everywhere: bool,
}

/// An ordered group of policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Name.
    pub name: TierName,
    /// Position; `None` comes last.
    pub order: Option<f64>,
    /// What happens to a packet that no policy of the tier decided: `Deny` or `Pass`.
    pub default_action: Action,
}

impl Tier {
    /// Name, order and default action of the tiers that act whether or not an object says so.
    pub const BUILT_IN: [(&str, f64, Action); 3] = [
        ("kube-admin", 1_000.0, Action::Pass),
        ("default", 1_000_000.0, Action::Deny),
        ("kube-baseline", 10_000_000.0, Action::Pass),
    ];

    /// The built-in tier of this name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (name, order, default_action) = Self::BUILT_IN.into_iter().find(|t| t.0 == name)?;
        Some(Self { name: name.into(), order: Some(order), default_action })
    }
}

/// Fallback rules of an endpoint, and labels that its members inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Rules for traffic to the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<Rule>,
    /// Labels inherited by endpoints that list the profile, unless they carry the key themselves.
    pub labels: crate::Labels,
}

/// Identity of a network set: namespace is empty for GlobalNetworkSet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkSetId {
    /// Namespace; empty for a global set.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// A labelled list of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// Labels, with `projectcalico.org/namespace` for namespaced sets.
    pub labels: crate::Labels,
    /// Profiles whose labels it inherits (`kns.<namespace>` for namespaced sets).
    pub profiles: Vec<crate::ProfileName>,
    /// Masked prefixes; bare addresses have become /32 or /128.
    pub nets: Vec<IpNet>,
}
