//! Getting addresses: from the node's own blocks, from a new block, or borrowed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use model::IpVersion;

use crate::affinity::{ClaimError, claim, release_affinity};
use crate::block::BlockError;
use crate::handle::{self, TRIES};
use crate::names::block_name;
use crate::objects::{Affinity, AffinityState, Attribute, Block};
use crate::order::search_order;
use crate::pool::Pool;
use crate::release::release_address;
use crate::store::{Store, StoreError, Stored};

/// How long a node keeps an empty block before another may take it over: else two nodes could
/// take it from each other for ever.
const MIN_RECLAIM_AGE: SignedDuration = SignedDuration::from_secs(60);

/// Cluster-wide settings (IPAMConfiguration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Never take addresses from another node's block.
    pub strict_affinity: bool,
    /// Blocks per node and family.
    pub max_blocks: usize,
    /// Claim new blocks when the own ones are full.
    pub auto_allocate: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { strict_affinity: false, max_blocks: 20, auto_allocate: true }
    }
}

/// A request for addresses.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What they are released by later.
    pub handle: &'a str,
    /// The node that asks.
    pub node: &'a str,
    /// Written beside each address: namespace, pod, node, timestamp.
    pub owner: BTreeMap<String, String>,
    /// How many, from which pools: one entry a family.
    pub wants: Vec<(usize, Vec<&'a Pool>)>,
    /// Ranges that are never given out unasked.
    pub reserved: &'a [IpNet],
    /// Settings.
    pub limits: Limits,
    /// Now.
    pub now: Timestamp,
}

/// An address that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The block that it is from.
    pub block: IpNet,
}

/// No address.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// The node holds as many blocks as it may. There is no borrowing then.
    #[error("the node holds {0} blocks already, the most that it may")]
    BlockLimit(usize),
    /// Every address of every usable pool is taken.
    #[error("no free address in {0}")]
    Exhausted(String),
    /// An address that was asked for is in no enabled pool.
    #[error("{0} is in no enabled pool")]
    NoPool(IpAddr),
    /// An address that was asked for cannot be had.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// An address that was asked for is in a block of another node, and affinity is strict.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The datastore failed. Some addresses may have been given out all the same: release the
    /// handle before trying again.
    #[error("assigning: {0}")]
    Store(#[from] StoreError),
}

impl Request<'_> {
    fn attribute(&self) -> Attribute {
        Attribute {
            handle: Some(self.handle.to_owned()),
            owner: Some(self.owner.clone()),
            ..Attribute::default()
        }
    }
}

/// Gets every address of the request, or none.
///
/// # Errors
/// [`AssignError`]; what had been taken before the failure has been released again.
pub async fn assign(
    store: &impl Store,
    request: &Request<'_>,
) -> Result<Vec<Assigned>, AssignError> {
    let mut got = Vec::new();
    for (count, pools) in &request.wants {
        if let Err(e) = assign_family(store, request, *count, pools, &mut got).await {
            for one in got {
                release_address(store, one.block, one.address, None).await.map_err(
                    |e| match e {
                        crate::ReleaseError::Store(e) => AssignError::Store(e),
                        crate::ReleaseError::Block(e) => AssignError::Block(e),
                    },
                )?;
            }
            return Err(e);
        }
    }
    Ok(got)
}

async fn assign_family(
    store: &impl Store,
    request: &Request<'_>,
    count: usize,
    pools: &[&Pool],
    got: &mut Vec<Assigned>,
) -> Result<(), AssignError> {
    let goal = got.len() + count;
    let own = own_affinities(store, request.node, pools).await?;
    for affinity in &own {
        if got.len() >= goal {
            break;
        }
        from_affine(store, request, affinity, goal, got).await?;
    }
    let mut held = own.len();
    while got.len() < goal && request.limits.auto_allocate {
        if held >= request.limits.max_blocks {
            return Err(AssignError::BlockLimit(held));
        }
        let Some(block) = new_block(store, request, pools).await? else { break };
        held += 1;
        take(store, request, block, goal, got, Holder::This).await?;
    }
    if got.len() < goal && !request.limits.strict_affinity {
        borrow(store, request, pools, goal, got).await?;
    }
    if got.len() < goal {
        let names: Vec<_> = pools.iter().map(|p| p.name.as_str()).collect();
        return Err(AssignError::Exhausted(format!("pools {}", names.join(", "))));
    }
    Ok(())
}

