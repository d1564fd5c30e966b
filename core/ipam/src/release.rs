//! Giving addresses back.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::block::BlockError;
use crate::handle::{self, TRIES};
use crate::names::{block_name, handle_name};
use crate::objects::{Block, Handle};
use crate::store::{Store, StoreError, Stored};

/// An address that could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The datastore failed; try again.
    #[error("releasing: {0}")]
    Store(#[from] StoreError),
    /// The caller's knowledge is out of date, or no block holds the address.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// Gives back every address of a handle, and the handle; how many that were. Idempotent.
///
/// # Errors
/// The datastore's. What was not released yet is still found by the handle.
pub async fn release_handle(store: &impl Store, id: &str) -> Result<u64, ReleaseError> {
    let mut freed = 0;
    for _ in 0..TRIES {
        let Some(known) = store.get::<Handle>(&handle_name(id)).await? else { return Ok(freed) };
        for block in known.value.blocks.keys() {
            freed += release_in_block(store, *block, &known.value.id).await?;
        }
        match store.delete(known).await {
            Ok(()) => return Ok(freed),
            Err(StoreError::Conflict) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

async fn release_in_block(
    store: &impl Store,
    cidr: IpNet,
    handle: &str,
) -> Result<u64, StoreError> {
    for _ in 0..TRIES {
        let Some(mut block) = store.get::<Block>(&block_name(cidr)).await? else { return Ok(0) };
        let freed = block.value.release_handle(handle);
        if freed == 0 {
            return Ok(0);
        }
        match write(store, block).await {
            Ok(()) => return Ok(freed),
            Err(StoreError::Conflict) => {}
            Err(e) => return Err(e),
        }
    }
    Err(StoreError::Conflict)
}

/// Gives one address back. `block` is the block that holds it; `sequence` as in
/// [`Block::release_address`]. `Ok(false)`: nobody had it.
///
/// # Errors
/// The datastore's, or a caller's knowledge that is out of date.
pub async fn release_address(
    store: &impl Store,
    block: IpNet,
    addr: IpAddr,
    sequence: Option<u64>,
) -> Result<bool, ReleaseError> {
    for _ in 0..TRIES {
        let Some(mut found) = store.get::<Block>(&block_name(block)).await? else {
            return Ok(false);
        };
        let Some(owner) = found.value.release_address(addr, sequence)? else { return Ok(false) };
        match write(store, found).await {
            Ok(()) => {}
            Err(StoreError::Conflict) => continue,
            Err(e) => return Err(e.into()),
        }
        if let Some(id) = owner.handle {
            handle::subtract(store, &id, block, 1).await?;
        }
        return Ok(true);
    }
    Err(StoreError::Conflict.into())
}

/// Writes a block from which something was released. One that is nobody's and empty goes away.
async fn write(store: &impl Store, mut block: Stored<Block>) -> Result<(), StoreError> {
    if block.value.affinity.is_none() && block.value.is_empty() {
        return store.delete(block).await;
    }
    block.value.sequence_number += 1;
    store.update(block).await.map(drop)
}
