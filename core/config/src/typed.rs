//! The parameters that the agent reads, typed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::parse::{ProtoPort, Setting};
use crate::sources::Source;

/// What happens to traffic from a workload to its own host after egress policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAction {
    /// Dropped.
    Drop,
    /// Left to the host's own rules.
    Return,
    /// Accepted.
    Accept,
}

/// What denying means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyAction {
    /// Dropped in silence.
    Drop,
    /// Answered.
    Reject,
}

/// Least severity that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warning,
    /// What is wrong.
    Error,
    /// Why the process ended.
    Fatal,
}

/// Destinations that outgoing NAT leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatExclusions {
    /// The pools.
    Pools,
    /// The pools and the hosts of the cluster.
    PoolsAndHosts,
}

/// A server of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or an address; every address if empty.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// So many in a time, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Duration,
    /// How many may come at once.
    pub burst: u32,
}

/// The settings that the agent reads. Parameters are named in the documentation of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// InterfacePrefix.
    pub interface_prefixes: Vec<String>,
    /// Ipv6Support.
    pub ipv6: bool,
    /// DatastoreType.
    pub datastore_type: String,
    /// LogSeverityScreen.
    pub log_level: LogLevel,
    /// LogPrefix: of kernel log lines.
    pub log_prefix: String,
    /// Somebody wants to know of flows: FlowLogsGoldmaneServer is set, or FlowLogsLocalReporter is
    /// Enabled.
    pub flow_logs: bool,
    /// LogActionRateLimit and LogActionRateLimitBurst.
    pub log_rate: Option<RateLimit>,
    /// HealthEnabled, HealthHost, HealthPort. On where nothing says whether: an agent is started by those
    /// who ask for its health, and upstream's manifests set it, too.
    pub health: Option<Listen>,
    /// PrometheusMetricsEnabled, PrometheusMetricsHost, PrometheusMetricsPort.
    pub metrics: Option<Listen>,
    /// VXLANEnabled; none to learn it from the pools.
    pub vxlan_enabled: Option<bool>,
    /// VXLANPort.
    pub vxlan_port: u16,
    /// VXLANVNI.
    pub vxlan_vni: u32,
    /// VXLANMTU; none to learn it from the underlay.
    pub vxlan_mtu_v4: Option<u32>,
    /// VXLANMTUV6; none to learn it from the underlay.
    pub vxlan_mtu_v6: Option<u32>,
    /// MTUIfacePattern.
    pub mtu_iface_pattern: String,
    /// AllowVXLANPacketsFromWorkloads.
    pub allow_vxlan_from_workloads: bool,
    /// AllowIPIPPacketsFromWorkloads.
    pub allow_ipip_from_workloads: bool,
    /// WorkloadSourceSpoofing is `Any`.
    pub allow_source_spoofing: bool,
    /// FailsafeInboundHostPorts.
    pub failsafe_inbound: Vec<ProtoPort>,
    /// FailsafeOutboundHostPorts.
    pub failsafe_outbound: Vec<ProtoPort>,
    /// DefaultEndpointToHostAction.
    pub endpoint_to_host: HostAction,
    /// NftablesFilterDenyAction, or IptablesFilterDenyAction where only that was given.
    pub deny_action: DenyAction,
    /// NftablesMarkMask.
    pub mark_mask: u32,
    /// Not DisableConntrackInvalidCheck.
    pub drop_invalid: bool,
    /// DeviceRouteProtocol.
    pub route_protocol: u8,
    /// IPv4NormalRoutePriority.
    pub route_priority_v4: u32,
    /// IPv6NormalRoutePriority.
    pub route_priority_v6: u32,
    /// RemoveExternalRoutes.
    pub remove_external_routes: bool,
    /// IPForwarding.
    pub ip_forwarding: bool,
    /// NATPortRange.
    pub nat_ports: Option<(u16, u16)>,
    /// NATOutgoingAddress.
    pub nat_address: Option<IpAddr>,
    /// NATOutgoingExclusions.
    pub nat_exclusions: NatExclusions,
    /// IptablesNATOutgoingInterfaceFilter.
    pub nat_interface: Option<String>,
    /// ExternalNodesCIDRList.
    pub external_nodes: Vec<IpNet>,
    /// EndpointStatusPathPrefix.
    pub endpoint_status_path: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        crate::resolve(&crate::Sources::default()).config
    }
}

type Values = BTreeMap<&'static str, (Setting, Source)>;

/// Reads values by name; the parser has made sure of their shape.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn get(&self, name: &str) -> &Setting {
        self.0.get(name).map_or(&Setting::None, |(value, _)| value)
    }
    fn given(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|(_, from)| *from != Source::BuiltIn)
    }
    fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Setting::Bool(true))
    }
    fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Setting::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }
    fn is(&self, name: &str, word: &str) -> bool {
        matches!(self.get(name), Setting::Text(text) if text == word)
    }
    fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Setting::Int(n) => *n,
            _ => 0,
        }
    }
    fn positive(&self, name: &str) -> Option<u32> {
        u32::try_from(self.int(name)).ok().filter(|n| *n > 0)
    }
    fn ports(&self, name: &str) -> Vec<ProtoPort> {
        match self.get(name) {
            Setting::Ports(ports) => ports.clone(),
            _ => Vec::new(),
        }
    }
    fn listen(&self, prefix: &str, by_default: bool) -> Option<Listen> {
        let enabled = format!("{prefix}Enabled");
        let on = if self.given(&enabled) { self.flag(&enabled) } else { by_default };
        let host = self.text(&format!("{prefix}Host")).unwrap_or_default();
        let port = self.int(&format!("{prefix}Port")) as u16;
        on.then_some(Listen { host, port })
    }
}

