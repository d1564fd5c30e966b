//! `cluster diags`: a cluster, as its API shows it: objects, and what Calico's pods have logged.
//!
//! Secrets are never asked for. What pods know of their nodes is for `node diags` there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::AsyncReadExt as _;
use futures_util::stream::{self, StreamExt as _};
use http::{Method, Request};
use serde_json::Value;

use super::bundle::Bundle;
use crate::args::{Access, ClusterDiagsArgs};
use crate::cluster::{Cluster, escape};
use crate::print::{Out, Progress, cell};
use crate::{Outcome, wait};

/// Of each log the end counts: so many lines, and no more bytes than these.
const LAST_LINES: u32 = 50_000;
const MOST_OF_A_LOG: u64 = 64 << 20;

/// Kinds of Kubernetes that tell what happens to packets, everywhere: the group's path, and the plural.
const EVERYWHERE: &[(&str, &str)] = &[
    ("/api/v1", "nodes"),
    ("/api/v1", "namespaces"),
    ("/api/v1", "services"),
    ("/apis/discovery.k8s.io/v1", "endpointslices"),
    ("/apis/networking.k8s.io/v1", "networkpolicies"),
    ("/apis/networking.k8s.io/v1", "ingresses"),
    ("/apis/apiregistration.k8s.io/v1", "apiservices"),
    ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    ("/apis/admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    ("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
];

/// Kinds that run pods.
const RUNNERS: [&str; 3] = ["daemonsets", "deployments", "statefulsets"];
/// Kinds that are taken of Calico's namespaces only.
const OURS: &[(&str, &str)] = &[
    ("/api/v1", "pods"),
    ("/api/v1", "events"),
    ("/api/v1", "configmaps"),
    ("/apis/apps/v1", "daemonsets"),
    ("/apis/apps/v1", "deployments"),
    ("/apis/apps/v1", "statefulsets"),
];

pub(crate) fn diags(access: &Access, args: &ClusterDiagsArgs) -> Result<Outcome> {
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let bundle = Bundle::new("calico-diagnostics-")?;
        let look = Look { cluster: &cluster, bundle: &bundle, args };
        // A cluster that does not answer has no archive.
        look.calico().await?;
        if !cluster.is_alone() {
            look.kubernetes().await;
        }
        let here = std::path::PathBuf::from(".");
        let to = args.output_dir.as_deref().unwrap_or(&here);
        let archive = bundle.finish(Some(to), args.skip_temp_dir_cleanup)?;
        let mut out = Out::new();
        out.line(&format!("Diagnostics written to {}", archive.display()))?;
        out.finish()?;
        Ok(Outcome::Done)
    })
}

struct Look<'a> {
    cluster: &'a Cluster,
    bundle: &'a Bundle,
    args: &'a ClusterDiagsArgs,
}

/// A container whose log is taken.
struct Container {
    namespace: String,
    pod: String,
    name: String,
    node: String,
    /// It has been started again: what it said before it ended helps most.
    restarted: bool,
}

