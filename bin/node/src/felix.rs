//! The settings of `FelixConfiguration`, `FELIX_*` and the configuration file, settled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use api::v3::FelixConfiguration;
use config::{Component, Config, LogLevel, Problem, Resolved, Settled, Source, Sources, resolve};
use datastore::{Backoff, Error, Resource};
use serde_json::{Value, json};
use telemetry::{Health, Logs};

use crate::inbox::Inbox;
use crate::place::Place;
use crate::pods::Pods;
use crate::policies::CutFlows;
use crate::reporting::Terms;
use crate::serve::Serving;
use crate::settings::Settings;

const FELIX: Resource = Resource::calico("felixconfigurations", "FelixConfiguration");

/// How long changes are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// What is configured.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub(crate) felix: Resolved,
    pub(crate) cut_flows: CutFlows,
    /// What the environment says of this process.
    variables: Settled,
}

impl Configuration {
    /// What the agent must not run with.
    fn fatal(&self) -> Option<&Problem> {
        self.felix.problems.iter().find(|problem| problem.fatal)
    }

    /// The parameters that an agent which runs with this can only take by starting again for `other`.
    fn restarts(&self, other: &Self) -> String {
        self.felix.restarts(&other.felix).join(", ")
    }

    /// The parameters whose value or source `other` has otherwise.
    fn differing(&self, other: &Self) -> String {
        let mut names = self.felix.differing(&other.felix);
        names.extend((self.cut_flows != other.cut_flows).then_some("cut-flows"));
        names.join(", ")
    }

    /// The document of `calicoctl node config`.
    pub(crate) fn document(&self) -> Value {
        let felix = (Component::Felix, &self.felix.values, &self.felix.problems);
        let node = (Component::Node, &self.variables.values, &self.variables.problems);
        let (mut rows, mut told) = (Vec::new(), Vec::new());
        for (component, values, problems) in [felix, node] {
            rows.extend(values.iter().map(|(name, (value, source))| {
                let given = *source != Source::BuiltIn;
                let (value, source) = (value.to_string(), source.to_string());
                let component = component.name();
                json!({ "component": component, "name": name, "value": value, "source": source,
                    "given": given })
            }));
            told.extend(problems.iter().map(|problem| {
                let Problem { name, source, message, .. } = problem;
                json!({ "component": component.name(), "name": name, "source": source.to_string(),
                    "message": message })
            }));
        }
        json!({ "parameters": rows, "problems": told })
    }
}

/// The filter of log lines: for the level that is configured, or else this one.
pub(crate) fn filter(level: Option<LogLevel>, otherwise: &str) -> &str {
    match level {
        Some(LogLevel::Debug) => "debug",
        Some(LogLevel::Info) => "info",
        Some(LogLevel::Warning) => "warn",
        Some(LogLevel::Error | LogLevel::Fatal) => "error",
        None => otherwise,
    }
}

/// What the environment and the file say, before the datastore is asked.
pub(crate) fn local(environment: &[(String, String)], file: &str) -> Config {
    let (environment, file) = (environment.to_vec(), file.to_owned());
    resolve(&Sources { environment, file, ..Sources::default() }).config
}

/// The parts of a running agent that take another configuration. What each of them is set to is what
/// a new start would set it to.
pub(crate) struct Followers {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) logs: Logs,
    pub(crate) reporters: Health,
    pub(crate) health: Serving,
    pub(crate) metrics: Serving,
    pub(crate) reporting: Terms,
}

impl Followers {
    /// Logs are as configured; where nothing says how, as the agent started.
    pub(crate) fn log(logs: &Logs, settings: &Settings, configuration: &Configuration) {
        let Config { log_level, log_file, .. } = &configuration.felix.config;
        let done = logs.set(filter(*log_level, &settings.log_filter));
        let done = done.and_then(|()| logs.file(log_file.as_deref().map(Path::new)));
        if let Err(error) = done {
            tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "logging as before");
        }
    }

    async fn take(&mut self, settings: &Settings, configuration: &Arc<Configuration>) {
        Self::log(&self.logs, settings, configuration);
        let config = &configuration.felix.config;
        self.reporters.set_timeouts(&config.health_timeouts);
        self.reporting.send_replace(config.reporting.clone());
        self.health.follow(config.health.as_ref()).await;
        self.metrics.follow(config.metrics.as_ref()).await;
        self.inbox.configure(configuration.clone());
    }
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

/// Bad settings.
pub(crate) fn tell(problems: &[Problem]) {
    for Problem { name, source, message, .. } in problems {
        tracing::warn!(name, error = message, %source, "bad setting left out");
    }
}

async fn ask(settings: &Settings, place: &Place) -> Configuration {
    let mut backoff = Backoff::default();
    loop {
        match read(settings, place).await {
            Ok(configuration) => {
                tell(&configuration.felix.problems);
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
        environment: settings.environment.clone(),
        file: settings.felix_file.clone(),
        resources,
        node: settings.node.clone(),
        labels: Arc::new(labels.collect()),
        ..Sources::default()
    });
    Ok(Configuration { felix, cut_flows, variables: settings.variables.clone() })
}

/// Lets the agent follow what is configured. Ends when that takes a new start: some parts take their
/// settings only when they are made. A value that the agent could not start with is told and not taken:
/// a mistake in one object must not end the agents of all nodes.
pub(crate) async fn changed(
    settings: Arc<Settings>,
    place: Arc<Place>,
    pods: Arc<Pods>,
    mut followers: Followers,
    mut in_force: Arc<Configuration>,
) {
    let mut changed = pods.configuration.subscribe();
    while changed.changed().await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        changed.mark_unchanged();
        let mut now = ask(&settings, &place).await;
        if let Some(Problem { name, source, message, .. }) = now.fatal() {
            tracing::error!(name, error = message, %source, "all stays as it was configured before");
            continue;
        }
        let restarts = in_force.restarts(&now);
        if !restarts.is_empty() {
            tracing::warn!(settings = restarts, "changed: starting again with them");
            return;
        }
        let differing = in_force.differing(&now);
        if differing.is_empty() {
            continue;
        }
        tracing::info!(settings = differing, "changed");
        // That they begin as configured, and as pods that are there, was found out at the start.
        now.felix.config.interface_prefixes.clone_from(&in_force.felix.config.interface_prefixes);
        in_force = Arc::new(now);
        followers.take(&settings, &in_force).await;
    }
    std::future::pending::<()>().await;
}
