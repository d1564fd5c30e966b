//! Route, neighbour, tunnel and link tables kept as wanted.
//!
//! What goes in: wanted routes, tunnels and tunnel ends. What comes out: a kernel that has them, and
//! what is known of the host's interfaces.
//!
//! Invariants: `want_*` touches memory only, [`Driver::apply`] touches the kernel (law 2); nothing
//! that an earlier run left is removed without the witness (law 3); our own leftovers are known by
//! protocol number and interface name alone (law 4, see [`table`]); tunnel ends exist before routes
//! use them and go after them (law 5); a refused route stops nothing (law 6); the kernel's
//! notifications keep the observed side true, so that changes made by others are repaired without
//! reading everything back (law 8). What is right already is not touched.
//!
//! Deliberately absent: what should be wanted (that is `dataplane`), rules, sets.
//!
//! Start reading at [`Driver`], then [`ledger`], [`table`] and [`tunnel`].

pub mod driver;
pub mod interfaces;
pub mod ledger;
pub mod table;
pub mod tunnel;

pub use driver::{Applied, Driver, Metrics};
