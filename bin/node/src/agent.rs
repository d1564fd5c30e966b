//! The process: arguments, wiring, stopping.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{CommandFactory as _, Parser};
use datastore::Addresses;
use model::NodeName;
use syncer::Interests;
use telemetry::{Aspects, Endpoints, Health, Logs, Registry, Report, Reporter};
use tokio::signal::unix::{SignalKind, signal};

use crate::drivers;
use crate::engine::Engine;
use crate::felix::{self, Configuration, Followers};
use crate::foreign;
use crate::guard::{self, Files, Keeper};
use crate::inbox::Inbox;
use crate::kernel;
use crate::place::Place;
use crate::pods::Pods;
use crate::reporting;
use crate::serve::Serving;
use crate::server::{self, Cni, Parts};
use crate::settings::Settings;
use crate::startup;
use crate::status::Shared;

/// The node agent: programs the kernel of this node as the cluster says. All settings come from
/// the environment (NODENAME, KUBECONFIG, DATASTORE_TYPE and ETCD_*, IP, IP6, CALICO_IPV4POOL_*, FELIX_*, CALICO_CUT_FLOWS
/// (auto, on, off: whether established flows end that policy denies now), and CALICO_RUN_DIR
/// and CALICO_LIB_DIR for the folders of sockets and files), from a configuration file, and from
/// the FelixConfigurations of the cluster, in falling priority.
#[derive(Debug, Parser)]
#[command(name = "calico-node", version)]
struct Arguments {
    /// Settings beside those of the environment and the cluster: lines of Name = value.
    #[arg(long, short, default_value = "/etc/calico/felix.cfg")]
    config_file: PathBuf,
}

