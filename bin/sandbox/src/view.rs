//! The cluster as the API has it, in the words of the specification: what the demo asks about.

use std::sync::Arc;

use anyhow::{Context, Result};
use api::v3;
use config::{HostAction, Sources};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client};
use model::Action;
use policy::{Failsafe, NodeView, Overlay, View};
use serde::de::DeserializeOwned;

use crate::client;
use crate::state::{Encap, Spec};

/// Reads everything that decides about packets.
pub(crate) async fn read(client: &Client, spec: &Spec) -> Result<View> {
    let mut view = View {
        overlay: if spec.encap == Encap::Vxlan { Overlay::Tunnelled } else { Overlay::Routed },
        ..View::default()
    };
    endpoints(client, &mut view).await?;
    policies(client, &mut view).await?;
    for (i, name) in spec.node_names().iter().enumerate() {
        let addresses = spec.node_addresses(u8::try_from(i)?);
        let interfaces = vec![("eth0".parse()?, addresses)];
        view.nodes.insert(name.as_str().into(), NodeView { interfaces });
    }
    let felix = objects::<v3::felix::FelixConfiguration>(client, "FelixConfiguration").await?;
    settings(&mut view, felix);
    Ok(view)
}

async fn endpoints(client: &Client, view: &mut View) -> Result<()> {
    let all = ListParams::default();
    for pod in &Api::<Pod>::all(client.clone()).list(&all).await?.items {
        if let Some(w) = api::convert::pod(pod, "cali").map_err(anyhow::Error::from)? {
            view.workloads.insert(w.id.clone(), Arc::new(w));
        }
    }
    for namespace in &Api::<Namespace>::all(client.clone()).list(&all).await?.items {
        let (name, profile) = api::convert::namespace_profile(namespace);
        view.profiles.insert(name, Arc::new(profile));
    }
    for account in &Api::<ServiceAccount>::all(client.clone()).list(&all).await?.items {
        let (name, profile) = api::convert::service_account_profile(account);
        view.profiles.insert(name, Arc::new(profile));
    }
    for hep in objects::<v3::endpoint::HostEndpoint>(client, "HostEndpoint").await? {
        let hep = api::convert::host_endpoint(&hep).map_err(anyhow::Error::from)?.value;
        view.hosts.insert(hep.name.clone(), Arc::new(hep));
    }
    for set in objects::<v3::endpoint::GlobalNetworkSet>(client, "GlobalNetworkSet").await? {
        let (id, set) = api::convert::global_network_set(&set);
        view.network_sets.insert(id, Arc::new(set.value));
    }
    for set in objects::<v3::endpoint::NetworkSet>(client, "NetworkSet").await? {
        let (id, set) = api::convert::network_set(&set);
        view.network_sets.insert(id, Arc::new(set.value));
    }
    Ok(())
}

async fn policies(client: &Client, view: &mut View) -> Result<()> {
    let mut found = Vec::new();
    for p in objects::<v3::policy::GlobalNetworkPolicy>(client, "GlobalNetworkPolicy").await? {
        found.push(api::convert::global_network_policy(&p).map_err(anyhow::Error::from)?.value);
    }
    for p in objects::<v3::policy::NetworkPolicy>(client, "NetworkPolicy").await? {
        found.push(api::convert::network_policy(&p).map_err(anyhow::Error::from)?.value);
    }
    let kubernetes = Api::<NetworkPolicy>::all(client.clone()).list(&ListParams::default()).await?;
    for p in &kubernetes.items {
        found.push(api::convert::kubernetes_network_policy(p).map_err(anyhow::Error::from)?.value);
    }
    view.policies = found.into_iter().map(|p| (p.id.clone(), Arc::new(p))).collect();
    for tier in objects::<v3::policy::Tier>(client, "Tier").await? {
        let tier = api::convert::tier(&tier);
        view.tiers.insert(tier.name.clone(), tier);
    }
    Ok(())
}

/// The agents' settings as the `default` resource and the supervisor's environment have them.
fn settings(view: &mut View, felix: Vec<v3::felix::FelixConfiguration>) {
    let environment = [("FELIX_DEFAULTENDPOINTTOHOSTACTION".to_owned(), "ACCEPT".to_owned())];
    let sources =
        Sources { environment: environment.to_vec(), resources: felix, ..Sources::default() };
    let config = config::resolve(&sources).config;
    let failsafe =
        |p: &config::ProtoPort| Failsafe { protocol: p.protocol, port: p.port, net: p.net };
    view.failsafe_inbound = config.failsafe_inbound.iter().map(failsafe).collect();
    view.failsafe_outbound = config.failsafe_outbound.iter().map(failsafe).collect();
    view.endpoint_to_host = match config.endpoint_to_host {
        HostAction::Drop => Action::Deny,
        HostAction::Return => Action::Pass,
        HostAction::Accept => Action::Allow,
    };
}

/// All objects of a kind of ours, typed.
async fn objects<T: DeserializeOwned>(client: &Client, kind: &str) -> Result<Vec<T>> {
    let kind = api::kinds().iter().find(|k| k.kind == kind && k.group == "projectcalico.org");
    let kind = kind.context("a kind of ours")?;
    let list = client::dynamic(client, kind).list(&ListParams::default()).await?;
    let typed = list.items.into_iter().map(|o| {
        let mut value = serde_json::to_value(o)?;
        value["apiVersion"] = format!("{}/{}", kind.group, kind.version).into();
        value["kind"] = kind.kind.into();
        Ok(serde_json::from_value(value)?)
    });
    typed.collect()
}
