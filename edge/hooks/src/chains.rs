//! Base chains of other programs' nf_tables tables.

use nft::HookedChain;

use crate::{Finding, Kind, advice, when};

pub(crate) fn look(all: &[HookedChain]) -> Vec<Finding> {
    all.iter().filter_map(|chain| of(chain, all)).collect()
}

/// Nothing for our own chains, for families that carry no IP packets of ours, and for chains that do
/// nothing to a packet.
fn of(chain: &HookedChain, all: &[HookedChain]) -> Option<Finding> {
    if chain.ours || chain.family == "arp" || chain.effects.is_empty() {
        return None;
    }
    let when = when(chain.hook, chain.priority, all);
    Some(Finding {
        kind: Kind::Nft,
        when,
        hook: chain.hook,
        priority: Some(chain.priority),
        name: format!("{} {} {}", chain.family, chain.table, chain.chain),
        effects: chain.effects.clone(),
        advice: advice(when, &chain.effects),
    })
}
