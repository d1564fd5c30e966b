//! One row per parameter of the agent: from it come the field of FelixConfiguration with its schema,
//! the environment variable, the parser, the default and the documentation.

/// How a parameter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false` (and, outside the resource, the usual words for them).
    Bool,
    /// The same, or not given.
    OptBool,
    /// The same, and `on`, `off`, `enabled`, `disabled`, as start-up scripts write it.
    Flag,
    /// A whole number in a range, both ends included.
    Int(i64, i64),
    /// Text.
    Text,
    /// Text that is not shown.
    Secret,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A time: `90s`, `5m`; outside the resource also a bare number of seconds.
    Duration,
    /// A bare number of seconds, fractions allowed.
    Seconds,
    /// A mark mask, decimal or 0x.
    Mask,
    /// A regular expression.
    Regex,
    /// An address.
    Address,
    /// Name of an interface.
    Iface,
    /// Prefixes of interface names, comma-separated.
    InterfacePrefixes,
    /// Prefixes.
    Cidrs,
    /// Texts.
    TextList,
    /// `min:max` or one port.
    PortRange,
    /// Several of those.
    PortRanges,
    /// `{protocol, port, net}`; outside the resource `tcp:22` or `tcp:10.0.0.0/8:22`.
    ProtoPorts,
    /// `{min, max}`; outside the resource `1-250`.
    TableRange,
    /// Several of those.
    TableRanges,
    /// `key=value,...`.
    KeyValues,
    /// Text by key.
    Map,
    /// `{name, timeout}`.
    Timeouts,
    /// `N/second`, `N/minute`, `N/hour`, `N/day`.
    RateLimit,
    /// Times by state of a connection.
    ConntrackTimeouts,
}

/// How a change of a parameter reaches an agent that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// At once.
    Live,
    /// The agent ends, to be started again, and takes it then.
    Restart,
    /// Not at all, nor at the start: nothing reads it.
    Unused,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The name; the environment variable is `FELIX_` and this in capitals.
    pub name: &'static str,
    /// Other names that the environment and the file may use for it.
    pub aliases: &'static [&'static str],
    /// Field of FelixConfiguration; empty if it has none.
    pub field: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// The built-in default, as it would be written; empty for none.
    pub default: &'static str,
    /// A bad value stops the agent instead of giving the default.
    pub die_on_fail: bool,
    /// How a change of it reaches an agent that runs.
    pub applied: Applied,
    /// What it does.
    pub about: &'static str,
}

impl Parameter {
    /// One without a field, of which a bad value gives the default, and that nothing reads.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        about: &'static str,
    ) -> Self {
        let (aliases, field): (&[&str], _) = (&[], "");
        let applied = Applied::Unused;
        Self { name, aliases, field, kind, default, die_on_fail: false, applied, about }
    }

    /// A bad value stops the program.
    #[must_use]
    pub const fn fatal(self) -> Self {
        Self { die_on_fail: true, ..self }
    }

    /// The field of the resource that it is.
    #[must_use]
    pub const fn at(self, field: &'static str) -> Self {
        Self { field, ..self }
    }

    /// A change reaches the program at once.
    #[must_use]
    pub const fn live(self) -> Self {
        Self { applied: Applied::Live, ..self }
    }

    /// A change reaches the program when it starts again.
    #[must_use]
    pub const fn restart(self) -> Self {
        Self { applied: Applied::Restart, ..self }
    }
}

const fn row(
    name: &'static str,
    field: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
) -> Parameter {
    Parameter { aliases, ..Parameter::new(name, kind, default, about).at(field) }
}

const fn fatal(
    name: &'static str,
    field: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
) -> Parameter {
    row(name, field, kind, default, about, aliases).fatal()
}

use Kind::{
    Address, Bool, Choice, Cidrs, ConntrackTimeouts, Duration, Iface, Int, InterfacePrefixes,
    KeyValues, Map, Mask, OptBool, PortRange, PortRanges, ProtoPorts, RateLimit, Regex, Seconds,
    TableRange, TableRanges, Text, TextList, Timeouts,
};

