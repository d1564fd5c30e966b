//! The cluster as the API has it, in the words of the specification: what the demo asks about.

use anyhow::{Context, Result};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use policy::{NodeView, Overlay, View};

use crate::client;
use crate::state::{Encap, Spec};

/// Kinds of Kubernetes that decide about packets: group, version, kind.
const KUBERNETES: [(&str, &str, &str); 6] = [
    ("", "v1", "Pod"),
    ("", "v1", "Namespace"),
    ("", "v1", "ServiceAccount"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy"),
];
/// Ours.
const OURS: [&str; 8] = [
    "HostEndpoint",
    "GlobalNetworkSet",
    "NetworkSet",
    "GlobalNetworkPolicy",
    "NetworkPolicy",
    "Tier",
    "Profile",
    "FelixConfiguration",
];

/// Reads everything that decides about packets; what nodes look like, the sandbox knows itself.
pub(crate) async fn read(client: &Client, spec: &Spec) -> Result<View> {
    let mut cluster = explain::Cluster::default();
    cluster.environment.push(("FELIX_DEFAULTENDPOINTTOHOSTACTION".into(), "ACCEPT".into()));
    for (group, version, kind) in KUBERNETES {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api = Api::all_with(client.clone(), &kind);
        take(&mut cluster, &kind.api_version, &kind.kind, api).await?;
    }
    for name in OURS {
        let kind = api::lookup("projectcalico.org/v3", name).context("a kind of ours")?;
        let api = client::dynamic(client, kind);
        take(&mut cluster, &kind.api_version(), kind.kind, api).await?;
    }
    let mut view = cluster.view();
    view.overlay = if spec.encap == Encap::Vxlan { Overlay::Tunnelled } else { Overlay::Routed };
    for (i, name) in spec.node_names().iter().enumerate() {
        let addresses = spec.node_addresses(u8::try_from(i)?);
        let interfaces = vec![("eth0".parse()?, addresses)];
        view.nodes.insert(name.as_str().into(), NodeView { interfaces });
    }
    Ok(view)
}

async fn take(
    cluster: &mut explain::Cluster,
    api_version: &str,
    kind: &str,
    api: Api<DynamicObject>,
) -> Result<()> {
    for object in api.list(&ListParams::default()).await?.items {
        let mut value = serde_json::to_value(object)?;
        value["apiVersion"] = api_version.into();
        value["kind"] = kind.into();
        // What agents take for absent is absent here.
        if let Err(errors) = cluster.add_stored(value) {
            tracing::warn!(kind, ?errors, "an object is left out");
        }
    }
    Ok(())
}
