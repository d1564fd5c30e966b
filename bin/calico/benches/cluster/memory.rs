//! The agent's memory: 1,000 policies, 100 pods of its own, 10,000 pods on 100 other nodes, which
//! are members of the sets that the policies need.

use serde_json::{Value, json};

use crate::bed::{APPS, Bed, Between, NODES, PODS, node, pod};
use crate::report;

const POLICIES: usize = 1_000;
const LOCAL: usize = 100;
const REMOTE: usize = 10_000;
const OTHER_NODES: usize = 100;

pub(crate) fn run() {
    let mut bed = Bed::new(1, Between::Vxlan);
    let local = bed.attached(0, "local", LOCAL);
    bed.policies(POLICIES);
    remote(&bed);
    bed.settle(0);
    measure(&bed, "agent memory, all heard as it came");
    bed.kill_agent(0);
    bed.start_agent(0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    bed.settle(0);
    measure(&bed, "agent memory, started with all of it there");
    drop(local);
}

fn remote(bed: &Bed) {
    report::note(&format!("{REMOTE} remote pods"));
    let name = |i: usize| format!("other-{i}");
    bed.make(NODES, None, (0..OTHER_NODES).map(|i| node(&name(i))).collect());
    let object = |i: usize| {
        let mut it = pod(&format!("remote-{i}"), &name(i % OTHER_NODES), i % APPS);
        let address = format!("10.65.{}.{}", 100 + i / 250, 1 + i % 250);
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
        it["status"] = json!({
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": conditions,
        });
        it
    };
    let objects: Vec<Value> = (0..REMOTE).map(object).collect();
    let made = bed.make(PODS, Some("default"), objects.clone());
    assert_eq!(made.len(), REMOTE);
    // A creation drops the status: it has a door of its own.
    let set = |object: &Value| {
        let (name, status) = (object["metadata"]["name"].clone(), object["status"].clone());
        let api = bed.api.clone();
        async move {
            let at = (Some("default"), name.as_str().unwrap());
            let patch = json!({"status": status});
            api.patch(&PODS, at, Some("status"), &patch).await.unwrap();
        }
    };
    use futures_util::StreamExt;
    let all = futures_util::stream::iter(&objects).map(set).buffer_unordered(32);
    bed.runtime.block_on(all.collect::<Vec<()>>());
}

fn measure(bed: &Bed, what: &str) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.agent(0))).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    let show = |v: f64| format!("{v:.1} MiB");
    report::numbers(what, "<= 40 MiB resident", vec![field("VmRSS:")], show);
    report::note(&format!(
        "of that {:.1} MiB are pages of the program's file, {:.1} MiB its own",
        field("RssFile:"),
        field("RssAnon:")
    ));
    report::numbers("its peak until then", "none", vec![field("VmHWM:")], show);
}
