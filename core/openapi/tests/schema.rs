//! The built-in schemas and those of custom resources: unknown fields, defaults, validation.

use openapi::{Schema, Schemas};
use serde_json::{Value, json};

fn pod() -> Schema {
    Schemas::builtin().for_kind("", "v1", "Pod").expect("a pod has a schema")
}

fn custom(schema: Value) -> Schema {
    let mut schemas = Schemas::builtin();
    schemas.add("example.org", "v1", "Thing", schema);
    schemas.for_kind("example.org", "v1", "Thing").expect("it was added")
}

fn in_spec(schema: &Value) -> Schema {
    custom(
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}}),
    )
}

fn thing(x: &Value) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"x": x}})
}

#[test]
fn every_served_kind_is_there() {
    let schemas = Schemas::builtin();
    for (group, version, kind) in [
        ("", "v1", "Namespace"),
        ("", "v1", "Node"),
        ("", "v1", "Pod"),
        ("", "v1", "PodList"),
        ("", "v1", "Service"),
        ("", "v1", "ServiceAccount"),
        ("", "v1", "Event"),
        ("", "v1", "ConfigMap"),
        ("", "v1", "Secret"),
        ("", "v1", "Endpoints"),
        ("", "v1", "Binding"),
        ("", "v1", "Status"),
        ("", "v1", "DeleteOptions"),
        ("discovery.k8s.io", "v1", "EndpointSlice"),
        ("networking.k8s.io", "v1", "NetworkPolicy"),
        ("coordination.k8s.io", "v1", "Lease"),
        ("events.k8s.io", "v1", "Event"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("policy", "v1", "Eviction"),
    ] {
        assert!(schemas.for_kind(group, version, kind).is_some(), "{group}/{version} {kind}");
    }
    assert!(schemas.for_kind("apps", "v1", "Deployment").is_none());
    assert!(pod().has_status() && pod().is_builtin());
}

#[test]
fn unknown_fields_are_named_and_pruned() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"any": "thing"}, "lables": {}},
        "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "imagee": "i"}], "nodeName": "n"},
        "extra": 1,
    });
    assert_eq!(
        pod().unknown_fields(&object),
        ["metadata.lables", "spec.containers[1].imagee", "extra"]
    );
    pod().prune(&mut object);
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"any": "thing"}},
            "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d"}], "nodeName": "n"},
        })
    );
}

#[test]
fn free_form_parts_keep_everything() {
    let event = json!({"metadata": {"managedFields": [{"fieldsV1": {"f:x": {}}}]}, "involvedObject": {"kind": "Pod"}});
    let schema = Schemas::builtin().for_kind("", "v1", "Event").unwrap();
    assert_eq!(schema.unknown_fields(&event), [""; 0]);
    let crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {
        "properties": {"description": {"type": "string", "default": {"a": 1}}}}}}]}});
    let schema = Schemas::builtin()
        .for_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
        .unwrap();
    assert_eq!(schema.unknown_fields(&crd), [""; 0]);
    assert_eq!(
        schema.validate(&crd["spec"]["versions"][0]["schema"]).len(),
        1,
        "a schema is no definition"
    );
}

