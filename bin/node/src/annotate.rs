//! What the API hears about a pod's network: written behind an ADD and a DEL, never waited for.

use std::net::IpAddr;
use std::sync::Arc;

use datastore::{Backoff, Next, Resource};
use k8s_openapi::api::core::v1::Pod;
use model::WorkloadId;
use serde_json::{Value, json};

use crate::add::annotation;
use crate::server::Cni;

const PODS: Resource = Resource::core("pods", "Pod");
const CONTAINER: &str = "cni.projectcalico.org/containerID";

/// How often a write is tried before it is left to the next ADD.
const ATTEMPTS: u32 = 8;

impl Cni {
    pub(crate) fn annotate(
        self: &Arc<Self>,
        id: &WorkloadId,
        pod: &Pod,
        addresses: &[IpAddr],
        container: &str,
    ) {
        let text = |a: &IpAddr| format!("{a}/{}", if a.is_ipv4() { 32 } else { 128 });
        let all: Vec<_> = addresses.iter().map(text).collect();
        let first = all.first().cloned().unwrap_or_default();
        let uid = pod.metadata.uid.clone();
        self.write(id.clone(), patch(uid, &first, &all.join(","), container));
    }

    /// The addresses are gone; if the pod still speaks of this container.
    pub(crate) fn forget_annotations(self: &Arc<Self>, id: &WorkloadId, container: &str) {
        let Some(pod) = self.pods.pod(id) else { return };
        if annotation(&pod, CONTAINER).as_deref() == Some(container) {
            self.write(id.clone(), patch(pod.metadata.uid.clone(), "", "", container));
        }
    }

    fn write(self: &Arc<Self>, id: WorkloadId, patch: Value) {
        let cni = self.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            for _ in 0..ATTEMPTS {
                let place = (Some(&*id.namespace), &*id.name);
                match cni.place.datastore.patch(&PODS, place, None, &patch).await {
                    Ok(_) => return,
                    Err(e) if e.next() != Next::Retry => {
                        // Gone, or another pod of the same name: nothing to say any more.
                        tracing::debug!(%id, error = %e, "annotations not written");
                        return;
                    }
                    Err(_) => backoff.wait().await,
                }
            }
            tracing::warn!(%id, "annotations not written: the datastore does not answer");
        });
    }
}

/// With the UID, so that it never hits a successor of the same name.
fn patch(uid: Option<String>, first: &str, all: &str, container: &str) -> Value {
    let annotations = json!({
        CONTAINER: container,
        "cni.projectcalico.org/podIP": first,
        "cni.projectcalico.org/podIPs": all,
    });
    let mut metadata = json!({"annotations": annotations});
    if let Some(uid) = uid {
        metadata["uid"] = json!(uid);
    }
    json!({"metadata": metadata})
}
