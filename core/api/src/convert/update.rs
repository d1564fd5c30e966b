//! One object, one change of the cluster's state, for every kind that decides about packets.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::policy::{NetworkSet, NetworkSetId};
use model::{Policy, PolicyKind, ProfileName, Update};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{self as convert, Converted, closed};
use crate::cluster_policy::ClusterNetworkPolicy;
use crate::{FieldError, v3};

/// What an object says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The change; none if the object has no say (a pod on the host's network, a slice of no
    /// service).
    pub update: Option<Update>,
    /// What was malformed and left out of it.
    pub errors: Vec<FieldError>,
    /// The policy could not be read: the update is what denies in its place.
    pub stand_in: bool,
}

impl From<Update> for Told {
    fn from(update: Update) -> Self {
        Self { update: Some(update), ..Self::default() }
    }
}

/// The result of reading one object.
///
/// # Errors
/// When nothing of the object can be used.
pub type Telling = Result<Told, FieldError>;

/// By `apiVersion` and `kind`; none for a kind that has no say. `prefix` is that of the pods'
/// interfaces. What cannot be read fails closed where that is not safe: see [`closed`].
pub fn update(object: &Value, prefix: &str) -> Option<Telling> {
    fn read<T: DeserializeOwned>(object: &Value, tell: impl FnOnce(&T) -> Telling) -> Telling {
        let typed = T::deserialize(object).map_err(|e| FieldError::new("", e.to_string()))?;
        tell(&typed)
    }
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    Some(match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => read(object, |p| pod(p, prefix)),
        ("v1", "Namespace") => read(object, namespace),
        ("v1", "ServiceAccount") => read(object, service_account),
        ("v1", "Node") => read(object, node),
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            closed::policy(object, PolicyKind::KubernetesNetworkPolicy, kubernetes_network_policy)
        }
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
            closed::policy(object, PolicyKind::ClusterNetworkPolicy, cluster_network_policy)
        }
        ("discovery.k8s.io/v1", "EndpointSlice") => read(object, endpoint_slice),
        ("projectcalico.org/v3", kind) => match kind {
            "NetworkPolicy" => closed::policy(object, PolicyKind::NetworkPolicy, network_policy),
            "GlobalNetworkPolicy" => {
                closed::policy(object, PolicyKind::GlobalNetworkPolicy, global_network_policy)
            }
            "StagedNetworkPolicy" => closed::policy(object, PolicyKind::StagedNetworkPolicy, |p| {
                staged(convert::staged_network_policy(p))
            }),
            "StagedGlobalNetworkPolicy" => {
                closed::policy(object, PolicyKind::StagedGlobalNetworkPolicy, |p| {
                    staged(convert::staged_global_network_policy(p))
                })
            }
            "StagedKubernetesNetworkPolicy" => {
                closed::policy(object, PolicyKind::StagedKubernetesNetworkPolicy, |p| {
                    staged(convert::staged_kubernetes_network_policy(p))
                })
            }
            "Tier" => closed::tier(object),
            "Profile" => read(object, profile),
            "NetworkSet" => read(object, network_set),
            "GlobalNetworkSet" => read(object, global_network_set),
            "HostEndpoint" => closed::host_endpoint(object),
            "IPPool" => read(object, pool),
            "IPAMBlock" => read(object, block),
            _ => return None,
        },
        _ => return None,
    })
}

/// A pod's interface.
pub fn pod(pod: &Pod, prefix: &str) -> Telling {
    let endpoint = convert::pod(pod, prefix)?;
    let update = endpoint.map(|e| Update::Workload(e.id.clone(), Some(Arc::new(e))));
    Ok(Told { update, ..Told::default() })
}

/// The profile of a namespace.
pub fn namespace(namespace: &Namespace) -> Telling {
    let (name, value) = convert::namespace_profile(namespace);
    Ok(Update::Profile(name, Some(Arc::new(value))).into())
}

/// The profile of a service account.
pub fn service_account(account: &ServiceAccount) -> Telling {
    let (name, value) = convert::service_account_profile(account);
    Ok(Update::Profile(name, Some(Arc::new(value))).into())
}

/// A node.
pub fn node(node: &Node) -> Telling {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let Converted { value, errors } = convert::node(node);
    Ok(Told {
        update: Some(Update::Node(name.into(), Some(Arc::new(value)))),
        errors,
        ..Told::default()
    })
}

