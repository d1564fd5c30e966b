//! Where the objects of a question come from.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Result, bail};
use api::{Kind, Source, convert};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Ask;
use crate::cluster::{Cluster, Pages};
use crate::print::{self, cell};

/// The objects that a question asks for, page by page.
pub(super) struct Supply {
    kind: &'static Kind,
    from: From,
    /// Names that were asked for, and have not been seen; nothing if all objects are asked for.
    wanted: Option<BTreeSet<String>>,
    /// The server was asked for each by its name.
    by_name: bool,
}

enum From {
    /// Whatever a list has; these are made of its objects.
    Pages(Pages, Made),
    /// Read already.
    Ready(Option<Vec<Value>>),
}

/// What becomes of the objects of a list.
enum Made {
    Same,
    Nodes,
    /// With the start of interfaces' names.
    Workloads(String),
}

impl Supply {
    pub(super) async fn new(cluster: &Cluster, ask: &Ask) -> Result<Self> {
        let Ask { kind, namespace, names } = ask;
        let namespace = namespace.as_deref();
        let source = cluster.source(kind);
        let kept = matches!(source, Source::Stored | Source::Kubernetes);
        let mut wanted: Option<BTreeSet<String>> =
            (!names.is_empty()).then(|| names.iter().cloned().collect());
        let from = match source {
            _ if kept && !names.is_empty() => {
                From::Ready(Some(named(cluster, ask, &mut wanted).await?))
            }
            Source::Stored | Source::Kubernetes if kind.plural == "profiles" => {
                From::Ready(Some(stored_profiles(cluster, kind).await?))
            }
            Source::Stored | Source::Kubernetes => {
                From::Pages(cluster.pages(kind, namespace), Made::Same)
            }
            Source::Node => From::Pages(Pages::at("/api/v1/nodes".into()), Made::Nodes),
            Source::Pod => {
                let prefix = interface_prefix(cluster).await?;
                From::Pages(Pages::at(pods(namespace)), Made::Workloads(prefix))
            }
            Source::Namespace => From::Ready(Some(profiles(cluster, kind).await?)),
        };
        Ok(Self { kind, from, wanted, by_name: kept && !names.is_empty() })
    }

    /// Whether there is no further page.
    pub(super) fn ended(&self) -> bool {
        match &self.from {
            From::Pages(pages, _) => pages.ended(),
            From::Ready(rest) => rest.is_none(),
        }
    }

    /// The next objects, as they are shown.
    pub(super) async fn next(&mut self, cluster: &Cluster) -> Result<Option<Vec<Value>>> {
        let page = match &mut self.from {
            From::Ready(all) => all.take(),
            From::Pages(pages, made) => {
                let first =
                    matches!(pages, Pages::Api { path: Some(_), more, .. } if more.is_empty());
                let page = pages.next(cluster).await?;
                if page.is_none() && first && matches!(made, Made::Same) {
                    bail!("the server does not serve {}", self.kind.plural);
                }
                page.map(|objects| made.of(objects)).transpose()?
            }
        };
        let Some(mut page) = page else { return Ok(None) };
        for object in &mut page {
            hide(object);
            object["apiVersion"] = self.kind.api_version().into(); // items of lists lack them
            object["kind"] = self.kind.kind.into();
        }
        // What was not asked for by name from a server is picked here.
        if let Some(wanted) = self.wanted.as_mut().filter(|_| !self.by_name) {
            page.retain(|object| wanted.remove(&cell(object, ".metadata.name")));
        }
        Ok(Some(page))
    }

    /// Names that were asked for and are not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = &String> {
        self.wanted.iter().flatten()
    }
}

impl Made {
    fn of(&self, objects: Vec<Value>) -> Result<Vec<Value>> {
        match self {
            Self::Same => Ok(objects),
            Self::Nodes => {
                let view = |node: &Node| Ok(serde_json::to_value(convert::node_view(node))?);
                typed::<Node>(objects)?.iter().map(view).collect()
            }
            Self::Workloads(prefix) => {
                let pods = typed::<Pod>(objects)?;
                let views = pods.iter().filter_map(|pod| workload(pod, prefix));
                views.map(|view| Ok(serde_json::to_value(view)?)).collect()
            }
        }
    }
}

