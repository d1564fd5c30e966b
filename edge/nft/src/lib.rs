//! The nf_tables netlink codec and driver.
//!
//! What goes in: the wanted tables of [`rules::Rules`]. What comes out: the tables `calico` of the
//! families `ip` and `ip6` in the kernel of the calling thread's network namespace, written by one
//! transaction per apply, and a [`Report`] of what the kernel refused.
//!
//! Invariants:
//! * Only tables called `calico` are touched, and no command is executed. While packets are traced,
//!   there is one more, which goes when we do; and an empty one, `calico-seal`, carries a note.
//! * A restart adopts what is there: equal chains, sets and elements are not written, so that
//!   nothing is ever flushed (laws 3 and 4). What is the same as when it was sealed is not read: see
//!   `seal`.
//! * One refused object does not stop the rest: its chain drops everything instead, and it is
//!   offered again later (law 6).
//! * What others do to our tables is noticed and repaired at once; a program that does it all the time
//!   makes us read for a bounded share of the time, and one that changes its own tables not at all.
//!
//! Deliberately absent: what the rules mean (`core/rules`); flow tables, counters as objects.
//!
//! The other way round, [`Reader`] reads whole tables, instruction by instruction, for
//! `core/machine`; it shares the framing of messages with the rest (`wire`, `socket`), nothing else.
//! [`Tracer`] hears what the kernel does with real packets, in any table, rule by rule.
//!
//! Start reading at [`NftDriver::apply`], then `plan`, `batch` and `encode`.
#![allow(unsafe_code, reason = "system calls on the netlink socket; each has a SAFETY sentence")]

mod batch;
mod decode;
mod driver;
mod encode;
mod expr;
mod metrics;
mod monitor;
mod neighbours;
mod plan;
mod read;
mod read_expression;
mod seal;
mod socket;
mod trace;
mod wire;

pub use decode::read_anything;
pub use driver::{NftDriver, NftError, RefusedObject, Report};
pub use metrics::Metrics;
pub use monitor::Author;
pub use neighbours::{Effect, HookedChain, effect_of_target, hooked_chains};
pub use read::Reader;
pub use trace::{Fate, TraceEvent, TracedFlow, TracedHeader, TracedPacket, Tracer, Traces};