impl Look<'_> {
    fn at_once(&self) -> usize {
        usize::from(self.args.max_parallelism)
    }

    /// Every kind of ours, as it is shown.
    async fn calico(&self) -> Result<()> {
        let ours = api::kinds().iter().filter(|kind| kind.group == "projectcalico.org");
        let kinds: Vec<_> = ours.collect();
        let mut progress = Progress::new("reading Calico's objects:", kinds.len());
        for (i, kind) in kinds.into_iter().enumerate() {
            progress.step();
            match crate::get::all(self.cluster, kind).await {
                Ok(objects) if objects.is_empty() => {}
                Ok(objects) => {
                    self.bundle.objects(&format!("calico/{}.yaml", kind.plural), objects);
                }
                Err(error) if i == 0 => return Err(error),
                Err(error) => self.bundle.problem(&format!("calico/{}: {error:#}", kind.plural)),
            }
        }
        Ok(())
    }

    async fn kubernetes(&self) {
        self.one("/version", "version.yaml").await;
        let everywhere = EVERYWHERE.iter().map(|(group, plural)| {
            (format!("{group}/{plural}"), format!("kubernetes/{plural}.yaml"))
        });
        self.lists(everywhere.collect()).await;
        self.lists(self.stored().await).await;
        let namespaces = self.namespaces().await;
        let ours = namespaces.iter().flat_map(|namespace| {
            OURS.iter().map(move |(group, plural)| {
                let path = format!("{group}/namespaces/{}/{plural}", escape(namespace));
                (path, format!("namespaces/{namespace}/{plural}.yaml"))
            })
        });
        self.lists(ours.collect()).await;
        let mut containers = Vec::new();
        for namespace in &namespaces {
            containers.extend(self.containers(namespace).await);
        }
        self.logs(containers).await;
    }

    async fn one(&self, path: &str, file: &str) {
        match self.cluster.send(Method::GET, path, None).await {
            Ok(Some(object)) => self.bundle.objects(file, vec![object]),
            Ok(None) => self.bundle.problem(&format!("{path}: is not served")),
            Err(error) => self.bundle.problem(&format!("{path}: {error:#}")),
        }
    }

    /// Paths of lists, and the files that they go to.
    async fn lists(&self, lists: Vec<(String, String)>) {
        let each = |(path, file): (String, String)| async move {
            match self.cluster.list(&path).await {
                Ok(Some(objects)) if objects.is_empty() => {}
                Ok(Some(objects)) => self.bundle.objects(&file, objects),
                Ok(None) => self.bundle.problem(&format!("{path}: is not served")),
                Err(error) => self.bundle.problem(&format!("{path}: {error:#}")),
            }
        };
        stream::iter(lists).map(each).buffer_unordered(self.at_once()).collect::<()>().await;
    }

    /// Lists of what Calico stores, and its operator, as they are stored.
    async fn stored(&self) -> Vec<(String, String)> {
        let groups = match self.cluster.send(Method::GET, "/apis", None).await {
            Ok(groups) => groups.unwrap_or_default(),
            Err(error) => {
                self.bundle.problem(&format!("/apis: {error:#}"));
                return Vec::new();
            }
        };
        let mut lists = Vec::new();
        for group in groups["groups"].as_array().into_iter().flatten() {
            let name = cell(group, ".name");
            let ours = name.contains("calico") || name.contains("tigera");
            // What calico/ holds need not be there twice.
            if (!ours || name == "projectcalico.org") && name != "policy.networking.k8s.io" {
                continue;
            }
            let version = cell(group, ".preferredVersion.groupVersion");
            let path = format!("/apis/{version}");
            let found = self.cluster.send(Method::GET, &path, None).await.ok().flatten();
            let found = found.unwrap_or_default();
            for resource in found["resources"].as_array().into_iter().flatten() {
                let plural = cell(resource, ".name");
                let verbs = cell(resource, ".verbs");
                if !plural.contains('/') && verbs.split(',').any(|verb| verb == "list") {
                    lists
                        .push((format!("{path}/{plural}"), format!("stored/{plural}.{name}.yaml")));
                }
            }
        }
        lists
    }

    /// The namespaces in which Calico runs: by their names, and where its agent is.
    async fn namespaces(&self) -> Vec<String> {
        let names = |found: Vec<Value>, path: &str| -> Vec<String> {
            found.iter().map(|object| cell(object, path)).collect()
        };
        let mut all = Vec::new();
        match self.cluster.list("/api/v1/namespaces").await {
            Ok(found) => {
                let mut found = names(found.unwrap_or_default(), ".metadata.name");
                found.retain(|name| name.contains("calico") || name.contains("tigera"));
                all.extend(found);
            }
            Err(error) => self.bundle.problem(&format!("/api/v1/namespaces: {error:#}")),
        }
        if let Ok(Some(found)) = self.cluster.list("/apis/apps/v1/daemonsets").await {
            let agents =
                found.into_iter().filter(|set| cell(set, ".metadata.name") == "calico-node");
            all.extend(names(agents.collect(), ".metadata.namespace"));
        }
        all.sort();
        all.dedup();
        all
    }

    /// The containers of a namespace whose logs are taken: of each component so many pods.
    async fn containers(&self, namespace: &str) -> Vec<Container> {
        let list =
            async |path: String| self.cluster.list(&path).await.ok().flatten().unwrap_or_default();
        let inside = escape(namespace);
        let pods = list(format!("/api/v1/namespaces/{inside}/pods")).await;
        let mut found = Vec::new();
        for plural in RUNNERS {
            for runner in list(format!("/apis/apps/v1/namespaces/{inside}/{plural}")).await {
                let name = cell(&runner, ".metadata.name");
                // Of a namespace that is not Calico's alone only what is.
                if namespace == "kube-system" && !name.contains("calico") {
                    continue;
                }
                let labels = &runner["spec"]["selector"]["matchLabels"];
                let mut ours: Vec<&Value> = pods.iter().filter(|pod| has(pod, labels)).collect();
                ours.sort_by_key(|pod| (self.rank(pod), cell(pod, ".metadata.name")));
                found.extend(ours.into_iter().take(self.args.max_logs).flat_map(containers));
            }
        }
        found
    }

    /// Pods of nodes that matter come first, in the order in which those were named.
    fn rank(&self, pod: &Value) -> usize {
        let node = cell(pod, ".spec.nodeName");
        let focus = &self.args.focus_nodes;
        focus.iter().position(|name| *name == node).unwrap_or(focus.len())
    }

    async fn logs(&self, containers: Vec<Container>) {
        let before = containers.iter().filter(|c| c.restarted).map(|c| (c, true));
        let wanted: Vec<_> = containers.iter().map(|c| (c, false)).chain(before).collect();
        let mut progress = Progress::new("reading logs:", wanted.len());
        let each = wanted.into_iter().map(|(container, previous)| async move {
            let file = container.file(previous);
            match self.log(container, previous).await {
                Ok(text) => self.bundle.copy(&file, &*text),
                Err(error) => self.bundle.problem(&format!("{file}: {error:#}")),
            }
        });
        let each: Vec<_> = each.collect();
        let mut done = stream::iter(each).buffer_unordered(self.at_once());
        while done.next().await.is_some() {
            progress.step();
        }
    }

    async fn log(&self, container: &Container, previous: bool) -> Result<Vec<u8>> {
        let path = container.path(previous, self.args.since);
        let request = Request::get(path).body(Vec::new())?;
        let stream = self.cluster.client().request_stream(request).await;
        let stream = stream.context("the log cannot be read")?;
        let mut text = Vec::new();
        stream.take(MOST_OF_A_LOG).read_to_end(&mut text).await?;
        Ok(text)
    }
}

