//! What cannot be read, and what is in force in its place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use api::convert::update::{Told, update};
use model::policy::Stage;
use model::{Action, Policy, Rule, Update};
use serde_json::{Value, json};

fn object(api: &str, kind: &str, namespace: &str, spec: Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": "p", "namespace": namespace},
        "spec": spec})
}

fn network_policy(spec: Value) -> Value {
    object("projectcalico.org/v3", "NetworkPolicy", "n", spec)
}

fn global(spec: Value) -> Value {
    object("projectcalico.org/v3", "GlobalNetworkPolicy", "", spec)
}

fn kubernetes(spec: Value) -> Value {
    object("networking.k8s.io/v1", "NetworkPolicy", "n", spec)
}

fn cluster(spec: Value) -> Value {
    object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", spec)
}

fn told(object: &Value) -> Told {
    update(object, "cali").unwrap().unwrap_or_else(|e| panic!("{object}: {e}"))
}

fn read(object: &Value) -> (Policy, Vec<String>, bool) {
    let Told { update, errors, stand_in } = told(object);
    let Some(Update::Policy(_, Some(policy))) = update else { panic!("{object}: {update:?}") };
    (Policy::clone(&policy), errors.into_iter().map(|e| e.field).collect(), stand_in)
}

/// Rules as `action@index`, `!` after those that match everything.
fn rules(of: &[Rule]) -> String {
    let show = |r: &Rule| {
        let any = Rule { origin: r.origin, ..Rule::any(r.action) } == *r;
        format!("{:?}@{}{}", r.action, r.origin, if any { "!" } else { "" })
    };
    of.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn rules_that_cannot_be_read_fail_closed_alone() {
    let good = json!({"action": "Allow", "protocol": "TCP"});
    for (bad, wanted) in [
        (json!({"action": "Allow", "source": 3}), "Allow@0 Allow@2"),
        (json!({"action": "Log", "source": {"nets": "10.0.0.0/8"}}), "Allow@0 Allow@2"),
        (json!({"action": "Deny", "destination": {"ports": 80}}), "Allow@0 Deny@1! Allow@2"),
        (json!({"action": "Pass", "icmp": 3}), "Allow@0 Deny@1! Allow@2"),
        (json!({"action": "Reject"}), "Allow@0 Deny@1! Allow@2"),
        (json!({"action": null}), "Allow@0 Deny@1! Allow@2"),
        (json!("Allow"), "Allow@0 Deny@1! Allow@2"),
    ] {
        let spec =
            json!({"selector": "a == 'b'", "types": ["Ingress"], "ingress": [good, bad, good]});
        for object in [network_policy(spec.clone()), global(spec)] {
            let (policy, fields, stand_in) = read(&object);
            assert_eq!(rules(&policy.ingress), wanted, "{object}");
            assert_eq!((fields, stand_in), (vec!["spec.ingress[1]".to_owned()], false), "{object}");
            assert!(policy.selector.canonical().contains("a == \"b\""), "{object}");
        }
    }
    // Those of Kubernetes only allow.
    let (policy, fields, _) =
        read(&kubernetes(json!({"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": 3}, {"ports": [{"port": 53}]}]})));
    assert_eq!(rules(&policy.egress), "Allow@1");
    assert_eq!(fields, ["spec.egress[0]"]);
    let (policy, fields, _) = read(&cluster(json!({"tier": "Admin", "priority": 3,
        "subject": {"namespaces": {}}, "ingress": [{"action": "Accept", "from": 3},
            {"action": "Pass", "from": 3}, {"from": 3}, {"action": "Accept", "from": [{"namespaces": {}}]}]})));
    assert_eq!(rules(&policy.ingress), "Deny@1! Deny@2! Allow@3");
    assert_eq!(fields, ["spec.ingress[0]", "spec.ingress[1]", "spec.ingress[2]"]);
}

