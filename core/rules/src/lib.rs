//! Calculated policy to nftables-shaped tables: sets, maps, chains, rules.
