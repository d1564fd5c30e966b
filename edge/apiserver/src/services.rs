//! Cluster addresses of services.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::api::Api;
use crate::status::{ApiError, Cause, Result};

/// A range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
}

impl Range {
    /// The range that `base/prefix` names, host bits ignored; `None` if the prefix is too long.
    pub fn new(base: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if base.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { base, prefix })
    }

    fn family(self) -> &'static str {
        if self.base.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// How many addresses can be given out, at most 65,534.
    fn size(self) -> u128 {
        let bits = if self.base.is_ipv4() { 32 } else { 128 };
        let all = 1_u128.checked_shl(u32::from(bits - self.prefix)).unwrap_or(u128::MAX);
        all.saturating_sub(2).min(65_534)
    }

    /// The address `offset` above the base of the range.
    fn at(self, offset: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from((u32::from(base) & mask) + offset as u32))
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from((u128::from(base) & mask) + offset))
            }
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.base.is_ipv4()
            && Self { base: address, ..self }.at(0) == self.at(0)
    }

    /// The first address: that of the API server's own service.
    pub(crate) fn first(self) -> IpAddr {
        self.at(1)
    }
}

/// Gives a service its cluster addresses, or checks those that it names.
pub(crate) fn allocate(api: &Api, service: &mut Value, before: Option<&Value>) -> Result<()> {
    let spec = &mut service["spec"];
    if !spec.is_object() || spec["type"] == "ExternalName" {
        return Ok(());
    }
    if let Some(old) = before.map(|b| &b["spec"]).filter(|old| old["clusterIP"].is_string()) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[field].is_null() {
                spec[field] = old[field].clone();
            }
        }
    }
    let ranges = ranges(api, spec)?;
    if spec["clusterIP"] == "None" {
        spec["clusterIPs"] = json!(["None"]);
    } else {
        let used = used(api, &service["metadata"]);
        let spec = &mut service["spec"];
        let mut wanted: Vec<String> = spec["clusterIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect();
        if let (true, Some(first)) = (wanted.is_empty(), spec["clusterIP"].as_str()) {
            wanted.extend((!first.is_empty()).then(|| first.to_owned()));
        }
        let mut addresses = Vec::new();
        for (at, range) in ranges.iter().enumerate() {
            addresses
                .push(choose(&service["metadata"], *range, wanted.get(at), &used)?.to_string());
        }
        let spec = &mut service["spec"];
        spec["clusterIP"] = addresses.first().cloned().into();
        spec["clusterIPs"] = addresses.into();
    }
    let spec = &mut service["spec"];
    spec["ipFamilies"] = ranges.iter().map(|r| r.family()).collect::<Vec<_>>().into();
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

/// The ranges to take from, in the order of the service's families.
fn ranges(api: &Api, spec: &Value) -> Result<Vec<Range>> {
    let all = &api.options.service_ranges;
    let named: Vec<&str> =
        spec["ipFamilies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let dual =
        matches!(spec["ipFamilyPolicy"].as_str(), Some("PreferDualStack" | "RequireDualStack"));
    let mut chosen: Vec<Range> = Vec::new();
    for family in named {
        let Some(range) = all.iter().find(|range| range.family() == family) else {
            return Err(refuse(
                "spec.ipFamilies",
                &format!("Invalid value: {family:?}: not configured on this cluster"),
            ));
        };
        chosen.push(*range);
    }
    for range in all {
        let wanted = if dual { 2 } else { 1 };
        if chosen.len() < wanted && !chosen.contains(range) {
            chosen.push(*range);
        }
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" && chosen.len() < 2 {
        return Err(refuse(
            "spec.ipFamilyPolicy",
            "Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ));
    }
    Ok(chosen)
}

/// The addresses of all other services.
fn used(api: &Api, own: &Value) -> HashSet<IpAddr> {
    let services = api.storage.list("core/services/", None).map(|l| l.objects).unwrap_or_default();
    let others = services.iter().map(|o| o.value()).filter(|s| s["metadata"]["uid"] != own["uid"]);
    let addresses = others.flat_map(|s| s["spec"]["clusterIPs"].as_array().into_iter().flatten());
    addresses.filter_map(|a| a.as_str()?.parse().ok()).collect()
}

fn choose(
    own: &Value,
    range: Range,
    wanted: Option<&String>,
    used: &HashSet<IpAddr>,
) -> Result<IpAddr> {
    if let Some(text) = wanted {
        let address: IpAddr = text.parse().map_err(|_| {
            refuse("spec.clusterIPs", &format!("Invalid value: {text:?}: not an IP address"))
        })?;
        if !range.contains(address) {
            return Err(refuse(
                "spec.clusterIPs",
                &format!("Invalid value: {text:?}: the provided IP is not in the service range"),
            ));
        }
        if used.contains(&address) {
            return Err(refuse(
                "spec.clusterIPs",
                &format!("Invalid value: {text:?}: provided IP is already allocated"),
            ));
        }
        return Ok(address);
    }
    // Spread by the service's uid, so that a deleted service's address is not taken at once.
    let text = own["uid"].as_str().unwrap_or_default();
    let hash = text.bytes().fold(7_u128, |h, b| h.wrapping_mul(131).wrapping_add(u128::from(b)));
    let size = range.size();
    let candidates = (0..size).map(|step| range.at(1 + (hash + step) % size));
    let free = candidates.into_iter().find(|a| *a != range.first() && !used.contains(a));
    free.ok_or_else(|| ApiError::internal("the service address range is full"))
}

fn refuse(field: &str, message: &str) -> ApiError {
    ApiError::invalid("Service", "", "", &[Cause::invalid(field, message)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_both_families() {
        for (base, prefix, first, last, outside) in [
            ("10.96.0.0", 16, "10.96.0.1", "10.96.255.254", "10.97.0.1"),
            ("fd00:96::", 112, "fd00:96::1", "fd00:96::fffe", "fd00:97::1"),
        ] {
            let range = Range::new(base.parse().unwrap(), prefix).unwrap();
            assert_eq!(range.first(), first.parse::<IpAddr>().unwrap());
            assert_eq!(range.at(range.size()), last.parse::<IpAddr>().unwrap());
            assert!(!range.contains(outside.parse().unwrap()));
            assert!(range.contains(last.parse().unwrap()));
        }
    }
}
