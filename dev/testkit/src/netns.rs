//! Network namespaces that vanish with their owner.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs `test` on a thread of its own in a fresh network namespace with loopback up.
///
/// # Panics
/// Without the right to make namespaces, and with whatever `test` panics.
pub fn in_netns<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        enter_fresh();
        test()
    })
}

/// A name that no other test of this machine uses: `prefix`, the process and a counter.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace without a name: it lives as long as this value (or a process in it) does,
/// so nothing is left behind even when the test is killed.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A fresh namespace with loopback up.
    ///
    /// # Panics
    /// Without the right to make namespaces.
    #[expect(clippy::new_without_default, reason = "making a namespace is an effect")]
    pub fn new() -> Self {
        let file = on_thread(|| {
            enter_fresh();
            File::open("/proc/thread-self/ns/net").expect("own namespace can be opened")
        });
        Self { file }
    }

    /// The namespace of the calling thread.
    ///
    /// # Panics
    /// Without `/proc`.
    pub fn current() -> Self {
        let file = File::open("/proc/thread-self/ns/net").expect("own namespace can be opened");
        Self { file }
    }

    /// The same namespace, held once more.
    pub(crate) fn again(&self) -> Self {
        Self { file: self.file.try_clone().expect("a descriptor can be copied") }
    }

    /// A path at which other processes can open the namespace while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Runs `work` on a scratch thread inside the namespace.
    ///
    /// # Panics
    /// With whatever `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("namespace can be entered");
            work()
        })
    }

    /// [`crate::sh`] inside the namespace.
    pub fn sh(&self, command: &str) {
        self.run(|| crate::sh(command));
    }

    /// [`crate::out`] inside the namespace.
    pub fn out(&self, command: &str) -> String {
        self.run(|| crate::out(command))
    }

    /// [`crate::try_sh`] inside the namespace.
    pub fn try_sh(&self, command: &str) -> Result<String, String> {
        self.run(|| crate::try_sh(command))
    }

    /// Starts a process inside the namespace. The caller ends it.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Child {
        self.run(|| command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A namespace with a unique name under `/run/netns`, for programs that take a name or a path.
/// Unmounted and removed on drop.
#[derive(Debug)]
pub struct NamedNetns {
    inner: Netns,
    name: String,
}

impl NamedNetns {
    /// A fresh namespace whose name starts with `prefix`.
    ///
    /// # Panics
    /// Without root.
    pub fn new(prefix: &str) -> Self {
        let inner = Netns::new();
        let made = Self { inner, name: unique(prefix) };
        FOLDER.call_once(prepare_folder);
        File::create(made.path()).expect("a file in /run/netns can be made");
        let from = made.inner.path();
        let none: Option<&Path> = None;
        mount(Some(&from), &made.path(), none, MsFlags::MS_BIND, none).expect("bind mount (root?)");
        made
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

impl std::ops::Deref for NamedNetns {
    type Target = Netns;
    fn deref(&self) -> &Netns {
        &self.inner
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        // Drop cannot report; a leftover mount point is found by its prefix and process id.
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(self.path());
    }
}

static FOLDER: Once = Once::new();

/// Does what the first `ip netns add` does: makes `/run/netns` a mount point of its own. If `ip` did
/// so later, its mount would cover ours, and they could not be removed.
fn prepare_folder() {
    const NONE: Option<&Path> = None;
    let folder = Path::new("/run/netns");
    std::fs::create_dir_all(folder).expect("/run/netns can be made");
    let file = File::open(folder).expect("/run/netns can be opened");
    let _lock = Flock::lock(file, FlockArg::LockExclusive).expect("/run/netns can be locked");
    let share = || mount(NONE, folder, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    if share().is_err() {
        mount(Some(folder), folder, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .and_then(|()| share())
            .expect("/run/netns can be made a mount point (root?)");
    }
}

fn enter_fresh() {
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("a network namespace can be made: these tests need root (CAP_SYS_ADMIN)");
    // Tests must not wait a second for duplicate address detection.
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
        std::fs::write(&path, "0").unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    crate::sh("ip link set lo up");
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        thread::Builder::new()
            .name(thread::current().name().unwrap_or("netns").to_owned())
            .spawn_scoped(scope, work)
            .expect("a thread can be started")
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
