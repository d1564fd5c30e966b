//! Settings of Typha, the fan-out between the datastore and the nodes.

use api::v3::felix::Kind::{Bool, Choice, Int, Seconds, Text};
use api::v3::felix::Parameter;

use super::Group;

const LEVELS: &[&str] = &["Debug", "Info", "Warning", "Error", "Fatal"];

pub(super) const GROUPS: &[Group] = &[
    Group { title: "Typha: the datastore", rows: DATASTORE },
    Group { title: "Typha: the server", rows: SERVER },
    Group { title: "Typha: logs, health, metrics", rows: ABOUT },
];

#[rustfmt::skip] // a table: one row a line
const DATASTORE: &[Parameter] = &[
    Parameter::new("DatastoreType", Choice(&["etcdv3", "kubernetes"]), "etcdv3", "Kind of datastore.").fatal(),
    Parameter::new("EtcdAddr", Text, "127.0.0.1:2379", "Address of etcd."),
    Parameter::new("EtcdScheme", Choice(&["http", "https"]), "http", "Scheme of etcd."),
    Parameter::new("EtcdKeyFile", Text, "", "Client key for etcd."),
    Parameter::new("EtcdCertFile", Text, "", "Client certificate for etcd."),
    Parameter::new("EtcdCaFile", Text, "", "CA of etcd."),
    Parameter::new("EtcdEndpoints", Text, "", "URLs of etcd."),
];

#[rustfmt::skip] // a table: one row a line
const SERVER: &[Parameter] = &[
    Parameter::new("ServerHost", Text, "", "Address of the server; all if empty."),
    Parameter::new("ServerPort", Int(0, 65_535), "0", "Port of the server; 0 for 5473."),
    Parameter::new("ServerKeyFile", Text, "", "Key of the server."),
    Parameter::new("ServerCertFile", Text, "", "Certificate of the server."),
    Parameter::new("CAFile", Text, "", "CA of its clients."),
    Parameter::new("ClientCN", Text, "", "Common name of the clients' certificates."),
    Parameter::new("ClientURISAN", Text, "", "URI name of the clients' certificates. With any of the five the connection is encrypted, and all must be there but one of the two names."),
    Parameter::new("SnapshotCacheMaxBatchSize", Int(1, i64::MAX), "100", "Updates that are taken in at once."),
    Parameter::new("ServerMaxMessageSize", Int(1, i64::MAX), "100", "Updates in one message."),
    Parameter::new("ServerMaxFallBehindSecs", Seconds, "300", "How far a client may fall behind before it is dropped."),
    Parameter::new("ServerNewClientFallBehindGracePeriod", Seconds, "300", "How much longer a new client may take."),
    Parameter::new("ServerMinBatchingAgeThresholdSecs", Seconds, "0.01", "How old an update is before it waits for no others."),
    Parameter::new("ServerPingIntervalSecs", Seconds, "10", "Time between pings."),
    Parameter::new("ServerPongTimeoutSecs", Seconds, "60", "Time a client may take to answer one."),
    Parameter::new("ServerHandshakeTimeoutSecs", Seconds, "10", "Time the handshake may take."),
    Parameter::new("ConnectionRebalancingMode", Choice(&["none", "kubernetes"]), "none", "Whether clients are spread over all servers."),
    Parameter::new("ConnectionDropIntervalSecs", Seconds, "1", "Time between clients that are dropped for that."),
    Parameter::new("ShutdownTimeoutSecs", Seconds, "300", "Time in which clients are dropped at the end."),
    Parameter::new("ShutdownConnectionDropIntervalMaxSecs", Seconds, "1", "Longest time between two of them."),
    Parameter::new("MaxConnectionsUpperLimit", Int(1, i64::MAX), "10000", "Most clients of a server."),
    Parameter::new("MaxConnectionsLowerLimit", Int(1, i64::MAX), "400", "As many clients are served however many servers there are."),
    Parameter::new("K8sServicePollIntervalSecs", Seconds, "30", "Time between looks at how many servers there are."),
    Parameter::new("K8sNamespace", Text, "kube-system", "Namespace of the servers' service."),
    Parameter::new("K8sServiceName", Text, "calico-typha", "Name of that service."),
    Parameter::new("K8sPortName", Text, "calico-typha", "Name of its port."),
];

#[rustfmt::skip] // a table: one row a line
const ABOUT: &[Parameter] = &[
    Parameter::new("LogFilePath", Text, "/var/log/calico/typha.log", "Log file; none for no file.").fatal(),
    Parameter::new("LogSeverityFile", Choice(LEVELS), "Info", "Least severity in the file."),
    Parameter::new("LogSeverityScreen", Choice(LEVELS), "Info", "Least severity on standard output."),
    Parameter::new("LogSeveritySys", Choice(LEVELS), "Info", "Least severity in syslog."),
    Parameter::new("HealthEnabled", Bool, "false", "Serve health and readiness."),
    Parameter::new("HealthHost", Text, "localhost", "Address of the health server."),
    Parameter::new("HealthPort", Int(0, 65_535), "9098", "Port of the health server."),
    Parameter::new("PrometheusMetricsEnabled", Bool, "false", "Serve metrics."),
    Parameter::new("PrometheusMetricsHost", Text, "", "Address of the metrics server; all if empty."),
    Parameter::new("PrometheusMetricsPort", Int(0, 65_535), "9093", "Port of the metrics server."),
    Parameter::new("PrometheusGoMetricsEnabled", Bool, "true", "Metrics of the Go runtime."),
    Parameter::new("PrometheusProcessMetricsEnabled", Bool, "true", "Metrics of the process."),
    Parameter::new("PrometheusMetricsCAFile", Text, "", "CA of the metrics server's clients."),
    Parameter::new("PrometheusMetricsCertFile", Text, "", "Certificate of the metrics server."),
    Parameter::new("PrometheusMetricsKeyFile", Text, "", "Key of the metrics server."),
    Parameter::new("PrometheusMetricsClientAuth", Choice(&["RequireAndVerifyClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "NoClientCert"]), "RequireAndVerifyClientCert", "What clients must show."),
    Parameter::new("DebugHost", Text, "localhost", "Address for profiles."),
    Parameter::new("DebugPort", Int(0, 65_535), "", "Port for profiles; none if not given."),
    Parameter::new("DebugMemoryProfilePath", Text, "", "Where memory profiles go."),
    Parameter::new("DebugDisableLogDropping", Bool, "false", "Wait for slow logs instead of dropping them."),
];
