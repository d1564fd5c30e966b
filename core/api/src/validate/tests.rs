//! Table tests of the rules, one row each: a valid object, a change, the field that must be told.

use serde_json::{Value, json};

use crate::yaml::documents;

fn object(text: &str) -> Value {
    documents(text).next().expect("a document").object.expect("well-formed")
}

/// Sets `field` (a JSON pointer) of a valid object and wants an error at `at` that says `part`.
fn check(base: &str, rows: &[(&str, Value, &str, &str)]) {
    let base = object(base);
    assert_eq!(crate::validate(&base, None), [], "the base must be valid");
    for (pointer, value, at, part) in rows {
        let mut changed = base.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = changed.pointer_mut(parent).expect("parent exists");
        match parent {
            Value::Object(map) => drop(map.insert(key.to_string(), value.clone())),
            Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value.clone(),
            _ => panic!("{pointer}"),
        }
        let errors = crate::validate(&changed, None);
        let found = errors.iter().any(|e| e.field == *at && e.message.contains(part));
        assert!(found, "{pointer} = {value}: wanted {at}: ..{part}.., got {errors:#?}");
    }
}

const NP: &str = r"
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec:
  selector: app == 'x'
  ingress:
    - action: Allow
      protocol: TCP
      source: {selector: role == 'y', nets: [10.0.0.0/8]}
      destination: {ports: [80, '90:99', http]}
    - action: Allow
      source: {services: {name: svc}}
  egress:
    - action: Deny
      protocol: ICMP
      icmp: {type: 8, code: 0}
  types: [Ingress, Egress]
";

