//! The kinds that are followed, and what one object of each becomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::convert::{self, Converted};
use api::{FieldError, v3};
use datastore::Resource;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::{Labels, Policy, ProfileName, Update, WorkloadId};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the agent wants to know of, besides what the calculation does.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A pod of this node that has an interface of its own; without managed fields.
    Pod(WorkloadId, Option<Arc<Pod>>),
    /// A namespace.
    Namespace(Arc<str>, Option<Arc<NamespaceFacts>>),
    /// A pool is new, changed or gone.
    Pools,
    /// A configuration of the agents.
    FelixConfiguration(Arc<str>, Option<Arc<Value>>),
    /// The cluster's own object: whether its datastore is ready.
    ClusterInformation(Arc<str>, Option<Arc<Value>>),
}

/// What counts about a namespace when its pods get addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its labels.
    pub labels: Labels,
    /// Its `cni.projectcalico.org/` annotations.
    pub annotations: BTreeMap<String, String>,
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

/// All of them.
pub(crate) fn all() -> Vec<Kind> {
    let of = |resource, page, read| Kind { resource, page, read };
    let core = |plural, kind, page, read| of(Resource::core(plural, kind), page, read);
    let group = |group, version, plural, kind, read| {
        of(Resource { group, version, plural, kind }, 100, read)
    };
    let calico = |plural, kind, read: ReadFn| of(Resource::calico(plural, kind), 200, read);
    vec![
        core("pods", "Pod", 100, pod as ReadFn),
        core("namespaces", "Namespace", 200, namespace),
        core("serviceaccounts", "ServiceAccount", 200, service_account),
        core("nodes", "Node", 50, node),
        group("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", kubernetes_policy),
        group("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", slice),
        calico("networkpolicies", "NetworkPolicy", network_policy),
        calico("globalnetworkpolicies", "GlobalNetworkPolicy", global_network_policy),
        calico("tiers", "Tier", tier),
        calico("profiles", "Profile", profile),
        calico("networksets", "NetworkSet", network_set),
        calico("globalnetworksets", "GlobalNetworkSet", global_network_set),
        calico("hostendpoints", "HostEndpoint", host_endpoint),
        calico("ippools", "IPPool", pool),
        calico("ipamblocks", "IPAMBlock", block),
        calico("felixconfigurations", "FelixConfiguration", felix_configuration),
        calico("clusterinformations", "ClusterInformation", cluster_information),
    ]
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn only(update: Option<Update>) -> Read {
    Read { update, ..Read::default() }
}

fn pod(reader: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let mut pod: Pod = raw.read()?;
    let spec = pod.spec.as_ref();
    let here = spec.and_then(|s| s.node_name.as_deref()) == Some(&reader.node);
    let own_network = spec.and_then(|s| s.host_network) != Some(true);
    let endpoint = convert::pod(&pod, &reader.interface_prefix).map_err(|e| e.to_string())?;
    let id = WorkloadId {
        namespace: pod.metadata.namespace.as_deref().unwrap_or_default().into(),
        name: pod.metadata.name.as_deref().unwrap_or_default().into(),
    };
    let seen = (here && own_network).then(|| {
        pod.metadata.managed_fields = None;
        Seen::Pod(id.clone(), Some(Arc::new(pod)))
    });
    let update = endpoint.map(|e| Update::Workload(id, Some(Arc::new(e))));
    Ok(Read { update, seen, errors: Vec::new() })
}

fn namespace(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let namespace: Namespace = raw.read()?;
    let (name, profile) = convert::namespace_profile(&namespace);
    let metadata = namespace.metadata;
    let shared =
        metadata.labels.iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
    let labels: Labels = Arc::new(shared.collect());
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|k, _| k.starts_with("cni.projectcalico.org/"));
    let facts = Arc::new(NamespaceFacts { labels, annotations });
    let seen = Seen::Namespace(metadata.name.unwrap_or_default().into(), Some(facts));
    Ok(Read { seen: Some(seen), ..only(Some(profile_update(name, profile))) })
}

