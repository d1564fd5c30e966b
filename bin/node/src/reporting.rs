//! What other programs read about this agent in etcd: that it lives, and which endpoints are up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use api::convert::EndpointName;
use datastore::Backoff;
use jiff::Timestamp;
use model::WorkloadId;
use remote::{ReportedEndpoint, Reports};
use tokio::sync::watch;

use crate::felix::Configuration;
use crate::place::Place;
use crate::pods::Pods;
use crate::settings::Settings;
use crate::status::Shared;

/// After failures the pause grows up to this, or to the interval if that is shorter.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How it is to be reported from now on.
pub(crate) type Terms = watch::Sender<config::Reporting>;

/// Begins to report, where there is somewhere to report to.
///
/// # Errors
/// Of how etcd is to be reached.
pub(crate) async fn spawn(
    settings: &Settings,
    place: &Place,
    configured: &Configuration,
    pods: &Arc<Pods>,
) -> Result<Terms> {
    let terms = watch::Sender::new(configured.felix.config.reporting.clone());
    let region = terms.borrow().region.clone();
    let Some(reports) = place.reports(&region, &settings.node).await? else { return Ok(terms) };
    let reports = Arc::new(reports);
    tokio::spawn(live(reports.clone(), terms.subscribe(), pods.listed.subscribe()));
    let (shared, known) = (pods.shared.clone(), BTreeSet::new());
    let reporter = Reporter { reports, terms: terms.subscribe(), shared, known };
    tokio::spawn(reporter.run());
    Ok(terms)
}

/// That the agent lives, again and again, from when it knows the cluster.
async fn live(
    reports: Arc<Reports>,
    mut terms: watch::Receiver<config::Reporting>,
    mut listed: watch::Receiver<bool>,
) {
    let started = Instant::now();
    // The sender lives as long as the agent.
    let _ = listed.wait_for(|listed| *listed).await;
    let mut first = true;
    let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
    loop {
        let (interval, ttl) = {
            let terms = terms.borrow_and_update();
            (terms.interval, terms.ttl)
        };
        let Some(interval) = interval else {
            if terms.changed().await.is_err() {
                return;
            }
            continue;
        };
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let pause = match reports.lives(&now, started.elapsed(), first, ttl).await {
            Ok(()) => {
                first = false;
                backoff.reset();
                interval
            }
            Err(error) => {
                tracing::warn!(%error, "the report that this agent lives was not written");
                backoff.next_wait().min(interval)
            }
        };
        // What changes meanwhile holds at once.
        if let Ok(Err(_)) = tokio::time::timeout(pause, terms.changed()).await {
            return;
        }
    }
}

/// Which endpoints are up.
struct Reporter {
    reports: Arc<Reports>,
    terms: watch::Receiver<config::Reporting>,
    shared: Arc<Shared>,
    /// What etcd has.
    known: BTreeSet<ReportedEndpoint>,
}

impl Reporter {
    /// Whenever it is wanted, until the agent ends.
    async fn run(mut self) {
        if !self.wanted().await {
            return;
        }
        let mut in_force = self.shared.report_endpoints();
        let mut backoff = Backoff::default();
        // What an agent before us reported.
        loop {
            match self.reports.endpoints().await {
                Ok(found) => break self.known = found.into_iter().collect(),
                Err(error) => tracing::warn!(%error, "reports of endpoints cannot be read"),
            }
            backoff.wait().await;
        }
        while self.wanted().await && in_force.changed().await.is_ok() {
            let delay = self.terms.borrow().endpoints_after;
            let Some(delay) = delay else {
                in_force.mark_changed(); // for when it is wanted again
                continue;
            };
            // Changes come in groups.
            tokio::time::sleep(delay).await;
            while let Err(error) = self.follow(&mut in_force).await {
                tracing::warn!(%error, "reports of endpoints were not written");
                backoff.wait().await;
            }
            backoff.reset();
        }
    }

    /// Returns when it is wanted; false if it never will be any more.
    async fn wanted(&mut self) -> bool {
        self.terms.wait_for(|terms| terms.endpoints_after.is_some()).await.is_ok()
    }

    async fn follow(
        &mut self,
        in_force: &mut watch::Receiver<BTreeSet<WorkloadId>>,
    ) -> Result<(), remote::RemoteError> {
        let wanted: BTreeSet<ReportedEndpoint> =
            in_force.borrow_and_update().iter().filter_map(reported).collect();
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