#[test]
fn network_policies() {
    let rule = "/spec/ingress/0";
    let at = |p: &str| format!("{rule}{p}");
    check(
        NP,
        &[
            ("/metadata/name", json!("UPPER"), "metadata.name", "want at most"),
            ("/metadata/name", json!("a.b.c"), "metadata.name", "3 parts"),
            ("/metadata/namespace", json!("a.b"), "metadata.namespace", "want at most 63"),
            ("/metadata/labels", json!({"a b": "c"}), "metadata.labels[a b]", "no label key"),
            ("/metadata/labels", json!({"a": 1}), "metadata.labels[a]", "put it in quotes"),
            ("/metadata/nmae", json!("x"), "metadata.nmae", "no field"),
            ("/spec/selector", json!("app = 'x'"), "spec.selector", "at byte"),
            ("/spec/selctor", json!("x"), "spec.selctor", "did you mean selector?"),
            ("/spec/tier", json!("a.b"), "spec.tier", "want at most 63"),
            ("/spec/order", json!("ten"), "spec.order", "want a number"),
            ("/spec/types", json!(["Ingres"]), "spec.types[0]", "not one of Ingress, Egress"),
            ("/spec/types", json!(["Ingress"]), "spec.types", "no Egress"),
            ("/spec/types", json!(["Ingress", "Ingress"]), "spec.types[1]", "already"),
            ("/spec/ingress", json!({}), "spec.ingress", "want a list"),
            (&at("/action"), json!("Accept"), "spec.ingress[0].action", "Allow, Log, Pass"),
            (&at("/action"), Value::Null, "spec.ingress[0].action", "is required"),
            (&at("/protocol"), json!("TCPX"), "spec.ingress[0].protocol", "no protocol"),
            (&at("/protocol"), json!(0), "spec.ingress[0].protocol", "want 1 to 255"),
            (&at("/protocol"), json!(true), "spec.ingress[0].protocol", "whole number or text"),
            (&at("/ipVersion"), json!(5), "spec.ingress[0].ipVersion", "not one of 4, 6"),
            (&at("/ipVersion"), json!(6), "spec.ingress[0].source.nets[0]", "does not fit"),
            (&at("/icmp"), json!({"type": 8}), "spec.ingress[0].icmp", "ICMP or ICMPv6"),
            (
                &at("/destination/ports"),
                json!([0]),
                "spec.ingress[0].destination.ports[0]",
                "1 to 65535",
            ),
            (
                &at("/destination/ports"),
                json!([80, "9:8"]),
                "spec.ingress[0].destination.ports[1]",
                "upside down",
            ),
            (
                &at("/destination/ports"),
                json!([80.5]),
                "spec.ingress[0].destination.ports[0]",
                "whole number",
            ),
            (
                &at("/destination/nets"),
                json!(["fd00::/8"]),
                "spec.ingress[0].destination.nets[0]",
                "another IP version",
            ),
            (
                &at("/source/nets"),
                json!(["10.0.0/8"]),
                "spec.ingress[0].source.nets[0]",
                "no prefix",
            ),
            (
                &at("/source/notNets"),
                json!(["0.0.0.0/0"]),
                "spec.ingress[0].source.notNets[0]",
                "excludes everything",
            ),
            (
                &at("/source/selector"),
                json!("global()"),
                "spec.ingress[0].source.selector",
                "at byte",
            ),
            (
                &at("/source/namespaceSelector"),
                json!("global() && a == 'b'"),
                "spec.ingress[0].source.namespaceSelector",
                "at byte",
            ),
            (
                &at("/source/services"),
                json!({"name": "s"}),
                "spec.ingress[0].source.selector",
                "beside services",
            ),
            (
                &at("/destination/services"),
                json!({"name": "s"}),
                "spec.ingress[0].destination.services",
                "source of ingress",
            ),
            (
                &at("/http"),
                json!({"paths": [{"exact": "x"}]}),
                "spec.ingress[0].http.paths[0]",
                "start with /",
            ),
            (
                &at("/http"),
                json!({"paths": [{"exact": "/x?y"}]}),
                "spec.ingress[0].http.paths[0]",
                "no part of a path",
            ),
            (&at("/http"), json!({"paths": [{}]}), "spec.ingress[0].http.paths[0]", "exactly one"),
            (
                "/spec/ingress/1/source/services",
                json!({}),
                "spec.ingress[1].source.services.name",
                "required",
            ),
            ("/spec/egress/0/icmp", json!({"code": 0}), "spec.egress[0].icmp.code", "needs a type"),
            (
                "/spec/egress/0/icmp",
                json!({"type": 255}),
                "spec.egress[0].icmp.type",
                "want 0 to 254",
            ),
            ("/spec/egress/0/ipVersion", json!(6), "spec.egress[0].ipVersion", "needs ipVersion 4"),
            ("/spec/egress/0/http", json!({}), "spec.egress[0].http", "ingress rules only"),
            (
                "/spec/egress/0/destination",
                json!({"ports": [1]}),
                "spec.egress[0].destination.ports[0]",
                "TCP, UDP or SCTP",
            ),
            (
                "/apiVersion",
                json!("v1"),
                "apiVersion",
                "want projectcalico.org/v3 or networking.k8s.io/v1",
            ),
            ("/kind", json!("NetworkPolice"), "kind", "NetworkPolicy"),
        ],
    );
}

const GNP: &str = r"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: g}
spec:
  selector: all()
  applyOnForward: true
  ingress: [{action: Allow}]
";

#[test]
fn global_network_policies() {
    check(
        GNP,
        &[
            ("/metadata/namespace", json!("a"), "metadata.namespace", "cluster-wide"),
            (
                "/spec/namespaceSelector",
                json!("global()"),
                "spec.namespaceSelector",
                "of rules only",
            ),
            (
                "/spec/ingress/0/source",
                json!({"services": {"name": "s"}}),
                "spec.ingress[0].source.services.namespace",
                "cluster-wide policy",
            ),
            (
                "/spec/performanceHints",
                json!(["Fast"]),
                "spec.performanceHints[0]",
                "AssumeNeededOnEveryNode",
            ),
        ],
    );
    let mut both = object(GNP);
    both["spec"]["doNotTrack"] = json!(true);
    both["spec"]["preDNAT"] = json!(true);
    both["spec"]["applyOnForward"] = json!(false);
    both["spec"]["egress"] = json!([{ "action": "Allow" }]);
    let fields: Vec<_> = crate::validate(&both, None).into_iter().map(|e| e.field).collect();
    for want in ["spec.preDNAT", "spec.applyOnForward", "spec.egress"] {
        assert!(fields.iter().any(|f| f == want), "{want} missing in {fields:?}");
    }
}

