//! Wrong usage, missing parts, interruptions: a clear word, the right exit code, nothing left behind.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{CALICO, Said, Sandbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Exit code and part of the message; `calico: ...` is one line, wrong usage may show how to use it.
#[track_caller]
fn refused(said: &Said, code: i32, part: &str) {
    assert_eq!(said.code, code, "{}{}", said.out, said.err);
    assert!(said.err.contains(part), "{part:?} in {}", said.err);
    assert!(code != 1 || said.err.lines().count() == 1, "one line: {}", said.err);
    assert!(said.out.is_empty(), "errors go to standard error: {}", said.out);
}

#[test]
fn wrong_usage_and_nothing_up() {
    let s = Sandbox::new();
    let before = s.traces();
    for (words, code, part) in [
        ("up --nodes 0", 2, "0 is not in 1..=50"),
        ("up --nodes 300", 2, "300 is not in 1..=50"),
        ("up --nodes three", 2, "invalid digit"),
        ("up --encap gre", 2, "[possible values: vxlan, none]"),
        ("up now", 2, "unexpected argument 'now'"),
        ("", 2, "Usage"),
        ("exec", 2, "<POD|node:NAME>"),
        ("exec web", 2, "<COMMAND>"),
        ("logs", 2, "<NODE>"),
        ("probe --port 0", 2, "0 is not in 1..=65535"),
        ("probe --port 65536", 2, "65536 is not in 1..=65535"),
        ("probe --port http", 2, "invalid digit"),
        ("probe --protocol gre", 2, "[possible values: tcp, udp, sctp, icmp]"),
        ("up --timeout 0", 2, "0 is not in 1..=3600"),
        ("status -o yaml", 2, "[possible values: table, json]"),
        ("status", 1, "start one with `calico sandbox up`"),
        ("kubeconfig", 1, "start one with `calico sandbox up`"),
        ("probe", 1, "start one with `calico sandbox up`"),
        ("exec web -- true", 1, "start one with `calico sandbox up`"),
        ("logs k8s-node-1", 1, "start one with `calico sandbox up`"),
        ("resume", 1, "start one with `calico sandbox up`"),
        ("demo --examples /no/such/folder", 1, "/no/such/folder"),
    ] {
        refused(&s.ask(words), code, part);
    }
    assert_eq!(s.ask("down").code, 0, "nothing to take down is no error");
    let mut bad_name = Command::new(CALICO);
    refused(&Said::of(bad_name.args(["sandbox", "--name", "A/b", "up"]), ""), 2, "lower-case");
    assert_eq!(s.traces(), before);
}

#[test]
fn unknown_pods_and_nodes() {
    let s = Sandbox::new();
    let before = s.traces();
    s.run("up --nodes 1");
    for (words, part) in [
        ("exec nobody -- true", "no pod default/nobody"),
        ("exec shop/nobody -- true", "no pod shop/nobody"),
        ("exec node:k8s-node-9 -- true", "there are k8s-node-1"),
        ("logs k8s-node-9", "there are k8s-node-1"),
        ("probe --from nobody", "no pod default/nobody"),
        ("probe --to a/nobody", "no pod a/nobody"),
        ("up", "is up"),
    ] {
        refused(&s.ask(words), 1, part);
    }
    assert_eq!(s.ask("probe -o json").out, "", "no pods, no pairs");
    s.down(&before);
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
}

#[test]
fn one_command_at_a_time_makes_or_unmakes_it() {
    let s = Sandbox::new();
    let before = s.traces();
    let mut up = s.command("up --nodes 1");
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    s.wait_process(&[" supervise "], None);
    signal(up.id() as i32, Signal::SIGSTOP);
    for words in ["up", "down", "resume"] {
        refused(&s.ask(words), 1, "is being started or stopped by another command");
    }
    signal(up.id() as i32, Signal::SIGCONT);
    assert!(up.wait().unwrap().success(), "the others have not disturbed it");
    s.down(&before);
}

#[test]
fn resume_ends_when_something_never_answers() {
    let s = Sandbox::up("--nodes 1");
    for (who, part) in [
        (s.agent("k8s-node-1"), "k8s-node-1: its agent does not answer"),
        (s.wait_process(&["calico", " api "], None), "the API does not answer"),
    ] {
        signal(who, Signal::SIGSTOP);
        let said = s.ask("resume --timeout 1");
        signal(who, Signal::SIGCONT);
        refused(&said, 1, part);
        assert!(said.err.contains("(--timeout)"), "{}", said.err);
        s.run("resume");
    }
}

