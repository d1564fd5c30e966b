//! The parsed expression: evaluation and canonical text.

use std::sync::Arc;

use crate::Labels;
use crate::parse::is_key;

/// An expression over labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// `all()`
    All,
    /// A test of one label.
    Label(Arc<str>, Test),
    /// `!x`
    Not(Box<Expr>),
    /// `(a && b && ..)`, at least two operands.
    And(Vec<Expr>),
    /// `(a || b || ..)`, at least two operands.
    Or(Vec<Expr>),
}

/// What is asked of one label. `Ne` and `NotIn` hold when the label is missing; all others do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// `has(k)`
    Has,
    /// `k == "v"`
    Eq(Arc<str>),
    /// `k != "v"`
    Ne(Arc<str>),
    /// `k contains "v"`
    Contains(Arc<str>),
    /// `k starts with "v"`
    StartsWith(Arc<str>),
    /// `k ends with "v"`
    EndsWith(Arc<str>),
    /// `k in {..}`; sorted, without duplicates.
    In(Box<[Arc<str>]>),
    /// `k not in {..}`; sorted, without duplicates.
    NotIn(Box<[Arc<str>]>),
}

impl Expr {
    pub(crate) fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        match self {
            Self::All => true,
            Self::Label(key, test) => test.matches(labels.get(key)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(all) => all.iter().all(|n| n.matches(labels)),
            Self::Or(any) => any.iter().any(|n| n.matches(labels)),
        }
    }

    /// Shows each label key, as often as it stands there.
    pub(crate) fn each_key(&self, see: &mut impl FnMut(&Arc<str>)) {
        match self {
            Self::All => {}
            Self::Label(key, _) => see(key),
            Self::Not(inner) => inner.each_key(see),
            Self::And(operands) | Self::Or(operands) => {
                for operand in operands {
                    operand.each_key(see);
                }
            }
        }
    }

    /// Appends the canonical text.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::All => out.push_str("all()"),
            Self::Label(key, test) => test.write(key, out),
            Self::Not(inner) => {
                out.push('!');
                inner.write(out);
            }
            Self::And(operands) => write_joined(operands, " && ", out),
            Self::Or(operands) => write_joined(operands, " || ", out),
        }
    }

    /// Whether its canonical text can be parsed again, within `depth` nested parentheses.
    pub(crate) fn is_readable(&self, depth: usize) -> bool {
        match self {
            Self::All => true,
            Self::Label(key, test) => is_key(key) && test.values().iter().all(|v| is_quotable(v)),
            Self::Not(inner) => inner.is_readable(depth),
            Self::And(operands) | Self::Or(operands) => {
                depth > 0 && operands.iter().all(|n| n.is_readable(depth - 1))
            }
        }
    }

    /// The same expression over other label keys.
    pub(crate) fn map_keys(&self, rename: &impl Fn(&str) -> Arc<str>) -> Self {
        let list = |nodes: &[Self]| nodes.iter().map(|n| n.map_keys(rename)).collect();
        match self {
            Self::All => Self::All,
            Self::Label(key, test) => Self::Label(rename(key), test.clone()),
            Self::Not(inner) => Self::Not(Box::new(inner.map_keys(rename))),
            Self::And(operands) => Self::And(list(operands)),
            Self::Or(operands) => Self::Or(list(operands)),
        }
    }
}

impl Test {
    fn matches(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Has, value) => value.is_some(),
            (Self::Ne(_) | Self::NotIn(_), None) => true,
            (_, None) => false,
            (Self::Eq(want), Some(v)) => v == &**want,
            (Self::Ne(want), Some(v)) => v != &**want,
            (Self::Contains(part), Some(v)) => v.contains(&**part),
            (Self::StartsWith(part), Some(v)) => v.starts_with(&**part),
            (Self::EndsWith(part), Some(v)) => v.ends_with(&**part),
            (Self::In(set), Some(v)) => contains(set, v),
            (Self::NotIn(set), Some(v)) => !contains(set, v),
        }
    }

    /// The literals that the label is compared with.
    fn values(&self) -> &[Arc<str>] {
        match self {
            Self::Has => &[],
            Self::In(set) | Self::NotIn(set) => set,
            Self::Eq(v)
            | Self::Ne(v)
            | Self::Contains(v)
            | Self::StartsWith(v)
            | Self::EndsWith(v) => std::slice::from_ref(v),
        }
    }

    fn write(&self, key: &str, out: &mut String) {
        let op = match self {
            Self::Has => {
                out.extend(["has(", key, ")"]);
                return;
            }
            Self::In(_) => "in",
            Self::NotIn(_) => "not in",
            Self::Eq(_) => "==",
            Self::Ne(_) => "!=",
            Self::Contains(_) => "contains",
            Self::StartsWith(_) => "starts with",
            Self::EndsWith(_) => "ends with",
        };
        let values = self.values();
        out.extend([key, " ", op, " "]);
        let set = matches!(self, Self::In(_) | Self::NotIn(_));
        out.push_str(if set { "{" } else { "" });
        for (i, value) in values.iter().enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            // No escapes exist: a literal that holds one kind of quote was written with the other.
            let quote = if value.contains('"') { "'" } else { "\"" };
            out.extend([quote, value, quote]);
        }
        out.push_str(if set { "}" } else { "" });
    }
}

/// Whether a literal can be written: no escapes exist, so that one kind of quote must be free.
fn is_quotable(value: &str) -> bool {
    !(value.contains('"') && value.contains('\''))
}

fn contains(set: &[Arc<str>], value: &str) -> bool {
    set.binary_search_by(|s| (**s).cmp(value)).is_ok()
}

fn write_joined(operands: &[Expr], operator: &str, out: &mut String) {
    out.push('(');
    for (i, operand) in operands.iter().enumerate() {
        out.push_str(if i > 0 { operator } else { "" });
        operand.write(out);
    }
    out.push(')');
}
