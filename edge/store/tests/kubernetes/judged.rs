//! What the CustomResourceDefinitions let through, judged by the API server of Kubernetes, beside our own checks: a
//! definition is never stricter, and where it is weaker there is a reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::Kind;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::bad::{self, BAD};
use crate::sides::real;

/// Rows of [`BAD`] that a definition does not refuse: kind, a part of the spec, why.
const HAND_ONLY: &[(&str, &str, &str)] = &[
    ("NetworkPolicy", "a == '", GRAMMAR),
    ("NetworkPolicy", "protocol: ICMP", COST),
    ("GlobalNetworkPolicy", "'fd00::/8'", COST),
    ("StagedNetworkPolicy", "stagedAction: Delete", COST),
    ("StagedGlobalNetworkPolicy", "has(", GRAMMAR),
    ("NetworkSet", "10.0.0.0/33", GRAMMAR),
    ("GlobalNetworkSet", "somewhere", GRAMMAR),
    ("HostEndpoint", "{interfaceName: eth0}", PRESENCE),
    ("IPPool", "10.0.0.1/16", GRAMMAR),
    ("IPPool", "blockSize: 33", GRAMMAR),
    ("IPReservation", "[x]", GRAMMAR),
    ("BlockAffinity", "state: maybe", STATES),
    ("BGPConfiguration", "'1:x'", GRAMMAR),
    ("BGPPeer", "nowhere", GRAMMAR),
    ("BGPFilter", "action: Accept", PRESENCE),
    ("CalicoNodeStatus", "[BGP, BGP]", PRESENCE),
];
const GRAMMAR: &str = "needs a parser of selectors, prefixes, addresses or communities";
const COST: &str =
    "not written yet: a rule over lists without bounds may cost more than the server allows";
const PRESENCE: &str = "not written yet: depends on other fields or items";
const STATES: &str = "written by address management only, which knows its states";

#[test]
fn bad_values_are_refused_or_listed() {
    let side = real();
    let mut wrong = String::new();
    for (kind, name, spec, _) in BAD {
        if matches!(*kind, "Node" | "WorkloadEndpoint" | "Profile") {
            continue; // views: no definition
        }
        let said = side.ask("create --dry-run=server -f -", &bad::object(kind, name, spec));
        let reason = HAND_ONLY.iter().find(|(k, part, _)| k == kind && spec.contains(part));
        if said.success != reason.is_some() {
            writeln!(wrong, "{kind} {name} {spec}: {reason:?}, {}{}", said.out, said.err).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A good spec of every kind that has a definition; the changes start from it.
const GOOD: &[(&str, &str)] = &[
    (
        "NetworkPolicy",
        r#"{"tier": "default", "order": 1.5, "selector": "a == 'b'", "serviceAccountSelector": "x == 'y'", "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Allow", "protocol": "TCP", "ipVersion": 4, "metadata": {"annotations": {"a": "b"}},
              "source": {"selector": "has(c)", "nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"], "ports": [80, "81:82", "web"]},
              "destination": {"ports": [1], "namespaceSelector": "all()"}, "http": {"methods": ["GET"], "paths": [{"exact": "/"}]}},
              {"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}}],
            "egress": [{"action": "Pass", "protocol": 17, "notProtocol": "SCTP"}], "performanceHints": ["AssumeNeededOnEveryNode"]}"#,
    ),
    (
        "GlobalNetworkPolicy",
        r#"{"order": 1, "selector": "all()", "namespaceSelector": "a == 'b'", "applyOnForward": true, "preDNAT": true, "doNotTrack": false,
            "types": ["Ingress"], "ingress": [{"action": "Log"}, {"action": "Deny", "source": {"notSelector": "has(x)"}}]}"#,
    ),
    (
        "StagedNetworkPolicy",
        r#"{"stagedAction": "Set", "selector": "all()", "types": ["Ingress"]}"#,
    ),
    (
        "StagedGlobalNetworkPolicy",
        r#"{"stagedAction": "Learn", "selector": "all()", "doNotTrack": true, "applyOnForward": true}"#,
    ),
    (
        "StagedKubernetesNetworkPolicy",
        r#"{"stagedAction": "Ignore", "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]}"#,
    ),
    ("Tier", r#"{"order": 5, "defaultAction": "Pass"}"#),
    ("NetworkSet", r#"{"nets": ["10.0.0.0/8", "fd00::/64"]}"#),
    ("GlobalNetworkSet", r#"{"nets": ["10.0.0.1"]}"#),
    (
        "HostEndpoint",
        r#"{"node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1"], "profiles": ["p"], "ports": [{"name": "a", "protocol": "TCP", "port": 80}]}"#,
    ),
    (
        "IPPool",
        r#"{"cidr": "10.0.0.0/16", "vxlanMode": "CrossSubnet", "ipipMode": "Never", "natOutgoing": true, "disabled": false, "blockSize": 26,
            "nodeSelector": "all()", "allowedUses": ["Workload"], "assignmentMode": "Manual", "disableBGPExport": true}"#,
    ),
    ("IPReservation", r#"{"reservedCIDRs": ["10.0.0.0/30"]}"#),
    (
        "IPAMConfiguration",
        r#"{"strictAffinity": true, "maxBlocksPerHost": 4, "autoAllocateBlocks": true}"#,
    ),
    (
        "IPAMBlock",
        r#"{"cidr": "10.0.0.0/30", "affinity": "host:n", "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
            "attributes": [{"handle_id": "h", "secondary": {"node": "n"}}], "sequenceNumber": 1, "sequenceNumberForAllocation": {"0": 1},
            "deleted": false, "strictAffinity": false}"#,
    ),
    ("IPAMHandle", r#"{"handleID": "h", "block": {"10.0.0.0/30": 1}, "deleted": false}"#),
    (
        "BlockAffinity",
        r#"{"state": "confirmed", "node": "n", "type": "host", "cidr": "10.0.0.0/26", "deleted": false}"#,
    ),
    (
        "BGPConfiguration",
        r#"{"logSeverityScreen": "Info", "nodeToNodeMeshEnabled": true, "asNumber": 64512, "listenPort": 179,
            "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}], "communities": [{"name": "c", "value": "1:2"}],
            "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["c"]}]}"#,
    ),
    ("BGPPeer", r#"{"peerIP": "10.0.0.1", "asNumber": 64512, "keepOriginalNextHop": true}"#),
    (
        "BGPFilter",
        r#"{"exportV4": [{"action": "Accept", "matchOperator": "In", "cidr": "10.0.0.0/8"}], "importV6": [{"action": "Reject", "matchOperator": "NotEqual", "cidr": "fd00::/8"}]}"#,
    ),
    (
        "FelixConfiguration",
        r#"{"logSeverityScreen": "Debug", "vxlanPort": 4789, "vxlanEnabled": true, "failsafeInboundHostPorts": [{"protocol": "tcp", "port": 22}],
            "routeRefreshInterval": "60s", "defaultEndpointToHostAction": "Accept", "natPortRange": "1000:2000"}"#,
    ),
    (
        "KubeControllersConfiguration",
        r#"{"logSeverityScreen": "Info", "healthChecks": "Enabled", "controllers": {"node": {"reconcilerPeriod": "5m"}}}"#,
    ),
    ("ClusterInformation", r#"{"clusterGUID": "g", "datastoreReady": true}"#),
    (
        "CalicoNodeStatus",
        r#"{"node": "n", "classes": ["Agent", "BGP"], "updatePeriodSeconds": 10}"#,
    ),
];

/// The object of a kind with this spec, named as its kind wants it.
fn object(kind: &Kind, spec: Value) -> Value {
    let single = ["IPAMConfiguration", "KubeControllersConfiguration", "ClusterInformation"];
    let name = if single.contains(&kind.kind) { "default" } else { "judged" };
    let mut metadata = json!({"name": name});
    if kind.namespaced {
        metadata["namespace"] = "default".into();
    }
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata, "spec": spec})
}

/// Every change of one place in a spec: paths and what is put there.
fn changes(spec: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    places(spec, "", &mut found);
    let others = [
        json!(-1),
        json!(0),
        json!(1),
        json!(33),
        json!(129),
        json!(256),
        json!(70_000),
        json!(5_000_000_000_i64),
        json!(1.5),
        json!(true),
        json!(false),
        json!(""),
        json!("text"),
        json!("Allow"),
        json!("all()"),
        json!("10.0.0.0/8"),
        json!("fd00::/8"),
        json!("!bad("),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!(["text"]),
        json!(["text", "text"]),
        json!([1]),
        json!({"text": "text"}),
        json!([{}]),
    ];
    let mut made = Vec::new();
    for place in found {
        for other in &others {
            let mut changed = spec.clone();
            *changed.pointer_mut(&place).unwrap() = other.clone();
            made.push((format!("{place} = {other}"), changed));
        }
        let (parent, last) = place.rsplit_once('/').unwrap();
        let mut changed = spec.clone();
        match changed.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.remove(last)),
            Value::Array(items) => drop(items.remove(last.parse().unwrap())),
            _ => continue,
        }
        made.push((format!("{place} removed"), changed));
    }
    made
}

fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = format!("{at}/{}", escaped(key));
                found.push(path.clone());
                places(inner, &path, found);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                let path = format!("{at}/{i}");
                found.push(path.clone());
                places(inner, &path, found);
            }
        }
        _ => (),
    }
}

/// What the API server says to an object that it does not keep: none if it would take it.
async fn judge(client: &kube::Client, kind: &Kind, object: &Value) -> Option<String> {
    let namespace = if kind.namespaced { "/namespaces/default" } else { "" };
    let path = format!("/apis/{}{namespace}/{}?dryRun=All", kind.api_version(), kind.plural);
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(other) => panic!("{}: {other}", kind.kind),
    }
}

#[tokio::test]
async fn a_definition_is_never_stricter_than_our_checks() {
    let kubeconfig = Kubeconfig::read_from(crate::plane().kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let (mut wrong, mut judged) = (String::new(), 0);
    let mut weaker: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, spec) in GOOD {
        let kind = api::lookup("projectcalico.org/v3", kind).unwrap();
        let good: Value =
            serde_json::from_str(spec).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
        let unchanged = object(kind, good.clone());
        let ours = kind.validate(&unchanged, None);
        let theirs = judge(&client, kind, &unchanged).await;
        if !ours.is_empty() || theirs.is_some() {
            writeln!(wrong, "{} is not good: {ours:?} {theirs:?}", kind.kind).unwrap();
            continue;
        }
        for (change, spec) in changes(&good) {
            let changed = object(kind, spec);
            let ours = kind.validate(&changed, None);
            let theirs = judge(&client, kind, &changed).await;
            judged += 1;
            match (ours.is_empty(), theirs) {
                (true, Some(why)) => writeln!(wrong, "{} {change}: {why}", kind.kind).unwrap(),
                (false, None) => *weaker.entry(kind.kind).or_default() += 1,
                _ => (),
            }
        }
    }
    assert!(wrong.is_empty(), "stricter than our checks ({judged} judged):\n{wrong}");
    assert!(judged > 3_000, "only {judged}");
    assert!(!weaker.contains_key("Tier"), "a tier's rules all fit into its definition: {weaker:?}");
}
