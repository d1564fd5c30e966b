//! Text to expression, with an explicit stack: nesting costs heap, never call depth.
//!
//! ```text
//! or      = and { "||" and }
//! and     = operand { "&&" operand }
//! operand = { "!" } ( "(" or ")" | "all()" | "has(" key ")" | key test )
//! test    = ("==" | "!=" | "contains" | "starts with" | "ends with") string
//!         | ("in" | "not in" | "notin") "{" [ string { "," string } [ "," ] ] "}"
//! string  = '"' any but '"' '"'  |  "'" any but "'" "'"
//! key     = 1 to 512 of A-Z a-z 0-9 _ . / -
//! ```

use std::sync::Arc;

use crate::ast::{Expr, Test};
use crate::expr::sorted;

/// Deepest nesting of parentheses that is accepted.
pub const MAX_DEPTH: usize = 1000;

/// Longest label key, in bytes.
pub const MAX_KEY_LEN: usize = 512;

/// What was wrong with a selector's text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {message}")]
pub struct ParseError {
    /// Byte offset in the text.
    pub at: usize,
    /// What was found and what was wanted.
    pub message: String,
}

/// Parses a whole selector.
pub(crate) fn selector(text: &str) -> Result<Expr, ParseError> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip_space();
    if cursor.rest().is_empty() {
        return Ok(Expr::All);
    }
    expression(&mut cursor)
}

/// Whether the text is a label key.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=MAX_KEY_LEN).contains(&text.len()) && text.chars().all(is_key_char)
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// Whether the text is `global()` and nothing else.
pub(crate) fn is_global(text: &str) -> bool {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip_space();
    cursor.call("global") && cursor.take(")") && {
        cursor.skip_space();
        cursor.rest().is_empty()
    }
}

/// An open parenthesis (or the whole text) and what stands in it so far.
struct Group {
    opened_at: usize,
    negated: bool, // an odd number of `!` before the parenthesis
    or: Vec<Expr>,
    and: Vec<Expr>,
}

impl Group {
    fn new(opened_at: usize, negated: bool) -> Self {
        Self { opened_at, negated, or: Vec::new(), and: Vec::new() }
    }

    fn end_and(&mut self) {
        let operands = std::mem::take(&mut self.and);
        self.or.push(single_or(operands, Expr::And));
    }

    fn close(mut self) -> Expr {
        self.end_and();
        negate(single_or(self.or, Expr::Or), self.negated)
    }
}

fn single_or(mut operands: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match operands.pop() {
        Some(only) if operands.is_empty() => only,
        Some(last) => {
            operands.push(last);
            many(operands)
        }
        None => many(operands), // not reached: a group is closed after an operand only
    }
}

fn negate(node: Expr, negated: bool) -> Expr {
    if negated { Expr::Not(Box::new(node)) } else { node }
}

