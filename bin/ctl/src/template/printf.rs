//! Values as text, as Go's `fmt` writes them.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Number, Value};

use super::functions::type_of;

type Held<'a> = Cow<'a, Value>;

/// The widest that a value is filled up to.
const MOST_WIDE: usize = 10_000;

/// As `%v`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => shown_number(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let mut parts: Vec<_> = map.iter().collect();
            parts.sort_by_key(|(key, _)| *key);
            let part = |(key, value): (&String, &Value)| format!("{key}:{}", shown(value));
            format!("map[{}]", parts.into_iter().map(part).collect::<Vec<_>>().join(" "))
        }
    }
}

fn shown_number(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) => general(float, None, 21),
        None => number.to_string(),
    }
}

/// The shortest that says the same, or so many digits; with an exponent where it is small, or not below `large`.
fn general(float: f64, digits: Option<usize>, large: i32) -> String {
    let text = match digits {
        Some(digits) => format!("{float:.*e}", digits.max(1) - 1),
        None => format!("{float:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent < -4 || exponent >= large {
        let mantissa = if digits.is_some() && mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    match digits {
        Some(digits) => {
            let behind = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
            let text = format!("{float:.*}", usize::try_from(behind).unwrap_or_default());
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
        None => format!("{float}"),
    }
}

/// Spaces where neither side is text.
pub(super) fn print(values: &[Held<'_>]) -> String {
    let mut text = String::new();
    for (i, value) in values.iter().enumerate() {
        if i > 0 && !value.is_string() && !values[i - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&shown(value));
    }
    text
}

pub(super) fn println(values: &[Held<'_>]) -> String {
    let words: Vec<String> = values.iter().map(|value| shown(value)).collect();
    words.join(" ") + "\n"
}

/// What stands between `%` and the verb.
#[derive(Default)]
struct Form {
    minus: bool,
    plus: bool,
    zero: bool,
    space: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

pub(super) fn printf(values: &[Held<'_>]) -> Result<String, String> {
    let Some((Some(format), values)) = values.split_first().map(|(f, v)| (f.as_str(), v)) else {
        return Err("wants a format".to_owned());
    };
    let mut values = values.iter();
    let mut text = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let form = read_form(&mut rest, &mut values)?;
        match rest.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) => match values.next() {
                None => drop(write!(text, "%!{verb}(MISSING)")),
                Some(value) => text.push_str(&form.fill(&form.verb(verb, value), value)),
            },
        }
    }
    let extra: Vec<String> =
        values.map(|value| format!("{}={}", type_of(value), shown(value))).collect();
    if !extra.is_empty() {
        let _ = write!(text, "%!(EXTRA {})", extra.join(", "));
    }
    Ok(text)
}

fn read_form<'v>(
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &mut impl Iterator<Item = &'v Held<'v>>,
) -> Result<Form, String> {
    let mut form = Form::default();
    while let Some(c) = rest.peek() {
        match c {
            '-' => form.minus = true,
            '+' => form.plus = true,
            '0' => form.zero = true,
            ' ' => form.space = true,
            '#' => form.sharp = true,
            _ => break,
        }
        rest.next();
    }
    form.width = read_number(rest, values)?;
    if rest.next_if_eq(&'.').is_some() {
        form.precision = Some(read_number(rest, values)?.unwrap_or_default());
    }
    Ok(form)
}

/// Digits, or the next value for `*`.
fn read_number<'v>(
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &mut impl Iterator<Item = &'v Held<'v>>,
) -> Result<Option<usize>, String> {
    let number = if rest.next_if_eq(&'*').is_some() {
        values.next().and_then(|v| v.as_u64()).and_then(|n| usize::try_from(n).ok())
    } else {
        let mut number = None;
        while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
            let so_far: usize = number.unwrap_or_default();
            number = Some(so_far.saturating_mul(10).saturating_add(digit as usize));
            rest.next();
        }
        number
    };
    match number {
        Some(number) if number > MOST_WIDE => Err(format!("a width of at most {MOST_WIDE}")),
        number => Ok(number),
    }
}

impl Form {
    fn verb(&self, verb: char, value: &Value) -> String {
        if let (Value::Array(items), true) = (value, !matches!(verb, 'v' | 'T')) {
            let parts: Vec<String> = items.iter().map(|item| self.verb(verb, item)).collect();
            return format!("[{}]", parts.join(" "));
        }
        let made = match verb {
            'v' => Some(shown(value)),
            'T' => Some(type_of(value).to_owned()),
            't' => value.as_bool().map(|value| value.to_string()),
            's' => value.as_str().map(|text| self.cut(text)),
            'q' => self.quoted(value),
            'x' | 'X' if value.is_string() => value.as_str().map(|text| {
                text.bytes().fold(String::new(), |mut out, byte| {
                    let _ = if verb == 'x' {
                        write!(out, "{byte:02x}")
                    } else {
                        write!(out, "{byte:02X}")
                    };
                    out
                })
            }),
            'd' | 'x' | 'X' | 'o' | 'b' | 'c' | 'U' => {
                whole(value).and_then(|n| self.whole(verb, n))
            }
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
                value.as_f64().map(|float| self.float(verb, float))
            }
            _ => None,
        };
        made.unwrap_or_else(|| match value {
            Value::Null => format!("%!{verb}(<nil>)"),
            value => format!("%!{verb}({}={})", type_of(value), shown(value)),
        })
    }

    fn cut(&self, text: &str) -> String {
        match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.to_owned(),
        }
    }

    fn quoted(&self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(quote(&self.cut(text), '"')),
            value => {
                let code = u32::try_from(whole(value)?).ok().and_then(char::from_u32)?;
                Some(quote(&code.to_string(), '\''))
            }
        }
    }

    fn whole(&self, verb: char, number: i64) -> Option<String> {
        let size = number.unsigned_abs();
        let digits = match verb {
            'd' => size.to_string(),
            'x' => format!("{}{size:x}", if self.sharp { "0x" } else { "" }),
            'X' => format!("{}{size:X}", if self.sharp { "0X" } else { "" }),
            'o' => format!("{}{size:o}", if self.sharp { "0" } else { "" }),
            'b' => format!("{size:b}"),
            'U' => return Some(format!("U+{size:04X}")),
            _ => return u32::try_from(number).ok().and_then(char::from_u32).map(|c| c.to_string()),
        };
        Some(format!("{}{digits}", self.sign(number < 0)))
    }

    fn float(&self, verb: char, float: f64) -> String {
        let size = float.abs();
        let text = match verb {
            'f' | 'F' => format!("{size:.*}", self.precision.unwrap_or(6)),
            'e' | 'E' => {
                let text = format!("{size:.*e}", self.precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or_default();
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{sign}{:02}", exponent.abs())
            }
            _ => {
                let large = self.precision.map_or(21, |p| i32::try_from(p).unwrap_or(21).max(1));
                general(size, self.precision, large)
            }
        };
        let text = if verb.is_uppercase() { text.to_uppercase() } else { text };
        format!("{}{text}", self.sign(float.is_sign_negative()))
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    /// Filled up to the width.
    fn fill(&self, text: &str, value: &Value) -> String {
        let missing = self.width.unwrap_or_default().saturating_sub(text.chars().count());
        if missing == 0 {
            return text.to_owned();
        }
        if self.minus {
            return text.to_owned() + &" ".repeat(missing);
        }
        if self.zero && value.is_number() {
            let digits = text.trim_start_matches(['+', '-', ' ']);
            let sign = &text[..text.len() - digits.len()];
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        " ".repeat(missing) + text
    }
}

/// A whole number, also if it is written as a float.
fn whole(value: &Value) -> Option<i64> {
    let float = || value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15);
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
    value.as_i64().or_else(|| float().map(|f| f as i64))
}

fn quote(text: &str, mark: char) -> String {
    let mut out = String::from(mark);
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(mark);
    out
}
