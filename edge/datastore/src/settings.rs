//! Pools, reservations and limits, as the cluster has them now.

use ipam::{Limits, Pool, Use};
use ipnet::IpNet;
use selector::Selector;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Datastore;
use crate::error::Error;
use crate::kinds::Resource;

pub(crate) const POOLS: Resource = Resource::calico("ippools", "IPPool");
const RESERVATIONS: Resource = Resource::calico("ipreservations", "IPReservation");
const CONFIGURATIONS: Resource = Resource::calico("ipamconfigurations", "IPAMConfiguration");

/// A pool, with what matters about it besides giving out addresses.
#[derive(Clone, Debug)]
pub struct PoolInfo {
    /// For giving out addresses.
    pub pool: Pool,
    /// VXLAN is used for it, always or sometimes.
    pub vxlan: bool,
}

/// What requests for addresses are judged by.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The pools, by name.
    pub pools: Vec<PoolInfo>,
    /// Ranges never given out unasked.
    pub reserved: Vec<IpNet>,
    /// Limits.
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    cidr: IpNet,
    block_size: Option<u8>,
    #[serde(default)]
    disabled: bool,
    assignment_mode: Option<String>,
    allowed_uses: Option<Vec<String>>,
    node_selector: Option<String>,
    namespace_selector: Option<String>,
    vxlan_mode: Option<String>,
}

impl Settings {
    /// Reads them from the datastore.
    ///
    /// # Errors
    /// The datastore's. A pool that cannot be understood is left out and reported.
    pub async fn load(datastore: &Datastore) -> Result<Self, Error> {
        let pools = datastore.list_all::<Value>(&POOLS);
        let reservations = datastore.list_all::<Value>(&RESERVATIONS);
        let configurations = datastore.list_all::<Value>(&CONFIGURATIONS);
        let (pools, reservations, configurations) =
            futures_util::join!(pools, reservations, configurations);
        // Clusters without these two kinds simply have none.
        let configured = absent_is_empty(configurations)?;
        let default = configured.iter().find(|c| c["metadata"]["name"] == "default");
        let mut pools: Vec<_> = pools?.iter().filter_map(pool_or_report).collect();
        pools.sort_by(|a, b| a.pool.name.cmp(&b.pool.name));
        Ok(Self {
            pools,
            reserved: absent_is_empty(reservations)?.iter().flat_map(reserved).collect(),
            limits: default.map_or_else(Limits::default, |c| limits(&c["spec"])),
        })
    }

    /// The pools alone.
    pub fn pools(&self) -> Vec<Pool> {
        self.pools.iter().map(|p| p.pool.clone()).collect()
    }
}

fn absent_is_empty(list: Result<Vec<Value>, Error>) -> Result<Vec<Value>, Error> {
    match list {
        Err(Error::NotFound(_)) => Ok(Vec::new()),
        other => other,
    }
}

fn pool_or_report(object: &Value) -> Option<PoolInfo> {
    let name = object["metadata"]["name"].as_str()?;
    match parse_pool(name, &object["spec"]) {
        Ok(pool) => Some(pool),
        Err(error) => {
            tracing::warn!(pool = name, error, "pool cannot be used");
            None
        }
    }
}

fn parse_pool(name: &str, spec: &Value) -> Result<PoolInfo, String> {
    let spec = PoolSpec::deserialize(spec).map_err(|e| e.to_string())?;
    let default_len = if spec.cidr.addr().is_ipv4() { 26 } else { 122 };
    let block_len = spec.block_size.unwrap_or(default_len);
    let block_bits = spec.cidr.max_prefix_len().checked_sub(block_len);
    if block_len < spec.cidr.prefix_len() || block_bits.is_none_or(|b| b > 12) {
        return Err(format!("block size {block_len} does not fit pool {}", spec.cidr));
    }
    let uses = spec.allowed_uses.filter(|u| !u.is_empty());
    let uses = uses.unwrap_or_else(|| vec!["Workload".to_owned(), "Tunnel".to_owned()]);
    let selector = |text: &str| Selector::parse(text).map_err(|e| format!("{text:?}: {e}"));
    let nodes = spec.node_selector.filter(|s| !s.is_empty());
    let namespaces = spec.namespace_selector.filter(|s| !s.is_empty());
    Ok(PoolInfo {
        pool: Pool {
            name: name.to_owned(),
            cidr: spec.cidr.trunc(),
            block_len,
            disabled: spec.disabled,
            manual: spec.assignment_mode.as_deref() == Some("Manual"),
            uses: uses.iter().filter_map(|u| use_of(u)).collect(),
            nodes: selector(nodes.as_deref().unwrap_or("all()"))?,
            namespaces: namespaces.as_deref().map(selector).transpose()?,
        },
        vxlan: spec.vxlan_mode.is_some_and(|m| m != "Never" && !m.is_empty()),
    })
}

fn use_of(text: &str) -> Option<Use> {
    match text {
        "Workload" => Some(Use::Workload),
        "Tunnel" => Some(Use::Tunnel),
        "LoadBalancer" => Some(Use::LoadBalancer),
        _ => None,
    }
}

fn reserved(object: &Value) -> Vec<IpNet> {
    let list = object["spec"]["reservedCIDRs"].as_array();
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts
        .filter_map(|t| {
            t.parse().ok().or_else(|| Some(IpNet::from(t.parse::<std::net::IpAddr>().ok()?)))
        })
        .collect()
}

fn limits(spec: &Value) -> Limits {
    let built_in = Limits::default();
    let most = spec["maxBlocksPerHost"].as_u64().filter(|n| *n > 0);
    Limits {
        strict_affinity: spec["strictAffinity"].as_bool().unwrap_or(built_in.strict_affinity),
        max_blocks: most.map_or(built_in.max_blocks, |n| n as usize),
        auto_allocate: spec["autoAllocateBlocks"].as_bool().unwrap_or(built_in.auto_allocate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pools_as_written() {
        let pool = parse_pool("p", &json!({"cidr": "10.0.0.0/16", "vxlanMode": "Always"})).unwrap();
        assert_eq!((pool.pool.block_len, pool.vxlan), (26, true));
        assert_eq!(pool.pool.uses, [Use::Workload, Use::Tunnel]);
        for (what, spec) in [
            ("no range", json!({})),
            ("block larger than pool", json!({"cidr": "10.0.0.0/27"})),
            ("odd selector", json!({"cidr": "10.0.0.0/16", "nodeSelector": "a =="})),
        ] {
            assert!(parse_pool("p", &spec).is_err(), "{what}");
        }
        let set = limits(&json!({"strictAffinity": true, "maxBlocksPerHost": 0}));
        assert_eq!((set.strict_affinity, set.max_blocks, set.auto_allocate), (true, 20, true));
        let list = json!({"spec": {"reservedCIDRs": ["10.0.0.0/30", "10.0.0.9"]}});
        assert_eq!(reserved(&list).len(), 2);
    }
}