#[test]
fn policies_that_cannot_be_read_deny_whom_they_may_be_about() {
    let own = "projectcalico.org/namespace == \"n\"";
    let k8s = "projectcalico.org/orchestrator == \"k8s\"";
    let allow = json!([{"action": "Allow"}]);
    for (object, whom, directions, place, field) in [
        (
            network_policy(
                json!({"selector": "a ==", "types": ["Ingress"], "order": 5, "tier": "t"}),
            ),
            own.to_owned(),
            (true, false),
            ("t", Some(5.0)),
            "spec.selector",
        ),
        (
            network_policy(json!({"selector": 3, "types": ["Egress"]})),
            own.to_owned(),
            (false, true),
            ("default", None),
            "spec.selector",
        ),
        (
            network_policy(
                json!({"selector": "a == 'b'", "order": "5", "ingress": allow, "egress": allow}),
            ),
            format!("({own} && a == \"b\")"),
            (true, true),
            ("default", Some(f64::MIN)),
            "spec.order",
        ),
        (
            network_policy(json!({"selector": "a == 'b'", "types": ["Sideways"]})),
            format!("({own} && a == \"b\")"),
            (true, true),
            ("default", None),
            "spec.types",
        ),
        (
            network_policy(json!({"serviceAccountSelector": "(", "namespaceSelector": "x == 'y'"})),
            own.to_owned(),
            (true, false),
            ("default", None),
            "spec.serviceAccountSelector",
        ),
        (
            network_policy(json!({"ingress": {"action": "Allow"}})),
            own.to_owned(),
            (true, false),
            ("default", None),
            "spec.ingress",
        ),
        (
            global(
                json!({"selector": "a == 'b'", "namespaceSelector": "c =", "tier": "t", "order": 1}),
            ),
            "a == \"b\"".into(),
            (true, false),
            ("t", Some(1.0)),
            "spec.namespaceSelector",
        ),
        (
            global(
                json!({"selector": "nonsense", "egress": allow, "namespaceSelector": "global()"}),
            ),
            "!has(projectcalico.org/namespace)".into(),
            (false, true),
            ("default", None),
            "spec.selector",
        ),
        (network_policy(json!("deny")), own.to_owned(), (true, true), ("default", None), ""),
        (
            global(json!({"tier": 7, "selector": "a == 'b'"})),
            "a == \"b\"".into(),
            (true, false),
            ("default", None),
            "spec.tier",
        ),
        (
            kubernetes(
                json!({"podSelector": {"matchLabels": {"a": 3}}, "policyTypes": ["Ingress", "Egress"]}),
            ),
            format!("({own} && {k8s})"),
            (true, true),
            ("default", Some(1000.0)),
            "spec.podSelector",
        ),
        (
            kubernetes(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            ),
            format!("({own} && {k8s})"),
            (true, false),
            ("default", Some(1000.0)),
            "spec.podSelector",
        ),
        (
            kubernetes(
                json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": "Egress"}),
            ),
            format!("({own} && ({k8s} && a == \"b\"))"),
            (true, true),
            ("default", Some(1000.0)),
            "spec.policyTypes",
        ),
    ] {
        let (policy, fields, stand_in) = read(&object);
        assert!(stand_in, "{object}");
        assert_eq!(fields, [field, "spec"], "{object}");
        assert_eq!(policy.selector.canonical(), whom, "{object}");
        assert_eq!((policy.applies_ingress, policy.applies_egress), directions, "{object}");
        assert_eq!((policy.tier.as_str(), policy.order), place, "{object}");
        let rule = |applies: bool| if applies { "Deny@0!" } else { "" };
        assert_eq!(rules(&policy.ingress), rule(directions.0), "{object}");
        assert_eq!(rules(&policy.egress), rule(directions.1), "{object}");
        assert!(!policy.staged && policy.stage == Stage::Normal);
        assert_eq!(
            policy.id.kind.as_str() == "GlobalNetworkPolicy",
            !policy.apply_on_forward,
            "{object}"
        );
    }
    let (policy, ..) = read(&global(json!({"types": 3, "preDNAT": true, "applyOnForward": "x"})));
    assert!(policy.stage == Stage::PreDnat && policy.apply_on_forward);
    let (policy, ..) = read(&global(json!({"order": "x", "doNotTrack": true})));
    assert!(policy.stage == Stage::Untracked);
}

#[test]
fn what_is_wrong_beside_the_specification_changes_nothing() {
    let spec = json!({"selector": "a == 'b'", "ingress": [{"action": "Allow"}]});
    let mut object = network_policy(spec);
    object["metadata"]["labels"] = json!({"a": 3});
    let (policy, fields, stand_in) = read(&object);
    assert_eq!(
        (rules(&policy.ingress), fields, stand_in),
        ("Allow@0!".into(), vec!["metadata".into()], false)
    );
}

#[test]
fn nothing_is_in_force_in_place_of_some() {
    let staged = |kind| object("projectcalico.org/v3", kind, "n", json!({"selector": "("}));
    let mut nameless = network_policy(json!({"selector": "("}));
    nameless["metadata"] = json!({});
    for object in [
        staged("StagedNetworkPolicy"),
        staged("StagedGlobalNetworkPolicy"),
        cluster(json!({"tier": "Admin", "priority": 1, "subject": 3})),
        cluster(json!({"tier": "None", "priority": 1, "subject": {"namespaces": {}}})),
        nameless,
        object("networking.k8s.io/v1", "NetworkPolicy", "", json!({"podSelector": 3})),
        global(json!({"selector": "a ==", "order": 1})),
        global(json!({"selector": 3})),
        global(json!(3)),
        object("projectcalico.org/v3", "HostEndpoint", "", json!({"node": 3})),
        object(
            "projectcalico.org/v3",
            "HostEndpoint",
            "",
            json!({"node": "n", "interfaceName": "a name that no interface has"}),
        ),
    ] {
        assert!(update(&object, "cali").unwrap().is_err(), "{object}");
    }
}

#[test]
fn tiers_and_host_endpoints_do_without_what_cannot_be_read() {
    let tier = |spec: Value| object("projectcalico.org/v3", "Tier", "", spec);
    let Told { update: Some(Update::Tier(_, Some(read))), errors, .. } =
        told(&tier(json!({"order": "first", "defaultAction": "Allow"})))
    else {
        panic!("a tier");
    };
    assert_eq!((read.order, read.default_action), (None, Action::Deny));
    let fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["spec.order", "spec.defaultAction"]);
    let host = object(
        "projectcalico.org/v3",
        "HostEndpoint",
        "",
        json!({"node": "n",
        "interfaceName": "eth0", "expectedIPs": "10.0.0.1", "profiles": 3, "ports": [{"port": "x"}]}),
    );
    let Told { update: Some(Update::Host(_, Some(host))), errors, .. } = told(&host) else {
        panic!("a host endpoint");
    };
    assert!(host.node.as_str() == "n" && host.profiles.is_empty() && host.addresses.is_empty());
    assert_eq!(errors.len(), 3);
}
