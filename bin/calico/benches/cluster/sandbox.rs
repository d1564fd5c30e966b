//! `calico sandbox up` with three nodes, from its start to its end: all nodes are ready then.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::report;

const RUNS: usize = 10;

pub(crate) fn run() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("bench{}", std::process::id());
    let sandbox = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
        command.args(["sandbox", "--name", &name, "--state-dir"]).arg(folder.path()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "sandbox {words:?}");
    };
    let one = |_| {
        let started = Instant::now();
        sandbox(&["up", "--nodes", "3"]);
        let took = started.elapsed();
        sandbox(&["down"]);
        took
    };
    report::times("sandbox, 3 nodes, up and ready", "<= 3 s", (0..RUNS).map(one).collect());
}
