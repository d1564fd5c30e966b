//! Pods where there is no Kubernetes: endpoints are objects of their own, which an ADD writes and a DEL
//! takes away, under the names and with the contents that upstream's plugin gives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::convert::{self, EndpointName, ORCHESTRATOR_LABEL};
use api::v3;
use cni::protocol::{Added, Failure, Request, codes};
use datastore::{Backoff, Error, Next, Resource};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use model::{WorkloadEndpoint, WorkloadId};
use serde_json::{Value, json};
use syncer::NamespaceFacts;

use crate::place::Alone;
use crate::server::Cni;

const ENDPOINTS: Resource = Resource::calico("workloadendpoints", "WorkloadEndpoint");
const PROFILES: Resource = Resource::calico("profiles", "Profile");
const NAMESPACES: Resource = Resource::core("namespaces", "Namespace");

const KUBERNETES: &str = "k8s";
const CONTAINERS: &str = "cni";
const NAMESPACE_LABEL: &str = convert::NAMESPACE_LABEL;

/// How often a write is tried that somebody else's crossed, or that was not answered.
const ATTEMPTS: u32 = 5;

/// The endpoint that a request is about: of a pod, if the arguments name one, else of a container.
///
/// # Errors
/// It names nothing.
pub(crate) fn endpoint_id(request: &Request, node: &str) -> Result<WorkloadId, Failure> {
    let arg = |key: &str| request.arg(key).filter(|text| !text.is_empty());
    let (namespace, orchestrator, workload) = match (arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME"))
    {
        (Some(namespace), Some(pod)) => (namespace.to_owned(), KUBERNETES, pod),
        _ if request.container_id.is_empty() => {
            let msg = "neither CNI_ARGS nor CNI_CONTAINERID names a workload";
            return Err(Failure::new(codes::INVALID_ENVIRONMENT, msg));
        }
        _ => {
            let namespace = labels_of_request(request).remove(NAMESPACE_LABEL);
            let namespace = namespace.unwrap_or_else(|| "default".to_owned());
            (namespace, CONTAINERS, request.container_id.as_str())
        }
    };
    let name = EndpointName {
        node: node.to_owned(),
        orchestrator: orchestrator.to_owned(),
        workload: workload.to_owned(),
        endpoint: request.ifname.clone(),
    };
    Ok(WorkloadId { namespace: namespace.into(), name: name.to_string().into() })
}

/// Labels that the runtime gives with the configuration, where upstream's plugin looks for them.
fn labels_of_request(request: &Request) -> BTreeMap<String, String> {
    let given = &request.config["args"]["org.apache.mesos"]["network_info"]["labels"]["labels"];
    let pairs = given.as_array().into_iter().flatten().filter_map(|label| {
        Some((label["key"].as_str()?.to_owned(), label["value"].as_str()?.to_owned()))
    });
    pairs.collect()
}

/// What the host side of an endpoint's interface is called.
pub(crate) fn interface(prefix: &str, id: &WorkloadId) -> String {
    match EndpointName::parse(&id.name) {
        Some(name) if name.orchestrator == KUBERNETES => {
            convert::interface_name(prefix, &id.namespace, &name.workload)
        }
        Some(name) => {
            let start: String = name.workload.chars().take(convert::INTERFACE_DIGITS).collect();
            format!("{prefix}{start}")
        }
        None => convert::interface_name(prefix, &id.namespace, &id.name),
    }
}

/// The pod of an endpoint of Kubernetes.
pub(crate) fn pod_name(id: &WorkloadId) -> Option<String> {
    let name = EndpointName::parse(&id.name)?;
    (name.orchestrator == KUBERNETES).then_some(name.workload)
}

/// What is known of a workload that nobody can be asked about.
pub(crate) fn unknown_pod(request: &Request, id: &WorkloadId, node: &str) -> Pod {
    let name = pod_name(id).unwrap_or_else(|| request.container_id.clone());
    let mut pod = Pod::default();
    pod.metadata.name = Some(name);
    pod.metadata.namespace = Some(id.namespace.to_string());
    pod.metadata.uid = request.arg("K8S_POD_UID").map(str::to_owned);
    let mut labels = labels_of_request(request);
    labels.remove(NAMESPACE_LABEL);
    pod.metadata.labels = Some(labels);
    pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
    pod
}

impl Cni {
    /// Makes of a pod's endpoint the one that is written.
    pub(crate) fn as_written(
        &self,
        alone: &Alone,
        (request, id): (&Request, &WorkloadId),
        pods: WorkloadEndpoint,
    ) -> WorkloadEndpoint {
        let of_pod = pod_name(id).is_some();
        let mut endpoint =
            WorkloadEndpoint { id: id.clone(), node: self.node.as_str().into(), ..pods };
        if !of_pod {
            Arc::make_mut(&mut endpoint.labels)
                .insert(ORCHESTRATOR_LABEL.into(), CONTAINERS.into());
        }
        if !of_pod || alone.kubernetes.is_none() {
            endpoint.profiles = vec![request.network().into()];
        }
        endpoint
    }

    /// Writes an endpoint, before the pod runs: other nodes learn from it who has these addresses.
    pub(crate) async fn publish(
        &self,
        request: &Request,
        pod: &Pod,
        endpoint: &WorkloadEndpoint,
        added: &Added,
    ) -> Result<(), Failure> {
        let of_pod = pod_name(&endpoint.id).is_some();
        let mut object = convert::endpoint_view(endpoint);
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        object.metadata.generate_name.clone_from(&pod.metadata.generate_name);
        let spec = &mut object.spec;
        spec.orchestrator = if of_pod { KUBERNETES } else { CONTAINERS }.into();
        spec.pod = pod_name(&endpoint.id).unwrap_or_default();
        spec.container_id.clone_from(&request.container_id);
        spec.endpoint.clone_from(&request.ifname);
        spec.mac.clone_from(&added.mac);
        spec.service_account_name = account.unwrap_or_default();
        let written = async {
            if endpoint.profiles.iter().any(|profile| profile.as_str() == request.network()) {
                self.network_profile(request.network(), of_pod).await?;
            }
            self.put_endpoint(object).await
        };
        written.await.map_err(|error| Failure {
            code: codes::TRY_AGAIN,
            msg: format!("endpoint {} was not written", endpoint.id),
            details: error.to_string(),
        })
    }

    /// The profile of a network, which allows its endpoints to talk: made if there is none, never changed.
    async fn network_profile(&self, network: &str, of_pod: bool) -> Result<(), Error> {
        if self.made_profiles.lock().await.contains(network) {
            return Ok(());
        }
        let allow = json!({"action": "Allow"});
        let same = json!({"action": "Allow", "source": {"selector": format!("has({network})")}});
        let object = json!({
            "apiVersion": PROFILES.api_version(), "kind": PROFILES.kind,
            "metadata": {"name": network},
            "spec": {
                "egress": [allow], "ingress": [if of_pod { &allow } else { &same }],
                "labelsToApply": {network: ""},
            },
        });
        match self.place.datastore.create::<Value>(&PROFILES, None, &object).await {
            Ok(_) | Err(Error::Exists(_)) => {
                self.made_profiles.lock().await.insert(network.to_owned());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn put_endpoint(&self, mut object: v3::WorkloadEndpoint) -> Result<(), Error> {
        let datastore = &self.place.datastore;
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        for attempt in 1.. {
            let written = match object.metadata.resource_version {
                None => datastore.create::<Value>(&ENDPOINTS, Some(&namespace), &object).await,
                Some(_) => {
                    datastore.replace::<Value>(&ENDPOINTS, Some(&namespace), &name, &object).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(error) if error.next() == Next::Retry => backoff.wait().await,
                Err(error) if error.next() != Next::Reread && !missing(&error) => {
                    return Err(error);
                }
                // Left by the last container of the pod.
                Err(_) => {
                    let place = (Some(namespace.as_str()), name.as_str());
                    let found: Option<v3::WorkloadEndpoint> =
                        datastore.get(&ENDPOINTS, place.0, place.1).await?;
                    succeed(&mut object, found.unwrap_or_default());
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Takes a container's endpoint away; never that of a successor.
    ///
    /// # Errors
    /// The datastore's; nothing if there is none.
    pub(crate) async fn withdraw(&self, id: &WorkloadId, container: &str) -> Result<(), Error> {
        if self.place.alone.is_none() {
            return Ok(());
        }
        let datastore = &self.place.datastore;
        for attempt in 1.. {
            let found: Option<v3::WorkloadEndpoint> =
                datastore.get(&ENDPOINTS, Some(&id.namespace), &id.name).await?;
            let Some(found) = found.filter(|f| f.spec.container_id == container) else {
                return Ok(());
            };
            let uid = found.metadata.uid.unwrap_or_default();
            let revision = found.metadata.resource_version.unwrap_or_default();
            let place = (Some(&*id.namespace), &*id.name);
            match datastore.delete_in(&ENDPOINTS, place, (&uid, &revision)).await {
                Err(error) if missing(&error) => return Ok(()),
                Err(error) if attempt >= ATTEMPTS || error.next() != Next::Reread => {
                    return Err(error);
                }
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// What counts about a namespace: as it was seen, or as Kubernetes says where it is somewhere else.
    pub(crate) async fn namespace_facts(&self, name: &str) -> Arc<NamespaceFacts> {
        if let Some(facts) = self.pods.namespace(name) {
            return facts;
        }
        let kubernetes = self.place.alone.as_ref().and_then(|alone| alone.kubernetes.as_ref());
        let Some(kubernetes) = kubernetes else { return Arc::default() };
        match kubernetes.get::<Namespace>(&NAMESPACES, None, name).await {
            Ok(found) => {
                Arc::new(found.map(|found| NamespaceFacts::of(&found)).unwrap_or_default())
            }
            Err(error) => {
                tracing::warn!(namespace = name, %error, "its annotations are not known");
                Arc::default()
            }
        }
    }
}

/// Makes `object` the next state of what was `found`. What others have added to the endpoint of the same
/// container stays.
fn succeed(object: &mut v3::WorkloadEndpoint, found: v3::WorkloadEndpoint) {
    let (before, now) = (found.metadata, &mut object.metadata);
    if found.spec.container_id == object.spec.container_id {
        let ours = now.labels.take().into_iter().flatten();
        now.labels = Some(before.labels.into_iter().flatten().chain(ours).collect());
        now.annotations = before.annotations;
    }
    now.resource_version = before.resource_version;
    now.uid = before.uid;
    now.creation_timestamp = before.creation_timestamp;
}

fn missing(error: &Error) -> bool {
    matches!(error, Error::NotFound(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(args: &str, config: Value) -> Request {
        Request {
            command: "ADD".into(),
            container_id: "0123456789abcdef".into(),
            netns: String::new(),
            ifname: "eth0".into(),
            args: args.into(),
            config,
        }
    }

    #[test]
    fn a_repeated_add_keeps_what_others_added() {
        let endpoint = |container: &str, labels: &[(&str, &str)]| {
            let mut it =
                v3::WorkloadEndpoint::namespaced("a", "x", v3::WorkloadEndpointSpec::default());
            it.spec.container_id = container.into();
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            it.metadata.labels = Some(labels.collect());
            it
        };
        let found = endpoint("c1", &[("app", "x"), ("own", "old")]);
        let mut same = endpoint("c1", &[("own", "new")]);
        succeed(&mut same, found.clone());
        assert_eq!(same.labels(), endpoint("c1", &[("app", "x"), ("own", "new")]).labels());
        let mut next = endpoint("c2", &[("own", "new")]);
        succeed(&mut next, found);
        assert_eq!(next.labels().len(), 1, "another container begins anew");
    }

    #[test]
    fn names_as_upstream_makes_them() {
        let pod = request("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0", json!({}));
        let id = endpoint_id(&pod, "node-a").unwrap();
        assert_eq!(id.to_string(), "shop/node--a-k8s-web--0-eth0");
        assert_eq!(interface("cali", &id), convert::interface_name("cali", "shop", "web-0"));
        assert_eq!(pod_name(&id).as_deref(), Some("web-0"));

        let alone = request("", json!({}));
        let id = endpoint_id(&alone, "node-a").unwrap();
        assert_eq!(id.to_string(), "default/node--a-cni-0123456789abcdef-eth0");
        assert_eq!(interface("cali", &id), "cali0123456789a");
        assert_eq!(pod_name(&id), None);

        let labels = json!([{"key": "app", "value": "x"},
            {"key": "projectcalico.org/namespace", "value": "jobs"}]);
        let config =
            json!({"args": {"org.apache.mesos": {"network_info": {"labels": {"labels": labels}}}}});
        let labelled = request("", config);
        let id = endpoint_id(&labelled, "n").unwrap();
        assert_eq!(&*id.namespace, "jobs");
        let pod = unknown_pod(&labelled, &id, "n");
        assert_eq!(pod.metadata.labels.unwrap(), [("app".to_owned(), "x".to_owned())].into());
    }
}
