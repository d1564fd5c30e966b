//! The parameters that the agent reads, typed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::parse::{ProtoPort, Setting, time};
use crate::sources::{Settled, Source, Values};

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

/// How etcd is reached, as far as anything says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Etcd {
    /// EtcdEndpoints, or else EtcdScheme with EtcdAddr.
    pub endpoints: Option<String>,
    /// EtcdCaFile.
    pub ca_file: Option<String>,
    /// EtcdCertFile.
    pub cert_file: Option<String>,
    /// EtcdKeyFile.
    pub key_file: Option<String>,
}

/// What is reported about this node where others read it in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// OpenstackRegion; empty where there are no regions.
    pub region: String,
    /// ReportingInterval: that the agent lives; none for never, which is written 0.
    pub interval: Option<Duration>,
    /// ReportingTTL: how long each of these reports is valid.
    pub ttl: Duration,
    /// EndpointReportingDelay, where EndpointReportingEnabled: that endpoints are up.
    pub endpoints_after: Option<Duration>,
}

/// The settings that the agent reads: a parameter that is no [`Applied::Unused`] one is in here.
/// Parameters are named in the documentation of each.
///
/// [`Applied::Unused`]: api::v3::felix::Applied::Unused
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// FelixHostname.
    pub hostname: Option<String>,
    /// InterfacePrefix.
    pub interface_prefixes: Vec<String>,
    /// DatastoreType, where something says it.
    pub datastore_type: Option<String>,
    /// What the Etcd parameters say.
    pub etcd: Etcd,
    /// LogSeverityScreen, where something says it.
    pub log_level: Option<LogLevel>,
    /// LogFilePath, where something says it and does not say none.
    pub log_file: Option<String>,
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
    /// How often parts of the agent must be heard of, by their names: HealthTimeoutOverrides, and
    /// DataplaneWatchdogTimeout for [`MAIN_LOOP`]. Zero means never.
    pub health_timeouts: BTreeMap<String, Duration>,
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
    /// NATPortRange.
    pub nat_ports: Option<(u16, u16)>,
    /// NATOutgoingAddress.
    pub nat_address: Option<IpAddr>,
    /// NATOutgoingExclusions.
    pub nat_exclusions: NatExclusions,
    /// IptablesNATOutgoingInterfaceFilter.
    pub nat_interface: Option<String>,
    /// See there.
    pub reporting: Reporting,
}

impl Default for Config {
    fn default() -> Self {
        crate::resolve(&crate::Sources::default()).config
    }
}

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
    /// Where somebody has written it, not where it is built in.
    fn given_text(&self, name: &str) -> Option<String> {
        self.text(name).filter(|_| self.given(name))
    }
    fn time(&self, name: &str) -> Duration {
        match self.get(name) {
            Setting::Time(time) => *time,
            _ => Duration::ZERO,
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

/// Names are those of rows; of another there is nothing.
impl Settled {
    /// Whether somebody said it: it is not what is built in.
    pub fn given(&self, name: &str) -> bool {
        Reader(&self.values).given(name)
    }

    /// A text, a word, or a secret, if it is not empty or none.
    pub fn text(&self, name: &str) -> Option<String> {
        match Reader(&self.values).get(name) {
            Setting::Secret(text) => Some(text.clone()),
            _ => Reader(&self.values).text(name),
        }
    }

    /// Whether it is true.
    pub fn flag(&self, name: &str) -> bool {
        Reader(&self.values).flag(name)
    }

    /// A number that is more than zero.
    pub fn positive(&self, name: &str) -> Option<u32> {
        Reader(&self.values).positive(name)
    }

    /// Prefixes.
    pub fn nets(&self, name: &str) -> &[IpNet] {
        match self.values.get(name) {
            Some((Setting::Nets(nets), _)) => nets,
            _ => &[],
        }
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
            hostname: read.text("FelixHostname"),
            datastore_type: read.given_text("DatastoreType"),
            etcd: etcd(&read),
            log_level: log_level(&read),
            log_file: read.given_text("LogFilePath"),
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
            health_timeouts: health_timeouts(&read),
            metrics: read.listen("PrometheusMetrics", false),
            vxlan_enabled: match read.get("VXLANEnabled") {
                Setting::Bool(on) => Some(*on),
                _ => None,
            },
            vxlan_port: read.int("VXLANPort") as u16,
            vxlan_vni: read.int("VXLANVNI") as u32,
            vxlan_mtu_v4: read.positive("VXLANMTU"),
            vxlan_mtu_v6: read.positive("VXLANMTUV6"),
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
            reporting: reporting(&read),
        }
    }
}

/// The part of the agent that programs the kernel, as its health is reported.
pub const MAIN_LOOP: &str = "InternalDataplaneMainLoop";

fn health_timeouts(read: &Reader<'_>) -> BTreeMap<String, Duration> {
    let watchdog = (MAIN_LOOP.to_owned(), read.time("DataplaneWatchdogTimeout"));
    let overrides = match read.get("HealthTimeoutOverrides") {
        Setting::Pairs(pairs) => pairs.as_slice(),
        _ => &[],
    };
    let timeout = |(name, text): &(String, String)| Some((name.clone(), time(text).ok()?));
    [watchdog].into_iter().chain(overrides.iter().filter_map(timeout)).collect()
}

fn etcd(read: &Reader<'_>) -> Etcd {
    let by_address = || {
        let address = read.given_text("EtcdAddr")?;
        Some(format!("{}://{address}", read.text("EtcdScheme")?))
    };
    Etcd {
        endpoints: read.text("EtcdEndpoints").or_else(by_address),
        ca_file: read.text("EtcdCaFile"),
        cert_file: read.text("EtcdCertFile"),
        key_file: read.text("EtcdKeyFile"),
    }
}

fn reporting(read: &Reader<'_>) -> Reporting {
    let interval = read.time("ReportingInterval");
    let endpoints = read.flag("EndpointReportingEnabled");
    Reporting {
        region: read.text("OpenstackRegion").unwrap_or_default(),
        interval: (!interval.is_zero()).then_some(interval),
        ttl: read.time("ReportingTTL"),
        endpoints_after: endpoints.then(|| read.time("EndpointReportingDelay")),
    }
}

fn log_level(read: &Reader<'_>) -> Option<LogLevel> {
    Some(match read.given_text("LogSeverityScreen")?.as_str() {
        "Debug" => LogLevel::Debug,
        "Warning" => LogLevel::Warning,
        "Error" => LogLevel::Error,
        "Fatal" => LogLevel::Fatal,
        _ => LogLevel::Info,
    })
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
