//! `ipam show`.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use api::v3::{AllocationAttribute, IPAMBlock, IPAMConfigurationSpec, IPPool, IPReservation};
use http::Method;
use ipnet::IpNet;
use serde::de::DeserializeOwned;

use crate::args::{Access, IpamShowArgs};
use crate::cluster::Cluster;
use crate::print::{Out, Table};
use crate::{Outcome, wait};

const GROUP: &str = "/apis/projectcalico.org/v3";

pub(crate) fn show(access: &Access, args: &IpamShowArgs) -> Result<Outcome> {
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let mut out = Out::new();
        let outcome = if args.show_configuration {
            configuration(&cluster, &mut out).await?;
            Outcome::Done
        } else {
            let blocks = blocks(&cluster).await?;
            if let Some(ip) = args.ip {
                address(&blocks, ip, &mut out)?
            } else if args.show_borrowed {
                borrowed(&blocks, &mut out)?;
                Outcome::Done
            } else {
                usage(&cluster, &blocks, args.show_blocks, &mut out).await?;
                Outcome::Done
            }
        };
        out.finish()?;
        Ok(outcome)
    })
}

async fn list<T: DeserializeOwned>(cluster: &Cluster, plural: &str) -> Result<Vec<T>> {
    let found = cluster.list(&format!("{GROUP}/{plural}")).await?;
    let found = found.with_context(|| format!("the server does not serve {plural}"))?;
    let read = |o| serde_json::from_value(o).with_context(|| format!("cannot read {plural}"));
    found.into_iter().map(read).collect()
}

/// A block with its range read.
struct Known {
    cidr: IpNet,
    block: IPAMBlock,
}

impl Known {
    fn in_use(&self) -> u128 {
        self.block.spec.allocations.iter().flatten().count() as u128
    }

    fn address(&self, ordinal: usize) -> IpAddr {
        match self.cidr.network() {
            IpAddr::V4(base) => {
                IpAddr::V4(std::net::Ipv4Addr::from_bits(base.to_bits() + ordinal as u32))
            }
            IpAddr::V6(base) => {
                IpAddr::V6(std::net::Ipv6Addr::from_bits(base.to_bits() + ordinal as u128))
            }
        }
    }

    fn allocations(&self) -> impl Iterator<Item = (IpAddr, &AllocationAttribute)> {
        let spec = &self.block.spec;
        spec.allocations.iter().enumerate().filter_map(|(ordinal, index)| {
            Some((self.address(ordinal), spec.attributes.get((*index)? as usize)?))
        })
    }
}

async fn blocks(cluster: &Cluster) -> Result<Vec<Known>> {
    let mut known = Vec::new();
    for block in list::<IPAMBlock>(cluster, "ipamblocks").await? {
        if block.spec.deleted {
            continue;
        }
        let cidr = block.spec.cidr.parse();
        let cidr = cidr.with_context(|| format!("IPAMBlock {}: spec.cidr", block.name()))?;
        known.push(Known { cidr, block });
    }
    known.sort_by_key(|k| k.cidr);
    Ok(known)
}

fn size(net: &IpNet) -> u128 {
    1u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX)
}

fn share(part: u128, whole: u128) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{part} ({percent:.0}%)")
}

/// Large sizes as people write them.
fn total(n: u128) -> String {
    if n < 10_000_000 { n.to_string() } else { format!("{:.4e}", n as f64) }
}

