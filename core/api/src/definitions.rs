//! CustomResourceDefinitions: how a Kubernetes API server stores our kinds by itself.
//!
//! What they cannot hold stays with [`Kind::validate`](crate::Kind::validate) alone; they are never stricter than that.

use model::policy::Tier;
use serde_json::{Map, Value, json};

use crate::kinds::{Column, Kind, Source, kinds};

/// Which of the two API groups that Kubernetes may keep Calico's objects under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The kinds as users write them: `projectcalico.org/v3`, and those of the neighbouring groups.
    Native,
    /// `crd.projectcalico.org/v1`, which only API servers of Calico and their older agents read and write. No defaults, short
    /// names, columns or rules between fields: whoever writes there has seen to that already.
    Stored,
}

/// The group of [`Layout::Stored`].
const STORED_GROUP: &str = "crd.projectcalico.org";

/// The CustomResourceDefinitions of a layout, by name. Kinds that are views of other objects have none.
pub fn definitions(layout: Layout) -> Vec<Value> {
    let ours = |k: &&Kind| layout == Layout::Native || k.group == "projectcalico.org";
    let stored = kinds().iter().filter(|k| k.source == Source::Stored).filter(ours);
    let mut made: Vec<Value> = stored.map(|kind| definition(kind, layout)).collect();
    made.sort_by_key(|d| d["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    made
}

fn definition(kind: &Kind, layout: Layout) -> Value {
    let native = layout == Layout::Native;
    let (group, version) = if native { (kind.group, kind.version) } else { (STORED_GROUP, "v1") };
    // The one kind that has another name there.
    let renamed = !native && kind.kind == "IPAMConfiguration";
    let (name, plural, singular) = if renamed {
        ("IPAMConfig", "ipamconfigs", "ipamconfig")
    } else {
        (kind.kind, kind.plural, kind.singular)
    };
    let mut names = json!({
        "kind": name, "listKind": format!("{name}List"), "plural": plural, "singular": singular,
    });
    let mut schema = kind.schema();
    // The server describes it itself.
    schema["properties"]["metadata"] = json!({"type": "object"});
    let mut served = json!({"name": version, "served": true, "storage": true});
    if native {
        if !kind.short.is_empty() {
            names["shortNames"] = json!(kind.short);
        }
        native_schema(kind, &mut schema);
        if schema.pointer("/properties/spec/properties/tier").is_some()
            && kind.group == "projectcalico.org"
        {
            served["selectableFields"] = json!([{"jsonPath": ".spec.tier"}]);
        }
        if kind.status {
            served["subresources"] = json!({"status": {}});
        }
        if !kind.columns.is_empty() {
            let age = Column {
                name: "Age",
                kind: "date",
                path: ".metadata.creationTimestamp",
                wide: false,
            };
            served["additionalPrinterColumns"] =
                kind.columns.iter().chain([&age]).map(column).collect();
        }
    } else {
        stored_schema(kind, &mut schema);
    }
    served["schema"] = json!({"openAPIV3Schema": schema});
    let mut metadata = json!({"name": format!("{plural}.{group}")});
    if group.ends_with(".k8s.io") {
        let note = "unapproved, generated from the fields that this implementation understands";
        metadata["annotations"] = json!({"api-approved.kubernetes.io": note});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group,
            "names": names,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [served],
        },
    })
}

fn column(column: &Column) -> Value {
    let mut made = json!({"name": column.name, "type": column.kind, "jsonPath": column.path});
    if column.wide {
        made["priority"] = 1.into();
    }
    made
}

fn native_schema(kind: &Kind, schema: &mut Value) {
    let defaults = fixed_defaults(kind);
    let all_optional = schema.pointer("/properties/spec/required").is_none();
    if let Some(spec) = schema.pointer_mut("/properties/spec") {
        if all_optional && !defaults.is_empty() {
            spec["default"] = json!({});
        }
        for (field, value) in defaults {
            if let Some(property) = spec["properties"].get_mut(&field) {
                property["default"] = value;
            }
        }
    }
    let (of_object, of_spec) = rules(kind);
    let list = |rules: Vec<Rule>| -> Value { rules.into_iter().map(Rule::written).collect() };
    if !of_object.is_empty() {
        schema["x-kubernetes-validations"] = list(of_object);
    }
    if !of_spec.is_empty() {
        schema["properties"]["spec"]["x-kubernetes-validations"] = list(of_spec);
    }
}

