//! Good objects, and what mutation makes of them: nothing panics, what is valid keeps its meaning.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use api::{Object, Spec, convert, operator, v3};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One object of every kind, with as many fields as fit.
fn good() -> Vec<Value> {
    let rule = json!({
        "action": "Allow", "protocol": "TCP", "ipVersion": 4,
        "source": {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"], "selector": "a == 'b'",
            "namespaceSelector": "global()", "serviceAccounts": {"names": ["sa"], "selector": "has(x)"}},
        "destination": {"ports": [80, "90:99", "http"], "notPorts": [443]},
        "metadata": {"annotations": {"k": "v"}},
    });
    let icmp = json!({"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}});
    let policy = json!({"tier": "default", "order": 1.5, "selector": "all()", "ingress": [rule, icmp],
        "egress": [{"action": "Log"}], "types": ["Ingress", "Egress"]});
    let objects = [
        ("NetworkPolicy", policy.clone()),
        ("GlobalNetworkPolicy", policy.clone()),
        ("StagedNetworkPolicy", policy.clone()),
        ("StagedGlobalNetworkPolicy", policy),
        ("StagedKubernetesNetworkPolicy", json!({"podSelector": {"matchLabels": {"a": "b"}}})),
        ("Tier", json!({"order": 10, "defaultAction": "Pass"})),
        // All 17 digits count: a parser that rounds loses the last bit.
        ("Tier", json!({"order": -2.376_082_135_742_215_7e-80, "defaultAction": "Pass"})),
        ("Profile", json!({"ingress": [{"action": "Allow"}], "labelsToApply": {"a": "b"}})),
        ("NetworkSet", json!({"nets": ["10.0.0.0/8", "fd00::/8"]})),
        ("GlobalNetworkSet", json!({"nets": ["192.0.2.1"]})),
        (
            "HostEndpoint",
            json!({"node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1", "fd00::1"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}], "profiles": ["p"]}),
        ),
        (
            "IPPool",
            json!({"cidr": "10.9.0.0/16", "natOutgoing": true, "vxlanMode": "Always", "blockSize": 26}),
        ),
        ("IPReservation", json!({"reservedCIDRs": ["10.9.0.0/30"]})),
        (
            "IPAMConfiguration",
            json!({"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 3}),
        ),
        (
            "IPAMBlock",
            json!({"cidr": "10.9.0.0/30", "affinity": "host:n", "allocations": [0, null, null, null],
            "unallocated": [1, 2, 3], "strictAffinity": false, "deleted": false, "sequenceNumber": 7,
            "attributes": [{"handle_id": "h", "secondary": {"node": "n"}}]}),
        ),
        ("IPAMHandle", json!({"handleID": "h", "block": {"10.9.0.0/30": 1}, "deleted": false})),
        (
            "BlockAffinity",
            json!({"state": "confirmed", "node": "n", "cidr": "10.9.0.0/30", "deleted": false}),
        ),
        ("BGPConfiguration", json!({"asNumber": 64_512, "nodeToNodeMeshEnabled": false})),
        ("BGPPeer", json!({"peerIP": "192.0.2.3", "asNumber": 64_513})),
        (
            "BGPFilter",
            json!({"exportV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 0, "max": 24},
                "peerType": "eBGP", "communities": {"values": ["65000:1"]}, "asPathPrefix": ["1.10", 7], "action": "Accept",
                "operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [64_512]}}, {"setPriority": {"value": 9}}]}],
                "importV6": [{"cidr": "fd00::/8", "matchOperator": "NotIn", "interface": "eth*", "source": "RemotePeers", "action": "Reject"}]}),
        ),
        (
            "CalicoNodeStatus",
            json!({"node": "n", "classes": ["Agent", "BGP"], "updatePeriodSeconds": 10}),
        ),
        (
            "KubeControllersConfiguration",
            json!({"controllers": {"node": {"hostEndpoint": {"autoCreate": "Enabled",
                "templates": [{"generateName": "t", "interfacePattern": "eth.*", "nodeSelector": "all()"}]}}}}),
        ),
        ("FelixConfiguration", json!({"logSeverityScreen": "Debug", "vxlanMTU": 1400})),
        ("ClusterInformation", json!({"clusterType": "k8s", "datastoreReady": true})),
        ("Node", json!({"bgp": {"asNumber": 64_514, "ipv4Address": "10.0.0.1/24"}})),
    ];
    let mut all: Vec<Value> = objects
        .into_iter()
        .map(|(kind, spec)| {
            let single =
                ["ClusterInformation", "IPAMConfiguration", "KubeControllersConfiguration"]
                    .contains(&kind);
            json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "spec": spec,
                "metadata": {"name": if single { "default" } else { "x" }, "labels": {"a": "b"}}})
        })
        .collect();
    all.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "x", "namespace": "n"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "ports": [{"port": 80, "endPort": 90}]}]}}));
    all.push(json!({"apiVersion": "operator.tigera.io/v1", "kind": "Installation",
        "metadata": {"name": "default"}, "spec": {"variant": "Calico"}}));
    all
}

