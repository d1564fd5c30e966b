//! The kinds that are followed, and what one object of each becomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::convert::closed;
use api::convert::update::{self, Telling, Told};
use confirm::mark::ANNOTATION;
use confirm::{Mark, Marked, Object};
use datastore::Resource;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use model::{Labels, PolicyKind, Update, WorkloadId};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the agent wants to know of, besides what the calculation does.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A pod of this node that has an interface of its own; without managed fields.
    Pod(WorkloadId, Option<Arc<Pod>>),
    /// An endpoint of this node that is an object of its own.
    Endpoint(WorkloadId, Option<Arc<api::v3::WorkloadEndpoint>>),
    /// A namespace.
    Namespace(Arc<str>, Option<Arc<NamespaceFacts>>),
    /// A pool is new, changed or gone.
    Pools,
    /// A configuration of the agents.
    FelixConfiguration(Arc<str>, Option<Arc<Value>>),
    /// The cluster's own object: whether its datastore is ready.
    ClusterInformation(Arc<str>, Option<Arc<Value>>),
    /// An object is unconfirmed, or no longer. Said before the object's own update.
    Unconfirmed(Object, Option<Arc<Marked>>),
}

/// What counts about a namespace when its pods get addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its labels.
    pub labels: Labels,
    /// Its `cni.projectcalico.org/` annotations.
    pub annotations: BTreeMap<String, String>,
}

impl NamespaceFacts {
    /// Of a namespace of Kubernetes.
    pub fn of(namespace: &Namespace) -> Self {
        let metadata = &namespace.metadata;
        let shared =
            metadata.labels.iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
        let annotations = metadata.annotations.iter().flatten();
        let ours = annotations.filter(|(k, _)| k.starts_with("cni.projectcalico.org/"));
        Self {
            labels: Arc::new(shared.collect()),
            annotations: ours.map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

/// What tells this node from others.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) node: String,
    pub(crate) interface_prefix: String,
}

/// One object, not read yet.
pub(crate) enum Raw<'a> {
    Text(&'a str),
    Value(Value),
}

impl Raw<'_> {
    fn read<T: DeserializeOwned>(self) -> Result<T, String> {
        let read = match self {
            Raw::Text(text) => serde_json::from_str(text),
            Raw::Value(value) => serde_json::from_value(value),
        };
        read.map_err(|e| e.to_string())
    }

    /// The mark of an unconfirmed object, and where the object is.
    pub(crate) fn mark(&self, resource: &Resource) -> Result<Option<(Object, Mark)>, String> {
        let is = |k: &confirm::Guarded| k.group == resource.group && k.plural == resource.plural;
        if !confirm::KINDS.iter().any(is) {
            return Ok(None);
        }
        let mut object = match self {
            Raw::Text(text) if !text.contains(ANNOTATION) => return Ok(None),
            Raw::Text(text) => serde_json::from_str(text).map_err(|e| e.to_string())?,
            Raw::Value(value) if value["metadata"]["annotations"].get(ANNOTATION).is_none() => {
                return Ok(None);
            }
            Raw::Value(value) => value.clone(),
        };
        // Objects in a list may come without it.
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.into();
        let mark = Mark::of(&object).map_err(|e| e.to_string())?;
        Ok(Object::of(&object).zip(mark))
    }
}

/// What an object becomes.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) update: Option<Update>,
    pub(crate) seen: Option<Seen>,
    pub(crate) errors: Vec<String>,
}

type ReadFn = fn(&Reader, Raw<'_>) -> Result<Read, String>;

/// A kind that is followed.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) resource: Resource,
    /// Objects per page of a list: small where objects are large, for the sake of memory.
    pub(crate) page: u32,
    pub(crate) read: ReadFn,
}

fn of(resource: Resource, page: u32, read: ReadFn) -> Kind {
    Kind { resource, page, read }
}

fn calico(plural: &'static str, kind: &'static str, read: ReadFn) -> Kind {
    of(Resource::calico(plural, kind), 200, read)
}

/// The kinds whose objects the agent works with, with or without Kubernetes.
pub fn resources(alone: bool) -> Vec<Resource> {
    followed(alone).into_iter().map(|kind| kind.resource).collect()
}

