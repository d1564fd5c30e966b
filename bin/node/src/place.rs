//! Where the cluster is kept, and what that means for nodes and pods: with Kubernetes they are its objects,
//! on etcd Calico's own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::convert;
use api::v3;
use datastore::{Backoff, Datastore, Error, Resource};
use k8s_openapi::api::core::v1::Node as CoreNode;
use remote::settings::{DatastoreType, Parameter};
use remote::{EtcdOptions, RemoteError, Reports};
use serde_json::{Map, Value, json};

use crate::settings::Settings;

pub(crate) const CORE_NODES: Resource = Resource::core("nodes", "Node");
const NODES: Resource = Resource::calico("nodes", "Node");

/// See the module.
pub(crate) struct Place {
    pub(crate) datastore: Datastore,
    /// Where there is no Kubernetes, or where it is somewhere else.
    pub(crate) alone: Option<Alone>,
}

/// A datastore without Kubernetes.
pub(crate) struct Alone {
    pub(crate) etcd: EtcdOptions,
    /// The Kubernetes whose pods this node runs, if we may ask it.
    pub(crate) kubernetes: Option<Datastore>,
    /// It is out of reach: [`Place::datastore`] is what it was.
    pub(crate) cut_off: bool,
}

/// A node as everybody sees it, and the object of Kubernetes that it is a view of, if it is one.
pub(crate) struct OwnNode {
    pub(crate) view: v3::Node,
    pub(crate) core: Option<CoreNode>,
}

impl Place {
    /// Whether it is in the API of Kubernetes.
    pub(crate) fn has_kubernetes(settings: &Settings) -> Result<bool> {
        let lookup = |parameter| parameter_of(settings, parameter);
        Ok(remote::settings::datastore_type(&lookup)? == DatastoreType::Kubernetes)
    }

    /// Finds it. An etcd that does not answer is waited for.
    ///
    /// # Errors
    /// Of what is configured.
    pub(crate) async fn connect(settings: &Settings) -> Result<Self> {
        if Self::has_kubernetes(settings)? {
            let cluster = Datastore::connect(settings.kubeconfig.as_deref()).await?;
            return Ok(Self { datastore: of_cluster(&cluster).await?, alone: None });
        }
        let etcd = remote::settings::etcd(&|parameter| parameter_of(settings, parameter))?;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let datastore = loop {
            match remote::datastore_on_etcd(&etcd).await {
                Ok(datastore) => break datastore,
                Err(RemoteError::Unavailable(error)) => {
                    tracing::warn!(error, "etcd cannot be reached, trying again");
                    backoff.wait().await;
                }
                Err(error) => return Err(error).context("etcd"),
            }
        };
        let kubernetes = beside(settings).await?;
        Ok(Self { datastore, alone: Some(Alone { etcd, kubernetes, cut_off: false }) })
    }

    /// As long as it cannot be found: the same, with the datastore as it was.
    ///
    /// # Errors
    /// Of what is configured.
    pub(crate) async fn as_it_was(settings: &Settings, datastore: Datastore) -> Result<Self> {
        if Self::has_kubernetes(settings)? {
            return Ok(Self { datastore, alone: None });
        }
        let etcd = remote::settings::etcd(&|parameter| parameter_of(settings, parameter))?;
        let kubernetes = beside(settings).await?;
        Ok(Self { datastore, alone: Some(Alone { etcd, kubernetes, cut_off: true }) })
    }

    /// What reports about this node are written by, where there are such.
    pub(crate) async fn reports(&self, region: &str, node: &str) -> Result<Option<Reports>> {
        let Some(alone) = self.alone.as_ref().filter(|alone| !alone.cut_off) else {
            return Ok(None);
        };
        Ok(Some(Reports::connect(&alone.etcd, region, node).await?))
    }

    /// This node; none if the cluster does not know it (yet).
    pub(crate) async fn node(&self, name: &str) -> Result<Option<OwnNode>, Error> {
        if self.alone.is_some() {
            let found = self.datastore.get::<v3::Node>(&NODES, None, name).await?;
            return Ok(found.map(|view| OwnNode { view, core: None }));
        }
        let found = self.datastore.get::<CoreNode>(&CORE_NODES, None, name).await?;
        Ok(found.map(|core| OwnNode { view: convert::node_view(&core), core: Some(core) }))
    }

