//! `calico sandbox`: a cluster on one machine.
//!
//! Goes in: a number of nodes and a few options. Comes out: network namespaces for a hub, nodes and
//! hosts outside; the embedded API; on every node the unchanged agent; a stand-in for the kubelet
//! that makes pods' namespaces and calls the CNI plugin as a container runtime does; a scheduler;
//! probes that measure who reaches whom with real connections.
//!
//! Invariants: everything of a sandbox carries its name (namespaces) or stands in its state folder,
//! so that several run side by side and `down` finds all of it, also after a crash; the agent, the
//! plugin and the policy code are told nothing that they would not be told on a real node.
//!
//! Deliberately absent: containers and images. A pod is a network namespace with a responder on its
//! container ports.
//!
//! Start reading at [`run`], then `cluster` (up, down), `supervisor` (what runs while it is up),
//! `kubelet`, `probe`, `demo`.

mod args;
mod client;
mod cluster;
mod demo;
mod exec;
mod kubelet;
mod lock;
mod matrix;
mod netns;
mod node;
mod pods;
mod print;
mod probe;
mod process;
mod responder;
mod scheduler;
mod sctp;
mod serve;
mod state;
mod status;
mod supervisor;
mod topology;
mod view;

pub use args::{command, run};
