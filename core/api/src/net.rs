//! Reading addresses and prefixes as users write them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// A prefix or a bare address, host bits kept.
///
/// # Errors
/// What was wanted.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    let bad = || format!("{text:?} is no prefix (want ADDRESS/LENGTH or an address, IPv4 or IPv6)");
    match text.parse::<IpNet>() {
        Ok(net) => Ok(net),
        Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| bad()),
    }
}

/// A prefix or a bare address, host bits cleared.
///
/// # Errors
/// What was wanted.
pub fn masked(text: &str) -> Result<IpNet, String> {
    prefix(text).map(|net| net.trunc())
}

/// An address.
///
/// # Errors
/// What was wanted.
pub fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address (want IPv4 or IPv6)"))
}

/// A time such as `90s`, `1m30s` or `500ms`. Empty text is no time at all.
///
/// # Errors
/// What was wanted.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time (want for example 90s, 1m30s or 500ms)");
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "us" | "\u{b5}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}