fn profile_update(name: ProfileName, profile: model::policy::Profile) -> Update {
    Update::Profile(name, Some(Arc::new(profile)))
}

fn service_account(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let (name, profile) = convert::service_account_profile(&raw.read::<ServiceAccount>()?);
    Ok(only(Some(profile_update(name, profile))))
}

fn node(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let node: Node = raw.read()?;
    let Converted { value, errors } = convert::node(&node);
    let name = node.metadata.name.unwrap_or_default();
    let update = Update::Node(name.into(), Some(Arc::new(value)));
    Ok(Read { errors: texts(&errors), ..only(Some(update)) })
}

fn slice(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let slice: EndpointSlice = raw.read()?;
    let Some((service, backends)) = convert::endpoint_slice(&slice) else { return Ok(only(None)) };
    // Slices are namespaced; their names alone are not unique.
    let name = slice.metadata.name.unwrap_or_default();
    let name = format!("{}/{name}", slice.metadata.namespace.unwrap_or_default());
    Ok(only(Some(Update::ServiceSlice(name.into(), service, Some(Arc::new(backends))))))
}

fn policy(converted: Result<Converted<Policy>, FieldError>) -> Result<Read, String> {
    let Converted { value, errors } = converted.map_err(|e| e.to_string())?;
    let update = Update::Policy(value.id.clone(), Some(Arc::new(value)));
    Ok(Read { errors: texts(&errors), ..only(Some(update)) })
}

fn kubernetes_policy(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    policy(convert::kubernetes_network_policy(&raw.read::<NetworkPolicy>()?))
}

fn network_policy(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    policy(convert::network_policy(&raw.read::<v3::NetworkPolicy>()?))
}

fn global_network_policy(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    policy(convert::global_network_policy(&raw.read::<v3::GlobalNetworkPolicy>()?))
}

fn tier(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let tier = convert::tier(&raw.read::<v3::Tier>()?);
    Ok(only(Some(Update::Tier(tier.name.clone(), Some(tier)))))
}

fn profile(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let given: v3::Profile = raw.read()?;
    let Converted { value, errors } = convert::profile(&given);
    Ok(Read { errors: texts(&errors), ..only(Some(profile_update(given.name().into(), value))) })
}

fn network_set(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let (id, Converted { value, errors }) = convert::network_set(&raw.read::<v3::NetworkSet>()?);
    let update = Update::NetworkSet(id, Some(Arc::new(value)));
    Ok(Read { errors: texts(&errors), ..only(Some(update)) })
}

fn global_network_set(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let (id, Converted { value, errors }) =
        convert::global_network_set(&raw.read::<v3::GlobalNetworkSet>()?);
    let update = Update::NetworkSet(id, Some(Arc::new(value)));
    Ok(Read { errors: texts(&errors), ..only(Some(update)) })
}

fn host_endpoint(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let given: v3::HostEndpoint = raw.read()?;
    let Converted { value, errors } = convert::host_endpoint(&given).map_err(|e| e.to_string())?;
    let update = Update::Host(given.name().into(), Some(Arc::new(value)));
    Ok(Read { errors: texts(&errors), ..only(Some(update)) })
}

fn pool(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let given: v3::IPPool = raw.read()?;
    let pool = convert::pool(&given).map_err(|e| e.to_string())?;
    let update = Update::Pool(given.name().into(), Some(pool));
    Ok(Read { seen: Some(Seen::Pools), ..only(Some(update)) })
}

fn block(_: &Reader, raw: Raw<'_>) -> Result<Read, String> {
    let block = convert::block(&raw.read::<v3::IPAMBlock>()?).map_err(|e| e.to_string())?;
    Ok(only(block.map(|b| Update::Block(b.cidr, Some(Arc::new(b))))))
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
            Self::Namespace(name, _) => Self::Namespace(name.clone(), None),
            Self::Pools => Self::Pools,
            Self::FelixConfiguration(name, _) => Self::FelixConfiguration(name.clone(), None),
            Self::ClusterInformation(name, _) => Self::ClusterInformation(name.clone(), None),
        }
    }
}
