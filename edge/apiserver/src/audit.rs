//! The audit log: one line of JSON for each request, in the form of `audit.k8s.io/v1` at level Metadata.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Uri;
use serde_json::{Value, json};

use crate::access::Trail;
use crate::auth::User;

/// Where and how the audit log is kept.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The file.
    pub path: PathBuf,
    /// At this size, in bytes, it is moved aside and begun anew. Default 100 MiB.
    pub max_size: u64,
    /// How many files that were moved aside are kept. Default 10.
    pub backups: usize,
}

impl AuditOptions {
    /// The defaults, for the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_size: 100 << 20, backups: 10 }
    }
}

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    options: AuditOptions,
    open: Mutex<(File, u64)>,
    failing: AtomicBool,
}

impl Log {
    pub(crate) fn open(options: AuditOptions) -> io::Result<Self> {
        let open = Mutex::new(append(&options.path)?);
        Ok(Self { options, open, failing: AtomicBool::new(false) })
    }

    /// Writes one event. A log that cannot be written does not stop the API; it is said once.
    fn write(&self, event: &Value) {
        let line = format!("{event}\n");
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.write_to(&mut open, line.as_bytes());
        let failing = written.is_err();
        if let Err(error) = written
            && !self.failing.load(Ordering::Relaxed)
        {
            tracing::error!(%error, path = %self.options.path.display(), "cannot write the audit log");
        }
        self.failing.store(failing, Ordering::Relaxed);
    }

    fn write_to(&self, open: &mut (File, u64), line: &[u8]) -> io::Result<()> {
        let size = line.len() as u64;
        if open.1 > 0 && open.1 + size > self.options.max_size {
            *open = self.rotate()?;
        }
        open.0.write_all(line)?;
        open.1 += size;
        Ok(())
    }

    /// Moves the file aside, removes the oldest of those, begins a new one.
    fn rotate(&self) -> io::Result<(File, u64)> {
        let path = &self.options.path;
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.6f");
        std::fs::rename(path, aside(path, &format!("-{at}")))?;
        let mut kept = self.backups()?;
        kept.sort();
        let surplus = kept.len().saturating_sub(self.options.backups);
        for old in &kept[..surplus] {
            std::fs::remove_file(old)?;
        }
        append(path)
    }

    /// The files that were moved aside.
    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let path = &self.options.path;
        let start = aside(path, "-").with_extension("");
        let start = start.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir.unwrap_or(FilePath::new(".")))? {
            let entry = entry?.path();
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&start) && entry.extension() == path.extension() {
                found.push(entry);
            }
        }
        Ok(found)
    }
}

/// `audit.log` with `more` in its name: `audit-more.log`.
fn aside(path: &FilePath, more: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}{more}{end}"))
}

fn append(path: &FilePath) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// What the log says of a request, but how it ended.
pub(crate) struct Entry {
    log: Arc<Log>,
    event: Value,
}

impl Entry {
    /// Begins the entry of a request that has come.
    pub(crate) fn new(log: Arc<Log>, uri: &Uri, agent: &str, source: IpAddr) -> Self {
        let uri = uri.path_and_query().map_or("/", |p| p.as_str());
        let event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": uuid::Uuid::new_v4().to_string(), "stage": "", "requestURI": uri,
            "verb": "", "user": {}, "sourceIPs": [source.to_canonical().to_string()],
            "userAgent": agent, "requestReceivedTimestamp": now(),
        });
        Self { log, event }
    }

    /// Writes that the answer has begun or, if it is not a watch, that it is there.
    pub(crate) fn answered(&mut self, trail: &Trail, method: &str, code: u16, watch: bool) {
        let event = &mut self.event;
        event["verb"] = match trail.verb {
            "" => method.to_lowercase().into(),
            verb => verb.into(),
        };
        event["user"] = trail.user.as_ref().map_or_else(
            || json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
            User::show,
        );
        if let Some(acting) = &trail.acting {
            event["impersonatedUser"] = acting.show();
        }
        if let Some(path) = &trail.path {
            let mut reference = json!({"resource": path.resource, "apiVersion": path.version});
            let more = [
                ("namespace", path.namespace.as_deref()),
                ("name", path.name.as_deref()),
                ("apiGroup", Some(path.group.as_str()).filter(|g| !g.is_empty())),
                ("subresource", path.subresource.as_deref()),
            ];
            for (field, text) in more {
                if let Some(text) = text {
                    reference[field] = text.into();
                }
            }
            event["objectRef"] = reference;
        }
        event["responseStatus"] = json!({"metadata": {}, "code": code});
        let decision = if trail.allowed.is_some() { "allow" } else { "forbid" };
        if trail.user.is_some() {
            event["annotations"] = json!({"authorization.k8s.io/decision": decision,
                "authorization.k8s.io/reason": trail.allowed.as_deref().unwrap_or_default()});
        }
        self.stage(if watch { "ResponseStarted" } else { "ResponseComplete" });
    }

    fn stage(&mut self, stage: &str) {
        self.event["stage"] = stage.into();
        self.event["stageTimestamp"] = now().into();
        self.log.write(&self.event);
    }
}

/// The entry of a watch: its end is written when it is dropped.
pub(crate) struct Ending(pub(crate) Entry);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stage("ResponseComplete");
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_moved_aside_and_the_oldest_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(dir.path().join("audit-other.txt"), "not ours").unwrap();
        let options = AuditOptions { max_size: 100, backups: 2, ..AuditOptions::new(&path) };
        let log = Log::open(options.clone()).unwrap();
        for at in 0..20 {
            log.write(&json!({"n": at, "text": "x".repeat(30)}));
        }
        drop(log);
        let log = Log::open(options).unwrap();
        log.write(&json!({"n": 20, "text": "x".repeat(30)}));
        let mut kept = log.backups().unwrap();
        kept.sort();
        assert_eq!(kept.len(), 2, "{kept:?}");
        kept.push(path);
        let lines: String = kept.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
        let numbers: Vec<u64> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap())
            .collect();
        let last = *numbers.last().unwrap();
        assert_eq!(last, 20);
        assert!(numbers.len() >= 4 && numbers.windows(2).all(|w| w[0] + 1 == w[1]), "{numbers:?}");
        assert!(dir.path().join("audit-other.txt").exists());
    }
}
