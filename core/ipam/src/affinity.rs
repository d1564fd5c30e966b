//! Which node a block belongs to: claimed and released in two phases, so that a node that dies in
//! the middle leaves something that it, or another, can finish.

use ipnet::IpNet;
use jiff::Timestamp;

use crate::handle::TRIES;
use crate::names::{affinity_name, block_name};
use crate::objects::{Affinity, AffinityState, Block};
use crate::store::{Store, StoreError, Stored};

/// The block did not become the node's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is another node's.
    #[error("block {0} belongs to another node")]
    Taken(IpNet),
    /// It is in use, or was changed since it was looked at.
    #[error("block {0} is in use")]
    InUse(IpNet),
    /// The datastore failed.
    #[error("claiming block {0}")]
    Store(IpNet, #[source] StoreError),
}

/// Makes `cidr` a block of `node`, or finds that it is one already.
///
/// # Errors
/// [`ClaimError::Taken`] if another node was faster.
pub async fn claim(
    store: &impl Store,
    node: &str,
    cidr: IpNet,
    now: Timestamp,
) -> Result<Stored<Block>, ClaimError> {
    let failed = |e| ClaimError::Store(cidr, e);
    for _ in 0..TRIES {
        let Some(affinity) = pending(store, node, cidr).await.map_err(failed)? else { continue };
        let block = match store.create(Block::new(cidr, Some(node), now)).await {
            Err(StoreError::Exists) => {
                let found = store.get::<Block>(&block_name(cidr)).await.map_err(failed)?;
                let Some(block) = found else { continue };
                if !block.value.is_of(node) {
                    // Whoever finds the claim gone already has done this work for us.
                    let _ = store.delete(affinity).await;
                    return Err(ClaimError::Taken(cidr));
                }
                block
            }
            other => other.map_err(failed)?,
        };
        if affinity.value.state == AffinityState::Confirmed {
            return Ok(block);
        }
        let value = Affinity { state: AffinityState::Confirmed, ..affinity.value };
        match store.update(Stored { value, ..affinity }).await {
            Ok(_) => return Ok(block),
            Err(StoreError::Conflict) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Err(failed(StoreError::Conflict))
}

/// The node's claim, pending or confirmed; `None` if it changed under our hands.
async fn pending(
    store: &impl Store,
    node: &str,
    cidr: IpNet,
) -> Result<Option<Stored<Affinity>>, StoreError> {
    match store.create(Affinity::pending(node, cidr)).await {
        Err(StoreError::Exists) => {}
        other => return other.map(Some),
    }
    let Some(known) = store.get::<Affinity>(&affinity_name(node, cidr)).await? else {
        return Ok(None);
    };
    if known.value.state == AffinityState::Confirmed {
        return Ok(Some(known));
    }
    let value = Affinity { state: AffinityState::Pending, ..known.value };
    match store.update(Stored { value, ..known }).await {
        Err(StoreError::Conflict) => Ok(None),
        other => other.map(Some),
    }
}

/// Gives an empty block back: affinity to be deleted, block gone, affinity gone. `sequence`, if
/// given, must still be the block's, so that a block that was made anew is left alone.
///
/// # Errors
/// [`ClaimError::InUse`] if it is not empty (any more).
pub async fn release_affinity(
    store: &impl Store,
    node: &str,
    cidr: IpNet,
    sequence: Option<u64>,
) -> Result<(), ClaimError> {
    let failed = |e| match e {
        StoreError::Conflict => ClaimError::InUse(cidr),
        other => ClaimError::Store(cidr, other),
    };
    let affinity = store.get::<Affinity>(&affinity_name(node, cidr)).await.map_err(failed)?;
    let block = store.get::<Block>(&block_name(cidr)).await.map_err(failed)?;
    let block = block.filter(|b| b.value.is_of(node));
    let wrong = |b: &Block| !b.is_empty() || sequence.is_some_and(|s| s != b.sequence_number);
    if block.as_ref().is_some_and(|b| wrong(&b.value)) {
        return Err(ClaimError::InUse(cidr));
    }
    let leaving = match affinity {
        Some(a) => {
            let value = Affinity { state: AffinityState::PendingDeletion, ..a.value };
            Some(store.update(Stored { value, ..a }).await.map_err(failed)?)
        }
        None => None,
    };
    if let Some(block) = block {
        store.delete(block).await.map_err(failed)?;
    }
    match leaving {
        Some(a) => store.delete(a).await.map_err(failed),
        None => Ok(()),
    }
}
