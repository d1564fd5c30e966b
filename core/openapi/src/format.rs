//! The string and number formats that schemas name. A format that nobody knows admits everything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

pub(crate) fn fits_number(format: &str, value: &Value) -> bool {
    match format {
        "int32" => value.as_i64().map_or(!value.is_u64(), |n| i32::try_from(n).is_ok()),
        "int64" => value.is_i64() || value.is_f64(),
        _ => true,
    }
}

pub(crate) fn fits_string(format: &str, text: &str) -> bool {
    match format {
        "date-time" => is_date_time(text),
        "date" => is_date(text),
        "byte" => is_base64(text),
        "duration" => is_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text),
        "hostname" => is_hostname(text),
        "email" => {
            text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && is_hostname(host))
        }
        "uri" => text.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)),
        _ => true,
    }
}

/// Numbers with an optional binary (`Ki`), decimal (`m`, `k`) or exponent (`e3`) suffix.
pub(crate) fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = match unsigned.find(['e', 'E']).filter(|at| *at + 1 < unsigned.len()) {
        Some(at) => (&unsigned[..at], &unsigned[at..]),
        None => (digits, &unsigned[digits.len()..]),
    };
    is_decimal(number) && is_suffix(suffix)
}

fn is_decimal(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    (!whole.is_empty() || !part.is_empty())
        && (whole.to_owned() + part).bytes().all(|b| b.is_ascii_digit())
}

fn is_suffix(suffix: &str) -> bool {
    match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti"
        | "Pi" | "Ei" => true,
        _ => suffix
            .strip_prefix(['e', 'E'])
            .map(|e| e.strip_prefix(['+', '-']).unwrap_or(e))
            .is_some_and(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit())),
    }
}

fn number(text: &str, digits: usize, most: u32) -> bool {
    text.len() == digits
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u32>().is_ok_and(|n| n <= most)
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], [y, m, d] if number(y, 4, 9999) && number(m, 2, 12) && number(d, 2, 31) && m != "00" && d != "00")
}

fn is_date_time(text: &str) -> bool {
    let Some((date, rest)) = text.split_once(['T', 't']) else { return false };
    let Some(at) = rest.find(['Z', 'z', '+', '-']) else { return false };
    let (clock, zone) = rest.split_at(at);
    let (time, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let hms: Vec<&str> = time.split(':').collect();
    let zone_fits = zone.eq_ignore_ascii_case("z")
        || zone[1..].split_once(':').is_some_and(|(h, m)| number(h, 2, 23) && number(m, 2, 59));
    is_date(date)
        && matches!(hms[..], [h, m, s] if number(h, 2, 23) && number(m, 2, 59) && number(s, 2, 60))
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b.is_ascii_digit())
        && zone_fits
}

fn is_base64(text: &str) -> bool {
    let compact: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let padding = compact.iter().rev().take_while(|b| **b == b'=').count();
    compact.len().is_multiple_of(4)
        && padding <= 2
        && compact[..compact.len() - padding]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// `1h30m`, `-1.5s`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits =
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (value, after) = rest.split_at(digits);
        let unit = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .into_iter()
            .find(|u| after.starts_with(u));
        match unit.filter(|_| is_decimal(value)) {
            Some(unit) => rest = &after[unit.len()..],
            None => return false,
        }
    }
    true
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    !length.is_empty()
        && length.bytes().all(|b| b.is_ascii_digit())
        && length.parse::<u8>().is_ok_and(|l| l <= most)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6
        && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    (lengths == [8, 4, 4, 4, 12] || lengths == [32])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

fn is_hostname(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        for (format, text, fits) in [
            ("date-time", "2026-01-02T03:04:05Z", true),
            ("date-time", "2026-01-02T03:04:05.123456+01:00", true),
            ("date-time", "2026-01-02 03:04:05Z", false),
            ("date-time", "2026-13-02T03:04:05Z", false),
            ("byte", "YWJj", true),
            ("byte", "YWJ", false),
            ("duration", "1h30m", true),
            ("duration", "90", false),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "::1", false),
            ("cidr", "fd00::/8", true),
            ("cidr", "10.0.0.0/33", false),
            ("mac", "aa:bb:cc:00:11:22", true),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
            ("hostname", "a-b.example", true),
            ("hostname", "-a", false),
            ("unheard-of", "x", true),
        ] {
            assert_eq!(fits_string(format, text), fits, "{format} {text}");
        }
    }

    #[test]
    fn quantities() {
        for good in ["1", "100m", "1.5Gi", "-3k", "1e3", "2E", "12E-2", ".5", "0"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1 Gi", "1GiB", "1e", "a", "1..2", "1.2.3"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    #[test]
    fn integers_stay_in_their_range() {
        assert!(fits_number("int32", &serde_json::json!(2_147_483_647)));
        assert!(!fits_number("int32", &serde_json::json!(2_147_483_648_u64)));
        assert!(!fits_number("int64", &serde_json::json!(u64::MAX)));
        assert!(fits_number("int64", &serde_json::json!(i64::MIN)));
    }
}
