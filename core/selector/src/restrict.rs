//! Restrictions: conditions on single labels that every match fulfils.
//!
//! They never say that an object matches, only that it cannot. An index keeps objects by label and
//! asks the selector itself about the remaining candidates.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Expr, Test};

/// Restrictions by label key; keys without an entry are unrestricted.
pub type Restrictions = BTreeMap<Arc<str>, Restriction>;

/// What every match of a selector has in common as to one label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// The label must be there.
    pub must_be_present: bool,
    /// The label must not be there. (With `must_be_present`: nothing can match.)
    pub must_be_absent: bool,
    /// The label must have one of these values (sorted); `None` for any. An empty list means that
    /// nothing can match.
    pub values: Option<Vec<Arc<str>>>,
}

impl Restriction {
    /// Whether no object at all can fulfil this.
    pub fn is_impossible(&self) -> bool {
        (self.must_be_present && self.must_be_absent)
            || self.values.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether an object whose label has this value (`None`: no such label) could still match.
    pub fn allows(&self, value: Option<&str>) -> bool {
        match value {
            None => !self.must_be_present,
            Some(v) => {
                !self.must_be_absent
                    && self.values.as_ref().is_none_or(|set| set.iter().any(|s| **s == *v))
            }
        }
    }

    fn present(values: Option<Vec<Arc<str>>>) -> Self {
        Self { must_be_present: true, must_be_absent: false, values }
    }

    fn both(&mut self, other: Self) {
        self.must_be_present |= other.must_be_present;
        self.must_be_absent |= other.must_be_absent;
        self.values = match (self.values.take(), other.values) {
            (Some(a), Some(b)) => Some(a.into_iter().filter(|v| b.contains(v)).collect()),
            (a, b) => a.or(b),
        };
    }

    /// Weakens to what holds if either holds; `false` if nothing is left.
    fn either(&mut self, other: Option<&Self>) -> bool {
        let Some(other) = other else { return false };
        self.must_be_present &= other.must_be_present;
        self.must_be_absent &= other.must_be_absent;
        self.values = match (self.values.take(), &other.values) {
            (Some(mut a), Some(b)) if self.must_be_present => {
                a.extend(b.iter().cloned());
                a.sort_unstable();
                a.dedup();
                Some(a)
            }
            _ => None,
        };
        self.must_be_present || self.must_be_absent
    }
}

pub(crate) fn of(node: &Expr) -> Restrictions {
    match node {
        Expr::All => Restrictions::new(),
        Expr::Label(key, test) => {
            let values = match test {
                Test::Ne(_) | Test::NotIn(_) => return Restrictions::new(),
                Test::Eq(v) => Some(vec![v.clone()]),
                Test::In(set) => Some(set.to_vec()),
                Test::Has | Test::Contains(_) | Test::StartsWith(_) | Test::EndsWith(_) => None,
            };
            Restrictions::from([(key.clone(), Restriction::present(values))])
        }
        // Only absence can be concluded: `!(a == "b")` holds with and without the label.
        Expr::Not(inner) => match &**inner {
            Expr::Label(key, Test::Has) => {
                let absent = Restriction { must_be_absent: true, ..Restriction::default() };
                Restrictions::from([(key.clone(), absent)])
            }
            _ => Restrictions::new(),
        },
        Expr::And(operands) => {
            let mut all = Restrictions::new();
            for (key, restriction) in operands.iter().flat_map(of) {
                all.entry(key).or_default().both(restriction);
            }
            all
        }
        Expr::Or(operands) => {
            let mut any = operands.first().map(of).unwrap_or_default();
            for other in operands.iter().skip(1) {
                if any.is_empty() {
                    break;
                }
                let other = of(other);
                any.retain(|key, restriction| restriction.either(other.get(key)));
            }
            any
        }
    }
}
