//! The documents: complete, consistent, and with what kubectl looks for.

use std::collections::BTreeSet;

use openapi::Schemas;
use openapi::document::{Resource, v2, v2_binary, v3, v3_index};
use serde_json::{Value, json};

const POD: Resource<'_> = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    namespaced: true,
    status: true,
};
const THING: Resource<'_> = Resource {
    group: "example.org",
    version: "v1",
    kind: "Thing",
    plural: "things",
    namespaced: false,
    status: false,
};

fn schemas() -> Schemas {
    let mut schemas = Schemas::builtin();
    let spec = json!({"type": "object", "properties": {"size": {"type": "integer"}}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    schemas.add("example.org", "v1", "Thing", schema);
    schemas
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.insert(target.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => (),
    }
}

/// Every reference leads somewhere.
fn closed(document: &Value, prefix: &str, definitions: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        let name = target.strip_prefix(prefix).expect("references stay in the document");
        assert!(definitions[name].is_object(), "{target} is not there");
    }
}

#[test]
fn version_2_is_complete() {
    let document = v2(&schemas(), &[POD, THING]);
    closed(&document, "#/definitions/", &document["definitions"]);
    assert_eq!(document["swagger"], "2.0");
    let thing = &document["definitions"]["org.example.v1.Thing"];
    let kind = json!([{"group": "example.org", "version": "v1", "kind": "Thing"}]);
    assert_eq!(thing["x-kubernetes-group-version-kind"], kind);
    assert_eq!(thing["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert!(document["definitions"]["org.example.v1.ThingList"].is_object());
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
}

#[test]
fn version_3_documents_hold_their_group_only() {
    let index = v3_index(&[POD, THING], "abc");
    let addresses: Vec<&str> =
        index["paths"].as_object().into_iter().flat_map(|p| p.keys()).map(String::as_str).collect();
    assert_eq!(addresses, ["api/v1", "apis/example.org/v1"]);
    assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], "/openapi/v3/api/v1?hash=abc");
    let document = v3(&schemas(), "example.org", "v1", &[POD, THING]);
    let definitions = &document["components"]["schemas"];
    closed(&document, "#/components/schemas/", definitions);
    assert!(definitions["io.k8s.api.core.v1.Pod"].is_null());
    let patch = &document["paths"]["/apis/example.org/v1/things/{name}"]["patch"];
    let kind = json!({"group": "example.org", "version": "v1", "kind": "Thing"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    let names: Vec<&Value> =
        patch["parameters"].as_array().into_iter().flatten().map(|p| &p["name"]).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
}

#[test]
fn status_has_a_path_where_it_is_served() {
    let document = v3(&schemas(), "", "v1", &[POD, THING]);
    let status = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/status"];
    assert!(status["patch"].is_object() && status["delete"].is_null());
    let document = v3(&schemas(), "example.org", "v1", &[THING]);
    assert!(document["paths"]["/apis/example.org/v1/things/{name}/status"].is_null());
}

#[test]
fn the_binary_document_is_well_formed() {
    let bytes = v2_binary();
    let want = [&b"\x0a\x032.0"[..], b"\x12\x15\x0a\x0aKubernetes\x12\x07v1.35.4\x42\x00"].concat();
    assert_eq!(bytes, want);
}

/// kubectl sends a strategic merge patch to the kinds that say so here; for others there is none.
#[test]
fn only_built_in_kinds_take_strategic_merge_patches() {
    let strategic = "application/strategic-merge-patch+json";
    let (pod, thing) =
        ("/api/v1/namespaces/{namespace}/pods/{name}", "/apis/example.org/v1/things/{name}");
    let types =
        |path: &str| v2(&schemas(), &[POD, THING])["paths"][path]["patch"]["consumes"].clone();
    for (path, wanted) in [(pod, true), (thing, false)] {
        let types = types(path);
        let types = types.as_array().expect("patches have types");
        assert!(types.contains(&json!("application/merge-patch+json")), "{path}");
        assert_eq!(types.contains(&json!(strategic)), wanted, "{path}");
    }
    for (resource, path, wanted) in [(POD, pod, true), (THING, thing, false)] {
        let document = v3(&schemas(), resource.group, resource.version, &[POD, THING]);
        let content = &document["paths"][path]["patch"]["requestBody"]["content"];
        assert!(content["application/apply-patch+yaml"].is_object(), "{path}");
        assert_eq!(content[strategic].is_object(), wanted, "{path}");
    }
}
