//! The agent's settings, from the environment.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use config::{Component, Problem, Settled};
use model::IpVersion;
use telemetry::{Format, LogConfig};

use crate::felix;

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
    /// What is logged where no parameter says it.
    pub(crate) log_filter: String,
    pub(crate) addresses: BTreeMap<IpVersion, Address>,
    pub(crate) default_pools: Vec<DefaultPool>,
    /// For pods, where the environment gives one.
    pub(crate) pod_mtu: Option<u32>,
    pub(crate) cluster_type: String,
    /// The environment, whole.
    pub(crate) environment: Vec<(String, String)>,
    /// What it says of this process.
    pub(crate) variables: Settled,
    /// The text of the configuration file; empty where there is none.
    pub(crate) felix_file: String,
    /// What the environment and that file say of the parameters.
    pub(crate) felix: config::Config,
    /// Whether another node may have the same address.
    pub(crate) shared_address: bool,
    /// Whether established flows are cut that policy denies now; as written.
    pub(crate) cut_flows: Option<String>,
}

impl Settings {
    /// Of this process. The configuration file need not be there.
    pub(crate) fn read(felix_file: &Path) -> Result<Self> {
        let felix_file = match std::fs::read_to_string(felix_file) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("reading {}", felix_file.display()))?,
        };
        Self::parse(std::env::vars().collect(), felix_file)
    }

    fn parse(environment: Vec<(String, String)>, felix_file: String) -> Result<Self> {
        let variables = config::settle(Component::Node, &environment, "");
        if let Some(Problem { name, message, .. }) = variables.problems.iter().find(|p| p.fatal) {
            bail!("{name}: {message}");
        }
        let felix = felix::local(&environment, &felix_file);
        let text = |name| variables.text(name);
        let dir = |name| text(name).map(PathBuf::from).unwrap_or_default();
        let log_filter = text("CALICO_STARTUP_LOGLEVEL").unwrap_or_default();
        let json = text("CALICO_LOG_FORMAT").as_deref() == Some("json");
        let addresses = [(IpVersion::V4, "IP"), (IpVersion::V6, "IP6")];
        Ok(Self {
            node: node_name(&variables, felix.hostname.as_deref())?,
            kubeconfig: text("KUBECONFIG").map(PathBuf::from),
            node_ref: text("CALICO_K8S_NODE_REF"),
            log: LogConfig {
                filter: felix::filter(felix.log_level, &log_filter).to_owned(),
                format: if json { Format::Json } else { Format::Text },
                file: felix.log_file.as_ref().map(PathBuf::from),
            },
            log_filter,
            addresses: addresses.map(|(v, name)| (v, address(&variables, name))).into(),
            default_pools: default_pools(&variables)?,
            pod_mtu: variables.positive("CNI_MTU"),
            cluster_type: text("CLUSTER_TYPE").unwrap_or_default(),
            shared_address: variables.flag("DISABLE_NODE_IP_CHECK"),
            cut_flows: text("CALICO_CUT_FLOWS"),
            run_dir: dir("CALICO_RUN_DIR"),
            lib_dir: dir("CALICO_LIB_DIR"),
            environment,
            felix_file,
            felix,
            variables,
        })
    }
}

fn node_name(variables: &Settled, felix: Option<&str>) -> Result<String> {
    let named = variables.text("NODENAME").or_else(|| felix.map(str::to_owned));
    if let Some(name) = named.or_else(|| variables.text("HOSTNAME")) {
        return Ok(name.to_lowercase());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        bail!("NODENAME is not set and the host has no name");
    }
    Ok(name)
}

fn address(variables: &Settled, name: &str) -> Address {
    let method = variables.text(&format!("{name}_AUTODETECTION_METHOD"));
    match variables.text(name).as_deref() {
        None => Address::None,
        Some("autodetect") => Address::Detect(method.unwrap_or_default()),
        Some(given) => Address::Given(given.to_owned()),
    }
}

