//! Bodies in Kubernetes' protobuf encoding, which `kubectl create` sends for some kinds whatever is asked
//! of it. Only what those commands send is known here; anything else is answered with 415.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::request::unsupported;
use crate::status::{ApiError, Result};

/// The media type.
pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// What the bytes of a field mean.
#[derive(Clone, Copy)]
enum Field {
    Text,
    Bytes,
    Int,
    /// A number whose zero stands for "not set".
    Count,
    Bool,
    /// A truth whose `false` stands for "not set".
    Flag,
    Message(Message),
    /// A map of strings.
    Texts,
    /// A map of byte strings.
    Blobs,
    Time,
    IntOrText,
}

/// The fields of a message: number, name, meaning, and whether it repeats.
type Message = &'static [(u64, &'static str, Field, bool)];

use Field::{Blobs, Bool, Bytes, Count, Flag, Int, IntOrText, Text, Texts, Time};

const OWNER: Message = &[
    (1, "kind", Text, false),
    (3, "name", Text, false),
    (4, "uid", Text, false),
    (5, "apiVersion", Text, false),
    (6, "controller", Bool, false),
    (7, "blockOwnerDeletion", Bool, false),
];
const METADATA: Message = &[
    (1, "name", Text, false),
    (2, "generateName", Text, false),
    (3, "namespace", Text, false),
    (5, "uid", Text, false),
    (6, "resourceVersion", Text, false),
    (7, "generation", Count, false),
    (8, "creationTimestamp", Time, false),
    (9, "deletionTimestamp", Time, false),
    (10, "deletionGracePeriodSeconds", Int, false),
    (11, "labels", Texts, false),
    (12, "annotations", Texts, false),
    (13, "ownerReferences", Field::Message(OWNER), true),
    (14, "finalizers", Text, true),
];
const META: (u64, &str, Field, bool) = (1, "metadata", Field::Message(METADATA), false);

const NAMESPACE: Message = &[
    META,
    (2, "spec", Field::Message(&[(1, "finalizers", Text, true)]), false),
    (3, "status", Field::Message(&[(1, "phase", Text, false)]), false),
];
const SERVICE_ACCOUNT: Message = &[
    META,
    (2, "secrets", Field::Message(&[(3, "name", Text, false)]), true),
    (3, "imagePullSecrets", Field::Message(&[(1, "name", Text, false)]), true),
    (4, "automountServiceAccountToken", Bool, false),
];
const CONFIG_MAP: Message = &[
    META,
    (2, "data", Texts, false),
    (3, "binaryData", Blobs, false),
    (4, "immutable", Bool, false),
];
const SECRET: Message = &[
    META,
    (2, "data", Blobs, false),
    (3, "type", Text, false),
    (4, "stringData", Texts, false),
    (5, "immutable", Bool, false),
];
const PORT: Message = &[
    (1, "name", Text, false),
    (2, "protocol", Text, false),
    (3, "port", Count, false),
    (4, "targetPort", IntOrText, false),
    (5, "nodePort", Count, false),
    (6, "appProtocol", Text, false),
];
const SERVICE_SPEC: Message = &[
    (1, "ports", Field::Message(PORT), true),
    (2, "selector", Texts, false),
    (3, "clusterIP", Text, false),
    (4, "type", Text, false),
    (5, "externalIPs", Text, true),
    (7, "sessionAffinity", Text, false),
    (8, "loadBalancerIP", Text, false),
    (9, "loadBalancerSourceRanges", Text, true),
    (10, "externalName", Text, false),
    (11, "externalTrafficPolicy", Text, false),
    (12, "healthCheckNodePort", Count, false),
    (13, "publishNotReadyAddresses", Flag, false),
    (17, "ipFamilyPolicy", Text, false),
    (18, "clusterIPs", Text, true),
    (19, "ipFamilies", Text, true),
    (20, "allocateLoadBalancerNodePorts", Bool, false),
    (21, "loadBalancerClass", Text, false),
    (22, "internalTrafficPolicy", Text, false),
    (23, "trafficDistribution", Text, false),
];
const SERVICE: Message = &[
    META,
    (2, "spec", Field::Message(SERVICE_SPEC), false),
    (3, "status", Field::Message(&[]), false),
];
const TOKEN_SPEC: Message = &[(1, "audiences", Text, true), (4, "expirationSeconds", Int, false)];
const TOKEN_REQUEST: Message = &[
    META,
    (2, "spec", Field::Message(TOKEN_SPEC), false),
    (3, "status", Field::Message(&[]), false),
];
const RESOURCE_ATTRIBUTES: Message = &[
    (1, "namespace", Text, false),
    (2, "verb", Text, false),
    (3, "group", Text, false),
    (4, "version", Text, false),
    (5, "resource", Text, false),
    (6, "subresource", Text, false),
    (7, "name", Text, false),
];
const ACCESS_SPEC: Message = &[
    (1, "resourceAttributes", Field::Message(RESOURCE_ATTRIBUTES), false),
    (
        2,
        "nonResourceAttributes",
        Field::Message(&[(1, "path", Text, false), (2, "verb", Text, false)]),
        false,
    ),
];
const ACCESS_REVIEW: Message = &[
    META,
    (2, "spec", Field::Message(ACCESS_SPEC), false),
    (3, "status", Field::Message(&[]), false),
];
const RULES_REVIEW: Message = &[
    META,
    (2, "spec", Field::Message(&[(1, "namespace", Text, false)]), false),
    (3, "status", Field::Message(&[]), false),
];
const SELF_REVIEW: Message = &[META, (2, "status", Field::Message(&[]), false)];
const DELETE_OPTIONS: Message = &[
    (1, "gracePeriodSeconds", Int, false),
    (
        2,
        "preconditions",
        Field::Message(&[(1, "uid", Text, false), (2, "resourceVersion", Text, false)]),
        false,
    ),
    (3, "orphanDependents", Bool, false),
    (4, "propagationPolicy", Text, false),
    (5, "dryRun", Text, true),
];
const EVICTION: Message = &[META, (2, "deleteOptions", Field::Message(DELETE_OPTIONS), false)];
const LEASE_SPEC: Message = &[
    (1, "holderIdentity", Text, false),
    (2, "leaseDurationSeconds", Int, false),
    (5, "leaseTransitions", Int, false),
];
const LEASE: Message = &[META, (2, "spec", Field::Message(LEASE_SPEC), false)];

