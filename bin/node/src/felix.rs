//! The settings of `FelixConfiguration` and `FELIX_*`, settled.

use std::sync::Arc;
use std::time::Duration;

use api::v3::FelixConfiguration;
use config::{Resolved, Sources, resolve};
use datastore::{Backoff, Datastore, Error, Resource};
use k8s_openapi::api::core::v1::Node;

use crate::pods::Pods;
use crate::settings::Settings;

const FELIX: Resource = Resource::calico("felixconfigurations", "FelixConfiguration");
const NODES: Resource = Resource::core("nodes", "Node");

/// How long changes are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// Until the datastore has answered. Without its word nothing may be programmed.
pub(crate) async fn load(settings: &Settings, datastore: &Datastore) -> Resolved {
    let mut backoff = Backoff::default();
    loop {
        match read(settings, datastore).await {
            Ok(resolved) => {
                for problem in &resolved.problems {
                    let (name, error) = (&problem.name, &problem.message);
                    tracing::warn!(name, error, source = ?problem.source, "bad setting left out");
                }
                return resolved;
            }
            Err(error) => {
                tracing::warn!(%error, "reading the configuration failed, trying again");
                backoff.wait().await;
            }
        }
    }
}

async fn read(settings: &Settings, datastore: &Datastore) -> Result<Resolved, Error> {
    let resources = match datastore.list_all::<FelixConfiguration>(&FELIX).await {
        Err(Error::NotFound(_)) => Vec::new(), // a cluster without the kind
        other => other?,
    };
    let node: Option<Node> = datastore.get(&NODES, None, &settings.node).await?;
    let labels = node.and_then(|n| n.metadata.labels).unwrap_or_default();
    let labels = labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
    Ok(resolve(&Sources {
        environment: std::env::vars().collect(),
        resources,
        node: settings.node.clone(),
        labels: Arc::new(labels.collect()),
        ..Sources::default()
    }))
}

/// Ends when what is in force is no longer what is configured: the drivers take their settings when
/// they start, so the agent must start again.
pub(crate) async fn changed(
    settings: Arc<Settings>,
    datastore: Datastore,
    pods: Arc<Pods>,
    in_force: Resolved,
) {
    let mut changed = pods.configuration.subscribe();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        changed.mark_unchanged();
        let now = load(&settings, &datastore).await;
        if now.config != in_force.config {
            let differ = now.values.iter().filter(|(k, v)| in_force.values.get(*k) != Some(v));
            let names: Vec<_> = differ.map(|(k, _)| *k).collect();
            tracing::warn!(settings = names.join(", "), "changed: starting again with them");
            return;
        }
    }
    std::future::pending::<()>().await;
}
