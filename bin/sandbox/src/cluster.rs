//! `up` and `down`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::Uid;

use crate::lock::Lock;
use crate::pods::Cni;
use crate::print::tell;
use crate::state::{Encap, Spec, State};
use crate::{client, netns, process, status, supervisor, topology};

/// How long a killed process may take to end.
const DYING: Duration = Duration::from_millis(300);
/// How often a supervisor that ends at once is started: one that was being killed may have to be
/// started again, one that always ends never works.
const STARTS: u32 = 5;

/// What `up` makes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) nodes: u8,
    /// IPv6 beside IPv4.
    #[arg(long)]
    pub(crate) dual_stack: bool,
    /// How pods' packets travel between nodes.
    #[arg(long, default_value = "vxlan")]
    pub(crate) encap: Encap,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

/// How long to wait until all works.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Patience {
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { timeout: 60 }
    }
}

impl Patience {
    fn limit(self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Starts a sandbox and waits until all nodes are ready. What an interrupted start leaves behind,
/// `down` removes; a failed start removes it itself.
pub(crate) fn up(state: &State, up: &Up) -> Result<()> {
    need_root()?;
    process::plugin()?;
    let _alone = Lock::take(state)?;
    if state.load().is_ok() {
        let other = if supervised(state)? {
            "--name makes another"
        } else {
            "`calico sandbox resume` starts again what has died of it"
        };
        bail!("sandbox {:?} is up: `calico sandbox down` stops it, {other}", state.name);
    }
    let begin = Instant::now();
    let spec = Spec {
        nodes: up.nodes,
        dual_stack: up.dual_stack,
        encap: up.encap,
        api_port: free_port()?,
    };
    if let Err(error) = start(state, &spec, up.patience) {
        let logs = keep_logs(state);
        drop(clean(state));
        return Err(error).with_context(|| format!("the logs are in {}", logs.display()));
    }
    tell(&format!(
        "sandbox {:?}: {} nodes ready in {:.2} s\nexport KUBECONFIG={}",
        state.name,
        spec.nodes,
        begin.elapsed().as_secs_f64(),
        state.kubeconfig().display()
    ));
    Ok(())
}

/// Starts everything and waits.
pub(crate) fn start(state: &State, spec: &Spec, patience: Patience) -> Result<()> {
    state.save(spec)?;
    // The supervisor starts the API, which needs the hub only: nodes are made before it looks.
    topology::build(state, spec)?;
    supervise(state)?;
    client::runtime()?.block_on(wait_ready(state, spec, patience.limit()))
}

/// Starts again what has died of a sandbox that is up, and waits until all of it works. Pods and
/// their connections stay as they are.
pub(crate) fn resume(state: &State, patience: Patience) -> Result<()> {
    need_root()?;
    process::plugin()?;
    let spec = state.load()?;
    let _alone = Lock::take(state)?;
    anyhow::ensure!(
        netns::exists(&state.netns("hub")),
        "the network of sandbox {:?} is gone: `calico sandbox down`, then `up`",
        state.name
    );
    keep_supervised(state)?;
    let logs = || format!("the logs are in {}", state.logs().display());
    let begin = Instant::now();
    let limit = patience.limit();
    client::runtime()?.block_on(wait_ready(state, &spec, limit)).with_context(logs)?;
    wait_agents(state, &spec, limit.saturating_sub(begin.elapsed())).with_context(logs)?;
    tell(&format!("sandbox {:?}: {} nodes ready", state.name, spec.nodes));
    Ok(())
}

/// Starts the supervisor unless it runs. One that was killed a moment ago may still look alive: it
/// is looked at again until all is well.
fn keep_supervised(state: &State) -> Result<()> {
    let (mut begin, mut starts) = (Instant::now(), 0);
    while begin.elapsed() < DYING {
        if !supervised(state)? {
            anyhow::ensure!(
                starts < STARTS,
                "the supervisor was started {STARTS} times and has ended each time: see {}",
                state.log("supervisor").display()
            );
            supervise(state)?;
            starts += 1;
            begin = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether the process runs that keeps the others running.
fn supervised(state: &State) -> Result<bool> {
    if state.pid("supervisor").ok().flatten().is_some_and(process::alive) {
        return Ok(true);
    }
    // One that a crash kept from being recorded.
    let found = process::started_with(&supervisor::own(state, "supervise")?.1).pop();
    found.map_or(Ok(false), |pid| state.save_pid("supervisor", pid).map(|()| true))
}

/// What the API says about nodes may be older than what happened to their agents.
fn wait_agents(state: &State, spec: &Spec, limit: Duration) -> Result<()> {
    let (news, heard) = mpsc::channel();
    for node in spec.node_names() {
        let (cni, news) = (Cni::of(state, &node)?, news.clone());
        // A process that is stopped lets its caller wait: not us.
        std::thread::spawn(move || {
            loop {
                let answer = cni.status();
                let done = answer.is_ok();
                if news.send((node.clone(), answer)).is_err() || done {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }
    let end = Instant::now() + limit;
    let mut waiting: BTreeMap<_, _> = spec
        .node_names()
        .into_iter()
        .map(|n| (n, "its agent does not answer".to_owned()))
        .collect();
    while !waiting.is_empty() {
        match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((node, Ok(()))) => drop(waiting.remove(&node)),
            Ok((node, Err(error))) => drop(waiting.insert(node, format!("{error:#}"))),
            Err(_) => {
                let why: Vec<_> = waiting.iter().map(|(n, why)| format!("{n}: {why}")).collect();
                bail!("not ready in time (--timeout): {}", why.join("; "));
            }
        }
    }
    Ok(())
}

/// Starts the supervisor, which starts what else does not run.
fn supervise(state: &State) -> Result<()> {
    let child =
        process::start(None, supervisor::own(state, "supervise")?, &[], &state.log("supervisor"))?;
    if let Some(pid) = process::identify(i32::try_from(child.id())?) {
        state.save_pid("supervisor", pid)?;
    }
    Ok(())
}

async fn wait_ready(state: &State, spec: &Spec, limit: Duration) -> Result<()> {
    let end = tokio::time::Instant::now() + limit;
    let mut last = "the API has not started".to_owned();
    loop {
        match tokio::time::timeout_at(end, look(state)).await {
            Ok(Ok(status)) => {
                let ready = status.nodes.iter().filter(|n| n.ready).count();
                if ready == usize::from(spec.nodes) {
                    return Ok(());
                }
                last = format!("{ready} of {} nodes are ready", spec.nodes);
            }
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = format!("the API does not answer (before that: {last})"),
        }
        if tokio::time::Instant::now() >= end {
            bail!("not ready after {limit:?} (--timeout): {last}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn look(state: &State) -> Result<status::Status> {
    if !state.kubeconfig().exists() {
        bail!("the API has not started");
    }
    status::read(&client::connect(&state.kubeconfig()).await?).await
}

/// Moves the logs of a start that failed to where removing the sandbox does not remove them.
fn keep_logs(state: &State) -> PathBuf {
    let kept = state.failed_logs();
    drop(std::fs::remove_dir_all(&kept));
    drop(std::fs::rename(state.logs(), &kept));
    kept
}

/// Stops a sandbox and removes everything of it; nothing to do is no error.
pub(crate) fn down(state: &State) -> Result<()> {
    need_root()?;
    let _alone = Lock::take(state)?;
    drop(std::fs::remove_dir_all(state.failed_logs()));
    clean(state)
}

/// Goes on after a failure, and returns the first.
pub(crate) fn clean(state: &State) -> Result<()> {
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    // The supervisor goes first, or it would start the others again.
    let mut pids = state.pids().unwrap_or_default();
    pids.sort_by_key(|(name, _)| name != "supervisor");
    for (_, pid) in pids {
        process::stop(pid, Duration::from_millis(500));
    }
    // What a crash kept from being recorded.
    for verb in ["supervise", "api"] {
        match supervisor::own(state, verb) {
            Ok((_, args)) => {
                for pid in process::started_with(&args) {
                    process::stop(pid, Duration::from_millis(500));
                }
            }
            Err(error) => note(Err(error)),
        }
    }
    for pod in state.pods().unwrap_or_default() {
        if let Some(pid) = pod.responder {
            process::stop(pid, Duration::ZERO);
        }
    }
    let prefix = format!("{}-", state.name);
    for name in netns::named(&prefix) {
        // `a-b` is a sandbox of its own beside `a`: only what we make is ours.
        let ours = ["hub", "k8s-node-", "pod-", "bastion", "stranger"];
        if ours.iter().any(|o| name[prefix.len()..].starts_with(o)) {
            process::stop_inside(&name, |_| true);
            note(netns::delete(&name));
        }
    }
    match std::fs::remove_dir_all(state.dir()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            note(Err(e).with_context(|| format!("cannot remove {}", state.dir().display())));
        }
        _ => {}
    }
    first
}

fn need_root() -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    bail!("root is needed: network namespaces, routes and rules are the kernel's");
}

pub(crate) fn free_port() -> Result<u16> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(probe.local_addr()?.port())
}
