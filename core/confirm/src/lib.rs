//! Changes that are undone unless somebody confirms them in time.
//!
//! Goes in: objects with a [`Mark`] (an annotation), the model's updates, a clock that only goes
//! forward. Comes out: the updates that are in force instead, and when to look again.
//!
//! * [`mark`]: what stands in the annotation; marking an object, and taking that back.
//! * [`guard`]: the state machine of one agent, over all transactions.
//!
//! The protocol, whole (docs/lock-out.md says it for users):
//! * The objects of one apply form a transaction. Each carries its id, how long it may stay
//!   unconfirmed, its own previous form (null: it was created) and where the transaction's first
//!   object, the lead, is.
//! * The end of a transaction is decided once, by compare-and-swap of the lead's mark, as
//!   confirmed or reverted. Who decided, or whoever finds a decision, carries it out: first the
//!   other objects, last the lead, each by compare-and-swap. So whoever dies in between, the rest
//!   is done by another, in the same sense.
//! * An agent puts a marked object in force only after it has on disk what it needs to go back.
//!   It counts from the moment it first saw the transaction, by a clock that runs during sleep.
//!   When the time is over it takes the previous forms of all objects at once, asking nobody;
//!   then it tries to decide "reverted" in the store.
//! * The store's word counts: an object without its mark is what it says, whoever wrote it.
//!
//! Invariants: all objects of a transaction are in force in the same sense; what is due is never
//! in force; nothing without a mark is ever changed.
//!
//! Deliberately absent: files, clocks, requests (`edge/datastore`, `bin/node`).
//!
//! Start reading at [`Guard`].

pub mod guard;
pub mod mark;

pub use guard::{Guard, Left, Phase};
pub use mark::{BadMark, Decision, Guarded, KINDS, Mark, Marked, Object};
