//! The reference page of the kinds is what the code says. `make reference` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use api::{Kind, Layout, Source, kinds};
use serde_json::{Value, json};

const HEAD: &str = "\
# Kinds

Made from the types of `core/api`, of which the CustomResourceDefinitions in `manifests/crds` are made, too; on a cluster
`kubectl explain globalnetworkpolicies.spec` says the same.

**Names** are what `kubectl get` and `calicoctl get` take; those that only calicoctl takes stand apart. calicoctl takes them
in any case. Where Kubernetes has the same name for a kind of its own (`networkpolicies`, `nodes`), kubectl means that:
say `networkpolicies.projectcalico.org`. **Columns** are those of `get`, beside NAME; those in brackets come with `-o wide`.
kubectl adds AGE.

In the tables, `[]` stands for each item of a list, and `.*` for each value of a map. The **default** is what is
stored where nothing is given; *required* means that something must be; where the column is empty nothing is stored. Of
several defaults other fields decide: `types` and `policyTypes` are the directions that have rules, Ingress if none has;
`blockSize` is 26 for IPv4 and 122 for IPv6; tiers end with Deny, but kube-admin and kube-baseline with Pass.

**Bounds** are checked by every datastore. Grammar (of selectors, addresses, ports), and what fields must be to each other
and to other objects, is checked in addition: `calicoctl validate -f FILE` tells every fault without a cluster.

";

/// Parts of this many fields and more are shown once.
const LARGE: usize = 3;

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/kinds.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/reference/kinds.md is old: run `make reference`");
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| kind | group and version | scope | |\n|---|---|---|---|\n");
    for kind in kinds() {
        let (title, version) = (title(kind), kind.api_version());
        let (anchor, about) = (anchor(&title), meaning(kind));
        writeln!(page, "| [{title}](#{anchor}) | `{version}` | {} | {about} |", scope(kind))
            .unwrap();
    }
    let mut shown = Shown::new();
    for kind in kinds() {
        section(&mut page, kind, &mut shown);
    }
    page
}

/// Parts that were shown already: where, by what they are.
type Shown = BTreeMap<String, (String, String)>;

/// Two kinds are called NetworkPolicy.
fn title(kind: &Kind) -> String {
    match kind.source {
        Source::Kubernetes => format!("{} of Kubernetes", kind.kind),
        _ => kind.kind.to_owned(),
    }
}

fn meaning(kind: &Kind) -> String {
    match kind.source {
        Source::Kubernetes => {
            "Kubernetes' own kind; its reference says what the fields mean.".to_owned()
        }
        _ => about(&schema(kind)),
    }
}

fn anchor(title: &str) -> String {
    title.to_lowercase().replace(' ', "-")
}

fn scope(kind: &Kind) -> &'static str {
    if kind.namespaced { "namespace" } else { "cluster" }
}

