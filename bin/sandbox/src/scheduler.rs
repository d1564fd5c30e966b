//! Binds pods that name no node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};

/// How long to wait before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The UIDs of pods that a task works on.
type Busy = Arc<Mutex<BTreeSet<String>>>;

fn lock(busy: &Busy) -> MutexGuard<'_, BTreeSet<String>> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches unbound pods, for ever.
pub(crate) async fn run(client: Client) -> Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let unbound = watcher::Config::default().fields("spec.nodeName=");
    let mut events = std::pin::pin!(watcher(pods, unbound));
    let busy = Busy::default();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => {
                if pod.uid().is_some_and(|uid| lock(&busy).insert(uid)) {
                    tokio::spawn(bind_until_done(client.clone(), pod, busy.clone()));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "watch of unbound pods");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Tries again until the pod is bound or gone: a node may come, or get the labels that fit.
async fn bind_until_done(client: Client, pod: Pod, busy: Busy) {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    loop {
        match bind(&client, &namespace, &name).await {
            Ok(true) => {
                lock(&busy).remove(&pod.uid().unwrap_or_default());
                return;
            }
            Ok(false) => tracing::info!(namespace, pod = name, "no node fits"),
            Err(error) => tracing::info!(namespace, pod = name, %error, "cannot bind"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// True when nothing is left to do: bound now, bound already, or gone.
async fn bind(client: &Client, namespace: &str, name: &str) -> Result<bool> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Some(pod) = pods.get_opt(name).await? else { return Ok(true) };
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.node_name.is_some() || pod.metadata.deletion_timestamp.is_some() {
        return Ok(true);
    }
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let all = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let mut load: BTreeMap<String, usize> = BTreeMap::new();
    for node in all.items.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()) {
        *load.entry(node).or_default() += 1;
    }
    let wanted = spec.node_selector.unwrap_or_default();
    let fits = |n: &&Node| {
        let schedulable = n.spec.as_ref().and_then(|s| s.unschedulable) != Some(true);
        schedulable && wanted.iter().all(|(k, v)| n.labels().get(k) == Some(v))
    };
    let best = nodes.items.iter().filter(fits);
    let best = best.min_by_key(|n| (load.get(&n.name_any()).copied().unwrap_or(0), n.name_any()));
    let Some(node) = best else { return Ok(false) };
    let binding = Binding {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.name_any()),
            ..ObjectReference::default()
        },
    };
    let posted: Result<kube::core::Status, kube::Error> =
        pods.create_subresource("binding", name, &PostParams::default(), &binding).await;
    match posted {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
