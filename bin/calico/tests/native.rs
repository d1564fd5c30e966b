//! Native `projectcalico.org/v3` in a real Kubernetes API server: admission policies and `calico webhooks`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod behind;
mod serving;

use std::fs;

use behind::{ADDRESS, Ask, Cluster, eventually, kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use serving::{Serving, calico};
use testkit::Extras;

const SERVICE: (&str, &str) = ("kube-system", "calico-webhooks");
const PORT: u16 = 6443;

fn native() -> Cluster {
    let cluster = Cluster::start(Extras { aggregation: true, mutating_policies: true });
    cluster.plane.define("v3");
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/admission.yaml");
    cluster.done(&["apply", "--server-side", "-f", policies], "");
    cluster
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "projectcalico.org/v3", "kind": kind,
        "metadata": {"name": name}, "spec": spec});
    if api::lookup("projectcalico.org/v3", kind).unwrap().namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    object
}

fn samples() -> Vec<Value> {
    let rule = || json!([{"action": "Allow"}]);
    let mut all = Vec::new();
    for kind in
        ["NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"]
    {
        let specs = [
            json!({}),
            json!({"tier": "ops"}),
            json!({"tier": "", "ingress": rule()}),
            json!({"egress": rule()}),
            json!({"egress": rule(), "ingress": rule()}),
            json!({"egress": [], "ingress": []}),
            json!({"types": ["Egress"], "ingress": []}),
            json!({"types": [], "egress": rule()}),
        ];
        all.extend(specs.into_iter().map(|spec| object(kind, "", spec)));
        let mut labelled = object(kind, "", json!({"tier": "ops"}));
        labelled["metadata"]["labels"] = json!({"a": "b", "projectcalico.org/tier": "wrong"});
        all.push(labelled);
    }
    for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
        all.push(object(kind, "", json!({"stagedAction": "Delete"})));
    }
    let kubernetes = "StagedKubernetesNetworkPolicy";
    for spec in [
        json!({}),
        json!({"podSelector": {}, "egress": [{}]}),
        json!({"podSelector": {}, "ingress": [{}]}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
        json!({"stagedAction": "Delete"}),
    ] {
        all.push(object(kubernetes, "", spec));
    }
    for spec in [
        json!({"cidr": "10.0.0.0/16"}),
        json!({"cidr": "fd00::/48", "nodeSelector": ""}),
        json!({"cidr": "10.1.0.0/16", "blockSize": 28, "nodeSelector": "has(a)"}),
    ] {
        all.push(object("IPPool", "", spec));
    }
    all.push(object("Tier", "", json!({"order": 3})));
    all.push(object("Tier", "", json!({"defaultAction": "Pass"})));
    for (at, object) in all.iter_mut().enumerate() {
        object["metadata"]["name"] = format!("n{at}").into();
    }
    all.extend([
        object("Tier", "kube-admin", json!({"order": 1000})),
        object("Tier", "default", json!({"order": 1_000_000})),
        object("Tier", "kube-baseline", json!({"order": 10_000_000})),
    ]);
    all
}

