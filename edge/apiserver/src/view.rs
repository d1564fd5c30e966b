//! Resources that show objects stored under another resource, or another version: how the shown form
//! is made from the stored one and back.

use serde_json::{Map, Value, json};

/// How a resource's objects differ from what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Not at all.
    Same,
    /// Only in `apiVersion`.
    Version,
    /// `events.k8s.io` over core events.
    Event,
    /// Calico's Node over the core Node and its annotations.
    CalicoNode,
}

/// Core event fields, and what `events.k8s.io` calls them.
const EVENT: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Where Calico's Node keeps each field: a JSON pointer under `spec`, and the annotation.
const NODE: [(&str, &str); 8] = [
    ("/bgp/ipv4Address", "projectcalico.org/IPv4Address"),
    ("/bgp/ipv6Address", "projectcalico.org/IPv6Address"),
    ("/bgp/asNumber", "projectcalico.org/ASNumber"),
    ("/bgp/routeReflectorClusterID", "projectcalico.org/RouteReflectorClusterID"),
    ("/bgp/ipv4IPIPTunnelAddr", "projectcalico.org/IPv4IPIPTunnelAddr"),
    ("/ipv4VXLANTunnelAddr", "projectcalico.org/IPv4VXLANTunnelAddr"),
    ("/ipv6VXLANTunnelAddr", "projectcalico.org/IPv6VXLANTunnelAddr"),
    ("/vxlanTunnelMACAddr", "projectcalico.org/VXLANTunnelMACAddr"),
];

impl View {
    /// The shown form of a stored object.
    pub(crate) fn show(self, stored: &Value, api_version: &str, kind: &str) -> Value {
        let mut shown = match self {
            Self::Same | Self::Version => stored.clone(),
            Self::Event => rename(stored.clone(), EVENT.iter().copied()),
            Self::CalicoNode => node_from_core(stored),
        };
        if let Some(object) = shown.as_object_mut() {
            object.insert("apiVersion".into(), api_version.into());
            object.insert("kind".into(), kind.into());
        }
        shown
    }

    /// The stored form of a configuration to apply: only what it says.
    pub(crate) fn configuration(self, shown: &Value) -> Value {
        let mut stored = self.store(shown.clone(), None);
        if self == Self::CalicoNode
            && let Some(fields) = stored.as_object_mut()
        {
            fields.shift_remove("spec");
        }
        stored
    }

    /// The form to store of a shown object; `before` is what is stored now.
    pub(crate) fn store(self, shown: Value, before: Option<&Value>) -> Value {
        match self {
            Self::Same | Self::Version => shown,
            Self::Event => {
                let mut stored = rename(shown, EVENT.iter().map(|(core, new)| (*new, *core)));
                stored["apiVersion"] = "v1".into();
                stored
            }
            Self::CalicoNode => node_to_core(&shown, before),
        }
    }
}

fn rename<'a>(mut object: Value, names: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    if let Some(fields) = object.as_object_mut() {
        for (from, to) in names {
            if let Some(value) = fields.shift_remove(from) {
                fields.insert(to.into(), value);
            }
        }
    }
    object
}

fn node_from_core(stored: &Value) -> Value {
    let mut metadata = stored["metadata"].clone();
    let annotations = stored["metadata"]["annotations"].as_object();
    let mut spec = json!({});
    for (pointer, annotation) in NODE {
        if let Some(value) = annotations.and_then(|a| a.get(annotation)) {
            let value = match (pointer, value.as_str().map(str::parse::<u64>)) {
                ("/bgp/asNumber", Some(Ok(number))) => number.into(),
                _ => value.clone(),
            };
            put(&mut spec, pointer, value);
        }
    }
    if let Some(shown) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        shown.retain(|key, _| !NODE.iter().any(|(_, annotation)| key == annotation));
    }
    let address = |a: &Value| json!({"address": a["address"], "type": a["type"]});
    let addresses: Vec<_> = stored["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["type"] == "InternalIP" || a["type"] == "ExternalIP")
        .map(address)
        .collect();
    if !addresses.is_empty() {
        spec["addresses"] = addresses.into();
    }
    spec["orchRefs"] = json!([{"nodeName": stored["metadata"]["name"], "orchestrator": "k8s"}]);
    json!({"apiVersion": "", "kind": "", "metadata": metadata, "spec": spec})
}

fn node_to_core(shown: &Value, before: Option<&Value>) -> Value {
    let mut stored = before.cloned().unwrap_or_else(|| json!({"spec": {}}));
    stored["apiVersion"] = "v1".into();
    stored["kind"] = "Node".into();
    let mut metadata = shown["metadata"].clone();
    let mut annotations = match metadata.get_mut("annotations").map(Value::take) {
        Some(Value::Object(annotations)) => annotations,
        _ => Map::new(),
    };
    for (pointer, annotation) in NODE {
        match shown["spec"].pointer(pointer) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                annotations.insert(annotation.into(), text.as_str().into());
            }
            Some(other) => {
                annotations.insert(annotation.into(), other.to_string().into());
            }
        }
    }
    if let Some(fields) = metadata.as_object_mut() {
        fields.shift_remove("annotations");
        if !annotations.is_empty() {
            fields.insert("annotations".into(), Value::Object(annotations));
        }
    }
    stored["metadata"] = metadata;
    stored
}

fn put(target: &mut Value, pointer: &str, value: Value) {
    let mut at = target;
    for part in pointer.split('/').skip(1) {
        at = &mut at[part];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calico_node_is_a_core_node_and_annotations() {
        let shown = json!({"metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"bgp": {"asNumber": 64512, "routeReflectorClusterID": "224.0.0.1"}}});
        let before = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}});
        let stored = View::CalicoNode.store(shown.clone(), Some(&before));
        assert_eq!(stored["spec"]["podCIDR"], "10.0.0.0/24");
        assert_eq!(stored["metadata"]["annotations"]["projectcalico.org/ASNumber"], "64512");
        let back = View::CalicoNode.show(&stored, "projectcalico.org/v3", "Node");
        assert_eq!(back["spec"]["bgp"], shown["spec"]["bgp"]);
        assert_eq!(back["metadata"]["labels"], shown["metadata"]["labels"]);
        assert_eq!(back["apiVersion"], "projectcalico.org/v3");
    }

    #[test]
    fn events_keep_everything_both_ways() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"},
            "message": "m", "reason": "r", "count": 2});
        let shown = View::Event.show(&core, "events.k8s.io/v1", "Event");
        assert_eq!(shown["regarding"]["name"], "p");
        assert_eq!(shown["note"], "m");
        let stored = View::Event.store(shown, None);
        assert_eq!(stored, core);
    }
}