#[test]
fn every_error_is_told_at_once() {
    let mut bad = object(NP);
    bad["metadata"]["name"] = json!("Bad Name");
    bad["spec"]["selector"] = json!("(");
    bad["spec"]["ingress"][0]["destination"]["ports"] = json!([0, "x y", true]);
    bad["spec"]["egress"][0]["action"] = json!("deny");
    bad["spec"]["colour"] = json!("red");
    let errors = crate::validate(&bad, None);
    let mut fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec.colour",
            "spec.egress[0].action",
            "spec.ingress[0].destination.ports[0]",
            "spec.ingress[0].destination.ports[1]",
            "spec.ingress[0].destination.ports[2]",
            "spec.selector",
        ]
    );
}

#[test]
fn tiers() {
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\nspec: {order: 100}\n";
    check(
        tier,
        &[
            ("/metadata/name", json!("a.b"), "metadata.name", "63"),
            ("/metadata/name", json!("default"), "spec.order", "always has order 1000000"),
            ("/metadata/name", json!("kube-admin"), "spec.order", "1000"),
            ("/spec/defaultAction", json!("Allow"), "spec.defaultAction", "Deny, Pass"),
        ],
    );
}

const POOL: &str = r"
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.0.0.0/16}
";

#[test]
fn pools() {
    check(
        POOL,
        &[
            ("/spec/cidr", json!("10.0.0.1/16"), "spec.cidr", "want 10.0.0.0/16"),
            ("/spec/cidr", json!("169.254.3.0/24"), "spec.cidr", "link-local"),
            ("/spec/cidr", json!("fe80::/64"), "spec.cidr", "link-local"),
            ("/spec/cidr", json!("10.0.0.0/28"), "spec.blockSize", "does not fit"),
            ("/spec/cidr", Value::Null, "spec.cidr", "required"),
            ("/spec/blockSize", json!(19), "spec.blockSize", "want 20 to 32"),
            ("/spec/ipipMode", json!("always"), "spec.ipipMode", "Never, Always, CrossSubnet"),
            ("/spec/nodeSelector", json!("rack=="), "spec.nodeSelector", "at byte"),
            ("/spec/namespaceSelector", json!("all()"), "spec.namespaceSelector", "allowedUses"),
            ("/spec/allowedUses", json!(["LoadBalancer", "Tunnel"]), "spec.allowedUses", "alone"),
            ("/spec/natOutgoing", json!("yes"), "spec.natOutgoing", "true or false"),
        ],
    );
    let base = object(POOL);
    let mut v6 = object(POOL);
    v6["spec"] = json!({ "cidr": "fd00::/48", "ipipMode": "Always", "vxlanMode": "Always" });
    let fields: Vec<_> = crate::validate(&v6, None).into_iter().map(|e| e.field).collect();
    assert_eq!(fields, ["spec.ipipMode", "spec.vxlanMode"]);
    let mut moved = base.clone();
    moved["spec"] = json!({ "cidr": "10.1.0.0/16", "blockSize": 27 });
    let fields: Vec<_> =
        crate::validate(&moved, Some(&base)).into_iter().map(|e| e.field).collect();
    assert_eq!(fields, ["spec.cidr", "spec.blockSize"]);
    moved["spec"] = json!({ "cidr": "10.0.0.0/16", "blockSize": 26 });
    assert_eq!(crate::validate(&moved, Some(&base)), [], "26 is what it was by default");
}

#[test]
fn endpoints_and_sets() {
    check(
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h}\nspec: {node: n, interfaceName: eth0, ports: [{name: ssh, protocol: TCP, port: 22}]}\n",
        &[
            ("/spec/node", json!(""), "spec.node", "required"),
            ("/spec/interfaceName", json!(""), "spec.interfaceName", "required"),
            ("/spec/interfaceName", json!("a/b"), "spec.interfaceName", "no interface name"),
            ("/spec/interfaceName", json!("abcdefghijklmnop"), "spec.interfaceName", "at most 15"),
            ("/spec/expectedIPs", json!(["10.0.0.0/8"]), "spec.expectedIPs[0]", "no address"),
            ("/spec/ports/0/protocol", json!("ICMP"), "spec.ports[0].protocol", "TCP, UDP or SCTP"),
            ("/spec/ports/0/port", json!(0), "spec.ports[0].port", "1 to 65535"),
        ],
    );
    check(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: h}\nspec: {nets: [10.0.0.1, 'fd00::/8']}\n",
        &[
            ("/spec/nets", json!(["10.0.0.0/33"]), "spec.nets[0]", "no prefix"),
            (
                "/metadata/labels",
                json!({"projectcalico.org/namespace": "x"}),
                "metadata.labels[projectcalico.org/namespace]",
                "reserved",
            ),
        ],
    );
}

