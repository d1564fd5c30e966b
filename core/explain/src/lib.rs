//! Questions about policy in the words of users, and their answers.
//!
//! Goes in: objects as files or the API have them ([`Cluster::add`]); questions that name pods,
//! host endpoints, nodes, services or addresses ([`Question`]). Comes out: verdicts with the rule
//! that decided ([`Answer`]), everything that was considered ([`Answer::considered`]), tables of
//! who reaches whom ([`matrix`]), results of expectations ([`Expectation`]).
//!
//! Invariants: what a policy means is [`policy`]'s word alone; what an object means is [`api`]'s.
//! Field names and words of the answers are formats that scripts rely on.
//!
//! Deliberately absent: reading files, the network, printing; what the kernel has in force.
//!
//! Start reading at [`Cluster`], then [`Asker::ask`].

mod answer;
mod ask;
mod cluster;
mod expect;
mod here;
mod matrix;
mod reference;
mod selectors;

pub use answer::{Answer, Considered, Half, Words};
pub use ask::{Asker, Question, ask_line};
pub use cluster::{Cluster, Problem};
pub use expect::{Expectation, Report};
pub use here::{Here, here};
pub use matrix::{Change, Matrix, matrix};
pub use reference::{BadReference, Reference};
pub use selectors::{Checked, check, check_line, match_line};
