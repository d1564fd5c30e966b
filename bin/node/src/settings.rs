//! The agent's settings, from the environment.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use model::IpVersion;
use telemetry::{Format, LogConfig};

/// How the node's own address of a family is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// There is none.
    None,
    /// This one.
    Given(String),
    /// By a method, as written.
    Detect(String),
}

/// A pool that is made when the cluster has none of its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefaultPool {
    pub(crate) cidr: String,
    pub(crate) vxlan: String,
    pub(crate) ipip: String,
    pub(crate) block_size: u8,
    pub(crate) nat_outgoing: bool,
    pub(crate) node_selector: String,
    pub(crate) disable_bgp_export: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node: String,
    pub(crate) kubeconfig: Option<PathBuf>,
    /// What Kubernetes calls the node, for a datastore that knows nothing of it.
    pub(crate) node_ref: Option<String>,
    /// Sockets: `cni.sock`, `status.sock`.
    pub(crate) run_dir: PathBuf,
    /// For other processes: `nodename`.
    pub(crate) lib_dir: PathBuf,
    /// Until the configuration of the cluster is known.
    pub(crate) log: LogConfig,
    pub(crate) addresses: BTreeMap<IpVersion, Address>,
    pub(crate) default_pools: Vec<DefaultPool>,
    /// For pods, where the environment gives one.
    pub(crate) pod_mtu: Option<u32>,
    pub(crate) cluster_type: String,
    /// The text of the configuration file; empty where there is none.
    pub(crate) felix_file: String,
    /// Whether another node may have the same address.
    pub(crate) shared_address: bool,
    /// Whether established flows are cut that policy denies now; as written.
    pub(crate) cut_flows: Option<String>,
}

/// Reads variables; tests give a table.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Of this process. The configuration file need not be there.
    pub(crate) fn read(felix_file: &Path) -> Result<Self> {
        let mut it = Self::parse(&|name| std::env::var(name).ok().map(|v| v.trim().to_owned()))?;
        it.felix_file = match std::fs::read_to_string(felix_file) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("reading {}", felix_file.display()))?,
        };
        Ok(it)
    }

    pub(crate) fn parse(lookup: Lookup<'_>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|v| !v.is_empty());
        let dir = |name, default: &str| PathBuf::from(get(name).unwrap_or_else(|| default.into()));
        let run_dir = dir("CALICO_RUN_DIR", "/var/run/calico");
        let lib_dir = dir("CALICO_LIB_DIR", "/var/lib/calico");
        let level = get("FELIX_LOGSEVERITYSCREEN").or_else(|| get("CALICO_STARTUP_LOGLEVEL"));
        let json = get("CALICO_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
        let addresses = [(IpVersion::V4, "IP"), (IpVersion::V6, "IP6")];
        Ok(Self {
            node: node_name(&get)?,
            kubeconfig: get("KUBECONFIG").map(PathBuf::from),
            node_ref: get("CALICO_K8S_NODE_REF"),
            log: LogConfig {
                filter: level.unwrap_or_else(|| "info".into()),
                format: if json { Format::Json } else { Format::Text },
                file: get("FELIX_LOGFILEPATH").filter(|p| p != "none").map(PathBuf::from),
            },
            addresses: addresses.into_iter().map(|(v, name)| (v, address(&get, name))).collect(),
            default_pools: default_pools(&get)?,
            pod_mtu: number(&get, "CNI_MTU")?.filter(|m| *m > 0),
            cluster_type: get("CLUSTER_TYPE").unwrap_or_else(|| "k8s".into()),
            felix_file: String::new(),
            shared_address: flag(&get, "DISABLE_NODE_IP_CHECK", false)?,
            cut_flows: get("CALICO_CUT_FLOWS"),
            run_dir,
            lib_dir,
        })
    }
}

type Get<'a> = dyn Fn(&str) -> Option<String> + 'a;

fn node_name(get: &Get<'_>) -> Result<String> {
    let given = get("NODENAME").or_else(|| get("FELIX_FELIXHOSTNAME")).or_else(|| get("HOSTNAME"));
    if let Some(name) = given {
        return Ok(name.to_lowercase());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        bail!("NODENAME is not set and the host has no name");
    }
    Ok(name)
}

fn address(get: &Get<'_>, name: &str) -> Address {
    let method = get(&format!("{name}_AUTODETECTION_METHOD"));
    let detect = || Address::Detect(method.unwrap_or_else(|| "first-found".into()));
    match get(name).as_deref() {
        // Without a word about it, IPv4 is looked for and IPv6 is not.
        None if name == "IP" => detect(),
        None | Some("none") => Address::None,
        Some("autodetect") => detect(),
        Some(given) => Address::Given(given.to_owned()),
    }
}

