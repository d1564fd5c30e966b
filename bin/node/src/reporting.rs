//! What other programs read about this agent in etcd: that it lives, and which endpoints are up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use api::convert::EndpointName;
use config::Setting;
use datastore::Backoff;
use jiff::Timestamp;
use model::WorkloadId;
use remote::{ReportedEndpoint, Reports};
use tokio::sync::watch;

use crate::felix::Configuration;
use crate::place::Place;
use crate::pods::Pods;
use crate::settings::Settings;

/// How often, and for how long each time.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    interval: Duration,
    ttl: Duration,
}

/// Begins to report, where there is somewhere to report to.
///
/// # Errors
/// Of how etcd is to be reached.
pub(crate) async fn spawn(
    settings: &Settings,
    place: &Place,
    configured: &Configuration,
    pods: &Arc<Pods>,
) -> Result<()> {
    let region = match setting(configured, "OpenstackRegion") {
        Some(Setting::Text(region)) => region.as_str(),
        _ => "",
    };
    let Some(reports) = place.reports(region, &settings.node).await? else { return Ok(()) };
    let reports = Arc::new(reports);
    let interval = time(configured, "ReportingInterval");
    // Zero means never.
    if !interval.is_zero() {
        let rhythm = Rhythm { interval, ttl: time(configured, "ReportingTTL") };
        tokio::spawn(live(reports.clone(), rhythm, pods.listed.subscribe()));
    }
    if setting(configured, "EndpointReportingEnabled") == Some(&Setting::Bool(true)) {
        let delay = time(configured, "EndpointReportingDelay");
        let in_force = pods.shared.report_endpoints();
        tokio::spawn(async move {
            let mut reporter = Reporter { reports, in_force, known: BTreeSet::new() };
            reporter.run(delay).await;
        });
    }
    Ok(())
}

fn setting<'a>(configured: &'a Configuration, name: &str) -> Option<&'a Setting> {
    configured.felix.values.get(name).map(|(value, _)| value)
}

fn time(configured: &Configuration, name: &str) -> Duration {
    match setting(configured, name) {
        Some(Setting::Time(time)) => *time,
        _ => Duration::ZERO,
    }
}

/// That the agent lives, again and again, from when it knows the cluster.
async fn live(reports: Arc<Reports>, rhythm: Rhythm, mut listed: watch::Receiver<bool>) {
    let started = Instant::now();
    // The sender lives as long as the agent.
    let _ = listed.wait_for(|listed| *listed).await;
    let mut first = true;
    let mut backoff = Backoff::new(Duration::from_secs(1), rhythm.interval);
    loop {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        match reports.lives(&now, started.elapsed(), first, rhythm.ttl).await {
            Ok(()) => {
                first = false;
                backoff.reset();
                tokio::time::sleep(rhythm.interval).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the report that this agent lives was not written");
                backoff.wait().await;
            }
        }
    }
}

/// Which endpoints are up.
struct Reporter {
    reports: Arc<Reports>,
    in_force: watch::Receiver<BTreeSet<WorkloadId>>,
    /// What etcd has.
    known: BTreeSet<ReportedEndpoint>,
}

impl Reporter {
    async fn run(&mut self, delay: Duration) {
        let mut backoff = Backoff::default();
        // What an agent before us reported.
        loop {
            match self.reports.endpoints().await {
                Ok(found) => break self.known = found.into_iter().collect(),
                Err(error) => tracing::warn!(%error, "reports of endpoints cannot be read"),
            }
            backoff.wait().await;
        }
        while self.in_force.changed().await.is_ok() {
            // Changes come in groups.
            tokio::time::sleep(delay).await;
            while let Err(error) = self.follow().await {
                tracing::warn!(%error, "reports of endpoints were not written");
                backoff.wait().await;
            }
            backoff.reset();
        }
    }

    async fn follow(&mut self) -> Result<(), remote::RemoteError> {
        let wanted: BTreeSet<ReportedEndpoint> =
            self.in_force.borrow_and_update().iter().filter_map(reported).collect();
        let gone: Vec<_> = self.known.difference(&wanted).cloned().collect();
        for endpoint in gone {
            self.reports.endpoint(&endpoint, None).await?;
            self.known.remove(&endpoint);
        }
        for endpoint in wanted {
            if !self.known.contains(&endpoint) {
                self.reports.endpoint(&endpoint, Some("up")).await?;
                self.known.insert(endpoint);
            }
        }
        Ok(())
    }
}

fn reported(id: &WorkloadId) -> Option<ReportedEndpoint> {
    let name = EndpointName::parse(&id.name)?;
    Some(ReportedEndpoint {
        orchestrator: name.orchestrator,
        workload: format!("{}/{}", id.namespace, name.workload),
        endpoint: name.endpoint,
    })
}