#[test]
fn an_object_without_fields_prunes_what_is_in_it_unless_told_otherwise() {
    let mut object = thing(&json!({"a": 1}));
    assert_eq!(in_spec(&json!({"type": "object"})).unknown_fields(&object), ["spec.x.a"]);
    let open = in_spec(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(open.unknown_fields(&object), [""; 0]);
    open.prune(&mut object);
    assert_eq!(object, thing(&json!({"a": 1})));
}

#[test]
fn defaults_fill_objects_that_are_there() {
    let schema = custom(
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "mode": {"type": "string", "default": "Auto"},
            "inner": {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            "null": {"type": "string", "nullable": true, "default": "x"},
        }}}}),
    );
    let mut object = json!({"spec": {"list": [{}, {"p": "UDP"}], "mode": null, "null": null}});
    schema.default(&mut object);
    let want =
        json!({"spec": {"list": [{"p": "TCP"}, {"p": "UDP"}], "mode": "Auto", "null": null}});
    assert_eq!(object, want);
    let mut object = json!({"metadata": {}});
    schema.default(&mut object);
    assert_eq!(object, json!({"metadata": {}}));
    let mut pod_object =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1}]}]}});
    pod().default(&mut pod_object);
    assert_eq!(pod_object["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
}

fn check(schema: &Value, value: &Value, want: &[&str]) {
    let errors: Vec<String> =
        in_spec(schema).validate(&thing(value)).iter().map(ToString::to_string).collect();
    assert_eq!(errors, want, "{schema} {value}");
}

#[test]
fn types() {
    check(&json!({"type": "integer"}), &json!(3), &[]);
    check(
        &json!({"type": "integer"}),
        &json!("3"),
        &["spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\""],
    );
    check(&json!({"type": "string", "nullable": true}), &json!(null), &[]);
    check(
        &json!({"type": "string"}),
        &json!(null),
        &["spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\""],
    );
    check(&json!({"x-kubernetes-int-or-string": true}), &json!("80%"), &[]);
    check(
        &json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        &json!(80),
        &[],
    );
    check(
        &json!({"x-kubernetes-int-or-string": true}),
        &json!(true),
        &[
            "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
        ],
    );
    check(
        &json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        &json!({"a": 1}),
        &[],
    );
    check(
        &json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        &json!({"a": "b"}),
        &[
            "spec.x.a: Invalid value: \"string\": spec.x.a in body must be of type integer: \"string\"",
        ],
    );
}

#[test]
fn rules() {
    check(
        &json!({"type": "string", "enum": ["a", "b"]}),
        &json!("c"),
        &["spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    );
    check(
        &json!({"type": "integer", "minimum": 1, "maximum": 65535}),
        &json!(70000),
        &["spec.x: Invalid value: 70000: spec.x in body should be less than or equal to 65535"],
    );
    check(
        &json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
        &json!(1),
        &["spec.x: Invalid value: 1: spec.x in body should be greater than 1"],
    );
    check(
        &json!({"type": "string", "pattern": "^[a-z]+$", "minLength": 2}),
        &json!("A"),
        &[
            "spec.x: Invalid value: \"A\": spec.x in body should be at least 2 chars long",
            "spec.x: Invalid value: \"A\": spec.x in body should match '^[a-z]+$'",
        ],
    );
    check(
        &json!({"type": "string", "maxLength": 2}),
        &json!("äöü"),
        &["spec.x: Too long: may not be more than 2 bytes"],
    );
    check(
        &json!({"type": "array", "items": {}, "maxItems": 1}),
        &json!([1, 2]),
        &["spec.x: Too many: 2: must have at most 1 items"],
    );
    check(
        &json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
        &json!({}),
        &["spec.x.a: Required value"],
    );
    check(
        &json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
        &json!(["a", "b", "a"]),
        &["spec.x[2]: Duplicate value: \"a\""],
    );
    check(
        &json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
        &json!({"a": "1", "b": "2"}),
        &[
            "spec.x: Invalid value: {\"a\":\"1\",\"b\":\"2\"}: spec.x in body must validate one and only one schema (oneOf)",
        ],
    );
    check(&json!({"type": "string", "format": "ipv4"}), &json!("10.0.0.1"), &[]);
    check(&json!({"not": {"type": "string"}}), &json!(1), &[]);
}

#[test]
fn built_in_kinds_take_null_for_absent_and_check_quantities() {
    let object = json!({"metadata": {"name": null}, "spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "env": null}]}});
    assert_eq!(pod().validate(&object), []);
    let object =
        json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "lots"}}}]}});
    assert_eq!(pod().validate(&object)[0].field, "spec.containers[0].resources.limits.cpu");
    assert_eq!(
        pod().validate(&json!({"spec": {}}))[0].to_string(),
        "spec.containers: Required value"
    );
}

#[test]
fn normal_form_has_no_nulls_and_quantities_as_text() {
    let mut object = json!({"metadata": {"labels": null, "annotations": {"a": "b"}}, "spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1Gi", "x": 2}}, "env": null}]}});
    pod().normalize(&mut object);
    let want = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": "0.5", "memory": "1Gi", "x": "2"}}}]}});
    assert_eq!(object, want);
    let schema = in_spec(&json!({"type": "string", "nullable": true}));
    let mut object = thing(&json!(null));
    schema.normalize(&mut object);
    assert_eq!(object, thing(&json!(null)));
}

#[test]
fn derived_schemas_with_references_work() {
    let schema = custom(json!({
        "type": "object",
        "properties": {"spec": {"anyOf": [{"$ref": "#/$defs/Spec"}, {"type": "null"}]}},
        "$defs": {"Spec": {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}}},
    }));
    assert_eq!(schema.unknown_fields(&json!({"spec": {"m": 1}})), ["spec.m"]);
    assert_eq!(schema.validate(&json!({"spec": {"n": null}})), []);
    assert_eq!(schema.validate(&json!({"spec": null})), []);
    assert_eq!(schema.validate(&json!({"spec": {"n": "x"}})).len(), 1);
}
