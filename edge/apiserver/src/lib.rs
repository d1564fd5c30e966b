//! The Kubernetes wire contract over a storage trait.
//!
//! In go HTTP requests and a [`storage::Storage`]; out come the answers that `kubectl` and other clients
//! of a Kubernetes API expect, and the background work that keeps the objects consistent: namespaces and
//! their content, owners and dependents, endpoint slices. Invariants: an answer that says "written" means
//! that the store has it; a list and a watch from its revision show every change exactly once; nothing is
//! written half; nobody does what no role of his allows. Deliberately absent: containers (exec, logs),
//! workloads (Deployments and the like), admission webhooks, storage of its own. Start reading at [`Server`], then `http`, then `verbs`.

mod access;
mod admission;
mod api;
mod audit;
mod auth;
mod body;
mod builtin;
mod connections;
mod controllers;
mod defaults;
mod derived;
mod discovery;
mod document;
mod draft;
mod http;
mod limits;
mod local;
mod managed;
mod names;
mod negotiate;
mod proto;
mod rbac;
mod registry;
mod request;
mod reviews;
mod schema;
mod selectors;
mod server;
mod services;
mod status;
pub mod storage;
mod subject;
mod table;
mod table_rows;
mod tiers;
mod tls;
mod verbs;
mod view;

pub use audit::AuditOptions;
pub use limits::Limits;
pub use local::Local;
pub use server::{Access, Options, Server, Surface};
pub use services::Range;
pub use tls::{Identity, IdentityError, write_private};
