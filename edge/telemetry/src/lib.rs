//! What an operator sees of a process: logs, metrics, health.
//!
//! Goes in: a log configuration, a metrics registry, health reports, documents of status and configuration. Comes out:
//! lines on standard error (and in a file), and HTTP on one or more addresses and sockets.
//!
//! Invariants: a component that stops reporting makes the process unhealthy after its own timeout;
//! serving never blocks the component that reports.
//!
//! Deliberately absent: what the metrics are (each component has its own), profiling.
//!
//! Start reading at [`Health`], [`serve`], [`init_logs`].

mod health;
mod logs;
mod server;

pub use health::{Aspects, Component, Health, Report, Reporter};
pub use logs::{Format, LogConfig, LogError, Logs, init_logs};
pub use server::{DocumentFn, Endpoints, ServeError, Server, serve, serve_local};

/// The registry of the metrics library, so that users need not name it.
pub use prometheus_client::registry::Registry;