impl Container {
    fn file(&self, previous: bool) -> String {
        let Self { namespace, pod, name, node, .. } = self;
        let node = if node.is_empty() { "no-node" } else { node };
        let before = if previous { ".previous" } else { "" };
        format!("logs/{node}/{namespace}/{pod}/{name}{before}.log")
    }

    fn path(&self, previous: bool, since: Duration) -> String {
        let (namespace, pod) = (escape(&self.namespace), escape(&self.pod));
        let mut path = format!(
            "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={}&timestamps=true&tailLines={LAST_LINES}",
            escape(&self.name)
        );
        if !since.is_zero() {
            // Less than a second is no time at all to the server.
            let _ = write!(path, "&sinceSeconds={}", since.as_secs().max(1));
        }
        if previous {
            path.push_str("&previous=true");
        }
        path
    }
}

/// Whether a pod has all of these labels, of which there must be some.
fn has(pod: &Value, labels: &Value) -> bool {
    let wanted = labels.as_object().filter(|labels| !labels.is_empty());
    wanted.is_some_and(|wanted| {
        wanted.iter().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
    })
}

/// The containers of a pod that have been started.
fn containers(pod: &Value) -> Vec<Container> {
    let mut restarts = BTreeMap::new();
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in pod["status"][list].as_array().into_iter().flatten() {
            restarts
                .insert(cell(status, ".name"), status["restartCount"].as_u64().unwrap_or_default());
        }
    }
    let container = |(name, restarts): (String, u64)| Container {
        namespace: cell(pod, ".metadata.namespace"),
        pod: cell(pod, ".metadata.name"),
        name,
        node: cell(pod, ".spec.nodeName"),
        restarted: restarts > 0,
    };
    restarts.into_iter().map(container).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn logs_of_containers() {
        let pod = json!({
            "metadata": {"name": "calico-node-x", "namespace": "calico-system", "labels": {"k8s-app": "calico-node", "a": "b"}},
            "spec": {"nodeName": "n1"},
            "status": {
                "initContainerStatuses": [{"name": "install-cni", "restartCount": 0}],
                "containerStatuses": [{"name": "calico-node", "restartCount": 2}],
            },
        });
        assert!(has(&pod, &json!({"k8s-app": "calico-node"})));
        assert!(!has(&pod, &json!({"k8s-app": "calico-node", "c": "d"})) && !has(&pod, &json!({})));
        let found = containers(&pod);
        let told: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.restarted)).collect();
        assert_eq!(told, [("calico-node", true), ("install-cni", false)]);
        assert_eq!(
            found[0].file(true),
            "logs/n1/calico-system/calico-node-x/calico-node.previous.log"
        );
        assert_eq!(
            found[0].path(true, Duration::from_millis(10)),
            "/api/v1/namespaces/calico-system/pods/calico-node-x/log?container=calico-node&timestamps=true&tailLines=50000&sinceSeconds=1&previous=true"
        );
    }
}
