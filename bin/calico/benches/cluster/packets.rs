//! What our tables cost an established flow. Both ends of the flow are in one thread on one CPU: a
//! datagram goes there and back within the thread's own system calls, so the thread's CPU time is the
//! whole path, without wake-ups. Our tables are switched off and on again in turn (dormant: their
//! hooks are gone, connection tracking stays), while the agents are stopped.

use std::net::UdpSocket;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::bed::{Bed, Between, Pod};
use crate::report;

const POLICIES: usize = 1_000;
const ROUNDS: usize = 21;
const ROUND_TRIPS: u32 = 10_000;

pub(crate) fn run() {
    for (between, name) in [(Between::Routes, "routes"), (Between::Vxlan, "VXLAN")] {
        let bed = Bed::new(2, between);
        bed.policies(POLICIES);
        allow(&bed);
        let here = bed.attached(0, "here", 2);
        let there = bed.attached(1, "there", 1);
        bed.settle(0);
        bed.settle(1);
        bed.signal_agents(Signal::SIGSTOP);
        pinned(|| {
            if between == Between::Routes {
                compare(&bed, "packet cost, one node", "<= 1.25x", &here[0], &here[1]);
            }
            let what = format!("packet cost, across nodes ({name})");
            compare(&bed, &what, "<= 1.35x", &here[0], &there[0]);
        });
        bed.signal_agents(Signal::SIGCONT);
    }
}

/// Runs something on one processor.
pub(crate) fn pinned<T>(run: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).unwrap();
    let mut cpus = CpuSet::new();
    cpus.set(0).unwrap();
    sched_setaffinity(this, &cpus).unwrap();
    let result = run();
    sched_setaffinity(this, &before).unwrap();
    result
}

/// The flow must be allowed to begin.
fn allow(bed: &Bed) {
    let policy = serde_json::json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "allow-udp"},
        "spec": {
            "order": 1, "selector": "has(app)", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "UDP"}],
        },
    });
    bed.make(crate::bed::POLICIES, None, vec![policy]);
}

fn compare(bed: &Bed, what: &str, bar: &str, a: &Pod, b: &Pod) {
    let flow = Flow::new(a, b);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        switch(bed, true);
        with.push(flow.cost());
        switch(bed, false);
        without.push(flow.cost());
    }
    switch(bed, true);
    let ratios = with.iter().zip(&without).map(|(w, o)| w / o).collect();
    let (with, without) = (median(with), median(without));
    report::note(&format!(
        "{what}: {:.3}x = {with:.0} ns / {without:.0} ns a round trip (medians)",
        with / without
    ));
    report::numbers(what, bar, ratios, |v| format!("{v:.3}x"));
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn switch(bed: &Bed, on: bool) {
    for node in &bed.topology.nodes {
        let tables = node.netns.out("nft list tables");
        let names: Vec<&str> = tables.lines().filter_map(|l| l.strip_prefix("table ")).collect();
        assert!(!names.is_empty(), "no table of ours");
        for name in names {
            let flags = if on { "" } else { "flags dormant;" };
            node.netns.sh(&format!("nft 'add table {name} {{ {flags} }}'"));
        }
        let tracked = node.netns.out("cat /proc/sys/net/netfilter/nf_conntrack_count");
        assert_ne!(tracked.trim(), "0", "connections are tracked in both cases");
    }
}

/// An established flow between two pods.
struct Flow {
    a: UdpSocket,
    b: UdpSocket,
}

impl Flow {
    fn new(a: &Pod, b: &Pod) -> Self {
        let socket = |pod: &Pod| pod.netns.run(|| UdpSocket::bind((pod.addresses[0], 0))).unwrap();
        let it = Self { a: socket(a), b: socket(b) };
        it.a.connect(it.b.local_addr().unwrap()).unwrap();
        it.b.connect(it.a.local_addr().unwrap()).unwrap();
        for socket in [&it.a, &it.b] {
            socket.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        }
        it.trips(100);
        it
    }

    fn trips(&self, count: u32) {
        let mut buffer = [0; 64];
        for _ in 0..count {
            self.a.send(&[7; 64]).unwrap();
            self.b.recv(&mut buffer).expect("the datagram arrives");
            self.b.send(&buffer).unwrap();
            self.a.recv(&mut buffer).expect("the answer arrives");
        }
    }

    /// Nanoseconds of CPU a round trip.
    fn cost(&self) -> f64 {
        self.trips(ROUND_TRIPS / 10);
        let before = cpu_time();
        self.trips(ROUND_TRIPS);
        (cpu_time() - before) as f64 / f64::from(ROUND_TRIPS)
    }
}

/// CPU time of this thread in nanoseconds.
#[expect(unsafe_code, reason = "the standard library does not have this clock")]
pub(crate) fn cpu_time() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux, and `now` is a valid place for the answer.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    assert_eq!(done, 0, "clock_gettime");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