/// All that are followed, with or without Kubernetes.
pub(crate) fn followed(alone: bool) -> Vec<Kind> {
    let mut kinds = if alone { instead_of_kubernetes() } else { of_kubernetes() };
    kinds.extend(stored());
    kinds
}

/// What Kubernetes says, in objects of Kubernetes.
fn of_kubernetes() -> Vec<Kind> {
    let core = |plural, kind, page, read| of(Resource::core(plural, kind), page, read);
    let group = |group, version, plural, kind, read| {
        of(Resource { group, version, plural, kind }, 100, read)
    };
    vec![
        core("pods", "Pod", 100, pod as ReadFn),
        core("namespaces", "Namespace", 200, namespace),
        core("serviceaccounts", "ServiceAccount", 200, |_, raw| {
            plain(raw, update::service_account)
        }),
        core("nodes", "Node", 50, |_, raw| plain(raw, update::node)),
        group("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", |_, raw| {
            policy(raw, PolicyKind::KubernetesNetworkPolicy, update::kubernetes_network_policy)
        }),
        group(
            "policy.networking.k8s.io",
            "v1alpha2",
            "clusternetworkpolicies",
            "ClusterNetworkPolicy",
            |_, raw| policy(raw, PolicyKind::ClusterNetworkPolicy, update::cluster_network_policy),
        ),
        group("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", |_, raw| {
            plain(raw, update::endpoint_slice)
        }),
        calico("profiles", "Profile", profile),
    ]
}

/// What says it where there is no Kubernetes: others write there what it says, if it is somewhere else.
fn instead_of_kubernetes() -> Vec<Kind> {
    vec![
        calico("workloadendpoints", "WorkloadEndpoint", workload_endpoint),
        calico("nodes", "Node", |_, raw| plain(raw, update::stored_node)),
        calico("profiles", "Profile", stored_profile),
    ]
}

/// What is stored everywhere.
fn stored() -> Vec<Kind> {
    vec![
        calico("networkpolicies", "NetworkPolicy", |_, raw| {
            policy(raw, PolicyKind::NetworkPolicy, update::network_policy)
        }),
        calico("globalnetworkpolicies", "GlobalNetworkPolicy", |_, raw| {
            policy(raw, PolicyKind::GlobalNetworkPolicy, update::global_network_policy)
        }),
        calico("tiers", "Tier", |_, raw| told(closed::tier(&raw.read()?))),
        calico("networksets", "NetworkSet", |_, raw| plain(raw, update::network_set)),
        calico("globalnetworksets", "GlobalNetworkSet", |_, raw| {
            plain(raw, update::global_network_set)
        }),
        calico("hostendpoints", "HostEndpoint", |_, raw| told(closed::host_endpoint(&raw.read()?))),
        calico("ippools", "IPPool", pool),
        calico("ipamblocks", "IPAMBlock", |_, raw| plain(raw, update::block)),
        calico("felixconfigurations", "FelixConfiguration", felix_configuration),
        calico("clusterinformations", "ClusterInformation", cluster_information),
    ]
}

fn told(telling: Telling) -> Result<Read, String> {
    let Told { update, errors, .. } = telling.map_err(|e| e.to_string())?;
    let errors = errors.iter().map(ToString::to_string).collect();
    Ok(Read { update, errors, ..Read::default() })
}

fn pod(reader: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let mut pod: Pod = raw.read()?;
    let spec = pod.spec.as_ref();
    let here = spec.and_then(|s| s.node_name.as_deref()) == Some(&reader.node);
    let own_network = spec.and_then(|s| s.host_network) != Some(true);
    let read = told(update::pod(&pod, &reader.interface_prefix))?;
    let id = WorkloadId {
        namespace: pod.metadata.namespace.as_deref().unwrap_or_default().into(),
        name: pod.metadata.name.as_deref().unwrap_or_default().into(),
    };
    let seen = (here && own_network).then(|| {
        pod.metadata.managed_fields = None;
        Seen::Pod(id, Some(Arc::new(pod)))
    });
    Ok(Read { seen, ..read })
}

fn workload_endpoint(reader: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let endpoint: api::v3::WorkloadEndpoint = raw.read()?;
    let read = told(update::workload_endpoint(&endpoint))?;
    let here = endpoint.spec.node == reader.node;
    let id = WorkloadId { namespace: endpoint.namespace().into(), name: endpoint.name().into() };
    let seen = here.then(|| Seen::Endpoint(id, Some(Arc::new(endpoint))));
    Ok(Read { seen, ..read })
}

