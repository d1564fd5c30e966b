//! A third opinion: the tables read back, and run by `core/machine`.

use std::collections::BTreeSet;

use clusters::Dice;
use clusters::layout::{self, INTERFACES};
use machine::{Table, Verdict, Way};
use model::IpVersion;
use nft::Reader;
use policy::{Packet, View};
use testkit::Netns;

use crate::judge::expected;
use crate::world::{Place, World, way};

/// Our tables of both families, as the kernel has them.
pub(crate) struct Tables([Table; 2]);

impl Tables {
    pub(crate) fn read(node: &Netns) -> Self {
        node.run(|| {
            let mut reader = Reader::open().unwrap();
            Self(IpVersion::ALL.map(|v| reader.table(v, "calico").unwrap().expect("our table")))
        })
    }

    /// The chains of both, by name.
    pub(crate) fn chains(&self) -> impl Iterator<Item = (&String, &machine::Chain)> {
        self.0.iter().flat_map(|table| &table.chains)
    }

    pub(crate) fn run(&self, packet: &Packet) -> machine::Run {
        let [v4, v6] = &self.0;
        let table = if packet.source.is_ipv4() { v4 } else { v6 };
        machine::run(table, &asked(packet), &through(packet))
    }
}

/// The same packet.
fn asked(packet: &Packet) -> machine::Packet {
    machine::Packet {
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol.0,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        icmp: packet.icmp.map(|i| (i.kind, i.code.unwrap_or(0))),
        original: packet.original,
    }
}

/// Its way through the node, as the cables are.
fn through(packet: &Packet) -> Way {
    let (from, to) = way(packet);
    let name = |place| match place {
        Place::Pod(pod) => Some(layout::pod_interface(pod)),
        Place::Interface(i) => Some(INTERFACES[i].to_owned()),
        Place::Host => None,
    };
    let own = |i: usize| {
        layout::node_addresses(0, i).into_iter().map(move |a| (INTERFACES[i].to_owned(), a))
    };
    let local = (0..INTERFACES.len()).flat_map(own).collect();
    // Services are behind the first interface.
    let towards = packet.original.map(|_| INTERFACES[0].to_owned());
    Way { input: name(from), output: name(to), towards, local }
}

/// The specification's verdict, which the kernel has been found to share, is what the tables say.
pub(crate) fn agrees(tables: &Tables, view: &View, packets: &[Packet], seed: u64) {
    for packet in packets {
        let run = tables.run(packet);
        let want = match expected(view, packet) {
            Some(policy::Verdict::Allow) => Verdict::Accept,
            Some(policy::Verdict::Deny) => Verdict::Drop,
            None => continue,
        };
        assert_eq!(
            run.verdict, want,
            "seed {seed}: the kernel, not the reader: {packet:?}\n{run:#?}"
        );
    }
}

/// Rules that are taken away by hand.
const TAKEN: usize = 3;
const PACKETS: usize = 120;

/// Some rules are deleted behind the agent's back: what the reader makes of the rest is what the
/// kernel does, whatever policy says.
pub(crate) fn agrees_about_damage(world: &mut World, view: &View, dice: &mut Dice, seed: u64) {
    let tables = Tables::read(&world.node);
    for (family, table) in ["ip", "ip6"].iter().zip(&tables.0) {
        let rules =
            table.chains.iter().flat_map(|(name, c)| c.rules.iter().map(move |r| (name, r)));
        // Neighbours must stay known, and nothing may be translated: the wires know addresses.
        let rules: Vec<_> = rules.filter(|(name, _)| *name != "nat-postrouting").collect();
        let taken: BTreeSet<_> =
            (0..TAKEN).map(|_| dice.pick(&rules)).map(|(name, r)| (name, r.handle)).collect();
        for (chain, handle) in taken {
            world.node.sh(&format!("nft delete rule {family} calico {chain} handle {handle}"));
        }
    }
    let tables = Tables::read(&world.node);
    let packets = clusters::sample(dice, PACKETS);
    let packets: Vec<Packet> =
        packets.into_iter().filter(|p| expected(view, p).is_some()).collect();
    // Rules that are gone may have kept packets in connection tracking, and so in translation.
    let packets: Vec<Packet> = packets.into_iter().filter(|p| p.original.is_none()).collect();
    let passed = world.passes(&packets);
    for (packet, passed) in packets.iter().zip(passed) {
        let run = tables.run(packet);
        let kernel = if passed { Verdict::Accept } else { Verdict::Drop };
        assert_eq!(
            run.verdict, kernel,
            "seed {seed}: read of damaged tables: {packet:?}\n{run:#?}"
        );
    }
}
