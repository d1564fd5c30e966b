//! The settings of `FelixConfiguration` and `FELIX_*`, settled.

use std::sync::Arc;
use std::time::Duration;

use api::v3::FelixConfiguration;
use config::{Resolved, Sources, resolve};
use datastore::{Backoff, Datastore, Error, Resource};
use k8s_openapi::api::core::v1::Node;

use crate::pods::Pods;
use crate::policies::CutFlows;
use crate::settings::Settings;

const FELIX: Resource = Resource::calico("felixconfigurations", "FelixConfiguration");
const NODES: Resource = Resource::core("nodes", "Node");

/// How long changes are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// Until the datastore has answered. Without its word nothing may be programmed.
pub(crate) async fn load(settings: &Settings, datastore: &Datastore) -> (Resolved, CutFlows) {
    let mut backoff = Backoff::default();
    loop {
        match read(settings, datastore).await {
            Ok((resolved, cut_flows)) => {
                for problem in &resolved.problems {
                    let (name, error) = (&problem.name, &problem.message);
                    tracing::warn!(name, error, source = ?problem.source, "bad setting left out");
                }
                return (resolved, cut_flows);
            }
            Err(error) => {
                tracing::warn!(%error, "reading the configuration failed, trying again");
                backoff.wait().await;
            }
        }
    }
}

/// Upstream has no such field: `CALICO_CUT_FLOWS`, or the annotation `projectcalico.org/cut-flows` of
/// the FelixConfiguration of this node or of all. A bad value is left out.
fn cut_flows(settings: &Settings, resources: &[FelixConfiguration]) -> CutFlows {
    let own = format!("node.{}", settings.node);
    let noted = |name: &str| {
        let it = resources.iter().find(|r| r.metadata.name.as_deref() == Some(name))?;
        it.metadata.annotations.as_ref()?.get("projectcalico.org/cut-flows").cloned()
    };
    let given = [settings.cut_flows.clone(), noted(&own), noted("default")];
    let parse = |text: String| {
        let parsed = text.parse();
        parsed.inspect_err(|error| tracing::warn!(error, "bad setting left out: cut-flows")).ok()
    };
    given.into_iter().flatten().find_map(parse).unwrap_or_default()
}

async fn read(settings: &Settings, datastore: &Datastore) -> Result<(Resolved, CutFlows), Error> {
    let resources = match datastore.list_all::<FelixConfiguration>(&FELIX).await {
        Err(Error::NotFound(_)) => Vec::new(), // a cluster without the kind
        other => other?,
    };
    let node: Option<Node> = datastore.get(&NODES, None, &settings.node).await?;
    let labels = node.and_then(|n| n.metadata.labels).unwrap_or_default();
    let labels = labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
    let cut_flows = cut_flows(settings, &resources);
    let resolved = resolve(&Sources {
        environment: std::env::vars().collect(),
        resources,
        node: settings.node.clone(),
        labels: Arc::new(labels.collect()),
        ..Sources::default()
    });
    Ok((resolved, cut_flows))
}

/// Ends when what is in force is no longer what is configured: the drivers take their settings when
/// they start, so the agent must start again.
pub(crate) async fn changed(
    settings: Arc<Settings>,
    datastore: Datastore,
    pods: Arc<Pods>,
    (in_force, cut_flows): (Resolved, CutFlows),
) {
    let mut changed = pods.configuration.subscribe();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        changed.mark_unchanged();
        let (now, cut_flows_now) = load(&settings, &datastore).await;
        if cut_flows_now != cut_flows {
            tracing::warn!(?cut_flows_now, "changed: starting again with it");
            return;
        }
        if now.config != in_force.config {
            let differ = now.values.iter().filter(|(k, v)| in_force.values.get(*k) != Some(v));
            let names: Vec<_> = differ.map(|(k, _)| *k).collect();
            tracing::warn!(settings = names.join(", "), "changed: starting again with them");
            return;
        }
    }
    std::future::pending::<()>().await;
}
