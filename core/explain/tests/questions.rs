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

/// Three houses with two pods each, as the conformance suite of the API has them, and who reaches
/// whom over TCP to port 80 and 443 under each list of policies. Rows and columns: g1 g2 h1 h2 s1 s2.
#[test]
fn cluster_network_policies() {
    let houses = ["gryffindor", "hufflepuff", "slytherin"];
    let mut base = Vec::new();
    for (i, house) in houses.iter().enumerate() {
        base.push(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": house, "labels": {"house": house}}}));
        for n in 1..=2 {
            let (name, ip) = (format!("p{n}"), format!("10.{}.0.{n}", i + 1));
            base.push(pod(house, &name, &json!({"n": n.to_string()}), Some(&ip)));
        }
    }
    let all = ["aaaaaa"; 6];
    let house = |name: &str| json!({"namespaces": {"matchLabels": {"house": name}}});
    let policy = |name: &str, tier: &str, priority: i32, rules: Value| {
        let mut spec = json!({"tier": tier, "priority": priority, "subject": house("gryffindor")});
        spec.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name}, "spec": spec})
    };
    let from = |action: &str, peer: Value| json!({"ingress": [{"action": action, "from": [peer]}]});
    let to = |action: &str, peer: Value| json!({"egress": [{"action": action, "to": [peer]}]});
    let deny_s = || policy("deny-s", "Admin", 10, from("Deny", house("slytherin")));
    let isolate = || {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "gryffindor", "name": "closed"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}})
    };
    let p1 = json!({"pods": {"namespaceSelector": {"matchLabels": {"house": "slytherin"}},
        "podSelector": {"matchLabels": {"n": "1"}}}});
    let g_closed = ["adaaaa", "daaaaa", "ddaaaa", "ddaaaa", "ddaaaa", "ddaaaa"];
    let mut only_p1 = g_closed;
    only_p1[4] = "aaaaaa";
    let mut pods = policy("subject", "Admin", 1, from("Deny", house("hufflepuff")));
    pods["spec"]["subject"] =
        json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"n": "2"}}}});
    let ports = |action: &str, protocols: Value| json!({"ingress": [{"action": action, "from": [house("slytherin")], "protocols": protocols}]});
    let tcp = |port: Value| json!([{"tcp": {"destinationPort": port}}]);
    let closed_s = ["aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "ddaaaa", "ddaaaa"];
    type Rows = [&'static str; 6];
    let cases: Vec<(&str, Vec<Value>, Rows, Rows)> = vec![
        ("nothing", vec![], all, all),
        ("deny a namespace", vec![deny_s()], closed_s, closed_s),
        (
            "deny on the way out",
            vec![policy("x", "Admin", 1, to("Deny", house("slytherin")))],
            ["aaaadd", "aaaadd", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa"],
            ["aaaadd", "aaaadd", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa"],
        ),
        (
            "accept overrules a NetworkPolicy",
            vec![isolate(), policy("ok", "Admin", 1, from("Accept", p1.clone()))],
            only_p1,
            only_p1,
        ),
        (
            "pass leaves it to the NetworkPolicy",
            vec![isolate(), policy("pass", "Admin", 1, from("Pass", p1.clone()))],
            g_closed,
            g_closed,
        ),
        (
            "the lower priority is first",
            vec![deny_s(), policy("ok", "Admin", 9, from("Accept", p1.clone()))],
            ["aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "ddaaaa"],
            ["aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "ddaaaa"],
        ),
        (
            "pass skips the rest of the tier",
            vec![deny_s(), policy("pass", "Admin", 9, from("Pass", p1.clone()))],
            ["aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "ddaaaa"],
            ["aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa", "ddaaaa"],
        ),
        (
            "baseline acts where no NetworkPolicy selects",
            vec![policy("base", "Baseline", 1, from("Deny", json!({"namespaces": {}})))],
            g_closed,
            g_closed,
        ),
        (
            "a NetworkPolicy overrules baseline",
            vec![
                policy("base", "Baseline", 1, from("Accept", json!({"namespaces": {}}))),
                isolate(),
            ],
            g_closed,
            g_closed,
        ),
        (
            "pods as the subject",
            vec![pods],
            ["aaaaaa", "aaaaaa", "adadad", "adaaad", "aaaaaa", "aaaaaa"],
            ["aaaaaa", "aaaaaa", "adadad", "adaaad", "aaaaaa", "aaaaaa"],
        ),
        (
            "a port",
            vec![policy("x", "Admin", 1, ports("Deny", tcp(json!({"number": 80}))))],
            closed_s,
            all,
        ),
        (
            "a range",
            vec![policy(
                "x",
                "Admin",
                1,
                ports("Deny", tcp(json!({"range": {"start": 81, "end": 443}}))),
            )],
            all,
            closed_s,
        ),
        (
            "another protocol",
            vec![policy("x", "Admin", 1, ports("Deny", json!([{"udp": {}}])))],
            all,
            all,
        ),
        (
            "a named port",
            vec![policy("x", "Admin", 1, ports("Deny", json!([{"destinationNamedPort": "web"}])))],
            closed_s,
            all,
        ),
        (
            "networks",
            vec![policy("x", "Admin", 1, to("Deny", json!({"networks": ["10.3.0.0/24"]})))],
            ["aaaadd", "aaaadd", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa"],
            ["aaaadd", "aaaadd", "aaaaaa", "aaaaaa", "aaaaaa", "aaaaaa"],
        ),
    ];
    for (what, policies, on_80, on_443) in cases {
        let mut objects = base.clone();
        objects.extend(policies);
        let cluster = cluster(&objects);
        assert!(cluster.problems.is_empty(), "{what}");
        let view = cluster.view();
        let asker = Asker::new(&cluster, &view);
        for (port, wanted) in [(80, on_80), (443, on_443)] {
            let question = Question { port: Some(port), ..Question::default() };
            let got = matrix(&asker, &question).unwrap();
            let got = serde_json::to_value(&got).unwrap();
            assert_eq!(got["verdicts"], json!(wanted), "{what}, port {port}");
        }
    }
}

#[test]
fn staged_policies_change_nothing_until_they_are_asked_for() {
    let staged = |name: &str, kind: &str, spec: Value| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind,
            "metadata": {"namespace": "shop", "name": name}, "spec": spec})
    };
    let verdicts = |more: Vec<Value>| {
        let mut objects = shop();
        objects.extend(more);
        let cluster = cluster(&objects);
        let question = Question { port: Some(80), ..Question::default() };
        let (now, then) = (cluster.view(), cluster.staged_view());
        let [now, then] =
            [&now, &then].map(|view| matrix(&Asker::new(&cluster, view), &question).unwrap());
        let changes = now.changes(&then);
        (now.verdicts, then.verdicts, changes)
    };
    // other/x, shop/db, shop/web: the database is the web server's alone.
    let now = ["ada", "aaa", "aaa"];
    let (is, would, changes) = verdicts(vec![]);
    assert_eq!(
        (is, would, changes),
        (now.map(str::to_owned).into(), now.map(str::to_owned).into(), vec![])
    );
    let closed =
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]});
    let open = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{}]});
    let from_x = json!({"selector": "app == 'web'", "types": ["Ingress"], "ingress": [
        {"action": "Deny", "source": {"namespaceSelector": "projectcalico.org/name == 'other'"}},
        {"action": "Allow"}]});
    let kubernetes = "StagedKubernetesNetworkPolicy";
    let cases = [
        ("a new policy", staged("web", kubernetes, closed), ["add", "aad", "aaa"]),
        ("the policy of the same name", staged("db", kubernetes, open), ["aaa", "aaa", "aaa"]),
        ("its deletion", staged("db", kubernetes, json!({"stagedAction": "Delete"})), ["aaa"; 3]),
        (
            "a policy of ours",
            staged("x", "StagedNetworkPolicy", from_x.clone()),
            ["add", "aaa", "aaa"],
        ),
        ("a global one", staged("x", "StagedGlobalNetworkPolicy", from_x), ["add", "aaa", "aaa"]),
    ];
    for (what, mut object, then) in cases {
        if object["kind"] == "StagedGlobalNetworkPolicy" {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        let (is, would, changes) = verdicts(vec![object]);
        assert_eq!(is, now, "{what}");
        assert_eq!(would, then, "{what}");
        assert!(!changes.is_empty(), "{what}");
        for change in changes {
            assert_ne!(change.now, change.staged, "{what}");
        }
    }
}