    /// This node. On etcd it makes itself known; with Kubernetes somebody else does that.
    pub(crate) async fn this_node(&self, settings: &Settings) -> Result<OwnNode> {
        let name = &settings.node;
        if let Some(found) = self.node(name).await? {
            return Ok(found);
        }
        if self.alone.is_none() {
            bail!("the cluster has no node {name:?} yet");
        }
        let mut refs = Vec::new();
        if let Some(node_name) = settings.node_ref.clone() {
            refs.push(v3::node::OrchRef { node_name, orchestrator: "k8s".into() });
        }
        let spec = v3::NodeSpec { orch_refs: refs, ..v3::NodeSpec::default() };
        let view = self.datastore.create(&NODES, None, &v3::Node::new(name, spec)).await?;
        Ok(OwnNode { view, core: None })
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<v3::Node>, Error> {
        if self.alone.is_some() {
            return self.datastore.list_all(&NODES).await;
        }
        let all = self.datastore.list_all::<CoreNode>(&CORE_NODES).await?;
        Ok(all.iter().map(convert::node_view).collect())
    }

    /// Says something of a node, by the names that annotations of the core Node have
    /// (`projectcalico.org/` before each); nothing takes back what was said.
    pub(crate) async fn say(
        &self,
        node: &str,
        what: &BTreeMap<&'static str, Option<String>>,
    ) -> Result<(), Error> {
        let patch = if self.alone.is_some() { fields(what) } else { annotations(what) };
        let nodes = if self.alone.is_some() { NODES } else { CORE_NODES };
        self.datastore.patch(&nodes, (None, node), None, &patch).await.map(drop)
    }
}

/// The Kubernetes beside an etcd.
async fn beside(settings: &Settings) -> Result<Option<Datastore>> {
    Ok(match settings.kubeconfig.as_deref() {
        Some(path) => Some(Datastore::connect(Some(path)).await?),
        None => None,
    })
}

/// A cluster that may keep Calico's kinds in the form that only its own programs read. It is waited for.
async fn of_cluster(cluster: &Datastore) -> Result<Datastore> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match remote::client_of_cluster(cluster.client()).await {
            Ok(client) => return Ok(Datastore::over(client)),
            Err(RemoteError::Unavailable(error)) => {
                tracing::warn!(error, "the cluster cannot be reached, trying again");
            }
            Err(error @ RemoteError::Throttled { .. }) => {
                tracing::warn!(%error, "the cluster has too much to do, trying again");
            }
            Err(error) => return Err(error.into()),
        }
        backoff.wait().await;
    }
}

fn annotations(what: &BTreeMap<&'static str, Option<String>>) -> Value {
    let named = what.iter().map(|(name, text)| (format!("projectcalico.org/{name}"), json!(text)));
    json!({"metadata": {"annotations": named.collect::<Map<_, _>>()}})
}

/// The same as fields of Calico's own Node; what has none is an annotation there, too.
fn fields(what: &BTreeMap<&'static str, Option<String>>) -> Value {
    let mut patch = json!({"metadata": {"annotations": {}}, "spec": {}});
    for (name, text) in what {
        let (spec, notes) = (["spec"].as_slice(), ["metadata", "annotations"].as_slice());
        let (place, field): (&[&str], &str) = match *name {
            "IPv4Address" => (&["spec", "bgp"], "ipv4Address"),
            "IPv6Address" => (&["spec", "bgp"], "ipv6Address"),
            "IPv4VXLANTunnelAddr" => (spec, "ipv4VXLANTunnelAddr"),
            "IPv6VXLANTunnelAddr" => (spec, "ipv6VXLANTunnelAddr"),
            other => (notes, other),
        };
        let at = place.iter().fold(&mut patch, |at, part| &mut at[*part]);
        let field =
            if place == notes { format!("projectcalico.org/{field}") } else { field.into() };
        at[field] = json!(text);
    }
    patch
}

/// As the start script of upstream's image does it, a variable without prefix wins over Felix's own.
fn parameter_of(settings: &Settings, parameter: Parameter) -> Option<String> {
    let variable = |parameter: Parameter| settings.variables.text(parameter.variable()?);
    let config::Config { datastore_type, etcd, .. } = &settings.felix;
    parameter.in_order(variable, |parameter| match parameter {
        Parameter::DatastoreType => datastore_type.clone(),
        Parameter::Endpoints => etcd.endpoints.clone(),
        Parameter::CaCertFile => etcd.ca_file.clone(),
        Parameter::CertFile => etcd.cert_file.clone(),
        Parameter::KeyFile => etcd.key_file.clone(),
        Parameter::Username
        | Parameter::Password
        | Parameter::PasswordFile
        | Parameter::CaCert
        | Parameter::Cert
        | Parameter::Key => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_node() {
        let what = [
            ("IPv4Address", Some("10.0.0.1/24".to_owned())),
            ("IPv6VXLANTunnelAddr", None),
            ("agent", Some("x".to_owned())),
        ];
        let what = what.into();
        assert_eq!(
            annotations(&what),
            json!({"metadata": {"annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24",
                "projectcalico.org/IPv6VXLANTunnelAddr": null, "projectcalico.org/agent": "x"}}})
        );
        assert_eq!(
            fields(&what),
            json!({"metadata": {"annotations": {"projectcalico.org/agent": "x"}},
                "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}, "ipv6VXLANTunnelAddr": null}})
        );
    }
}