impl Config {
    pub(crate) fn from_values(values: &Values) -> Self {
        let read = Reader(values);
        Self {
            interface_prefixes: match read.get("InterfacePrefix") {
                Setting::Texts(prefixes) => prefixes.clone(),
                _ => vec!["cali".into()],
            },
            ipv6: read.flag("Ipv6Support"),
            datastore_type: read.text("DatastoreType").unwrap_or_default(),
            log_level: log_level(&read),
            log_prefix: read.text("LogPrefix").unwrap_or_default(),
            flow_logs: read.text("FlowLogsGoldmaneServer").is_some_and(|to| !to.is_empty())
                || read.text("FlowLogsLocalReporter").as_deref() == Some("Enabled"),
            log_rate: match read.get("LogActionRateLimit") {
                Setting::Rate(count, per) => Some(RateLimit {
                    count: *count,
                    per: *per,
                    burst: read.positive("LogActionRateLimitBurst").unwrap_or(5),
                }),
                _ => None,
            },
            health: read.listen("Health", true),
            metrics: read.listen("PrometheusMetrics", false),
            vxlan_enabled: match read.get("VXLANEnabled") {
                Setting::Bool(on) => Some(*on),
                _ => None,
            },
            vxlan_port: read.int("VXLANPort") as u16,
            vxlan_vni: read.int("VXLANVNI") as u32,
            vxlan_mtu_v4: read.positive("VXLANMTU"),
            vxlan_mtu_v6: read.positive("VXLANMTUV6"),
            mtu_iface_pattern: read.text("MTUIfacePattern").unwrap_or_default(),
            allow_vxlan_from_workloads: read.flag("AllowVXLANPacketsFromWorkloads"),
            allow_ipip_from_workloads: read.flag("AllowIPIPPacketsFromWorkloads"),
            allow_source_spoofing: read.is("WorkloadSourceSpoofing", "Any"),
            failsafe_inbound: read.ports("FailsafeInboundHostPorts"),
            failsafe_outbound: read.ports("FailsafeOutboundHostPorts"),
            endpoint_to_host: match read.text("DefaultEndpointToHostAction").as_deref() {
                Some("ACCEPT") => HostAction::Accept,
                Some("RETURN") => HostAction::Return,
                _ => HostAction::Drop,
            },
            deny_action: deny_action(&read),
            mark_mask: read.int("NftablesMarkMask") as u32,
            drop_invalid: !read.flag("DisableConntrackInvalidCheck"),
            route_protocol: read.int("DeviceRouteProtocol") as u8,
            route_priority_v4: read.int("IPv4NormalRoutePriority") as u32,
            route_priority_v6: read.int("IPv6NormalRoutePriority") as u32,
            remove_external_routes: read.flag("RemoveExternalRoutes"),
            ip_forwarding: read.is("IPForwarding", "Enabled"),
            nat_ports: match read.get("NATPortRange") {
                Setting::Ranges(ranges) => ranges.first().map(|r| (r.0 as u16, r.1 as u16)),
                _ => None,
            },
            nat_address: match read.get("NATOutgoingAddress") {
                Setting::Address(address) => Some(*address),
                _ => None,
            },
            nat_exclusions: if read.is("NATOutgoingExclusions", "IPPoolsAndHostIPs") {
                NatExclusions::PoolsAndHosts
            } else {
                NatExclusions::Pools
            },
            nat_interface: read.text("IptablesNATOutgoingInterfaceFilter"),
            external_nodes: match read.get("ExternalNodesCIDRList") {
                Setting::Nets(nets) => nets.clone(),
                _ => Vec::new(),
            },
            endpoint_status_path: read.text("EndpointStatusPathPrefix"),
        }
    }
}

fn log_level(read: &Reader<'_>) -> LogLevel {
    match read.text("LogSeverityScreen").as_deref() {
        Some("Debug") => LogLevel::Debug,
        Some("Warning") => LogLevel::Warning,
        Some("Error") => LogLevel::Error,
        Some("Fatal") => LogLevel::Fatal,
        _ => LogLevel::Info,
    }
}

fn deny_action(read: &Reader<'_>) -> DenyAction {
    let name = if read.given("NftablesFilterDenyAction") || !read.given("IptablesFilterDenyAction")
    {
        "NftablesFilterDenyAction"
    } else {
        "IptablesFilterDenyAction"
    };
    if read.is(name, "REJECT") { DenyAction::Reject } else { DenyAction::Drop }
}
