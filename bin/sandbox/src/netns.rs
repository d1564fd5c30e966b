//! Network namespaces by name, as iproute2 keeps them (/run/netns).

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// Path of a namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

pub(crate) fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Makes a namespace, if it is not there.
pub(crate) fn add(name: &str) -> Result<()> {
    if exists(name) { Ok(()) } else { ip(&["netns", "add", name]) }
}

/// Removes a namespace, if it is there.
pub(crate) fn delete(name: &str) -> Result<()> {
    if exists(name) { ip(&["netns", "delete", name]) } else { Ok(()) }
}

/// All namespaces whose name starts so.
pub(crate) fn named(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.filter(|n| n.starts_with(prefix)).collect()
}

/// One `ip` command.
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip").args(args).output().context("cannot run ip (package iproute2)")?;
    if !out.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Many `ip` commands in one process, in a namespace; all or an error.
pub(crate) fn batch(namespace: &str, lines: &[String]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip (package iproute2)")?;
    let text = lines.join("\n") + "\n";
    child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("ip in {namespace}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Runs a closure on a thread inside a namespace. Threads that it starts are inside as well.
pub(crate) fn inside<T: Send>(name: &str, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(path(name)).with_context(|| format!("no network namespace {name}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
            f()
        });
        thread.join().unwrap_or_else(|_| bail!("the thread in {name} has panicked"))
    })
}