#[test]
fn a_probe_tells_of_pods_that_it_leaves_out() {
    let s = Sandbox::up("--nodes 1");
    assert!(s.ask("probe").err.contains("a probe needs two pods"));
    signal(s.agent("k8s-node-1"), Signal::SIGSTOP);
    s.kubectl("run late --image=any", "");
    let said = s.ask("probe");
    signal(s.agent("k8s-node-1"), Signal::SIGCONT);
    assert!(said.err.contains("not running yet, so not probed: default/late"), "{}", said.err);
    s.pods_ready();
    s.kubectl("run other --image=any", "");
    s.pods_ready();
    assert_eq!(s.ask("probe").err, "");
}

#[test]
fn without_root_it_says_so() {
    let s = Sandbox::new();
    // Somebody else can run the binary only where they can reach it.
    let open = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(open.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let binary = open.path().join("calico");
    std::fs::copy(CALICO, &binary).unwrap();
    std::fs::copy(Path::new(CALICO).with_file_name("calico-cni"), open.path().join("calico-cni"))
        .unwrap();
    for words in [&["up"][..], &["down"], &["resume"]] {
        let mut command = Command::new(&binary);
        command.args(["sandbox", "--name", &s.name]).args(words).uid(65_534).gid(65_534);
        refused(&Said::of(&mut command, ""), 1, "root is needed");
    }
}

#[test]
fn without_the_plugin_it_says_so() {
    let s = Sandbox::new();
    let binary = s.home.path().join("calico");
    std::fs::copy(CALICO, &binary).unwrap();
    let before = s.traces();
    let mut command = Command::new(&binary);
    command.args(["sandbox", "--name", &s.name, "--state-dir"]).arg(s.state_dir()).arg("up");
    refused(&Said::of(&mut command, ""), 1, "calico-cni is not there: build it");
    assert_eq!(s.traces(), before);
}

#[test]
fn down_removes_what_an_interrupted_up_leaves() {
    // As early as anything is there; and when all processes have been started.
    for until in [" supervise ", "NODENAME=k8s-node-2 "] {
        let s = Sandbox::new();
        let before = s.traces();
        let mut up = s.command("up --nodes 2");
        let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        s.wait_process(&[until], None);
        up.kill().unwrap();
        up.wait().unwrap();
        s.down(&before);
        s.run("up --nodes 1");
        s.down(&before);
    }
}

/// The demo stands beside the state folder's other sandboxes, under a name of its own.
fn demo(s: &Sandbox) -> Command {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut command = s.command("demo --examples");
    command.arg(examples).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Namespaces, processes and files of a demo with this process number.
fn left_of_demo(s: &Sandbox, demo: i32) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut left: Vec<_> = names.filter(|n| n.starts_with(&format!("demo-{demo}-"))).collect();
    left.extend(s.process(&[]).map(common::command_line));
    let files = std::fs::read_dir(s.state_dir()).into_iter().flatten().flatten();
    left.extend(files.map(|f| f.path().display().to_string()));
    left
}

#[test]
fn the_demo_agrees_to_the_end() {
    let s = Sandbox::new();
    let child = demo(&s).spawn().unwrap();
    let pid = child.id() as i32;
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("every connection did what the policies say"), "{out}");
    assert!(!out.contains("DIFFER"), "{out}");
    assert_eq!(left_of_demo(&s, pid), Vec::<String>::new());
}

#[test]
fn the_demo_interrupted_removes_everything() {
    // At the start, when namespaces are being made; and in the middle, under policies.
    for until in ["starting a cluster", "apply default-deny-ingress.yaml"] {
        let s = Sandbox::new();
        let mut child = demo(&s).spawn().unwrap();
        let pid = child.id() as i32;
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(until) {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the demo ended before {until:?}");
        }
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{rest}{err}");
        assert!(err.contains("interrupted; everything has been removed"), "{err}");
        assert_eq!(left_of_demo(&s, pid), Vec::<String>::new(), "{until}");
    }
}
