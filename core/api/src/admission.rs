//! Admission policies: what a Kubernetes API server that stores Calico's kinds itself must fill in and refuse
//! beyond what CustomResourceDefinitions can say.
//!
//! The defaults are those of [`Kind::default`](crate::Kind::default), in the words of the API server. A test
//! holds both against each other in a real one.

use model::policy::Tier;
use serde_json::{Value, json};

use crate::TIER_LABEL;

/// The kinds whose objects lie in tiers, by plural.
pub const TIERED: [&str; 4] = [
    "networkpolicies",
    "globalnetworkpolicies",
    "stagednetworkpolicies",
    "stagedglobalnetworkpolicies",
];
const MUTATING: &str = "admissionregistration.k8s.io/v1beta1";
const VALIDATING: &str = "admissionregistration.k8s.io/v1";

/// The admission policies and their bindings.
pub fn admission_policies() -> Vec<Value> {
    let mut all = Vec::new();
    all.extend(mutating(
        "policy.projectcalico.org",
        &with(&["stagedkubernetesnetworkpolicies"]),
        &["CREATE", "UPDATE"],
        TYPES_VARIABLES,
        TYPES,
    ));
    all.extend(mutating(
        "tierlabel.policy.projectcalico.org",
        &TIERED,
        &["CREATE", "UPDATE"],
        TIER_VARIABLES,
        &tier_mutations(),
    ));
    all.extend(mutating(
        "tier.policy.projectcalico.org",
        &["tiers"],
        &["CREATE", "UPDATE"],
        &[],
        TIERS,
    ));
    all.extend(mutating(
        "ippool.policy.projectcalico.org",
        &["ippools"],
        &["CREATE"],
        POOL_VARIABLES,
        POOLS,
    ));
    all.extend(protected_tiers());
    all
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TIERED.into_iter().chain(more.iter().copied()).collect()
}

/// The directions of a policy, from its rules.
const TYPES_VARIABLES: &[(&str, &str)] = &[
    ("kubernetes", "object.kind == 'StagedKubernetesNetworkPolicy'"),
    (
        "given",
        "variables.kubernetes ? has(object.spec.policyTypes) && size(object.spec.policyTypes) > 0 : \
         has(object.spec.types) && size(object.spec.types) > 0",
    ),
    // It has nothing but a tier.
    ("deletes", "has(object.spec.stagedAction) && object.spec.stagedAction == 'Delete'"),
    ("ingress", "has(object.spec.ingress) && size(object.spec.ingress) > 0"),
    ("egress", "has(object.spec.egress) && size(object.spec.egress) > 0"),
    (
        "types",
        "variables.egress ? (variables.ingress || variables.kubernetes ? ['Ingress', 'Egress'] : ['Egress']) : \
         ['Ingress']",
    ),
];
const TYPES: &[&str] = &["!has(object.spec) || variables.given || variables.deletes ? [] : \
     [JSONPatch{op: 'add', path: variables.kubernetes ? '/spec/policyTypes' : '/spec/types', value: variables.types}]"];

const TIER_VARIABLES: &[(&str, &str)] = &[(
    "tier",
    "has(object.spec) && has(object.spec.tier) && object.spec.tier != '' ? object.spec.tier : 'default'",
)];

/// The tier, and the label that carries it.
fn tier_mutations() -> [&'static str; 2] {
    // The slash in the key of the label is written ~1 in a path.
    debug_assert_eq!(TIER_LABEL, "projectcalico.org/tier");
    [
        "!has(object.spec) ? [JSONPatch{op: 'add', path: '/spec', value: {'tier': variables.tier}}] : \
         has(object.spec.tier) && object.spec.tier != '' ? [] : \
         [JSONPatch{op: 'add', path: '/spec/tier', value: variables.tier}]",
        "has(object.metadata.labels) ? \
         [JSONPatch{op: 'add', path: '/metadata/labels/projectcalico.org~1tier', value: variables.tier}] : \
         [JSONPatch{op: 'add', path: '/metadata/labels', value: {'projectcalico.org/tier': variables.tier}}]",
    ]
}

/// What a tier ends with.
const TIERS: &[&str] = &[
    "has(object.spec) ? [] : [JSONPatch{op: 'add', path: '/spec', value: {}}]",
    "has(object.spec.defaultAction) ? [] : [JSONPatch{op: 'add', path: '/spec/defaultAction', value: \
     has(object.metadata.name) && object.metadata.name in ['kube-admin', 'kube-baseline'] ? 'Pass' : 'Deny'}]",
];

const POOL_VARIABLES: &[(&str, &str)] = &[
    // What is no prefix is for the validation to refuse.
    (
        "version",
        "has(object.spec) && has(object.spec.cidr) && object.spec.cidr.contains(':') ? 6 : 4",
    ),
];
const POOLS: &[&str] = &[
    "!has(object.spec) || (has(object.spec.blockSize) && object.spec.blockSize != 0) ? [] : \
     [JSONPatch{op: 'add', path: '/spec/blockSize', value: variables.version == 6 ? 122 : 26}]",
    "!has(object.spec) || (has(object.spec.nodeSelector) && object.spec.nodeSelector != '') ? [] : \
     [JSONPatch{op: 'add', path: '/spec/nodeSelector', value: 'all()'}]",
];

fn rules(plurals: &[&str], operations: &[&str]) -> Value {
    json!({"resourceRules": [{"apiGroups": ["projectcalico.org"], "apiVersions": ["v3"],
        "operations": operations, "resources": plurals}]})
}

fn mutating(
    name: &str,
    plurals: &[&str],
    operations: &[&str],
    variables: &[(&str, &str)],
    mutations: &[&str],
) -> [Value; 2] {
    let variable = |(name, text): &(&str, &str)| json!({"name": name, "expression": text});
    let mutation =
        |text: &&str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": text}});
    let mut spec = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "matchConstraints": rules(plurals, operations),
        "mutations": mutations.iter().map(mutation).collect::<Vec<_>>(),
    });
    if !variables.is_empty() {
        spec["variables"] = variables.iter().map(variable).collect();
    }
    let of = |kind: &str, spec: Value| json!({"apiVersion": MUTATING, "kind": kind, "metadata": {"name": name}, "spec": spec});
    [
        of("MutatingAdmissionPolicy", spec),
        of("MutatingAdmissionPolicyBinding", json!({"policyName": name})),
    ]
}

/// The tiers that are always there stay.
fn protected_tiers() -> [Value; 2] {
    let name = "protect-builtin-tiers.projectcalico.org";
    let of = |kind: &str, spec: Value| json!({"apiVersion": VALIDATING, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let names = Tier::BUILT_IN.map(|(name, ..)| format!("'{name}'")).join(", ");
    let rule = json!({"expression": format!("!(oldObject.metadata.name in [{names}])"),
        "messageExpression": "'tier ' + oldObject.metadata.name + ' is built in: it cannot be deleted'",
        "reason": "Forbidden"});
    [
        of(
            "ValidatingAdmissionPolicy",
            json!({"failurePolicy": "Fail",
            "matchConstraints": rules(&["tiers"], &["DELETE"]), "validations": [rule]}),
        ),
        of(
            "ValidatingAdmissionPolicyBinding",
            json!({"policyName": name, "validationActions": ["Deny"]}),
        ),
    ]
}
