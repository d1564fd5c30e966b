//! `calico sandbox exec`.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::node;
use crate::state::{Spec, State};

/// The names under which this program is `calicoctl` and the others.
const NAMES: [&str; 3] = ["calico", "calicoctl", "kubectl-calico"];

/// Runs a command in the namespace of a pod, or of a node with what the node's agent is told.
pub(crate) fn run(state: &State, place: &str, command: &[OsString]) -> Result<ExitCode> {
    let spec = state.load()?;
    let (netns, environment) = match place.strip_prefix("node:") {
        Some(name) => (state.netns(name), of_node(state, &spec, name)?),
        None => (of_pod(state, place)?, Vec::new()),
    };
    let status = Command::new("ip")
        .args(["netns", "exec", &netns])
        .args(command)
        .envs(environment)
        .status()
        .context("cannot run ip (package iproute2)")?;
    // As shells say that a signal has ended it.
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    let code = code.and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn of_pod(state: &State, pod: &str) -> Result<String> {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    let found = state.pods()?.into_iter().find(|p| p.namespace == namespace && p.name == name);
    Ok(found.with_context(|| format!("no pod {namespace}/{name} runs here"))?.netns)
}

fn of_node(state: &State, spec: &Spec, name: &str) -> Result<Vec<(OsString, OsString)>> {
    let nodes = spec.node_names();
    let Some(index) = nodes.iter().position(|n| n == name) else {
        bail!("no node {name:?}: there are {}", nodes.join(", "));
    };
    let addresses = spec.node_addresses(u8::try_from(index)?);
    let told = node::environment(state, spec, name, &addresses);
    let mut all: Vec<_> = told.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    // What is installed goes first.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([programs(state)?]);
    all.push(("PATH".into(), std::env::join_paths(folders)?));
    Ok(all)
}

/// A folder that holds this program under its names.
fn programs(state: &State) -> Result<PathBuf> {
    let folder = state.dir().join("bin");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    for name in NAMES {
        let link = folder.join(name);
        if std::fs::read_link(&link).ok().as_ref() == Some(&program) {
            continue;
        }
        drop(std::fs::remove_file(&link));
        match std::os::unix::fs::symlink(&program, &link) {
            // Another command has made it meanwhile.
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", link.display()));
            }
            _ => (),
        }
    }
    Ok(folder)
}
