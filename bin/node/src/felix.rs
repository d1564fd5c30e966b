//! The settings of `FelixConfiguration`, `FELIX_*` and the configuration file, settled.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use api::v3::FelixConfiguration;
use config::{Config, LogLevel, Problem, Resolved, Source, Sources, resolve};
use datastore::{Backoff, Error, Resource};
use serde_json::{Value, json};
use telemetry::Logs;

use crate::place::Place;
use crate::pods::Pods;
use crate::policies::CutFlows;
use crate::settings::Settings;

const FELIX: Resource = Resource::calico("felixconfigurations", "FelixConfiguration");

/// How long changes are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// What is configured.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub(crate) felix: Resolved,
    pub(crate) cut_flows: CutFlows,
}

impl Configuration {
    /// What the agent must not run with.
    fn fatal(&self) -> Option<&Problem> {
        self.felix.problems.iter().find(|problem| problem.fatal)
    }

    /// Whether an agent that runs with it would have to start again for `other`: what is logged changes
    /// at once.
    fn starts_as(&self, other: &Self) -> bool {
        let same_logs =
            Config { log_level: self.felix.config.log_level, ..other.felix.config.clone() };
        same_logs == self.felix.config && self.cut_flows == other.cut_flows
    }

    /// The parameters whose value or source `other` has otherwise.
    fn differing(&self, other: &Self) -> String {
        let values = other.felix.values.iter();
        let differ = values.filter(|(name, value)| self.felix.values.get(*name) != Some(value));
        let mut names: Vec<_> = differ.map(|(name, _)| *name).collect();
        names.extend((self.cut_flows != other.cut_flows).then_some("cut-flows"));
        names.join(", ")
    }

    /// Logs as configured; where nothing says how, as before.
    pub(crate) fn log(&self, logs: &Logs) {
        let level = self.felix.values.get("LogSeverityScreen");
        if level.is_none_or(|(_, source)| *source == Source::BuiltIn) {
            return;
        }
        let filter = match self.felix.config.log_level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warn",
            LogLevel::Error | LogLevel::Fatal => "error",
        };
        if let Err(error) = logs.set(filter) {
            tracing::warn!(%error, "logging as before");
        }
    }

    /// The document of `calicoctl node config`.
    pub(crate) fn document(&self) -> Value {
        let parameters = self.felix.values.iter().map(|(name, (value, source))| {
            let given = *source != Source::BuiltIn;
            let (value, source) = (value.to_string(), source.to_string());
            json!({ "name": name, "value": value, "source": source, "given": given })
        });
        let problems = self.felix.problems.iter().map(|problem| {
            let Problem { name, source, message, .. } = problem;
            json!({ "name": name, "source": source.to_string(), "message": message })
        });
        json!({
            "parameters": parameters.collect::<Vec<_>>(),
            "problems": problems.collect::<Vec<_>>(),
        })
    }
}

/// What the environment and the file say, before the datastore is asked.
pub(crate) fn local(settings: &Settings) -> Resolved {
    let environment = std::env::vars().collect();
    let file = settings.felix_file.clone();
    resolve(&Sources { environment, file, ..Sources::default() })
}

/// Waits until the datastore has answered: without its word nothing may be programmed.
///
/// # Errors
/// A value is bad that the agent must not run with.
pub(crate) async fn load(settings: &Settings, place: &Place) -> anyhow::Result<Configuration> {
    let configuration = ask(settings, place).await;
    if let Some(Problem { name, source, message, .. }) = configuration.fatal() {
        bail!("{name} (from: {source}) must not be wrong: {message}");
    }
    Ok(configuration)
}

async fn ask(settings: &Settings, place: &Place) -> Configuration {
    let mut backoff = Backoff::default();
    loop {
        match read(settings, place).await {
            Ok(configuration) => {
                for Problem { name, source, message, .. } in &configuration.felix.problems {
                    tracing::warn!(name, error = message, %source, "bad setting left out");
                }
                return configuration;
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

async fn read(settings: &Settings, place: &Place) -> Result<Configuration, Error> {
    let resources = match place.datastore.list_all::<FelixConfiguration>(&FELIX).await {
        Err(Error::NotFound(_)) => Vec::new(), // a cluster without the kind
        other => other?,
    };
    let node = place.node(&settings.node).await?;
    let labels = node.and_then(|n| n.view.metadata.labels).unwrap_or_default();
    let labels = labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
    let cut_flows = cut_flows(settings, &resources);
    let felix = resolve(&Sources {
        environment: std::env::vars().collect(),
        file: settings.felix_file.clone(),
        resources,
        node: settings.node.clone(),
        labels: Arc::new(labels.collect()),
        ..Sources::default()
    });
    Ok(Configuration { felix, cut_flows })
}

/// Ends when what is in force is no longer what is configured: the drivers take their settings when
/// they start, so the agent must start again. A value that the agent could not start with is told and
/// not taken: a mistake in one object must not end the agents of all nodes.
pub(crate) async fn changed(
    settings: Arc<Settings>,
    place: Arc<Place>,
    pods: Arc<Pods>,
    logs: Logs,
    mut in_force: Configuration,
) {
    let mut changed = pods.configuration.subscribe();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        changed.mark_unchanged();
        let now = ask(&settings, &place).await;
        if let Some(Problem { name, source, message, .. }) = now.fatal() {
            tracing::error!(name, error = message, %source, "all stays as it was configured before");
            continue;
        }
        if !in_force.starts_as(&now) {
            let settings = in_force.differing(&now);
            tracing::warn!(settings, "changed: starting again with them");
            return;
        }
        now.log(&logs);
        pods.shared.configured(&now);
        in_force = now;
    }
    std::future::pending::<()>().await;
}
