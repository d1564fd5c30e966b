//! calicoctl as scripts use it: whole processes, from start to end, on the embedded store, on etcd, and on a
//! Kubernetes API server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use testkit::{ControlPlane, Controllers, Etcd};

use crate::report::{self, note};

const POLICIES: usize = 10_000;
const SHORT: usize = 100;
const LONG: usize = 5;
/// A server of Kubernetes takes its time.
const ROUNDS: usize = 4;

/// The environment of the commands that are measured.
struct Place {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    fn new(variables: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(folder.path().join("one.yaml"), policy(0)).unwrap();
        let all: String = (0..POLICIES).map(policy).collect();
        std::fs::write(folder.path().join("all.yaml"), all).unwrap();
        Self { folder, variables }
    }

    /// Runs `calicoctl WORDS`: how long it took, and the most memory it was seen to have, in bytes.
    fn run(&self, words: &str) -> (Duration, f64) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
        command.arg("ctl").args(words.split(' ')).current_dir(self.folder.path());
        command.env_remove("KUBECONFIG").env("HOME", self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        let log = File::create(self.folder.path().join("err")).unwrap();
        let started = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut peak = 0.0_f64;
        let status = loop {
            peak = peak.max(peak_of(child.id()));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        let took = started.elapsed();
        let err = std::fs::read_to_string(self.folder.path().join("err")).unwrap();
        assert!(status.success(), "calicoctl {words}: {err}");
        (took, peak)
    }

    fn row(&self, what: &str, bar: &str, (count, words): (usize, &str)) {
        let samples: Vec<_> = (0..count).map(|_| self.run(words)).collect();
        report::times(what, bar, samples.iter().map(|s| s.0).collect());
        let memory = samples.iter().map(|s| s.1).collect();
        report::numbers("of that, memory", "", memory, |bytes| {
            format!("{:.1} MiB", bytes / f64::from(1 << 20))
        });
    }
}

/// The most memory that a process has had. It is asked while it runs: what comes at its very end is missed.
fn peak_of(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    number.unwrap_or_default() * 1024.0
}

fn policy(at: usize) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p-{at}}}\nspec:\n  order: {at}\n  \
         selector: app == 'a{at}'\n  ingress:\n  - {{action: Allow, protocol: TCP, source: {{selector: \"role == 'b'\"}}, \
         destination: {{ports: [80]}}}}\n---\n"
    )
}

pub(crate) fn run() {
    let nowhere = Place::new(Vec::new());
    nowhere.row("calicoctl version --client", "<= 5 ms, 10 MiB", (SHORT, "version --client"));
    nowhere.row("calicoctl validate, 1 policy", "<= 5 ms, 10 MiB", (SHORT, "validate -f one.yaml"));
    nowhere.row("calicoctl validate, 10,000", "<= 500 ms", (LONG, "validate -f all.yaml"));

    let etcd = Etcd::start_on_disk(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let variables =
        vec![("DATASTORE_TYPE", "etcdv3".to_owned()), ("ETCD_ENDPOINTS", etcd.url().to_owned())];
    commands("etcd", &Place::new(variables));
    drop(etcd);

    let (mut store, kubeconfig) = embedded();
    let variables = vec![("KUBECONFIG", kubeconfig.0.display().to_string())];
    commands("embedded", &Place::new(variables));
    drop(store.kill());
    drop(store.wait());
}

/// The same work by a client that does nothing but send it, and by calicoctl, in turn.
pub(crate) fn kubernetes() {
    note("calicoctl on Kubernetes");
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v3");
    let place = Place::new(vec![("KUBECONFIG", plane.kubeconfig().display().to_string())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    let client = runtime.block_on(async {
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    });
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let plainly = || {
            let started = Instant::now();
            runtime.block_on(create_all(&client));
            let took = started.elapsed();
            place.run("delete -f all.yaml");
            took
        };
        let by_calicoctl = || {
            let (took, _) = place.run("apply -f all.yaml");
            place.run("delete -f all.yaml");
            took
        };
        // Who comes second finds a server with more behind it.
        let (plain, took) = if round % 2 == 0 {
            let plain = plainly();
            (plain, by_calicoctl())
        } else {
            let took = by_calicoctl();
            (plainly(), took)
        };
        ratios.push(plain.as_secs_f64() / took.as_secs_f64() * 100.0);
        times.push(took);
    }
    report::times("Kubernetes: apply of 10,000 new policies", "", times);
    let what = "of that, its rate against a plain client's";
    report::numbers(what, ">= 90 %", ratios, |percent| format!("{percent:.0} %"));
    place.run("apply -f all.yaml");
    for (what, words) in [("table", "get gnp"), ("yaml", "get gnp -o yaml")] {
        let what = format!("Kubernetes: get of 10,000 policies, {what}");
        place.row(&what, "<= 500 ms, 60 MiB", (LONG, words));
    }
}

/// As many requests at the same time as calicoctl has.
async fn create_all(client: &kube::Client) {
    let one = |at: usize| async move {
        let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": format!("p-{at}")},
            "spec": {"order": at, "selector": format!("app == 'a{at}'"), "tier": "default", "types": ["Ingress"],
                "ingress": [{"action": "Allow", "protocol": "TCP", "source": {"selector": "role == 'b'"},
                    "destination": {"ports": [80]}}]}});
        let request = http::Request::post("/apis/projectcalico.org/v3/globalnetworkpolicies")
            .header("Content-Type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        client.request::<Value>(request).await.map(drop)
    };
    stream::iter((0..POLICIES).map(one)).buffer_unordered(32).try_collect::<()>().await.unwrap();
}

fn commands(which: &str, place: &Place) {
    note(&format!("calicoctl on {which}"));
    let samples = (0..LONG).map(|_| {
        let (took, _) = place.run("apply -f all.yaml");
        place.run("delete -f all.yaml");
        took
    });
    report::times(&format!("{which}: apply of 10,000 new policies"), "<= 3 s", samples.collect());
    place.run("apply -f all.yaml");
    for (what, words) in [("table", "get gnp"), ("yaml", "get gnp -o yaml")] {
        let what = format!("{which}: get of 10,000 policies, {what}");
        place.row(&what, "<= 500 ms, 60 MiB", (LONG, words));
    }
}

/// A server whose writes are on the disk, and where its kubeconfig is.
fn embedded() -> (Child, (PathBuf, tempfile::TempDir)) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
    command
        .args(["store", "serve", "--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder.path());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !kubeconfig.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Listening begins before the kubeconfig is written.
    (child, (kubeconfig, folder))
}