/// The definition that Kubernetes gets, which has defaults and rules; of a kind that is never stored, its own schema.
fn schema(kind: &Kind) -> Value {
    static NATIVE: LazyLock<Vec<Value>> = LazyLock::new(|| api::definitions(Layout::Native));
    let name = format!("{}.{}", kind.plural, kind.group);
    match NATIVE.iter().find(|d| d["metadata"]["name"] == name.as_str()) {
        Some(found) => found["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone(),
        None => kind.schema(),
    }
}

fn section(page: &mut String, kind: &Kind, shown: &mut Shown) {
    let (title, schema) = (title(kind), schema(kind));
    write!(page, "\n## {title}\n\n").unwrap();
    write!(page, "{}\n\n", meaning(kind)).unwrap();
    writeln!(page, "- `{}`, {}", kind.api_version(), home(kind)).unwrap();
    let words = |words: &[&str]| -> String {
        words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
    };
    // The short names of Kubernetes' own kinds are its own affair.
    let ours = kind.source != Source::Kubernetes;
    let (short, more) = if ours { (kind.short, kind.words) } else { (kind.words, kind.short) };
    let names: Vec<&str> = [kind.plural, kind.singular].iter().chain(short).copied().collect();
    write!(page, "- names: {}", words(&names)).unwrap();
    if !more.is_empty() {
        write!(page, "; in calicoctl also {}", words(more)).unwrap();
    }
    page.push('\n');
    let heading = |c: &api::Column| {
        let name = c.name.to_uppercase();
        if c.wide { format!("({name})") } else { name }
    };
    if !kind.columns.is_empty() {
        let columns: Vec<String> = kind.columns.iter().map(heading).collect();
        writeln!(page, "- columns: {}", columns.join(", ")).unwrap();
    }
    for rule in ["/x-kubernetes-validations", "/properties/spec/x-kubernetes-validations"] {
        for rule in schema.pointer(rule).and_then(Value::as_array).into_iter().flatten() {
            writeln!(page, "- {}", text(&rule["message"])).unwrap();
        }
    }
    page.push('\n');
    if kind.kind == "FelixConfiguration" {
        page.push_str(
            "Its fields are the parameters of the agent, in [configuration.md](configuration.md); beside them \
             `spec.nodeSelector` (a selector of at most 1024 characters) says which nodes an object applies to that is \
             called neither `default` nor `node.NAME`.\n",
        );
        return;
    }
    page.push_str("| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
    let mut table = Table { page, shown, title: &title, filled: filled(kind) };
    for part in ["spec", "status"] {
        if let Some(fields) = schema["properties"].get(part) {
            table.fields(part, fields);
        }
    }
}

/// Where the objects are.
fn home(kind: &Kind) -> String {
    let scope = if kind.namespaced { "in a namespace" } else { "cluster-wide" };
    let made = match kind.source {
        Source::Node => {
            "; made from the core Node and its annotations as it is read (on etcd it is stored)"
        }
        Source::Pod => "; made from Pods as they are read (on etcd it is stored)",
        Source::Namespace => {
            "; made from Namespaces and ServiceAccounts as they are read, others cannot be stored in Kubernetes"
        }
        Source::Stored | Source::Kubernetes => "",
    };
    if kind.group != "projectcalico.org" || kind.source != Source::Stored {
        return format!("{scope}{made}");
    }
    let name = if kind.kind == "IPAMConfiguration" { "IPAMConfig" } else { kind.kind };
    static STORED: LazyLock<Vec<Value>> = LazyLock::new(|| api::definitions(Layout::Stored));
    assert!(STORED.iter().any(|d| d["spec"]["names"]["kind"] == name), "{name} is not stored");
    format!("{scope}; `crd.projectcalico.org/v1` {name} where Kubernetes keeps that group")
}

/// What the code fills in, field by field of the spec, depending on others.
fn filled(kind: &Kind) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::<String, Vec<Value>>::new();
    for given in [
        json!({}),
        json!({"cidr": "fd00::/64"}),
        json!({"egress": [{}]}),
        json!({"ingress": [{}], "egress": [{}]}),
    ] {
        for name in ["a", "kube-baseline"] {
            let mut object = json!({"metadata": {"name": name}, "spec": given});
            kind.default(&mut object);
            for (field, value) in object["spec"].as_object().unwrap() {
                let values = found.entry(format!("spec.{field}")).or_default();
                if given.get(field).is_none() && !values.contains(value) {
                    values.push(value.clone());
                }
            }
        }
    }
    found
}

struct Table<'a> {
    page: &'a mut String,
    shown: &'a mut Shown,
    title: &'a str,
    filled: BTreeMap<String, Vec<Value>>,
}

