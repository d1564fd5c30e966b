//! Rules, policies, staged policies, tiers, profiles.

use std::collections::BTreeMap;

use crate::meta::{Cluster, Namespaced, choice, kind, part};
use crate::value::NumOrString;

choice!(
    /// What a rule does with a packet that it matches. The default is the safe one; on the wire
    /// the field is required.
    Action { Deny, Allow, Log, Pass }
);
choice!(
    /// A direction that a policy acts on.
    PolicyType { Ingress, Egress }
);
choice!(
    /// What a staged policy would do to the policy of the same name.
    StagedAction { Set, Delete, Learn, Ignore }
);
choice!(
    /// A hint to the data plane.
    PolicyPerformanceHint { AssumeNeededOnEveryNode }
);
choice!(
    /// What happens at the end of a tier.
    TierAction { Deny, Pass }
);

part!(
    /// One rule: all given fields must match.
    #[schemars(extend("required" = ["action"]))]
    Rule {
        /// What happens on a match.
        action: Action,
        /// Only packets of this IP version, 4 or 6.
        #[schemars(extend("enum" = [4, 6]))]
        ip_version: Option<i32>,
        /// Only this protocol: a name (TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite) or 1 to 255.
        protocol: Option<NumOrString>,
        /// Only this ICMP type and code; the protocol must be ICMP or ICMPv6.
        icmp: Option<ICMPFields>,
        /// Not this protocol.
        not_protocol: Option<NumOrString>,
        /// Not this ICMP type and code.
        #[serde(rename = "notICMP")]
        not_icmp: Option<ICMPFields>,
        /// What the packet's source must be.
        source: EntityRule,
        /// What the packet's destination must be.
        destination: EntityRule,
        /// HTTP match of an ingress Allow rule.
        http: Option<HTTPMatch>,
        /// Annotations of the rule.
        metadata: Option<RuleMetadata>,
    }
);

part!(
    /// ICMP type and code.
    ICMPFields {
        /// Type, 0 to 254.
        #[serde(rename = "type")]
        #[schemars(range(min = 0, max = 254))]
        kind: Option<i32>,
        /// Code, 0 to 255; needs a type.
        #[schemars(range(min = 0, max = 255))]
        code: Option<i32>,
    }
);

part!(
    /// HTTP methods and paths; both must match where both are given.
    HTTPMatch {
        /// Any of these methods.
        #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
        methods: Vec<String>,
        /// Any of these paths.
        #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
        paths: Vec<HTTPPath>,
    }
);

part!(
    /// An HTTP path, whole or the start of it.
    HTTPPath {
        /// The whole path.
        #[schemars(length(max = 1024))]
        exact: Option<String>,
        /// The start of the path.
        #[schemars(length(max = 1024))]
        prefix: Option<String>,
    }
);

part!(
    /// Annotations of a rule.
    RuleMetadata {
        /// Free text by key; shown in the comments of rendered rules.
        annotations: BTreeMap<String, String>,
    }
);

part!(
    /// One side of a rule.
    EntityRule {
        /// Any of these prefixes.
        #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
        nets: Vec<String>,
        /// Endpoints and network sets whose labels match.
        #[schemars(length(max = 1024))]
        selector: String,
        /// Namespaces whose endpoints and network sets match; global() for those in none.
        #[schemars(length(max = 1024))]
        namespace_selector: String,
        /// The endpoints of a Kubernetes service.
        services: Option<ServiceMatch>,
        /// Any of these ports: a number, min:max, or a name.
        #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
        ports: Vec<NumOrString>,
        /// None of these prefixes.
        #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
        not_nets: Vec<String>,
        /// Not the endpoints and network sets whose labels match.
        #[schemars(length(max = 1024))]
        not_selector: String,
        /// None of these ports.
        #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
        not_ports: Vec<NumOrString>,
        /// Pods that run as one of these service accounts.
        service_accounts: Option<ServiceAccountMatch>,
    }
);

part!(
    /// A Kubernetes service.
    ServiceMatch {
        /// Name of the service.
        #[schemars(length(max = 253))]
        name: String,
        /// Its namespace; the policy's own if absent.
        #[schemars(length(max = 253))]
        namespace: String,
    }
);

part!(
    /// Service accounts by name and by label; both must match where both are given.
    ServiceAccountMatch {
        /// Any of these names.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        names: Vec<String>,
        /// Selector over the labels of service accounts.
        #[schemars(length(max = 1024))]
        selector: String,
    }
);

part!(
    /// A policy for the pods of one namespace.
    NetworkPolicySpec {
        /// The tier it stands in.
        tier: String,
        /// Position in the tier, ascending; none comes last.
        order: Option<f64>,
        /// Rules for traffic to the endpoints.
        #[schemars(length(max = 1024))]
        ingress: Vec<Rule>,
        /// Rules for traffic from the endpoints.
        #[schemars(length(max = 1024))]
        egress: Vec<Rule>,
        /// Which endpoints of the namespace it selects.
        #[schemars(length(max = 1024))]
        selector: String,
        /// Directions it acts on.
        #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
        types: Vec<PolicyType>,
        /// Selects endpoints by the labels of their service account as well.
        #[schemars(length(max = 1024))]
        service_account_selector: String,
        /// Hints to the data plane.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        performance_hints: Vec<PolicyPerformanceHint>,
    }
);
kind!(NetworkPolicySpec, NetworkPolicy, "networkpolicies", Namespaced);

