//! From a policy's write to its effect: a client writes over a warm connection, a prober sends a
//! datagram between two pods of the node every 50 microseconds, and the time runs from before the
//! write to the first datagram that meets the new verdict. Datagrams are never answered, so none of
//! them belongs to an established flow.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{Bed, Between, POLICIES, Pod};
use crate::report;

const STANDING: usize = 1_000;
const LOCAL: usize = 100;
const CHANGES: usize = 400;
const PORT: u16 = 9_999;
const EVERY: Duration = Duration::from_micros(50);
/// So many datagrams in a row must be missing before the first of them counts as denied.
const MISSING: usize = 20;

pub(crate) fn run() {
    let bed = Bed::new(1, Between::Vxlan);
    let pods = bed.attached(0, "local", LOCAL);
    bed.policies(STANDING);
    let allow = flip("flip", "Allow", 10);
    bed.make(POLICIES, None, vec![allow]);
    bed.settle(0);
    let bar = "p50 <= 5 ms, p99 <= 15 ms";
    let (changed, answered) = changes(&bed, &pods);
    report::times("policy changed in the API, enforced", bar, changed);
    report::times("of that, until the API has answered", "none", answered);
    report::times("policy created or deleted, enforced", bar, creations(&bed, &pods));
}

fn flip(name: &str, action: &str, order: u32) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "order": order, "selector": "app == 'app-1'", "types": ["Ingress"],
            "ingress": [{
                "action": action, "protocol": "UDP", "destination": {"ports": [PORT]},
            }],
        },
    })
}

/// The one policy is changed between allowing and denying.
fn changes(bed: &Bed, pods: &[Pod]) -> (Vec<Duration>, Vec<Duration>) {
    let mut prober = Prober::new(&pods[0], &pods[1]);
    assert!(prober.until(true, Duration::from_secs(5)).is_some(), "allowed: {}", bed.log(0));
    let mut times = (Vec::new(), Vec::new());
    for i in 0..CHANGES {
        let allowed = !i.is_multiple_of(2);
        let spec = &flip("flip", if allowed { "Allow" } else { "Deny" }, 10)["spec"];
        let patch = json!({"spec": spec});
        let api = bed.api.clone();
        let write = async move {
            api.patch(&POLICIES, (None, "flip"), None, &patch).await.unwrap();
        };
        let (took, answered) = one(bed, &mut prober, i, allowed, write);
        times.0.push(took);
        times.1.push(answered);
    }
    times
}

/// A denying policy before it comes and goes.
fn creations(bed: &Bed, pods: &[Pod]) -> Vec<Duration> {
    let mut prober = Prober::new(&pods[0], &pods[1]);
    assert!(prober.until(true, Duration::from_secs(5)).is_some(), "allowed: {}", bed.log(0));
    let mut times = Vec::new();
    let mut there: Option<Value> = None;
    for i in 0..CHANGES {
        let api = bed.api.clone();
        let took = if let Some(made) = there.take() {
            let write = async move {
                let text = |key: &str| made["metadata"][key].as_str().unwrap().to_owned();
                let which = (text("uid"), text("resourceVersion"));
                api.delete(&POLICIES, "before", (&which.0, &which.1)).await.unwrap();
            };
            one(bed, &mut prober, i, true, write).0
        } else {
            let (tell, told) = std::sync::mpsc::channel();
            let write = async move {
                let object = flip("before", "Deny", 1);
                let made: Value = api.create(&POLICIES, None, &object).await.unwrap();
                tell.send(made).unwrap();
            };
            let took = one(bed, &mut prober, i, false, write).0;
            there = Some(told.recv().unwrap());
            took
        };
        times.push(took);
    }
    times
}

/// One write: until it was in force, and until it was answered.
fn one(
    bed: &Bed,
    prober: &mut Prober,
    number: usize,
    allowed: bool,
    write: impl Future<Output = ()> + Send + 'static,
) -> (Duration, Duration) {
    // Not in step with anything that has a period.
    prober.pass(Duration::from_micros(20_000 + (number as u64 * 7_919) % 13_000));
    let started = Instant::now();
    let write = bed.runtime.spawn(async move {
        write.await;
        started.elapsed()
    });
    let flipped = prober.until(allowed, Duration::from_secs(10));
    let flipped = flipped.unwrap_or_else(|| panic!("no effect in 10 s: {}", bed.log(0)));
    (flipped.saturating_duration_since(started), bed.runtime.block_on(write).unwrap())
}

/// A namespace, and an address in it.
pub(crate) type End<'a> = (&'a testkit::Netns, std::net::IpAddr);

/// Sends from one pod to another and sees what arrives.
pub(crate) struct Prober {
    from: UdpSocket,
    to: UdpSocket,
    /// When each datagram was sent; its number is its place.
    sent: Vec<Instant>,
    arrived: Option<usize>,
}

impl Prober {
    fn new(from: &Pod, to: &Pod) -> Self {
        Self::between((&from.netns, from.addresses[0]), (&to.netns, to.addresses[0]), PORT)
    }

    /// Between two addresses, each in a namespace of its own.
    pub(crate) fn between(from: End<'_>, to: End<'_>, port: u16) -> Self {
        let socket = |(netns, address): End<'_>, port: u16| {
            let socket = netns.run(|| UdpSocket::bind((address, port))).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (from, at) = (socket(from, 0), to.1);
        from.connect((at, port)).unwrap();
        Self { from, to: socket(to, port), sent: Vec::new(), arrived: None }
    }

    /// Sends one and takes in what has arrived.
    fn step(&mut self) {
        let number = self.sent.len() as u64;
        self.sent.push(Instant::now());
        // A full queue is a lost datagram; the next one comes soon.
        drop(self.from.send(&number.to_be_bytes()));
        let mut buffer = [0; 8];
        while let Ok(8) = self.to.recv(&mut buffer) {
            let number = u64::from_be_bytes(buffer) as usize;
            self.arrived = self.arrived.max(Some(number));
        }
        std::thread::sleep(EVERY);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.step();
        }
    }

    /// When the first datagram was sent that met the wanted verdict.
    pub(crate) fn until(&mut self, allowed: bool, patience: Duration) -> Option<Instant> {
        let (end, first) = (Instant::now() + patience, self.sent.len());
        while Instant::now() < end {
            self.step();
            let next = self.arrived.map_or(0, |a| a + 1).max(first);
            if allowed && next > first {
                return Some(self.sent[next - 1]);
            }
            if !allowed && self.sent.len() > next + MISSING {
                return Some(self.sent[next]);
            }
        }
        None
    }
}