impl Table<'_> {
    /// A row for each field below `path`.
    fn fields(&mut self, path: &str, object: &Value) {
        let required = |name: &str| {
            object["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name))
        };
        for (name, schema) in object["properties"].as_object().into_iter().flatten() {
            self.field(&format!("{path}.{name}"), schema, required(name));
        }
    }

    fn field(&mut self, path: &str, schema: &Value, required: bool) {
        let (inner, step) = innermost(schema);
        let below = format!("{path}{step}");
        let part = inner["properties"].as_object().filter(|p| !p.is_empty());
        let mut meaning = about(schema);
        let mut known = false;
        if let Some(part) = part.filter(|part| part.len() >= LARGE) {
            let what = json!([part, inner["required"]]).to_string();
            match self.shown.get(&what) {
                Some((title, at)) => {
                    let place = if title == self.title {
                        format!("`{at}`")
                    } else {
                        format!("[`{at}` of {title}](#{})", anchor(title))
                    };
                    write!(meaning, " Fields as those of {place}.").unwrap();
                    known = true;
                }
                None => drop(self.shown.insert(what, (self.title.to_owned(), below.clone()))),
            }
        }
        let default = match (required, self.filled.get(path), schema.get("default")) {
            (true, ..) => "*required*".to_owned(),
            (_, Some(values), _) if !values.is_empty() => {
                values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" or ")
            }
            (_, _, Some(value)) if value.as_object().is_none_or(|o| !o.is_empty()) => {
                format!("`{value}`")
            }
            _ => String::new(),
        };
        let row = [format!("`{path}`"), kind_of(schema), default, bounds(schema), meaning];
        let row = row.map(|cell| cell.trim().replace('|', "\\|"));
        writeln!(self.page, "| {} |", row.join(" | ")).unwrap();
        if !known && part.is_some() {
            self.fields(&below, inner);
        }
    }
}

/// What lists and maps hold in the end, and how paths say so.
fn innermost(schema: &Value) -> (&Value, String) {
    let (mut schema, mut step) = (schema, String::new());
    loop {
        if let Some(items) = schema.get("items") {
            (schema, step) = (items, step + "[]");
        } else if let Some(values) = schema.get("additionalProperties") {
            (schema, step) = (values, step + ".*");
        } else {
            return (schema, step);
        }
    }
}

fn kind_of(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    match schema["type"].as_str().unwrap_or("any") {
        "array" => format!("list of {}", kind_of(&schema["items"])),
        "object" => match schema.get("additionalProperties") {
            Some(values) => format!("map of {}", kind_of(values)),
            None => "object".to_owned(),
        },
        plain => plain.to_owned(),
    }
}

/// What a value must be beside its type; of lists, what the items must be, too.
fn bounds(schema: &Value) -> String {
    let number = |key: &str| schema.get(key).map(ToString::to_string);
    let mut all = Vec::new();
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|w| format!("`{}`", plain(w))).collect();
        all.push(words.join(", "));
    }
    let mut range = |least: &str, most: &str, unit: &str| match (number(least), number(most)) {
        (Some(least), Some(most)) => all.push(format!("{least} to {most}{unit}")),
        (Some(least), None) => all.push(format!("{least}{unit} or more")),
        (None, Some(most)) => all.push(format!("at most {most}{unit}")),
        (None, None) => (),
    };
    range("minimum", "maximum", "");
    range("minLength", "maxLength", " characters");
    range("minItems", "maxItems", " items");
    range("minProperties", "maxProperties", " entries");
    if let Some(pattern) = schema["pattern"].as_str() {
        all.push(format!("`{pattern}`"));
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => all.push("no item twice".to_owned()),
        Some("map") => {
            let keys: Vec<_> = schema["x-kubernetes-list-map-keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(plain)
                .collect();
            all.push(format!("one a `{}`", keys.join("`, `")));
        }
        _ => (),
    }
    let inner = schema.get("items").or_else(|| schema.get("additionalProperties"));
    if let Some(each) = inner.map(bounds).filter(|each| !each.is_empty()) {
        all.push(format!("each {each}"));
    }
    all.join("; ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(value: &Value) -> String {
    plain(value).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn about(schema: &Value) -> String {
    schema.get("description").filter(|d| d.is_string()).map(text).unwrap_or_default()
}
