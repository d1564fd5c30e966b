//! Processes that outlive the command that started them.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as UnixPid;

use crate::netns;
use crate::state::Pid;

/// A command that is this very program.
pub(crate) fn own(args: &[&OsStr]) -> Result<(PathBuf, Vec<std::ffi::OsString>)> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    Ok((program, args.iter().map(|a| (*a).to_owned()).collect()))
}

/// The CNI plugin, beside this program.
pub(crate) fn plugin() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let plugin = program.with_file_name("calico-cni");
    anyhow::ensure!(
        plugin.exists(),
        "{} is not there: build it with `make build`",
        plugin.display()
    );
    Ok(plugin)
}

/// Starts a process of its own group, in a namespace if one is named, with its output in a file.
pub(crate) fn start(
    netns: Option<&str>,
    (program, args): (PathBuf, Vec<std::ffi::OsString>),
    env: &[(String, String)],
    log: &Path,
) -> Result<Child> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let out = OpenOptions::new().create(true).append(true).open(log);
    let out = out.with_context(|| format!("cannot write {}", log.display()))?;
    // `ip netns exec` replaces itself: the process number is the program's.
    let mut command = match netns {
        Some(name) => {
            let mut ip = Command::new("ip");
            ip.args(["netns", "exec", name]).arg(&program);
            ip
        }
        None => Command::new(&program),
    };
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(env.iter().cloned())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// How a process can be recognised later.
pub(crate) fn identify(pid: i32) -> Option<Pid> {
    started(pid).map(|started| Pid { pid, started })
}

/// Whether it is still that process, and not a zombie.
pub(crate) fn alive(pid: Pid) -> bool {
    started(pid.pid) == Some(pid.started)
}

fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last one is fixed.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The processes in a network namespace, each with its words after the program's name.
pub(crate) fn inside(netns: &str) -> Vec<(Pid, Vec<String>)> {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let Some(wanted) = inode(&netns::path(netns)) else { return Vec::new() };
    numbers()
        .filter(|pid| inode(&PathBuf::from(format!("/proc/{pid}/ns/net"))) == Some(wanted))
        .filter_map(|pid| Some((identify(pid)?, words(pid))))
        .collect()
}

/// The processes that were started with exactly these words after the program's name.
pub(crate) fn started_with(args: &[std::ffi::OsString]) -> Vec<Pid> {
    if args.is_empty() {
        return Vec::new(); // it would be every process without arguments
    }
    let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    numbers().filter(|pid| words(*pid) == args).filter_map(identify).collect()
}

/// Ends the processes in a network namespace that were started with such words.
pub(crate) fn stop_inside(netns: &str, which: impl Fn(&[String]) -> bool) {
    for (pid, words) in inside(netns) {
        if which(&words) {
            stop(pid, Duration::ZERO);
        }
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn words(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    let mut words: Vec<_> = words.skip(1).collect();
    words.pop(); // after the last zero byte
    words
}

/// Ends a process: asks, waits, then forces. Returns once it is gone.
pub(crate) fn stop(pid: Pid, grace: Duration) {
    if !alive(pid) {
        return;
    }
    let target = UnixPid::from_raw(pid.pid);
    let _ = kill(target, Signal::SIGTERM);
    wait_gone(pid, grace);
    if alive(pid) {
        let _ = kill(target, Signal::SIGKILL);
        wait_gone(pid, Duration::from_secs(5));
    }
}

fn wait_gone(pid: Pid, limit: Duration) {
    let end = Instant::now() + limit;
    while alive(pid) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}