part!(
    /// A policy for pods and host endpoints anywhere.
    GlobalNetworkPolicySpec {
        /// The tier it stands in.
        tier: String,
        /// Position in the tier, ascending; none comes last.
        order: Option<f64>,
        /// Rules for traffic to the endpoints.
        #[schemars(length(max = 1024))]
        ingress: Vec<Rule>,
        /// Rules for traffic from the endpoints.
        #[schemars(length(max = 1024))]
        egress: Vec<Rule>,
        /// Which endpoints it selects.
        #[schemars(length(max = 1024))]
        selector: String,
        /// Directions it acts on.
        #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
        types: Vec<PolicyType>,
        /// Acts before connection tracking; host endpoints only.
        do_not_track: bool,
        /// Acts before destination NAT; host endpoints only.
        #[serde(rename = "preDNAT")]
        pre_dnat: bool,
        /// Acts on forwarded traffic of host endpoints as well.
        apply_on_forward: bool,
        /// Selects endpoints by the labels of their service account as well.
        #[schemars(length(max = 1024))]
        service_account_selector: String,
        /// Selects endpoints by the labels of their namespace as well.
        #[schemars(length(max = 1024))]
        namespace_selector: String,
        /// Hints to the data plane.
        #[schemars(extend("x-kubernetes-list-type" = "set"))]
        performance_hints: Vec<PolicyPerformanceHint>,
    }
);
kind!(GlobalNetworkPolicySpec, GlobalNetworkPolicy, "globalnetworkpolicies", Cluster);

part!(
    /// A NetworkPolicy that is only evaluated for flow logs.
    StagedNetworkPolicySpec {
        /// What it would do.
        staged_action: Option<StagedAction>,
        #[serde(flatten)]
        #[allow(missing_docs, reason = "flattened into this kind")]
        policy: NetworkPolicySpec,
    }
);
kind!(StagedNetworkPolicySpec, StagedNetworkPolicy, "stagednetworkpolicies", Namespaced);

part!(
    /// A GlobalNetworkPolicy that is only evaluated for flow logs.
    StagedGlobalNetworkPolicySpec {
        /// What it would do.
        staged_action: Option<StagedAction>,
        #[serde(flatten)]
        #[allow(missing_docs, reason = "flattened into this kind")]
        policy: GlobalNetworkPolicySpec,
    }
);
kind!(
    StagedGlobalNetworkPolicySpec,
    StagedGlobalNetworkPolicy,
    "stagedglobalnetworkpolicies",
    Cluster
);

part!(
    /// A Kubernetes NetworkPolicy that is only evaluated for flow logs. The fields below
    /// `stagedAction` are those of `networking.k8s.io/v1`.
    StagedKubernetesNetworkPolicySpec {
        /// What it would do.
        staged_action: Option<StagedAction>,
        /// Pods that the policy selects.
        pod_selector: Option<serde_json::Map<String, serde_json::Value>>,
        /// Rules for traffic to the pods.
        ingress: Vec<serde_json::Map<String, serde_json::Value>>,
        /// Rules for traffic from the pods.
        egress: Vec<serde_json::Map<String, serde_json::Value>>,
        /// Directions it acts on.
        policy_types: Vec<PolicyType>,
    }
);
kind!(
    StagedKubernetesNetworkPolicySpec,
    StagedKubernetesNetworkPolicy,
    "stagedkubernetesnetworkpolicies",
    Namespaced
);

part!(
    /// An ordered group of policies.
    TierSpec {
        /// Position, ascending; none comes last.
        order: Option<f64>,
        /// What happens to a packet that no policy of the tier decided: Deny or Pass.
        default_action: Option<TierAction>,
    }
);
kind!(TierSpec, Tier, "tiers", Cluster, Conditions);

part!(
    /// Conditions of an object.
    Conditions {
        /// The conditions, one a type.
        #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        conditions: Vec<Condition>,
    }
);

part!(
    /// One condition.
    #[schemars(extend("required" = ["type", "status"]))]
    Condition {
        /// What is said.
        #[serde(rename = "type")]
        kind: String,
        /// True, False or Unknown.
        status: String,
        /// Generation of the object that this was said about.
        observed_generation: Option<i64>,
        /// When `status` last changed.
        last_transition_time: String,
        /// One word for programs.
        reason: String,
        /// A sentence for people.
        message: String,
    }
);

part!(
    /// Fallback rules and labels for the endpoints that list the profile.
    ProfileSpec {
        /// Rules for traffic to the endpoints.
        #[schemars(length(max = 1024))]
        ingress: Vec<Rule>,
        /// Rules for traffic from the endpoints.
        #[schemars(length(max = 1024))]
        egress: Vec<Rule>,
        /// Labels that the endpoints inherit.
        labels_to_apply: BTreeMap<String, String>,
    }
);
kind!(ProfileSpec, Profile, "profiles", Cluster);
