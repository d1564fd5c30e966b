//! The table of kinds: how each is named, printed, checked and defaulted.

use std::sync::OnceLock;

use serde_json::Value;

use crate::FieldError;
use crate::cluster_policy::ClusterNetworkPolicySpec;
use crate::defaults;
use crate::meta::Spec;
use crate::operator::InstallationSpec;
use crate::schema;
use crate::v3::{
    BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, BlockAffinitySpec, CalicoNodeStatusSpec,
    ClusterInformationSpec, FelixConfigurationSpec, GlobalNetworkPolicySpec, GlobalNetworkSetSpec,
    HostEndpointSpec, IPAMBlockSpec, IPAMConfigurationSpec, IPAMHandleSpec, IPPoolSpec,
    IPReservationSpec, KubeControllersConfigurationSpec, NetworkPolicySpec, NetworkSetSpec,
    NodeSpec, ProfileSpec, StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicySpec,
    StagedNetworkPolicySpec, TierSpec, WorkloadEndpointSpec,
};
use crate::validate::{self, Check};

/// Where the objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Stored as they are.
    Stored,
    /// Views of the core Node and its annotations.
    Node,
    /// Views of Pods.
    Pod,
    /// Views of Namespaces and ServiceAccounts.
    Namespace,
    /// A kind of Kubernetes itself.
    Kubernetes,
}

/// A column of `get`, beside the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// Where the value is: a JSON path below the object, starting with a dot.
    pub path: &'static str,
    /// Shown by `-o wide` only.
    pub wide: bool,
}

/// What the world must know about a kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// API group.
    pub group: &'static str,
    /// Version in the group.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    /// Lower-case kind.
    pub singular: &'static str,
    /// Short names.
    pub short: &'static [&'static str],
    /// More words that calicoctl has always understood; too general to be short names of an API.
    pub words: &'static [&'static str],
    /// In a namespace or cluster-wide.
    pub namespaced: bool,
    /// Has a status subresource.
    pub status: bool,
    /// Where objects live.
    pub source: Source,
    /// Columns of `get`.
    pub columns: &'static [Column],
    schema: fn() -> Value,
    default: fn(&mut Value),
    check: Check,
}

const fn col(name: &'static str, path: &'static str) -> Column {
    Column { name, kind: "string", path, wide: false }
}

const fn wide(name: &'static str, path: &'static str) -> Column {
    Column { name, kind: "string", path, wide: true }
}

const fn kind<S: Spec>(
    singular: &'static str,
    short: &'static [&'static str],
    columns: &'static [Column],
    check: Check,
) -> Kind {
    Kind {
        group: S::GROUP,
        version: S::VERSION,
        kind: S::KIND,
        plural: S::PLURAL,
        singular,
        short,
        words: &[],
        namespaced: false,
        status: false,
        source: Source::Stored,
        columns,
        schema: schema::of::<S>,
        default: defaults::none,
        check,
    }
}

impl Kind {
    const fn namespaced(self) -> Self {
        Self { namespaced: true, ..self }
    }
    const fn words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }
    const fn with_status(self) -> Self {
        Self { status: true, ..self }
    }
    const fn from(self, source: Source) -> Self {
        Self { source, ..self }
    }
    const fn defaulting(self, default: fn(&mut Value)) -> Self {
        Self { default, ..self }
    }

    /// `group/version`.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// The structural schema (OpenAPI v3) of the whole object, without references.
    pub fn schema(&self) -> Value {
        self.shared_schema().clone()
    }

    /// The same, made once.
    pub(crate) fn shared_schema(&self) -> &'static Value {
        static MADE: [OnceLock<Value>; KINDS.len()] = [const { OnceLock::new() }; KINDS.len()];
        let is_self = |k: &Kind| k.group == self.group && k.kind == self.kind;
        let index = KINDS.iter().position(is_self).expect("kinds exist in the table only");
        MADE[index].get_or_init(self.schema)
    }

    /// Fills in what is not given. Never changes what is; null is not given.
    pub fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").filter(|_| self.group == "projectcalico.org") {
            defaults::drop_nulls(spec);
        }
        (self.default)(object);
    }

    /// Every error of an object; none if it is valid. `old` is the object that it replaces.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::object(self, self.check, object, old)
    }

    /// Whether `word` names this kind: plural, singular, kind or short name, in any case, with or
    /// without the group.
    pub fn answers_to(&self, word: &str) -> bool {
        let word = match word.split_once('.') {
            Some((word, group)) if group.eq_ignore_ascii_case(self.group) => word,
            Some(_) => return false,
            None => word,
        };
        word.eq_ignore_ascii_case(self.plural)
            || word.eq_ignore_ascii_case(self.singular)
            || self.short.iter().chain(self.words).any(|s| word.eq_ignore_ascii_case(s))
    }
}