#[test]
fn what_stands_in_for_a_policy_is_called_invalid() {
    let policy = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "odd"},
        "spec": {"selector": "app = 'db'", "types": ["Egress"], "egress": [{"action": "Allow"}]}});
    let mut cluster = cluster(&shop());
    assert!(cluster.add(policy.clone()).is_err(), "an API server refuses it");
    cluster.add_stored(policy).unwrap();
    let fields: Vec<_> = cluster.problems.iter().map(|p| p.error.field.as_str()).collect();
    assert_eq!(fields, ["spec.selector", "spec"]);
    let view = cluster.view();
    let ask = |question| -> Value {
        serde_json::from_str(&ask_line(&Asker::new(&cluster, &view), question)).unwrap()
    };
    let denied = ask(r#"{"from":"shop/web","to":"other/x","port":80}"#);
    let egress = json!({"verdict": "deny", "tier": "default", "kind": "NetworkPolicy",
        "namespace": "shop", "policy": "odd", "rule": null, "reason": "invalid"});
    assert_eq!((&denied["verdict"], &denied["egress"]), (&json!("deny"), &egress), "{denied}");
    let other = ask(r#"{"from":"other/x","to":"shop/web","port":80}"#);
    assert_eq!(other["verdict"], "allow", "neither its direction nor its namespace: {other}");
}

#[test]
fn a_rule_that_nobody_understands_is_called_invalid() {
    let policy = |action: &str| {
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "names"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [
                {"action": "Pass", "to": [{"networks": ["192.0.2.0/24"]}]},
                {"action": action, "to": [{"domainNames": ["example.org"]}]}]}})
    };
    let ask = |action: &str| {
        let mut objects = shop();
        objects.push(policy(action));
        line(&objects, r#"{"from":"shop/web","to":"203.0.113.7","port":80}"#)
    };
    let denied = ask("Deny");
    assert_eq!(denied["verdict"], "deny");
    let egress = &denied["egress"];
    assert_eq!((&egress["reason"], &egress["rule"]), (&json!("invalid"), &json!(1)), "{denied}");
    assert_eq!(ask("Accept")["egress"]["reason"], "profile", "a rule that accepts is left out");
}

