//! The annotation of an unconfirmed object.

use std::sync::Arc;
use std::time::Duration;

use model::Update;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Name of the annotation. Other programs pass over it.
pub const ANNOTATION: &str = "projectcalico.org/unconfirmed";

/// By this annotation of its Node an agent says what it can do; words with commas between.
pub const FEATURES: &str = "projectcalico.org/agent-features";

/// The word for what this crate describes.
pub const FEATURE: &str = "confirm";

/// The word for [`Mark::deletes`], which came later.
pub const FEATURE_DELETE: &str = "confirm-delete";

/// So many bytes Kubernetes lets the annotations of an object have, names included.
pub const MOST_BYTES: usize = 256 << 10;

/// The longest that a change may stay unconfirmed.
pub const LONGEST: Duration = Duration::from_hours(24);

/// A kind whose objects can be unconfirmed: it decides about packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// API group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Name in URLs.
    pub plural: &'static str,
    /// Kind.
    pub kind: &'static str,
}

const fn calico(plural: &'static str, kind: &'static str) -> Guarded {
    Guarded { group: "projectcalico.org", version: "v3", plural, kind }
}

/// All of them.
pub const KINDS: &[Guarded] = &[
    calico("tiers", "Tier"),
    calico("networkpolicies", "NetworkPolicy"),
    calico("globalnetworkpolicies", "GlobalNetworkPolicy"),
    Guarded {
        group: "networking.k8s.io",
        version: "v1",
        plural: "networkpolicies",
        kind: "NetworkPolicy",
    },
    Guarded {
        group: "policy.networking.k8s.io",
        version: "v1alpha2",
        plural: "clusternetworkpolicies",
        kind: "ClusterNetworkPolicy",
    },
    calico("profiles", "Profile"),
    calico("networksets", "NetworkSet"),
    calico("globalnetworksets", "GlobalNetworkSet"),
    calico("hostendpoints", "HostEndpoint"),
];

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for objects of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Object {
    /// Of an object as the API gives it. `None`: of a kind that cannot be unconfirmed.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let it = Self {
            group: group.into(),
            kind: text("/kind").into(),
            namespace: text("/metadata/namespace").into(),
            name: text("/metadata/name").into(),
        };
        it.guarded().map(|_| it)
    }

    /// Its kind.
    pub fn guarded(&self) -> Option<&'static Guarded> {
        KINDS.iter().find(|k| k.group == self.group && k.kind == self.kind)
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The change stays.
    Confirmed,
    /// What was before comes back.
    Reverted,
}

/// What stands in the annotation, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Joins the objects of one apply.
    pub transaction: Arc<str>,
    /// Seconds from first sight until an agent goes back.
    pub within: u64,
    /// The first object of the transaction; where its end is decided.
    pub lead: Object,
    /// On the lead: how the transaction ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What is unconfirmed is that the object is deleted: nodes work as if it were, the object stays until that
    /// is confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletes: bool,
    /// The object as it was; null if there was none.
    pub previous: Value,
}

/// An annotation that is no mark.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata.annotations[{ANNOTATION}]: {0}")]
pub struct BadMark(String);

impl Mark {
    /// The mark of an object, if it has one.
    ///
    /// # Errors
    /// [`BadMark`]: it has one that cannot be understood.
    pub fn of(object: &Value) -> Result<Option<Self>, BadMark> {
        let Some(text) = object["metadata"]["annotations"].get(ANNOTATION) else {
            return Ok(None);
        };
        let text = text.as_str().ok_or_else(|| BadMark("is no text".into()))?;
        let mark: Self = serde_json::from_str(text).map_err(|e| BadMark(e.to_string()))?;
        if mark.transaction.is_empty() || mark.within == 0 {
            return Err(BadMark("want a transaction and a time".into()));
        }
        if mark.deletes && mark.previous.is_null() {
            return Err(BadMark("deletes what was not there".into()));
        }
        if !mark.previous.is_null() && Object::of(&mark.previous) != Object::of(object) {
            return Err(BadMark("the previous form is another object's".into()));
        }
        Ok(Some(mark))
    }

    /// How long the change may stay unconfirmed.
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.within).min(LONGEST)
    }

    /// Puts the mark on an object.
    pub fn put_on(&self, object: &mut Value) {
        if !object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"] = json!({});
        }
        object["metadata"]["annotations"][ANNOTATION] = json!(self).to_string().into();
    }

    /// The object as it is to be when the change has ended so, to be written in the place of `live`. `None`: it is
    /// to be deleted.
    pub fn ended(&self, decision: Decision, live: &Value) -> Option<Value> {
        match decision {
            Decision::Confirmed => (!self.deletes).then(|| unmarked(live)),
            Decision::Reverted => self.restored(live),
        }
    }

    /// The object as it was, to be written in the place of `live`. `None`: it is to be deleted.
    pub fn restored(&self, live: &Value) -> Option<Value> {
        if self.previous.is_null() {
            return None;
        }
        let mut object = self.previous.clone();
        for key in ["resourceVersion", "uid", "creationTimestamp", "ownerReferences", "finalizers"]
        {
            if let Some(value) = live["metadata"].get(key) {
                object["metadata"][key] = value.clone();
            }
        }
        if let Some(status) = live.get("status") {
            object["status"] = status.clone();
        }
        Some(object)
    }
}

/// An object without its mark.
pub fn unmarked(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(notes) = object["metadata"]["annotations"].as_object_mut() {
        notes.remove(ANNOTATION);
        if notes.is_empty()
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    object
}

/// What of an object has to be kept to go back to it.
pub fn kept(object: &Value) -> Value {
    let mut object = unmarked(object);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| {
            matches!(key.as_str(), "name" | "namespace" | "labels" | "annotations")
        });
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// How many bytes the annotations of an object have.
pub fn annotation_bytes(object: &Value) -> usize {
    let notes = object["metadata"]["annotations"].as_object();
    notes.into_iter().flatten().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum()
}

/// A mark as an agent keeps it: what the previous form says to the calculation.
#[derive(Clone, Debug, PartialEq)]
pub struct Marked {
    /// The annotation.
    pub mark: Mark,
    /// The update that brings the previous form back.
    pub previous: Update,
}

impl Marked {
    /// `gone` says that the object is gone; it stands for objects that were not there, and for
    /// those that counted as absent. `None`: the object has no say in either form.
    pub fn new(mark: Mark, gone: Option<Update>) -> Option<Self> {
        let told = api::convert::update::update(&mark.previous, "cali");
        let previous = told.and_then(Result::ok).and_then(|told| told.update);
        Some(Self { mark, previous: previous.or(gone)? })
    }
}
