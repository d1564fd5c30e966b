//! The Kubernetes wire contract over a storage trait.
//!
//! In go HTTP requests and a [`storage::Storage`]; out come the answers that `kubectl` and other clients
//! of a Kubernetes API expect, and the background work that keeps the objects consistent: namespaces and
//! their content, owners and dependents, endpoint slices. Invariants: an answer that says "written" means
//! that the store has it; a list and a watch from its revision show every change exactly once; nothing is
//! written half; nobody does what no role of his allows. Deliberately absent: containers (exec, logs),
//! workloads (Deployments and the like), calls of other people's admission webhooks, storage of its own. Who somebody is and what
//! he may do is known here, or asked of a [`Delegate`]. Start reading at [`Server`], then `http`, then `verbs`.

mod access;
mod admission;
mod api;
mod audit;
mod auth;
mod body;
mod builtin;
mod certificate;
mod connections;
mod controllers;
mod defaults;
mod derived;
mod discovery;
mod document;
mod draft;
mod hooks;
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
mod rights;
mod schema;
mod selectors;
mod server;
mod services;
mod status;
pub mod storage;
mod subject;
mod system;
mod table;
mod table_rows;
mod tier_rights;
mod tiers;
mod tls;
mod trust;
mod verbs;
mod view;

pub use audit::AuditOptions;
pub use auth::User;
pub use certificate::ServingFiles;
pub use hooks::{HookOptions, HookServer};
pub use limits::Limits;
pub use local::Local;
pub use rbac::Target;
pub use rights::{Delegate, Delegation, Namespace, Unanswered};
pub use server::{Access, Options, Server, Surface};
pub use services::Range;
pub use tls::{Identity, IdentityError, new_serving_certificate, write_private};
pub use trust::Trust;