#[test]
fn bgp_peers() {
    check(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: b}\nspec: {peerIP: '[fd00::1]:179', asNumber: '1.10', nodeSelector: all()}\n",
        &[
            ("/spec/node", json!("n"), "spec.node", "beside nodeSelector"),
            ("/spec/peerSelector", json!("all()"), "spec.asNumber", "beside peerSelector"),
            ("/spec/peerIP", json!("fd00::1:99999"), "spec.peerIP", "no peer address"),
            ("/spec/asNumber", json!(0), "spec.asNumber", "no AS number"),
            ("/spec/reachableBy", json!("10.0.0.1"), "spec.reachableBy", "another IP version"),
            ("/spec/nextHopMode", json!("Other"), "spec.nextHopMode", "Auto, Self, Keep"),
            ("/spec/maxRestartTime", json!("soon"), "spec.maxRestartTime", "no time"),
        ],
    );
}

#[test]
fn bgp_filters() {
    check(
        "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: f}\nspec: {exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16}, interface: 'eth*', action: Accept, operations: [{setPriority: {value: 5}}]}], importV6: [{action: Reject}]}\n",
        &[
            (
                "/spec/exportV4/0/cidr",
                json!("fd00::/8"),
                "spec.exportV4[0].cidr",
                "other IP version",
            ),
            ("/spec/exportV4/0/cidr", json!(""), "spec.exportV4[0].cidr", "beside matchOperator"),
            (
                "/spec/exportV4/0/matchOperator",
                json!("Near"),
                "spec.exportV4[0].matchOperator",
                "NotIn",
            ),
            (
                "/spec/exportV4/0/prefixLength",
                json!({"max": 33}),
                "spec.exportV4[0].prefixLength.max",
                "0 to 32",
            ),
            (
                "/spec/exportV4/0/interface",
                json!("eth 0"),
                "spec.exportV4[0].interface",
                "no interface",
            ),
            ("/spec/exportV4/0/action", json!("Drop"), "spec.exportV4[0].action", "Accept, Reject"),
            (
                "/spec/exportV4/0/action",
                json!("Reject"),
                "spec.exportV4[0].operations",
                "Accept only",
            ),
            (
                "/spec/exportV4/0/operations/0",
                json!({}),
                "spec.exportV4[0].operations[0]",
                "exactly one",
            ),
            (
                "/spec/exportV4/0/operations/0",
                json!({"addCommunity": {"value": "1:70000"}}),
                "spec.exportV4[0].operations[0].addCommunity.value",
                "no community",
            ),
            (
                "/spec/exportV4/0/operations/0",
                json!({"setPriority": {"value": 0}}),
                "spec.exportV4[0].operations[0].setPriority.value",
                "1 to 2147483646",
            ),
            (
                "/spec/importV6/0/communities",
                json!({"values": ["1:2", "1:3"]}),
                "spec.importV6[0].communities.values",
                "at most 1",
            ),
            (
                "/spec/importV6/0/asPathPrefix",
                json!([0]),
                "spec.importV6[0].asPathPrefix[0]",
                "no AS number",
            ),
        ],
    );
}

#[test]
fn node_statuses() {
    check(
        "apiVersion: projectcalico.org/v3\nkind: CalicoNodeStatus\nmetadata: {name: s}\nspec: {node: n, classes: [Agent, BGP], updatePeriodSeconds: 0}\n",
        &[
            ("/spec/node", json!(""), "spec.node", "is required"),
            ("/spec/classes", json!([]), "spec.classes", "is required"),
            ("/spec/classes/0", json!("Disk"), "spec.classes[0]", "Agent, BGP, Routes"),
            ("/spec/classes/0", json!("BGP"), "spec.classes[1]", "there already"),
            ("/spec/updatePeriodSeconds", json!(90_000), "spec.updatePeriodSeconds", "0 to 86400"),
        ],
    );
}

