//! Variables of the node's image: of the agent's process, and what upstream's start-up reads.

use api::v3::felix::Kind::{Choice, Cidrs, Duration, Flag, Int, Secret, Text};
use api::v3::felix::Parameter;

use super::Group;

const ENCAPSULATION: &[&str] = &["Never", "Always", "CrossSubnet", "Off", "Cross-Subnet"];

pub(super) const GROUPS: &[Group] = &[
    Group { title: "The process", rows: PROCESS },
    Group { title: "The datastore", rows: DATASTORE },
    Group { title: "The node's own addresses", rows: ADDRESSES },
    Group { title: "The first address pools", rows: POOLS },
    Group { title: "Of upstream's image, and read by nothing yet", rows: OTHERS },
];

#[rustfmt::skip] // a table: one row a line
const PROCESS: &[Parameter] = &[
    Parameter::new("NODENAME", Text, "", "The node's name in the cluster, taken in lower case. Without it `FelixHostname`, then `HOSTNAME`, then the host's name.").restart(),
    Parameter::new("HOSTNAME", Text, "", "The node's name where `NODENAME` does not say it.").restart(),
    Parameter::new("CALICO_K8S_NODE_REF", Text, "", "What Kubernetes calls the node, for a datastore that is not Kubernetes.").restart(),
    Parameter::new("CALICO_RUN_DIR", Text, "/var/run/calico", "Folder of the sockets of the CNI plugin and of `calicoctl node status`.").restart(),
    Parameter::new("CALICO_LIB_DIR", Text, "/var/lib/calico", "Folder of files for other programs (`nodename`), and of what is needed to go back from a change that is not confirmed.").restart(),
    Parameter::new("CALICO_STARTUP_LOGLEVEL", Text, "info", "What is logged until the cluster's configuration is known, and where that says nothing: a level, or a filter such as `info,syncer=debug`. `LogSeverityScreen` goes first.").restart(),
    Parameter::new("CALICO_LOG_FORMAT", Choice(&["text", "json"]), "text", "The form of log lines.").restart(),
    Parameter::new("CLUSTER_TYPE", Text, "k8s", "Noted in ClusterInformation `default` when the agent creates it; one that is there is left alone.").restart(),
    Parameter::new("CNI_MTU", Int(0, 4_294_967_295), "0", "The MTU of pods whose network configuration gives none; 0 to learn it.").fatal().restart(),
    Parameter::new("CALICO_CUT_FLOWS", Choice(&["auto", "on", "off"]), "", "Whether established flows are cut that policy denies now. Goes before the annotation `projectcalico.org/cut-flows` of the FelixConfigurations `node.NAME` and `default`, which takes effect at once; without either it is `auto`.").restart(),
];

#[rustfmt::skip] // a table: one row a line
const DATASTORE: &[Parameter] = &[
    Parameter::new("KUBECONFIG", Text, "", "How the Kubernetes API is reached. Without it `~/.kube/config` if there is one, then the service account of the pod.").restart(),
    Parameter::new("DATASTORE_TYPE", Choice(&["kubernetes", "etcdv3"]), "", "Kind of datastore; goes before `DatastoreType`. Without either it is `etcdv3` if something says where etcd is, else `kubernetes`.").fatal().restart(),
    Parameter::new("CALICO_API_GROUP", Choice(&["crd.projectcalico.org/v1", "projectcalico.org/v3"]), "", "In which form the cluster keeps Calico's kinds. Found out if it is not given.").fatal().restart(),
    Parameter::new("ETCD_ENDPOINTS", Text, "", "URLs of etcd's members, comma-separated; goes before `EtcdEndpoints`.").restart(),
    Parameter::new("ETCD_USERNAME", Text, "", "The name to log in with.").restart(),
    Parameter::new("ETCD_PASSWORD", Secret, "", "The password to log in with.").restart(),
    Parameter::new("ETCD_PASSWORD_FILE", Text, "", "File with the password, which may change; `ETCD_PASSWORD` goes first.").restart(),
    Parameter::new("ETCD_CA_CERT_FILE", Text, "", "File with the authorities of the members' certificates; goes before `EtcdCaFile`.").restart(),
    Parameter::new("ETCD_CERT_FILE", Text, "", "File with our certificate; goes before `EtcdCertFile`.").restart(),
    Parameter::new("ETCD_KEY_FILE", Text, "", "File with its key; goes before `EtcdKeyFile`.").restart(),
];

