//! The one apply loop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use model::output::Output;
use model::{InSync, IpVersion, NodeName, WorkloadEndpoint, WorkloadId};

use crate::drivers::{Connections, DriverError, Network, Policies, Refused};
use crate::hosts::HostManager;
use crate::metrics::Metrics;
use crate::mtu;
use crate::routes::RouteManager;
use crate::tunnels::{TunnelConfig, TunnelManager};

/// What the dataplane must know that does not come from the calculation.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Tunnels.
    pub tunnels: TunnelConfig,
    /// Pause after the first failure; it doubles with every further one.
    pub retry_first: Duration,
    /// The longest pause.
    pub retry_most: Duration,
}

impl Config {
    /// Defaults for the node of that name.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            tunnels: TunnelConfig::default(),
            retry_first: Duration::from_millis(50),
            retry_most: Duration::from_secs(10),
        }
    }
}

/// A driver that has work left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which: `policies`, `network` or `connections`.
    pub driver: &'static str,
    /// Why.
    pub error: String,
}

/// What an apply achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The policies of everything fed up to this generation (see [`Dataplane::feed`]) are in force.
    pub generation: u64,
    /// Something in the kernel was changed.
    pub changed: bool,
    /// Objects that are refused now; policy objects are in force in their fail-closed form.
    pub refused: Vec<Refused>,
    /// Drivers that have work left.
    pub failures: Vec<Failure>,
    /// When to call again at the latest, if something is left to do.
    pub retry_after: Option<Duration>,
}

/// A local pod as last fed.
#[derive(Debug)]
struct Workload {
    generation: u64,
    endpoint: Arc<WorkloadEndpoint>,
}

/// Managers and drivers.
#[derive(Debug)]
pub struct Dataplane<P, N, C> {
    config: Config,
    policies: P,
    network: N,
    connections: C,
    hosts: HostManager,
    routes: RouteManager,
    tunnels: TunnelManager,
    workloads: BTreeMap<WorkloadId, Workload>,
    /// Addresses with routes, by pod; follows `workloads` once policy is in force.
    routed: BTreeMap<WorkloadId, Arc<WorkloadEndpoint>>,
    /// Pods whose routes do not follow `workloads` yet.
    unrouted: BTreeSet<WorkloadId>,
    /// Addresses that pods gave up, whose connections are not forgotten yet.
    given_up: BTreeSet<IpAddr>,
    generation: u64,
    in_force: u64,
    interfaces_changed: bool,
    failed_in_a_row: u32,
    /// The network driver has refused objects that are worth another try.
    unfinished: bool,
    metrics: Metrics,
}

impl<P: Policies, N: Network, C: Connections> Dataplane<P, N, C> {
    /// A dataplane over three drivers. The kernel is not touched yet.
    pub fn new(config: Config, policies: P, network: N, connections: C) -> Self {
        let tunnels = TunnelManager::new(config.node.clone(), config.tunnels);
        Self {
            config,
            policies,
            network,
            connections,
            hosts: HostManager::default(),
            routes: RouteManager::default(),
            tunnels,
            workloads: BTreeMap::new(),
            routed: BTreeMap::new(),
            unrouted: BTreeSet::new(),
            given_up: BTreeSet::new(),
            generation: 0,
            in_force: 0,
            interfaces_changed: true,
            failed_in_a_row: 0,
            unfinished: false,
            metrics: Metrics::default(),
        }
    }

    /// Its metrics, to be registered.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The driver of sets and rules.
    pub fn policies(&self) -> &P {
        &self.policies
    }

    /// Other choices of the administrator, in memory only: tunnels are made so with the next apply, and
    /// so is what the caller says to the driver of sets and rules that it gets. Counts as fed: the
    /// generation is returned, too.
    pub fn configure(&mut self, tunnels: TunnelConfig) -> (u64, &mut P) {
        self.config.tunnels = tunnels;
        self.tunnels.configure(tunnels);
        self.generation += 1;
        (self.generation, &mut self.policies)
    }