#[test]
fn felix_configurations() {
    check(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {vxlanPort: 4789, logSeverityScreen: Info}\n",
        &[
            ("/spec/vxlanPort", json!(70000), "spec.vxlanPort", "1 to 65535"),
            ("/spec/vxlanPrt", json!(1), "spec.vxlanPrt", "did you mean vxlanPort?"),
            (
                "/spec/defaultEndpointToHostAction",
                json!("Keep"),
                "spec.defaultEndpointToHostAction",
                "DROP, RETURN, ACCEPT",
            ),
            (
                "/spec/iptablesRefreshInterval",
                json!("90"),
                "spec.iptablesRefreshInterval",
                "no time",
            ),
            ("/spec/nftablesMarkMask", json!(1), "spec.nftablesMarkMask", "at least 8"),
            ("/spec/logActionRateLimit", json!("5/week"), "spec.logActionRateLimit", "no rate"),
            (
                "/spec/failsafeInboundHostPorts",
                json!([{"protocol": "icmp", "port": 1}]),
                "spec.failsafeInboundHostPorts[0].protocol",
                "tcp, udp, sctp",
            ),
            (
                "/spec/failsafeInboundHostPorts",
                json!([{"protocol": "tcp"}]),
                "spec.failsafeInboundHostPorts[0].port",
                "required",
            ),
            ("/spec/natPortRange", json!("9:1"), "spec.natPortRange", "upside down"),
        ],
    );
}

#[test]
fn kubernetes_policies() {
    check(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: k, namespace: a}
spec:
  podSelector: {}
  ingress:
    - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
      ports: [{port: 80, endPort: 90}, {protocol: UDP, port: dns}]
",
        &[
            (
                "/spec/podSelector",
                json!({"matchLabels": {"a b": "c"}}),
                "spec.podSelector",
                "no label key",
            ),
            (
                "/spec/podSelector",
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                "spec.podSelector.matchExpressions[0].values",
                "required",
            ),
            ("/spec/policyTypes", json!(["ingress"]), "spec.policyTypes[0]", "Ingress, Egress"),
            (
                "/spec/ingress/0/ports/0/endPort",
                json!(79),
                "spec.ingress[0].ports[0].endPort",
                "want 80 to 65535",
            ),
            (
                "/spec/ingress/0/ports/1/protocol",
                json!("ICMP"),
                "spec.ingress[0].ports[1].protocol",
                "TCP, UDP, SCTP",
            ),
            (
                "/spec/ingress/0/ports/1/endPort",
                json!(9),
                "spec.ingress[0].ports[1].endPort",
                "not a name",
            ),
            ("/spec/ingress/0/from/0", json!({}), "spec.ingress[0].from[0]", "want podSelector"),
            (
                "/spec/ingress/0/from/0/podSelector",
                json!({}),
                "spec.ingress[0].from[0]",
                "beside other selectors",
            ),
            (
                "/spec/ingress/0/from/0/ipBlock/except",
                json!(["11.0.0.0/8"]),
                "spec.ingress[0].from[0].ipBlock.except[0]",
                "proper part",
            ),
            (
                "/spec/ingress/0/from/0/ipBlock/cidr",
                json!("x"),
                "spec.ingress[0].from[0].ipBlock.cidr",
                "no prefix",
            ),
            ("/spec/ingres", json!([]), "spec.ingres", "did you mean ingress?"),
        ],
    );
}

