//! Conversion, a table a kind of object: what is written, what the calculation gets.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use api::convert;
use api::v3;
use model::{Action, IpVersion, Port, Protocol};
use selector::Selector;
use serde_json::{Value, json};

fn yaml(text: &str) -> Value {
    api::yaml::documents(text).next().unwrap().object.unwrap()
}

fn same(selector: &Selector, want: &str, what: &str) {
    let want = Selector::parse(want).unwrap();
    assert_eq!(selector.canonical(), want.canonical(), "{what}");
}

/// Whom a rule of a namespaced and of a cluster-wide policy is about, by what the side asks for.
#[test]
fn sides_of_rules() {
    const OWN: &str = "projectcalico.org/namespace == 'a'";
    for (side, namespaced, global) in [
        (json!({}), None, None),
        (json!({ "ports": [80] }), None, None),
        (json!({ "selector": "x == 'y'" }), Some(format!("{OWN} && x == 'y'")), Some("x == 'y'")),
        (json!({ "notSelector": "has(x)" }), Some(OWN.to_owned()), None),
        (
            json!({ "namespaceSelector": "x == 'y'" }),
            Some("pcns.x == 'y'".to_owned()),
            Some("pcns.x == 'y'"),
        ),
        (
            json!({ "namespaceSelector": "all()", "selector": "x == 'y'" }),
            Some("has(projectcalico.org/namespace) && x == 'y'".to_owned()),
            Some("has(projectcalico.org/namespace) && x == 'y'"),
        ),
        (
            json!({ "namespaceSelector": "global()", "selector": "x == 'y'" }),
            Some("!has(projectcalico.org/namespace) && x == 'y'".to_owned()),
            Some("!has(projectcalico.org/namespace) && x == 'y'"),
        ),
        (
            json!({ "serviceAccounts": { "names": ["s", "t"] } }),
            Some(format!("{OWN} && projectcalico.org/serviceaccount in {{'s', 't'}}")),
            Some("projectcalico.org/serviceaccount in {'s', 't'}"),
        ),
        (
            json!({ "serviceAccounts": { "selector": "r == 's'" }, "namespaceSelector": "has(x)" }),
            Some("has(pcns.x) && pcsa.r == 's'".to_owned()),
            Some("has(pcns.x) && pcsa.r == 's'"),
        ),
    ] {
        let spec = json!({ "ingress": [{ "action": "Allow", "protocol": "TCP", "source": side }] });
        let object = json!({ "metadata": { "name": "p", "namespace": "a" }, "spec": spec });
        let policy: v3::NetworkPolicy = serde_json::from_value(object).unwrap();
        let got = convert::network_policy(&policy).unwrap();
        assert_eq!(got.errors, []);
        let got = got.value.ingress[0].source.selector.clone();
        assert_eq!(got.is_some(), namespaced.is_some(), "{side} in a namespace");
        if let (Some(got), Some(want)) = (got, namespaced) {
            same(&got, &want, &format!("{side} in a namespace"));
        }
        let object = json!({ "metadata": { "name": "p" }, "spec": spec });
        let policy: v3::GlobalNetworkPolicy = serde_json::from_value(object).unwrap();
        let got = convert::global_network_policy(&policy).unwrap().value;
        let got = got.ingress[0].source.selector.clone();
        assert_eq!(got.is_some(), global.is_some(), "{side} cluster-wide");
        if let (Some(got), Some(want)) = (got, global) {
            same(&got, want, &format!("{side} cluster-wide"));
        }
    }
}