#[test]
fn what_is_stored_is_what_our_own_servers_would_store() {
    let cluster = native();
    let probes = [
        object("IPPool", "probe", json!({"cidr": "10.9.0.0/16"})),
        object("GlobalNetworkPolicy", "probe", json!({})),
        object("Tier", "probe", json!({})),
    ];
    eventually("the policies are in force", || {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": probes}).to_string();
        let made = cluster.done(&["create", "-f", "-", "-o", "json", "--dry-run=server"], &list);
        let all = ["blockSize", "\"types\"", "projectcalico.org/tier", "defaultAction"];
        if all.iter().all(|part| made.contains(part)) { Ok(()) } else { Err(made) }
    });
    let mut differences = Vec::new();
    let samples = samples();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": samples});
    let made = cluster.done(&["create", "-f", "-", "-o", "json"], &list.to_string());
    let made: Vec<Value> =
        serde_json::Deserializer::from_str(&made).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(made.len(), samples.len());
    for (given, stored) in samples.iter().zip(&made) {
        let mut wanted = given.clone();
        api::kind_of(given).unwrap().default(&mut wanted);
        let (has, want) = (&stored["spec"], &wanted["spec"]);
        let (label, wanted_label) = (&stored["metadata"]["labels"], &wanted["metadata"]["labels"]);
        if has != want || label != wanted_label {
            differences
                .push(format!("{given}\n  stored {has} {label}\n  wanted {want} {wanted_label}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    // The label follows the tier.
    let first = ["networkpolicies.projectcalico.org", "n0"];
    let move_to = r#"{"spec":{"tier":"sec"}}"#;
    cluster.done(&["patch", first[0], first[1], "--type=merge", "-p", move_to], "");
    let label = "jsonpath={.metadata.labels.projectcalico\\.org/tier}";
    assert_eq!(cluster.done(&["get", first[0], first[1], "-o", label], ""), "sec");

    eventually("deletions are held against the policy", || {
        let delete = ["delete", "tiers.projectcalico.org", "default", "--dry-run=server"];
        match cluster.kubectl("", &delete, "") {
            Ok(told) => Err(told),
            Err(_) => Ok(()),
        }
    });
    for tier in ["default", "kube-admin", "kube-baseline"] {
        let told = format!("tier {tier} is built in: it cannot be deleted");
        cluster.refused("", &["delete", "tiers.projectcalico.org", tier], "", &[&told]);
    }
    let last =
        samples.iter().rfind(|o| o["kind"] == "Tier" && o["spec"]["defaultAction"] == "Pass");
    let last = last.unwrap()["metadata"]["name"].as_str().unwrap();
    cluster.done(&["delete", "tiers.projectcalico.org", last], "");
}

/// Starts the webhooks and waits until they are asked.
fn hooks(cluster: &Cluster) -> Serving {
    let kubeconfig = cluster.account(SERVICE.0, "calico-webhooks");
    let data = cluster.folder.path().join("data");
    let words = [
        "webhooks",
        "--register",
        "--answers-ttl=1",
        &format!("--kubeconfig={}", kubeconfig.display()),
        &format!("--listen={ADDRESS}:{PORT}"),
        &format!("--data-dir={}", data.display()),
    ];
    let hooks = cluster.serve(&words, "webhooks.log");
    eventually("the webhooks are asked", || {
        let probe = object("GlobalNetworkPolicy", "probe", json!({})).to_string();
        let made = cluster.kubectl("", &["apply", "-f", "-", "--dry-run=server"], &probe);
        made.map_err(|told| format!("{told}\n{}", cluster.log("webhooks.log")))
    });
    hooks
}

fn policy(name: &str, tier: &str) -> String {
    object("NetworkPolicy", name, json!({"tier": tier})).to_string()
}

#[test]
fn webhooks_hold_writes_against_rights_in_tiers() {
    let cluster = native();
    cluster.install("webhooks.yaml", SERVICE, PORT);
    let server = hooks(&cluster);
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: eve}\nrules:\n\
        - {apiGroups: [projectcalico.org], resources: [networkpolicies, globalnetworkpolicies, clusterinformations], verbs: ['*']}\n\
        - {apiGroups: [projectcalico.org], resources: [tiers], resourceNames: [ops], verbs: [get]}\n\
        - {apiGroups: [projectcalico.org], resources: [tier.networkpolicies], resourceNames: ['ops.*'], verbs: ['*']}\n";
    cluster.done(&["apply", "-f", "-"], role);
    cluster.done(&["create", "clusterrolebinding", "eve", "--clusterrole=eve", "--user=eve"], "");
    let kind = "networkpolicies.projectcalico.org";
    eventually("the grant is known", || {
        cluster.kubectl("eve", &["apply", "-f", "-"], &policy("mine", "ops"))
    });
    cluster.done(&["apply", "-f", "-"], &policy("theirs", "sec"));
    let told = [
        "admission webhook \"tiered-rbac.projectcalico.org\" denied the request",
        "User \"eve\" cannot create networkpolicies.projectcalico.org in tier \"sec\" and namespace \"default\" (user cannot get tier)",
        "Forbidden",
    ];
    cluster.refused("eve", &["create", "-f", "-"], &policy("e", "sec"), &told);
    let global = object("GlobalNetworkPolicy", "g", json!({"tier": "ops"})).to_string();
    let told = ["cannot create globalnetworkpolicies.projectcalico.org in tier \"ops\""];
    cluster.refused("eve", &["create", "-f", "-"], &global, &told);
    let to = |tier: &str| format!(r#"{{"spec":{{"tier":"{tier}"}}}}"#);
    for (name, tier, part) in
        [("mine", "sec", "in tier \"sec\""), ("theirs", "ops", "in tier \"sec\"")]
    {
        let patch = ["patch", kind, name, "--type=merge", "-p", &to(tier)];
        cluster.refused("eve", &patch, "", &["cannot update", part]);
    }
    cluster.refused("eve", &["delete", kind, "theirs"], "", &["cannot delete"]);
    cluster.kubectl("eve", &["delete", kind, "mine"], "").unwrap();

    let information =
        object("ClusterInformation", "default", json!({"clusterGUID": "x"})).to_string();
    let told = [
        "cluster-info.api.projectcalico.org",
        "ClusterInformation is a read-only resource (user: eve)",
    ];
    cluster.refused("eve", &["create", "-f", "-"], &information, &told);
    cluster.refused("", &["create", "-f", "-"], &information, &["read-only"]);

    // Nothing is written past them while they are away.
    drop(server);
    let told = ["failed calling webhook \"tiered-rbac.projectcalico.org\""];
    cluster.refused("", &["create", "-f", "-"], &policy("late", "ops"), &told);
    cluster.done(&["create", "-f", "-"], &object("Tier", "ops", json!({"order": 4})).to_string());
    let _server = hooks(&cluster);
    cluster.done(&["create", "-f", "-"], &policy("late", "ops"));
}

#[test]
fn bad_reviews_are_refused() {
    let cluster = native();
    cluster.install("webhooks.yaml", SERVICE, PORT);
    let _server = hooks(&cluster);
    let authority = fs::read_to_string(cluster.folder.path().join("data/pki/ca.crt")).unwrap();
    let anybody = kubeconfig(&format!("https://{ADDRESS}:{PORT}"), &authority, "{}");
    let text = [("content-type", "application/json")];
    let review = |user: &str| {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
            "operation": "CREATE", "userInfo": {"username": user, "groups": []}, "namespace": "default",
            "resource": {"group": "projectcalico.org", "version": "v3", "resource": "networkpolicies"},
            "object": {"metadata": {"name": "p"}, "spec": {"tier": "ops"}}}})
    };
    let whole = review("eve").to_string();
    let mut unknown = review("eve");
    unknown["request"]["resource"]["resource"] = "unicorns".into();
    let old = whole.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let asks = [
        Ask("GET /rbac", &text, Vec::new()),
        Ask("POST /nothing", &text, whole.clone().into()),
        Ask("POST /rbac", &[("content-type", "text/plain")], whole.clone().into()),
        Ask("POST /rbac", &text, whole.as_bytes()[..40].to_vec()),
        Ask("POST /rbac", &text, b"{\"kind\": \"\xff\"}".to_vec()),
        Ask("POST /rbac", &text, "[".repeat(100_000).into()),
        Ask("POST /rbac", &text, old.into()),
        Ask("POST /rbac", &text, b"{}".to_vec()),
        Ask("POST /rbac", &text, vec![b' '; 8 << 20]),
        Ask("POST /rbac", &text, unknown.to_string().into()),
        Ask("POST /rbac", &text, whole.into()),
        Ask("GET /readyz", &[], Vec::new()),
    ];
    let answers = cluster.send(&anybody, &asks);
    let codes: Vec<_> = answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [405, 404, 415, 400, 400, 400, 400, 400, 413, 200, 200, 200], "{answers:?}");
    for (code, answer) in &answers[..9] {
        assert_eq!(
            (answer["kind"].as_str(), answer["code"].as_u64()),
            (Some("Status"), Some(u64::from(*code)))
        );
    }
    let (unknown, known) = (&answers[9].1["response"], &answers[10].1["response"]);
    assert!(unknown["allowed"] == false && unknown["uid"] == "u-1", "{unknown}");
    assert_eq!(known["status"]["code"], 403, "{known}");

    // When nobody can be asked the answer is no.
    let pid = Pid::from_raw(cluster.plane.pid("kube-apiserver"));
    kill(pid, Signal::SIGSTOP).unwrap();
    let answers =
        cluster.send(&anybody, &[Ask("POST /rbac", &text, review("bob").to_string().into())]);
    kill(pid, Signal::SIGCONT).unwrap();
    let response = &answers[0].1["response"];
    assert!(response["allowed"] == false && response["status"]["code"] == 503, "{response}");
    let told = response["status"]["message"].as_str().unwrap();
    assert!(told.contains("could not be asked of the Kubernetes API server"), "{told}");
}

