//! The running server's back door, a socket in its folder: who may use the folder may ask for a backup.
//! A line of JSON each way.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::Manifest;
use crate::{MaintenanceError, Store};

const SOCKET: &str = "control.sock";
/// How long a question may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    backup: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Made(Box<Manifest>),
    Refused(String),
}

/// Asks the server of `data_dir` for a backup; `None` if none is running.
pub(crate) fn ask_backup(data_dir: &Path, to: &Path) -> Result<Option<Manifest>, MaintenanceError> {
    let path = data_dir.join(SOCKET);
    let io = |source| MaintenanceError::io(&path, source);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                // The last: a path that is too long for a socket, which the server has not made either.
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::InvalidInput => Ok(None),
                _ => Err(io(error)),
            };
        }
    };
    let question = serde_json::to_string(&Question { backup: to.into() });
    let question = question.map_err(io::Error::other).map_err(io)?;
    stream.write_all(format!("{question}\n").as_bytes()).map_err(io)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(io)?;
    match serde_json::from_str(&line).map_err(io::Error::other).map_err(io)? {
        Answer::Made(manifest) => Ok(Some(*manifest)),
        Answer::Refused(why) => Err(MaintenanceError::Refused(why)),
    }
}

/// Answers questions until dropped.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl Control {
    /// Begins to answer, on threads of its own: it does not keep the process, or the store, alive.
    pub(crate) fn start(data_dir: &Path, store: &Arc<Store>) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        // The store file is ours alone: a socket that is there was left behind.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let store = Arc::downgrade(store);
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        std::thread::Builder::new().name("store-control".into()).spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Some(store)) = (stream, store.upgrade()) else { return };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = answer(&stream, &store) {
                    tracing::debug!(%error, "a question was not answered");
                }
            }
        })?;
        Ok(Self { path, over })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        drop(UnixStream::connect(&self.path));
        drop(std::fs::remove_file(&self.path));
    }
}

fn answer(mut stream: &UnixStream, store: &Store) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    io::Read::take(BufReader::new(stream), 8_192).read_line(&mut line)?;
    if line.is_empty() {
        return Ok(());
    }
    let question: Question = serde_json::from_str(&line).map_err(io::Error::other)?;
    let answer = match store.backup(&question.backup) {
        Ok(manifest) => Answer::Made(Box::new(manifest)),
        Err(error) => Answer::Refused(error.to_string()),
    };
    stream.write_all(serde_json::to_string(&answer).map_err(io::Error::other)?.as_bytes())
}
