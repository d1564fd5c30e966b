//! All pairs at once against one question a pair, on random clusters.

use std::net::IpAddr;

use clusters::{Dice, cluster, sample};
use model::policy::Icmp;
use model::{IpVersion, Protocol, WorkloadEndpoint};
use policy::{Judge, Overlay, Packet, Verdict, View};

/// A cluster with more pods: most have twins at other addresses, some on another node; some share an
/// address; one may have a node's.
fn crowded(dice: &mut Dice) -> View {
    let mut view = cluster(dice);
    let pods: Vec<_> = view.workloads.values().cloned().collect();
    let nodes: Vec<_> = view.nodes.keys().cloned().collect();
    for pod in &pods {
        for twin in 0..dice.roll(4) {
            let mut other = (**pod).clone();
            other.id.name = format!("{}-{twin}", pod.id.name).into();
            let moved = |address: &mut IpAddr| match address {
                IpAddr::V4(v4) => *v4 = (v4.to_bits() ^ (16 + twin as u32)).into(),
                IpAddr::V6(v6) => *v6 = (v6.to_bits() ^ (16 + u128::from(twin))).into(),
            };
            if !dice.one_in(8) {
                other.addresses.iter_mut().for_each(moved);
            }
            if dice.one_in(4) {
                other.node = dice.pick(&nodes);
            }
            view.workloads.insert(other.id.clone(), other.into());
        }
    }
    if dice.one_in(10) {
        let odd = dice.pick(&pods);
        let node = dice.pick(&nodes);
        let addresses = view.nodes[&node].interfaces[0].1.clone();
        view.workloads
            .insert(odd.id.clone(), WorkloadEndpoint { addresses, ..(*odd).clone() }.into());
    }
    if dice.one_in(2) {
        view.overlay = Overlay::Tunnelled;
    }
    view
}

fn addresses(view: &View) -> Vec<IpAddr> {
    view.workloads.values().flat_map(|pod| pod.addresses.clone()).collect()
}

/// Packets of all kinds, of which ports, protocol and ICMP type count.
fn likes(dice: &mut Dice) -> Vec<Packet> {
    let mut likes = sample(dice, 6);
    for like in &mut likes {
        like.original = None;
    }
    let echo = Packet::ping([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let solicitation = Some(Icmp { kind: 135, code: Some(0) });
    likes.push(echo);
    likes.push(Packet { protocol: Protocol::ICMPV6, icmp: solicitation, ..echo });
    likes
}

#[test]
fn reach_is_what_each_question_says() {
    let (mut allowed, mut denied, mut merged) = (0, 0, 0);
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let view = crowded(&mut dice);
        let judge = Judge::new(&view);
        let addresses = addresses(&view);
        for like in likes(&mut dice) {
            let reach = judge.reach(&addresses, &like);
            merged += addresses.len() - reach.classes();
            for (i, from) in addresses.iter().enumerate() {
                for (j, to) in addresses.iter().enumerate() {
                    if IpVersion::of(*from) != IpVersion::of(*to) {
                        continue;
                    }
                    let packet = Packet { source: *from, destination: *to, ..like };
                    let want = judge.evaluate(&packet).verdict;
                    assert_eq!(reach.verdict(i, j), want, "seed {seed}, {packet:?}");
                    *(if want == Verdict::Allow { &mut allowed } else { &mut denied }) += 1;
                }
            }
        }
    }
    // The clusters show both, often, and have pods that are alike.
    assert!(allowed > 1_000 && denied > 1_000, "{allowed} allowed, {denied} denied");
    assert!(merged > 1_000, "{merged} addresses were like others");
}
