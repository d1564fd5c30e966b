//! List and watch to typed updates.
//!
//! Goes in: the API, kind by kind. Comes out, to a [`Sink`]: one [`Update`] per change of an
//! object's meaning, what the agent itself wants to know of ([`Seen`]), which objects are refused
//! and why, and once [`Update::InSync`] when every kind has been listed.
//!
//! Invariants:
//! * whatever happens to the server or the connection, no delete is lost or repeated: after a new
//!   list, what was known and is not listed is reported gone, and what has not changed is not
//!   reported again;
//! * an object that cannot be understood counts as absent, or fails closed where that would not be
//!   safe (`api::convert::closed`), and is reported once per revision;
//! * one list at a time per kind; waits grow, with jitter;
//! * [`Pending`] holds at most one update per object (law 7).
//!
//! Deliberately absent: what updates mean (`calc`), whole objects: only what was converted is kept,
//! and that by the sink.
//!
//! Start reading at [`run`] (`follow.rs`), then `kinds.rs`.

mod follow;
mod kinds;
mod pending;

pub use follow::{Interests, Sink, SyncState, run};
pub use kinds::{NamespaceFacts, Seen, resources};
pub use pending::Pending;

#[doc(no_inline)]
pub use model::Update;
