//! A program that serves an API, and questions to it.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) fn calico() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that does not outlive its test.
pub(crate) struct Serving(Option<Child>);

impl Serving {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    /// One that was started already.
    pub(crate) fn of(child: Child) -> Self {
        Self(Some(child))
    }

    /// Ends it as a supervisor would, and waits.
    pub(crate) fn end(mut self, signal: Signal) -> Output {
        let child = self.0.take().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it says when it ends by itself.
    pub(crate) fn refused(mut self, parts: &[&str]) {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        for part in parts {
            assert!(told.contains(part), "{part:?} is missing in:\n{told}");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// `calicoctl ARGS`, again and again until it succeeds.
pub(crate) fn ctl(kubeconfig: &Path, args: &[&str]) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut command = calico();
        let output =
            command.arg("ctl").arg("--kubeconfig").arg(kubeconfig).args(args).output().unwrap();
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap();
        }
        assert!(Instant::now() < until, "{}", String::from_utf8_lossy(&output.stderr));
        std::thread::sleep(Duration::from_millis(30));
    }
}