const RULE: Message = &[
    (1, "verbs", Text, true),
    (2, "apiGroups", Text, true),
    (3, "resources", Text, true),
    (4, "resourceNames", Text, true),
    (5, "nonResourceURLs", Text, true),
];
const REQUIREMENT: Message =
    &[(1, "key", Text, false), (2, "operator", Text, false), (3, "values", Text, true)];
const SELECTOR: Message =
    &[(1, "matchLabels", Texts, false), (2, "matchExpressions", Field::Message(REQUIREMENT), true)];
const AGGREGATION: Message = &[(1, "clusterRoleSelectors", Field::Message(SELECTOR), true)];
const ROLE: Message = &[
    META,
    (2, "rules", Field::Message(RULE), true),
    (3, "aggregationRule", Field::Message(AGGREGATION), false),
];
const SUBJECT: Message = &[
    (1, "kind", Text, false),
    (2, "apiGroup", Text, false),
    (3, "name", Text, false),
    (4, "namespace", Text, false),
];
const ROLE_REF: Message =
    &[(1, "apiGroup", Text, false), (2, "kind", Text, false), (3, "name", Text, false)];
const BINDING: Message = &[
    META,
    (2, "subjects", Field::Message(SUBJECT), true),
    (3, "roleRef", Field::Message(ROLE_REF), false),
];

fn message(kind: &str) -> Option<Message> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Service" => SERVICE,
        "TokenRequest" => TOKEN_REQUEST,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => SELF_REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        "Lease" => LEASE,
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => BINDING,
        _ => return None,
    })
}

/// Decodes an object with its envelope.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value> {
    const TYPE: Message = &[(1, "apiVersion", Text, false), (2, "kind", Text, false)];
    const ENVELOPE: Message = &[(1, "type", Field::Message(TYPE), false), (2, "raw", Bytes, false)];
    let bad = || ApiError::bad_request("the body of the request is not valid protobuf");
    let envelope = bytes.strip_prefix(b"k8s\0").ok_or_else(bad)?;
    let outer = decode(envelope, ENVELOPE).ok_or_else(bad)?;
    let kind = outer["type"]["kind"].as_str().unwrap_or_default();
    let Some(message) = message(kind) else {
        return Err(unsupported(&format!("{MEDIA} of kind {kind}"), "application/json"));
    };
    let raw = STANDARD.decode(outer["raw"].as_str().unwrap_or_default()).map_err(|_| bad())?;
    let mut object = decode(&raw, message).ok_or_else(bad)?;
    object["apiVersion"] = outer["type"]["apiVersion"].clone();
    object["kind"] = kind.into();
    Ok(object)
}