/// Reads, writes, reads: the same typed object; and the text forms say the same.
fn round<S: Spec>(object: &Value) {
    let typed: Object<S> = serde_json::from_value(object.clone()).unwrap();
    let written = serde_json::to_value(&typed).unwrap();
    let again: Object<S> = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(again, typed, "{written}");
    let json: Object<S> = serde_json::from_str(&written.to_string()).unwrap();
    assert_eq!(json, typed, "{written}");
    let text = serde_saphyr::to_string(&written).unwrap();
    let documents: Vec<_> = api::yaml::documents(&text).collect();
    assert_eq!(documents.len(), 1, "{text}");
    let read = documents[0].object.clone().unwrap_or_else(|e| panic!("{e} in:\n{text}"));
    assert_eq!(serde_json::from_value::<Object<S>>(read).unwrap(), typed, "{text}");
}

/// What a valid object must be able to go through.
fn use_it(object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    if object["apiVersion"] == "networking.k8s.io/v1" {
        let policy = serde_json::from_value(object.clone()).unwrap();
        drop(convert::kubernetes_network_policy(&policy));
        return;
    }
    match kind {
        "NetworkPolicy" => {
            round::<v3::NetworkPolicySpec>(object);
            drop(convert::network_policy(&serde_json::from_value(object.clone()).unwrap()));
        }
        "GlobalNetworkPolicy" => {
            round::<v3::GlobalNetworkPolicySpec>(object);
            drop(convert::global_network_policy(&serde_json::from_value(object.clone()).unwrap()));
        }
        "StagedNetworkPolicy" => round::<v3::StagedNetworkPolicySpec>(object),
        "StagedGlobalNetworkPolicy" => round::<v3::StagedGlobalNetworkPolicySpec>(object),
        "StagedKubernetesNetworkPolicy" => round::<v3::StagedKubernetesNetworkPolicySpec>(object),
        "Tier" => round::<v3::TierSpec>(object),
        "Profile" => round::<v3::ProfileSpec>(object),
        "NetworkSet" => round::<v3::NetworkSetSpec>(object),
        "GlobalNetworkSet" => round::<v3::GlobalNetworkSetSpec>(object),
        "HostEndpoint" => round::<v3::HostEndpointSpec>(object),
        "IPPool" => round::<v3::IPPoolSpec>(object),
        "IPReservation" => round::<v3::IPReservationSpec>(object),
        "IPAMConfiguration" => round::<v3::IPAMConfigurationSpec>(object),
        "IPAMBlock" => round::<v3::IPAMBlockSpec>(object),
        "IPAMHandle" => round::<v3::IPAMHandleSpec>(object),
        "BlockAffinity" => round::<v3::BlockAffinitySpec>(object),
        "BGPConfiguration" => round::<v3::BGPConfigurationSpec>(object),
        "BGPPeer" => round::<v3::BGPPeerSpec>(object),
        "BGPFilter" => round::<v3::BGPFilterSpec>(object),
        "CalicoNodeStatus" => round::<v3::CalicoNodeStatusSpec>(object),
        "KubeControllersConfiguration" => round::<v3::KubeControllersConfigurationSpec>(object),
        "FelixConfiguration" => round::<v3::FelixConfigurationSpec>(object),
        "ClusterInformation" => round::<v3::ClusterInformationSpec>(object),
        "Node" => round::<v3::NodeSpec>(object),
        "Installation" => round::<operator::InstallationSpec>(object),
        other => panic!("{other} is not tried"),
    }
}

