//! Reading addresses and prefixes as users write them.

use std::net::IpAddr;

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
