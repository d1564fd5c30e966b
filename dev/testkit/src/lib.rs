//! Test kit: network namespaces, topologies, probes, a Kubernetes control plane.
//!
//! What goes in: a test that needs a kernel of its own. What comes out: network namespaces that
//! nobody else has, nodes and pods joined to a small network, and measured answers to "can this one
//! reach that one". And a test that needs a real Kubernetes: etcd and its API server, for it alone, and nodes that run
//! containers; or etcd alone. And a test that needs another kernel than the one it runs on: a virtual machine.
//!
//! Invariants: every namespace is unique to its test, so tests run in parallel; everything is gone
//! when its owner is dropped, also while panicking; without root it panics, because a test that
//! cannot run must fail.
//!
//! Deliberately absent: any code of the product (the kit must not be wrong in the same way).
//!
//! Start reading at [`in_netns`], then [`Netns`], then [`Topology`]; [`ControlPlane`] and [`in_vm`]
//! stand by themselves.

mod authority;
mod control_plane;
mod etcd;
mod kubelet;
mod netns;
mod probe;
mod processes;
mod supervisor;
mod topology;
mod vm;
mod wire;

pub use authority::Authority;
pub use control_plane::{ControlPlane, Controllers, Extras, kube_program};
pub use etcd::Etcd;
pub use kubelet::{Furniture, NodeFolder};
pub use netns::{NamedNetns, Netns, in_netns, unique};
pub use probe::{Server, can_connect, get, tcp_reply, udp_reply};
pub use processes::Processes;
pub use topology::{Node, Topology};
pub use vm::in_vm;
pub use wire::{RawIp, Wire};

use std::process::Command;

/// Runs a shell command in the namespace of the calling thread.
///
/// # Panics
/// If the command fails; with its output.
pub fn sh(command: &str) {
    drop(out(command));
}

/// Runs a shell command in the namespace of the calling thread and returns what it printed.
///
/// # Panics
/// If the command fails; with its output.
pub fn out(command: &str) -> String {
    try_sh(command).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// Runs a shell command in the namespace of the calling thread: what it printed, or why it failed.
pub fn try_sh(command: &str) -> Result<String, String> {
    let done = Command::new("sh")
        .args(["-e", "-c", command])
        .output()
        .map_err(|error| format!("sh: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    Err(format!("{}: {text}{}", done.status, String::from_utf8_lossy(&done.stderr)))
}
