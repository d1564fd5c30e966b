//! A bad value of every kind.

/// Kind, name, spec, and what the refusal must say: the field, then the reason.
pub(crate) const BAD: &[(&str, &str, &str, [&str; 2])] = &[
    ("NetworkPolicy", "p", "{selector: 'a == '}", ["spec.selector", "expected"]),
    (
        "NetworkPolicy",
        "p",
        "{types: [Ingress], ingress: [{action: Allow, protocol: ICMP, destination: {ports: [80]}}]}",
        ["spec.ingress[0].destination.ports", "TCP, UDP or SCTP"],
    ),
    (
        "GlobalNetworkPolicy",
        "p",
        "{ingress: [{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8']}}]}",
        ["spec.ingress[0]", "IP version"],
    ),
    (
        "GlobalNetworkPolicy",
        "p",
        "{ingress: [{action: Maybe}]}",
        ["spec.ingress[0].action", "Allow"],
    ),
    (
        "GlobalNetworkPolicy",
        "p",
        "{doNotTrack: true, preDNAT: true, applyOnForward: true}",
        ["preDNAT", "doNotTrack"],
    ),
    ("StagedNetworkPolicy", "p", "{stagedAction: Delete, selector: all()}", ["spec", "Delete"]),
    ("StagedGlobalNetworkPolicy", "p", "{selector: 'has('}", ["spec.selector", "expected"]),
    (
        "StagedKubernetesNetworkPolicy",
        "p",
        "{policyTypes: [Sideways]}",
        ["spec.policyTypes[0]", "Ingress"],
    ),
    ("Tier", "a.b", "{order: 5}", ["metadata.name", "a.b"]),
    ("Tier", "t", "{defaultAction: Allow}", ["spec.defaultAction", "Deny"]),
    ("Profile", "p", "{egress: [{action: Pss}]}", ["spec.egress[0].action", "Allow"]),
    ("NetworkSet", "s", "{nets: [10.0.0.0/33]}", ["spec.nets[0]", "no prefix"]),
    ("GlobalNetworkSet", "s", "{nets: [somewhere]}", ["spec.nets[0]", "no prefix"]),
    ("HostEndpoint", "h", "{interfaceName: eth0}", ["spec.node", "required"]),
    (
        "HostEndpoint",
        "h",
        "{node: node-1, interfaceName: an-interface-too-long}",
        ["spec.interfaceName", "15"],
    ),
    ("IPPool", "i", "{cidr: 10.0.0.1/16}", ["spec.cidr", "10.0.0.0/16"]),
    (
        "IPPool",
        "i",
        "{cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: Always}",
        ["spec.vxlanMode", "beside ipipMode"],
    ),
    ("IPPool", "i", "{cidr: 10.0.0.0/16, blockSize: 33}", ["spec.blockSize", "20 to 32"]),
    ("IPReservation", "r", "{reservedCIDRs: [x]}", ["spec.reservedCIDRs[0]", "no prefix"]),
    ("IPAMConfiguration", "default", "{maxBlocksPerHost: -1}", ["spec.maxBlocksPerHost", "0"]),
    ("IPAMBlock", "b", "{cidr: x}", ["spec.cidr", "no prefix"]),
    ("IPAMHandle", "h", "{block: {x: 1}}", ["spec.handleID: Required", "spec.block[x]"]),
    (
        "BlockAffinity",
        "b",
        "{state: maybe, node: node-1, cidr: 10.0.0.0/26}",
        ["spec.state", "confirmed"],
    ),
    (
        "BGPConfiguration",
        "default",
        "{communities: [{name: c, value: '1:x'}]}",
        ["spec.communities[0].value", "no community"],
    ),
    (
        "BGPConfiguration",
        "default",
        "{listenPort: 0}",
        ["spec.listenPort", "greater than or equal to 1"],
    ),
    ("BGPPeer", "p", "{peerIP: nowhere, asNumber: 1}", ["spec.peerIP", "no peer address"]),
    (
        "BGPFilter",
        "f",
        "{importV4: [{cidr: 10.0.0.0/8, action: Accept}]}",
        ["spec.importV4[0].matchOperator", "required"],
    ),
    (
        "FelixConfiguration",
        "default",
        "{vxlanPort: 70000}",
        ["spec.vxlanPort", "less than or equal to 65535"],
    ),
    (
        "FelixConfiguration",
        "default",
        "{interfacePrfix: cali}",
        ["spec.interfacePrfix", "unknown field"],
    ),
    ("KubeControllersConfiguration", "other", "{}", ["metadata.name", "default"]),
    ("ClusterInformation", "other", "{}", ["metadata.name", "default"]),
    (
        "CalicoNodeStatus",
        "s",
        "{node: node-1, classes: [BGP, BGP], updatePeriodSeconds: 0}",
        ["spec.classes[1]", "already"],
    ),
    (
        "Node",
        "node-1",
        "{bgp: {ipv4Address: 'fd00::1/64'}}",
        ["spec.bgp.ipv4Address", "IP version"],
    ),
    (
        "Installation",
        "default",
        "{calicoNetwork: {ipPools: [{cidr: 10.0.0.0/16, blockSize: 9}]}}",
        ["spec.calicoNetwork.ipPools[0].blockSize", "or equal to 20"],
    ),
    (
        "ClusterNetworkPolicy",
        "c",
        "{tier: Top, priority: 1, subject: {namespaces: {}}}",
        ["spec.tier", "Admin"],
    ),
    ("WorkloadEndpoint", "w", "{node: node-1}", ["read-only", "pod"]),
];

/// The object of a row, as YAML.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "Installation" => "operator.tigera.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "projectcalico.org/v3",
    };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}