/// An endpoint that is an object of its own; none as long as it has no address.
pub fn workload_endpoint(given: &v3::WorkloadEndpoint) -> Telling {
    let endpoint = convert::workload_endpoint(given)?;
    if endpoint.addresses.is_empty() {
        return Ok(Told::default());
    }
    Ok(Update::Workload(endpoint.id.clone(), Some(Arc::new(endpoint))).into())
}

/// A node that is an object of its own.
pub fn stored_node(given: &v3::Node) -> Telling {
    let Converted { value, errors } = convert::stored_node(given);
    Ok(Told {
        update: Some(Update::Node(given.name().into(), Some(Arc::new(value)))),
        errors,
        ..Told::default()
    })
}

/// One slice of a service's backends.
pub fn endpoint_slice(slice: &EndpointSlice) -> Telling {
    let Some((service, backends)) = convert::endpoint_slice(slice) else {
        return Ok(Told::default());
    };
    // Slices are namespaced; their names alone are not unique.
    let metadata = &slice.metadata;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let name = format!("{}/{}", text(&metadata.namespace), text(&metadata.name));
    Ok(Update::ServiceSlice(name.into(), service, Some(Arc::new(backends))).into())
}

fn policy(Converted { value, errors }: Converted<Policy>) -> Told {
    Told {
        update: Some(Update::Policy(value.id.clone(), Some(Arc::new(value)))),
        errors,
        ..Told::default()
    }
}

/// A policy of Kubernetes.
pub fn kubernetes_network_policy(given: &NetworkPolicy) -> Telling {
    convert::kubernetes_network_policy(given).map(policy)
}

/// A policy of Kubernetes, of the whole cluster.
pub fn cluster_network_policy(given: &ClusterNetworkPolicy) -> Telling {
    convert::cluster_network_policy(given).map(policy)
}

/// A policy of ours, in a namespace.
pub fn network_policy(given: &v3::NetworkPolicy) -> Telling {
    convert::network_policy(given).map(policy)
}

/// A policy of ours, of the whole cluster.
pub fn global_network_policy(given: &v3::GlobalNetworkPolicy) -> Telling {
    convert::global_network_policy(given).map(policy)
}

fn staged(given: Result<Option<Converted<Policy>>, FieldError>) -> Telling {
    Ok(given?.map(policy).unwrap_or_default())
}

/// A tier.
pub fn tier(given: &v3::Tier) -> Telling {
    let tier = convert::tier(given);
    Ok(Update::Tier(tier.name.clone(), Some(tier)).into())
}

/// A profile.
pub fn profile(given: &v3::Profile) -> Telling {
    let Converted { value, errors } = convert::profile(given);
    let name: ProfileName = given.name().into();
    Ok(Told {
        update: Some(Update::Profile(name, Some(Arc::new(value)))),
        errors,
        ..Told::default()
    })
}

fn set((id, set): (NetworkSetId, Converted<NetworkSet>)) -> Told {
    let Converted { value, errors } = set;
    Told { update: Some(Update::NetworkSet(id, Some(Arc::new(value)))), errors, ..Told::default() }
}

/// A network set, in a namespace.
pub fn network_set(given: &v3::NetworkSet) -> Telling {
    Ok(set(convert::network_set(given)))
}

/// A network set of the whole cluster.
pub fn global_network_set(given: &v3::GlobalNetworkSet) -> Telling {
    Ok(set(convert::global_network_set(given)))
}

/// A host endpoint.
pub fn host_endpoint(given: &v3::HostEndpoint) -> Telling {
    let Converted { value, errors } = convert::host_endpoint(given)?;
    Ok(Told {
        update: Some(Update::Host(given.name().into(), Some(Arc::new(value)))),
        errors,
        ..Told::default()
    })
}

/// A pool of addresses.
pub fn pool(given: &v3::IPPool) -> Telling {
    let pool = convert::pool(given)?;
    Ok(Update::Pool(given.name().into(), Some(pool)).into())
}

/// A block of addresses; none while it is being deleted.
pub fn block(given: &v3::IPAMBlock) -> Telling {
    let update = convert::block(given)?.map(|b| Update::Block(b.cidr, Some(Arc::new(b))));
    Ok(Told { update, ..Told::default() })
}