/// A datastore without Kubernetes has endpoints and nodes of its own.
#[test]
fn endpoints_that_are_objects_of_their_own() {
    let endpoint = |pod: &str, ip: &str, labels: Value| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
            "metadata": {"namespace": "shop", "name": format!("n1-k8s-{pod}-eth0"), "labels": labels},
            "spec": {
                "node": "n1", "orchestrator": "k8s", "pod": pod, "endpoint": "eth0",
                "interfaceName": format!("cali{pod}"), "ipNetworks": [format!("{ip}/32")],
                "profiles": ["kns.shop"],
                "ports": [{"name": "web", "protocol": "TCP", "port": 80}],
            },
        })
    };
    let mut objects = vec![
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n1"},
            "spec": {"bgp": {"ipv4Address": "192.0.2.1/24"}},
        }),
        endpoint("web", "10.1.0.1", json!({"app": "web"})),
        endpoint("db", "10.1.0.2", json!({"app": "db"})),
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "db"},
            "spec": {
                "selector": "app == 'db'",
                "ingress": [{
                    "action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"},
                    "destination": {"ports": ["web"]},
                }],
            },
        }),
    ];
    let verdict = |objects: &[Value], question: &str| line(objects, question)["verdict"].clone();
    assert_eq!(verdict(&objects, r#"{"from":"shop/web","to":"shop/db","port":80}"#), "allow");
    assert_eq!(verdict(&objects, r#"{"from":"shop/web","to":"shop/db","port":81}"#), "deny");
    assert_eq!(verdict(&objects, r#"{"from":"node:n1","to":"shop/db","port":81}"#), "allow");
    // The pod itself says more, whichever is told first.
    objects.push(pod("shop", "web", &json!({"app": "other"}), Some("10.1.0.1")));
    assert_eq!(verdict(&objects, r#"{"from":"shop/web","to":"shop/db","port":80}"#), "deny");
    objects.rotate_right(1);
    assert_eq!(verdict(&objects, r#"{"from":"shop/web","to":"shop/db","port":80}"#), "deny");
}

#[test]
fn a_matrix_wants_a_port_and_shows_who_has_no_common_family() {
    let mut objects = shop();
    objects.push(pod("other", "six", &json!({}), Some("fd00::6")));
    let cluster = cluster(&objects);
    let view = cluster.view();
    let asker = Asker::new(&cluster, &view);
    assert_eq!(matrix(&asker, &Question::default()).unwrap_err(), "port: TCP needs one");
    let got = matrix(&asker, &Question { port: Some(80), ..Question::default() }).unwrap();
    assert_eq!(got.pods, ["other/six", "other/x", "shop/db", "shop/web"]);
    assert_eq!(got.verdicts, ["a---", "-ada", "-aaa", "-aaa"]);
}

/// Pods of one kind, one that has two addresses, and others that have one of these each.
#[test]
fn a_matrix_is_what_each_question_says() {
    let mut objects = shop();
    for (name, ips) in [("p", ["10.1.0.9", "fd00::9"]), ("q", ["10.1.0.9", "fd00::a"])] {
        let mut two = pod("shop", name, &json!({"app": "db"}), Some(ips[0]));
        two["status"]["podIPs"] = json!([{"ip": ips[0]}, {"ip": ips[1]}]);
        objects.push(two);
    }
    objects.push(pod("shop", "r", &json!({"app": "db"}), Some("fd00::9")));
    for n in 0..4 {
        objects.push(pod("shop", &format!("db-{n}"), &json!({"app": "db"}), None));
    }
    let cluster = cluster(&objects);
    let view = cluster.view();
    let asker = Asker::new(&cluster, &view);
    for port in [80, 81] {
        let question = Question { port: Some(port), ..Question::default() };
        let got = matrix(&asker, &question).unwrap();
        for (from, row) in got.pods.iter().zip(&got.verdicts) {
            for (to, letter) in got.pods.iter().zip(row.chars()) {
                let (from, to) = (from.clone(), to.clone());
                let one = asker.ask(&Question { from, to, ..question.clone() }, false);
                let want = match one.map(|answer| answer.verdict.0) {
                    Ok(policy::Verdict::Allow) => 'a',
                    Ok(policy::Verdict::Deny) => 'd',
                    Err(_) => '-',
                };
                assert_eq!(letter, want, "{port}: {got:?}");
            }
        }
        assert_eq!(got.verdicts.len(), 10);
    }
}
