//! The whole agent on the work of `bench/gen_felix.py`: 100 pods of its own, 1,000 others, and 100, 1,000 or
//! 10,000 policies, on the embedded store and on etcd. Start, restart, memory, and one change at a time from
//! before its write to the first packet that meets it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::NamedNetns;

use crate::policy::Prober;
use crate::report;
use crate::world::{Kind, NODE, World, generated, interface};

const PORT: u16 = 19_999;
const CHANGES: usize = 100;
const LATENCY: &str = "p50 <= 3 ms, p99 <= 10 ms";
const CPU: &str = "<= 2 ms CPU";
const IDLE: Duration = Duration::from_secs(10);

pub(crate) fn run() {
    for kind in Kind::ALL {
        for policies in [100, 1_000, 10_000] {
            one(kind, policies);
        }
    }
}

fn one(kind: Kind, policies: usize) {
    let what = |of: &str| format!("{policies} policies, {}: {of}", kind.name());
    report::note(&what("filling"));
    let objects = generated(policies);
    let mut world = World::new(kind);
    let pods = interfaces(&world, &objects);
    world.fill(objects.iter().cloned());
    for start in ["cold start", "restart"] {
        let started = world.start_agent();
        world.settle();
        report::times(&what(&format!("{start}, once in sync")), "<= 0.5 s", vec![started.took]);
        report::times(&what(&format!("{start}, whole")), "none", vec![started.whole]);
        report::times(&what(&format!("{start}, CPU")), "none", vec![started.cpu]);
        let memory = vec![world.memory("VmRSS:")];
        let show = |mib: f64| format!("{mib:.1} MiB");
        report::numbers(&what(&format!("{start}, resident")), "<= 60 MiB", memory, show);
        if start == "cold start" {
            world.kill_agent();
        }
    }
    changes(&world, &pods, &objects, what);
    let before = world.cpu();
    std::thread::sleep(IDLE);
    let idle = world.cpu().saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    report::numbers(&what("idle"), "<= 0.1 % of a core", vec![idle], |v| format!("{v:.3} %"));
}

/// Two pods with namespaces of their own; the interfaces of the others lead nowhere.
fn interfaces(world: &World, objects: &[Value]) -> [(NamedNetns, IpAddr); 2] {
    let node = &world.topology.nodes[0].netns;
    let local =
        objects.iter().filter(|o| o["kind"] == "WorkloadEndpoint" && o["spec"]["node"] == NODE);
    let names: Vec<String> = local.map(|o| interface(world.kind(), o)).collect();
    let pods = [2_u8, 3].map(|last| (NamedNetns::new("bench-"), IpAddr::from([10, 65, 0, last])));
    for ((netns, address), name) in pods.iter().zip(&names) {
        node.sh(&format!(
            "ip link add {name} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}
             sysctl -qw net.ipv4.conf.{name}.proxy_arp=1
             ip link set {name} up",
            netns.name()
        ));
        netns.sh(&format!(
            "ip link set eth0 up
             ip addr add {address}/32 dev eth0
             ip neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0
             ip route add 169.254.1.1 dev eth0
             ip route add default via 169.254.1.1 dev eth0"
        ));
    }
    let lines = names[2..].iter().enumerate().map(|(i, name)| {
        format!(
            "link add {name} type veth peer name away{i}\nlink set {name} up\nlink set away{i} up"
        )
    });
    let lines: Vec<String> = lines.collect();
    node.sh(&format!("ip -batch - <<'END'\n{}\nEND", lines.join("\n")));
    pods
}

fn changes(
    world: &World,
    pods: &[(NamedNetns, IpAddr); 2],
    objects: &[Value],
    what: impl Fn(&str) -> String,
) {
    let [server, client] = pods;
    let mut prober = Prober::between((&client.0, client.1), (&server.0, server.1), PORT);
    assert!(prober.until(true, Duration::from_secs(10)).is_some(), "{}", world.log());
    let probe = objects.iter().find(|o| o["metadata"]["name"] == "probe").unwrap();
    let allowing = |ports: u16, source: Value| {
        let mut probe = probe.clone();
        let rule = &mut probe["spec"]["ingress"][0];
        rule["destination"]["ports"] = json!([ports]);
        rule["source"] = source;
        probe
    };
    let mut measure = |of: &str, act: &(dyn Fn(bool) + Sync)| {
        let before = world.cpu();
        let mut samples = Vec::new();
        for i in 0..CHANGES {
            let allowed = !i.is_multiple_of(2);
            // Not in step with anything that has a period.
            prober.pass(Duration::from_micros(20_000 + (i as u64 * 7_919) % 13_000));
            let began = Instant::now();
            let flipped = std::thread::scope(|scope| {
                scope.spawn(|| act(allowed));
                prober.until(allowed, Duration::from_secs(20))
            });
            let flipped = flipped.unwrap_or_else(|| panic!("{of}: no effect\n{}", world.log()));
            samples.push(flipped.saturating_duration_since(began));
        }
        let cpu = world.cpu().saturating_sub(before) / CHANGES as u32;
        report::times(&what(of), LATENCY, samples);
        report::times(&what(&format!("{of}, each")), CPU, vec![cpu]);
    };
    let port = |allowed: bool| if allowed { PORT } else { PORT - 1 };
    measure("a policy changed", &|allowed| world.write(&allowing(port(allowed), json!({}))));

    let denial = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "denial"}, "spec": {"order": 0, "selector": "probe == 'server'",
            "types": ["Ingress"], "ingress": [{"action": "Deny"}]}});
    let come_and_go = |allowed: bool| {
        if allowed { world.delete(&denial) } else { world.write(&denial) }
    };
    measure("a policy added or deleted", &come_and_go);

    let mut pod =
        objects.iter().find(|o| o["metadata"]["labels"]["probe"] == "client").unwrap().clone();
    pod["metadata"]["labels"]["joins"] = json!("yes");
    world.write(&pod);
    world.write(&allowing(PORT, json!({"selector": "joins == 'yes'"})));
    std::thread::sleep(Duration::from_secs(1));
    let join = |allowed: bool| {
        let mut pod = pod.clone();
        pod["metadata"]["labels"]["joins"] = json!(if allowed { "yes" } else { "no" });
        world.write(&pod);
    };
    measure("a pod joins or leaves a set", &join);
}
