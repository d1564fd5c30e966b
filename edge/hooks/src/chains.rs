//! Base chains of other programs' nf_tables tables.

use nft::{HookedChain, hooked_chains};

use crate::{Error, Finding, Kind, When, advice};

pub(crate) fn look() -> Result<Vec<Finding>, Error> {
    let all = hooked_chains()?;
    Ok(all.iter().filter_map(|chain| of(chain, &all)).collect())
}

/// Nothing for our own chains, for families that carry no IP packets of ours, and for chains that do
/// nothing to a packet.
fn of(chain: &HookedChain, all: &[HookedChain]) -> Option<Finding> {
    if chain.ours || chain.family == "arp" || chain.effects.is_empty() {
        return None;
    }
    // The last chain of ours in the hook decides; without one, where it would be.
    let last = all.iter().filter(|c| c.ours && c.hook == chain.hook).map(|c| c.priority).max();
    let when = match chain.hook {
        "ingress" | "prerouting" => When::Before,
        "postrouting" | "egress" => When::After,
        _ if chain.priority < last.unwrap_or(0) => When::Before,
        _ => When::After,
    };
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
