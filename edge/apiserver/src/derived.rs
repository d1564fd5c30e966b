//! Kinds that are made from others as they are read: Calico's `WorkloadEndpoint` from pods, and the
//! profiles of namespaces and service accounts beside those that are stored.
//!
//! A derived object is made from one source, has its uid, creation time and revision, and changes when
//! it does. It cannot be written: its source can.

use std::sync::Arc;

use api::convert;
use hyper::Method;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use serde_json::Value;

use crate::Surface;
use crate::api::Api;
use crate::registry::Resource;
use crate::request::Call;
use crate::status::{ApiError, Result};
use crate::storage::{Change, ChangeKind, Changes, Listing, Object, Storage, StorageError, Wanted};
use crate::view::View;

/// Says how pods' interfaces are called, which their `WorkloadEndpoint`s show.
const FELIX: &str = "projectcalico.org/felixconfigurations/default";
const PODS: &str = "core/pods/";
const NAMESPACES: &str = "core/namespaces/";
const ACCOUNTS: &str = "core/serviceaccounts/";

/// Where a resource's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    /// The store, under the resource's own prefix.
    Stored,
    /// Pods, one each.
    Pods,
    /// Namespaces and service accounts, one each, and the store where it keeps others beside them.
    Profiles { stored: bool },
}

impl Origins {
    /// Whether clients may write any of its objects.
    pub(crate) fn writable(self) -> bool {
        !matches!(self, Self::Pods | Self::Profiles { stored: false })
    }

    /// The storage prefixes that hold what the objects come from.
    pub(crate) fn prefixes(self, resource: &Resource, namespace: Option<&str>) -> Vec<String> {
        let within = |prefix: &str| match namespace {
            Some(namespace) => format!("{prefix}{namespace}/"),
            None => prefix.to_owned(),
        };
        match self {
            Self::Stored => vec![within(&resource.prefix())],
            Self::Pods => vec![within(PODS)],
            Self::Profiles { stored: true } => {
                [&resource.prefix(), NAMESPACES, ACCOUNTS].map(ToOwned::to_owned).into()
            }
            Self::Profiles { stored: false } => {
                [NAMESPACES, ACCOUNTS].map(ToOwned::to_owned).into()
            }
        }
    }
}

/// Refuses to write what is derived, and says what to write instead.
pub(crate) fn check_write(resource: &Resource, name: Option<&str>) -> Result<()> {
    let source = match resource.origins {
        Origins::Stored => return Ok(()),
        Origins::Pods => "its pod".to_owned(),
        Origins::Profiles { stored } => match name.and_then(profile_source) {
            None if stored => return Ok(()),
            None => "a namespace or a service account".to_owned(),
            Some(Source::Namespace(name)) => format!("namespace {name:?}"),
            Some(Source::Account(namespace, name)) => {
                format!("service account {name:?} in namespace {namespace:?}")
            }
            Some(Source::Fixed) => "nothing: it is the same in every cluster".to_owned(),
        },
    };
    let message = format!(
        "{} {:?} is read-only: it is made from {source}; change that instead",
        resource.kind,
        name.unwrap_or("of any name"),
    );
    Err(ApiError::new(405, "MethodNotAllowed", message))
}

/// Refuses to make or delete what somebody else's API server keeps: Calico's Node shows a part of the core Node.
pub(crate) fn check_life(api: &Api, resource: &Resource) -> Result<()> {
    if api.options.surface != Surface::Beside || resource.view != View::CalicoNode {
        return Ok(());
    }
    let message = "a Node of Calico is made and deleted with the Node of Kubernetes";
    Err(ApiError::new(405, "MethodNotAllowed", message))
}

/// Waits until the storage shows what `call` must see.
pub(crate) async fn settle(api: &Api, call: &Call) -> Result<()> {
    let (storage, resource) = (&*api.storage, &call.resource);
    if resource.origins == Origins::Pods {
        // Before the pods, so that what is read of them is not older than this.
        storage.settle(FELIX, Wanted::Known).await?;
    }
    let prefixes = resource.origins.prefixes(resource, None);
    for prefix in &prefixes {
        storage.settle(prefix, Wanted::Known).await?;
    }
    let unknown = !storage.follows() && call.name.is_some();
    if !unknown && !wants_latest(storage, call) {
        return Ok(());
    }
    let source = call.name.as_deref().filter(|_| !watches(call)).map(|name| source(call, name));
    match source {
        Some(Some(key)) => {
            let prefix = prefixes.iter().find(|prefix| key.starts_with(&**prefix));
            let prefix = prefix.unwrap_or(&prefixes[0]);
            Ok(storage.settle(prefix, Wanted::LatestOf(&key)).await?)
        }
        Some(None) => Ok(()),
        None => settle_all(storage, &prefixes).await,
    }
}