#[rustfmt::skip] // a table: one row a line
const ADDRESSES: &[Parameter] = &[
    Parameter::new("IP", Text, "autodetect", "The node's IPv4 address: `autodetect`, `none`, or the address with or without its prefix length.").restart(),
    Parameter::new("IP6", Text, "none", "The node's IPv6 address, as `IP`.").restart(),
    Parameter::new("IP_AUTODETECTION_METHOD", Text, "first-found", "How the IPv4 address is looked for: a method, see below.").restart(),
    Parameter::new("IP6_AUTODETECTION_METHOD", Text, "first-found", "How the IPv6 address is looked for, if `IP6` is `autodetect`.").restart(),
    Parameter::new("DISABLE_NODE_IP_CHECK", Flag, "false", "Do not refuse an address that another node has.").fatal().restart(),
];

#[rustfmt::skip] // a table: one row a line
const POOLS: &[Parameter] = &[
    Parameter::new("NO_DEFAULT_POOLS", Flag, "false", "Create none.").fatal().restart(),
    Parameter::new("CALICO_IPV4POOL_CIDR", Cidrs, "192.168.0.0/16", "One prefix, or `none` for no pool.").fatal().restart(),
    Parameter::new("CALICO_IPV4POOL_VXLAN", Choice(ENCAPSULATION), "Never", "When packets between nodes take VXLAN.").fatal().restart(),
    Parameter::new("CALICO_IPV4POOL_IPIP", Choice(ENCAPSULATION), "", "When packets between nodes take IP-in-IP. Without it `Always`, or `Never` if VXLAN is used.").fatal().restart(),
    Parameter::new("CALICO_IPV4POOL_BLOCK_SIZE", Int(20, 32), "26", "Prefix length of the blocks that nodes take.").fatal().restart(),
    Parameter::new("CALICO_IPV4POOL_NAT_OUTGOING", Flag, "true", "Translate the source of what leaves the cluster.").fatal().restart(),
    Parameter::new("CALICO_IPV4POOL_NODE_SELECTOR", Text, "all()", "Nodes that may take blocks.").restart(),
    Parameter::new("CALICO_IPV4POOL_DISABLE_BGP_EXPORT", Flag, "false", "Do not tell BGP peers.").fatal().restart(),
    Parameter::new("CALICO_IPV6POOL_CIDR", Cidrs, "", "One prefix, or `none` for no pool, as is the default.").fatal().restart(),
    Parameter::new("CALICO_IPV6POOL_VXLAN", Choice(ENCAPSULATION), "Never", "When packets between nodes take VXLAN.").fatal().restart(),
    Parameter::new("CALICO_IPV6POOL_IPIP", Choice(ENCAPSULATION), "Never", "When packets between nodes take IP-in-IP.").fatal().restart(),
    Parameter::new("CALICO_IPV6POOL_BLOCK_SIZE", Int(116, 128), "122", "Prefix length of the blocks that nodes take.").fatal().restart(),
    Parameter::new("CALICO_IPV6POOL_NAT_OUTGOING", Flag, "false", "Translate the source of what leaves the cluster.").fatal().restart(),
    Parameter::new("CALICO_IPV6POOL_NODE_SELECTOR", Text, "all()", "Nodes that may take blocks.").restart(),
    Parameter::new("CALICO_IPV6POOL_DISABLE_BGP_EXPORT", Flag, "false", "Do not tell BGP peers.").fatal().restart(),
];

#[rustfmt::skip] // a table: one row a line
const OTHERS: &[Parameter] = &[
    Parameter::new("CALICO_NETWORKING_BACKEND", Choice(&["bird", "vxlan", "none"]), "bird", "Whether BGP runs beside the agent."),
    Parameter::new("AS", Int(0, 4_294_967_295), "", "AS number of the node."),
    Parameter::new("WAIT_FOR_DATASTORE", Flag, "false", "Wait for the datastore at the start. The agent always does."),
    Parameter::new("AUTODETECT_POLL_INTERVAL", Duration, "60s", "Time between looks at the node's own addresses."),
    Parameter::new("CALICO_MANAGE_CNI", Flag, "false", "Keep the CNI plugin's token fresh. Our plugin has none: it asks the agent."),
    Parameter::new("CALICO_DISABLE_FELIX", Flag, "false", "Start everything but the agent."),
    Parameter::new("CALICO_DISABLE_FILE_LOGGING", Flag, "true", "Write no log files below `/var/log/calico`."),
    Parameter::new("CALICO_EARLY_NETWORKING", Text, "", "File that says which addresses and AS number the node has before Kubernetes runs."),
    Parameter::new("USE_POD_CIDR", Flag, "false", "Take addresses from the pod CIDR of the Kubernetes Node."),
    Parameter::new("NODE_USER_ID", Int(0, 4_294_967_295), "", "User who owns the folders of the node's image."),
];