/// Every parameter. One that nothing reads says neither `live` nor `restart`.
#[rustfmt::skip] // a table: one row a line
pub const PARAMETERS: &[Parameter] = &[
    // Process
    row("UseInternalDataplaneDriver", "useInternalDataplaneDriver", Bool, "true", "Program the kernel itself instead of starting another program.", &[]),
    row("DataplaneDriver", "dataplaneDriver", Text, "calico-iptables-plugin", "Program to start if not.", &[]),
    row("DataplaneWatchdogTimeout", "dataplaneWatchdogTimeout", Duration, "90s", "Time without progress after which the data plane counts as stuck.", &[]).live(),
    fatal("DatastoreType", "", Choice(&["etcdv3", "kubernetes"]), "kubernetes", "Kind of datastore.", &[]).restart(),
    fatal("FelixHostname", "", Text, "", "Name of this node.", &[]).restart(),
    fatal("EtcdAddr", "", Text, "127.0.0.1:2379", "Address of etcd.", &[]).restart(),
    fatal("EtcdScheme", "", Choice(&["http", "https"]), "http", "Scheme of etcd.", &[]).restart(),
    fatal("EtcdKeyFile", "", Text, "", "Client key for etcd.", &[]).restart(),
    fatal("EtcdCertFile", "", Text, "", "Client certificate for etcd.", &[]).restart(),
    fatal("EtcdCaFile", "", Text, "", "CA of etcd.", &[]).restart(),
    fatal("EtcdEndpoints", "", Text, "", "URLs of etcd.", &[]).restart(),
    row("Variant", "", Text, "Calico", "Variant of the product.", &[]),
    row("CalicoVersion", "", Text, "", "Version of the cluster, from ClusterInformation.", &[]),
    row("ClusterGUID", "", Text, "", "Id of the cluster, from ClusterInformation.", &[]),
    row("ClusterType", "", Text, "", "Kind of the cluster, from ClusterInformation.", &[]),
    row("GoGCThreshold", "goGCThreshold", Int(-1, i64::MAX), "40", "Go runtime only; accepted and without effect.", &[]),
    row("GoMemoryLimitMB", "goMemoryLimitMB", Int(-1, i64::MAX), "-1", "Go runtime only; accepted and without effect.", &[]),
    row("GoMaxProcs", "goMaxProcs", Int(-1, i64::MAX), "-1", "Go runtime only; accepted and without effect.", &[]),
    row("FeatureDetectOverride", "featureDetectOverride", KeyValues, "", "Kernel features to assume present or absent.", &[]),
    row("FeatureGates", "featureGates", KeyValues, "", "Preview features.", &[]),
    // Typha client
    fatal("TyphaAddr", "", Text, "", "Address of Typha.", &[]),
    fatal("TyphaK8sServiceName", "", Text, "", "Service of Typha.", &[]),
    fatal("TyphaK8sNamespace", "", Text, "kube-system", "Namespace of that service.", &[]),
    row("TyphaReadTimeout", "", Seconds, "30", "Time without data after which Typha counts as gone.", &[]),
    row("TyphaWriteTimeout", "", Seconds, "10", "Time a write to Typha may take.", &[]),
    fatal("TyphaKeyFile", "", Text, "", "Client key for Typha.", &[]),
    fatal("TyphaCertFile", "", Text, "", "Client certificate for Typha.", &[]),
    fatal("TyphaCAFile", "", Text, "", "CA of Typha.", &[]),
    fatal("TyphaCN", "", Text, "", "Common name of Typha's certificate.", &[]),
    fatal("TyphaURISAN", "", Text, "", "URI name of Typha's certificate.", &[]),
    // Address family
    row("Ipv6Support", "ipv6Support", Bool, "true", "Handle IPv6.", &[]),
    // Interfaces
    fatal("InterfacePrefix", "interfacePrefix", InterfacePrefixes, "cali", "Prefixes of workload interfaces, comma-separated.", &[]).restart(),
    row("InterfaceExclude", "interfaceExclude", Text, "kube-ipvs0", "Interfaces that are never host interfaces: names and /regular expressions/.", &[]),
    row("MTUIfacePattern", "mtuIfacePattern", Regex, "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)", "Interfaces from which the MTU is learned.", &[]),
    row("RequireMTUFile", "requireMTUFile", Bool, "false", "Wait for the file that holds the MTU.", &[]),
    row("InterfaceRefreshInterval", "interfaceRefreshInterval", Duration, "90s", "Time between full reads of the interfaces.", &[]),
    // Chains
    fatal("ChainInsertMode", "chainInsertMode", Choice(&["insert", "append"]), "insert", "Whether our jumps come first or last in the kernel's chains.", &[]),
    fatal("DefaultEndpointToHostAction", "defaultEndpointToHostAction", Choice(&["DROP", "RETURN", "ACCEPT"]), "DROP", "What happens to traffic from a workload to its own host after egress policy.", &[]).live(),
    fatal("IptablesFilterAllowAction", "iptablesFilterAllowAction", Choice(&["ACCEPT", "RETURN"]), "ACCEPT", "What allowing means in the filter table.", &[]),
    fatal("IptablesMangleAllowAction", "iptablesMangleAllowAction", Choice(&["ACCEPT", "RETURN"]), "ACCEPT", "What allowing means in the mangle table.", &[]),
    fatal("IptablesFilterDenyAction", "iptablesFilterDenyAction", Choice(&["DROP", "REJECT"]), "DROP", "What denying means.", &[]).live(),
    row("IptablesBackend", "iptablesBackend", Choice(&["auto", "legacy", "nft"]), "auto", "Variant of iptables.", &[]),
    fatal("IptablesMarkMask", "iptablesMarkMask", Mask, "0xffff0000", "Packet mark bits that may be used.", &[]),
    row("IptablesRefreshInterval", "iptablesRefreshInterval", Duration, "180s", "Time between full reads of iptables.", &[]),
    row("IptablesPostWriteCheckInterval", "iptablesPostWriteCheckInterval", Duration, "5s", "Time after a write until it is read back.", &["IptablesPostWriteCheckIntervalSecs"]),
    row("IptablesLockFilePath", "iptablesLockFilePath", Text, "/run/xtables.lock", "The iptables lock.", &[]),
    row("IptablesLockTimeout", "iptablesLockTimeout", Duration, "0s", "Time to wait for that lock.", &["IptablesLockTimeoutSecs"]),
    row("IptablesLockProbeInterval", "iptablesLockProbeInterval", Duration, "50ms", "Time between attempts on that lock.", &["IptablesLockProbeIntervalMillis"]),
    row("IpsetsRefreshInterval", "ipsetsRefreshInterval", Duration, "90s", "Time between full reads of the sets.", &[]),
    row("MaxIpsetSize", "maxIpsetSize", Int(1, i64::MAX), "1048576", "Most members of an iptables set.", &[]),
    row("DisableConntrackInvalidCheck", "disableConntrackInvalidCheck", Bool, "false", "Let packets pass that connection tracking calls invalid.", &[]).live(),
    row("NetlinkTimeout", "netlinkTimeout", Duration, "10s", "Time a netlink request may take.", &["NetlinkTimeoutSecs"]),
    fatal("MetadataAddr", "metadataAddr", Text, "127.0.0.1", "OpenStack only; accepted and without effect.", &[]),
    fatal("MetadataPort", "metadataPort", Int(0, 65_535), "8775", "OpenStack only; accepted and without effect.", &[]),
    fatal("OpenstackRegion", "openstackRegion", Text, "", "Region of this node: part of the keys that its reports have in etcd.", &[]).live(),
    // nftables
    row("NFTablesMode", "nftablesMode", Choice(&["Auto", "Enabled", "Disabled"]), "Auto", "Whether nftables is used.", &[]),
    row("NftablesRefreshInterval", "nftablesRefreshInterval", Duration, "180s", "Time between full reads of nftables.", &[]),
    fatal("NftablesFilterAllowAction", "nftablesFilterAllowAction", Choice(&["ACCEPT", "RETURN"]), "ACCEPT", "What allowing means in filter chains.", &[]),
    fatal("NftablesMangleAllowAction", "nftablesMangleAllowAction", Choice(&["ACCEPT", "RETURN"]), "ACCEPT", "What allowing means in mangle chains.", &[]),
    fatal("NftablesFilterDenyAction", "nftablesFilterDenyAction", Choice(&["DROP", "REJECT"]), "DROP", "What denying means.", &[]).live(),
    fatal("NftablesMarkMask", "nftablesMarkMask", Mask, "0xffff0000", "Packet mark bits that may be used.", &[]).live(),
    row("NFTablesFlowTableOffload", "nftablesFlowTableOffload", Choice(&["Disabled", "All"]), "Disabled", "Whether established flows take the kernel's short cut.", &[]),
    row("NFTablesFlowTableDataIfacePattern", "nftablesFlowTableDataIfacePattern", Regex, "", "Host interfaces on that short cut.", &[]),
    // Routes
    row("RouteSource", "routeSource", Choice(&["WorkloadIPs", "CalicoIPAM"]), "CalicoIPAM", "What routes are calculated from.", &[]),
    row("DeviceRouteProtocol", "deviceRouteProtocol", Int(0, 255), "3", "Protocol number of our routes.", &[]),
    row("DeviceRouteSourceAddress", "deviceRouteSourceAddress", Address, "", "IPv4 source address of our routes.", &[]),
    row("DeviceRouteSourceAddressIPv6", "deviceRouteSourceAddressIPv6", Address, "", "IPv6 source address of our routes.", &[]),
    row("RemoveExternalRoutes", "removeExternalRoutes", Bool, "true", "Remove routes to workloads that others made.", &[]),
    row("ProgramClusterRoutes", "programClusterRoutes", Choice(&["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"]), "EnabledIPIPOnly", "Which routes between nodes the agent programs.", &[]),
    row("RouteRefreshInterval", "routeRefreshInterval", Duration, "90s", "Time between full reads of the routes.", &[]),
    row("RouteTableRanges", "routeTableRanges", TableRanges, "1-250", "Routing tables that may be used.", &[]),
    row("RouteTableRange", "routeTableRange", TableRange, "", "Older form of routeTableRanges.", &[]),
    row("RouteSyncDisabled", "routeSyncDisabled", Bool, "false", "Leave routes alone.", &[]),
    row("IPv4NormalRoutePriority", "ipv4NormalRoutePriority", Int(1, 2_147_483_646), "1024", "Kernel metric of IPv4 routes.", &[]),
    row("IPv6NormalRoutePriority", "ipv6NormalRoutePriority", Int(1, 2_147_483_646), "1024", "Kernel metric of IPv6 routes.", &[]),
    row("IPv4ElevatedRoutePriority", "ipv4ElevatedRoutePriority", Int(1, 2_147_483_646), "512", "Kernel metric of IPv4 routes during a live migration.", &[]),
    row("IPv6ElevatedRoutePriority", "ipv6ElevatedRoutePriority", Int(1, 2_147_483_646), "512", "Kernel metric of IPv6 routes during a live migration.", &[]),
    row("LiveMigrationRouteConvergenceTime", "liveMigrationRouteConvergenceTime", Duration, "30s", "How long that metric stays.", &[]),
    fatal("ExternalNodesCIDRList", "externalNodesList", Cidrs, "", "Hosts outside the cluster that may send tunnel packets.", &[]),
    row("IPForwarding", "ipForwarding", Choice(&["Enabled", "Disabled"]), "Enabled", "Switch forwarding on.", &[]),
    row("AWSSrcDstCheck", "awsSrcDstCheck", Choice(&["DoNothing", "Enable", "Disable"]), "DoNothing", "Source and destination check of AWS instances.", &[]),
    // IPIP
    row("IpInIpEnabled", "ipipEnabled", OptBool, "", "IP-in-IP device; from the pools if not given.", &[]),
    row("IpInIpMtu", "ipipMTU", Int(0, 65_535), "0", "MTU of that device; 0 for the underlay's less the header.", &[]),
    row("IpInIpTunnelAddr", "", Address, "", "Address of that device.", &[]),
    row("AllowIPIPPacketsFromWorkloads", "allowIPIPPacketsFromWorkloads", Bool, "false", "Let workloads send IP-in-IP.", &[]).live(),
    // VXLAN
    row("VXLANEnabled", "vxlanEnabled", OptBool, "", "VXLAN device; from the pools if not given.", &[]).live(),
    row("VXLANPort", "vxlanPort", Int(1, 65_535), "4789", "UDP port of VXLAN.", &[]).live(),
    row("VXLANVNI", "vxlanVNI", Int(1, 16_777_215), "4096", "VXLAN network id.", &[]).live(),
    row("VXLANMTU", "vxlanMTU", Int(0, 65_535), "0", "MTU of the IPv4 VXLAN device; 0 for the underlay's less the header.", &[]).live(),
    row("VXLANMTUV6", "vxlanMTUV6", Int(0, 65_535), "0", "MTU of the IPv6 VXLAN device; 0 for the underlay's less the header.", &[]).live(),
    row("IPv4VXLANTunnelAddr", "", Address, "", "Address of the IPv4 VXLAN device.", &[]),
    row("IPv6VXLANTunnelAddr", "", Address, "", "Address of the IPv6 VXLAN device.", &[]),
    row("VXLANTunnelMACAddr", "", Text, "", "MAC address of the IPv4 VXLAN device.", &[]),
    row("VXLANTunnelMACAddrV6", "", Text, "", "MAC address of the IPv6 VXLAN device.", &[]),
    row("AllowVXLANPacketsFromWorkloads", "allowVXLANPacketsFromWorkloads", Bool, "false", "Let workloads send VXLAN.", &[]).live(),
    // WireGuard
    row("WireguardEnabled", "wireguardEnabled", Bool, "false", "Encrypt IPv4 between nodes.", &[]),
    row("WireguardEnabledV6", "wireguardEnabledV6", Bool, "false", "Encrypt IPv6 between nodes.", &[]),
    row("WireguardListeningPort", "wireguardListeningPort", Int(1, 65_535), "51820", "UDP port for IPv4.", &[]),
    row("WireguardListeningPortV6", "wireguardListeningPortV6", Int(1, 65_535), "51821", "UDP port for IPv6.", &[]),
    row("WireguardRoutingRulePriority", "wireguardRoutingRulePriority", Int(1, 32_765), "99", "Priority of the routing rule.", &[]),
    fatal("WireguardInterfaceName", "wireguardInterfaceName", Iface, "wireguard.cali", "Device for IPv4.", &[]),
    fatal("WireguardInterfaceNameV6", "wireguardInterfaceNameV6", Iface, "wg-v6.cali", "Device for IPv6.", &[]),
    row("WireguardMTU", "wireguardMTU", Int(0, 65_535), "0", "MTU for IPv4; 0 for the underlay's less the header.", &[]),
    row("WireguardMTUV6", "wireguardMTUV6", Int(0, 65_535), "0", "MTU for IPv6; 0 for the underlay's less the header.", &[]),
    row("WireguardHostEncryptionEnabled", "wireguardHostEncryptionEnabled", Bool, "false", "Encrypt traffic between the nodes themselves.", &[]),
    row("WireguardPersistentKeepAlive", "wireguardKeepAlive", Duration, "0s", "Time between keepalives; 0 for none.", &[]),
    row("WireguardThreadingEnabled", "wireguardThreadingEnabled", Bool, "false", "NAPI threads for the device.", &[]),
    // NAT and services
    row("NATPortRange", "natPortRange", PortRange, "", "Ports that outgoing NAT may use.", &[]).live(),
    row("NATOutgoingAddress", "natOutgoingAddress", Address, "", "Source address of outgoing NAT; the leaving interface's if not given.", &[]).live(),
    row("NATOutgoingExclusions", "natOutgoingExclusions", Choice(&["IPPoolsOnly", "IPPoolsAndHostIPs"]), "IPPoolsOnly", "Destinations that outgoing NAT leaves alone.", &[]).live(),
    row("IptablesNATOutgoingInterfaceFilter", "iptablesNATOutgoingInterfaceFilter", Text, "", "Only interfaces of this name (with + as wildcard) do outgoing NAT.", &[]).live(),
    row("KubeNodePortRanges", "kubeNodePortRanges", PortRanges, "30000:32767", "Node ports.", &[]),
    row("FloatingIPs", "floatingIPs", Choice(&["Enabled", "Disabled"]), "Disabled", "Floating addresses of pods.", &[]),
    row("ServiceLoopPrevention", "serviceLoopPrevention", Choice(&["Drop", "Reject", "Disabled"]), "Drop", "What happens to packets to service addresses that nothing serves.", &[]),
    row("LocalSubnetL2Reachability", "localSubnetL2Reachability", Choice(&["Disabled", "PodsAndLoadBalancers"]), "Disabled", "Answer ARP and ND for pods on the node's own subnet.", &[]),
    row("LocalSubnetL2ReachabilityRefreshInterval", "localSubnetL2ReachabilityRefreshInterval", Duration, "120s", "Time between announcements of those.", &[]),
    row("WorkloadSourceSpoofing", "workloadSourceSpoofing", Choice(&["Disabled", "Any"]), "Disabled", "Whether pods may ask to send from other addresses.", &[]).live(),
    // Failsafe
    fatal("FailsafeInboundHostPorts", "failsafeInboundHostPorts", ProtoPorts, "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667", "Ports of host endpoints that stay open whatever policy says.", &[]).live(),
    fatal("FailsafeOutboundHostPorts", "failsafeOutboundHostPorts", ProtoPorts, "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667", "Ports that host endpoints reach whatever policy says.", &[]).live(),
    // Logging
    fatal("LogFilePath", "logFilePath", Text, "/var/log/calico/felix.log", "Log file, beside standard output; none for no file. There is none unless one is given.", &[]).live(),
    row("LogSeverityFile", "logSeverityFile", Choice(&["Debug", "Info", "Warning", "Error", "Fatal"]), "Info", "Least severity in the file.", &[]),
    row("LogSeverityScreen", "logSeverityScreen", Choice(&["Debug", "Info", "Warning", "Error", "Fatal"]), "Info", "Least severity on standard output.", &[]).live(),
    row("LogSeveritySys", "logSeveritySys", Choice(&["Debug", "Info", "Warning", "Error", "Fatal"]), "Info", "Least severity in syslog.", &[]),
    row("LogDebugFilenameRegex", "logDebugFilenameRegex", Regex, "", "Source files whose debug lines are logged.", &[]),
    row("LogPrefix", "logPrefix", Text, "calico-packet", "Prefix of kernel log lines; %t tier, %k kind, %n name, %p name with namespace.", &[]).live(),
    row("LogActionRateLimit", "logActionRateLimit", RateLimit, "", "Most log lines of Log rules in a time, N/second, N/minute, N/hour or N/day.", &[]).live(),
    row("LogActionRateLimitBurst", "logActionRateLimitBurst", Int(1, 10_000), "5", "How many may come at once.", &[]).live(),
    // Health and metrics
    row("HealthEnabled", "healthEnabled", Bool, "false", "Serve health and readiness.", &[]).live(),
    row("HealthHost", "healthHost", Text, "localhost", "Address of the health server.", &[]).live(),
    row("HealthPort", "healthPort", Int(1, 65_535), "9099", "Port of the health server.", &[]).live(),
    row("HealthTimeoutOverrides", "healthTimeoutOverrides", Timeouts, "", "Timeouts of single reporters.", &[]).live(),
    row("PrometheusMetricsEnabled", "prometheusMetricsEnabled", Bool, "false", "Serve metrics.", &[]).live(),
    row("PrometheusMetricsHost", "prometheusMetricsHost", Text, "", "Address of the metrics server; all if empty.", &[]).live(),
    row("PrometheusMetricsPort", "prometheusMetricsPort", Int(1, 65_535), "9091", "Port of the metrics server.", &[]).live(),
    row("PrometheusGoMetricsEnabled", "prometheusGoMetricsEnabled", Bool, "true", "Runtime metrics; accepted and without effect.", &[]),
    row("PrometheusProcessMetricsEnabled", "prometheusProcessMetricsEnabled", Bool, "true", "Metrics of the process.", &[]),
    row("PrometheusWireGuardMetricsEnabled", "prometheusWireGuardMetricsEnabled", Bool, "true", "Metrics of WireGuard.", &[]),
    row("PrometheusMetricsCAFile", "prometheusMetricsCAFile", Text, "", "CA of the metrics server's clients.", &[]),
    row("PrometheusMetricsCertFile", "prometheusMetricsCertFile", Text, "", "Certificate of the metrics server.", &[]),
    row("PrometheusMetricsKeyFile", "prometheusMetricsKeyFile", Text, "", "Key of the metrics server.", &[]),
    row("PrometheusMetricsClientAuth", "prometheusMetricsClientAuth", Choice(&["RequireAndVerifyClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "NoClientCert"]), "NoClientCert", "What clients must show.", &[]),
    row("UsageReportingEnabled", "usageReportingEnabled", Bool, "true", "Accepted and without effect: nothing is ever reported.", &[]),
    row("UsageReportingInitialDelay", "usageReportingInitialDelay", Duration, "300s", "Accepted and without effect.", &["UsageReportingInitialDelaySecs"]),
    row("UsageReportingInterval", "usageReportingInterval", Duration, "86400s", "Accepted and without effect.", &["UsageReportingIntervalSecs"]),
    // Status
    row("ReportingInterval", "reportingInterval", Duration, "30s", "Time between status reports.", &["ReportingIntervalSecs"]).live(),
    row("ReportingTTL", "reportingTTL", Duration, "90s", "How long a status report is valid.", &["ReportingTTLSecs"]).live(),
    row("EndpointReportingEnabled", "endpointReportingEnabled", Bool, "false", "Report the state of endpoints.", &[]).live(),
    row("EndpointReportingDelay", "endpointReportingDelay", Duration, "1s", "Time such a report may wait.", &["EndpointReportingDelaySecs"]).live(),
    row("EndpointStatusPathPrefix", "endpointStatusPathPrefix", Text, "/var/run/calico", "Directory of endpoint status files.", &[]),
    row("PolicySyncPathPrefix", "policySyncPathPrefix", Text, "", "Directory of policy sockets.", &[]),
    // XDP
    row("XDPEnabled", "xdpEnabled", Bool, "true", "Drop at the driver where untracked policy allows it.", &[]),
    row("GenericXDPEnabled", "genericXDPEnabled", Bool, "false", "Do so without driver support as well.", &[]),
    row("XDPRefreshInterval", "xdpRefreshInterval", Duration, "90s", "Time between full reads of XDP.", &[]),
    row("SidecarAccelerationEnabled", "sidecarAccelerationEnabled", Bool, "false", "Short cut for sidecars.", &[]),
    // Flow logs
    row("FlowLogsFlushInterval", "flowLogsFlushInterval", Duration, "300s", "Time between flow log batches.", &[]),
    row("FlowLogsGoldmaneServer", "flowLogsGoldmaneServer", Text, "", "Where flows are sent.", &[]).live(),
    row("FlowLogsLocalReporter", "flowLogsLocalReporter", Choice(&["Disabled", "Enabled"]), "Disabled", "Offer flows on a local socket.", &[]).live(),
    row("FlowLogsPolicyEvaluationMode", "flowLogsPolicyEvaluationMode", Choice(&["None", "Continuous"]), "Continuous", "Whether running flows are evaluated again when policies change.", &[]),
    row("FlowLogsCollectorDebugTrace", "flowLogsCollectorDebugTrace", Bool, "false", "Log every step of the collector.", &[]),
    // Istio
    row("IstioAmbientMode", "istioAmbientMode", Choice(&["Enabled", "Disabled"]), "Disabled", "Work with Istio's ambient mode.", &[]),
    row("IstioDSCPMark", "istioDSCPMark", Int(0, 63), "23", "DSCP value of that mode.", &[]),
    // Debug
    row("DebugHost", "debugHost", Text, "localhost", "Address for profiles.", &[]),
    row("DebugPort", "debugPort", Int(0, 65_535), "", "Port for profiles; none if not given.", &[]),
    row("DebugMemoryProfilePath", "debugMemoryProfilePath", Text, "", "Where memory profiles go.", &[]),
    row("DebugCPUProfilePath", "", Text, "/tmp/felix-cpu-<timestamp>.pprof", "Where CPU profiles go.", &[]),
    row("DebugDisableLogDropping", "debugDisableLogDropping", Bool, "false", "Wait for slow logs instead of dropping them.", &[]),
    row("DebugSimulateCalcGraphHangAfter", "debugSimulateCalcGraphHangAfter", Duration, "0s", "For tests.", &[]),
    row("DebugSimulateDataplaneHangAfter", "debugSimulateDataplaneHangAfter", Duration, "0s", "For tests.", &[]),
    row("DebugSimulateDataplaneApplyDelay", "debugSimulateDataplaneApplyDelay", Duration, "0s", "For tests.", &[]),
    row("DebugPanicAfter", "", Duration, "0s", "For tests.", &[]),
    row("DebugSimulateDataRace", "", Bool, "false", "For tests.", &[]),
    row("WindowsManageFirewallRules", "windowsManageFirewallRules", Choice(&["Enabled", "Disabled"]), "Disabled", "Windows only; accepted and without effect.", &[]),
    // eBPF core
    row("BPFEnabled", "bpfEnabled", Bool, "false", "Use the eBPF data plane.", &[]),
    row("BPFAttachType", "bpfAttachType", Choice(&["TC", "TCX", "Netkit"]), "Netkit", "How programs are attached.", &[]),
    row("BPFDisableUnprivileged", "bpfDisableUnprivileged", Bool, "true", "Keep unprivileged users from eBPF.", &[]),
    row("BPFJITHardening", "bpfJITHardening", Choice(&["Auto", "Strict"]), "Auto", "Hardening of the compiler in the kernel.", &[]),
    row("BPFDataIfacePattern", "bpfDataIfacePattern", Regex, "^((en|wl|ww|sl|ib)[Popsvx].*|(eth|wlan|wwan|bond).*|tunl0$|vxlan.calico$|vxlan-v6.calico$|wireguard.cali$|wg-v6.cali$|egress.calico$)", "Host interfaces that get programs.", &[]),
    row("BPFL3IfacePattern", "bpfL3IfacePattern", Regex, "", "Host interfaces without link layer that get programs.", &[]),
    row("BPFOverlayHostSourceIP", "bpfOverlayHostSourceIP", Choice(&["TunnelAddress", "HostAddress"]), "TunnelAddress", "Source address of the host in the overlay.", &[]),
    row("BPFRedirectToPeer", "bpfRedirectToPeer", Choice(&["Enabled", "Disabled", "L2Only"]), "L2Only", "Hand packets straight to the pod's side of the pair.", &[]),
    row("BPFDisableGROForIfaces", "bpfDisableGROForIfaces", Regex, "", "Interfaces without receive offload.", &[]),
    row("BPFForceTrackPacketsFromIfaces", "bpfForceTrackPacketsFromIfaces", TextList, "docker+", "Interfaces whose packets the kernel tracks.", &[]),
    row("BPFEnforceRPF", "bpfEnforceRPF", Choice(&["Disabled", "Strict", "Loose"]), "Loose", "Reverse path check.", &[]),
    row("BPFHostConntrackBypass", "bpfHostConntrackBypass", Bool, "false", "Do without the kernel's connection tracking.", &[]),
    row("BPFIPFragmentReassemblyEnabled", "bpfIPFragmentReassemblyEnabled", Bool, "true", "Put fragments together before policy.", &[]),
    row("BPFIPFragTimeout", "bpfIPFragTimeout", Duration, "0s", "How long fragments are kept; 0 for the kernel's setting.", &[]),
    row("CgroupV2Path", "", Text, "", "Where cgroups are mounted.", &[]),
    // eBPF services
    row("BPFConnectTimeLoadBalancing", "bpfConnectTimeLoadBalancing", Choice(&["TCP", "Enabled", "Disabled"]), "TCP", "Translate services when a socket connects.", &[]),
    row("BPFConnectTimeLoadBalancingEnabled", "bpfConnectTimeLoadBalancingEnabled", OptBool, "", "Older form of bpfConnectTimeLoadBalancing.", &[]),
    row("BPFHostNetworkedNATWithoutCTLB", "bpfHostNetworkedNATWithoutCTLB", Choice(&["Enabled", "Disabled"]), "Enabled", "Translate services of host processes without that.", &[]),
    row("BPFExternalServiceMode", "bpfExternalServiceMode", Choice(&["tunnel", "dsr"]), "tunnel", "How outside connections reach backends on other nodes.", &[]),
    row("BPFDSROptoutCIDRs", "bpfDSROptoutCIDRs", Cidrs, "", "Clients without direct return.", &[]),
    row("BPFExcludeCIDRsFromNAT", "bpfExcludeCIDRsFromNAT", Cidrs, "", "Destinations that are not translated.", &[]),
    row("BPFPSNATPorts", "bpfPSNATPorts", PortRange, "20000:29999", "Source ports used after a collision.", &[]),
    row("BPFExtToServiceConnmark", "bpfExtToServiceConnmark", Int(0, 4_294_967_295), "0", "Mark of outside connections to services.", &[]),
    row("BPFKubeProxyIptablesCleanupEnabled", "bpfKubeProxyIptablesCleanupEnabled", Bool, "true", "Remove what kube-proxy left.", &[]),
    row("BPFKubeProxyMinSyncPeriod", "bpfKubeProxyMinSyncPeriod", Duration, "1s", "Least time between service updates.", &[]),
    row("BPFKubeProxyHealthzPort", "bpfKubeProxyHealthzPort", Int(0, 65_535), "10256", "Port of the service proxy's health server.", &[]),
    row("BPFKubeProxyEndpointSlicesEnabled", "bpfKubeProxyEndpointSlicesEnabled", Bool, "true", "Accepted and without effect.", &[]),
    row("BPFMaglevMaxEndpointsPerService", "bpfMaglevMaxEndpointsPerService", Int(1, 3000), "100", "Most endpoints of a service with consistent hashing.", &[]),
    row("BPFMaglevMaxServices", "bpfMaglevMaxServices", Int(1, 3000), "100", "Most services with consistent hashing.", &[]),
    // eBPF maps
    row("BPFMapSizeNATFrontend", "bpfMapSizeNATFrontend", Int(1, 4_294_967_295), "65536", "Entries of the map.", &[]),
    row("BPFMapSizeNATBackend", "bpfMapSizeNATBackend", Int(1, 4_294_967_295), "262144", "Entries of the map.", &[]),
    row("BPFMapSizeNATAffinity", "bpfMapSizeNATAffinity", Int(1, 4_294_967_295), "65536", "Entries of the map.", &[]),
    row("BPFMapSizeRoute", "bpfMapSizeRoute", Int(1, 4_294_967_295), "262144", "Entries of the map.", &[]),
    row("BPFMapSizeConntrack", "bpfMapSizeConntrack", Int(1, 4_294_967_295), "512000", "Entries of the map.", &[]),
    row("BPFMapSizePerCPUConntrack", "bpfMapSizePerCpuConntrack", Int(0, 4_294_967_295), "0", "Entries of the map, per processor; 0 for bpfMapSizeConntrack.", &[]),
    row("BPFMapSizeConntrackScaling", "bpfMapSizeConntrackScaling", Choice(&["Disabled", "DoubleIfFull"]), "DoubleIfFull", "Whether that map grows.", &[]),
    row("BPFMapSizeConntrackCleanupQueue", "bpfMapSizeConntrackCleanupQueue", Int(1, 4_294_967_295), "100000", "Entries of the map.", &[]),
    row("BPFMapSizeIPSets", "bpfMapSizeIPSets", Int(1, 4_294_967_295), "1048576", "Entries of the map.", &[]),
    row("BPFMapSizeIfState", "bpfMapSizeIfState", Int(1, 4_294_967_295), "1000", "Entries of the map.", &[]),
    // eBPF conntrack
    row("BPFConntrackCleanupMode", "bpfConntrackMode", Choice(&["Auto", "Userspace", "BPFProgram"]), "Auto", "Who removes old connections.", &[]),
    row("BPFConntrackTimeouts", "bpfConntrackTimeouts", ConntrackTimeouts, "", "How long connections are remembered, by state.", &[]),
    // eBPF debug
    row("BPFLogLevel", "bpfLogLevel", Choice(&["off", "info", "debug"]), "off", "How much programs log.", &[]),
    row("BPFConntrackLogLevel", "bpfConntrackLogLevel", Choice(&["off", "debug"]), "off", "How much connection tracking logs.", &[]),
    row("BPFLogFilters", "bpfLogFilters", Map, "", "Which packets are logged, by interface.", &[]),
    row("BPFCTLBLogFilter", "bpfCTLBLogFilter", Choice(&["all"]), "", "Whether that applies to sockets.", &[]),
    row("BPFPolicyDebugEnabled", "bpfPolicyDebugEnabled", Bool, "true", "Record how policy programs came about.", &[]),
    row("BPFProfiling", "bpfProfiling", Choice(&["Enabled", "Disabled"]), "Disabled", "Measure programs.", &[]),
    row("BPFExportBufferSizeMB", "bpfExportBufferSizeMB", Int(1, 1024), "1", "Size of the buffer of events.", &[]),
];
