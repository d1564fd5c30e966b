//! Other network namespaces.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result};

/// An open network namespace; it stays while this value lives.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Opens the namespace at `path`, as a container runtime gives it.
    pub fn open(path: &Path) -> Result<Self> {
        match File::open(path) {
            Ok(file) => Ok(Self(file)),
            Err(source) => Err(Error::File { path: path.display().to_string(), source }),
        }
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Runs `work` inside the namespace, on a scratch thread, so that the caller never changes
    /// namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(self.as_fd(), work)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// [`Netns::run`] for a namespace that somebody else opened.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(Error::Netns)?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
