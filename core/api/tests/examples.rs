//! The examples that users are given are valid, keep their meaning when written again, and convert.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::path::Path;

use api::{convert, v3};
use serde_json::Value;

fn examples() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            for document in api::yaml::documents(&text) {
                all.push((path.display().to_string(), document.object.unwrap()));
            }
        }
    }
    assert!(all.len() >= 11, "examples are missing");
    all
}

#[test]
fn are_valid_also_once_defaulted() {
    for (file, mut object) in examples() {
        assert_eq!(api::validate(&object, None), [], "{file}");
        let kind = api::kind_of(&object).unwrap();
        kind.default(&mut object);
        assert_eq!(api::validate(&object, None), [], "{file}, defaulted");
        let again = object.clone();
        kind.default(&mut object);
        assert_eq!(again, object, "{file}: defaulting twice changes something");
    }
}

fn round<S: api::Spec>(object: &Value) -> api::Object<S> {
    let typed: api::Object<S> = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), *object, "written differently");
    typed
}

#[test]
fn convert() {
    for (file, mut object) in examples() {
        let kind = api::kind_of(&object).unwrap();
        kind.default(&mut object);
        let converted = match (kind.group, kind.kind) {
            ("networking.k8s.io", _) => {
                let policy = serde_json::from_value(object).unwrap();
                convert::kubernetes_network_policy(&policy).unwrap()
            }
            (_, "NetworkPolicy") => {
                let policy: v3::NetworkPolicy = serde_json::from_value(object).unwrap();
                convert::network_policy(&policy).unwrap()
            }
            (_, "GlobalNetworkPolicy") => {
                let policy: v3::GlobalNetworkPolicy = serde_json::from_value(object).unwrap();
                convert::global_network_policy(&policy).unwrap()
            }
            (_, "HostEndpoint") => {
                let endpoint = round::<v3::HostEndpointSpec>(&object);
                assert_eq!(convert::host_endpoint(&endpoint).unwrap().errors, []);
                continue;
            }
            (_, "IPPool") => {
                let pool = convert::pool(&serde_json::from_value(object).unwrap()).unwrap();
                assert_eq!(pool.vxlan, model::network::EncapMode::Always);
                continue;
            }
            (_, "Node") => {
                let node = round::<v3::NodeSpec>(&object);
                let notes = convert::annotations_of_node(&node);
                let id = notes["projectcalico.org/RouteReflectorClusterID"].as_deref();
                assert_eq!(id, Some("224.0.0.1"));
                continue;
            }
            (_, "BGPPeer") => {
                round::<v3::BGPPeerSpec>(&object);
                continue;
            }
            (_, "Installation") => {
                round::<api::operator::InstallationSpec>(&object);
                continue;
            }
            other => panic!("{file}: what to do with {other:?}?"),
        };
        assert_eq!(converted.errors, [], "{file}");
    }
}
