//! The control plane comes up, is its test's own, and leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{ControlPlane, Controllers};

const STAND: &str = "STANDS_UNTIL_KILLED";

fn gone(pid: i32) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{pid}")).exists() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn two_stand_beside_each_other_and_controllers_work() {
    let one = ControlPlane::start(Controllers::Running);
    let two = ControlPlane::start(Controllers::Absent);
    one.kubectl(&["create", "namespace", "a"]).expect("made");
    assert!(two.kubectl(&["get", "namespace", "a"]).is_err(), "each has its own data");
    one.kubectl(&["-n", "a", "create", "configmap", "m"]).expect("made");
    one.kubectl(&["delete", "namespace", "a", "--timeout=60s"]).expect("the controller empties it");
    assert!(one.kubectl(&["get", "namespace", "a"]).expect_err("gone").contains("NotFound"));
    let run = ["run", "p", "--image=none"];
    assert_eq!(two.kubectl(&run).expect("no service account is needed"), "pod/p created\n");
}

#[test]
fn nothing_stays_when_a_test_panics() {
    let mut seen = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let plane = ControlPlane::start(Controllers::Absent);
        let pids = ["etcd", "kube-apiserver"].map(|part| plane.pid(part));
        seen = Some((pids, plane.kubeconfig()));
        panic!("inside");
    }));
    assert!(panicked.is_err());
    let (pids, kubeconfig) = seen.expect("it was up");
    assert!(pids.into_iter().all(gone), "{pids:?}");
    assert!(!kubeconfig.exists());
}

/// What [`nothing_stays_when_a_test_is_killed`] runs in a process of its own, and nobody else.
#[test]
fn stands_until_killed() {
    if std::env::var_os(STAND).is_none() {
        return;
    }
    let plane = ControlPlane::start(Controllers::Absent);
    let [etcd, server] = ["etcd", "kube-apiserver"].map(|part| plane.pid(part));
    println!("up {etcd} {server} {}", plane.kubeconfig().display());
    std::thread::sleep(Duration::from_mins(10));
}

#[test]
fn nothing_stays_when_a_test_is_killed() {
    let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
        .args(["--exact", "--nocapture", "stands_until_killed"])
        .env(STAND, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the same program again");
    let out = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let said = out.lines().map_while(Result::ok).find_map(|line| {
        let (_, said) = line.split_once("up ")?;
        Some(said.split(' ').map(str::to_owned).collect::<Vec<_>>())
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let said = said.expect("it was up");
    let pid = |i: usize| said[i].parse().expect("a process id");
    assert!(gone(pid(0)) && gone(pid(1)), "{said:?}");
    let folder = Path::new(&said[2]).parent().expect("it is in a folder");
    let until = Instant::now() + Duration::from_secs(10);
    while folder.exists() {
        assert!(Instant::now() < until, "{} stays", folder.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_that_is_not_built_is_a_failure() {
    let said = std::panic::catch_unwind(|| testkit::kube_program("nonsense"));
    let said = said.expect_err("there is no such program");
    let said = said.downcast_ref::<String>().expect("a text");
    assert!(said.contains("kubectl|cluster"), "{said}");
}
