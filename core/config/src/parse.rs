//! The parsers, one a kind of parameter.

use std::net::IpAddr;
use std::time::Duration;

use api::NumOrString;
use api::v3::felix::Kind;
use ipnet::IpNet;
use model::{Port, Protocol};

/// A port of one protocol, from or to anywhere or one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtoPort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Port, host order.
    pub port: u16,
    /// Only to or from here.
    pub net: Option<IpNet>,
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// Nothing: not given, or `none`.
    None,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text, a word of a choice in its proper case, a regular expression.
    Text(String),
    /// Text that is not shown.
    Secret(String),
    /// A time.
    Time(Duration),
    /// An address.
    Address(IpAddr),
    /// Texts.
    Texts(Vec<String>),
    /// Prefixes.
    Nets(Vec<IpNet>),
    /// Ranges of ports, both ends included.
    Ranges(Vec<(u32, u32)>),
    /// Ranges of routing tables, both ends included.
    Tables(Vec<(u32, u32)>),
    /// Ports with protocols.
    Ports(Vec<ProtoPort>),
    /// Text by key.
    Pairs(Vec<(String, String)>),
    /// Count, and the time in which that many may come.
    Rate(u32, Duration),
}

/// Reads the text of a parameter, as the environment and the file have it.
///
/// # Errors
/// What was wanted.
pub fn parse(kind: Kind, text: &str) -> Result<Setting, String> {
    if kind == Kind::Secret && !text.is_empty() {
        // It may begin or end with a space, and be any word.
        return Ok(Setting::Secret(text.to_owned()));
    }
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("none") && may_be_none(kind) {
        return Ok(Setting::None);
    }
    match kind {
        Kind::Bool | Kind::OptBool => boolean(text).map(Setting::Bool),
        Kind::Flag => flag(text).map(Setting::Bool),
        Kind::Int(min, max) => integer(text, min, max).map(Setting::Int),
        Kind::Mask => mask(text).map(Setting::Int),
        Kind::Choice(words) => choice(text, words),
        Kind::Duration | Kind::Seconds => time(text).map(Setting::Time),
        Kind::Address => api::net::address(text).map(Setting::Address),
        Kind::Iface => {
            let name = text.parse::<model::IfaceName>().map_err(|e| e.to_string())?;
            Ok(Setting::Text(name.to_string()))
        }
        Kind::InterfacePrefixes => interface_prefixes(text),
        Kind::Cidrs => {
            list(text).map(api::net::masked).collect::<Result<_, _>>().map(Setting::Nets)
        }
        Kind::TextList => Ok(Setting::Texts(list(text).map(str::to_owned).collect())),
        Kind::PortRange => port_range(text).map(|r| Setting::Ranges(vec![r])),
        Kind::PortRanges => {
            list(text).map(port_range).collect::<Result<_, _>>().map(Setting::Ranges)
        }
        Kind::ProtoPorts => {
            list(text).map(proto_port).collect::<Result<_, _>>().map(Setting::Ports)
        }
        Kind::TableRange | Kind::TableRanges => {
            list(text).map(table_range).collect::<Result<_, _>>().map(Setting::Tables)
        }
        Kind::Timeouts => {
            let timeout = |text| {
                let (name, timeout) = pair(text)?;
                time(&timeout).map(|_| (name, timeout))
            };
            list(text).map(timeout).collect::<Result<_, _>>().map(Setting::Pairs)
        }
        Kind::KeyValues | Kind::Map | Kind::ConntrackTimeouts => {
            list(text).map(pair).collect::<Result<_, _>>().map(Setting::Pairs)
        }
        Kind::RateLimit => rate(text),
        Kind::Text | Kind::Secret | Kind::Regex => Ok(Setting::Text(text.to_owned())),
    }
}

/// Parameters that cannot be nothing: `none` there is a bad value.
fn may_be_none(kind: Kind) -> bool {
    !matches!(kind, Kind::Iface | Kind::InterfacePrefixes | Kind::Mask)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "f" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "enabled" => Ok(true),
        "off" | "disabled" => Ok(false),
        other => boolean(other),
    }
}

fn integer(text: &str, min: i64, max: i64) -> Result<i64, String> {
    let n: i64 = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
    if (min..=max).contains(&n) {
        return Ok(n);
    }
    Err(match max {
        i64::MAX => format!("{n} is out of range (want {min} or more)"),
        _ => format!("{n} is out of range (want {min} to {max})"),
    })
}

fn mask(text: &str) -> Result<i64, String> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match hex {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(mask) if mask.count_ones() >= 8 => Ok(i64::from(mask)),
        _ => Err(format!("{text:?} is no mask (want 32 bits with at least 8 set)")),
    }
}

fn choice(text: &str, words: &[&str]) -> Result<Setting, String> {
    match words.iter().find(|w| w.eq_ignore_ascii_case(text)) {
        Some(word) => Ok(Setting::Text((*word).to_owned())),
        None => Err(format!("{text:?} is not one of {}", words.join(", "))),
    }
}

/// A bare number is seconds.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let bad = |_| format!("{text:?} is no time");
        return Duration::try_from_secs_f64(seconds).map_err(bad);
    }
    api::net::duration(text)
}

fn interface_prefixes(text: &str) -> Result<Setting, String> {
    let prefixes: Vec<String> = list(text).map(str::to_owned).collect();
    let bad = |p: &&String| p.len() > 4 * 3 || p.parse::<model::IfaceName>().is_err();
    match prefixes.iter().find(bad) {
        Some(prefix) => Err(format!("{prefix:?} cannot begin the name of an interface")),
        None if prefixes.is_empty() => Err("want at least one prefix".into()),
        None => Ok(Setting::Texts(prefixes)),
    }
}

fn port_range(text: &str) -> Result<(u32, u32), String> {
    match NumOrString::from(text).port()? {
        Port::Range(min, max) => Ok((u32::from(min), u32::from(max))),
        Port::Named(_) => Err(format!("{text:?} is no port (want 1 to 65535 or min:max)")),
    }
}

/// `22`, `tcp:22`, `tcp:10.0.0.0/8:22`, `tcp:[fd00::/8]:22`.
fn proto_port(text: &str) -> Result<ProtoPort, String> {
    let (protocol, rest) = text.split_once(':').unwrap_or(("tcp", text));
    let (net, port) = rest.rsplit_once(':').map_or((None, rest), |(n, p)| (Some(n), p));
    let protocol = NumOrString::from(protocol).protocol()?;
    if !protocol.has_ports() {
        return Err(format!("{text:?} names {protocol}, which has no ports"));
    }
    let (min, max) = port_range(port)?;
    if min != max {
        return Err(format!("{text:?} names a range (want one port)"));
    }
    let net = net.map(|n| api::net::masked(n.trim_matches(['[', ']']))).transpose()?;
    Ok(ProtoPort { protocol, port: min as u16, net })
}

fn table_range(text: &str) -> Result<(u32, u32), String> {
    let bad = || format!("{text:?} is no range of tables (want for example 1-250)");
    let (min, max) = text.split_once('-').ok_or_else(bad)?;
    let (min, max) =
        (min.trim().parse().map_err(|_| bad())?, max.trim().parse().map_err(|_| bad())?);
    if min == 0 || min > max { Err(bad()) } else { Ok((min, max)) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no key=value"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn rate(text: &str) -> Result<Setting, String> {
    let bad = || format!("{text:?} is no rate (want N/second, N/minute, N/hour or N/day)");
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let count = count.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
    let seconds = match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return Err(bad()),
    };
    Ok(Setting::Rate(count, Duration::from_secs(seconds)))
}
