//! Clusters that tests print as YAML mean what the test saw.

use clusters::{Dice, cluster, layout, objects, sample, yaml};
use explain::Cluster;
use policy::{Verdict, View, evaluate};

/// The cluster, read back; none if it has something that the specification gives a meaning and users may
/// not write (a list with one prefix twice, a service on the wrong side).
fn read(view: &View) -> Option<Cluster> {
    let mut read = Cluster::default();
    objects(view).into_iter().try_for_each(|object| read.add(object)).ok()?;
    Some(read)
}

#[test]
fn a_written_cluster_has_the_same_verdicts() {
    let (mut packets, mut denied) = (0, 0);
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let mut view = cluster(&mut dice);
        // Objects do not say which interfaces a node has.
        view.hosts.clear();
        let Some(read) = read(&view) else { continue };
        assert!(read.problems.is_empty(), "seed {seed}: {:?}", read.problems);
        let read = read.view();
        let unsaid: Vec<_> = (0..2).flat_map(|node| layout::node_addresses(node, 1)).collect();
        for packet in sample(&mut dice, 60) {
            if unsaid.contains(&packet.source) || unsaid.contains(&packet.destination) {
                continue;
            }
            let [want, got] = [&view, &read].map(|view| evaluate(view, &packet).verdict);
            assert_eq!(got, want, "seed {seed}, {packet:?}\n{}", yaml(&view));
            packets += 1;
            denied += usize::from(want == Verdict::Deny);
        }
    }
    assert!(packets > 2_000, "{packets} packets in clusters that users may write");
    assert!(denied > packets / 10 && denied < packets, "{denied} of {packets} denied");
}

#[test]
fn host_endpoints_are_written_too() {
    let written = (0..2_000).map(|seed| cluster(&mut Dice::new(seed)));
    let mut hosts = 0;
    for view in written.filter(|view| !view.hosts.is_empty()) {
        let Some(read) = read(&view) else { continue };
        assert_eq!(read.view().hosts, view.hosts);
        hosts += view.hosts.len();
    }
    assert!(hosts > 10, "{hosts}");
}
