//! A selector compiled to numbers: evaluation compares no text unless the operator asks for it.

use std::sync::Arc;

use selector::{Expr, Selector, Test};

use crate::few::Few;
use crate::intern::{Interner, Sym};

/// The expression in one piece of memory, since a large cluster has a hundred thousand: every
/// operator stands before what it is about. Holds its texts in the interner.
pub(crate) struct Program(Box<[u32]>);

/// Operators, with what follows each.
mod op {
    pub(super) const ALL: u32 = 0;
    pub(super) const HAS: u32 = 1; // key
    pub(super) const EQ: u32 = 2; // key, value
    pub(super) const NE: u32 = 3; // key, value
    pub(super) const IN: u32 = 4; // key, count of values, values in order
    pub(super) const NOT_IN: u32 = 5; // key, count of values, values in order
    pub(super) const CONTAINS: u32 = 6; // key, text
    pub(super) const STARTS_WITH: u32 = 7; // key, text
    pub(super) const ENDS_WITH: u32 = 8; // key, text
    pub(super) const NOT: u32 = 9; // expression
    pub(super) const AND: u32 = 10; // length of the operands, operands
    pub(super) const OR: u32 = 11; // length of the operands, operands
}

/// What a match must have as to one label: present with one of `values`, or with any (`None`).
pub(crate) struct Needs {
    pub(crate) key: Sym,
    pub(crate) values: Option<Few<Sym>>,
}

impl Program {
    pub(crate) fn compile(selector: &Selector, interner: &mut Interner) -> Self {
        let mut code = Vec::new();
        write(selector.expr(), interner, &mut code);
        Self(code.into())
    }

    /// Whether it asks one label to be there, or to have one of some values, and nothing else: then an
    /// item whose own label fulfils its [`needs`] matches.
    pub(crate) fn is_one_need(&self) -> bool {
        matches!(*self.0, [op::HAS | op::EQ | op::IN, ..])
    }

    /// Gives up what [`Program::compile`] held.
    pub(crate) fn release(&self, interner: &mut Interner) {
        let mut code = &*self.0;
        loop {
            let (held, rest) = match code {
                [op::HAS, held, rest @ ..] => (std::slice::from_ref(held), rest),
                [op::IN | op::NOT_IN, key, count, rest @ ..] => {
                    interner.release(*key);
                    rest.split_at(*count as usize)
                }
                [op::EQ..=op::ENDS_WITH, rest @ ..] => rest.split_at(2),
                [op::AND | op::OR, _, rest @ ..] | [_, rest @ ..] => (&[][..], rest),
                [] => return,
            };
            for sym in held {
                interner.release(*sym);
            }
            code = rest;
        }
    }

    pub(crate) fn matches(&self, get: &impl Fn(Sym) -> Option<Sym>, interner: &Interner) -> bool {
        evaluate(&self.0, get, interner).0
    }
}

fn write(expr: &Expr, interner: &mut Interner, code: &mut Vec<u32>) {
    match expr {
        Expr::All => code.push(op::ALL),
        Expr::Label(key, test) => write_test(interner.hold(key), test, interner, code),
        Expr::Not(inner) => {
            code.push(op::NOT);
            write(inner, interner, code);
        }
        Expr::And(list) | Expr::Or(list) => {
            let or = matches!(expr, Expr::Or(_));
            code.extend([if or { op::OR } else { op::AND }, 0]);
            let start = code.len();
            if or {
                for operand in list {
                    write(operand, interner, code);
                }
            } else {
                write_and(list, interner, code);
            }
            code[start - 1] = (code.len() - start) as u32;
        }
    }
}

/// `a && (b && c)` is one list: a namespace is nearly always joined to what a user wrote.
fn write_and(list: &[Expr], interner: &mut Interner, code: &mut Vec<u32>) {
    for operand in list {
        match operand {
            Expr::And(inner) => write_and(inner, interner, code),
            other => write(other, interner, code),
        }
    }
}

fn write_test(key: Sym, test: &Test, interner: &mut Interner, code: &mut Vec<u32>) {
    let (op, text) = match test {
        Test::Has => return code.extend([op::HAS, key]),
        Test::In(values) | Test::NotIn(values) => {
            let op = if matches!(test, Test::In(_)) { op::IN } else { op::NOT_IN };
            code.extend([op, key, values.len() as u32]);
            let start = code.len();
            code.extend(values.iter().map(|value| interner.hold(value)));
            return code[start..].sort_unstable();
        }
        Test::Eq(value) => (op::EQ, value),
        Test::Ne(value) => (op::NE, value),
        Test::Contains(part) => (op::CONTAINS, part),
        Test::StartsWith(part) => (op::STARTS_WITH, part),
        Test::EndsWith(part) => (op::ENDS_WITH, part),
    };
    code.extend([op, key, interner.hold(text)]);
}

/// Whether the expression that `code` begins with matches, and what comes after it.
fn evaluate<'a>(
    code: &'a [u32],
    get: &impl Fn(Sym) -> Option<Sym>,
    interner: &Interner,
) -> (bool, &'a [u32]) {
    match code {
        [op::ALL, rest @ ..] => (true, rest),
        [op::HAS, key, rest @ ..] => (get(*key).is_some(), rest),
        [op::EQ, key, value, rest @ ..] => (get(*key) == Some(*value), rest),
        [op::NE, key, value, rest @ ..] => (get(*key) != Some(*value), rest),
        [op @ (op::IN | op::NOT_IN), key, count, rest @ ..] => {
            let (values, rest) = rest.split_at(*count as usize);
            let found = get(*key).is_some_and(|value| values.binary_search(&value).is_ok());
            (found == (*op == op::IN), rest)
        }
        [op @ (op::CONTAINS | op::STARTS_WITH | op::ENDS_WITH), key, part, rest @ ..] => {
            let part = interner.text(*part);
            let holds = |value: &str| match *op {
                op::CONTAINS => value.contains(part),
                op::STARTS_WITH => value.starts_with(part),
                _ => value.ends_with(part),
            };
            (get(*key).is_some_and(|value| holds(interner.text(value))), rest)
        }
        [op::NOT, rest @ ..] => {
            let (inner, rest) = evaluate(rest, get, interner);
            (!inner, rest)
        }
        [op @ (op::AND | op::OR), length, rest @ ..] => {
            let (mut operands, rest) = rest.split_at(*length as usize);
            let decides = *op == op::OR;
            while !operands.is_empty() {
                let (holds, next) = evaluate(operands, get, interner);
                if holds == decides {
                    return (decides, rest);
                }
                operands = next;
            }
            (!decides, rest)
        }
        _ => (false, &[]), // no program is written so
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
