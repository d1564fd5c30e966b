//! What runs while a sandbox is up: keeps the API and the agents running, and is the kubelets and
//! the scheduler.
//!
//! The others are processes of their own: when this one dies they go on, and its successor finds
//! them by their recorded numbers.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, Result};
use telemetry::LogConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::state::{Pid, Spec, State};
use crate::{client, kubelet, node, process, scheduler};

/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Runs until it is told to end; leaves the other processes running (`down` ends them).
pub(crate) fn run(state: &State) -> Result<()> {
    telemetry::init_logs(&LogConfig::default())?;
    let spec = state.load()?;
    client::runtime()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = term.recv() => Ok(()),
            done = work(state, &spec) => done,
        }
    })
}

async fn work(state: &State, spec: &Spec) -> Result<()> {
    let keep = keep_running(state.clone(), spec.clone());
    let serve = async {
        let client = wait_for_api(state).await?;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(scheduler::run(client.clone()));
        for (i, node) in spec.node_names().into_iter().enumerate() {
            let addresses = spec.node_addresses(u8::try_from(i)?);
            let kubelet = kubelet::Kubelet::new(state.clone(), client.clone(), node, addresses)?;
            tasks.spawn(kubelet.run());
        }
        tasks.join_next().await.context("nothing to do")??
    };
    tokio::try_join!(keep, serve).map(|_| ())
}

/// The API's kubeconfig is written before it listens; an answer says that it is up.
async fn wait_for_api(state: &State) -> Result<kube::Client> {
    loop {
        if state.kubeconfig().exists()
            && let Ok(client) = client::connect(&state.kubeconfig()).await
            && client.apiserver_version().await.is_ok()
        {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn keep_running(state: State, spec: Spec) -> Result<()> {
    let mut children = Vec::new();
    loop {
        let running = || process::started_with(&own(&state, "api").ok()?.1).pop();
        ensure(&state, "api", &mut children, running, || start_api(&state));
        // An agent without a kubeconfig would only fail and be started again.
        if state.node_kubeconfig().exists() {
            for (i, name) in spec.node_names().iter().enumerate() {
                let addresses = spec.node_addresses(u8::try_from(i)?);
                let inside = || process::inside(&state.netns(name)).into_iter();
                let running = || inside().find(|(_, words)| words == &["node"]).map(|(pid, _)| pid);
                ensure(&state, name, &mut children, running, || {
                    node::start_agent(&state, &spec, name, &addresses)
                });
            }
            tokio::time::sleep(LOOK).await;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Starts a process unless it runs. What fails is tried again at the next look.
fn ensure(
    state: &State,
    name: &str,
    children: &mut Vec<std::process::Child>,
    running: impl FnOnce() -> Option<Pid>,
    start: impl FnOnce() -> Result<std::process::Child>,
) {
    // Our own children must be waited for, or they stay as zombies.
    children.retain_mut(|c| matches!(c.try_wait(), Ok(None)));
    let revive = || -> Result<()> {
        if let Some(pid) = state.pid(name)? {
            if process::alive(pid) {
                return Ok(());
            }
            tracing::warn!(process = name, pid = pid.pid, "has ended; starting it again");
        }
        // One that a crash kept from being recorded.
        if let Some(pid) = running() {
            return state.save_pid(name, pid);
        }
        let child = start()?;
        let pid = process::identify(i32::try_from(child.id())?);
        children.push(child);
        pid.map_or(Ok(()), |pid| state.save_pid(name, pid))
    };
    if let Err(error) = revive() {
        tracing::warn!(process = name, error = %format!("{error:#}"), "not started");
    }
}

fn start_api(state: &State) -> Result<std::process::Child> {
    process::start(None, own(state, "api")?, &[], &state.log("api"))
}

/// A hidden verb of this program, for this sandbox.
pub(crate) fn own(
    state: &State,
    verb: &str,
) -> Result<(std::path::PathBuf, Vec<std::ffi::OsString>)> {
    let parent = state.dir().parent().context("the state folder has a parent")?;
    let words: [&OsStr; 6] = [
        "sandbox".as_ref(),
        "--name".as_ref(),
        state.name.as_ref(),
        "--state-dir".as_ref(),
        parent.as_ref(),
        verb.as_ref(),
    ];
    process::own(&words)
}
