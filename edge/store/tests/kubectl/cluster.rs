//! A server, and the kubectl that asks it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apikit::Running;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A server, and kubectl with a home of its own (it caches what it discovers).
pub(crate) struct Cluster {
    pub(crate) home: tempfile::TempDir,
    server: Running,
    binary: PathBuf,
    history: usize,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) success: bool,
}

/// The built kubectl; building it is `make setup`'s work, which this does when it was skipped.
async fn built() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev/kube/build.sh");
    let output = Command::new(script).arg("kubectl").output().await.expect("the script starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn serve(home: &Path, history: usize) -> Running {
    let mut options = apikit::options(home);
    options.history = history;
    let server = Running::with(&options, home);
    std::fs::write(home.join("kubeconfig"), &server.kubeconfig).expect("written");
    server
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::remembering(apikit::options(Path::new("")).history).await
    }

    /// A server that keeps this many changes.
    pub(crate) async fn remembering(history: usize) -> Self {
        let binary = built().await;
        let home = tempfile::tempdir().expect("a folder");
        let server = serve(home.path(), history);
        Self { home, server, binary, history }
    }

    /// The same store under a new server.
    pub(crate) fn restart(self) -> Self {
        let Self { home, server, binary, history } = self;
        server.stop();
        let server = serve(home.path(), history);
        Self { home, server, binary, history }
    }

    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(words.split_whitespace())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `kubectl WORDS`, with `input` as its standard input.
    pub(crate) async fn ask(&self, words: &str, input: &str) -> Said {
        let mut child = self.command(words).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("kubectl reads");
        drop(stdin);
        let limit = Duration::from_mins(1);
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {words}: no end in {limit:?}"));
        let output = output.expect("kubectl runs");
        Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            success: output.status.success(),
        }
    }

    /// Runs a command that must succeed; comes out what it printed.
    pub(crate) async fn run(&self, words: &str, input: &str) -> String {
        let said = self.ask(words, input).await;
        assert!(said.success, "kubectl {words}\n{}{}", said.out, said.err);
        said.out
    }

    /// Runs a command that must fail; comes out what it complained about.
    pub(crate) async fn fail(&self, words: &str, input: &str) -> String {
        let said = self.ask(words, input).await;
        assert!(!said.success, "kubectl {words} succeeded\n{}{}", said.out, said.err);
        said.err
    }

    /// Runs a command that prints JSON.
    pub(crate) async fn json(&self, words: &str) -> Value {
        let text = self.run(&format!("{words} -o json"), "").await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("kubectl {words}: {e}\n{text}"))
    }

    pub(crate) fn stop(self) {
        self.server.stop();
    }
}

pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "wanted {part:?} in\n{text}");
    }
}