/// The command line, as `--help` and the reference show it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs until told to stop by SIGTERM or SIGINT (exit code 0), until it fails (1), or until a change of
/// its configuration takes a new start (129: start it again); most changes do not. What it programmed
/// stays in force. The first argument is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(e) => {
            let code = if e.use_stderr() { 2 } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    match start(&arguments) {
        Ok(End::Told) => ExitCode::SUCCESS,
        Ok(End::Reconfigured) => ExitCode::from(RECONFIGURED),
        Err(error) => {
            let text = format!("calico-node: {error:#}\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// The exit code that asks for a new start with the new configuration: upstream's, so that who
/// runs it as a child knows it.
const RECONFIGURED: u8 = 129;

/// Why the agent ends when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a signal.
    Told,
    /// What is configured now takes a new start.
    Reconfigured,
}

fn start(arguments: &Arguments) -> Result<End> {
    crate::memory::frugal();
    let settings = Settings::read(&arguments.config_file)?;
    let logs = telemetry::init_logs(&settings.log).context("logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_name("agent")
        .enable_all()
        .build()?;
    let done = runtime.block_on(agent(Arc::new(settings), logs));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn agent(settings: Arc<Settings>, logs: Logs) -> Result<End> {
    tracing::info!(node = settings.node, version = env!("CARGO_PKG_VERSION"), "starting");
    felix::tell(&settings.variables.problems);
    let health = Health::default();
    let both = Aspects { live: true, ready: true };
    let ready = Aspects { live: false, ready: true };
    let started = health.register("FelixStartup", ready, None);
    let watchdog = settings.felix.health_timeouts.get(config::MAIN_LOOP).copied();
    let looping = health.register(config::MAIN_LOOP, both, watchdog);
    started.report(Report::waiting("connecting"));
    looping.report(Report::waiting("starting"));

    let mut registry = Registry::default();
    let shared = Arc::new(Shared::new(&settings.node, &mut registry));
    let inbox = Arc::new(Inbox::default());
    // For `calicoctl node`, which needs no port for it: the health server is off unless somebody wants it.
    let local = server::bind(&settings.run_dir.join("status.sock"))?;
    telemetry::serve_local(local, endpoints(&health, &shared));
    let (place, cut_off) = guard::reach(&settings).await?;
    let pods = Arc::new(Pods::new(&settings.node, inbox.clone(), shared.clone()));
    let begun = Begun {
        settings: settings.clone(),
        logs,
        health,
        reporters: (started, looping),
        registry,
        inbox,
        place: Arc::new(place),
        cut_off,
        pods: pods.clone(),
    };
    tokio::select! {
        end = work(begun) => end,
        () = guard::stranded(&settings, cut_off, &pods) => Ok(End::Reconfigured),
    }
}

/// What there is once the datastore was reached.
struct Begun {
    settings: Arc<Settings>,
    logs: Logs,
    health: Health,
    /// Of the start, and of the apply loop.
    reporters: (Reporter, Reporter),
    registry: Registry,
    inbox: Arc<Inbox>,
    place: Arc<Place>,
    cut_off: bool,
    pods: Arc<Pods>,
}

async fn work(begun: Begun) -> Result<End> {
    let Begun { settings, logs, health, reporters, mut registry, inbox, place, cut_off, pods } =
        begun;
    let ((started, looping), shared) = (reporters, pods.shared.clone());
    let datastore = place.datastore.clone();
    let addresses = Arc::new(Addresses::new(datastore.clone(), &settings.node));
    let mut serving = Serving::new("health", endpoints(&health, &shared));
    let configured = load(&settings, &place, &mut serving).await?;
    Followers::log(&logs, &settings, &configured);
    health.set_timeouts(&configured.felix.config.health_timeouts);
    shared.configured(&configured);
    let node = NodeName::from(settings.node.as_str());
    let config = &configured.felix.config;
    let parts = (&inbox, &shared, &mut registry);
    let dataplane = drivers::open(&settings.node, &configured, parts)?;
    let tables = dataplane.policies().events()?;
    let again = dataplane.policies().again();
    let files = Files::new(&settings.lib_dir);
    let (errands, todo) = tokio::sync::mpsc::unbounded_channel();
    let keeper = Keeper::new(files.clone(), errands, shared.clone());
    let both = (inbox.clone(), shared.clone());
    tokio::spawn(guard::run(todo, (place.clone(), files), both.clone()));
    let engine = Engine::new(node, dataplane, both, (looping, again, keeper));
    let engine = std::thread::Builder::new().name("dataplane".into()).spawn(|| engine.run())?;
    drivers::watch_kernel(inbox.clone(), tables)?;
    tokio::spawn(foreign::watch(shared.clone()));

    let endpoints = Endpoints { metrics: Some(Arc::new(registry)), ..Endpoints::default() };
    let mut metrics = Serving::new("metrics", endpoints);
    metrics.follow(config.metrics.as_ref()).await;
    let parts = Parts {
        place: place.clone(),
        addresses: addresses.clone(),
        pods: pods.clone(),
        inbox: inbox.clone(),
        shared,
        interface_prefixes: config.interface_prefixes.clone(),
        host_settings: Arc::new(netlink::Settings::open()?),
    };
    let cni = Arc::new(Cni::new(&settings, parts));
    cni.listen()?;
    tokio::spawn(cni.clone().recover());
    let interests = Interests {
        node: settings.node.clone(),
        interface_prefix: cni.interface_prefix().to_owned(),
        alone: place.alone.is_some(),
    };
    tokio::spawn(cni.work_off());
    tokio::spawn(syncer::run(datastore, interests, pods.clone()));
    let reporting = reporting::spawn(&settings, &place, &configured, &pods).await?;
    let followers = Followers {
        inbox: inbox.clone(),
        logs,
        reporters: health.clone(),
        health: serving,
        metrics,
        reporting,
    };
    let at_first = Arc::new(configured);
    let changed =
        felix::changed(settings.clone(), place.clone(), pods.clone(), followers, at_first);
    tokio::spawn(startup::run(settings.clone(), place, addresses, pods, started));

    let end = tokio::select! {
        ended = wait_for_the_end(&engine) => ended.map(|()| End::Told)?,
        () = changed => End::Reconfigured,
        () = guard::back(&settings, cut_off) => End::Reconfigured,
    };
    tracing::info!("stopping; what is programmed stays in force");
    inbox.stop();
    engine.join().map_err(|_| anyhow::anyhow!("the dataplane thread panicked"))?;
    Ok(end)
}

/// A signal, or the end of the thread that must not end.
async fn wait_for_the_end(engine: &std::thread::JoinHandle<()>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = tick.tick() => if engine.is_finished() { return Ok(()) },
        }
    }
}

/// Health, and what is known here.
fn endpoints(health: &Health, shared: &Arc<Shared>) -> Endpoints {
    let (config, status) = (shared.clone(), shared.clone());
    let reported = health.clone();
    Endpoints {
        health: Some(health.clone()),
        status: Some(Arc::new(move || status.document(&reported))),
        config: Some(Arc::new(move || config.configuration())),
        metrics: None,
    }
}

/// The configuration; health is served as it says. As long as the datastore has not answered, the
/// environment and the file say where: who asks whether the agent lives must get an answer.
async fn load(settings: &Settings, place: &Place, health: &mut Serving) -> Result<Configuration> {
    health.follow(settings.felix.health.as_ref()).await;
    let mut configured = felix::load(settings, place).await?;
    health.follow(configured.felix.config.health.as_ref()).await;
    let prefixes = &mut configured.felix.config.interface_prefixes;
    *prefixes = kernel::prefixes(std::mem::take(prefixes)).await?;
    Ok(configured)
}
