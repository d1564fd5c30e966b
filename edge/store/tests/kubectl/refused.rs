//! A bad value of every kind: plain kubectl is refused, with the field and what was wanted.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cluster::{Cluster, has};

/// Kind, name, spec, and what the refusal must say: the field, then the reason.
const BAD: &[(&str, &str, &str, [&str; 2])] = &[
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

#[tokio::test]
async fn plain_kubectl_is_refused_for_a_bad_value_of_every_kind() {
    let cluster = Cluster::start().await;
    let before = cluster.run("get --raw /apis/projectcalico.org/v3/tiers", "").await;
    let mut wrong = Vec::new();
    for (kind, name, spec, words) in BAD {
        let version = match *kind {
            "Installation" => "operator.tigera.io/v1",
            "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
            _ => "projectcalico.org/v3",
        };
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        for verb in ["create -f -", "apply -f -", "apply --server-side -f -"] {
            let refused = cluster.fail(verb, &text).await;
            if !words.iter().all(|word| refused.contains(word)) {
                wrong.push(format!("{verb}, {words:?} of\n{text}said\n{refused}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = cluster.run("get --raw /apis/projectcalico.org/v3/tiers", "").await;
    assert_eq!(before, after, "nothing was written");
    // A kind that is new must be tried, too.
    let tried: BTreeSet<String> = BAD.iter().map(|(kind, ..)| (*kind).to_owned()).collect();
    for group in
        ["projectcalico.org/v3", "operator.tigera.io/v1", "policy.networking.k8s.io/v1alpha2"]
    {
        let served = cluster.run(&format!("get --raw /apis/{group}"), "").await;
        let served: serde_json::Value = serde_json::from_str(&served).unwrap();
        for resource in served["resources"].as_array().unwrap() {
            let kind = resource["kind"].as_str().unwrap();
            assert!(tried.contains(kind), "{kind} is not tried");
        }
    }
    cluster.stop();
}

#[tokio::test]
async fn every_error_is_told_at_once() {
    let cluster = Cluster::start().await;
    let bad = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"selector": "a ==", "tier": "none", "types": ["Up"], "ingress": [
            {"action": "Maybe"}, {"action": "Allow", "protocol": "TCP", "destination": {"ports": [0, "9:3"]}}]}});
    let refused = cluster.fail("create -f -", &bad.to_string()).await;
    has(
        &refused,
        &[
            "spec.selector",
            "spec.types[0]",
            "spec.ingress[0].action",
            "spec.ingress[1].destination.ports[0]",
            "spec.ingress[1].destination.ports[1]",
        ],
    );
    cluster.stop();
}
