//! Calico's objects as upstream keeps them in `crd.projectcalico.org/v1`, and back.
//!
//! The specification stands in the object as it is. What the API shows as metadata is kept, but for the name,
//! the namespace and the revision, as JSON in an annotation: the API server of Kubernetes has metadata of its
//! own there, for its own life of the object. Of labels and annotations those of Calico stand beside that, too.

use serde_json::{Map, Value, json};

use super::places::Place;

const METADATA: &str = "projectcalico.org/metadata";
const SHOWN_GROUP: &str = "projectcalico.org/v3";
const STORED_GROUP: &str = "crd.projectcalico.org/v1";

/// What Kubernetes keeps of an object for itself, which a write gives back as it was.
const BESIDE: [&str; 2] = ["finalizers", "ownerReferences"];

/// An object as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where the API shows it: `group/resource/[namespace/]name`.
    pub(super) key: String,
    /// Where it is kept: `[namespace/]name`.
    pub(super) raw: String,
    pub(super) revision: u64,
    pub(super) value: Value,
    pub(super) beside: Option<Box<Value>>,
}

/// The place and revision of an object as it is kept, without looking further.
pub(super) fn whereabouts(stored: &Value) -> Result<(String, u64), String> {
    let metadata = &stored["metadata"];
    let name = metadata["name"].as_str().filter(|n| !n.is_empty());
    let name = name.ok_or("metadata.name: a name is wanted")?;
    let revision = metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    let revision = revision.ok_or("metadata.resourceVersion: a number is wanted")?;
    let raw = match metadata["namespace"].as_str() {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    };
    Ok((raw, revision))
}

/// An object as the API shows it.
///
/// # Errors
/// What of it cannot be understood.
pub(super) fn shown(place: &Place, stored: Value) -> Result<Found, String> {
    let (raw, revision) = whereabouts(&stored)?;
    let prefix = place.prefix();
    let Some(kind) = place.shown else {
        let value = source(place, stored);
        return Ok(Found { key: format!("{prefix}{raw}"), raw, revision, value, beside: None });
    };
    let Value::Object(mut fields) = stored else { return Err("wanted an object".into()) };
    let Some(Value::Object(outer)) = fields.shift_remove("metadata") else {
        return Err("metadata: an object is wanted".into());
    };
    let beside: Map<String, Value> = BESIDE
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), outer.get(*field)?.clone())))
        .collect();
    let metadata = shown_metadata(place, outer)?;
    let key = match metadata.get("namespace").and_then(Value::as_str) {
        Some(namespace) => format!("{prefix}{namespace}/{}", text(&metadata, "name")),
        None => format!("{prefix}{}", text(&metadata, "name")),
    };
    let mut value =
        json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata});
    fields.retain(|field, _| field != "apiVersion" && field != "kind");
    if let Some(whole) = value.as_object_mut() {
        whole.extend(fields);
    }
    shown_spec(kind.kind, &mut value);
    let beside = (!beside.is_empty()).then(|| Box::new(Value::Object(beside)));
    Ok(Found { key, raw, revision, value, beside })
}

fn text<'a>(fields: &'a Map<String, Value>, field: &str) -> &'a str {
    fields.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The metadata that is shown, of that which Kubernetes has.
fn shown_metadata(
    place: &Place,
    mut outer: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let kept_name = text(&outer, "name").to_owned();
    let mut annotations = take_map(&mut outer, "annotations");
    let mut labels = take_map(&mut outer, "labels");
    let note = annotations.shift_remove(METADATA);
    let mut inner: Map<String, Value> = match note.as_ref().and_then(Value::as_str) {
        None => Map::new(),
        Some(note) => serde_json::from_str(note)
            .map_err(|error| format!("metadata.annotations[{METADATA}]: {error}"))?,
    };
    let mut shown = Map::new();
    let own_name = match inner.shift_remove("name").as_ref().and_then(Value::as_str) {
        Some(name) if place.renames() && !name.is_empty() => name.to_owned(),
        // Before the name was noted, a name without a tier got that of the default one.
        _ if place.renames() && note.is_some() => kept_name
            .strip_prefix("default.")
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&kept_name)
            .to_owned(),
        _ => kept_name,
    };
    shown.insert("name".into(), own_name.into());
    if let Some(namespace) = outer.shift_remove("namespace") {
        shown.insert("namespace".into(), namespace);
    }
    if let Some(uid) = outer.get("uid").and_then(Value::as_str) {
        shown.insert("uid".into(), other_uid(uid).into());
    }
    let created = inner.shift_remove("creationTimestamp").filter(|t| !t.is_null());
    let created = created.or_else(|| outer.shift_remove("creationTimestamp"));
    shown.insert("creationTimestamp".into(), created.unwrap_or_default());
    annotations.extend(take_map(&mut inner, "annotations"));
    labels.extend(take_map(&mut inner, "labels"));
    for field in ["namespace", "uid", "resourceVersion"] {
        inner.shift_remove(field);
    }
    for owner in
        inner.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if owner["apiVersion"] == STORED_GROUP || owner["apiVersion"] == SHOWN_GROUP {
            translate_owner(owner, SHOWN_GROUP);
        }
    }
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            shown.insert(field.into(), map.into());
        }
    }
    shown.extend(inner.into_iter().filter(|(_, value)| !value.is_null()));
    Ok(shown)
}

