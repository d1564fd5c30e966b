//! The stand-in for a kubelet: runs the pods that are bound to its node.
//!
//! Desired state is the API's, observed state the records of `state` (what may exist in the kernel).
//! Every difference is worked off by [`Kubelet::sync`], which is called again until it succeeds; so
//! it does not matter when this process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::pods::{Cni, make, remove};
use crate::state::{PodRecord, State};
use crate::{netns, process};

/// How often a failed start is tried again at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the pods' processes are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// One node's kubelet.
#[derive(Clone)]
pub(crate) struct Kubelet {
    state: State,
    client: Client,
    node: String,
    addresses: Vec<IpAddr>,
    cni: Arc<Cni>,
    /// Pods that a task works on now; `true`: look again afterwards.
    busy: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Kubelet {
    pub(crate) fn new(
        state: State,
        client: Client,
        node: String,
        addresses: Vec<IpAddr>,
    ) -> Result<Self> {
        let cni = Arc::new(Cni::of(&state, &node)?);
        Ok(Self { state, client, node, addresses, cni, busy: Arc::default() })
    }

    /// Registers the node and runs its pods, for ever.
    pub(crate) async fn run(self) -> Result<()> {
        while let Err(error) = self.register().await {
            tracing::warn!(node = self.node, error = %format!("{error:#}"), "not registered yet");
            tokio::time::sleep(RETRY.0).await;
        }
        tokio::spawn(self.clone().report_ready());
        let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node));
        let mut events = std::pin::pin!(watcher(Api::<Pod>::all(self.client.clone()), mine));
        let mut listed = BTreeSet::new();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                _ = look.tick() => {
                    self.note("looking at processes", self.revive());
                    continue;
                }
            };
            match event {
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(pod))) => {
                    listed.extend(pod.uid());
                    self.look_at(pod);
                }
                Ok(Some(Event::InitDone)) => {
                    self.note("looking for leftovers", self.forget_unlisted(&listed));
                }
                Ok(Some(Event::Apply(pod) | Event::Delete(pod))) => self.look_at(pod),
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::debug!(node = self.node, %error, "watch of pods");
                    tokio::time::sleep(RETRY.0).await;
                }
            }
        }
    }

    /// A failure that the next look makes good.
    fn note(&self, what: &str, done: Result<()>) {
        if let Err(error) = done {
            tracing::warn!(node = self.node, what, error = %format!("{error:#}"), "failed");
        }
    }

    /// What ran here and is not in the API any more, nobody will tell us about again.
    fn forget_unlisted(&self, listed: &BTreeSet<String>) -> Result<()> {
        for record in self.state.pods()? {
            if record.node == self.node && !listed.contains(&record.uid) {
                self.look_at(known_as(&record)?);
            }
        }
        Ok(())
    }

    /// A container whose process has died is started again, as a kubelet does.
    fn revive(&self) -> Result<()> {
        for record in self.state.pods()? {
            if record.node == self.node && record.responder.is_some_and(|r| !process::alive(r)) {
                self.look_at(known_as(&record)?);
            }
        }
        Ok(())
    }

    /// One task a pod; news during its work makes it look again.
    fn look_at(&self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        {
            let mut busy = self.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(again) = busy.get_mut(&uid) {
                *again = true;
                return;
            }
            busy.insert(uid.clone(), false);
        }
        let this = self.clone();
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        tokio::spawn(async move {
            let mut pause = RETRY.0;
            loop {
                match this.sync(&namespace, &name, &uid).await {
                    Ok(()) => {
                        let mut busy =
                            this.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        if busy.get(&uid) != Some(&true) {
                            busy.remove(&uid);
                            return;
                        }
                        busy.insert(uid.clone(), false);
                        pause = RETRY.0;
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(node = this.node, namespace, pod = name, error, "not done");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY.1);
                    }
                }
            }
        });
    }

    /// Makes one pod as the API wants it now.
    async fn sync(&self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.get_opt(name).await?.filter(|p| p.uid().as_deref() == Some(uid));
        let record = self.state.pod(uid)?;
        match pod {
            None => self.tear_down(record).await,
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => {
                self.tear_down(record).await?;
                let now = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(Preconditions {
                        uid: Some(uid.to_owned()),
                        resource_version: None,
                    }),
                    ..DeleteParams::default()
                };
                match pods.delete(name, &now).await {
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                    other => other.map(|_| ()).map_err(Into::into),
                }
            }
            Some(pod) if is_finished(&pod) => self.tear_down(record).await,
            Some(pod) => self.keep_up(&pods, &pod, record).await,
        }
    }

    async fn keep_up(&self, pods: &Api<Pod>, pod: &Pod, record: Option<PodRecord>) -> Result<()> {
        if pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
            return self.report(pods, pod, &self.addresses).await;
        }
        let runs = |r: &PodRecord| {
            !r.ips.is_empty() && netns::exists(&r.netns) && r.responder.is_some_and(process::alive)
        };
        let record = match record {
            Some(record) if runs(&record) => record,
            other => {
                let this = self.clone();
                let pod = pod.clone();
                let made = move || make(&this.state, &this.cni, &this.node, &pod, other);
                tokio::task::spawn_blocking(made).await??
            }
        };
        self.report(pods, pod, &record.ips).await
    }

    async fn tear_down(&self, record: Option<PodRecord>) -> Result<()> {
        let Some(record) = record else { return Ok(()) };
        let (state, cni) = (self.state.clone(), self.cni.clone());
        tokio::task::spawn_blocking(move || remove(&state, &cni, &record)).await?
    }

    /// Writes the pod's status, if it says something else.
    async fn report(&self, pods: &Api<Pod>, pod: &Pod, ips: &[IpAddr]) -> Result<()> {
        let status = pod.status.clone().unwrap_or_default();
        let has: Vec<_> = status.pod_ips.iter().flatten().map(|i| i.ip.clone()).collect();
        let want: Vec<_> = ips.iter().map(ToString::to_string).collect();
        if status.phase.as_deref() == Some("Running") && has == want {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({"status": running(pod, &self.addresses, &want)}));
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            // Gone meanwhile: the next event says so.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()).map_err(Into::into),
        }
    }

    async fn register(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.node, "labels": {
                "kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux",
            }},
        });
        let created = nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await;
        match created {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(|_| ()).context("cannot register the node"),
        }
    }

    /// The node is ready when the plugin says that an ADD would work (CNI STATUS), as runtimes ask.
    async fn report_ready(self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut reported = None;
        loop {
            let cni = self.cni.clone();
            let answer = tokio::task::spawn_blocking(move || cni.status()).await;
            let ready = matches!(answer, Ok(Ok(())));
            if reported != Some(ready) {
                // A strategic patch would keep one address of each type only.
                let patch = Patch::Merge(json!({"status": self.node_status(ready)}));
                match nodes.patch_status(&self.node, &PatchParams::default(), &patch).await {
                    Ok(_) => reported = Some(ready),
                    Err(error) => tracing::debug!(node = self.node, %error, "node status"),
                }
            }
            let pause = if ready { Duration::from_secs(2) } else { Duration::from_millis(30) };
            tokio::time::sleep(pause).await;
        }
    }

    fn node_status(&self, ready: bool) -> Value {
        let mut addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|a| json!({"type": "InternalIP", "address": a.to_string()}))
            .collect();
        addresses.push(json!({"type": "Hostname", "address": self.node}));
        let (status, reason) =
            if ready { ("True", "KubeletReady") } else { ("False", "NetworkPluginNotReady") };
        json!({
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": status, "reason": reason}],
            "nodeInfo": {
                "architecture": std::env::consts::ARCH, "operatingSystem": "linux",
                "kubeletVersion": "v1.35.4-sandbox", "kubeProxyVersion": "",
                "containerRuntimeVersion": "namespace://1", "osImage": "sandbox",
                "kernelVersion": kernel(), "machineID": "", "systemUUID": "", "bootID": "",
            },
            "capacity": {"pods": "1100"}, "allocatable": {"pods": "1100"},
        })
    }
}

/// A pod as far as its record knows it: enough to ask the API for the rest.
fn known_as(record: &PodRecord) -> Result<Pod> {
    let pod = json!({"metadata": {
        "namespace": record.namespace, "name": record.name, "uid": record.uid,
    }});
    Ok(serde_json::from_value(pod)?)
}

fn kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The status of a pod whose containers all run, since now.
fn running(pod: &Pod, host: &[IpAddr], ips: &[String]) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let containers: Vec<_> = containers
        .map(|c| {
            json!({
                "name": c.name, "image": c.image, "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
    json!({
        "phase": "Running",
        "startTime": now,
        "podIP": ips.first(),
        "podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
        "hostIP": host.first().map(ToString::to_string),
        "hostIPs": host.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>(),
        "conditions": conditions,
        "containerStatuses": containers,
    })
}
