//! Counting the addresses of a handle.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::names::handle_name;
use crate::objects::Handle;
use crate::store::{Store, StoreError};

/// How often a lost compare-and-swap is tried again before giving up.
pub(crate) const TRIES: usize = 100;

/// Counts `count` more addresses of `block`. Comes before the block is written, so that no address
/// is ever held by a handle that does not know of it.
pub(crate) async fn add(
    store: &impl Store,
    id: &str,
    block: IpNet,
    count: u64,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let blocks = BTreeMap::from([(block, count)]);
        let fresh = Handle { id: id.to_owned(), blocks, deleted: false };
        match store.create(fresh).await {
            Err(StoreError::Exists) => {}
            other => return other.map(drop),
        }
        let Some(mut known) = store.get::<Handle>(&handle_name(id)).await? else { continue };
        *known.value.blocks.entry(block).or_default() += count;
        match store.update(known).await {
            Err(StoreError::Conflict) => {}
            other => return other.map(drop),
        }
    }
    Err(StoreError::Conflict)
}

/// Takes back what [`add`] counted, when the addresses did not come about or were released.
pub(crate) async fn subtract(
    store: &impl Store,
    id: &str,
    block: IpNet,
    count: u64,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let Some(mut known) = store.get::<Handle>(&handle_name(id)).await? else { return Ok(()) };
        let left = known.value.blocks.get(&block).copied().unwrap_or(0).saturating_sub(count);
        match left {
            0 => drop(known.value.blocks.remove(&block)),
            left => drop(known.value.blocks.insert(block, left)),
        }
        let done = if known.value.blocks.is_empty() {
            store.delete(known).await
        } else {
            store.update(known).await.map(drop)
        };
        match done {
            Err(StoreError::Conflict) => {}
            other => return other,
        }
    }
    Err(StoreError::Conflict)
}
