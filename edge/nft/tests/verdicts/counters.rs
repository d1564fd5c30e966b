//! Rule by rule: each policy rule of the kernel's tables has counted the packets that the specification
//! says it matched, no more and no fewer.

use std::collections::BTreeMap;

use clusters::layout;
use machine::Chain;
use model::NodeName;
use policy::{Direction, Packet, Point, Verdict, View, evaluate};

use crate::judge::expected;
use crate::third::Tables;
use crate::world::{Place, place};

/// How often each rule matched: `ingress NetworkPolicy default/web` and the rule's index.
type Hits = BTreeMap<(String, u32), u64>;

/// Which rule of which policy a kernel rule is of.
fn rule_of(chain: &Chain, comment: Option<&str>) -> Option<(String, u32)> {
    let (policy, _) = chain.comment.as_deref()?.split_once(" tier ")?;
    let index = comment?.strip_prefix("rule ")?.parse().ok()?;
    Some((policy.to_owned(), index))
}

/// What the rules of policies have counted so far.
fn counted(tables: &Tables) -> Hits {
    let mut hits = Hits::new();
    for (_, chain) in tables.chains() {
        for rule in &chain.rules {
            let (of, counters) = (rule_of(chain, rule.comment.as_deref()), rule.counters());
            if let (Some(of), Some(counters)) = (of, counters.filter(|c| c.packets > 0)) {
                *hits.entry(of).or_default() += counters.packets;
            }
        }
    }
    hits
}

/// What they should have counted of one packet: everything that matched on this node until it was dropped.
fn wanted(view: &View, packet: &Packet, hits: &mut Hits) {
    let here = NodeName::from(layout::NODES[0]);
    let forged = matches!(place(packet.source), Some(Place::Pod(_)))
        && view.workload_at(packet.source).is_none();
    if forged || expected(view, packet).is_none() {
        return;
    }
    for step in evaluate(view, packet).steps {
        let on = match &step.point {
            Point::Workload(id) => &view.workloads[id].node,
            Point::Host(name, _) => &view.hosts[name].node,
            Point::Unprotected => continue,
        };
        if *on != here {
            continue;
        }
        let word = match step.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        for matched in step.considered.iter().filter(|c| c.failed.is_none()) {
            if let Some(policy) = &matched.policy {
                *hits.entry((format!("{word} {policy}"), matched.rule)).or_default() += 1;
            }
        }
        if step.verdict == Verdict::Deny {
            return;
        }
    }
}

/// The first packet of which the tables, as they are read, say something else.
fn odd_one(tables: &Tables, view: &View, packets: &[Packet]) -> String {
    let chains: BTreeMap<_, _> = tables.chains().collect();
    for packet in packets {
        let (mut want, mut got) = (Hits::new(), Hits::new());
        wanted(view, packet, &mut want);
        let met = tables.run(packet).met;
        for met in met.iter().filter(|m| m.matched() && m.counters.is_some()) {
            let rule = rule_of(chains[&met.chain], met.comment.as_deref());
            if let Some(rule) = rule {
                *got.entry(rule).or_default() += 1;
            }
        }
        if got != want {
            let met = met.iter().filter(|m| m.matched()).map(|m| (&m.chain, &m.comment, &m.did));
            let met: Vec<_> = met.collect();
            return format!("{packet:?} should match {want:?} and matches {got:?}: {met:#?}");
        }
    }
    "but no packet alone does so".to_owned()
}

/// Compares what was counted between two readings with what the packets sent in between should have made.
/// Returns how many matches were compared.
pub(crate) fn agree(
    [before, after]: [&Tables; 2],
    view: &View,
    packets: &[Packet],
    seed: u64,
) -> usize {
    let mut want = counted(before);
    let already: u64 = want.values().sum();
    for packet in packets {
        wanted(view, packet, &mut want);
    }
    let got = counted(after);
    for rule in want.keys().chain(got.keys()) {
        let [want, got] = [&want, &got].map(|hits| hits.get(rule).copied().unwrap_or_default());
        assert!(
            got == want,
            "seed {seed}: {rule:?} counted {got}, not {want}: {}",
            odd_one(before, view, packets)
        );
    }
    (want.values().sum::<u64>() - already) as usize
}
