//! What the first packet of a flow costs, by the number of policies: of the whole node, and of the pod that it
//! goes to, whose last policy allows it. Sockets with ports of their own are made before the clock runs, so
//! that each datagram is a new flow and nothing but its way is counted: the thread's CPU time from
//! sending to having received.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, Between, POLICIES, Pod};
use crate::packets::{cpu_time, median, pinned};
use crate::report;

const PORT: u16 = 9;
const FLOWS: usize = 1_000;
const ROUNDS: usize = 9;
/// The pod whose policies stay ten while others come, and those with more or fewer; each has a group of
/// its own, the first is the source.
const TEN: usize = 2;
const CURVE: [(usize, usize); 4] = [(1, 1), (TEN, 10), (3, 100), (4, 1_000)];
/// Pods on the same node that have all the other policies.
const OTHERS: std::ops::Range<usize> = 10..30;
const CLUSTER: [usize; 4] = [10, 100, 1_000, 10_000];

pub(crate) fn run() {
    let bed = Bed::new(1, Between::Routes);
    let pods = bed.attached(0, "p", OTHERS.end);
    bed.make(POLICIES, None, stack(TEN, 10).collect());
    let (mut standing, mut base) = (10, 0.0);
    for size in CLUSTER {
        let others = standing..size;
        let app = |at: usize| OTHERS.start + at % OTHERS.len();
        let other = |at| policy(&format!("other-{at}"), app(at), at, 1_000 + (at % 60_000) as u16);
        bed.make(POLICIES, None, others.map(other).collect());
        standing = size;
        let cost = measure(&bed, &pods[0], &pods[TEN]);
        let middle = median(cost.clone());
        if size == CLUSTER[0] {
            base = middle;
        }
        let what = format!("first packet, 10 policies on the pod, {size} on the node");
        report::numbers(&what, "", cost, |ns| format!("{:.2} us", ns / 1e3));
        if size == CLUSTER[3] {
            let what = format!("of that, against {} policies", CLUSTER[0]);
            report::numbers(&what, "<= 1.3x", vec![middle / base], |v| format!("{v:.3}x"));
        }
    }
    for (at, count) in CURVE {
        if at != TEN {
            bed.make(POLICIES, None, stack(at, count).collect());
        }
        let what = format!("first packet, {count} policies on the pod, the last one allows it");
        let cost = measure(&bed, &pods[0], &pods[at]);
        report::numbers(&what, "", cost, |ns| format!("{:.2} us", ns / 1e3));
    }
}

/// As many policies for one pod; only the last one is about the port.
fn stack(app: usize, count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(move |at| {
        let port = if at + 1 == count { PORT } else { 1_000 + at as u16 };
        policy(&format!("own-{app}-{at}"), app, at, port)
    })
}

fn policy(name: &str, app: usize, order: usize, port: u16) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "order": order, "selector": format!("app == 'app-{app}'"), "types": ["Ingress"],
            "ingress": [{
                "action": "Allow", "protocol": "UDP", "source": {"selector": "app == 'app-0'"},
                "destination": {"ports": [port]},
            }],
        },
    })
}

/// Nanoseconds a flow, a round each.
fn measure(bed: &Bed, from: &Pod, to: &Pod) -> Vec<f64> {
    bed.settle(0);
    bed.signal_agents(Signal::SIGSTOP);
    let bind =
        |pod: &Pod, port| pod.netns.run(|| UdpSocket::bind((pod.addresses[0], port))).unwrap();
    let receiver = bind(to, PORT);
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let goal = receiver.local_addr().unwrap();
    let costs = pinned(|| {
        let round = |_| {
            let senders: Vec<UdpSocket> = (0..FLOWS).map(|_| bind(from, 0)).collect();
            let mut buffer = [0; 64];
            let before = cpu_time();
            for sender in &senders {
                sender.send_to(&[7; 64], goal).unwrap();
                receiver.recv(&mut buffer).expect("the datagram arrives");
            }
            (cpu_time() - before) as f64 / FLOWS as f64
        };
        (0..ROUNDS).map(round).collect()
    });
    bed.signal_agents(Signal::SIGCONT);
    costs
}