#[test]
fn subjects_and_directions() {
    for (spec, selector, ingress, egress) in [
        (json!({}), "all()", true, false),
        (json!({ "egress": [{ "action": "Allow" }] }), "all()", false, true),
        (json!({ "types": ["Ingress", "Egress"], "selector": "a == 'b'" }), "a == 'b'", true, true),
        (
            json!({ "selector": "a == 'b'", "namespaceSelector": "all()" }),
            "a == 'b' && has(projectcalico.org/namespace)",
            true,
            false,
        ),
        (
            json!({ "namespaceSelector": "c == 'd'", "serviceAccountSelector": "e == 'f'" }),
            "pcns.c == 'd' && pcsa.e == 'f'",
            true,
            false,
        ),
    ] {
        let object = json!({ "metadata": { "name": "p" }, "spec": spec });
        let policy: v3::GlobalNetworkPolicy = serde_json::from_value(object).unwrap();
        let got = convert::global_network_policy(&policy).unwrap().value;
        same(&got.selector, selector, &spec.to_string());
        assert_eq!((got.applies_ingress, got.applies_egress), (ingress, egress), "{spec}");
    }
}

#[test]
fn malformed_rules_fail_closed() {
    let spec = json!({ "ingress": [
        { "action": "Allow", "protocol": "TCP", "destination": { "ports": [0] } },
        { "action": "Deny", "source": { "nets": ["x"] } },
        { "action": "Pass", "source": { "selector": "(" } },
        { "action": "Allow", "source": { "nets": ["10.1.2.3/8", "1.2.3.4"] } },
    ] });
    let object = json!({ "metadata": { "name": "p", "namespace": "a" }, "spec": spec });
    let got = convert::network_policy(&serde_json::from_value(object).unwrap()).unwrap();
    let fields: Vec<_> = got.errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.ingress[0].destination.ports[0]",
            "spec.ingress[1].source.nets[0]",
            "spec.ingress[2].source.selector"
        ]
    );
    let rules: Vec<_> = got.value.ingress.iter().map(|r| (r.action, r.origin)).collect();
    assert_eq!(rules, [(Action::Deny, 1), (Action::Deny, 2), (Action::Allow, 3)]);
    let nets: Vec<_> = got.value.ingress[2].source.nets.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "1.2.3.4/32"]);
}