    /// The driver of routes and tunnels.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Takes in what the calculation says; memory only (law 2). Returns the generation: once
    /// [`Applied::generation`] has reached it, these policies are in force.
    pub fn feed(&mut self, outputs: &[Output]) -> u64 {
        if outputs.is_empty() {
            return self.generation;
        }
        self.generation += 1;
        self.metrics.messages.inc_by(outputs.len() as i64);
        self.metrics.batch_size.observe(outputs.len() as f64);
        // Runs of what the policies driver takes as it is are passed on in one piece.
        let own = |o: &Output| matches!(o, Output::Host(_) | Output::HostGone(_));
        for run in outputs.chunk_by(|a, b| !own(a) && !own(b)) {
            match &run[0] {
                Output::Host(host) => self.hosts.want(&host.endpoint.name, Some(host)),
                Output::HostGone(name) => self.hosts.want(name, None),
                _ => {
                    self.policies.feed(run);
                    for output in run {
                        self.manage(output);
                    }
                    continue;
                }
            }
            let outputs = self.hosts.resolve(self.network.host_interfaces());
            self.policies.feed(&outputs);
        }
        self.generation
    }

    fn manage(&mut self, output: &Output) {
        match output {
            Output::Workload(local) => {
                let endpoint = local.endpoint.clone();
                let (id, generation) = (endpoint.id.clone(), self.generation);
                self.unrouted.insert(id.clone());
                self.workloads.insert(id, Workload { generation, endpoint });
            }
            Output::WorkloadGone(id) => {
                self.unrouted.insert(id.clone());
                self.workloads.remove(id);
            }
            Output::Route(route) => self.routes.want_cluster(route.dst, Some(route)),
            Output::RouteGone(dst) => self.routes.want_cluster(*dst, None),
            Output::Vtep(vtep) => {
                self.tunnels.want_end(vtep);
                self.routes.want_tunnel_address(&vtep.node, vtep.version, Some(vtep.address));
            }
            Output::VtepGone(node, version) => {
                self.tunnels.forget_end(node, *version);
                self.routes.want_tunnel_address(node, *version, None);
            }
            Output::ThisNode(node) => self.tunnels.want_this(node),
            _ => {}
        }
    }

    /// Brings the kernel to what was fed, as far as it goes. Without the witness nothing is removed
    /// that an earlier run left (law 3).
    pub fn apply(&mut self, in_sync: Option<&InSync>) -> Applied {
        let started = Instant::now();
        let mut applied = Applied::default();
        let polled = self.network.poll();
        match polled {
            Ok(changed) => self.interfaces_changed |= changed,
            Err(error) => applied.fail("network", &error),
        }
        if std::mem::take(&mut self.interfaces_changed) {
            let outputs = self.hosts.resolve(self.network.host_interfaces());
            self.policies.feed(&outputs);
        }
        self.withdraw(&mut applied);
        match self.policies.apply(in_sync) {
            Ok(outcome) => {
                applied.changed |= outcome.changed;
                applied.refused.extend(outcome.refused);
                self.in_force = self.generation;
                self.admit();
            }
            Err(error) => applied.fail("policies", &error),
        }
        self.apply_network(&mut applied, in_sync);
        self.forget_connections(&mut applied);
        self.finish(applied, started)
    }

    /// The generation whose policies are in force.
    pub fn generation_in_force(&self) -> u64 {
        self.in_force
    }

    /// Whether a pod may run: its policy is in force as last fed, and its routes are there.
    pub fn is_in_force(&self, id: &WorkloadId) -> bool {
        self.workloads.get(id).is_some_and(|workload| {
            let routed = |a: &IpAddr| self.network.has_route(&IpNet::from(*a));
            workload.generation <= self.in_force && workload.endpoint.addresses.iter().all(routed)
        })
    }

    /// Size of packets that pods may send: the smallest that any encapsulation in use allows.
    pub fn pod_mtu(&self) -> u32 {
        let underlay = mtu::underlay(self.network.host_interfaces());
        IpVersion::ALL
            .into_iter()
            .filter_map(|version| self.tunnels.tunnel(version, underlay))
            .map(|tunnel| tunnel.mtu)
            .fold(underlay, u32::min)
    }

