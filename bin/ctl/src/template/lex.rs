//! Text and the tokens of actions.

use super::TemplateError;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Between actions.
    Text(String),
    /// `{{`.
    Open,
    /// `}}`.
    Close,
    Ident(String),
    /// `.name`.
    Field(String),
    /// `.` alone.
    Dot,
    /// `$name`, or nothing after the `$`.
    Variable(String),
    Quoted(String),
    Number(serde_json::Number),
    Pipe,
    LeftParen,
    RightParen,
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
    Comma,
}

/// A token, where it stood, and whether white space stands before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) line: usize,
    pub(super) spaced: bool,
}

pub(super) fn lex(text: &str) -> Result<Vec<Placed>, TemplateError> {
    let mut lexer = Lexer { rest: text, line: 1, out: Vec::new() };
    lexer.all()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    out: Vec<Placed>,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

impl<'a> Lexer<'a> {
    fn push(&mut self, token: Token, spaced: bool) {
        self.out.push(Placed { token, line: self.line, spaced });
    }

    /// Goes on behind `length` bytes, which it returns.
    fn advance(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, message))
    }

    fn all(&mut self) -> Result<(), TemplateError> {
        let mut trim_left = false;
        loop {
            let open = self.rest.find("{{");
            let text = self.advance(open.unwrap_or(self.rest.len()));
            let trims = open.is_some() && starts_trimmed(&self.rest[2..]);
            let text = if trim_left { text.trim_start_matches(SPACE) } else { text };
            let text = if trims { text.trim_end_matches(SPACE) } else { text };
            if !text.is_empty() {
                self.push(Token::Text(text.to_owned()), false);
            }
            if open.is_none() {
                return Ok(());
            }
            self.advance(if trims { 3 } else { 2 });
            trim_left = self.action()?;
        }
    }

    /// Up to the end of an action. Whether white space behind it goes.
    fn action(&mut self) -> Result<bool, TemplateError> {
        if self.rest.trim_start_matches(SPACE).starts_with("/*") {
            return self.comment();
        }
        self.push(Token::Open, false);
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches(SPACE).len();
            self.advance(blank);
            let spaced = blank > 0;
            if self.rest.is_empty() {
                return self.fail("an action is not closed: want }}");
            }
            if spaced && self.rest.starts_with("-}}") {
                self.push(Token::Close, true);
                self.advance(3);
                return Ok(true);
            }
            if self.rest.starts_with("}}") {
                self.push(Token::Close, spaced);
                self.advance(2);
                return Ok(false);
            }
            let token = self.token()?;
            self.push(token, spaced);
        }
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest.find("*/") else { return self.fail("a comment is not closed") };
        self.advance(end + 2);
        let blank = self.rest.len() - self.rest.trim_start_matches(SPACE).len();
        self.advance(blank);
        if blank > 0 && self.rest.starts_with("-}}") {
            self.advance(3);
            return Ok(true);
        }
        if !self.rest.starts_with("}}") {
            return self.fail("a comment stands alone in its action: want }} after */");
        }
        self.advance(2);
        Ok(false)
    }

    fn token(&mut self) -> Result<Token, TemplateError> {
        let first = self.rest.chars().next().unwrap_or_default();
        for (text, token) in [
            (":=", Token::Declare),
            ("=", Token::Assign),
            ("|", Token::Pipe),
            ("(", Token::LeftParen),
            (")", Token::RightParen),
            (",", Token::Comma),
        ] {
            if self.rest.starts_with(text) {
                self.advance(text.len());
                return Ok(token);
            }
        }
        match first {
            '"' => self.quoted().map(Token::Quoted),
            '`' => self.raw().map(Token::Quoted),
            '\'' => self.character(),
            '.' => Ok(self.dot()?),
            '$' => {
                self.advance(1);
                let length = word(self.rest);
                Ok(Token::Variable(self.advance(length).to_owned()))
            }
            '+' | '-' | '0'..='9' => self.number(),
            c if c == '_' || c.is_alphabetic() => {
                let length = word(self.rest);
                Ok(Token::Ident(self.advance(length).to_owned()))
            }
            other => self.fail(format!("{other:?} has no meaning here")),
        }
    }

    fn dot(&mut self) -> Result<Token, TemplateError> {
        if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        self.advance(1);
        let length = word(self.rest);
        Ok(if length == 0 { Token::Dot } else { Token::Field(self.advance(length).to_owned()) })
    }

    fn raw(&mut self) -> Result<String, TemplateError> {
        let Some(length) = self.rest[1..].find('`') else { return self.fail("a ` is not closed") };
        Ok(self.advance(length + 2)[1..=length].to_owned())
    }

    fn quoted(&mut self) -> Result<String, TemplateError> {
        self.advance(1);
        let mut text = String::new();
        loop {
            match self.rest.chars().next() {
                None | Some('\n') => return self.fail("a \" is not closed"),
                Some('"') => {
                    self.advance(1);
                    return Ok(text);
                }
                Some(_) => text.push(self.escaped()?),
            }
        }
    }

    fn character(&mut self) -> Result<Token, TemplateError> {
        self.advance(1);
        if self.rest.is_empty() || self.rest.starts_with(['\'', '\n']) {
            return self.fail("want one character between '");
        }
        let found = self.escaped()?;
        if !self.rest.starts_with('\'') {
            return self.fail("want one character between '");
        }
        self.advance(1);
        Ok(Token::Number(u32::from(found).into()))
    }

    /// A character, or what `\` and the characters behind it mean.
    fn escaped(&mut self) -> Result<char, TemplateError> {
        let first = self.rest.chars().next().unwrap_or_default();
        self.advance(first.len_utf8());
        if first != '\\' {
            return Ok(first);
        }
        let Some(which) = self.rest.chars().next() else {
            return self.fail("\\ stands at the end");
        };
        self.advance(which.len_utf8());
        let digits = match which {
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            '\\' | '"' | '\'' => return Ok(which),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return self.fail(format!("\\{other} has no meaning")),
        };
        let hex = self.rest.get(..digits).unwrap_or_default();
        let code = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
        let Some(code) = code else {
            return self.fail(format!("\\{which} wants {digits} hexadecimal digits"));
        };
        self.advance(digits);
        Ok(code)
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let sign = |c: char, before: Option<char>| {
            matches!(c, '+' | '-') && matches!(before, None | Some('e' | 'E' | 'p' | 'P'))
        };
        let mut before = None;
        let end = self.rest.find(|c: char| {
            let inside = c.is_alphanumeric() || c == '.' || c == '_' || sign(c, before);
            before = Some(c);
            !inside
        });
        let text = self.advance(end.unwrap_or(self.rest.len()));
        match number(&text.replace('_', "")) {
            Some(number) => Ok(Token::Number(number)),
            None => self.fail(format!("{text:?} is no number")),
        }
    }
}

/// Whether an action begins with `- `, so that white space before it goes.
fn starts_trimmed(action: &str) -> bool {
    action.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACE))
}

/// Length of the word that stands at the start.
fn word(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())
}

fn number(text: &str) -> Option<serde_json::Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, base)| i64::from_str_radix(lower.strip_prefix(prefix)?, base).ok());
    let octal = || {
        let rest = lower.strip_prefix('0').filter(|rest| !rest.is_empty())?;
        i64::from_str_radix(rest, 8).ok()
    };
    if let Some(whole) = based.or_else(octal).or_else(|| lower.parse().ok()) {
        return Some(if negative { -whole } else { whole }.into());
    }
    if !lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let float: f64 = lower.parse().ok()?;
    serde_json::Number::from_f64(if negative { -float } else { float })
}
