//! What the administrator can choose about the rules.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::{IpVersion, Protocol};

/// A port that host endpoint policy never closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failsafe {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Destination port, host order.
    pub port: u16,
    /// Only for this far end; `None` for any.
    pub net: Option<IpNet>,
}

/// What happens to packets from a pod to its own host after the pod's egress policy (2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndpointToHost {
    /// They are dropped.
    #[default]
    Drop,
    /// The host's own rules decide.
    Return,
    /// They are accepted.
    Accept,
}

/// How a denied packet ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DenyAction {
    /// Silently.
    #[default]
    Drop,
    /// With an ICMP answer.
    Reject,
}

/// A limit on messages: `count` per `unit`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Messages per unit.
    pub count: u64,
    /// The unit.
    pub unit: RateUnit,
    /// Messages at once.
    pub burst: u32,
}

/// Unit of a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl RateUnit {
    /// Length in seconds, as the kernel wants it.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// Everything that shapes the tables and does not come from the calculation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesConfig {
    /// Families to program.
    pub families: Vec<IpVersion>,
    /// Interfaces whose names begin with one of these are workloads'.
    pub interface_prefixes: Vec<Arc<str>>,
    /// Ports into the host that stay open.
    pub failsafe_inbound: Vec<Failsafe>,
    /// Ports out of the host that stay open.
    pub failsafe_outbound: Vec<Failsafe>,
    /// Pod to own host, after policy.
    pub endpoint_to_host: EndpointToHost,
    /// Bits of the packet mark that are ours; at least two, and a third to cut flows.
    pub mark_mask: u32,
    /// How denied packets end.
    pub deny: DenyAction,
    /// VXLAN tunnels are in use.
    pub vxlan: bool,
    /// UDP port of VXLAN, host order.
    pub vxlan_port: u16,
    /// Names of the VXLAN devices, for source addresses of host traffic into the tunnel.
    pub vxlan_devices: Vec<Arc<str>>,
    /// IP-in-IP tunnels are in use.
    pub ipip: bool,
    /// Pods may send VXLAN.
    pub allow_vxlan_from_workloads: bool,
    /// Pods may send IP-in-IP.
    pub allow_ipip_from_workloads: bool,
    /// Flows that are marked so are cut: those that go on although policy denies them now.
    pub cut_flows: bool,
    /// Pods may send from any source address.
    pub allow_source_spoofing: bool,
    /// Packets that connection tracking calls invalid are dropped at endpoints.
    pub drop_invalid: bool,
    /// Prefix of the kernel's log lines; `%t` tier, `%k` kind, `%n` name, `%p` name with namespace.
    pub log_prefix: Arc<str>,
    /// What rules decide is shown to who listens to netfilter's log groups 1 and 2: see `flow`.
    pub flow_logs: bool,
    /// Limit of log lines per rule.
    pub log_limit: Option<RateLimit>,
    /// Source ports after NAT-outgoing, `min..=max`.
    pub nat_ports: Option<(u16, u16)>,
    /// Source address after NAT-outgoing, at most one per family; without, the interface's.
    pub nat_addresses: Vec<IpAddr>,
    /// Traffic to cluster hosts keeps its source address too.
    pub nat_excludes_hosts: bool,
    /// NAT-outgoing only out of this interface; a trailing `+` or `*` matches any ending.
    pub nat_interface: Option<Arc<str>>,
}

impl Default for RulesConfig {
    fn default() -> Self {
        let inbound = [(6, 22), (17, 68), (6, 179), (6, 2379), (6, 2380), (6, 5473)];
        let outbound = [(17, 53), (17, 67), (6, 179), (6, 2379), (6, 2380), (6, 5473)];
        let common = [(6, 6443), (6, 6666), (6, 6667)];
        let list = |own: [(u8, u16); 6]| {
            let all = own.into_iter().chain(common);
            all.map(|(p, port)| Failsafe { protocol: Protocol(p), port, net: None }).collect()
        };
        Self {
            families: IpVersion::ALL.to_vec(),
            interface_prefixes: vec!["cali".into()],
            failsafe_inbound: list(inbound),
            failsafe_outbound: list(outbound),
            endpoint_to_host: EndpointToHost::Drop,
            mark_mask: 0xffff_0000,
            deny: DenyAction::Drop,
            vxlan: true,
            vxlan_port: 4789,
            vxlan_devices: vec!["vxlan.calico".into(), "vxlan-v6.calico".into()],
            ipip: false,
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            cut_flows: true,
            allow_source_spoofing: false,
            drop_invalid: true,
            log_prefix: "calico-packet".into(),
            log_limit: None,
            flow_logs: false,
            nat_ports: None,
            nat_addresses: Vec::new(),
            nat_excludes_hosts: false,
            nat_interface: None,
        }
    }
}

/// The mark bits that the rules use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// A policy or profile allowed the packet.
    pub(crate) accept: u32,
    /// A policy passed the packet to the next tier.
    pub(crate) pass: u32,
}

impl RulesConfig {
    /// The two lowest bits of the mask. A mask of fewer bits is completed downwards from bit 31:
    /// the configuration's parser refuses such masks, so this is only about being total.
    pub(crate) fn marks(&self) -> Marks {
        let lowest = |m: u32| m & m.wrapping_neg();
        let full = if self.mark_mask.count_ones() < 2 { 0xffff_0000 } else { self.mark_mask };
        let accept = lowest(full);
        Marks { accept, pass: lowest(full & !accept) }
    }

    /// The bit that says "cut" in the mark of a flow, and in the mark of a packet that it was sent to
    /// make a cut known: the third bit of the mask. None if no flow is to be cut, or if the mask has
    /// no bit left.
    pub fn cut_bit(&self) -> Option<u32> {
        let Marks { accept, pass } = self.marks();
        let left = self.mark_mask & !(accept | pass);
        (self.cut_flows && left != 0).then(|| left & left.wrapping_neg())
    }
}