fn namespace(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let namespace: Namespace = raw.read()?;
    let read = told(update::namespace(&namespace))?;
    let facts = Arc::new(NamespaceFacts::of(&namespace));
    let seen = Seen::Namespace(namespace.metadata.name.unwrap_or_default().into(), Some(facts));
    Ok(Read { seen: Some(seen), ..read })
}

/// A kind of which the calculation alone wants to know.
fn plain<T: DeserializeOwned>(raw: Raw<'_>, tell: fn(&T) -> Telling) -> Result<Read, String> {
    told(tell(&raw.read()?))
}

/// A policy, or what denies where it cannot be read.
fn policy<T: DeserializeOwned>(
    raw: Raw<'_>,
    kind: PolicyKind,
    tell: fn(&T) -> Telling,
) -> Result<Read, String> {
    // In lists, where there may be many, without a copy.
    if let Raw::Text(text) = raw
        && let Ok(Ok(read)) = serde_json::from_str(text).map(|typed| tell(&typed))
    {
        return told(Ok(read));
    }
    told(closed::policy(&raw.read()?, kind, tell))
}

fn pool(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    Ok(Read { seen: Some(Seen::Pools), ..plain(raw, update::pool)? })
}

/// Stored profiles. Those that a server makes from namespaces and service accounts are made here, from
/// the same objects, without a second way that they could be late or early on.
fn profile(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let profile: api::v3::Profile = raw.read()?;
    if api::convert::profile_is_derived(profile.name()) {
        return Ok(Read::default());
    }
    told(update::profile(&profile))
}

/// All that are stored, those that somebody made from namespaces among them; but for the one that every
/// cluster has.
fn stored_profile(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let profile: api::v3::Profile = raw.read()?;
    if profile.name() == api::convert::DEFAULT_ALLOW {
        return Ok(Read::default());
    }
    told(update::profile(&profile))
}

fn name_of(value: &Value) -> Arc<str> {
    value["metadata"]["name"].as_str().unwrap_or_default().into()
}

fn felix_configuration(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let value: Value = raw.read()?;
    let seen = Seen::FelixConfiguration(name_of(&value), Some(Arc::new(value)));
    Ok(Read { seen: Some(seen), ..Read::default() })
}

fn cluster_information(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let value: Value = raw.read()?;
    let seen = Seen::ClusterInformation(name_of(&value), Some(Arc::new(value)));
    Ok(Read { seen: Some(seen), ..Read::default() })
}

/// The update that says that the object of `update` is gone.
pub(crate) fn gone(update: &Update) -> Update {
    match update {
        Update::Workload(id, _) => Update::Workload(id.clone(), None),
        Update::Host(name, _) => Update::Host(name.clone(), None),
        Update::Policy(id, _) => Update::Policy(id.clone(), None),
        Update::Tier(name, _) => Update::Tier(name.clone(), None),
        Update::Profile(name, _) => Update::Profile(name.clone(), None),
        Update::NetworkSet(id, _) => Update::NetworkSet(id.clone(), None),
        Update::ServiceSlice(name, service, _) => {
            Update::ServiceSlice(name.clone(), service.clone(), None)
        }
        Update::Node(name, _) => Update::Node(name.clone(), None),
        Update::Pool(name, _) => Update::Pool(name.clone(), None),
        Update::Block(cidr, _) => Update::Block(*cidr, None),
        Update::InSync => Update::InSync,
    }
}

impl Seen {
    /// The same, gone.
    pub(crate) fn gone(&self) -> Self {
        match self {
            Self::Pod(id, _) => Self::Pod(id.clone(), None),
            Self::Endpoint(id, _) => Self::Endpoint(id.clone(), None),
            Self::Namespace(name, _) => Self::Namespace(name.clone(), None),
            Self::Pools => Self::Pools,
            Self::FelixConfiguration(name, _) => Self::FelixConfiguration(name.clone(), None),
            Self::ClusterInformation(name, _) => Self::ClusterInformation(name.clone(), None),
            Self::Unconfirmed(object, _) => Self::Unconfirmed(object.clone(), None),
        }
    }
}
