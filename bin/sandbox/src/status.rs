//! `calico sandbox status` and `logs`.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::client;
use crate::print::{Output, say};
use crate::state::State;

/// Normative: the output format of `status -o json`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) pods: Vec<PodStatus>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    pub(crate) ready: bool,
    pub(crate) address: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct PodStatus {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) ip: Vec<String>,
    pub(crate) ready: bool,
}

/// Reads it from the API.
pub(crate) async fn read(client: &Client) -> Result<Status> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    Ok(Status {
        nodes: nodes.items.iter().map(node).collect(),
        pods: pods.items.iter().map(pod).collect(),
    })
}

fn node(node: &Node) -> NodeStatus {
    let status = node.status.clone().unwrap_or_default();
    let ready =
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let addresses = status.addresses.iter().flatten();
    let internal = addresses.filter(|a| a.type_ == "InternalIP").map(|a| a.address.clone()).next();
    NodeStatus { name: node.name_any(), ready, address: internal.unwrap_or_default() }
}

fn pod(pod: &Pod) -> PodStatus {
    let status = pod.status.clone().unwrap_or_default();
    let ready =
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    PodStatus {
        name: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
        ip: status.pod_ips.into_iter().flatten().map(|i| i.ip).collect(),
        ready,
    }
}

/// `calico sandbox status`.
pub(crate) fn print(state: &State, output: Output) -> Result<()> {
    state.load()?;
    let status = client::runtime()?.block_on(async {
        let client = client::connect(&state.kubeconfig()).await?;
        read(&client).await.context("the API does not answer")
    })?;
    if output == Output::Json {
        say(&serde_json::to_string(&status)?);
        return Ok(());
    }
    let yes = |b: bool| if b { "yes" } else { "no" };
    say(&format!("{:<40} {:<6} ADDRESS", "NODE", "READY"));
    for n in &status.nodes {
        say(&format!("{:<40} {:<6} {}", n.name, yes(n.ready), n.address));
    }
    say(&format!("\n{:<40} {:<6} {:<16} ADDRESS", "POD", "READY", "NODE"));
    for p in &status.pods {
        say(&format!("{:<40} {:<6} {:<16} {}", p.name, yes(p.ready), p.node, p.ip.join(" ")));
    }
    Ok(())
}

/// `calico sandbox logs NODE`.
pub(crate) fn logs(state: &State, node: &str) -> Result<()> {
    let nodes = state.load()?.node_names();
    if !nodes.iter().any(|n| n == node) {
        bail!("no node {node:?}: there are {}", nodes.join(", "));
    }
    let mut log =
        std::fs::File::open(state.log(node)).context("the agent has logged nothing yet")?;
    // A reader that goes away early is no error.
    drop(std::io::copy(&mut log, &mut std::io::stdout().lock()));
    Ok(())
}
