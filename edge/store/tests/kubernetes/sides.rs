//! The two servers, each behind a kubectl.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use apikit::Running;
use serde_json::Value;

/// A server, and kubectl with a home of its own.
pub(crate) struct Side {
    pub(crate) kubeconfig: PathBuf,
    home: tempfile::TempDir,
    kubectl: PathBuf,
    embedded: Option<Running>,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) success: bool,
}

/// The API server of Kubernetes.
pub(crate) fn real() -> Side {
    kubernetes(crate::plane().kubeconfig())
}

/// Any API server of Kubernetes.
pub(crate) fn kubernetes(kubeconfig: PathBuf) -> Side {
    let home = tempfile::tempdir().unwrap();
    let kubectl = testkit::kube_program("kubectl");
    Side { kubeconfig, home, kubectl, embedded: None }
}

/// Ours.
pub(crate) fn embedded() -> Side {
    let home = tempfile::tempdir().unwrap();
    let server = Running::start(home.path());
    let kubectl = testkit::kube_program("kubectl");
    Side { kubeconfig: server.kubeconfig_file.clone(), home, kubectl, embedded: Some(server) }
}

impl Side {
    pub(crate) fn name(&self) -> &'static str {
        if self.embedded.is_some() { "embedded" } else { "real" }
    }

    /// Runs `kubectl WORDS`; `input` is its standard input.
    pub(crate) fn ask(&self, words: &str, input: &str) -> Said {
        let mut child = Command::new(&self.kubectl)
            .args(words.split_whitespace())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read to the end is its own affair.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            success: output.status.success(),
        }
    }

    /// Runs a command that must succeed; comes out what it printed.
    pub(crate) fn run(&self, words: &str, input: &str) -> String {
        let said = self.ask(words, input);
        assert!(said.success, "{}: kubectl {words}\n{}{}", self.name(), said.out, said.err);
        said.out
    }
}

impl Said {
    /// The same for both servers where they agree: JSON without what each server makes up, text without ages.
    pub(crate) fn comparable(&self) -> String {
        let whole: Result<Value, _> = serde_json::from_str(&self.out);
        let out = match whole {
            Ok(mut value) if value.is_object() => {
                strip(&mut value);
                format!("{value:#}")
            }
            _ => self.out.lines().map(line).collect(),
        };
        let err: String = self.err.lines().map(line).collect();
        format!("{}\n{out}\n{err}", if self.success { "done" } else { "failed" })
    }
}

fn line(text: &str) -> String {
    if let Ok(mut value) = serde_json::from_str::<Value>(text)
        && value.is_object()
    {
        strip(&mut value);
        return format!("{value}\n");
    }
    let words = text.split_whitespace().map(|word| if is_age(word) { "AGE" } else { word });
    words.collect::<Vec<_>>().join(" ") + "\n"
}

/// `12s`, `3m4s`.
fn is_age(word: &str) -> bool {
    word.ends_with(['s', 'm'])
        && word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || c == 's' || c == 'm')
}

/// Takes away what each server makes up, and sorts maps.
fn strip(value: &mut Value) {
    const MADE_UP: [&str; 9] = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "time",
        "lastTransitionTime",
        "continue",
        "remainingItemCount",
        "generateName",
    ];
    match value {
        Value::Object(map) => {
            // Managers stand in the order of their last second, which is made up, too.
            if let Some(Value::Array(entries)) = map.get_mut("managedFields") {
                entries.sort_by_key(|e| {
                    format!("{} {} {}", e["operation"], e["manager"], e["subresource"])
                });
            }
            for key in MADE_UP {
                if let Some(found) = map.get_mut(key).filter(|v| v.is_string() || v.is_number()) {
                    *found = "made up".into();
                }
            }
            map.values_mut().for_each(strip);
            map.sort_keys();
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => (),
    }
}
