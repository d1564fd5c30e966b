//! Calculated policy to nftables-shaped tables: sets, verdict maps, chains, rules.
//!
//! What goes in: [`model::output::Output`]s and a [`RulesConfig`]. What comes out: [`Tables`], one
//! [`Table`] per address family with everything that shall be in the kernel, and the [`Changes`]
//! since the last look, so that a driver's work is proportional to the change (law 8).
//!
//! Invariants:
//! * The tables mean what `core/policy` says (law 9). Whatever is unknown is closed: an interface
//!   with a workload prefix but no entry in the dispatch maps drops everything, from the first
//!   table on.
//! * The tables are a function of the current state, not of its history (law 1). Only the capacity
//!   (and with it the name suffix) of a big hash set remembers the largest size that it had.
//! * Elements of an interval set never overlap: see [`cover::Cover`].
//! * A family's table has of policies and sets what its endpoints ask for, and nothing else.
//! * The number of sets grows with members, not with selectors: small sets of addresses share sets.
//! * What several pods share is there once: policies, sets, and the chains of groups of pods with
//!   the same policies. A pod of a kind that is known adds elements of maps, and no rule.
//! * Every rule decides in few steps for packets of established flows: they meet the source check
//!   and two connection-tracking rules.
//! * [`Rules::rulings`] says about a flow what the tables say about its first packet, or nothing.
//!
//! Deliberately absent: netlink (`edge/nft` has it), layer 7, staged policies (never programmed).
//!
//! Start reading at [`object`], then [`Rules`], then `fixed` for the packet's way and `group` and
//! `endpoint` for how tiers become rules.

pub mod affected;
pub mod config;
pub mod cover;
mod endpoint;
mod engine;
mod fixed;
mod flow;
mod group;
mod host;
pub mod judge;
mod members;
mod name;
mod needed;
pub mod object;
mod rule;
mod sets;
pub mod table;
mod workload;

pub use affected::Affected;
pub use config::RulesConfig;
pub use engine::Rules;
pub use judge::{Flow, Place, Ruling};
pub use object::{Chain, Key, Match, Name, Rule, Set, SetSpec, Statement, Verdict};
pub use table::{Changes, SetChange, Table, Tables};