#[test]
fn icmp_settles_the_ip_version() {
    for (protocol, version) in
        [("ICMP", Some(IpVersion::V4)), ("ICMPv6", Some(IpVersion::V6)), ("TCP", None)]
    {
        let spec = json!({ "ingress": [{ "action": "Allow", "protocol": protocol }] });
        let object = json!({ "metadata": { "name": "p", "namespace": "a" }, "spec": spec });
        let got = convert::network_policy(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(got.value.ingress[0].ip_version, version, "{protocol}");
    }
}

#[test]
fn kubernetes_policy() {
    let object = yaml(
        r"
metadata: {name: k, namespace: a}
spec:
  podSelector: {matchLabels: {app: b}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: {matchLabels: {app: f}}
        - namespaceSelector: {}
        - namespaceSelector: {matchLabels: {n: m}}
          podSelector: {matchExpressions: [{key: t, operator: NotIn, values: [u]}]}
        - ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}
      ports: [{port: 81}, {port: 80}, {port: 82, endPort: 90}, {port: web}, {protocol: UDP}, {protocol: UDP, port: 53}]
    - from: [{ipBlock: {cidr: nonsense}}]
    - {}
  egress:
    - to: [{podSelector: {}}]
",
    );
    let got = convert::kubernetes_network_policy(&serde_json::from_value(object).unwrap()).unwrap();
    let fields: Vec<_> = got.errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["spec.ingress[1].from[0].ipBlock.cidr"]);
    let policy = got.value;
    assert_eq!((policy.tier.as_str(), policy.order), ("default", Some(1000.0)));
    same(
        &policy.selector,
        "(projectcalico.org/orchestrator == 'k8s' && app == 'b') && projectcalico.org/namespace == 'a'",
        "subject",
    );
    assert_eq!(
        policy.ingress.len(),
        2 * 4 + 1,
        "two protocols times four peers, and the open rule"
    );
    let origins: Vec<_> = policy.ingress.iter().map(|r| r.origin).collect();
    assert_eq!(origins, [0, 0, 0, 0, 0, 0, 0, 0, 2]);
    let tcp = &policy.ingress[0];
    assert_eq!(tcp.protocol, Some(Protocol::TCP));
    assert_eq!(tcp.destination.ports, [Port::Named("web".into()), Port::Range(80, 90)]);
    let peer = |i: usize| policy.ingress[i].source.selector.as_ref().unwrap();
    let labels = [
        json!({ "app": "f", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/namespace": "a" }),
        json!({ "projectcalico.org/orchestrator": "k8s", "projectcalico.org/namespace": "z" }),
        json!({ "pcns.n": "m", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/namespace": "z" }),
        json!({ "pcns.n": "m", "t": "u", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/namespace": "z" }),
    ];
    let matches: Vec<Vec<bool>> = labels
        .iter()
        .map(|l| {
            let map: std::collections::BTreeMap<String, String> =
                serde_json::from_value(l.clone()).unwrap();
            (0..3).map(|i| peer(i).matches(&map)).collect()
        })
        .collect();
    assert_eq!(
        matches,
        [
            vec![true, true, false],
            vec![false, true, false],
            vec![false, true, true],
            vec![false, true, false],
        ]
    );
    assert_eq!(policy.ingress[3].source.nets, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(policy.ingress[3].source.not_nets, ["10.1.0.0/16".parse().unwrap()]);
    let udp = &policy.ingress[4];
    assert_eq!((udp.protocol, udp.destination.ports.len()), (Some(Protocol::UDP), 0), "all ports");
    let open = &policy.ingress[8];
    assert_eq!((open.protocol, &open.source.selector), (None, &None));
}

#[test]
fn pods() {
    assert_eq!(convert::interface_name("cali", "default", "nginx").len(), 15);
    let pod = yaml(
        r"
metadata:
  name: p
  namespace: a
  labels: {x: y}
  annotations: {cni.projectcalico.org/podIPs: '10.0.0.9/32,fd00::9/128'}
spec:
  nodeName: n
  serviceAccountName: s
  containers: [{name: c, ports: [{name: web, containerPort: 80}, {containerPort: 81}, {name: d, containerPort: 53, protocol: UDP}]}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
",
    );
    let read =
        |pod: &Value| convert::pod(&serde_json::from_value(pod.clone()).unwrap(), "cali").unwrap();
    let got = read(&pod).unwrap();
    assert_eq!(
        got.addresses,
        ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
    );
    assert_eq!(&*got.labels["projectcalico.org/namespace"], "a");
    assert_eq!(&*got.labels["projectcalico.org/serviceaccount"], "s");
    let profiles: Vec<_> = got.profiles.iter().map(ToString::to_string).collect();
    assert_eq!(profiles, ["kns.a", "ksa.a.s"]);
    let ports: Vec<_> = got.ports.iter().map(|p| (&*p.name, p.protocol, p.port)).collect();
    assert_eq!(ports, [("web", Protocol::TCP, 80), ("d", Protocol::UDP, 53)]);

    for (what, pointer, value, addresses) in [
        ("without status: annotations", "/status", json!({}), Some(2)),
        ("finished", "/status", json!({ "phase": "Succeeded", "podIP": "10.0.0.1" }), Some(0)),
        ("on the host's network", "/spec/hostNetwork", json!(true), None),
        ("on no node", "/spec/nodeName", json!(""), None),
    ] {
        let mut changed = pod.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        assert_eq!(read(&changed).map(|w| w.addresses.len()), addresses, "{what}");
    }
    let mut going = pod.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(read(&going).unwrap().addresses.len(), 2, "still has its network");
    going["metadata"]["annotations"]["cni.projectcalico.org/podIP"] = json!("");
    assert_eq!(read(&going).unwrap().addresses.len(), 0, "its network is gone");
}

#[test]
fn nodes_both_ways() {
    let node = yaml(
        r"
metadata:
  name: n
  labels: {rack: r}
  annotations:
    projectcalico.org/IPv4Address: 10.0.0.1/24
    projectcalico.org/IPv4VXLANTunnelAddr: 192.168.0.1
    projectcalico.org/VXLANTunnelMACAddr: 66:01:02:03:04:05
    projectcalico.org/RouteReflectorClusterID: 224.0.0.1
status: {addresses: [{type: InternalIP, address: 10.9.9.9}, {type: InternalIP, address: 'fd00::1'}]}
",
    );
    let node: k8s_openapi::api::core::v1::Node = serde_json::from_value(node).unwrap();
    let got = convert::node(&node);
    assert_eq!(got.errors, []);
    let addresses: Vec<_> = got.value.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        addresses,
        ["10.0.0.1/24", "fd00::1/128"],
        "host bits kept; internal address where none is noted"
    );
    assert_eq!(got.value.vxlan_mac_v4, Some([0x66, 1, 2, 3, 4, 5]));
    let view = convert::node_view(&node);
    assert_eq!(view.spec.bgp.as_ref().unwrap().ipv4_address, "10.0.0.1/24");
    let back = convert::annotations_of_node(&view);
    for (key, value) in node.metadata.annotations.unwrap() {
        assert_eq!(back[&key].as_deref(), Some(value.as_str()), "{key}");
    }
}

#[test]
fn blocks_and_what_was_borrowed() {
    let block = yaml(
        r"
metadata: {name: 10-0-0-0-30}
spec:
  cidr: 10.0.0.0/30
  affinity: host:n
  allocations: [0, null, 1, null]
  unallocated: [1, 3]
  attributes: [{handle_id: h, secondary: {node: n}}, {secondary: {node: m}}]
  sequenceNumber: 7
  sequenceNumberForAllocation: {'0': 5, '2': 6}
  deleted: false
  strictAffinity: false
",
    );
    let typed: v3::IPAMBlock = serde_json::from_value(block.clone()).unwrap();
    let got = convert::block(&typed).unwrap().unwrap();
    assert_eq!(got.affinity, Some("n".into()));
    assert_eq!(got.borrowed, [("10.0.0.2".parse().unwrap(), "m".into())]);
    assert_eq!(serde_json::to_value(&typed).unwrap()["spec"], block["spec"], "written as read");
    let deleted =
        v3::IPAMBlock { spec: v3::IPAMBlockSpec { deleted: true, ..typed.spec.clone() }, ..typed };
    assert_eq!(convert::block(&deleted).unwrap(), None);
}

#[test]
fn schemas_are_structural() {
    fn walk(schema: &Value, at: &str) {
        for word in ["$ref", "oneOf", "allOf", "const", "$schema", "default", "$defs"] {
            assert!(schema.get(word).is_none(), "{at} has {word}");
        }
        let typed = schema.get("type").is_some_and(Value::is_string)
            || schema.get("x-kubernetes-int-or-string").is_some()
            || schema.get("x-kubernetes-preserve-unknown-fields").is_some();
        assert!(typed, "{at} has no type: {schema}");
        for (key, inner) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            walk(inner, &format!("{at}.{key}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key) {
                walk(inner, &format!("{at}.{key}"));
            }
        }
    }
    for kind in api::kinds() {
        let schema = kind.schema();
        walk(&schema, kind.kind);
        assert!(schema.pointer("/properties/spec/properties").is_some(), "{}", kind.kind);
    }
    let schema = api::lookup("projectcalico.org/v3", "NetworkPolicy").unwrap().schema();
    let rule = &schema["properties"]["spec"]["properties"]["ingress"]["items"];
    assert_eq!(rule["required"], json!(["action"]));
    let staged = api::lookup("projectcalico.org/v3", "StagedNetworkPolicy").unwrap().schema();
    let staged = &staged["properties"]["spec"]["properties"];
    assert!(staged.get("selector").is_some() && staged.get("stagedAction").is_some(), "{staged}");
}

fn cluster_policy(spec: &str) -> Result<convert::Converted<model::Policy>, api::FieldError> {
    let text = format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: p}}\nspec: {spec}"
    );
    convert::cluster_network_policy(&serde_json::from_value(yaml(&text)).unwrap())
}

#[test]
fn cluster_network_policies() {
    let policy = cluster_policy(
        "{tier: Baseline, priority: 7, subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {}}},
          ingress: [{action: Pass, from: [{namespaces: {}}, {pods: {podSelector: {matchLabels: {c: d}}}}],
            protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {}}, {tcp: {destinationPort: {range: {start: 81, end: 90}}}}, {destinationNamedPort: web}]}]}",
    )
    .unwrap();
    assert_eq!(policy.errors, []);
    let policy = policy.value;
    assert_eq!((policy.tier.as_str(), policy.order), ("kube-baseline", Some(7.0)));
    assert_eq!((policy.applies_ingress, policy.applies_egress), (true, false));
    same(&policy.selector, "projectcalico.org/orchestrator == 'k8s' && pcns.a == 'b'", "subject");
    let peers = [
        "has(projectcalico.org/namespace)",
        "has(projectcalico.org/namespace) && c == 'd' && projectcalico.org/orchestrator == 'k8s'",
    ];
    let web = vec![Port::Named("web".into())];
    let ports = [
        (None, web),
        (Some(Protocol::TCP), vec![Port::Range(80, 90)]),
        (Some(Protocol::UDP), vec![]),
    ];
    assert_eq!(policy.ingress.len(), peers.len() * ports.len());
    for (rule, (protocol, ports)) in policy.ingress.iter().zip(ports.iter().flat_map(|p| [p, p])) {
        assert_eq!((rule.action, rule.protocol, rule.origin), (Action::Pass, *protocol, 0));
        assert_eq!(rule.destination.ports, *ports);
    }
    for (rule, peer) in policy.ingress.iter().zip(peers.iter().cycle()) {
        let selector = rule.source.selector.as_ref().unwrap();
        let want = Selector::parse(peer).unwrap();
        let labels = |pairs: &[(&str, &str)]| -> std::collections::BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        for some in [
            labels(&[("projectcalico.org/namespace", "x")]),
            labels(&[("c", "d"), ("projectcalico.org/orchestrator", "k8s")]),
            labels(&[
                ("c", "d"),
                ("projectcalico.org/namespace", "x"),
                ("projectcalico.org/orchestrator", "k8s"),
            ]),
        ] {
            assert_eq!(selector.matches(&some), want.matches(&some), "{peer}: {some:?}");
        }
    }
}

/// A malformed rule that accepts is left out; any other denies its direction.
#[test]
fn malformed_cluster_network_policies_fail_closed() {
    let subject = "subject: {namespaces: {}}";
    for (peer, at) in [
        ("{}", "spec.egress[0].to[0]"),
        ("{nodes: {}}", "spec.egress[0].to[0].nodes"),
        ("{domainNames: [a.b]}", "spec.egress[0].to[0].domainNames"),
        ("{networks: [x]}", "spec.egress[0].to[0].networks[0]"),
        (
            "{namespaces: {matchExpressions: [{key: a, operator: Near, values: [b]}]}}",
            "spec.egress[0].to[0].namespaces",
        ),
    ] {
        for (action, rules) in [("Accept", 0), ("Deny", 1), ("Pass", 1), ("Shrug", 1)] {
            let rule = format!("egress: [{{action: {action}, to: [{peer}]}}]");
            let got = cluster_policy(&format!("{{tier: Admin, priority: 1, {subject}, {rule}}}"))
                .unwrap();
            assert_eq!(
                got.value.egress,
                vec![model::Rule::any(Action::Deny); rules],
                "{action} {peer}"
            );
            assert_eq!(got.value.applies_egress, rules > 0);
            let field = if action == "Shrug" { "spec.egress[0].action" } else { at };
            assert_eq!(got.errors[0].field, field, "{action} {peer}");
        }
    }
    for whole in [
        format!("{{tier: Other, priority: 1, {subject}}}"),
        format!("{{tier: Admin, {subject}}}"),
        "{tier: Admin, priority: 1}".to_owned(),
        "{tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {'a b': c}}}}".to_owned(),
    ] {
        assert!(cluster_policy(&whole).is_err(), "{whole}");
    }
}

/// A policy of Kubernetes, shown as one of ours and read again, means the same.
#[test]
fn views_of_policies() {
    let kubernetes = yaml(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}
spec:
  podSelector: {matchLabels: {app: x}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{namespaceSelector: {matchLabels: {k: v}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80}, {port: 90, endPort: 99}, {port: web, protocol: UDP}]
  egress: [{}]",
    );
    let cluster = cluster_policy(
        "{tier: Admin, priority: 3, subject: {namespaces: {}}, egress: [
          {action: Pass, to: [{pods: {podSelector: {matchLabels: {c: d}}}}, {networks: ['fd00::/8']}],
           protocols: [{sctp: {}}]}]}",
    );
    let read = serde_json::from_value(kubernetes).unwrap();
    for policy in [convert::kubernetes_network_policy(&read).unwrap(), cluster.unwrap()] {
        let policy = policy.value;
        let view = convert::policy_view(&policy);
        assert_eq!(api::validate(&view, None), []);
        let namespaced = view["kind"] == "NetworkPolicy";
        let again = if namespaced {
            convert::network_policy(&serde_json::from_value(view).unwrap())
        } else {
            convert::global_network_policy(&serde_json::from_value(view).unwrap())
        };
        let again = again.unwrap();
        assert_eq!(again.errors, []);
        let again = again.value;
        assert_eq!((&again.tier, again.order), (&policy.tier, policy.order));
        assert_eq!(
            (again.applies_ingress, again.applies_egress),
            (policy.applies_ingress, policy.applies_egress)
        );
        let selects = |s: &Selector| {
            let text = format!("{} && projectcalico.org/namespace == 'a'", s.canonical());
            Selector::parse(if namespaced { &text } else { s.canonical() }).unwrap()
        };
        assert_eq!(selects(&policy.selector).canonical(), again.selector.canonical());
        for (was, is) in [(&policy.ingress, &again.ingress), (&policy.egress, &again.egress)] {
            assert_eq!(was.len(), is.len());
            for (was, is) in was.iter().zip(is) {
                let everywhere = |entity: &mut model::policy::EntityMatch| {
                    let own = Selector::has(convert::NAMESPACE_LABEL);
                    let given = entity.selector.take();
                    entity.selector =
                        given.map(|s| if namespaced { Selector::and_all(&[own, s]) } else { s });
                };
                let mut was = was.clone();
                was.origin = is.origin;
                everywhere(&mut was.source);
                everywhere(&mut was.destination);
                assert_eq!(was, *is);
            }
        }
    }
}

#[test]
fn the_name_of_an_endpoint_names_its_pod() {
    for (node, pod) in
        [("n", "p"), ("n-1", "web-0"), ("x-k8s", "k8s-y"), ("k8s", "a-k8s-b"), ("a.b", "eth0")]
    {
        let name = format!("{}-k8s-{}-eth0", convert::escaped(node), convert::escaped(pod));
        assert_eq!(convert::pod_of_endpoint(&name).as_deref(), Some(pod), "{name}");
    }
    for name in [
        "",
        "web",
        "n-k8s-web",
        "n-k8s--eth0",
        "-k8s-web-eth0",
        "n-k8s-we-b-eth0",
        "n-cni-web-eth0",
    ] {
        assert_eq!(convert::pod_of_endpoint(name), None, "{name}");
    }
}
