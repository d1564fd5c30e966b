//! What a cluster costs: start, pods, policies, memory, packets, each against its bar.
//!
//! `cargo bench -p calico --bench cluster` runs all of them, with names after `--` only those. Every
//! figure comes from the real programs: the agent and the CNI plugin as processes, the embedded API
//! over TLS, packets through the kernel. Needs root. The plugin stands beside the program: build
//! both first (`make build`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and ends when something fails"
)]

mod agent;
mod bed;
mod calicoctl;
mod cni_add;
mod first_packet;
mod memory;
mod packets;
mod policy;
mod report;
mod sandbox;
mod set_member;
mod store;
mod view;
mod world;

/// The benchmarks by name, in the order of the table.
const ALL: [(&str, fn()); 12] = [
    ("sandbox", sandbox::run),
    ("cni-add", cni_add::run),
    ("policy", policy::run),
    ("set-member", set_member::run),
    ("memory", memory::run),
    ("packets", packets::run),
    ("first-packet", first_packet::run),
    ("store", store::run),
    ("calicoctl", calicoctl::run),
    ("calicoctl-kubernetes", calicoctl::kubernetes),
    ("agent", agent::run),
    ("view", view::run),
];

fn main() {
    // Cargo says `--bench`; everything else is a name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for name in &wanted {
        let names = ALL.map(|(n, _)| n).join(", ");
        assert!(ALL.iter().any(|(n, _)| n == name), "no benchmark {name:?}, want one of {names}");
    }
    report::head();
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run();
        }
    }
}