fn expression(cursor: &mut Cursor<'_>) -> Result<Expr, ParseError> {
    let mut open: Vec<Group> = Vec::new();
    let mut group = Group::new(0, false);
    'operand: loop {
        let negated = cursor.negations();
        let at = cursor.at;
        if cursor.take("(") {
            if open.len() >= MAX_DEPTH {
                return cursor.error(at, format!("more than {MAX_DEPTH} nested parentheses"));
            }
            open.push(std::mem::replace(&mut group, Group::new(at, negated)));
            continue;
        }
        let mut operand = negate(cursor.atom()?, negated);
        loop {
            group.and.push(operand);
            cursor.skip_space();
            let at = cursor.at;
            if cursor.take("&&") {
                continue 'operand;
            } else if cursor.take("||") {
                group.end_and();
                continue 'operand;
            } else if cursor.take(")") {
                let Some(outer) = open.pop() else {
                    return cursor.error(at, "')' without a '(' before it".into());
                };
                operand = std::mem::replace(&mut group, outer).close();
            } else if !cursor.rest().is_empty() {
                return cursor.found(at, "'&&', '||', ')' or the end");
            } else if open.is_empty() {
                return Ok(group.close());
            } else {
                let message = format!("expected ')' for the '(' at byte {}", group.opened_at);
                return cursor.error(at, message);
            }
        }
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Takes `name(` and the space after it. No space may stand before the parenthesis.
    fn call(&mut self, name: &str) -> bool {
        let found = self.rest().strip_prefix(name).is_some_and(|rest| rest.starts_with('('));
        if found {
            self.at += name.len() + 1;
            self.skip_space();
        }
        found
    }

    /// Takes any number of `!`; whether the number was odd.
    fn negations(&mut self) -> bool {
        let mut negated = false;
        loop {
            self.skip_space();
            if self.rest().starts_with("!=") || !self.take("!") {
                return negated;
            }
            negated = !negated;
        }
    }

    fn atom(&mut self) -> Result<Expr, ParseError> {
        let at = self.at;
        if self.call("all") {
            self.expect(")", "')' after 'all('")?;
            return Ok(Expr::All);
        }
        if self.call("has") {
            let key = self.key("a label key after 'has('")?;
            self.skip_space();
            self.expect(")", "')' after the label key in 'has('")?;
            return Ok(Expr::Label(key.into(), Test::Has));
        }
        if self.call("global") {
            let message = "global() is allowed in a namespace selector only, and there alone";
            return self.error(at, message.into());
        }
        let key = self.key("a label key, 'has(', 'all()', '!' or '('")?;
        let test = self.test(key)?;
        Ok(Expr::Label(key.into(), test))
    }

    fn key(&mut self, want: &str) -> Result<&'a str, ParseError> {
        let (at, rest) = (self.at, self.rest());
        let key = &rest[..rest.find(|c| !is_key_char(c)).unwrap_or(rest.len())];
        match key.len() {
            0 => self.found(at, want),
            1..=MAX_KEY_LEN => {
                self.at += key.len();
                Ok(key)
            }
            n => self.error(at, format!("label key of {n} bytes, want at most {MAX_KEY_LEN}")),
        }
    }

    fn test(&mut self, key: &str) -> Result<Test, ParseError> {
        self.skip_space();
        let at = self.at;
        if self.take("==") {
            return self.string("==").map(Test::Eq);
        } else if self.take("!=") {
            return self.string("!=").map(Test::Ne);
        } else if self.take("contains") {
            return self.string("contains").map(Test::Contains);
        } else if self.two_words("starts", "with") {
            return self.string("starts with").map(Test::StartsWith);
        } else if self.two_words("ends", "with") {
            return self.string("ends with").map(Test::EndsWith);
        } else if self.two_words("not", "in") {
            return self.set("not in").map(Test::NotIn);
        } else if self.take("in") {
            return self.set("in").map(Test::In);
        }
        let want = "'==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with'";
        self.found(at, &format!("{want} after label key {key:?}"))
    }

    /// Takes two words with any or no space between them, or nothing.
    fn two_words(&mut self, first: &str, second: &str) -> bool {
        let start = self.at;
        if self.take(first) {
            self.skip_space();
            if self.take(second) {
                return true;
            }
        }
        self.at = start;
        false
    }

    fn string(&mut self, operator: &str) -> Result<Arc<str>, ParseError> {
        self.skip_space();
        let at = self.at;
        match self.literal()? {
            Some(value) => Ok(value.into()),
            None => self.found(at, &format!("a quoted string after '{operator}'")),
        }
    }

    /// A quoted string if one starts here.
    fn literal(&mut self) -> Result<Option<&'a str>, ParseError> {
        let at = self.at;
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Ok(None);
        };
        let body = &self.rest()[1..];
        let Some(len) = body.find(quote) else {
            return self.error(at, format!("string without its closing {quote}"));
        };
        self.at += len + 2;
        Ok(Some(&body[..len]))
    }

    fn set(&mut self, operator: &str) -> Result<Box<[Arc<str>]>, ParseError> {
        self.skip_space();
        self.expect("{", &format!("'{{' after '{operator}'"))?;
        let mut values = Vec::new();
        let mut more = true; // a comma, or the opening brace, was just read
        loop {
            self.skip_space();
            let at = self.at;
            if self.take("}") {
                return Ok(sorted(values));
            }
            match self.literal()? {
                Some(value) if more => values.push(value),
                _ => {
                    let want = if more { "a quoted string or '}'" } else { "',' or '}'" };
                    return self.found(at, want);
                }
            }
            self.skip_space();
            more = self.take(",");
        }
    }

    fn expect(&mut self, token: &str, want: &str) -> Result<(), ParseError> {
        if self.take(token) { Ok(()) } else { self.found(self.at, want) }
    }

    /// The error "expected X, found Y".
    fn found<T>(&self, at: usize, want: &str) -> Result<T, ParseError> {
        let message = match self.text[at..].chars().next() {
            None => format!("expected {want}, found the end"),
            Some('=') => format!("expected {want}, found '=' (equality is written '==')"),
            Some(c) => format!("expected {want}, found {c:?}"),
        };
        self.error(at, message)
    }

    #[allow(clippy::unused_self, reason = "reads as part of the cursor at every call")]
    fn error<T>(&self, at: usize, message: String) -> Result<T, ParseError> {
        Err(ParseError { at, message })
    }
}
