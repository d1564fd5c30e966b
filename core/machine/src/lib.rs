//! An interpreter of nf_tables rules, as the kernel has them.
//!
//! Goes in: a table as read back from the kernel ([`Table`]: chains, rules of small instructions,
//! sets, maps) and a packet with its way through the host ([`Packet`], [`Way`]). Comes out: whether
//! the packet passes, and every rule that it met, with what did not fit ([`Run`]).
//!
//! Invariants:
//! * Nothing here knows how our rules are made: no code is shared with `core/rules` or with the
//!   encoder of `edge/nft`, so that this is a second opinion about them.
//! * What cannot be known from the question (a limit that may be exceeded, a field of the packet
//!   that the question leaves open, an instruction that is not understood) never becomes a guess:
//!   where it bears on the verdict, the verdict is [`Verdict::Unknown`] with the reason.
//!
//! Deliberately absent: reading the kernel (`edge/nft`), other tables than the one given, the NAT
//! that other tables do, what policy means (`core/policy`).
//!
//! Start reading at [`run`], then `execute`.

mod execute;
mod packet;
mod register;
mod run;
mod set;
mod table;
#[cfg(test)]
mod tests;

pub use packet::{Packet, Way};
pub use run::{Met, Run, Verdict, run};
pub use set::{Data, Element, Set};
pub use table::{
    Base, Chain, Comparison, Counters, Expression, Hook, Jump, Load, Rule, Store, Table,
};
