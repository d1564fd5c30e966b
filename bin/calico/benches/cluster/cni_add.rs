//! CNI ADD on a full node: the plugin's process from start to end, with 1,000 pods standing, every
//! one of them with a network namespace and an interface of its own. The pod and its namespace exist
//! before, as they do when a runtime calls; after each measured ADD comes a DEL, and time for what the
//! agent does after its answer: giving the addresses back.

use std::time::Duration;

use crate::bed::{Bed, Between};
use crate::report;

const STANDING: usize = 1_000;
const POLICIES: usize = 200;
const MEASURED: usize = 300;
const AFTER_DEL: Duration = Duration::from_millis(50);

pub(crate) fn run() {
    let bed = Bed::new(1, Between::Vxlan);
    bed.policies(POLICIES);
    let standing = bed.attached(0, "standing", STANDING);
    let mut pods = bed.pods(0, "new", MEASURED);
    bed.settle(0);
    let mut dels = Vec::new();
    let adds = pods.iter_mut().map(|pod| {
        let took = bed.add(pod);
        dels.push(bed.del(pod));
        std::thread::sleep(AFTER_DEL);
        took
    });
    let adds = adds.collect();
    report::times("CNI ADD, 1,000 pods on the node", "p50 <= 10 ms, p99 <= 30 ms", adds);
    report::times("CNI DEL, 1,000 pods on the node", "none", dels);
    drop(standing);
}