async fn usage(
    cluster: &Cluster,
    blocks: &[Known],
    with_blocks: bool,
    out: &mut Out,
) -> Result<()> {
    let pools = list::<IPPool>(cluster, "ippools").await?;
    let reservations = list::<IPReservation>(cluster, "ipreservations").await?;
    let reserved: Vec<IpNet> = reservations
        .iter()
        .flat_map(|r| &r.spec.reserved_cidrs)
        .filter_map(|text| api::net::masked(text).ok())
        .collect();
    let reserved = IpNet::aggregate(&reserved);
    let headings = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "RESERVED", "IPS FREE"];
    let mut table = Table::new(headings);
    let mut row = |what: &str, net: &IpNet, used: u128| {
        let all = size(net);
        let kept: u128 = reserved
            .iter()
            .filter_map(|r| match () {
                () if r.contains(net) => Some(all),
                () if net.contains(r) => Some(size(r)),
                () => None,
            })
            .sum();
        let free = all.saturating_sub(used).saturating_sub(kept);
        table.row([
            what.to_owned(),
            net.to_string(),
            total(all),
            share(used, all),
            kept.to_string(),
            if all < 10_000_000 { share(free, all) } else { total(free) },
        ]);
    };
    for pool in &pools {
        let net: IpNet =
            pool.spec.cidr.parse().with_context(|| format!("IPPool {}: spec.cidr", pool.name()))?;
        let mine: Vec<&Known> = blocks.iter().filter(|b| net.contains(&b.cidr)).collect();
        row("IP Pool", &net, mine.iter().map(|b| b.in_use()).sum());
        if with_blocks {
            for block in mine {
                row("Block", &block.cidr, block.in_use());
            }
        }
    }
    if with_blocks {
        let pool_nets: Vec<IpNet> = pools.iter().filter_map(|p| p.spec.cidr.parse().ok()).collect();
        for block in blocks.iter().filter(|b| !pool_nets.iter().any(|p| p.contains(&b.cidr))) {
            row("Block (no pool)", &block.cidr, block.in_use());
        }
    }
    out.line(&table.boxed())
}

fn address(blocks: &[Known], ip: IpAddr, out: &mut Out) -> Result<Outcome> {
    let found = blocks
        .iter()
        .filter(|b| b.cidr.contains(&ip))
        .find_map(|b| b.allocations().find(|(address, _)| *address == ip));
    let Some((_, owner)) = found else {
        out.line(&format!("IP {ip} is not currently assigned"))?;
        return Ok(Outcome::Done);
    };
    out.line(&format!("IP {ip} is in use"))?;
    if let Some(handle) = &owner.handle_id {
        out.line(&format!("Handle: {handle}"))?;
    }
    out.line("Attributes:")?;
    for (key, value) in &owner.secondary {
        out.line(&format!("  {key}: {value}"))?;
    }
    Ok(Outcome::Done)
}

fn borrowed(blocks: &[Known], out: &mut Out) -> Result<()> {
    let headings = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "ALLOCATED-TO"];
    let mut table = Table::new(headings);
    for known in blocks {
        let owner = known.block.spec.affinity.as_deref().unwrap_or_default();
        let owner = owner.strip_prefix("host:").unwrap_or(owner);
        for (ip, attribute) in known.allocations() {
            let of =
                |key: &str| attribute.secondary.get(key).map(String::as_str).unwrap_or_default();
            let node = of("node");
            if !node.is_empty() && node != owner {
                let to = format!("{}/{}", of("namespace"), of("pod"));
                table.row([ip.to_string(), node.into(), known.cidr.to_string(), owner.into(), to]);
            }
        }
    }
    out.line(&table.boxed())
}

async fn configuration(cluster: &Cluster, out: &mut Out) -> Result<()> {
    let path = format!("{GROUP}/ipamconfigurations/default");
    let spec: IPAMConfigurationSpec = match cluster.send(Method::GET, &path, None).await? {
        Some(object) => serde_json::from_value(object["spec"].clone())?,
        None => IPAMConfigurationSpec::default(),
    };
    let mut table = Table::new(["PROPERTY", "VALUE"]);
    table.row(["StrictAffinity".to_owned(), spec.strict_affinity.to_string()]);
    table.row(["AutoAllocateBlocks".to_owned(), spec.auto_allocate_blocks.to_string()]);
    table.row(["MaxBlocksPerHost".to_owned(), spec.max_blocks_per_host.to_string()]);
    if let Some(seconds) = spec.ip_cooldown_seconds {
        table.row(["IPCooldownSeconds".to_owned(), seconds.to_string()]);
    }
    out.line(&table.boxed())
}