/// Decodes a message; `None` if it is malformed. Fields that are not in the table are skipped.
fn decode(mut bytes: &[u8], message: Message) -> Option<Value> {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = wire(&mut bytes)?;
        let Some((_, name, field, repeated)) = message.iter().find(|row| row.0 == number) else {
            continue;
        };
        let value = value(*field, wire)?;
        if value.is_null() {
            continue;
        }
        let slot = object.entry(*name).or_insert(Value::Null);
        match (slot, value) {
            (Value::Array(list), value) if *repeated => list.push(value),
            (slot, value) if *repeated => *slot = json!([value]),
            // An entry of a map.
            (Value::Object(map), Value::Object(more)) => map.extend(more),
            (slot, value) => *slot = value,
        }
    }
    Some(Value::Object(object))
}

enum Wire<'a> {
    Number(u64),
    Slice(&'a [u8]),
}

/// Takes one field off the front: its number and content.
fn wire<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = varint(bytes)?;
    let wire = match key & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (slice, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Slice(slice)
        }
        kind @ (1 | 5) => {
            let (_, rest) = bytes.split_at_checked(if kind == 1 { 8 } else { 4 })?;
            *bytes = rest;
            Wire::Number(0)
        }
        _ => return None,
    };
    Some((key >> 3, wire))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The JSON of a field, null if it says nothing; `None` if it is malformed.
fn value(field: Field, wire: Wire<'_>) -> Option<Value> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(match (field, wire) {
        // Zero and the empty string stand for "not set".
        (Count | Flag, Wire::Number(0)) | (Text, Wire::Slice([])) => Value::Null,
        (Int | Count, Wire::Number(number)) => (number as i64).into(),
        (Bool | Flag, Wire::Number(number)) => (number != 0).into(),
        (Text, Wire::Slice(bytes)) => text(bytes)?.into(),
        (Bytes, Wire::Slice(bytes)) => STANDARD.encode(bytes).into(),
        (Field::Message(message), Wire::Slice(bytes)) => decode(bytes, message)?,
        (Texts | Blobs, Wire::Slice(bytes)) => {
            const TEXT: Message = &[(1, "key", Text, false), (2, "value", Text, false)];
            const BLOB: Message = &[(1, "key", Text, false), (2, "value", Bytes, false)];
            let entry = decode(bytes, if matches!(field, Blobs) { BLOB } else { TEXT })?;
            let key = entry["key"].as_str().unwrap_or_default();
            json!({key: entry["value"].as_str().unwrap_or_default()})
        }
        (Time, Wire::Slice(bytes)) => {
            let time = decode(bytes, &[(1, "seconds", Int, false)])?;
            let at = jiff::Timestamp::from_second(time["seconds"].as_i64().unwrap_or(0)).ok()?;
            // The zero time of the client's language stands for "not set".
            match at.as_second() {
                ..=0 => Value::Null,
                _ => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
            }
        }
        (IntOrText, Wire::Slice(bytes)) => {
            const EITHER: Message =
                &[(1, "type", Int, false), (2, "number", Count, false), (3, "text", Text, false)];
            let either = decode(bytes, EITHER)?;
            let chosen = if either["type"] == 1 { "text" } else { "number" };
            either[chosen].clone()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    #[test]
    fn a_service_is_decoded() {
        let metadata =
            [field(1, b"web"), field(11, &[field(1, b"a"), field(2, b"b")].concat())].concat();
        let target = [vec![0x08, 0, 0x10, 0x50], field(3, b"")].concat();
        let port = [field(1, b"http"), vec![0x18, 0x50, 0x28, 0], field(4, &target)].concat();
        let spec = [field(1, &port), field(4, b"ClusterIP"), field(3, b"")].concat();
        let raw = [field(1, &metadata), field(2, &spec)].concat();
        let kind = [field(1, b"v1"), field(2, b"Service")].concat();
        let body = [b"k8s\0".to_vec(), field(1, &kind), field(2, &raw)].concat();
        let service = parse(&body).unwrap();
        assert_eq!(
            service,
            json!({"metadata": {"name": "web", "labels": {"a": "b"}},
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 80}], "type": "ClusterIP"},
                "apiVersion": "v1", "kind": "Service"})
        );
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_refused() {
        let kind = [field(1, b"v1"), field(2, b"Pod")].concat();
        let pod = [b"k8s\0".to_vec(), field(1, &kind), field(2, b"")].concat();
        assert_eq!(parse(&pod).unwrap_err().code, 415);
        assert_eq!(parse(b"{}").unwrap_err().code, 400);
        for length in 4..pod.len() {
            assert!(parse(&pod[..length]).is_err());
        }
    }
}
