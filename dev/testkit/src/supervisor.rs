//! Processes that live no longer than the test, whatever becomes of it, and the folder they write to.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// When it is dropped, or its process ends in whatever way, what it started is killed and its folder is removed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    folder: PathBuf,
    child: Child,
    orders: Option<ChildStdin>,
}

impl Supervisor {
    /// With a folder whose name starts with `prefix`. What it starts is in the namespace of the calling thread.
    pub(crate) fn start(prefix: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("a folder").keep();
        let mut command = Command::new("sh");
        command.args(["-c", include_str!("supervise.sh"), "sh"]).arg(&folder);
        command.stdin(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("sh starts");
        let orders = child.stdin.take();
        Self { folder, child, orders }
    }

    /// Where everything lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a command that is killed at the end; its log is with the others. `name` is its own, and a word.
    pub(crate) fn run_until_the_end(&mut self, name: &str, words: &[&str]) {
        self.order(&format!("start {name} {}", quoted_all(words)));
    }

    /// Runs a command at the very end, when everything is killed.
    pub(crate) fn run_at_the_end(&mut self, words: &[&str]) {
        self.order(&format!("at_end {}", quoted(&quoted_all(words))));
    }

    fn order(&mut self, line: &str) {
        let orders = self.orders.as_mut().expect("open until the end");
        writeln!(orders, "{line}").expect("the supervisor reads");
    }

    /// Whether a part runs; one that was not started yet may.
    pub(crate) fn lives(&self, part: &str) -> bool {
        let pid = fs::read_to_string(self.folder.join(format!("{part}.pid"))).unwrap_or_default();
        let stat = match pid.trim() {
            "" => return true,
            pid => fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default(),
        };
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    /// Kills a part and waits until it is gone, so that it may be started again.
    pub(crate) fn kill(&self, part: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        // It ends what is there in one way or another: there is nobody to tell.
        let _ = kill(Pid::from_raw(self.pid(part)), Signal::SIGKILL);
        while self.lives(part) {
            assert!(Instant::now() < until, "{part} does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        // The new process writes its own.
        fs::remove_file(self.folder.join(format!("{part}.pid"))).expect("it was there");
    }

    /// The process of a part.
    pub(crate) fn pid(&self, part: &str) -> i32 {
        let file = self.folder.join(format!("{part}.pid"));
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        text.trim().parse().expect("a process id")
    }

    /// The end of every part's log.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        let mut files: Vec<PathBuf> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        files.sort();
        for file in files {
            let log = fs::read(&file).unwrap_or_default();
            let log = String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]).into_owned();
            writeln!(text, "{}:\n{log}", file.display()).expect("a string takes it");
        }
        text
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends by itself now; there is nobody to tell if it cannot be waited for.
        let _ = self.child.wait();
    }
}

fn quoted_all(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("it is bound").port())
}