async fn own_affinities(
    store: &impl Store,
    node: &str,
    pools: &[&Pool],
) -> Result<Vec<Affinity>, StoreError> {
    let all = store.list::<Affinity>().await?.into_iter().map(|a| a.value);
    let usable = |a: &Affinity| a.is_of(node) && pools.iter().any(|p| p.cidr.contains(&a.cidr));
    Ok(all.filter(usable).collect())
}

/// Takes from a block that is the node's, finishing a claim that was interrupted.
async fn from_affine(
    store: &impl Store,
    request: &Request<'_>,
    affinity: &Affinity,
    goal: usize,
    got: &mut Vec<Assigned>,
) -> Result<(), AssignError> {
    if affinity.state == AffinityState::Confirmed {
        let found = store.get::<Block>(&block_name(affinity.cidr)).await?;
        if let Some(block) = found {
            return take(store, request, block, goal, got, Holder::This).await;
        }
    }
    match claim(store, request.node, affinity.cidr, request.now).await {
        Ok(block) => take(store, request, block, goal, got, Holder::This).await,
        Err(ClaimError::Taken(_) | ClaimError::InUse(_)) => Ok(()),
        Err(ClaimError::Store(_, e)) => Err(e.into()),
    }
}

/// Whose block may be taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Only this node's.
    This,
    /// Anybody's: borrowing.
    Any,
}

/// Takes as much as is wanted and there. The handle is counted up first.
async fn take(
    store: &impl Store,
    request: &Request<'_>,
    block: Stored<Block>,
    goal: usize,
    got: &mut Vec<Assigned>,
    holder: Holder,
) -> Result<(), AssignError> {
    let cidr = block.value.cidr;
    let mut next = Some(block);
    for _ in 0..TRIES {
        let found = match next.take() {
            Some(block) => Some(block),
            None => store.get::<Block>(&block_name(cidr)).await?,
        };
        let Some(mut block) = found else { return Ok(()) };
        if holder == Holder::This && !block.value.is_of(request.node) {
            return Ok(());
        }
        let wanted = goal - got.len();
        // A damaged block is left alone; other blocks may do.
        let taken = block.value.take(wanted, &request.attribute(), request.reserved);
        let taken = taken.unwrap_or_default();
        if taken.is_empty() {
            return Ok(());
        }
        if write_taken(store, request.handle, block, taken.len() as u64).await? {
            got.extend(taken.into_iter().map(|address| Assigned { address, block: cidr }));
            return Ok(());
        }
    }
    Err(StoreError::Conflict.into())
}

/// `Ok(false)`: somebody else wrote the block first, look again.
async fn write_taken(
    store: &impl Store,
    id: &str,
    mut block: Stored<Block>,
    count: u64,
) -> Result<bool, StoreError> {
    let cidr = block.value.cidr;
    handle::add(store, id, cidr, count).await?;
    block.value.sequence_number += 1;
    match store.update(block).await {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict) => {
            handle::subtract(store, id, cidr, count).await?;
            Ok(false)
        }
        // Perhaps written: the handle must go on counting it.
        Err(e) => Err(e),
    }
}

/// Claims a block that is nobody's, or one that another node holds empty for a while. `None`: every
/// block is in use.
async fn new_block(
    store: &impl Store,
    request: &Request<'_>,
    pools: &[&Pool],
) -> Result<Option<Stored<Block>>, StoreError> {
    for _ in 0..TRIES {
        let existing: BTreeMap<IpNet, Stored<Block>> =
            store.list::<Block>().await?.into_iter().map(|b| (b.value.cidr, b)).collect();
        let cidr = match unclaimed(request, pools, &existing) {
            Some(cidr) => cidr,
            None => match reclaim(store, request, pools, &existing).await? {
                Some(cidr) => cidr,
                None => return Ok(None),
            },
        };
        match claim(store, request.node, cidr, request.now).await {
            Ok(block) => return Ok(Some(block)),
            Err(ClaimError::Taken(_) | ClaimError::InUse(_)) => {}
            Err(ClaimError::Store(_, e)) => return Err(e),
        }
    }
    Ok(None)
}

