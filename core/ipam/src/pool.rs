//! Which pools a request may take addresses from.

use ipnet::IpNet;
use model::{IpVersion, Labels};
use selector::Selector;

/// A pool, as far as giving out addresses goes.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Name of the resource.
    pub name: String,
    /// The range.
    pub cidr: IpNet,
    /// Prefix bits of its blocks.
    pub block_len: u8,
    /// No new addresses.
    pub disabled: bool,
    /// Only on explicit request.
    pub manual: bool,
    /// What its addresses may be used for.
    pub uses: Vec<Use>,
    /// Nodes that may use it.
    pub nodes: Selector,
    /// Namespaces that may use it; `None`: all.
    pub namespaces: Option<Selector>,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A pod.
    Workload,
    /// A node's tunnel device.
    Tunnel,
    /// A service's external address.
    LoadBalancer,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Who {
    /// What for.
    pub purpose: Use,
    /// Labels of the node.
    pub node_labels: Labels,
    /// Labels of the pod's namespace; `None` for requests that have none.
    pub namespace_labels: Option<Labels>,
}

/// No pool fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A list that is not one.
    #[error("{0:?} is no JSON list of pool names or CIDRs")]
    NoList(String),
    /// Named, but there is none.
    #[error("there is no pool {0:?}")]
    Unknown(String),
    /// Named, but disabled.
    #[error("pool {0:?} is disabled")]
    Disabled(String),
    /// Named, but of the other family.
    #[error("pool {0:?} is not of the wanted address family")]
    OtherFamily(String),
    /// Nothing left after the selectors.
    #[error("no pool of family {0:?} is enabled and selects this node and namespace")]
    NoneFits(IpVersion),
}

/// Reads an annotation or a configuration list: a JSON list of names or CIDRs.
///
/// # Errors
/// [`PoolError::NoList`].
pub fn parse_list(text: &str) -> Result<Vec<String>, PoolError> {
    serde_json::from_str(text).map_err(|_| PoolError::NoList(text.to_owned()))
}

/// The pools that a request of one family may use, in order of preference. `explicit` names pools
/// (by name or CIDR) that are then taken whatever their selectors say.
///
/// # Errors
/// [`PoolError`]: a named pool is unusable, or none fits.
pub fn choose<'a>(
    pools: &'a [Pool],
    version: IpVersion,
    explicit: Option<&[String]>,
    who: &Who,
) -> Result<Vec<&'a Pool>, PoolError> {
    let chosen = match explicit {
        Some(names) => {
            names.iter().map(|n| named(pools, version, n)).collect::<Result<Vec<_>, _>>()?
        }
        None => pools.iter().filter(|p| p.accepts(version, who)).collect(),
    };
    if chosen.is_empty() { Err(PoolError::NoneFits(version)) } else { Ok(chosen) }
}

fn named<'a>(pools: &'a [Pool], version: IpVersion, name: &str) -> Result<&'a Pool, PoolError> {
    let cidr = name.parse::<IpNet>().ok();
    let found = pools.iter().find(|p| p.name == name || Some(p.cidr) == cidr);
    let pool = found.ok_or_else(|| PoolError::Unknown(name.to_owned()))?;
    if pool.disabled {
        return Err(PoolError::Disabled(name.to_owned()));
    }
    if IpVersion::of_net(&pool.cidr) != version {
        return Err(PoolError::OtherFamily(name.to_owned()));
    }
    Ok(pool)
}

impl Pool {
    /// Whether a request that names no pool may use it.
    pub fn accepts(&self, version: IpVersion, who: &Who) -> bool {
        let namespace_fits = match (&self.namespaces, &who.namespace_labels) {
            (None, _) => true,
            (Some(selector), Some(labels)) => selector.matches(labels),
            (Some(_), None) => false,
        };
        !self.disabled
            && !self.manual
            && IpVersion::of_net(&self.cidr) == version
            && self.uses.contains(&who.purpose)
            && self.nodes.matches(&who.node_labels)
            && namespace_fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pool(name: &str, cidr: &str, nodes: &str) -> Pool {
        Pool {
            name: name.into(),
            cidr: cidr.parse().unwrap(),
            block_len: 26,
            disabled: false,
            manual: false,
            uses: vec![Use::Workload, Use::Tunnel],
            nodes: Selector::parse(nodes).unwrap(),
            namespaces: None,
        }
    }

    #[test]
    fn table_of_5_3() {
        let pools = [
            pool("all", "10.1.0.0/16", "all()"),
            pool("rack", "10.2.0.0/16", "rack == 'a'"),
            Pool { disabled: true, ..pool("off", "10.3.0.0/16", "all()") },
            Pool { manual: true, ..pool("manual", "10.4.0.0/16", "all()") },
            Pool { uses: vec![Use::Tunnel], ..pool("tunnel", "10.5.0.0/16", "all()") },
            Pool {
                namespaces: Some(Selector::parse("team == 'x'").unwrap()),
                ..pool("team", "10.6.0.0/16", "all()")
            },
            pool("six", "fd00::/64", "all()"),
        ];
        let labels = |kv: &[(&str, &str)]| {
            Arc::new(kv.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
        };
        let who = Who {
            purpose: Use::Workload,
            node_labels: labels(&[]),
            namespace_labels: Some(labels(&[("team", "x")])),
        };
        let names = |explicit: Option<&[String]>| {
            choose(&pools, IpVersion::V4, explicit, &who)
                .map(|p| p.iter().map(|p| p.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(None).unwrap(), ["all", "team"]);
        let explicit = parse_list(r#"["rack", "10.4.0.0/16"]"#).unwrap();
        assert_eq!(names(Some(&explicit)).unwrap(), ["rack", "manual"], "selectors do not count");
        assert_eq!(names(Some(&["off".into()])), Err(PoolError::Disabled("off".into())));
        assert_eq!(names(Some(&["x".into()])), Err(PoolError::Unknown("x".into())));
        assert_eq!(names(Some(&["six".into()])), Err(PoolError::OtherFamily("six".into())));
        assert!(parse_list("all").is_err());
    }
}
