//! The settings of every program: from every source to one typed value.
//!
//! Goes in: the environment, a configuration file's text, FelixConfiguration objects, the node's
//! name and labels ([`Sources`]). Comes out: for the agent [`Config`], for all what each setting was
//! taken from and what was bad ([`Resolved`], [`Settled`]).
//!
//! A setting is a row: the agent's parameters are those of [`api::v3::felix::PARAMETERS`], what other
//! programs and the agent's process read is beside them ([`Component`]). Each gives the name, the field,
//! the parser, the range, the default, and how a change of it reaches an agent that runs.
//!
//! Invariants: a bad value never reaches [`Config`]; it is told and the next default is used, and
//! for parameters marked so the caller is told to stop.
//!
//! Deliberately absent: reading the environment or files, what the settings do.
//!
//! Start reading at [`resolve`] and [`settle`].

mod describe;
mod parse;
mod rows;
mod sources;
mod typed;

pub use describe::{applied, find, similar, values};
pub use parse::{ProtoPort, Setting, parse};
pub use rows::{Component, Group, Row};
pub use sources::{Problem, Resolved, Settled, Source, Sources, Values, resolve, settle};
pub use typed::{
    Config, DenyAction, Etcd, HostAction, Listen, LogLevel, MAIN_LOOP, NatExclusions, RateLimit,
    Reporting,
};