fn default_pools(variables: &Settled) -> Result<Vec<DefaultPool>> {
    if variables.flag("NO_DEFAULT_POOLS") {
        return Ok(Vec::new());
    }
    let mut pools = Vec::new();
    for version in IpVersion::ALL {
        let digit = if version == IpVersion::V4 { '4' } else { '6' };
        let name = |key: &str| format!("CALICO_IPV{digit}POOL_{key}");
        let cidr = match variables.nets(&name("CIDR")) {
            [] => continue,
            [net] if IpVersion::of_net(net) == version => net.to_string(),
            _ => bail!("{}: want one IPv{digit} prefix or none", name("CIDR")),
        };
        let vxlan = encapsulation(variables, &name("VXLAN")).unwrap_or("Never");
        let ipip = if vxlan == "Never" { "Always" } else { "Never" };
        let size = variables.positive(&name("BLOCK_SIZE")).and_then(|size| size.try_into().ok());
        pools.push(DefaultPool {
            cidr,
            ipip: encapsulation(variables, &name("IPIP")).unwrap_or(ipip).to_owned(),
            vxlan: vxlan.to_owned(),
            block_size: size.with_context(|| format!("{}: want a number", name("BLOCK_SIZE")))?,
            nat_outgoing: variables.flag(&name("NAT_OUTGOING")),
            node_selector: variables.text(&name("NODE_SELECTOR")).unwrap_or_default(),
            disable_bgp_export: variables.flag(&name("DISABLE_BGP_EXPORT")),
        });
    }
    Ok(pools)
}

/// The words of the pool's field for those that start-up scripts use.
fn encapsulation(variables: &Settled, name: &str) -> Option<&'static str> {
    Some(match variables.text(name)?.as_str() {
        "Always" => "Always",
        "CrossSubnet" | "Cross-Subnet" => "CrossSubnet",
        _ => "Never",
    })
}

#[cfg(test)]
mod tests {
    use api::v3::felix::{Applied, Kind};

    use super::*;

    fn parse(table: &[(&str, &str)]) -> Result<Settings> {
        let pairs = table.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::parse(pairs.collect(), String::new())
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
            ("DATASTORE_TYPE", "perhaps"),
            ("CALICO_API_GROUP", "perhaps"),
        ] {
            let error = parse(&[("NODENAME", "a"), (name, value)]).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }

    /// A row that does not say "unused" shows in the settings, and no other does.
    #[test]
    fn the_rows_say_which_variables_are_read() {
        // Looked up where datastores are reached: `place.rs`, `remote`.
        let elsewhere = |name: &str| {
            ["ETCD_", "DATASTORE_TYPE", "CALICO_API_GROUP"].iter().any(|at| name.starts_with(at))
        };
        let base =
            [("HOSTNAME", "h"), ("IP6", "autodetect"), ("CALICO_IPV6POOL_CIDR", "fd00::/64")];
        let shown = |own: Option<(&str, &str)>| {
            let table: Vec<_> = base.into_iter().chain(own).collect();
            let settings = parse(&table).unwrap();
            format!(
                "{:?}",
                Settings { variables: Settled::default(), environment: vec![], ..settings }
            )
        };
        for row in Component::Node.rows().map(|row| row.parameter) {
            let examples: &[&str] = match row.kind {
                Kind::Flag => &["true", "false"],
                Kind::Choice(words) => words,
                Kind::Cidrs if row.name.contains('6') => &["fd01::/64"],
                Kind::Cidrs => &["10.0.0.0/16"],
                Kind::Int(..) => &["20", "123"],
                _ => &["7s"],
            };
            let good = examples.iter().filter(|text| config::parse(row.kind, text).is_ok());
            let shows = good.clone().any(|text| shown(Some((row.name, text))) != shown(None));
            assert!(good.count() > 0, "{}", row.name);
            let read = row.applied != Applied::Unused && !elsewhere(row.name);
            assert_eq!(shows, read, "{} is {:?}", row.name, row.applied);
        }
    }
}
