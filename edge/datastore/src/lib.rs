//! The client side of the datastore.
//!
//! Goes in: a kubeconfig (or the pod's own service account), typed requests. Comes out: objects,
//! watch events, and errors that say what to do next ([`Error::next`]).
//!
//! * [`Datastore`]: list in pages, watch, get, create, replace, patch, delete, of any kind.
//! * [`Feed`]: the same reads, where a store can be read without the API in between.
//! * [`Backoff`]: how long to wait before trying again, with jitter.
//! * [`Addresses`]: address management for one node, over `ipam`'s protocol.
//! * [`settle`]: the end of an unconfirmed change, in the store; [`snapshot`]: a store as it was.
//!
//! Invariants: every request is bounded in time; a write that could have happened is never reported
//! as one that did not.
//!
//! Deliberately absent: caches of the cluster (the syncer's), what objects mean (`api`).
//!
//! Start reading at [`Datastore`].

mod addresses;
mod backoff;
mod client;
mod error;
mod feed;
mod ipam_store;
mod kinds;
mod renew;
mod settings;
mod settle;
pub mod snapshot;

pub use addresses::{Addresses, AddressesError, Ask, TunnelKind};
pub use backoff::Backoff;
pub use client::{Datastore, Item, Page, WatchEvent};
pub use error::{Error, Next};
pub use feed::{Events, Feed};
pub use kinds::Resource;
pub use settings::{PoolInfo, Settings};
pub use settle::{Settled, settle, unconfirmed};
