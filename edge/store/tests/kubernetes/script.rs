//! One script of kubectl commands, against both.

use std::fmt::Write as _;
use std::thread;

use crate::sides::{Side, embedded, real};

/// A command, its input, and why the answers differ if they do.
struct Step(&'static str, &'static str, Option<&'static str>);

const fn same(words: &'static str, input: &'static str) -> Step {
    Step(words, input, None)
}

const MAP: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"t": "1"}}, "data": {"k": "1", "l": "1"}}"#;
const MAP_2: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"t": "1"}}, "data": {"k": "2"}}"#;
const OTHER: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "labels": {"t": "1", "u": "2"}}, "data": {"k": "1"}}"#;
const MADE_UP: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-", "labels": {"g": "1"}}}"#;
const HELD: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.org/hold"]}}"#;
const POLICY: &str = r"
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, labels: {t: '1', projectcalico.org/tier: default}}
spec:
  tier: default
  order: 10
  selector: app == 'a'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: app == 'b'}, destination: {ports: [80, '90:99', web]}}
  - {action: Deny}
  egress:
  - {action: Allow}
";
const POLICY_2: &str = r"
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, labels: {t: '1', projectcalico.org/tier: default}}
spec:
  tier: default
  order: 20
  selector: app == 'a'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: UDP}
";
const POOL: &str = r"
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool, labels: {t: '1'}}
spec: {cidr: 10.0.0.0/16, blockSize: 26, natOutgoing: true}
";
const TIER: &str = r"
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: t}
spec: {order: 5, defaultAction: Pass}
";
const SET: &str = r"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: s, labels: {t: '1'}}
spec: {nets: [10.0.0.0/8]}
";
const SET_MORE: &str = r"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: s}
spec: {nets: [11.0.0.0/8]}
";
const TYPO: &str = r"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: typo}
spec: {netz: [10.0.0.0/8]}
";
const WRONG_TYPE: &str = r"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: typo}
spec: {nets: 5}
";

const PATCHES: &str = "a JSON patch that does not fit: ours names the object, theirs does not";
const PARSERS: &str = "the same refusal in words of our own parser";
const ITEMS: &str = "items of our lists say what they are";
const WRITING: &str = "a list is written as JSON, not as the source code of Go";
const EXAMPLES: &str = "ours gives no regular expression beside the rule in words";
const TYPES: &str = "a wrong type is refused by the schema, with the field, not by a decoder that stops at the first";
const ALL: &str = "rules between fields that a definition does not hold are told with the rest";
const WORDS: &str =
    "the words of a refusal beyond the schema are ours there, the definition's here";

const ONCE: &str =
    "a field that has no possible value is refused for that alone, not for being changed, too";
const UNASKED: &str = "a definition says that it did not ask its rules; ours were all asked";

