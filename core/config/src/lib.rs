//! Felix configuration: from every source to one typed value.
//!
//! Goes in: the environment, a configuration file's text, FelixConfiguration objects, the node's
//! name and labels ([`Sources`]). Comes out: [`Config`], what each parameter was taken from, and
//! what was bad ([`Resolved`]).
//!
//! The parameters are the rows of [`api::v3::felix::PARAMETERS`]: each gives the name, the field,
//! the parser, the range and the default.
//!
//! Invariants: a bad value never reaches [`Config`]; it is told and the next default is used, and
//! for parameters marked so the caller is told to stop.
//!
//! Deliberately absent: reading the environment or files, what the settings do.
//!
//! Start reading at [`resolve`].

mod describe;
mod parse;
mod sources;
mod typed;

pub use describe::{environment, find, similar, values};
pub use parse::{ProtoPort, Setting, parse};
pub use sources::{Problem, Resolved, Source, Sources, resolve};
pub use typed::{Config, DenyAction, HostAction, Listen, LogLevel, NatExclusions, RateLimit};
