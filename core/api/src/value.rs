//! Values that may be written as a number or as text: ports, protocols, AS numbers.

use std::fmt;

use model::{Port, Protocol};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// A number or a text, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NumOrString {
    /// A number.
    Num(i64),
    /// A text.
    Text(String),
}

impl Default for NumOrString {
    fn default() -> Self {
        Self::Num(0)
    }
}

impl fmt::Display for NumOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(n) => write!(f, "{n}"),
            Self::Text(t) => f.write_str(t),
        }
    }
}

impl From<i64> for NumOrString {
    fn from(n: i64) -> Self {
        Self::Num(n)
    }
}

impl From<&str> for NumOrString {
    fn from(t: &str) -> Self {
        Self::Text(t.to_owned())
    }
}

impl JsonSchema for NumOrString {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NumOrString".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "x-kubernetes-int-or-string": true,
        })
    }
}

impl NumOrString {
    /// Reads a port of a rule: a number, `"min:max"`, or a name.
    ///
    /// # Errors
    /// What is wrong and what was wanted.
    pub fn port(&self) -> Result<Port, String> {
        let text = match self {
            Self::Num(n) => return port_number(*n).map(|p| Port::Range(p, p)),
            Self::Text(text) => text,
        };
        if let Some((min, max)) = text.split_once(':') {
            let part = |p: &str| p.trim().parse::<i64>().map_err(|_| bad_port(text));
            let (min, max) = (port_number(part(min)?)?, port_number(part(max)?)?);
            if min > max {
                return Err(format!("range {text:?} is upside down: want min:max with min <= max"));
            }
            return Ok(Port::Range(min, max));
        }
        if let Ok(n) = text.parse::<i64>() {
            return port_number(n).map(|p| Port::Range(p, p));
        }
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        if text.is_empty() || text.len() > 128 || !text.chars().all(ok) {
            return Err(bad_port(text));
        }
        Ok(Port::Named(text.as_str().into()))
    }

    /// Reads a protocol: one of the known names in any case, or 1 to 255.
    ///
    /// # Errors
    /// What is wrong and what was wanted.
    pub fn protocol(&self) -> Result<Protocol, String> {
        let number = |n: i64| match u8::try_from(n) {
            Ok(n) if n > 0 => Ok(Protocol(n)),
            _ => Err(format!("{n} is no protocol number (want 1 to 255)")),
        };
        match self {
            Self::Num(n) => number(*n),
            Self::Text(text) => match text.to_ascii_lowercase().as_str() {
                "tcp" => Ok(Protocol::TCP),
                "udp" => Ok(Protocol::UDP),
                "icmp" => Ok(Protocol::ICMP),
                "icmpv6" => Ok(Protocol::ICMPV6),
                "sctp" => Ok(Protocol::SCTP),
                "udplite" => Ok(Protocol::UDPLITE),
                other => match other.parse() {
                    Ok(n) => number(n),
                    Err(_) => Err(format!(
                        "{text:?} is no protocol (want TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or 1 to 255)"
                    )),
                },
            },
        }
    }

    /// Reads an AS number: a number, or dotted `high.low`.
    ///
    /// # Errors
    /// What is wrong and what was wanted.
    pub fn as_number(&self) -> Result<u32, String> {
        let bad = || format!("{self} is no AS number (want 1 to 4294967295, or HIGH.LOW)");
        let number = match self {
            Self::Num(n) => u32::try_from(*n).map_err(|_| bad())?,
            Self::Text(text) => match text.split_once('.') {
                Some((high, low)) => {
                    let half = |h: &str| h.parse::<u16>().map(u32::from).map_err(|_| bad());
                    (half(high)? << 16) | half(low)?
                }
                None => text.parse().map_err(|_| bad())?,
            },
        };
        if number == 0 { Err(bad()) } else { Ok(number) }
    }
}

fn port_number(n: i64) -> Result<u16, String> {
    match u16::try_from(n) {
        Ok(p) if p > 0 => Ok(p),
        _ => Err(format!("port {n} is out of range (want 1 to 65535)")),
    }
}

fn bad_port(text: &str) -> String {
    format!("{text:?} is no port (want 1 to 65535, \"min:max\" or the name of a port)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let range = |a, b| Ok(Port::Range(a, b));
        for (given, want) in [
            (NumOrString::from(80), range(80, 80)),
            ("80".into(), range(80, 80)),
            ("1:65535".into(), range(1, 65535)),
            ("http-alt".into(), Ok(Port::Named("http-alt".into()))),
        ] {
            assert_eq!(given.port(), want, "{given}");
        }
        for (given, part) in [
            (NumOrString::from(0), "out of range"),
            (NumOrString::from(65536), "out of range"),
            ("90:80".into(), "upside down"),
            ("a:b".into(), "is no port"),
            ("a b".into(), "is no port"),
            ("".into(), "is no port"),
        ] {
            assert!(given.port().unwrap_err().contains(part), "{given}");
        }
    }

    #[test]
    fn protocols_and_as_numbers() {
        assert_eq!(NumOrString::from("tcp").protocol(), Ok(Protocol::TCP));
        assert_eq!(NumOrString::from("ICMPv6").protocol(), Ok(Protocol::ICMPV6));
        assert_eq!(NumOrString::from(47).protocol(), Ok(Protocol(47)));
        assert!(NumOrString::from(0).protocol().is_err());
        assert!(NumOrString::from(256).protocol().is_err());
        assert!(NumOrString::from("tcpp").protocol().is_err());
        assert_eq!(NumOrString::from("1.10").as_number(), Ok(65546));
        assert_eq!(NumOrString::from(4_294_967_295).as_number(), Ok(u32::MAX));
        assert!(NumOrString::from(0).as_number().is_err());
        assert!(NumOrString::from("1.70000").as_number().is_err());
    }
}