const STEPS: &[Step] = &[
    // Create, read, change, delete.
    same("create -f -", MAP),
    same("create -f -", MAP),
    same("get cm a -o json --show-managed-fields", ""),
    same("get cm -l t=1", ""),
    same("get cm a -o name", ""),
    same("get cm none", ""),
    same("get nonsense", ""),
    same("replace -f -", MAP_2),
    same("get cm a -o json --show-managed-fields", ""),
    same(
        "replace -f -",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "1"}}"#,
    ),
    same(
        "replace -f -",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "none"}}"#,
    ),
    same("label cm a x=1", ""),
    same("label cm a x=2", ""),
    same("label cm a x=2 --overwrite", ""),
    same("annotate cm a note=1", ""),
    same("label cm a x-", ""),
    same("label cm a x=***", ""),
    same(r#"patch cm a -p {"data":{"s":"1"}}"#, ""),
    same(r#"patch cm a --type=merge -p {"data":{"m":"1","k":null}}"#, ""),
    same(r#"patch cm a --type=json -p [{"op":"replace","path":"/data/m","value":"2"}]"#, ""),
    Step(r#"patch cm a --type=json -p [{"op":"remove","path":"/data/none"}]"#, "", Some(PATCHES)),
    Step(
        r#"patch cm a --type=json -p [{"op":"test","path":"/data/m","value":"3"}]"#,
        "",
        Some(PATCHES),
    ),
    same("get cm a -o json --show-managed-fields", ""),
    same("delete cm a", ""),
    same("delete cm a", ""),
    same("delete cm a --ignore-not-found", ""),
    // Client-side apply.
    same("apply -f -", MAP),
    same("apply -f -", MAP),
    same("apply -f -", MAP_2),
    same("get cm a -o json --show-managed-fields", ""),
    same("apply -f - --dry-run=server", MAP),
    same("delete cm a", ""),
    // Server-side apply.
    same("apply --server-side --field-manager=one -f -", MAP),
    same("apply --server-side --field-manager=two -f -", MAP_2),
    same("apply --server-side --field-manager=two --force-conflicts -f -", MAP_2),
    same("get cm a -o json --show-managed-fields", ""),
    same("apply --server-side --field-manager=one -f -", MAP_2),
    same("get cm a -o json --show-managed-fields", ""),
    same("apply --server-side --dry-run=server --field-manager=one -f -", MAP),
    // Selectors, pages.
    same("create -f -", OTHER),
    same("get cm -l t=1,u=2 -o name", ""),
    same("get cm -l t,!u -o name", ""),
    same("get cm -l t=1,u!=2 -o name", ""),
    Step("get cm -l t=(", "", Some(PARSERS)),
    same("get cm --field-selector metadata.name=b -o name", ""),
    same("get cm --field-selector metadata.name!=b -l t -o name", ""),
    Step("get cm --field-selector data.k=1", "", Some(PARSERS)),
    same("get cm -l t --chunk-size=1 -o name", ""),
    Step("get --raw /api/v1/namespaces/diff/configmaps?labelSelector=t&limit=1", "", Some(ITEMS)),
    Step(
        "get --raw /api/v1/namespaces/diff/configmaps?limit=1&continue=nonsense",
        "",
        Some(PARSERS),
    ),
    Step("get --raw /api/v1/namespaces/diff/configmaps?limit=x", "", Some(PARSERS)),
    Step("get --raw /api/v1/namespaces/diff/configmaps?resourceVersion=x", "", Some(PARSERS)),
    same(
        "get --raw /api/v1/namespaces/diff/configmaps?watch=1&labelSelector=t&timeoutSeconds=1&resourceVersion=0",
        "",
    ),
    Step(
        "get --raw /api/v1/namespaces/diff/configmaps?watch=1&resourceVersion=x",
        "",
        Some(PARSERS),
    ),
    same("create -o jsonpath={.metadata.generateName} -f -", MADE_UP),
    same(
        "delete cm -l g=1 -o name --dry-run=server --wait=false -A --field-selector metadata.namespace=none",
        "",
    ),
    // Finalizers.
    same("create -f -", HELD),
    same("delete cm held --wait=false", ""),
    same("get cm held -o json", ""),
    Step(
        r#"patch cm held --type=merge -p {"metadata":{"finalizers":["example.org/hold","example.org/more"]}}"#,
        "",
        Some(WRITING),
    ),
    same(r#"patch cm held --type=merge -p {"metadata":{"finalizers":null}}"#, ""),
    same("get cm held", ""),
    // Names and shapes that no server takes.
    Step(
        "create -f -",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_b"}}"#,
        Some(EXAMPLES),
    ),
    same("create -f -", r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}"#),
    Step(
        "create -f -",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": 1}}"#,
        Some(TYPES),
    ),
    same(
        "create -f -",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dada": {}}"#,
    ),
    Step(
        "create -f - --validate=false",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": {"a b": "c"}}}"#,
        Some(EXAMPLES),
    ),
    same("create -n none -f -", MAP),
    // Kinds of ours.
    same("create -f -", POLICY),
    same("get networkpolicies.projectcalico.org p -o json --show-managed-fields", ""),
    same("get cnp", ""),
    same("get cnp -o wide", ""),
    same("get cnp --field-selector spec.tier=default -o name", ""),
    same("get cnp --field-selector spec.tier=other -o name", ""),
    same("get cnp --field-selector spec.order=10 -o name", ""),
    same("apply -f -", POLICY_2),
    same("get cnp p -o json --show-managed-fields", ""),
    Step(r#"patch cnp p -p {"spec":{"order":1}}"#, "", Some(PARSERS)),
    same(r#"patch cnp p --type=merge -p {"spec":{"order":30,"ingress":[{"action":"Deny"}]}}"#, ""),
    same(
        r#"patch cnp p --type=json -p [{"op":"add","path":"/spec/ingress/-","value":{"action":"Allow"}}]"#,
        "",
    ),
    same("apply --server-side --field-manager=gitops -f -", POLICY),
    same("apply --server-side --field-manager=gitops --force-conflicts -f -", POLICY),
    same("get cnp p -o json --show-managed-fields", ""),
    Step(r#"patch cnp p --type=merge -p {"spec":{"types":["Sideways"]}}"#, "", Some(ALL)),
    same(r#"patch cnp p --type=merge -p {"spec":{"order":"first"}}"#, ""),
    same("create -f -", POOL),
    same("get ippool pool -o json --show-managed-fields", ""),
    same("get ippools", ""),
    Step(r#"patch ippool pool --type=merge -p {"spec":{"blockSize":300}}"#, "", Some(ONCE)),
    Step(r#"patch ippool pool --type=merge -p {"spec":{"cidr":"10.1.0.0/16"}}"#, "", Some(WORDS)),
    same("create -f -", TIER),
    same("get tier t -o json --show-managed-fields", ""),
    same("get tiers t", ""),
    Step(r#"patch tier t --type=merge -p {"spec":{"defaultAction":"Maybe"}}"#, "", Some(UNASKED)),
    same("apply --server-side --field-manager=one -f -", SET),
    same("apply --server-side --field-manager=two -f -", SET_MORE),
    same("get gns s -o json --show-managed-fields", ""),
    same("apply --server-side --field-manager=one -f -", SET_MORE),
    same("get gns s -o json --show-managed-fields", ""),
    same("create -f -", TYPO),
    same("create -f - --validate=false", TYPO),
    same("get gns typo -o json", ""),
    same("create -f -", WRONG_TYPE),
    same("create -f - --validate=false", WRONG_TYPE),
    same("delete gns s typo", ""),
    same("delete ippool pool", ""),
    same("delete tier t", ""),
    same("explain cnp.spec.ingress.action", ""),
    // A namespace goes with what is in it.
    same("create namespace brief", ""),
    same("create -n brief -f -", MAP),
    same("create -n brief -f -", POLICY),
    same("delete namespace brief --timeout=60s", ""),
    same("get cm,cnp -n brief -l t=1", ""),
    same("create -n brief -f -", MAP),
    same("delete cnp --all", ""),
];

fn play(side: Side) -> Vec<String> {
    side.run("create namespace diff", "");
    let in_namespace = |words: &str| {
        let own = words.contains(" -n ") || words.contains("namespace") || words.contains(" -A");
        if own || words.contains("--raw") { words.to_owned() } else { format!("-n diff {words}") }
    };
    let answers = STEPS.iter().map(|step| side.ask(&in_namespace(step.0), step.1).comparable());
    let answers = answers.collect();
    side.run("delete namespace diff --timeout=60s", "");
    answers
}

#[test]
fn both_servers_answer_alike() {
    let ours = thread::spawn(|| play(embedded()));
    let theirs = play(real());
    let ours = ours.join().unwrap();
    let mut wrong = String::new();
    for ((Step(words, input, reason), ours), theirs) in STEPS.iter().zip(ours).zip(theirs) {
        match reason {
            None if ours != theirs => {
                writeln!(
                    wrong,
                    "=== kubectl {words}\n{input}\n--- embedded\n{ours}--- real\n{theirs}"
                )
                .unwrap();
            }
            Some(reason) if ours == theirs => {
                writeln!(wrong, "=== kubectl {words}\nthe same now, so take away: {reason}\n")
                    .unwrap();
            }
            _ => (),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
