//! Strategic merge patches of pods; the results were recorded from upstream's implementation.

use openapi::{Schemas, patch};
use serde_json::Value;

#[test]
fn patches_give_what_upstream_gives() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("strategic/cases.json")).unwrap();
    let schema = Schemas::builtin().for_kind("", "v1", "Pod").unwrap();
    assert!(cases.len() > 50);
    for (number, case) in cases.iter().enumerate() {
        let mut object = case["current"].clone();
        let result = patch::strategic(&schema, &mut object, &case["patch"]);
        let failed = case.get("error").is_some();
        assert_eq!(result.is_err(), failed, "{number}: {} {result:?}", case["patch"]);
        assert!(
            failed || object == case["want"],
            "{number}: {}\n from {}\n  got {object}\n want {}",
            case["patch"],
            case["current"],
            case["want"]
        );
    }
}