#[test]
fn other_kinds() {
    for (text, field, part) in [
        (
            "apiVersion: operator.tigera.io/v1\nkind: Installation\nmetadata: {name: default}\nspec: {calicoNetwork: {ipPools: [{cidr: 10.0.0.0/8, encapsulation: GRE}]}}",
            "spec.calicoNetwork.ipPools[0].encapsulation",
            "VXLANCrossSubnet",
        ),
        (
            "apiVersion: operator.tigera.io/v1\nkind: Installation\nmetadata: {name: default}\nspec: {calicoNetwrk: {}}",
            "spec.calicoNetwrk",
            "calicoNetwork",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n}\nspec: {bgp: {}}",
            "spec.bgp",
            "empty",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n}\nspec: {bgp: {routeReflectorClusterID: 'x'}}",
            "spec.bgp.routeReflectorClusterID",
            "no address",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: x}\nspec: {}",
            "metadata.name",
            "default",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: default}\nspec: {strictAffinity: false, autoAllocateBlocks: false}",
            "spec.autoAllocateBlocks",
            "strictAffinity",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: n, namespace: a}\nspec: {stagedAction: Delete, selector: all()}",
            "spec.selector",
            "Delete",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: n}", "apiVersion", "no kind known here"),
        ("kind: Tier", "apiVersion", "required"),
        ("- a", "", "want an object"),
    ] {
        let errors = crate::validate(&object(text), None);
        let found = errors.iter().any(|e| e.field == field && e.message.contains(part));
        assert!(found, "{text}: wanted {field}: ..{part}.., got {errors:?}");
    }
}

const CNP: &str = r"
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress:
    - name: first
      action: Accept
      from:
        - pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}
      protocols:
        - tcp: {destinationPort: {number: 80}}
        - udp: {destinationPort: {range: {start: 53, end: 54}}}
        - sctp: {}
        - destinationNamedPort: web
  egress:
    - action: Deny
      to:
        - networks: [10.0.0.0/8, 'fd00::/8']
        - namespaces: {matchExpressions: [{key: a, operator: In, values: [b]}]}
";

#[test]
fn cluster_network_policies() {
    let (from, to) = ("spec.ingress[0].from", "spec.egress[0].to");
    let protocol = "/spec/ingress/0/protocols/0";
    check(
        CNP,
        &[
            ("/spec/tier", json!("admin"), "spec.tier", "Admin, Baseline"),
            ("/spec/tier", Value::Null, "spec.tier", "is required"),
            ("/spec/priority", json!(1001), "spec.priority", "want 0 to 1000"),
            ("/spec/priority", Value::Null, "spec.priority", "is required"),
            ("/spec/subject", json!({}), "spec.subject", "exactly one of"),
            (
                "/spec/subject",
                json!({"namespaces": {}, "pods": {"podSelector": {}}}),
                "spec.subject",
                "exactly one of",
            ),
            ("/spec/ingress/0/action", json!("Allow"), "spec.ingress[0].action", "Accept, Deny"),
            ("/spec/ingress/0/from", json!([]), from, "at least one peer"),
            ("/spec/ingress/0/from/0", json!({}), &format!("{from}[0]"), "exactly one of"),
            (
                "/spec/ingress/0/from/0",
                json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                &format!("{from}[0].namespaces.matchExpressions[0].values"),
                "is required beside operator In",
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"namespaces": {"matchLabels": {"a b": "c"}}}),
                &format!("{from}[0].namespaces"),
                "no label key",
            ),
            (protocol, json!({}), "spec.ingress[0].protocols[0]", "exactly one of"),
            (
                protocol,
                json!({"tcp": {"destinationPort": {"number": 0}}}),
                "spec.ingress[0].protocols[0].tcp.destinationPort.number",
                "want 1 to 65535",
            ),
            (
                protocol,
                json!({"tcp": {"destinationPort": {"range": {"start": 2, "end": 1}}}}),
                "spec.ingress[0].protocols[0].tcp.destinationPort.range.end",
                "below the start",
            ),
            (
                protocol,
                json!({"destinationNamedPort": "80"}),
                "spec.ingress[0].protocols[0].destinationNamedPort",
                "no name",
            ),
            (
                "/spec/egress/0/to/0",
                json!({"networks": ["10.0.0.0/33"]}),
                &format!("{to}[0].networks[0]"),
                "10.0.0.0/33",
            ),
            (
                "/spec/egress/0/to/0",
                json!({"domainNames": ["a.b"], "nodes": {}, "networks": ["x"]}),
                &format!("{to}[0]"),
                "exactly one of",
            ),
            (
                "/spec/egress/0/protocols",
                json!([{"destinationNamedPort": "web"}]),
                "spec.egress[0].protocols[0].destinationNamedPort",
                "beside networks",
            ),
        ],
    );
}
