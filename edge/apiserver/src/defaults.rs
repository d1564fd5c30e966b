//! Defaults that no schema carries: what Kubernetes fills in by code.

use serde_json::{Map, Value, json};

use crate::registry::Resource;
use crate::status::{ApiError, Cause, Result};

/// Fills in `object`, in stored form.
pub(crate) fn complete(home: &Resource, object: &mut Value) {
    match (home.group.as_str(), home.plural.as_str()) {
        ("", "pods") => pod(object),
        ("", "services") => service(object),
        ("", "secrets") => secret(object),
        ("networking.k8s.io", "networkpolicies") => network_policy(object),
        ("discovery.k8s.io", "endpointslices") => {
            for port in items(&mut object["ports"]) {
                default(port, "name", json!(""));
                default(port, "protocol", json!("TCP"));
            }
        }
        _ => {}
    }
}

fn default(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        let at = fields.entry(field).or_insert(Value::Null);
        if at.is_null() {
            *at = value;
        }
    }
}

fn items(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

fn pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "serviceAccountName", json!("default"));
    let account = spec["serviceAccountName"].clone();
    default(spec, "serviceAccount", account);
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "priority", json!(0));
    default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    default(spec, "enableServiceLinks", json!(true));
    for list in ["initContainers", "containers"] {
        if spec.get(list).is_some() {
            items(&mut spec[list]).for_each(container);
        }
    }
    tolerate(spec);
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let latest = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    let pull = if latest { "Always" } else { "IfNotPresent" };
    default(container, "resources", json!({}));
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    default(container, "imagePullPolicy", json!(pull));
    if container.get("ports").is_some() {
        items(&mut container["ports"]).for_each(|port| default(port, "protocol", json!("TCP")));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                default(probe, field, json!(value));
            }
        }
    }
}

/// A pod stays for five minutes on a node that fails.
fn tolerate(spec: &mut Value) {
    default(spec, "tolerations", json!([]));
    let Some(list) = spec["tolerations"].as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            (t["key"] == key || t["key"].as_str().is_none_or(str::is_empty))
                && (t["effect"] == "NoExecute" || t["effect"].as_str().is_none_or(str::is_empty))
        };
        if !list.iter().any(covers) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

/// The status of a pod that nobody has looked at yet.
pub(crate) fn pod_status(pod: &Value) -> Value {
    json!({"phase": "Pending", "qosClass": quality(pod)})
}

fn quality(pod: &Value) -> &'static str {
    let lists = ["initContainers", "containers"];
    let containers = lists.iter().flat_map(|l| pod["spec"][l].as_array().into_iter().flatten());
    let (mut any, mut all) = (false, true);
    for container in containers {
        let amounts =
            |of: &str| container["resources"][of].as_object().cloned().unwrap_or_default();
        let (requests, limits) = (amounts("requests"), amounts("limits"));
        any |= !requests.is_empty() || !limits.is_empty();
        let full = |m: &Map<String, Value>| m.contains_key("cpu") && m.contains_key("memory");
        all &= full(&limits) && requests.iter().all(|(k, v)| limits.get(k) == Some(v));
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn service(service: &mut Value) {
    let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    default(spec, "sessionAffinity", json!("None"));
    default(spec, "type", json!("ClusterIP"));
    if spec["type"] != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if spec.get("ports").is_some() {
        for port in items(&mut spec["ports"]) {
            default(port, "protocol", json!("TCP"));
            let number = port["port"].clone();
            default(port, "targetPort", number);
        }
    }
}

fn secret(secret: &mut Value) {
    default(secret, "type", json!("Opaque"));
    let Some(fields) = secret.as_object_mut() else { return };
    if let Some(Value::Object(plain)) = fields.shift_remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| json!({}));
        for (key, text) in plain {
            use base64::Engine;
            let text = text.as_str().unwrap_or_default();
            data[key] = base64::engine::general_purpose::STANDARD.encode(text).into();
        }
    }
}

fn network_policy(policy: &mut Value) {
    let Some(spec) = policy.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    for direction in ["ingress", "egress"] {
        if spec.get(direction).is_some() {
            for rule in items(&mut spec[direction]).filter(|rule| rule.get("ports").is_some()) {
                items(&mut rule["ports"]).for_each(|port| default(port, "protocol", json!("TCP")));
            }
        }
    }
    let types = if spec["egress"].as_array().is_some_and(|rules| !rules.is_empty()) {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        spec["policyTypes"] = types;
    }
}

/// Completes a CustomResourceDefinition and says in its status that it is served.
pub(crate) fn definition(definition: &mut Value, before: Option<&Value>) -> Result<()> {
    let spec = &mut definition["spec"];
    let name =
        |spec: &Value, field: &str| spec["names"][field].as_str().unwrap_or_default().to_owned();
    let kind = name(spec, "kind");
    if spec["names"].is_object() {
        default(&mut spec["names"], "singular", json!(kind.to_lowercase()));
        default(&mut spec["names"], "listKind", json!(format!("{kind}List")));
    }
    default(spec, "conversion", json!({"strategy": "None"}));
    if before.is_none() {
        let metadata = &mut definition["metadata"];
        let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.push(crate::controllers::CLEANUP.into());
        metadata["finalizers"] = finalizers.into();
    }
    let causes = definition_causes(definition);
    let spec = &definition["spec"];
    if !causes.is_empty() {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let (kind, group) = ("CustomResourceDefinition", "apiextensions.k8s.io");
        return Err(ApiError::invalid(kind, group, name, &causes));
    }
    let stored = spec["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true);
    let stored = stored.map(|v| v["name"].clone()).unwrap_or_default();
    let time = crate::api::now();
    let condition = |kind: &str, reason: &str, message: &str| json!({"lastTransitionTime": time, "message": message, "reason": reason, "status": "True", "type": kind});
    let known = before.and_then(|b| b["status"].get("conditions")).cloned();
    let conditions = known.unwrap_or_else(|| {
        json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ])
    });
    let status = json!({"acceptedNames": spec["names"], "conditions": conditions, "storedVersions": [stored]});
    definition["status"] = status;
    Ok(())
}

fn definition_causes(definition: &Value) -> Vec<Cause> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (path, value) in [
        ("spec.group", &spec["group"]),
        ("spec.scope", &spec["scope"]),
        ("spec.names.plural", &spec["names"]["plural"]),
        ("spec.names.kind", &spec["names"]["kind"]),
    ] {
        if text(value).is_empty() {
            causes.push(Cause::required(path, ""));
        }
    }
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if definition["metadata"]["name"] != wanted.as_str() {
        causes.push(Cause::invalid(
            "metadata.name",
            format!(
                "Invalid value: {}: must be spec.names.plural+\".\"+spec.group",
                definition["metadata"]["name"]
            ),
        ));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            "Invalid value: must have exactly one version marked as storage version",
        ));
    }
    for (at, version) in versions.iter().enumerate() {
        if version["schema"]["openAPIV3Schema"]["type"] != "object" {
            let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes
                .push(Cause::required(path, "schemas are required, with type: object at the root"));
        }
    }
    causes
}
