//! A selector compiled to numbers: evaluation compares no text unless the operator asks for it.

use std::sync::Arc;

use selector::{Expr, Selector, Test};

use crate::few::Few;
use crate::intern::{Interner, Sym};

/// The expression over numbers. Holds its keys and values in the interner.
pub(crate) enum Program {
    All,
    Label(Sym, Check),
    Not(Box<Program>),
    And(Box<[Program]>),
    Or(Box<[Program]>),
}

pub(crate) enum Check {
    Has,
    Eq(Sym),
    Ne(Sym),
    In(Box<[Sym]>),
    NotIn(Box<[Sym]>),
    Contains(Arc<str>),
    StartsWith(Arc<str>),
    EndsWith(Arc<str>),
}

/// What a match must have as to one label: present with one of `values`, or with any (`None`).
pub(crate) struct Needs {
    pub(crate) key: Sym,
    pub(crate) values: Option<Few<Sym>>,
}

impl Program {
    pub(crate) fn compile(selector: &Selector, interner: &mut Interner) -> Self {
        Self::of(selector.expr(), interner)
    }

    fn of(expr: &Expr, interner: &mut Interner) -> Self {
        match expr {
            Expr::All => Self::All,
            Expr::Label(key, test) => {
                let sym = interner.hold(key);
                Self::Label(sym, Check::of(test, interner))
            }
            Expr::Not(inner) => Self::Not(Box::new(Self::of(inner, interner))),
            Expr::And(list) => Self::and(list.iter().map(|e| Self::of(e, interner))),
            Expr::Or(list) => Self::Or(list.iter().map(|e| Self::of(e, interner)).collect()),
        }
    }

    /// `a && (b && c)` is one list: a namespace is nearly always joined to what a user wrote.
    fn and(operands: impl Iterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for operand in operands {
            match operand {
                Self::And(inner) => all.extend(inner),
                other => all.push(other),
            }
        }
        Self::And(all.into())
    }

    /// Whether it asks one label to be there, or to have one of some values, and nothing else: then an
    /// item whose own label fulfils its [`needs`] matches.
    pub(crate) fn is_one_need(&self) -> bool {
        matches!(self, Self::Label(_, Check::Has | Check::Eq(_) | Check::In(_)))
    }

    /// Gives up what [`Program::compile`] held.
    pub(crate) fn release(&self, interner: &mut Interner) {
        match self {
            Self::All => (),
            Self::Label(key, check) => {
                interner.release(*key);
                match check {
                    Check::Eq(v) | Check::Ne(v) => interner.release(*v),
                    Check::In(set) | Check::NotIn(set) => {
                        set.iter().for_each(|v| interner.release(*v));
                    }
                    _ => (),
                }
            }
            Self::Not(inner) => inner.release(interner),
            Self::And(list) | Self::Or(list) => list.iter().for_each(|p| p.release(interner)),
        }
    }

    pub(crate) fn matches(&self, get: &impl Fn(Sym) -> Option<Sym>, interner: &Interner) -> bool {
        match self {
            Self::All => true,
            Self::Label(key, check) => check.holds(get(*key), interner),
            Self::Not(inner) => !inner.matches(get, interner),
            Self::And(list) => list.iter().all(|p| p.matches(get, interner)),
            Self::Or(list) => list.iter().any(|p| p.matches(get, interner)),
        }
    }
}

impl Check {
    fn of(test: &Test, interner: &mut Interner) -> Self {
        let mut set = |values: &[Arc<str>]| {
            let mut syms: Box<[Sym]> = values.iter().map(|v| interner.hold(v)).collect();
            syms.sort_unstable();
            syms
        };
        match test {
            Test::Has => Self::Has,
            Test::Eq(v) => Self::Eq(interner.hold(v)),
            Test::Ne(v) => Self::Ne(interner.hold(v)),
            Test::In(values) => Self::In(set(values)),
            Test::NotIn(values) => Self::NotIn(set(values)),
            Test::Contains(v) => Self::Contains(v.clone()),
            Test::StartsWith(v) => Self::StartsWith(v.clone()),
            Test::EndsWith(v) => Self::EndsWith(v.clone()),
        }
    }

    fn holds(&self, value: Option<Sym>, interner: &Interner) -> bool {
        let Some(value) = value else { return matches!(self, Self::Ne(_) | Self::NotIn(_)) };
        match self {
            Self::Has => true,
            Self::Eq(want) => value == *want,
            Self::Ne(want) => value != *want,
            Self::In(set) => set.binary_search(&value).is_ok(),
            Self::NotIn(set) => set.binary_search(&value).is_err(),
            Self::Contains(part) => interner.text(value).contains(&**part),
            Self::StartsWith(part) => interner.text(value).starts_with(&**part),
            Self::EndsWith(part) => interner.text(value).ends_with(&**part),
        }
    }
}

/// The positive restrictions of a selector in numbers; `None` if nothing can match. The keys and
/// values are those of the compiled program, which holds them.
pub(crate) fn needs(selector: &Selector, interner: &mut Interner) -> Option<Vec<Needs>> {
    let mut all = Vec::new();
    for (key, restriction) in selector.restrictions() {
        if restriction.is_impossible() {
            return None;
        }
        if !restriction.must_be_present {
            continue;
        }
        let mut number = |text: &Arc<str>| {
            let sym = interner.hold(text);
            interner.release(sym); // the program holds it
            sym
        };
        let values = restriction.values.map(|vs| vs.iter().map(&mut number).collect());
        all.push(Needs { key: number(&key), values });
    }
    Some(all)
}