    /// Routes of pods that are gone go before their policy does: what refers goes first (law 5).
    fn withdraw(&mut self, applied: &mut Applied) {
        let gone: Vec<_> =
            self.unrouted.iter().filter(|id| !self.workloads.contains_key(*id)).cloned().collect();
        if gone.is_empty() {
            return;
        }
        for id in gone {
            self.route_pod(&id);
        }
        self.want_routes();
        // Without the witness: the routes of pods that wait for their policy are not wanted yet,
        // but those that an earlier run left for them are in use.
        if let Err(error) = self.network.apply(None) {
            // Reported again, or not, by the main apply below.
            tracing::debug!(%error, "routes of removed pods could not be withdrawn yet");
        } else {
            applied.changed = true;
        }
    }

    /// Policy is in force: routes may follow.
    fn admit(&mut self) {
        for id in std::mem::take(&mut self.unrouted) {
            self.route_pod(&id);
        }
    }

    /// Makes the wanted routes of one pod what its endpoint says now.
    fn route_pod(&mut self, id: &WorkloadId) {
        self.unrouted.remove(id);
        let new = self.workloads.get(id).map(|w| w.endpoint.clone());
        let old = match &new {
            Some(endpoint) => self.routed.insert(id.clone(), endpoint.clone()),
            None => self.routed.remove(id),
        };
        let kept: &[IpAddr] = new.as_ref().map_or(&[], |e| &e.addresses);
        for address in old.iter().flat_map(|e| &e.addresses).filter(|a| !kept.contains(a)) {
            self.routes.want_local(id, *address, None);
            self.given_up.insert(*address);
        }
        if let Some(endpoint) = &new {
            for address in &endpoint.addresses {
                self.routes.want_local(id, *address, Some(&endpoint.iface));
            }
        }
    }

    fn want_routes(&mut self) {
        for (dst, hop) in self.routes.drain() {
            self.network.want_route(dst, hop);
        }
    }

    fn apply_network(&mut self, applied: &mut Applied, in_sync: Option<&InSync>) {
        let underlay = mtu::underlay(self.network.host_interfaces());
        for version in IpVersion::ALL {
            self.network.want_tunnel(version, self.tunnels.tunnel(version, underlay));
        }
        for (address, end) in self.tunnels.drain_ends() {
            self.network.want_tunnel_end(address, end);
        }
        self.want_routes();
        applied.refused.extend(self.routes.refused());
        // The same holds when policies could not be applied.
        let witness = in_sync.filter(|_| self.unrouted.is_empty());
        match self.network.apply(witness) {
            Ok(outcome) => {
                applied.changed |= outcome.changed;
                // A route that is refused now (its gateway is unreachable) may be taken later.
                self.unfinished = !outcome.refused.is_empty();
                applied.refused.extend(outcome.refused);
            }
            Err(error) => applied.fail("network", &error),
        }
    }

    fn forget_connections(&mut self, applied: &mut Applied) {
        if self.given_up.is_empty() || !applied.failures.is_empty() {
            return;
        }
        let addresses: Vec<IpAddr> = self.given_up.iter().copied().collect();
        match self.connections.forget(&addresses) {
            Ok(()) => self.given_up.clear(),
            Err(error) => applied.fail("connections", &error),
        }
    }

    fn finish(&mut self, mut applied: Applied, started: Instant) -> Applied {
        applied.generation = self.in_force;
        if applied.failures.is_empty() && !self.unfinished {
            self.failed_in_a_row = 0;
        } else {
            let factor = 1 << self.failed_in_a_row.min(16);
            let pause = self.config.retry_first.saturating_mul(factor);
            applied.retry_after = Some(pause.min(self.config.retry_most));
            self.failed_in_a_row += 1;
            self.metrics.failures.inc();
            for Failure { driver, error } in &applied.failures {
                tracing::debug!(driver, %error, "dataplane not up to date, will try again");
            }
        }
        let refused = i64::try_from(applied.refused.len()).unwrap_or(i64::MAX);
        self.metrics.refused.set(refused);
        self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
        applied
    }
}

impl Applied {
    fn fail(&mut self, driver: &'static str, error: &DriverError) {
        self.failures.push(Failure { driver, error: error.to_string() });
    }
}