fn unclaimed(
    request: &Request<'_>,
    pools: &[&Pool],
    existing: &BTreeMap<IpNet, Stored<Block>>,
) -> Option<IpNet> {
    let usable = |cidr: &IpNet| match existing.get(cidr) {
        None => !request.reserved.iter().any(|r| r.contains(cidr)),
        Some(b) => b.value.is_of(request.node) && b.value.free(request.reserved) > 0,
    };
    pools.iter().find_map(|p| search_order(p.cidr, p.block_len, request.node).find(usable))
}

async fn reclaim(
    store: &impl Store,
    request: &Request<'_>,
    pools: &[&Pool],
    existing: &BTreeMap<IpNet, Stored<Block>>,
) -> Result<Option<IpNet>, StoreError> {
    for (cidr, block) in existing {
        let block = &block.value;
        let Some(node) = block.affinity.as_deref().and_then(|a| a.strip_prefix("host:")) else {
            continue;
        };
        let since = block.affinity_claim_time.unwrap_or(Timestamp::UNIX_EPOCH);
        let old = request.now.duration_since(since) >= MIN_RECLAIM_AGE;
        let ours = pools.iter().any(|p| p.cidr.contains(cidr));
        if !(ours && old && block.is_empty() && block.free(request.reserved) > 0) {
            continue;
        }
        match release_affinity(store, node, *cidr, Some(block.sequence_number)).await {
            Ok(()) => return Ok(Some(*cidr)),
            Err(ClaimError::Store(_, e)) => return Err(e),
            Err(_) => {}
        }
    }
    Ok(None)
}

async fn borrow(
    store: &impl Store,
    request: &Request<'_>,
    pools: &[&Pool],
    goal: usize,
    got: &mut Vec<Assigned>,
) -> Result<(), AssignError> {
    let blocks = store.list::<Block>().await?;
    let in_pool = |b: &Stored<Block>| pools.iter().any(|p| p.cidr.contains(&b.value.cidr));
    let mut blocks: Vec<_> = blocks.into_iter().filter(in_pool).collect();
    // Each node starts elsewhere, so that borrowers do not meet at one block.
    let start = crate::order::fnv(request.node.as_bytes()) as usize % blocks.len().max(1);
    blocks.rotate_left(start);
    for block in blocks {
        if got.len() >= goal {
            break;
        }
        take(store, request, block, goal, got, Holder::Any).await?;
    }
    Ok(())
}

/// Gets one address that was asked for by value. Pools may be any that are enabled: selectors and
/// reservations do not count.
///
/// # Errors
/// [`AssignError`]: it is taken, in no pool, or in another node's block under strict affinity.
pub async fn assign_exact(
    store: &impl Store,
    request: &Request<'_>,
    pools: &[Pool],
    address: IpAddr,
) -> Result<Assigned, AssignError> {
    let version = IpVersion::of(address);
    let holds = |p: &&Pool| {
        !p.disabled && IpVersion::of_net(&p.cidr) == version && p.cidr.contains(&address)
    };
    let pool = pools.iter().find(holds).ok_or(AssignError::NoPool(address))?;
    let cidr =
        IpNet::new(address, pool.block_len).map_err(|_| AssignError::NoPool(address))?.trunc();
    for _ in 0..TRIES {
        let mut block = match store.get::<Block>(&block_name(cidr)).await? {
            Some(block) => block,
            None => match claim(store, request.node, cidr, request.now).await {
                Ok(block) => block,
                Err(ClaimError::Taken(_)) => continue,
                Err(e) => return Err(e.into()),
            },
        };
        if request.limits.strict_affinity && !block.value.is_of(request.node) {
            return Err(ClaimError::Taken(cidr).into());
        }
        block.value.take_exactly(address, &request.attribute())?;
        if write_taken(store, request.handle, block, 1).await? {
            return Ok(Assigned { address, block: cidr });
        }
    }
    Err(StoreError::Conflict.into())
}
