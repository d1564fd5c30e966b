//! A bad value of every kind: plain kubectl is refused, with the field and what was wanted.

use std::collections::BTreeSet;

use serde_json::json;

use crate::bad::{BAD, object};
use crate::cluster::{Cluster, has};

#[tokio::test]
async fn plain_kubectl_is_refused_for_a_bad_value_of_every_kind() {
    let cluster = Cluster::start().await;
    let before = cluster.run("get --raw /apis/projectcalico.org/v3/tiers", "").await;
    let mut wrong = Vec::new();
    for (kind, name, spec, words) in BAD {
        let text = object(kind, name, spec);
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