/// A definition older than an object drops what it does not know, and says nothing: calicoctl does.
#[test]
fn what_the_definition_lacks_is_named() {
    let cluster = Cluster::start(Extras::default());
    cluster.plane.define("v3");
    let remove = |plural: &str, path: &str| {
        let at = format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/{path}");
        let patch = json!([{"op": "remove", "path": at}]).to_string();
        let crd = format!("{plural}.projectcalico.org");
        cluster.done(&["patch", "crd", &crd, "--type=json", "-p", &patch], "");
    };
    remove("felixconfigurations", "properties/natPortRange");
    remove("globalnetworkpolicies", "properties/ingress/items/properties/http");
    let felix = json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"natPortRange": "32000:32099", "logSeverityScreen": "Warning"}});
    let policy = object(
        "GlobalNetworkPolicy",
        "web",
        json!({"selector": "app == 'web'", "ingress": [{"action": "Allow", "protocol": "TCP",
            "http": {"methods": ["GET"]}}]}),
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [felix, policy]}).to_string();
    let file = cluster.folder.path().join("list.json");
    fs::write(&file, list).unwrap();
    let run = |words: &[&str]| {
        let mut command = calico();
        command.arg("ctl").args(words).env("KUBECONFIG", cluster.plane.kubeconfig());
        let output = cluster.netns.run(|| command.output().unwrap());
        let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
        assert!(output.status.success(), "{words:?}: {out}{err}");
        (out, err)
    };
    let lacks = "not kept and without effect: the cluster's definition of the kind lacks it";
    // The API server takes a moment to follow the definition.
    eventually("each dropped field is named", || {
        let (_, told) = run(&["apply", "-f", file.to_str().unwrap()]);
        let fields = ["spec.natPortRange", "spec.ingress.0.http"];
        let named = |field| told.contains(&format!("{field}: {lacks}"));
        if fields.into_iter().all(named) { Ok(()) } else { Err(told) }
    });
    let (kept, _) = run(&["get", "felixconfig", "default", "-o", "json"]);
    assert!(kept.contains("Warning") && !kept.contains("natPortRange"), "{kept}");
}
