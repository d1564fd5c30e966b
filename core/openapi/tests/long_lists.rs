//! Lists as long as a request body can hold: work on them grows with their length, not with its square.
//!
//! Nothing here looks at a clock. With a look through the whole list for each item these tests would take
//! minutes where they take a second.

use openapi::{Schema, Schemas, managed, patch};
use serde_json::{Value, json};

const LONG: usize = 100_000;
/// Of things that have owners, field by field, which costs far more for each.
const OWNED: usize = 30_000;

fn schema(list: &Value) -> Schema {
    let mut schemas = Schemas::builtin();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": list}}}});
    schemas.add("example.org", "v1", "Thing", schema);
    schemas.for_kind("example.org", "v1", "Thing").expect("it was added")
}

fn thing(x: Vec<Value>) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"x": x}})
}

fn numbers(count: usize) -> impl DoubleEndedIterator<Item = Value> {
    (0..count).map(|i| json!(i.to_string()))
}

#[test]
fn a_set_is_searched_for_duplicates() {
    let set =
        json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    let mut items: Vec<Value> = numbers(LONG).collect();
    assert_eq!(schema(&set).validate(&thing(items.clone())), []);
    items.push(json!("7"));
    let errors = schema(&set).validate(&thing(items));
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told, [format!("spec.x[{LONG}]: Duplicate value: \"7\"")]);
}

#[test]
fn a_keyed_list_is_applied_over_another() {
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties":
            {"k": {"type": "string"}, "v": {"type": "integer"}}}});
    let schema = schema(&list);
    let items =
        |v: u32| -> Vec<Value> { numbers(OWNED).map(|k| json!({"k": k, "v": v})).collect() };
    let apply = |live: Option<&Value>, v: u32| {
        managed::apply(&schema, live, &thing(items(v)), "m", false, "", "2026-01-01T00:00:00Z")
            .expect("it is applied")
    };
    let first = apply(None, 1);
    let second = apply(Some(&first), 2);
    assert_eq!(second["spec"]["x"].as_array().map(Vec::len), Some(OWNED));
    assert_eq!(second["spec"]["x"][OWNED - 1]["v"], 2);
}

#[test]
fn a_strategic_patch_meets_a_long_list() {
    let schema = Schemas::builtin().for_kind("", "v1", "Pod").expect("a pod has a schema");
    let pod = |list: Vec<Value>| json!({"spec": {"containers": list}});
    let mut object = pod(numbers(LONG).map(|name| json!({"name": name, "image": "old"})).collect());
    // The first is deleted, every other changed, one is new; and all shall stand the other way round.
    let mut items: Vec<Value> =
        numbers(LONG).skip(1).map(|name| json!({"name": name, "image": "new"})).collect();
    items.push(json!({"name": "0", "$patch": "delete"}));
    items.push(json!({"name": "fresh"}));
    let order: Vec<Value> = [json!("fresh")].into_iter().chain(numbers(LONG).rev()).collect();
    let order: Vec<Value> = order.into_iter().map(|name| json!({"name": name})).collect();
    let change = json!({"spec": {"containers": items, "$setElementOrder/containers": order}});
    patch::strategic(&schema, &mut object, &change).expect("a good patch");
    let list = object["spec"]["containers"].as_array().expect("a list");
    assert_eq!(list.len(), LONG);
    assert_eq!(list[0], json!({"name": "fresh"}));
    assert_eq!(list[1], json!({"name": (LONG - 1).to_string(), "image": "new"}));
}
