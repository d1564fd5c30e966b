//! The label selector language of Calico (`libcalico-go/lib/selector` upstream).
//!
//! Goes in: selector text. Comes out: [`Selector`], a cheap-to-clone parsed expression with its
//! canonical text, its stable id and its evaluation over labels.

mod expr;
pub use expr::{Labels, ParseError, Selector};
