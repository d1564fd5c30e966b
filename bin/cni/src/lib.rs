//! The CNI plugin, and the words that it exchanges with the node agent.
//!
//! Goes in: the environment and standard input that a container runtime gives a plugin. Comes out:
//! a result or an error in CNI's JSON on standard output, and an exit code.
//!
//! Invariants:
//! * one request over a unix socket to the agent does the work; the plugin holds no credentials and
//!   knows nothing about the cluster;
//! * DEL succeeds, with the agent down as well: what is to be deleted is then left in a spool
//!   folder beside the socket ([`spool`]), and the agent does it when it is back;
//! * nothing but CNI's JSON is ever written to standard output.
//!
//! Deliberately absent: namespaces, netlink, IPAM. They are the agent's.
//!
//! Start reading at [`run`], then [`protocol`].

mod input;
mod plugin;
pub mod protocol;
pub mod spool;

pub use input::{BadInput, Command, Env, Input, SUPPORTED_VERSIONS};
pub use plugin::{DEFAULT_SOCKET, run};