/// What upstream's definition has otherwise.
fn stored_schema(kind: &Kind, schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"];
    match kind.kind {
        "BlockAffinity" => {
            spec["properties"]["deleted"]["type"] = "string".into();
            spec["required"] = json!(["cidr", "deleted", "node", "state"]);
        }
        "IPAMConfiguration" => spec["required"] = json!(["autoAllocateBlocks", "strictAffinity"]),
        _ => (),
    }
}

/// The defaults that depend on nothing else: those that come out whatever is given. A definition cannot hold others.
fn fixed_defaults(kind: &Kind) -> Map<String, Value> {
    let probes = [
        json!({}),
        json!({"cidr": "fd00::/64"}),
        json!({"egress": [{}]}),
        json!({"ingress": [{}], "egress": [{}]}),
        json!({"stagedAction": "Delete"}),
    ];
    let mut fixed: Option<Map<String, Value>> = None;
    for given in probes {
        for name in ["a", "kube-baseline"] {
            let mut object = json!({"metadata": {"name": name}, "spec": given});
            kind.default(&mut object);
            let Some(filled) = object["spec"].as_object() else { continue };
            let Some(known) = &mut fixed else {
                fixed = Some(filled.clone());
                continue;
            };
            known.retain(|field, value| {
                given.get(field).is_some() || filled.get(field) == Some(value)
            });
        }
    }
    fixed.unwrap_or_default()
}

/// A rule between fields, in the Common Expression Language.
struct Rule {
    rule: String,
    message: String,
}

impl Rule {
    fn new(rule: impl Into<String>, message: impl Into<String>) -> Self {
        Self { rule: rule.into(), message: message.into() }
    }

    fn written(self) -> Value {
        json!({"rule": self.rule, "message": self.message})
    }
}

/// The rules of the whole object, and those of the spec.
fn rules(kind: &Kind) -> (Vec<Rule>, Vec<Rule>) {
    let on = |field: &str| format!("(has(self.{field}) && self.{field})");
    match kind.kind {
        "KubeControllersConfiguration" | "ClusterInformation" | "IPAMConfiguration" => (
            vec![Rule::new("self.metadata.name == 'default'", "the only object is named default")],
            vec![],
        ),
        "Tier" => (tier_rules(), vec![]),
        "IPPool" => (vec![], pool_rules()),
        "GlobalNetworkPolicy" | "StagedGlobalNetworkPolicy" => {
            let early = |field: &str| {
                let rule = format!("!{} || {}", on(field), on("applyOnForward"));
                Rule::new(rule, format!("applyOnForward must be true beside {field}"))
            };
            let both = format!("!({} && {})", on("preDNAT"), on("doNotTrack"));
            let egress =
                format!("!{} || !has(self.egress) || size(self.egress) == 0", on("preDNAT"));
            let rules = vec![
                Rule::new(both, "preDNAT cannot stand beside doNotTrack"),
                early("doNotTrack"),
                early("preDNAT"),
                Rule::new(egress, "a preDNAT policy has no egress rules"),
            ];
            (vec![], rules)
        }
        _ => (vec![], vec![]),
    }
}

fn tier_rules() -> Vec<Rule> {
    let label = "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')";
    let mut rules = vec![Rule::new(label, "a tier's name has no dots and at most 63 characters")];
    for (name, order, action) in Tier::BUILT_IN {
        let of = |field: &str, value: &str| {
            format!(
                "self.metadata.name != '{name}' || !has(self.spec) || !has(self.spec.{field}) || self.spec.{field} == {value}"
            )
        };
        let order_text = format!("{order:?}");
        rules.push(Rule::new(
            of("order", &order_text),
            format!("tier {name} always has order {order}"),
        ));
        let ends = format!("tier {name} always ends with {action:?}");
        rules.push(Rule::new(of("defaultAction", &format!("'{action:?}'")), ends));
    }
    rules
}

fn pool_rules() -> Vec<Rule> {
    let off = |mode: &str| format!("!has(self.{mode}) || self.{mode} == 'Never'");
    let given = |side: &str| format!("!has({side}.blockSize) || {side}.blockSize == 0");
    vec![
        Rule::new("self.cidr == oldSelf.cidr", "cidr cannot be changed"),
        Rule::new(
            format!(
                "{} || {} || self.blockSize == oldSelf.blockSize",
                given("self"),
                given("oldSelf")
            ),
            "blockSize cannot be changed",
        ),
        Rule::new(
            format!("{} || {}", off("ipipMode"), off("vxlanMode")),
            "vxlanMode cannot be on beside ipipMode",
        ),
    ]
}