/// Every object of a kind, of all namespaces; none where the server does not serve it.
pub(crate) async fn all(cluster: &Cluster, kind: &'static Kind) -> Result<Vec<Value>> {
    if matches!(cluster.source(kind), Source::Stored | Source::Kubernetes) {
        let probe = format!("{}?limit=1", cluster.path(kind, None, None));
        if cluster.send(Method::GET, &probe, None).await?.is_none() {
            return Ok(Vec::new());
        }
    }
    let ask = Ask { kind, namespace: None, names: Vec::new() };
    let mut supply = Supply::new(cluster, &ask).await?;
    let mut all = Vec::new();
    while let Some(page) = supply.next(cluster).await? {
        all.extend(page);
    }
    Ok(all)
}

/// Objects by name, one by one. Those that are there are wanted no more.
async fn named(
    cluster: &Cluster,
    ask: &Ask,
    wanted: &mut Option<BTreeSet<String>>,
) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for name in &ask.names {
        let path = cluster.path(ask.kind, ask.namespace.as_deref(), Some(name));
        if let Some(object) = cluster.send(Method::GET, &path, None).await? {
            found.push(object);
            if let Some(wanted) = wanted {
                wanted.remove(name);
            }
        }
    }
    Ok(found)
}

fn typed<T: DeserializeOwned>(objects: Vec<Value>) -> Result<Vec<T>> {
    objects.into_iter().map(|o| Ok(serde_json::from_value(o)?)).collect()
}

fn pods(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => {
            format!("/api/v1/namespaces/{}/pods", crate::cluster::escape(namespace))
        }
        None => "/api/v1/pods".to_owned(),
    }
}

async fn interface_prefix(cluster: &Cluster) -> Result<String> {
    let path = cluster.path(crate::apply::kind("felixconfiguration")?, None, Some("default"));
    let felix = cluster.send(Method::GET, &path, None).await?.unwrap_or_default();
    Ok(convert::interface_prefix(&felix).to_owned())
}

fn workload(pod: &Pod, prefix: &str) -> Option<api::v3::WorkloadEndpoint> {
    match convert::workload_view(pod, prefix) {
        Ok(view) => view,
        Err(error) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            print::complain(&format!("Pod {name}: {error}"));
            None
        }
    }
}

/// What is stored, and the one profile that no store has, and every cluster.
async fn stored_profiles(cluster: &Cluster, kind: &Kind) -> Result<Vec<Value>> {
    let Some(mut all) = cluster.list(&cluster.path(kind, None, None)).await? else {
        bail!("the server does not serve {}", kind.plural);
    };
    let (name, profile) = convert::default_allow_profile();
    let view = serde_json::to_value(convert::profile_view(&name, &profile))?;
    all.retain(|object| cell(object, ".metadata.name") != name.as_str());
    all.push(view);
    Ok(all)
}

/// Those of namespaces and service accounts. Some servers also store profiles, or derive them as we do.
async fn profiles(cluster: &Cluster, kind: &Kind) -> Result<Vec<Value>> {
    let stored = cluster.list(&cluster.path(kind, None, None)).await?.unwrap_or_default();
    let mut made = vec![convert::default_allow_profile()];
    let namespaces: Vec<Namespace> = typed_list(cluster, "/api/v1/namespaces").await?;
    made.extend(namespaces.iter().map(convert::namespace_profile));
    let accounts: Vec<ServiceAccount> = typed_list(cluster, "/api/v1/serviceaccounts").await?;
    made.extend(accounts.iter().map(convert::service_account_profile));
    let view =
        |(name, profile): &(_, _)| Ok(serde_json::to_value(convert::profile_view(name, profile))?);
    let mut all = made.iter().map(view).collect::<Result<Vec<Value>>>()?;
    let name_of = |object: &Value| cell(object, ".metadata.name");
    let derived: HashSet<String> = all.iter().map(name_of).collect();
    all.extend(stored.into_iter().filter(|o| !derived.contains(&name_of(o))));
    Ok(all)
}

async fn typed_list<T: DeserializeOwned>(cluster: &Cluster, path: &str) -> Result<Vec<T>> {
    typed(cluster.list(path).await?.unwrap_or_default())
}

/// Takes away what only the server's own bookkeeping needs.
fn hide(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
}

/// Takes away what only this cluster knows.
pub(crate) fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "selfLink",
        ] {
            metadata.shift_remove(key);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.shift_remove("status");
    }
}
