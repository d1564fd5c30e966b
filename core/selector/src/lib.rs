//! The label selector language of Calico (`libcalico-go/lib/selector` upstream).
//!
//! Goes in: selector text. Comes out: [`Selector`], a cheap-to-clone parsed expression with its
//! canonical text, its stable id, its evaluation over labels, and [`Restrictions`] that an index
//! uses to find the few objects that could match.
//!
//! Invariants:
//! * Two texts that differ only in white space, quoting, redundant parentheses or the order of a set
//!   literal have one canonical text and therefore one id.
//! * Restrictions are sound: an object that breaks one of them never matches.
//! * Nesting is bounded, so neither parsing, evaluation nor dropping can exhaust the stack.
//!
//! Deliberately absent: limits on the length of the text (the API's business), knowledge of
//! particular labels, interning.
//!
//! Start reading at [`Selector`] (`expr`), then `parse`, `ast`, `restrict`.

mod ast;
mod expr;
mod labels;
mod parse;
mod restrict;

pub use ast::{Expr, Test};
pub use expr::{NamespaceSelector, Selector};
pub use labels::Labels;
pub use parse::{MAX_DEPTH, MAX_KEY_LEN, ParseError};
pub use restrict::{Restriction, Restrictions};