/// Defaulting twice is defaulting once, and makes nothing invalid that was valid.
fn defaulted(object: &Value) -> Option<Value> {
    let errors = api::validate(object, None);
    let kind = api::kind_of(object).ok()?;
    let mut once = object.clone();
    kind.default(&mut once);
    let mut twice = once.clone();
    kind.default(&mut twice);
    assert_eq!(once, twice, "defaulting {object}");
    if !errors.is_empty() {
        return None;
    }
    assert_eq!(api::validate(&once, None), [], "once defaulted: {once}");
    Some(once)
}

#[test]
fn good_objects_are_good() {
    for object in good() {
        assert_eq!(api::validate(&object, None), [], "{object}");
        use_it(&object);
        use_it(&defaulted(&object).unwrap());
    }
}

/// A place in an object, and what happens there. The place is taken modulo the number of places.
type Mutation = (usize, Change);

#[derive(Clone, Debug)]
enum Change {
    Put(Value),
    Remove,
    Rename(String),
    Repeat,
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9 :/.()='&|!-]{0,12}".prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "Allow",
            "Pass",
            "all()",
            "a == 'b'",
            "10.0.0.0/8",
            "10.0.0.1/8",
            "fd00::/8",
            "::ffff:1.2.3.4",
            "1:2",
            "65535:1",
            "0",
            "default",
            "true",
            "null",
            "1e3",
            "Always",
            "CrossSubnet",
            "18446744073709551616",
        ])
        .prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,10}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let change = prop_oneof![
        4 => leaf().prop_map(Change::Put),
        2 => value().prop_map(Change::Put),
        2 => Just(Change::Remove),
        1 => "[a-zA-Z]{1,10}".prop_map(Change::Rename),
        1 => Just(Change::Repeat),
    ];
    (any::<usize>(), change)
}

/// Every place below an object, as JSON pointers of the parent and the key.
fn places(value: &Value, at: &str, all: &mut Vec<(String, String)>) {
    let mut go = |key: String, inner: &Value| {
        all.push((at.to_owned(), key.clone()));
        let key = key.replace('~', "~0").replace('/', "~1");
        places(inner, &format!("{at}/{key}"), all);
    };
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                go(key.clone(), inner);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                go(i.to_string(), inner);
            }
        }
        _ => (),
    }
}

fn mutate(object: &mut Value, (place, change): Mutation) {
    let mut all = Vec::new();
    places(object, "", &mut all);
    if all.is_empty() {
        return;
    }
    let (parent, key) = &all[place % all.len()];
    match object.pointer_mut(parent).unwrap() {
        Value::Object(map) => match change {
            Change::Put(value) => drop(map.insert(key.clone(), value)),
            Change::Remove => drop(map.remove(key)),
            Change::Rename(to) => {
                let value = map.remove(key).unwrap();
                map.insert(to, value);
            }
            Change::Repeat => drop(map.insert(format!("{key}s"), map[key].clone())),
        },
        Value::Array(items) => {
            let index: usize = key.parse().unwrap();
            match change {
                Change::Put(value) => items[index] = value,
                Change::Remove | Change::Rename(_) => drop(items.remove(index)),
                Change::Repeat => items.push(items[index].clone()),
            }
        }
        _ => unreachable!("only these have places"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn mutated_objects_are_refused_or_keep_their_meaning(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let mut object = which.get(&good()).clone();
        let old = object.clone();
        for mutation in mutations {
            mutate(&mut object, mutation);
        }
        // As the server sees an update.
        drop(api::validate(&object, Some(&old)));
        drop(api::validate(&old, Some(&object)));
        if let Some(valid) = defaulted(&object) {
            use_it(&valid);
        }
    }

    #[test]
    fn any_value_is_refused_in_peace(value in value(), text in "\\PC{0,60}") {
        drop(api::validate(&value, None));
        for kind in api::kinds() {
            let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind,
                "metadata": {"name": "x"}, "spec": value});
            drop(defaulted(&object));
        }
        api::yaml::documents(&text).for_each(drop);
    }
}