fn default_pools(get: &Get<'_>) -> Result<Vec<DefaultPool>> {
    if flag(get, "NO_DEFAULT_POOLS", false)? {
        return Ok(Vec::new());
    }
    let mut pools = Vec::new();
    for (version, default_cidr) in [("4", Some("192.168.0.0/16")), ("6", None)] {
        let name = |key: &str| format!("CALICO_IPV{version}POOL_{key}");
        let cidr = get(&name("CIDR")).or(default_cidr.map(str::to_owned));
        let Some(cidr) = cidr.filter(|c| c != "none") else { continue };
        let family = if version == "4" { IpVersion::V4 } else { IpVersion::V6 };
        if !cidr.parse::<IpNet>().is_ok_and(|net| IpVersion::of_net(&net) == family) {
            bail!("{} is {cidr:?}, want an IPv{version} prefix or none", name("CIDR"));
        }
        let mode = |key: &str, default: &str| encap(&name(key), get(&name(key)), default);
        let vxlan = mode("VXLAN", "Never")?;
        let default_ipip = if version == "4" && vxlan == "Never" { "Always" } else { "Never" };
        let (sizes, default_size) = if version == "4" { (20..=32, 26) } else { (116..=128, 122) };
        pools.push(DefaultPool {
            cidr,
            ipip: mode("IPIP", default_ipip)?,
            vxlan,
            block_size: block_size(get, &name("BLOCK_SIZE"), sizes)?.unwrap_or(default_size),
            nat_outgoing: flag(get, &name("NAT_OUTGOING"), version == "4")?,
            node_selector: get(&name("NODE_SELECTOR")).unwrap_or_else(|| "all()".into()),
            disable_bgp_export: flag(get, &name("DISABLE_BGP_EXPORT"), false)?,
        });
    }
    Ok(pools)
}

fn encap(name: &str, value: Option<String>, default: &str) -> Result<String> {
    let text = value.unwrap_or_else(|| default.to_owned()).to_lowercase();
    Ok(match text.as_str() {
        "never" | "off" => "Never",
        "always" => "Always",
        "crosssubnet" | "cross-subnet" => "CrossSubnet",
        _ => bail!("{name} is {text:?}, want Never, Always or CrossSubnet"),
    }
    .to_owned())
}

fn flag(get: &Get<'_>, name: &str, default: bool) -> Result<bool> {
    let Some(text) = get(name) else { return Ok(default) };
    match text.to_lowercase().as_str() {
        "true" | "yes" | "y" | "t" | "1" | "on" | "enabled" => Ok(true),
        "false" | "no" | "n" | "f" | "0" | "off" | "disabled" => Ok(false),
        _ => bail!("{name} is {text:?}, want true or false"),
    }
}

fn number(get: &Get<'_>, name: &str) -> Result<Option<u32>> {
    let parse =
        |text: String| text.parse().with_context(|| format!("{name} is {text:?}, want a number"));
    get(name).map(parse).transpose()
}

fn block_size(get: &Get<'_>, name: &str, sizes: RangeInclusive<u8>) -> Result<Option<u8>> {
    let Some(given) = number(get, name)? else { return Ok(None) };
    match u8::try_from(given) {
        Ok(size) if sizes.contains(&size) => Ok(Some(size)),
        _ => bail!("{name} is {given}, want {} to {}", sizes.start(), sizes.end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(table: &[(&str, &str)]) -> Result<Settings> {
        let table: BTreeMap<_, _> = table.iter().copied().collect();
        Settings::parse(&|name| table.get(name).map(|v| (*v).to_owned()))
    }

    #[test]
    fn defaults() {
        let it = parse(&[("NODENAME", "Node-A")]).unwrap();
        assert_eq!(it.node, "node-a");
        assert_eq!(it.addresses[&IpVersion::V4], Address::Detect("first-found".into()));
        assert_eq!(it.addresses[&IpVersion::V6], Address::None);
        assert_eq!(it.default_pools.len(), 1);
        assert_eq!((&*it.default_pools[0].ipip, it.default_pools[0].block_size), ("Always", 26));
    }

    #[test]
    fn as_given() {
        let it = parse(&[
            ("NODENAME", "a"),
            ("IP", "10.0.0.1/24"),
            ("IP6", "autodetect"),
            ("CALICO_IPV4POOL_VXLAN", "Always"),
            ("CALICO_IPV6POOL_CIDR", "fd00::/64"),
        ])
        .unwrap();
        assert_eq!(it.addresses[&IpVersion::V4], Address::Given("10.0.0.1/24".into()));
        assert_eq!(it.default_pools[0].vxlan, "Always");
        assert_eq!(
            (&*it.default_pools[1].ipip, it.default_pools[1].nat_outgoing),
            ("Never", false)
        );
        assert!(
            parse(&[("NODENAME", "a"), ("NO_DEFAULT_POOLS", "true")])
                .unwrap()
                .default_pools
                .is_empty()
        );
    }

    #[test]
    fn nonsense_is_named() {
        for (name, value) in [
            ("CNI_MTU", "x"),
            ("CALICO_IPV4POOL_VXLAN", "perhaps"),
            ("NO_DEFAULT_POOLS", "perhaps"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "282"),
            ("CALICO_IPV4POOL_CIDR", "10.0.0.0/99"),
            ("CALICO_IPV6POOL_CIDR", "10.0.0.0/16"),
            ("DISABLE_NODE_IP_CHECK", "perhaps"),
        ] {
            let error = parse(&[("NODENAME", "a"), (name, value)]).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }
}
