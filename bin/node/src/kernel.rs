//! Interfaces of pods: netlink's blocking calls, off the asynchronous threads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use model::IfaceName;
use netlink::wire::check_pod;
use netlink::{Alias, Mac, Netns, Socket, Wire, make_pod, unwire_pod, wired_pods};

/// What a pod's interface should be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) host_iface: IfaceName,
    pub(crate) pod_iface: IfaceName,
    pub(crate) netns: PathBuf,
    /// Interface settings of the host.
    pub(crate) settings: Arc<netlink::Settings>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    pub(crate) alias: Alias,
    pub(crate) forwarding: bool,
}

impl Plan {
    fn with<T>(&self, act: impl FnOnce(&mut Socket, &Wire<'_>) -> netlink::Result<T>) -> Result<T> {
        let netns = Netns::open(&self.netns).context("opening the pod's network namespace")?;
        let wire = Wire {
            host_iface: &self.host_iface,
            pod_iface: &self.pod_iface,
            netns: netns.as_fd(),
            settings: &self.settings,
            addresses: &self.addresses,
            mtu: self.mtu,
            pod_mac: self.mac,
            alias: &self.alias,
            forwarding: self.forwarding,
        };
        Ok(act(&mut Socket::open()?, &wire)?)
    }
}

/// Makes the interface, down and without addresses.
pub(crate) async fn make(plan: Plan) -> Result<()> {
    blocking(move || plan.with(make_pod)).await
}

/// Sets the host's side up.
pub(crate) async fn raise_host(plan: Plan) -> Result<()> {
    blocking(move || plan.with(netlink::raise_host).map(drop)).await
}

/// Sets the pod's side up; its hardware address.
pub(crate) async fn raise_pod(plan: Plan) -> Result<Mac> {
    blocking(move || plan.with(|_, wire| netlink::raise_pod(wire))).await
}

/// What differs from the plan.
pub(crate) async fn check(plan: Plan) -> Result<Vec<String>> {
    blocking(move || plan.with(check_pod)).await
}

/// The pod's own hardware address.
pub(crate) async fn mac_inside(plan: Plan) -> Result<Option<Mac>> {
    blocking(move || {
        let netns = Netns::open(&plan.netns)?;
        let iface = plan.pod_iface;
        let link = netns.run(move || netlink::link::get(&mut Socket::open()?, &iface))??;
        Ok(link.and_then(|l| l.mac))
    })
    .await
}

/// Removes a container's interface; never that of a successor.
pub(crate) async fn unwire(iface: IfaceName, container: String) -> Result<bool> {
    blocking(move || Ok(unwire_pod(&mut Socket::open()?, &iface, Some(&container))?)).await
}

/// A pod interface that exists.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) iface: IfaceName,
    /// Whose; none for an interface that somebody else made.
    pub(crate) alias: Option<Alias>,
}

/// Every interface that we made for a pod, and every other whose name begins like a pod's.
pub(crate) async fn found(prefixes: Vec<String>) -> Result<Vec<Found>> {
    blocking(move || {
        let mut socket = Socket::open()?;
        let ours = wired_pods(&mut socket)?;
        let ours: BTreeMap<_, _> = ours.into_iter().map(|(link, a)| (link.name, a)).collect();
        let all = netlink::link::list(&mut socket)?.into_iter().map(|l| l.name);
        let found = all.map(|iface| Found { alias: ours.get(&iface).cloned(), iface });
        let like_a_pods = |f: &Found| prefixes.iter().any(|p| f.iface.as_str().starts_with(p));
        Ok(found.filter(|f| f.alias.is_some() || like_a_pods(f)).collect())
    })
    .await
}

/// The configured prefixes, and those of pods that were made under another configuration: what runs
/// stays under policy. The first is that of pods to come.
pub(crate) async fn prefixes(configured: Vec<String>) -> Result<Vec<String>> {
    let existing = found(Vec::new()).await?;
    Ok(with_existing(configured, existing.iter().map(|f| f.iface.as_str())))
}

fn with_existing<'a>(
    mut prefixes: Vec<String>,
    existing: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    for name in existing {
        if prefixes.iter().any(|p| name.starts_with(p)) {
            continue;
        }
        let digits = name.len().saturating_sub(api::convert::INTERFACE_DIGITS);
        let prefix = name.get(..digits).filter(|p| !p.is_empty()).unwrap_or(name);
        tracing::warn!(prefix, "pods have interfaces of a prefix that is not configured any more");
        prefixes.push(prefix.to_owned());
    }
    prefixes
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a kernel call panicked")?
}

/// As it is written.
pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// Reads it.
pub(crate) fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = text.split([':', '-']).map(|b| u8::from_str_radix(b, 16).ok());
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_an_earlier_prefix_stay_under_policy() {
        let existing = ["cali0123456789a", "tap0123456789ab", "cali123456789ab"];
        let all = with_existing(vec!["tap".to_owned()], existing.into_iter());
        assert_eq!(all, ["tap", "cali"]);
    }

    #[test]
    fn hardware_addresses() {
        let mac = parse_mac("02:00:5e:00:00:ff").unwrap();
        assert_eq!(mac_text(mac), "02:00:5e:00:00:ff");
        for bad in ["", "02:00:5e:00:00", "02:00:5e:00:00:ff:00", "zz:00:5e:00:00:ff"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
