//! Address management: which address a pod gets, and how several nodes agree about it without
//! talking to each other.
//!
//! Goes in: pools, reservations, a [`Request`], and a [`Store`] that can compare-and-swap.
//! Comes out: addresses, and the three kinds of object in exactly the form that upstream writes
//! ([`Block`], [`Handle`], [`Affinity`]), so that both implementations can share a cluster.
//!
//! Invariants:
//! * an address is given out once: every write carries the revision that it was calculated from;
//! * a block belongs to the node whose affinity was confirmed after the block was created (two
//!   phases: pending affinity, block, confirmed affinity; release runs backwards);
//! * a handle counts at least the addresses that carry it, so that releasing by handle finds all;
//! * a request for several addresses gets all of them or none.
//!
//! Deliberately absent: sockets, clocks, retries with waiting. The protocol is written as `async`
//! functions over [`Store`], which is a seam, not a runtime: tests drive many nodes through one
//! store, one operation at a time, in any order. Time comes in as an argument. Who wants to
//! reserve addresses ahead calls [`assign`] early and hands out later: nothing here ties a call to
//! a pod's start.
//!
//! Start reading at [`assign`] (`assign.rs`), then `block.rs`.

mod affinity;
mod assign;
mod block;
mod handle;
mod names;
mod objects;
mod order;
mod pool;
mod release;
mod store;

pub use affinity::{ClaimError, claim, release_affinity};
pub use assign::{AssignError, Assigned, Limits, Request, assign, assign_exact};
pub use block::{BlockError, Freed};
pub use names::{affinity_name, block_name, handle_name};
pub use objects::{Affinity, AffinityState, Attribute, Block, Handle, Kind};
pub use order::search_order;
pub use pool::{Pool, PoolError, Use, Who, choose, parse_list};
pub use release::{ReleaseError, release_address, release_handle};
pub use store::{Store, StoreError, Stored};

#[cfg(test)]
mod tests;