/// Several sources are shown together as of the revision of the one that is the least far, which must not be
/// older than what is known of the others.
async fn settle_all(storage: &dyn Storage, prefixes: &[String]) -> Result<()> {
    for prefix in prefixes {
        storage.settle(prefix, Wanted::Latest).await?;
    }
    let furthest = prefixes.iter().map(|prefix| storage.revision(prefix)).max();
    for prefix in prefixes {
        if Some(storage.revision(prefix)) < furthest {
            storage.settle(prefix, Wanted::Latest).await?;
        }
    }
    Ok(())
}

fn watches(call: &Call) -> bool {
    call.query.flag("watch").unwrap_or_default()
}

/// Whether a call must see what was written before it: a read that says from when on it wants to see is
/// content with that, and a write finds out by itself, by its condition, whether it was made from the latest.
fn wants_latest(storage: &dyn Storage, call: &Call) -> bool {
    if !matches!(call.method, Method::GET | Method::HEAD) || call.query.get("continue").is_some() {
        return false;
    }
    match call.query.get("resourceVersion") {
        None | Some("") => true,
        Some(text) => {
            let asked: u64 = text.parse().unwrap_or_default();
            asked > revision(storage, &call.resource)
        }
    }
}

/// Where the storage keeps what the object called `name` comes from, if from anything.
fn source(call: &Call, name: &str) -> Option<Arc<str>> {
    match call.resource.origins {
        Origins::Stored => Some(call.key(name)),
        Origins::Pods => {
            let (namespace, pod) = (call.namespace.as_deref()?, convert::pod_of_endpoint(name)?);
            Some(format!("{PODS}{namespace}/{pod}").into())
        }
        Origins::Profiles { stored } => match profile_source(name) {
            None => stored.then(|| call.key(name)),
            Some(Source::Namespace(name)) => Some(format!("{NAMESPACES}{name}").into()),
            Some(Source::Account(namespace, name)) => {
                Some(format!("{ACCOUNTS}{namespace}/{name}").into())
            }
            Some(Source::Fixed) => None,
        },
    }
}

/// The revision that a list of `resource` shows.
pub(crate) fn revision(storage: &dyn Storage, resource: &Resource) -> u64 {
    let prefixes = resource.origins.prefixes(resource, None);
    prefixes.iter().map(|prefix| storage.revision(prefix)).min().unwrap_or_default()
}

/// What a profile of this name is made from; `None` if it is stored.
enum Source<'a> {
    Namespace(&'a str),
    Account(&'a str, &'a str),
    Fixed,
}

fn profile_source(name: &str) -> Option<Source<'_>> {
    if name == convert::DEFAULT_ALLOW {
        return Some(Source::Fixed);
    }
    if let Some(namespace) = name.strip_prefix(convert::NAMESPACE_PROFILE) {
        return Some(Source::Namespace(namespace));
    }
    let account = name.strip_prefix(convert::SERVICE_ACCOUNT_PROFILE)?;
    // The name of a namespace has no dots, that of an account may.
    let (namespace, account) = account.split_once('.')?;
    Some(Source::Account(namespace, account))
}

/// The object called `name`.
pub(crate) fn get(api: &Api, call: &Call, name: &str) -> Option<Arc<Object>> {
    let resource = &call.resource;
    let storage = &*api.storage;
    let Some(key) = source(call, name) else {
        let is_fixed = resource.origins != Origins::Pods && name == convert::DEFAULT_ALLOW;
        return is_fixed.then(|| fixed(resource)).flatten();
    };
    let found = storage.get(&key).and_then(|o| shown(storage, resource, &o))?;
    // The name of an endpoint says more than that of its pod.
    (resource.origins != Origins::Pods || found.value()["metadata"]["name"] == name)
        .then_some(found)
}

/// All objects that `call` may want, by key, as of revision `at` (default: now).
pub(crate) fn list(api: &Api, call: &Call, at: Option<u64>) -> Result<Listing, StorageError> {
    let resource = &call.resource;
    let mut prefixes = resource.origins.prefixes(resource, call.namespace.as_deref()).into_iter();
    let first = prefixes.next().expect("there is at least one");
    let one = || (prefixes.len() > 0).then(|| revision(&*api.storage, resource));
    let mut listing = api.storage.list(&first, at.or_else(one))?;
    if resource.origins == Origins::Stored {
        return Ok(listing);
    }
    for prefix in prefixes {
        listing.objects.extend(api.storage.list(&prefix, Some(listing.revision))?.objects);
    }
    listing.objects =
        listing.objects.iter().filter_map(|o| shown(&*api.storage, resource, o)).collect();
    if matches!(resource.origins, Origins::Profiles { .. }) {
        listing.objects.extend(fixed(resource));
    }
    listing.objects.sort_by(|a, b| a.key().cmp(b.key()));
    Ok(listing)
}

