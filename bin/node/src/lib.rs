//! `calico-node`: the agent of one node.
//!
//! Goes in: the environment (`FELIX_*`, `NODENAME`, `KUBECONFIG`, `ETCD_*`, ...), the API, the CNI plugin's
//! requests, the kernel's notifications. Comes out: a kernel that enforces policy and routes pods,
//! the node's own annotations, health, metrics, logs.
//!
//! Shape: an asynchronous side (syncer, CNI server, start-up, health) and one thread that owns the
//! calculation and the dataplane ([`engine`]). They meet in one queue that coalesces by object
//! ([`inbox`]).
//!
//! Invariants:
//! * nothing is programmed or swept before the datastore is in sync (law 3); an explicit DEL is
//!   obeyed at any time;
//! * an ADD returns after the pod's policy is in the kernel (law 10);
//! * what a pod was given by an ADD holds until its DEL, whatever the API says meanwhile
//!   ([`overlay`]);
//! * the kernel is the journal: after a restart, interfaces tell which containers there are
//!   ([`recover`]);
//! * an unconfirmed change is in force only after what is needed to go back is on disk, and never
//!   after its time ([`guard`]).
//!
//! Deliberately absent: policy semantics, netlink and nf_tables encoding, BGP.
//!
//! Start reading at [`run`] (`agent.rs`), then `engine.rs`, `server.rs`, `add.rs`.

mod add;
mod agent;
mod annotate;
mod detect;
mod drivers;
mod engine;
mod felix;
mod foreign;
mod guard;
mod inbox;
mod kernel;
mod memory;
mod overlay;
mod place;
mod pods;
mod policies;
mod recover;
#[cfg(test)]
mod reference;
mod release;
mod reporting;
mod serve;
mod server;
mod settings;
mod startup;
mod status;
mod workloads;

pub use agent::{command, run};