const POLICY: &[Column] = &[
    col("Tier", ".spec.tier"),
    Column { name: "Order", kind: "number", path: ".spec.order", wide: true },
    wide("Selector", ".spec.selector"),
];

use validate::{bgp, endpoint, felix, ipam, policy, rest};

const KINDS: &[Kind] = &[
    kind::<NetworkPolicySpec>(
        "networkpolicy",
        &["cnp", "caliconetworkpolicy", "caliconetworkpolicies"],
        POLICY,
        policy::network_policy,
    )
    .words(&["np", "policy", "policies", "pol", "pols"])
    .namespaced()
    .defaulting(defaults::policy),
    kind::<GlobalNetworkPolicySpec>(
        "globalnetworkpolicy",
        &["gnp", "cgnp", "calicoglobalnetworkpolicies"],
        POLICY,
        policy::global_network_policy,
    )
    .words(&["gnps"])
    .defaulting(defaults::policy),
    kind::<StagedNetworkPolicySpec>(
        "stagednetworkpolicy",
        &["snp"],
        POLICY,
        policy::staged_network_policy,
    )
    .namespaced()
    .defaulting(defaults::staged_policy),
    kind::<StagedGlobalNetworkPolicySpec>(
        "stagedglobalnetworkpolicy",
        &["sgnp"],
        POLICY,
        policy::staged_global_network_policy,
    )
    .defaulting(defaults::staged_policy),
    kind::<StagedKubernetesNetworkPolicySpec>(
        "stagedkubernetesnetworkpolicy",
        &["sknp"],
        &[],
        policy::staged_kubernetes_network_policy,
    )
    .namespaced()
    .defaulting(defaults::staged_kubernetes_policy),
    kind::<TierSpec>(
        "tier",
        &[],
        &[
            Column { name: "Order", kind: "number", path: ".spec.order", wide: false },
            col("DefaultAction", ".spec.defaultAction"),
        ],
        policy::tier,
    )
    .with_status()
    .defaulting(defaults::tier),
    kind::<ProfileSpec>("profile", &[], &[], policy::profile)
        .words(&["pro", "pros"])
        .from(Source::Namespace),
    kind::<NetworkSetSpec>("networkset", &["netset", "netsets"], &[], endpoint::network_set)
        .namespaced(),
    kind::<GlobalNetworkSetSpec>("globalnetworkset", &["gns"], &[], endpoint::global_network_set)
        .words(&["globalnetsets"]),
    kind::<HostEndpointSpec>(
        "hostendpoint",
        &["hep", "heps"],
        &[
            col("Node", ".spec.node"),
            wide("Interface", ".spec.interfaceName"),
            wide("IPs", ".spec.expectedIPs"),
            wide("Profiles", ".spec.profiles"),
        ],
        endpoint::host_endpoint,
    ),
    kind::<WorkloadEndpointSpec>(
        "workloadendpoint",
        &["wep", "weps"],
        &[
            col("Workload", ".spec.pod"),
            col("Node", ".spec.node"),
            col("Networks", ".spec.ipNetworks"),
            col("Interface", ".spec.interfaceName"),
            wide("Profiles", ".spec.profiles"),
        ],
        endpoint::workload_endpoint,
    )
    .namespaced()
    .from(Source::Pod),
    kind::<IPPoolSpec>(
        "ippool",
        &["ipp", "ipps", "pool", "pools"],
        &[
            col("CIDR", ".spec.cidr"),
            col("Selector", ".spec.nodeSelector"),
            wide("NAT", ".spec.natOutgoing"),
            wide("IPIPMode", ".spec.ipipMode"),
            wide("VXLANMode", ".spec.vxlanMode"),
            wide("Disabled", ".spec.disabled"),
            wide("DisableBGPExport", ".spec.disableBGPExport"),
            wide("AssignmentMode", ".spec.assignmentMode"),
        ],
        ipam::pool,
    )
    .with_status()
    .defaulting(defaults::pool),
    kind::<IPReservationSpec>(
        "ipreservation",
        &[],
        &[col("CIDRs", ".spec.reservedCIDRs")],
        ipam::reservation,
    )
    .words(&["reservation", "reservations"]),
    kind::<IPAMConfigurationSpec>(
        "ipamconfiguration",
        &["ipamconfig"],
        &[
            col("StrictAffinity", ".spec.strictAffinity"),
            col("AutoAllocateBlocks", ".spec.autoAllocateBlocks"),
            col("MaxBlocksPerHost", ".spec.maxBlocksPerHost"),
        ],
        ipam::configuration,
    )
    .words(&["ipamconfigs"])
    .defaulting(defaults::ipam_configuration),
    kind::<IPAMBlockSpec>(
        "ipamblock",
        &[],
        &[col("CIDR", ".spec.cidr"), col("Affinity", ".spec.affinity")],
        ipam::block,
    ),
    kind::<IPAMHandleSpec>("ipamhandle", &[], &[col("HandleID", ".spec.handleID")], ipam::handle),
    kind::<BlockAffinitySpec>(
        "blockaffinity",
        &["affinity", "affinities"],
        &[
            col("CIDR", ".spec.cidr"),
            col("Node", ".spec.node"),
            col("Type", ".spec.type"),
            col("State", ".spec.state"),
        ],
        ipam::affinity,
    ),
    kind::<BGPConfigurationSpec>(
        "bgpconfiguration",
        &["bgpconfig", "bgpconfigs"],
        &[
            col("LogSeverity", ".spec.logSeverityScreen"),
            col("MeshEnabled", ".spec.nodeToNodeMeshEnabled"),
            col("ASNumber", ".spec.asNumber"),
        ],
        bgp::configuration,
    ),
    kind::<BGPPeerSpec>(
        "bgppeer",
        &[],
        &[
            col("PeerIP", ".spec.peerIP"),
            col("Node", ".spec.node"),
            col("ASN", ".spec.asNumber"),
            wide("NodeSelector", ".spec.nodeSelector"),
            wide("PeerSelector", ".spec.peerSelector"),
        ],
        bgp::peer,
    )
    .words(&["bgpp", "bgpps", "bp", "bps"]),
    kind::<BGPFilterSpec>("bgpfilter", &[], &[], bgp::filter),
    kind::<FelixConfigurationSpec>(
        "felixconfiguration",
        &["felixconfig", "felixconfigs"],
        &[col("LogSeverity", ".spec.logSeverityScreen")],
        felix::configuration,
    ),
    kind::<KubeControllersConfigurationSpec>(
        "kubecontrollersconfiguration",
        &["kcc", "kccs"],
        &[],
        rest::controllers,
    )
    .words(&["kubecontrollersconfig", "kubecontrollersconfigs"])
    .with_status(),
    kind::<ClusterInformationSpec>(
        "clusterinformation",
        &["clusterinfo"],
        &[
            col("ClusterGUID", ".spec.clusterGUID"),
            col("ClusterType", ".spec.clusterType"),
            col("CalicoVersion", ".spec.calicoVersion"),
            col("DatastoreReady", ".spec.datastoreReady"),
        ],
        rest::cluster_information,
    )
    .words(&["clusterinfos"]),
    kind::<CalicoNodeStatusSpec>(
        "caliconodestatus",
        &[],
        &[col("Node", ".spec.node"), col("Classes", ".spec.classes")],
        rest::node_status,
    )
    .with_status(),
    kind::<NodeSpec>(
        "node",
        &["no", "nos"],
        &[
            wide("ASN", ".spec.bgp.asNumber"),
            wide("IPv4", ".spec.bgp.ipv4Address"),
            wide("IPv6", ".spec.bgp.ipv6Address"),
        ],
        rest::node,
    )
    .from(Source::Node),
    kind::<ClusterNetworkPolicySpec>(
        "clusternetworkpolicy",
        &[],
        &[
            col("Tier", ".spec.tier"),
            Column { name: "Priority", kind: "integer", path: ".spec.priority", wide: false },
        ],
        policy::cluster_network_policy,
    )
    .with_status(),
    kind::<InstallationSpec>("installation", &[], &[], rest::installation).with_status(),
    Kind {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short: &["netpol", "knp"],
        words: &[],
        namespaced: true,
        status: false,
        source: Source::Kubernetes,
        columns: &[Column {
            name: "Pod-Selector",
            kind: "string",
            path: ".spec.podSelector",
            wide: false,
        }],
        schema: schema::kubernetes_policy,
        default: defaults::kubernetes_policy,
        check: policy::kubernetes_network_policy,
    },
];

/// Every kind.
pub fn kinds() -> &'static [Kind] {
    KINDS
}

/// The kind of an object's `apiVersion` and `kind`.
pub fn lookup(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.split_once('/')?;
    KINDS.iter().find(|k| k.group == group && k.version == version && k.kind == kind)
}

/// The kind that a word on the command line means: plural, singular, short name, with or without
/// the group. Calico's kinds come before those of Kubernetes.
pub fn by_word(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.answers_to(word))
}