/// The changes after revision `after` of everything that the objects come from, oldest first. Their
/// objects are the sources: see [`shown`].
pub(crate) fn changes(
    storage: &dyn Storage,
    call: &Call,
    after: u64,
) -> Result<Changes, StorageError> {
    let prefixes = call.resource.origins.prefixes(&call.resource, call.namespace.as_deref());
    let mut all = Changes { upto: u64::MAX, changes: Vec::new() };
    let mut reached = Vec::new();
    for prefix in &prefixes {
        let found = storage.changes(prefix, after)?;
        // The store may have moved on in between: what one of them has not seen is for the next time.
        all.upto = all.upto.min(found.upto);
        all.changes.extend(found.changes);
        reached.push(found.upto);
    }
    if prefixes.len() > 1 {
        let furthest = all.changes.iter().map(|change| change.object.revision()).max();
        for (prefix, reached) in prefixes.iter().zip(reached) {
            if let Some(furthest) = furthest.filter(|furthest| *furthest > reached) {
                storage.hasten(prefix, furthest);
            }
        }
        all.changes.retain(|change| change.object.revision() <= all.upto);
        all.changes.sort_by_key(|change| change.object.revision());
    }
    Ok(all)
}

/// Whether what all objects of `resource` are made with has changed since revision `after`, without
/// their sources: the prefix of pods' interfaces.
pub(crate) fn remade(
    storage: &dyn Storage,
    resource: &Resource,
    after: u64,
) -> Result<bool, StorageError> {
    if resource.origins != Origins::Pods {
        return Ok(false);
    }
    let prefix = |object: &Arc<Object>| convert::interface_prefix(object.value()).to_owned();
    let none = convert::interface_prefix(&Value::Null).to_owned();
    let changed = |change: &Change| {
        let after = match change.kind {
            ChangeKind::Deleted => none.clone(),
            _ => prefix(&change.object),
        };
        match (&change.previous, change.kind) {
            (Some(before), _) => prefix(before) != after,
            (None, ChangeKind::Created) => none != after,
            // What it was before is not known any more.
            (None, _) => true,
        }
    };
    let found = storage.changes(FELIX, after)?;
    Ok(found.changes.iter().filter(|c| &**c.object.key() == FELIX).any(changed))
}

/// The object of `resource` that comes from `stored`, if one does.
pub(crate) fn shown(
    storage: &dyn Storage,
    resource: &Resource,
    stored: &Arc<Object>,
) -> Option<Arc<Object>> {
    let key = stored.key();
    let derived = match resource.origins {
        Origins::Stored => return Some(stored.clone()),
        Origins::Pods => workload(storage, stored.value())?,
        Origins::Profiles { .. } if key.starts_with(NAMESPACES) => {
            let namespace: Namespace = typed(stored.value())?;
            profile(&convert::namespace_profile(&namespace))?
        }
        Origins::Profiles { .. } if key.starts_with(ACCOUNTS) => {
            let account: ServiceAccount = typed(stored.value())?;
            profile(&convert::service_account_profile(&account))?
        }
        Origins::Profiles { .. } => {
            // Stored under a name that is derived now: what is derived wins.
            let name = stored.value()["metadata"]["name"].as_str().unwrap_or_default();
            return profile_source(name).is_none().then(|| stored.clone());
        }
    };
    Some(object(resource, stored.revision(), derived, &stored.value()["metadata"]))
}

fn object(resource: &Resource, revision: u64, mut value: Value, source: &Value) -> Arc<Object> {
    for field in ["uid", "creationTimestamp"] {
        if let Some(given) = source.get(field) {
            value["metadata"][field] = given.clone();
        }
    }
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.as_str().into();
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let key = resource.key(metadata["namespace"].as_str(), name);
    Arc::new(Object::new(key, revision, value))
}

/// The profile that every cluster has. It was there before the first write.
fn fixed(resource: &Resource) -> Option<Arc<Object>> {
    Some(object(resource, 1, profile(&convert::default_allow_profile())?, &Value::Null))
}

fn workload(storage: &dyn Storage, pod: &Value) -> Option<Value> {
    let felix = storage.get(FELIX);
    let prefix = convert::interface_prefix(felix.as_ref().map_or(&Value::Null, |f| f.value()));
    let pod: Pod = typed(pod)?;
    match convert::workload_view(&pod, prefix) {
        Ok(view) => serde_json::to_value(view?).ok(),
        Err(error) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            tracing::debug!(namespace, pod = name, %error, "no WorkloadEndpoint can be made of a pod");
            None
        }
    }
}

fn profile((name, profile): &(model::ProfileName, model::policy::Profile)) -> Option<Value> {
    serde_json::to_value(convert::profile_view(name, profile)).ok()
}

/// What the schema let in can be read.
fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value)
        .inspect_err(|error| tracing::warn!(%error, "a stored object cannot be read"))
        .ok()
}
