//! Clusters that tests print as YAML mean what the test saw.

use clusters::{Dice, cluster, objects, sample, yaml};
use explain::Cluster;
use policy::{Verdict, evaluate};

#[test]
fn a_written_cluster_has_the_same_verdicts() {
    let (mut packets, mut denied) = (0, 0);
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let mut view = cluster(&mut dice);
        // Objects do not say which interfaces a node has.
        view.hosts.clear();
        let mut read = Cluster::default();
        for object in objects(&view) {
            let added = read.add(object.clone());
            added.unwrap_or_else(|errors| panic!("seed {seed}: {errors:?} in {object:#}"));
        }
        assert!(read.problems.is_empty(), "seed {seed}: {:?}", read.problems);
        let read = read.view();
        for packet in sample(&mut dice, 60) {
            let [want, got] = [&view, &read].map(|view| evaluate(view, &packet).verdict);
            assert_eq!(got, want, "seed {seed}, {packet:?}\n{}", yaml(&view));
            packets += 1;
            denied += usize::from(want == Verdict::Deny);
        }
    }
    assert!(denied > packets / 10 && denied < packets, "{denied} of {packets} denied");
}

#[test]
fn host_endpoints_are_written_too() {
    let written = (0..50).map(|seed| cluster(&mut Dice::new(seed))).filter(|v| !v.hosts.is_empty());
    let mut hosts = 0;
    for view in written {
        let mut read = Cluster::default();
        for object in objects(&view) {
            read.add(object).unwrap();
        }
        let read = read.view();
        assert_eq!(read.hosts, view.hosts);
        hosts += read.hosts.len();
    }
    assert!(hosts > 10, "{hosts}");
}
