//! In which order a node looks through the blocks of a pool.

use ipnet::IpNet;

use crate::objects::address_at;

/// Every block of the pool once, in an order that depends on the node, so that nodes rarely meet.
///
/// * `pool`: either family; shorter than or as long as `block_len`.
/// * `block_len`: prefix bits of one block.
///
/// A permutation without a table: start at a hash of the node, walk with an odd stride (the number
/// of blocks is a power of two, so an odd stride reaches all). Yields nothing if the pool holds no
/// whole block.
pub fn search_order(pool: IpNet, block_len: u8, node: &str) -> impl Iterator<Item = IpNet> + Send {
    let bits = block_len.checked_sub(pool.prefix_len()).filter(|b| *b < 128);
    let count: u128 = bits.map_or(0, |b| 1 << b);
    let mask = count.wrapping_sub(1);
    let seed = fnv(node.as_bytes());
    let stride = u128::from(seed >> 32) | 1;
    let host_bits = pool.max_prefix_len().saturating_sub(block_len);
    (0..count).filter_map(move |i| {
        let at = u128::from(seed).wrapping_add(i.wrapping_mul(stride)) & mask;
        let first = address_at(pool, at << host_bits);
        IpNet::new(first, block_len).ok()
    })
}

/// A small stable hash (FNV-1a).
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_block_once() {
        for (pool, len, want) in [
            ("10.0.0.0/16", 26, 1024),
            ("fd00::/112", 122, 1024),
            ("10.0.0.0/26", 26, 1),
            ("10.0.0.0/27", 26, 0),
        ] {
            let pool: IpNet = pool.parse().unwrap();
            let all: BTreeSet<_> = search_order(pool, len, "node-1").collect();
            assert_eq!(all.len(), want, "{pool}");
            assert!(all.iter().all(|b| pool.contains(b)));
            assert_eq!(search_order(pool, len, "node-1").count(), want);
        }
        let pool = "10.0.0.0/16".parse().unwrap();
        assert_ne!(search_order(pool, 26, "node-1").next(), search_order(pool, 26, "b").next());
    }
}
