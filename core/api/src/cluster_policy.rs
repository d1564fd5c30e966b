//! `policy.networking.k8s.io/v1alpha2`: what administrators say above and below all other policies.

use std::collections::BTreeMap;

use crate::meta::{Cluster, Object, Spec, part};
use crate::v3::policy::Conditions;

/// A policy of the whole cluster, of one of two tiers.
pub type ClusterNetworkPolicy = Object<ClusterNetworkPolicySpec>;

part!(
    /// Rules for the pods that the subject selects, before all other policies (tier Admin) or after
    /// them (tier Baseline).
    #[schemars(extend("required" = ["tier", "priority", "subject"]))]
    ClusterNetworkPolicySpec {
        /// Admin or Baseline.
        #[schemars(extend("enum" = ["Admin", "Baseline"]))]
        tier: String,
        /// Position in the tier, ascending.
        #[schemars(range(min = 0, max = 1000))]
        priority: Option<i32>,
        /// Which pods it is about: one of the fields.
        #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
        subject: PodPeer,
        /// Rules for traffic to the pods.
        #[schemars(length(max = 25))]
        ingress: Vec<IngressRule>,
        /// Rules for traffic from the pods.
        #[schemars(length(max = 25))]
        egress: Vec<EgressRule>,
    }
);

impl Spec for ClusterNetworkPolicySpec {
    const GROUP: &'static str = "policy.networking.k8s.io";
    const VERSION: &'static str = "v1alpha2";
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const PLURAL: &'static str = "clusternetworkpolicies";
    type Scope = Cluster;
    type Status = Conditions;
}

part!(
    /// Pods: exactly one of the fields.
    PodPeer {
        /// All pods of these namespaces.
        namespaces: Option<Labels>,
        /// Some pods of some namespaces.
        pods: Option<NamespacedPods>,
    }
);

part!(
    /// Pods with these labels in namespaces with those.
    #[schemars(extend("required" = ["podSelector"]))]
    NamespacedPods {
        /// The namespaces; all if it is empty.
        namespace_selector: Option<Labels>,
        /// The pods; all if it is empty.
        pod_selector: Option<Labels>,
    }
);

part!(
    /// Conditions on labels: all must hold.
    Labels {
        /// Keys and their values.
        match_labels: BTreeMap<String, String>,
        /// Other conditions.
        match_expressions: Vec<Requirement>,
    }
);

part!(
    /// A condition on one label.
    #[schemars(extend("required" = ["key", "operator"]))]
    Requirement {
        /// The label's key.
        key: String,
        /// In, NotIn, Exists or DoesNotExist.
        #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
        operator: String,
        /// Values, for In and NotIn.
        values: Vec<String>,
    }
);

part!(
    /// What happens to some traffic to the pods.
    #[schemars(extend("required" = ["action", "from"]))]
    IngressRule {
        /// For people.
        #[schemars(length(max = 100))]
        name: String,
        /// Accept, Deny, or Pass to the next tier.
        #[schemars(extend("enum" = ["Accept", "Deny", "Pass"]))]
        action: String,
        /// Where the traffic is from: any of them.
        #[schemars(length(min = 1, max = 25))]
        from: Vec<PodPeer>,
        /// Protocols and ports: any of them; all if there are none.
        #[schemars(length(max = 25))]
        protocols: Vec<ProtocolMatch>,
    }
);

part!(
    /// What happens to some traffic from the pods.
    #[schemars(extend("required" = ["action", "to"]))]
    EgressRule {
        /// For people.
        #[schemars(length(max = 100))]
        name: String,
        /// Accept, Deny, or Pass to the next tier.
        #[schemars(extend("enum" = ["Accept", "Deny", "Pass"]))]
        action: String,
        /// Where the traffic goes: any of them.
        #[schemars(length(min = 1, max = 25))]
        to: Vec<EgressPeer>,
        /// Protocols and ports: any of them; all if there are none.
        #[schemars(length(max = 25))]
        protocols: Vec<ProtocolMatch>,
    }
);

part!(
    /// A destination: exactly one of the fields.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    EgressPeer {
        /// All pods of these namespaces.
        namespaces: Option<Labels>,
        /// Some pods of some namespaces.
        pods: Option<NamespacedPods>,
        /// Nodes with these labels; not supported.
        nodes: Option<Labels>,
        /// Prefixes.
        #[schemars(length(max = 25))]
        networks: Vec<String>,
        /// Names of hosts; not supported.
        #[schemars(length(max = 25))]
        domain_names: Vec<String>,
    }
);

part!(
    /// A protocol and its ports: exactly one of the fields.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    ProtocolMatch {
        /// TCP.
        tcp: Option<PortMatch>,
        /// UDP.
        udp: Option<PortMatch>,
        /// SCTP.
        sctp: Option<PortMatch>,
        /// A port of the destination pods, by its name.
        destination_named_port: String,
    }
);

part!(
    /// Ports of a protocol.
    PortMatch {
        /// Destination ports; all if there is none.
        destination_port: Option<PortNumbers>,
    }
);

part!(
    /// Port numbers: exactly one of the fields.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    PortNumbers {
        /// A port.
        #[schemars(range(min = 1, max = 65535))]
        number: Option<i32>,
        /// Several.
        range: Option<PortSpan>,
    }
);

part!(
    /// A range of ports, both ends included.
    #[schemars(extend("required" = ["start", "end"]))]
    PortSpan {
        /// The lowest.
        #[schemars(range(min = 1, max = 65535))]
        start: Option<i32>,
        /// The highest.
        #[schemars(range(min = 1, max = 65535))]
        end: Option<i32>,
    }
);