fn take_map(fields: &mut Map<String, Value>, field: &str) -> Map<String, Value> {
    match fields.shift_remove(field) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn translate_owner(owner: &mut Value, group: &str) {
    owner["apiVersion"] = group.into();
    if let Some(uid) = owner["uid"].as_str() {
        owner["uid"] = other_uid(uid).into();
    }
}

fn shown_spec(kind: &str, value: &mut Value) {
    if kind != "BlockAffinity" {
        return;
    }
    let spec = &mut value["spec"];
    // A word there, a truth here; and nothing where it was written before it was invented.
    let deleted = spec["deleted"] == "true" || spec["deleted"] == true;
    spec["deleted"] = deleted.into();
    if spec["type"].as_str().is_none_or(str::is_empty) {
        spec["type"] = "host".into();
    }
}

/// An object as it is kept at `raw`; `beside` is what Kubernetes had of it for itself.
pub(super) fn stored(place: &Place, raw: &str, shown: &Value, beside: Option<&Value>) -> Value {
    if place.shown.is_none() {
        return shown.clone();
    }
    let mut value = shown.clone();
    value["apiVersion"] = STORED_GROUP.into();
    value["kind"] = place.kind.into();
    if place.kind == "BlockAffinity" {
        let deleted = value["spec"]["deleted"] == true || value["spec"]["deleted"] == "true";
        value["spec"]["deleted"] = deleted.to_string().into();
    }
    let inner = shown["metadata"].as_object().cloned().unwrap_or_default();
    value["metadata"] = stored_metadata(place, raw, inner, beside).into();
    value
}

fn stored_metadata(
    place: &Place,
    raw: &str,
    mut inner: Map<String, Value>,
    beside: Option<&Value>,
) -> Map<String, Value> {
    let of_calico = |field: &str| -> Map<String, Value> {
        let all = inner.get(field).and_then(Value::as_object).into_iter().flatten();
        let ours = all.filter(|(key, _)| is_ours(key));
        ours.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let (labels, mut annotations) = (of_calico("labels"), of_calico("annotations"));
    for field in ["namespace", "resourceVersion"] {
        inner.shift_remove(field);
    }
    if !place.renames() {
        inner.shift_remove("name");
    }
    for owner in
        inner.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if owner["apiVersion"] == SHOWN_GROUP {
            translate_owner(owner, STORED_GROUP);
        }
    }
    annotations.insert(METADATA.into(), Value::Object(inner).to_string().into());
    let (namespace, name) = match raw.split_once('/') {
        Some((namespace, name)) if place.namespaced => (Some(namespace), name),
        _ => (None, raw),
    };
    let mut outer = Map::new();
    outer.insert("name".into(), name.into());
    if let Some(namespace) = namespace {
        outer.insert("namespace".into(), namespace.into());
    }
    if !labels.is_empty() {
        outer.insert("labels".into(), labels.into());
    }
    outer.insert("annotations".into(), annotations.into());
    outer.extend(beside.and_then(Value::as_object).cloned().unwrap_or_default());
    outer
}

/// Labels and annotations that Calico's programs look for on the object itself.
fn is_ours(key: &str) -> bool {
    key.contains("projectcalico.org/") || key.contains("operator.tigera.io/")
}

/// The uid that was given to an object when it was made, which tells two of one name apart even before they
/// have one of the store.
pub(super) fn given_uid(stored: &Value) -> Option<String> {
    let note = stored["metadata"]["annotations"][METADATA].as_str()?;
    let inner: Value = serde_json::from_str(note).ok()?;
    inner["uid"].as_str().map(str::to_owned)
}

/// The uid of the shown object from that of the kept one, and back: the bits of each byte are reversed, but for
/// the two bytes that say which kind of uid it is. Two objects of one uid would confuse Kubernetes.
pub(super) fn other_uid(uid: &str) -> String {
    let hex: String = uid.chars().filter(|c| *c != '-').collect();
    let Ok(number) = u128::from_str_radix(&hex, 16) else { return uid.to_owned() };
    if hex.len() != 32 {
        return uid.to_owned();
    }
    let mut bytes = number.to_be_bytes();
    let turned = bytes.iter_mut().enumerate().filter(|(at, _)| *at != 6 && *at != 8);
    turned.for_each(|(_, byte)| *byte = byte.reverse_bits());
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// What is needed of an object of Kubernetes itself. Nodes are written back and stay whole.
fn source(place: &Place, mut stored: Value) -> Value {
    stored["apiVersion"] = place.api_version().into();
    stored["kind"] = place.kind.into();
    if place.kind == "Node" {
        return stored;
    }
    let drop_fields = |at: Option<&mut Value>, fields: &[&str]| {
        if let Some(object) = at.and_then(Value::as_object_mut) {
            object.retain(|field, _| !fields.contains(&field.as_str()));
        }
    };
    drop_fields(stored.get_mut("metadata"), &["managedFields"]);
    if place.kind == "Pod" {
        drop_fields(stored.get_mut("spec"), &["volumes", "tolerations", "affinity"]);
        drop_fields(
            stored.get_mut("status"),
            &["conditions", "containerStatuses", "initContainerStatuses"],
        );
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            let containers = stored["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                drop_fields(
                    Some(container),
                    &[
                        "env",
                        "volumeMounts",
                        "command",
                        "args",
                        "resources",
                        "livenessProbe",
                        "readinessProbe",
                    ],
                );
            }
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(plural: &str) -> Place {
        Place::of(&format!("projectcalico.org/{plural}")).unwrap()
    }

    fn note(stored: &Value) -> Value {
        serde_json::from_str(stored["metadata"]["annotations"][METADATA].as_str().unwrap()).unwrap()
    }

    const OUTER: &str = "6a1c6e1c-5a1b-4a8e-9a52-d3d0c4c3a001";

    #[test]
    fn uids_are_turned_around_but_for_their_kind() {
        let other = other_uid(OUTER);
        assert_eq!(other, "56387638-5ad8-4a71-9a4a-cb0b23c30580");
        assert_eq!(other_uid(&other), OUTER);
        assert_eq!(other_uid("not a uid"), "not a uid");
    }

    #[test]
    fn a_policy_there_and_back() {
        let place = place("networkpolicies");
        let owner = json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "name": "t",
            "uid": other_uid(OUTER)});
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "a", "uid": other_uid(OUTER),
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"mine": "1", "projectcalico.org/tier": "default"},
                "annotations": {"note": "n"}, "generation": 3, "finalizers": ["x.y/z"],
                "ownerReferences": [owner], "resourceVersion": "9"},
            "spec": {"selector": "all()", "fromTheFuture": [1]}});
        let kept_beside = json!({"finalizers": ["kubernetes.io/own"]});
        let mut kept = stored(&place, "a/p", &value, Some(&kept_beside));
        assert_eq!(kept["apiVersion"], "crd.projectcalico.org/v1");
        assert_eq!(kept["spec"], value["spec"]);
        let metadata = &kept["metadata"];
        assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("p"), &json!("a")));
        assert_eq!(metadata["labels"], json!({"projectcalico.org/tier": "default"}));
        assert_eq!(metadata["annotations"].as_object().unwrap().len(), 1);
        assert_eq!(metadata["finalizers"], json!(["kubernetes.io/own"]));
        let inner = note(&kept);
        assert_eq!(inner["name"], "p");
        assert_eq!(inner["labels"], value["metadata"]["labels"]);
        assert_eq!(inner["ownerReferences"][0]["apiVersion"], "crd.projectcalico.org/v1");
        assert_eq!(inner["ownerReferences"][0]["uid"], OUTER);
        assert!(inner.get("namespace").is_none() && inner.get("resourceVersion").is_none());

        kept["metadata"]["uid"] = OUTER.into();
        kept["metadata"]["resourceVersion"] = "12".into();
        kept["metadata"]["managedFields"] = json!([{"manager": "m"}]);
        let found = shown(&place, kept).unwrap();
        assert_eq!((&*found.key, &*found.raw), ("projectcalico.org/networkpolicies/a/p", "a/p"));
        assert_eq!(found.revision, 12);
        let mut expected = value;
        expected["metadata"].as_object_mut().unwrap().shift_remove("resourceVersion");
        assert_eq!(found.value, expected);
        assert_eq!(found.beside.as_deref(), Some(&kept_beside));
    }

    #[test]
    fn older_forms_are_read() {
        let read = |plural: &str, name: &str, annotations: Value, labels: Value| {
            let kept = json!({"apiVersion": STORED_GROUP, "kind": "GlobalNetworkPolicy", "metadata":
                {"name": name, "uid": OUTER, "resourceVersion": "5", "annotations": annotations,
                 "labels": labels, "creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {}});
            shown(&place(plural), kept).unwrap()
        };
        let of = |note: &str| json!({METADATA: note});
        let policies = "globalnetworkpolicies";
        for (name, note, expected) in [
            ("default.p", r#"{"name":"p","creationTimestamp":null}"#, "p"),
            ("default.p", r#"{"creationTimestamp":null}"#, "p"),
            ("p", r#"{"name":"p"}"#, "p"),
            ("default.p", r#"{"name":"default.p"}"#, "default.p"),
            ("net.p", "{}", "net.p"),
        ] {
            let found = read(policies, name, of(note), json!({}));
            assert_eq!(
                found.key,
                format!("projectcalico.org/{policies}/{expected}"),
                "{name} {note}"
            );
            assert_eq!(found.raw, name);
            assert_eq!(found.value["metadata"]["creationTimestamp"], "2020-01-01T00:00:00Z");
        }
        let found = read("tiers", "default.p", of("{}"), json!({}));
        assert_eq!(found.key, "projectcalico.org/tiers/default.p", "no other kind has a tier");
        let found = read(policies, "p", json!({"a": "outer", "b": "outer"}), json!({"l": "1"}));
        assert_eq!(found.value["metadata"]["labels"], json!({"l": "1"}), "without a note");
        let both = json!({METADATA: r#"{"labels":{"l":"2"},"annotations":{"a":"inner"}}"#,
            "a": "outer", "b": "outer"});
        let found = read(policies, "p", both, json!({"l": "1", "m": "1"}));
        assert_eq!(found.value["metadata"]["labels"], json!({"l": "2", "m": "1"}));
        assert_eq!(found.value["metadata"]["annotations"], json!({"a": "inner", "b": "outer"}));
        let kept = json!({"metadata": {"name": "p", "resourceVersion": "5",
            "annotations": {METADATA: "{"}}});
        assert!(shown(&place(policies), kept).unwrap_err().contains(METADATA));
    }

    #[test]
    fn affinities_say_in_a_word_whether_they_are_deleted() {
        let affinity = place("blockaffinities");
        for deleted in [false, true] {
            let value = json!({"apiVersion": SHOWN_GROUP, "kind": "BlockAffinity",
                "metadata": {"name": "n-10-0-0-0-26"}, "spec": {"cidr": "10.0.0.0/26", "node": "n",
                    "state": "confirmed", "type": "host", "deleted": deleted}});
            let mut kept = stored(&affinity, "n-10-0-0-0-26", &value, None);
            assert_eq!(kept["spec"]["deleted"], deleted.to_string());
            kept["metadata"]["resourceVersion"] = "1".into();
            kept["spec"].as_object_mut().unwrap().shift_remove("type");
            assert_eq!(shown(&affinity, kept).unwrap().value["spec"], value["spec"]);
        }
        let config = place("ipamconfigurations");
        let value = json!({"apiVersion": SHOWN_GROUP, "kind": "IPAMConfiguration",
            "metadata": {"name": "default"}, "spec": {"strictAffinity": true}});
        let mut kept = stored(&config, "default", &value, None);
        assert_eq!(kept["kind"], "IPAMConfig");
        kept["metadata"]["resourceVersion"] = "1".into();
        let found = shown(&config, kept).unwrap();
        assert_eq!(found.key, "projectcalico.org/ipamconfigurations/default");
        assert_eq!(found.value["kind"], "IPAMConfiguration");
    }
}
