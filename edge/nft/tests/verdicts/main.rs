//! Law 9, in a kernel: what happens to a packet is what the specification says.
//!
//! Random clusters go through the calculation, the rules and the driver into the kernel of a network
//! namespace; real packets go through it; the verdict of each must be that of [`policy::evaluate`].
//! Then the cluster changes, and again. In the end the tables must be those of an agent that knows
//! the last state only (law 1), and such that `nft` can read them.
//!
//! `CLUSTERS=5000 cargo test --release -p nft --test verdicts` asks about more clusters than usual
//! (that is `make soak`), `SEED=17` about those from seed 17 on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bytes;
mod counters;
mod judge;
#[path = "../listing/mod.rs"]
mod listing;
mod third;
mod world;

use std::time::Instant;

use clusters::Dice;
use judge::{Agent, Difference, compare, expected};
use model::policy::Stage;
use policy::{Packet, View};
use world::World;

const CLUSTERS: u64 = 250;
const PACKETS: usize = 160;
const CHANGES: usize = 2;
/// Of so many clusters one is read by `nft`, too.
const LISTED: u64 = 10;
/// Of so many one is damaged by hand, and the reader must say what the kernel does with the rest.
const DAMAGED: u64 = 3;

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name);
    set.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: want a number"))
    })
}

#[test]
fn the_kernel_does_what_the_policy_says() {
    let started = Instant::now();
    let (first, clusters) = (setting("SEED", 1), setting("CLUSTERS", CLUSTERS));
    let mut world = World::new();
    let mut sum = [0; 5];
    for seed in first..first + clusters {
        for (sum, one) in sum.iter_mut().zip(one_cluster(&mut world, seed)) {
            *sum += one;
        }
    }
    let [asked, allowed, early, said, matched] = sum;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{clusters} clusters, {asked} packets ({allowed} allowed), {matched} matches counted, {seconds:.1} s"
    );
    assert!(matched * 10 > asked, "policy rules count: {matched}");
    assert!(asked > 100 * clusters as usize, "most packets have an answer: {asked}");
    assert!(allowed * 20 > asked && allowed * 20 < asked * 19, "both answers: {allowed}/{asked}");
    assert!(said * 10 > asked * 9, "of most flows the tables say the same: {said}");
    assert!(early * 500 > asked, "policy before tracking and NAT decides now and then: {early}");
}

/// Packets asked about, how many of them passed, about how many policy before connection tracking or
/// destination NAT decided, about how many the wanted tables say the same, and how many matches of policy
/// rules were counted.
fn one_cluster(world: &mut World, seed: u64) -> [usize; 5] {
    let mut dice = Dice::new(seed);
    let mut view = clusters::cluster(&mut dice);
    let mut agent = Agent::new(&world.node, &view);
    agent.feed(clusters::updates(&view, &mut dice), &mut dice);
    let mut sum = [0; 5];
    for step in 0..=CHANGES {
        if step > 0 {
            let changes = clusters::changes(&mut view, &mut dice);
            agent.feed(changes, &mut dice);
        }
        agent.apply(&world.node);
        let packets = clusters::sample(&mut dice, PACKETS);
        let packets: Vec<Packet> =
            packets.into_iter().filter(|p| expected(&view, p).is_some()).collect();
        let tables = third::Tables::read(&world.node);
        match compare(world, &view, &packets) {
            Ok(passed) => {
                third::agrees(&tables, &view, &packets, seed);
                let after = third::Tables::read(&world.node);
                sum[4] += counters::agree([&tables, &after], &view, &packets, seed);
                sum[3] += agent.agrees(&view, &packets, seed);
                sum[0] += packets.len();
                sum[1] += passed;
                sum[2] += packets.iter().filter(|p| is_early(&view, p)).count();
            }
            Err(difference) => {
                let Difference { packet, decision, got } = *difference;
                let shown = judge::shrink(world, &view, &packet);
                panic!(
                    "seed {seed}, step {step}: the kernel says {got:?} to\n{packet:?}\n\
                     and the specification {decision:#?}\n{shown}"
                );
            }
        }
    }
    agent.is_as_if_fresh(&world.node, &view, seed);
    if seed.is_multiple_of(LISTED) {
        listing::is_understood_by_nft(&world.node.run(listing::ours));
    }
    if seed.is_multiple_of(DAMAGED) {
        third::agrees_about_damage(world, &view, &mut dice, seed);
    }
    sum
}

fn is_early(view: &View, packet: &Packet) -> bool {
    policy::evaluate(view, packet).steps.iter().any(|s| s.stage != Stage::Normal)
}
