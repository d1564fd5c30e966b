//! Established flows meet changed policy: those that it denies now are cut.
//!
//! What goes in: the rules' wanted tables after each commit, and whose flows it may concern
//! ([`rules::Affected`]). What comes out: a bit in the marks of the flows that would not pass if they
//! began now; rules ahead of "established" end their packets and tell both ends of TCP. A flow that
//! policy allows again goes on; one that policy allows all the time loses no packet.
//!
//! How: a thread reads connection tracking entries (the kernel filters, where few addresses are
//! concerned) and finds out where their ends are; the caller's thread, which owns the rules, asks them
//! for a ruling; the thread marks. Deleting an entry would not do: the next packet of the other side
//! would make a new one the other way round.
//!
//! Invariants: only our bit is touched; what is looked at is what a change concerns, and everything
//! once, after the first commit; looking takes a twentieth of one core at most (changes wait and
//! coalesce meanwhile, 5 seconds at most); what cannot be judged is left alone: flows that another flow announced, other
//! zones, addresses that no route leads to.
//!
//! Deliberately absent: what policy means (`rules`), the rules that end packets (there, too).
//!
//! Start reading at [`Cutter`], then `worker`; `poke` is how silent ends of TCP are told.

mod cutter;
mod poke;
mod worker;

pub use cutter::{Cut, Cutter, Metrics};
