//! The executable specification of network policy: what a policy *means*.
//!
//! Goes in: a [`View`] of the cluster (the objects of `model`, as they are in the datastore, nothing
//! compiled) and a [`Packet`], the first of a flow. Comes out: a [`Decision`]: the verdict, the
//! places on the packet's way where policy was asked, and at each the rule that decided, with
//! everything that was considered before it.
//!
//! It is written to be read beside section 2 of the capability inventory, not to be fast. A [`Judge`]
//! remembers what many questions about one view have in common, answers those that want no reasons from
//! an index ([`Judge::decide`]), and says who reaches whom of thousands at once ([`Judge::reach`]); what a
//! rule's field matches and where a packet is judged stands in one place for all three. It shares no code
//! with `calc` and `rules`, because it is the oracle that those are tested against (law 9).
//!
//! Invariants:
//! * [`evaluate`] is total: every view and packet has a decision; what the view does not know is an
//!   address outside the cluster.
//! * The order of the objects in a view never changes a decision.
//! * The fast forms say what [`evaluate`] says (tests on random clusters).
//!
//! Deliberately absent: connection tracking (a packet of an established flow is accepted before
//! policy), anti-spoofing and the ban on tunnel packets from pods (the data plane drops those before
//! policy), service translation itself (a packet says what its destination was before it), HTTP matches (layers 3
//! and 4 of such a rule are what a packet data plane can see).
//!
//! Start reading at [`Judge::evaluate`], then `path::walk`, `place`, `endpoint::decide`, `rule::matches`.

mod bits;
mod classes;
mod decision;
mod endpoint;
mod indexed;
mod judge;
mod order;
mod packet;
mod path;
mod place;
mod reach;
mod rule;
mod standing;
mod view;

pub use decision::{Considered, Decision, Direction, Point, Reason, Step, Verdict};
pub use judge::Judge;
pub use packet::Packet;
pub use path::evaluate;
pub use reach::Reach;
pub use view::{Failsafe, NodeView, Overlay, View};

#[cfg(test)]
mod tests;
