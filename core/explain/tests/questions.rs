//! Objects as files have them, questions as users ask them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use explain::{Asker, Cluster, Expectation, Question, ask_line, check_line, match_line, matrix};
use serde_json::{Value, json};

fn cluster(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    for object in objects {
        cluster.add(object.clone()).unwrap_or_else(|e| panic!("{object}: {e:?}"));
    }
    cluster
}

fn pod(namespace: &str, name: &str, labels: &Value, ip: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i",
            "ports": [{"name": "web", "containerPort": 80}]}]},
    });
    if let Some(ip) = ip {
        pod["status"] = json!({"podIP": ip, "podIPs": [{"ip": ip}]});
    }
    pod
}

fn shop() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        pod("shop", "web", &json!({"app": "web"}), Some("10.1.0.1")),
        pod("shop", "db", &json!({"app": "db"}), None),
        pod("other", "x", &json!({}), Some("10.1.0.3")),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "db"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                    "ports": [{"port": "web"}],
                }],
            },
        }),
    ]
}

fn line(objects: &[Value], question: &str) -> Value {
    let cluster = cluster(objects);
    let view = cluster.view();
    serde_json::from_str(&ask_line(&Asker::new(&cluster, &view), question)).unwrap()
}

#[test]
fn a_packet_and_the_rule_that_decided() {
    let got = line(&shop(), r#"{"from":"shop/web","to":"shop/db","protocol":"TCP","port":80}"#);
    let rule = json!({
        "verdict": "allow", "tier": "default", "kind": "KubernetesNetworkPolicy",
        "namespace": "shop", "policy": "db", "rule": 0, "reason": "rule",
    });
    assert_eq!(got["verdict"], "allow");
    assert_eq!(got["ingress"], rule);
    assert_eq!(got["egress"]["reason"], "profile");

    let got = line(&shop(), r#"{"from":"other/x","to":"shop/db","port":80}"#);
    let end = json!({
        "verdict": "deny", "tier": "default", "kind": null, "namespace": null,
        "policy": null, "rule": null, "reason": "tier-default",
    });
    assert_eq!(got, json!({"verdict": "deny", "egress": got["egress"], "ingress": end}));
}

#[test]
fn every_kind_of_end() {
    let mut objects = shop();
    objects.extend([
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.16.0.1"}]},
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
            "metadata": {"name": "n1-eth0"}, "spec": {"node": "n1", "interfaceName": "eth0"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "db"},
            "spec": {"ports": [{"name": "sql", "port": 5432, "targetPort": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "shop", "name": "db-1",
                "labels": {"kubernetes.io/service-name": "db"}},
            "ports": [{"name": "sql", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}],
        }),
    ]);
    let ask = |question: &str| line(&objects, question);
    let got = ask(r#"{"from":"shop/web","to":"node:n1","port":22}"#);
    assert_eq!(got["ingress"]["reason"], "failsafe", "{got}");
    let got = ask(r#"{"from":"shop/web","to":"host:n1-eth0","port":8080}"#);
    assert_eq!(
        (&got["verdict"], &got["ingress"]["reason"]),
        (&json!("deny"), &json!("no-profile"))
    );
    let got = ask(r#"{"from":"203.0.113.7","to":"shop/web","port":80}"#);
    assert_eq!(got["egress"]["reason"], "not-an-endpoint");
    let got = ask(r#"{"from":"other/x","to":"service:shop/db","port":5432}"#);
    assert_eq!(got["verdict"], "allow");
    assert_eq!(
        (&got["backends"][0]["to"], &got["backends"][0]["port"]),
        (&json!("10.1.0.1"), &json!(80))
    );
    let got = ask(r#"{"from":"shop/web","to":"shop/web","port":80}"#);
    assert_eq!(got["ingress"]["reason"], "same-host");
}

#[test]
fn bad_lines_say_what_is_wanted() {
    for (question, part) in [
        ("{", "EOF"),
        (r#"{"from":"shop/web","to":"shop/db","port":80,"colour":1}"#, "unknown field `colour`"),
        (r#"{"from":"shop/web","to":"shop/db"}"#, "port: TCP needs one"),
        (r#"{"from":"shop/web","to":"shop/no","port":80}"#, "to: there is no pod shop/no"),
        (r#"{"from":"web","to":"shop/db","port":80}"#, "from: \"web\" names no end"),
        (r#"{"from":"shop/web","to":"shop/db","port":70000}"#, "70000"),
        (r#"{"from":"shop/web","to":"shop/db","protocol":"ICMP","port":8}"#, "port: ICMP has none"),
        (
            r#"{"from":"shop/web","to":"shop/db","protocol":"QUIC","port":8}"#,
            "\"QUIC\" is no protocol",
        ),
        (r#"{"from":"shop/web","to":"fd00::1","port":80}"#, "no address of one family"),
        (r#"{"from":"service:shop/db","to":"shop/db","port":80}"#, "a service cannot be a source"),
        (r#"{"from":"shop/web","to":"service:shop/db","port":80}"#, "there is no service shop/db"),
    ] {
        let got = line(&shop(), question);
        let error = got["error"].as_str().unwrap_or_else(|| panic!("{question}: {got}"));
        assert!(error.contains(part), "{question}: {error}");
    }
}

#[test]
fn bad_objects_are_refused_with_their_field() {
    let mut cluster = Cluster::default();
    let errors = cluster
        .add(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "p"}, "spec": {"selector": "a ==", "order": 1},
        }))
        .unwrap_err();
    assert_eq!(errors[0].field, "spec.selector");
    cluster.add(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}})).unwrap();
}

#[test]
fn all_pairs_and_expectations() {
    let cluster = cluster(&shop());
    let view = cluster.view();
    let asker = Asker::new(&cluster, &view);
    let question = Question { port: Some(80), ..Question::default() };
    let got = matrix(&asker, &question).unwrap();
    assert_eq!(got.pods, ["other/x", "shop/db", "shop/web"]);
    assert_eq!(got.verdicts, ["ada", "aaa", "aaa"]);
    assert!(matrix(&asker, &Question::default()).unwrap_err().contains("port"));

    let expect = |text: Value| serde_json::from_value::<Expectation>(text).unwrap().test(&asker);
    let good = expect(json!({"from": "other/x", "to": "shop/db", "port": 80, "expect": "deny"}));
    assert!(good.pass);
    let bad = expect(json!({"from": "shop/web", "to": "shop/db", "port": 80, "expect": "deny"}));
    let told = json!(bad);
    assert_eq!(
        (&told["pass"], &told["got"], &told["expect"]),
        (&json!(false), &json!("allow"), &json!("deny"))
    );
    assert_eq!(told["ingress"]["policy"], "db");
    for bad in [
        json!({"from": "a/x", "to": "a/y"}),
        json!({"from": "a/x", "to": "a/y", "expect": "no"}),
        json!({"from": "a/x", "to": "a/y", "expect": "deny", "colour": 1}),
    ] {
        assert!(serde_json::from_value::<Expectation>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn selectors() {
    let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let got = parsed(&check_line(r#"{"selector":"a=='b'&&has(c)"}"#));
    assert_eq!(got["canonical"], "(a == \"b\" && has(c))");
    assert!(got["id"].as_str().unwrap().starts_with("s:"));
    assert_eq!(
        parsed(&match_line(r#"{"selector":"a == 'b'","labels":{"a":"b"}}"#)),
        json!({"match": true})
    );
    let bad = parsed(&match_line(r#"{"selector":"a == ","labels":{}}"#));
    assert!(bad["error"].is_string() && bad["at"].is_u64(), "{bad}");
    assert!(parsed(&check_line(r#"{"selector":"a","x":1}"#))["error"].is_string());
}

#[test]
fn the_destination_before_translation() {
    let mut objects = shop();
    objects.extend([
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.16.0.1"}]},
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
            "metadata": {"name": "n1-all", "labels": {"kind": "node"}},
            "spec": {"node": "n1", "interfaceName": "*"},
        }),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "node-ports"},
            "spec": {
                "selector": "kind == 'node'", "preDNAT": true, "applyOnForward": true,
                "types": ["Ingress"],
                "ingress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [30080]}}],
            },
        }),
    ]);
    for pod in &mut objects {
        if pod["kind"] == "Pod" {
            pod["spec"]["nodeName"] = json!("n1");
        }
    }
    let ask = |end: &str| {
        let question = format!(r#"{{"from":"203.0.113.7","to":"shop/web","port":80{end}}}"#);
        line(&objects, &question)
    };
    assert_eq!(ask("")["verdict"], "allow");
    assert_eq!(ask(r#","preDnatTo":"172.16.0.1""#)["verdict"], "allow", "port 80");
    let got = ask(r#","preDnatTo":"172.16.0.1:30080""#);
    assert_eq!(got["ingress"]["policy"], "node-ports");
    assert_eq!(got["ingress"]["stage"], "pre-dnat");
    for (wrong, what) in [("x", "want an address"), ("[fd00::1]:80", "is not of the family")] {
        let got = ask(&format!(r#","preDnatTo":"{wrong}""#));
        assert!(got["error"].as_str().unwrap().contains(what), "{got}");
    }
}
