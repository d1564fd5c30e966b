//! Tables as text, as `nft` reads and writes them.
#![allow(dead_code, reason = "each test file uses some")]

use std::io::Write;
use std::process::{Command, Stdio};

use testkit::{in_netns, out};

/// Our tables in the namespace of the calling thread, without counters.
pub(crate) fn ours() -> String {
    ["ip", "ip6"].map(|family| out(&format!("nft -s list table {family} calico"))).concat()
}

/// Elements of sets in one order: that of hash sets is the kernel's secret.
pub(crate) fn in_order(text: &str) -> String {
    let mut sorted = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("elements = {") {
        let (inside, after) = after.split_once('}').expect("what opens closes");
        let mut all: Vec<&str> = inside.split(',').map(str::trim).collect();
        all.sort_unstable();
        sorted = format!("{sorted}{before}elements = {{ {}", all.join(", "));
        rest = after;
    }
    sorted + rest
}

/// `nft` itself takes the text for a ruleset, and has the same when it has loaded it elsewhere.
pub(crate) fn is_understood_by_nft(text: &str) {
    let again = in_netns(|| {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refuses its own listing:\n{text}");
        ours()
    });
    let [first, again] = [text, &again].map(in_order);
    for (first, again) in first.lines().zip(again.lines()) {
        assert_eq!(first, again, "nft understands it in another way:\n{text}");
    }
    assert_eq!(first.lines().count(), again.lines().count(), "nft lost something:\n{text}");
}
