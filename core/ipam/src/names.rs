//! Names of the objects in the API.

use ipnet::IpNet;
use sha1::{Digest, Sha1};

/// Longest name of an affinity that other parts of the cluster accept.
const MAX_AFFINITY_NAME: usize = 252;

/// `10.65.0.0/26` is `10-65-0-0-26`.
pub fn block_name(cidr: IpNet) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

/// `<node>-<block>`; a node name that is too long is cut and told apart by a hash.
pub fn affinity_name(node: &str, cidr: IpNet) -> String {
    let block = block_name(cidr);
    let room = MAX_AFFINITY_NAME - block.len() - 1;
    if node.len() <= room {
        return format!("{node}-{block}");
    }
    let digest = Sha1::digest(node);
    let leading = digest.iter().take(8).fold(0_u64, |n, b| (n << 8) | u64::from(*b));
    let hash = format!("{leading:016x}");
    let mut keep = room - 12;
    while !node.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}-{}-{block}", &node[..keep], &hash[..11])
}

/// A handle's name is its id in lower case.
pub fn handle_name(id: &str) -> String {
    id.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects() {
        let v4 = "10.65.0.0/26".parse().unwrap();
        let v6 = "fd00:10:0:1::40/122".parse().unwrap();
        assert_eq!(block_name(v4), "10-65-0-0-26");
        assert_eq!(block_name(v6), "fd00-10-0-1--40-122");
        assert_eq!(affinity_name("node-a", v4), "node-a-10-65-0-0-26");
        assert_eq!(handle_name("net.ABC"), "net.abc");
        let long = affinity_name(&"n".repeat(253), v6);
        assert_eq!(long.len(), MAX_AFFINITY_NAME);
        assert_ne!(long, affinity_name(&"n".repeat(254), v6), "cut names stay apart");
    }
}
