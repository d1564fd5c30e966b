//! Two agents on a real etcd, with the plugin as a runtime calls it, calicoctl beside them, and what upstream's
//! other programs would write put into etcd as they write it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod etcd;

use std::time::{Duration, Instant};

use etcd::{Cluster, NAMES, PORT, Pod, ROOT, reaches, wep_key};
use etcd_client::CompactionOptions;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::{Netns, Server};

/// Denies what goes to endpoints that have `app` among their labels, as upstream's calicoctl writes it.
fn denial(name: &str, app: &str) -> Value {
    json!({"kind": "GlobalNetworkPolicy", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "uid": "0d6a5f2c-0001-4c4e-9f62-5d2f7a5a2b10",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"projectcalico.org/metadata": format!("{{\"name\":\"{name}\"}}")}},
        "spec": {"tier": "default", "order": 10, "selector": format!("app == '{app}'"),
            "types": ["Ingress"], "ingress": [{"action": "Deny", "source": {}, "destination": {}}]}})
}

#[test]
fn a_cluster_on_etcd() {
    let mut cluster = Cluster::start();
    let pool = json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "pool", "uid": "0d6a5f2c-0002-4c4e-9f62-5d2f7a5a2b10"},
        "spec": {"cidr": "10.65.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Always",
            "natOutgoing": true, "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"]}});
    cluster.put(&format!("{ROOT}/ippools/pool"), &pool);
    cluster.run_agent(0);
    cluster.run_agent(1);

    let (mut x, mut y) = (Cluster::pod("x", 0), Cluster::pod("y-1", 1));
    cluster.add(&mut x);
    cluster.add(&mut y);
    let _servers = [&x, &y].map(|pod| Server::start(&pod.netns, PORT, pod.name));
    cluster.until("x reaches y", || reaches(&x, &y));
    what_is_written(&cluster, &x, &y);
    policy(&cluster, &x, &y);
    reports(&mut cluster, &x, &y);
    what_cannot_be_read(&cluster, &x, &y);
    containers(&cluster, &x);
    etcd_away(&mut cluster, &x, &y);
    cut_off(&cluster, &x, &y);
    gone_while_cut_off(&cluster);
    all_goes(&cluster, &[&x, &y]);
}

/// In upstream's form, under upstream's names.
fn what_is_written(cluster: &Cluster, x: &Pod, y: &Pod) {
    let endpoint = cluster.get(&wep_key("node-b", "shop", "k8s", "y-1")).unwrap();
    let spec = &endpoint["spec"];
    let (address, iface) = (y.addresses[0].to_string(), spec["interfaceName"].as_str().unwrap());
    assert_eq!(endpoint["metadata"]["name"], "node--b-k8s-y--1-eth0");
    assert_eq!(endpoint["metadata"]["labels"]["projectcalico.org/orchestrator"], "k8s");
    assert_eq!(
        json!([
            spec["node"],
            spec["pod"],
            spec["containerID"],
            spec["endpoint"],
            spec["orchestrator"]
        ]),
        json!(["node-b", "y-1", "c-y-1", "eth0", "k8s"])
    );
    assert_eq!(spec["ipNetworks"], json!([format!("{address}/32")]));
    assert_eq!(spec["profiles"], json!(["net"]));
    assert!(iface.starts_with("cali") && spec["mac"].as_str().unwrap().len() == 17, "{spec}");
    let profile = cluster.get(&format!("{ROOT}/profiles/net")).unwrap();
    assert_eq!(profile["spec"]["labelsToApply"], json!({"net": ""}));

    let node = cluster.get(&format!("{ROOT}/nodes/node-a")).unwrap();
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], "10.0.0.11/24");
    assert!(node["spec"]["ipv4VXLANTunnelAddr"].as_str().unwrap().starts_with("10.65."), "{node}");
    let handles = cluster.keys("/calico/ipam/v2/handle/net.c-");
    assert_eq!(handles, ["/calico/ipam/v2/handle/net.c-x", "/calico/ipam/v2/handle/net.c-y-1"]);
    assert_eq!(x.addresses.len(), 1);

    let seen = cluster.ctl(&["get", "wep", "-A", "-o", "wide"], "");
    assert!(seen.contains("node--b-k8s-y--1-eth0") && seen.contains(&address), "{seen}");
    let nodes = cluster.ctl(&["get", "nodes"], "");
    assert!(NAMES.iter().all(|name| nodes.contains(name)), "{nodes}");
}

/// Written by others, by calicoctl, and with labels that a controller keeps at the endpoint.
fn policy(cluster: &Cluster, x: &Pod, y: &Pod) {
    let key = wep_key("node-b", "shop", "k8s", "y-1");
    let mut endpoint = cluster.get(&key).unwrap();
    endpoint["metadata"]["labels"]["app"] = json!("y");
    cluster.put(&key, &endpoint);
    let raw = format!("{ROOT}/globalnetworkpolicies/default.no-y");
    cluster.put(&raw, &denial("default.no-y", "y"));
    cluster.until("a policy of upstream's form is enforced", || !reaches(x, y));
    assert!(reaches(y, x), "the other way is open");
    // There are no pods to ask about: endpoints are known by theirs.
    let json = |args: &[&str]| -> Value {
        serde_json::from_str(&cluster.ctl(&[args, &["-o", "json"]].concat(), "")).unwrap()
    };
    let why = json(&["why", "shop/x", &format!("shop/y-1:{PORT}")]);
    assert_eq!((&why["verdict"], &why["ingress"]["reason"]), (&json!("deny"), &json!("rule")));
    let matrix = json(&["policy", "matrix", "--port", &PORT.to_string()]);
    assert_eq!(matrix["pods"], json!(["shop/x", "shop/y-1"]));
    assert_eq!(matrix["verdicts"], json!(["ad", "aa"]));

    // calicoctl lets one source in again, before it.
    let allow = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: let-x, namespace: shop}\n\
        spec: {order: 1, selector: \"app == 'y'\", types: [Ingress], ingress: [{action: Allow, \
        source: {nets: [0.0.0.0/0]}}]}\n";
    cluster.ctl(&["apply", "-f", "-"], allow);
    cluster.until("a policy of calicoctl's is enforced", || reaches(x, y));
    cluster.ctl(&["delete", "networkpolicy", "-n", "shop", "let-x"], "");
    cluster.until("and goes", || !reaches(x, y));

    // What the kernel holds the policies for is a label: without it nothing is denied.
    endpoint["metadata"]["labels"]["app"] = json!("z");
    cluster.put(&key, &endpoint);
    cluster.until("an endpoint leaves a policy", || reaches(x, y));
    endpoint["metadata"]["labels"]["app"] = json!("y");
    cluster.put(&key, &endpoint);
    cluster.until("and comes back", || !reaches(x, y));
    cluster.delete(&raw);
    cluster.until("a policy that others delete is gone", || reaches(x, y));
}

/// That agents live is said as long as they do; a restart finds its pods.
fn reports(cluster: &mut Cluster, x: &Pod, y: &Pod) {
    let root = "/calico/felix/v2/no-region/host/node-b";
    let (status, last) = (format!("{root}/status"), format!("{root}/last_reported_status"));
    cluster.until("the agent says that it lives", || cluster.get(&status).is_some());
    let report = cluster.get(&status).unwrap();
    assert!(report["uptime"].is_f64() && report["first_update"].is_boolean(), "{report}");
    assert!(report["time"].as_str().unwrap().ends_with('Z'), "{report}");
    let lease = cluster.lease_of(&status).unwrap();
    assert!(lease != 0 && cluster.lease_of(&last) == Some(0));
    let endpoint = format!("{root}/workload/k8s/shop%2Fy-1/endpoint/eth0");
    cluster.until("y is up", || cluster.get(&endpoint) == Some(json!({"status": "up"})));

    // Somebody takes the lease: another one is granted.
    cluster.raw(async |client| client.lease_client().revoke(lease).await);
    let another = || cluster.lease_of(&status).is_some_and(|held| held != lease);
    cluster.until("a lost lease is replaced", another);

    cluster.kill_agent(1);
    assert!(reaches(x, y), "without an agent, traffic goes on");
    cluster.until("nothing says that a dead agent lives", || cluster.get(&status).is_none());
    assert!(cluster.get(&last).is_some());
    cluster.run_agent(1);
    cluster.until("it lives again", || cluster.get(&status).is_some());
    let recognised = |text: &str| text.contains("running pods recognised pods=1");
    cluster.until("its pod is recognised", || recognised(&cluster.logs()));
    assert!(reaches(x, y), "{}", cluster.logs());
    // A repeated ADD of the same container is answered with what it has.
    let again = cluster.call("ADD", y).unwrap();
    assert_eq!(again["ips"][0]["address"], format!("{}/32", y.addresses[0]));
}

/// A container that is no pod.
fn containers(cluster: &Cluster, x: &Pod) {
    let (container, args) = ("0123456789abcdef".to_owned(), String::new());
    let (name, netns) = ("box", Netns::new());
    let mut it = Pod { name, node: 0, container, args, netns, addresses: Vec::new() };
    cluster.add(&mut it);
    let key = wep_key("node-a", "default", "cni", "0123456789abcdef");
    let endpoint = cluster.get(&key).unwrap();
    assert_eq!(endpoint["spec"]["interfaceName"], "cali0123456789a");
    assert_eq!(endpoint["spec"]["profiles"], json!(["net"]));
    assert_eq!(endpoint["metadata"]["labels"]["projectcalico.org/orchestrator"], "cni");
    let _server = Server::start(&it.netns, PORT, it.name);
    cluster.until("a pod reaches a container", || reaches(x, &it));
    cluster.call("CHECK", &it).unwrap();
    cluster.call("DEL", &it).unwrap();
    cluster.until("the container's endpoint goes", || cluster.get(&key).is_none());
}

/// What another program wrote past all checks: it closes whom it may be about, and is told.
fn what_cannot_be_read(cluster: &Cluster, x: &Pod, y: &Pod) {
    let key = format!("{ROOT}/networkpolicies/shop/broken");
    let policy = |selector: Value, action: &str| {
        json!({"kind": "NetworkPolicy", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "broken", "namespace": "shop"},
            "spec": {"tier": "default", "selector": selector, "types": ["Ingress"],
                "ingress": [{"action": action}]}})
    };
    let told = |node: usize| -> Option<String> {
        let status = cluster.status(node);
        let refused = status["refused"].as_array().unwrap().iter();
        let mut ours = refused.filter(|r| r["object"] == "NetworkPolicy shop/broken");
        ours.next().map(|r| r["reasons"].to_string())
    };
    // Whom it is about nobody knows: everybody in its namespace, in the direction that it names.
    cluster.put(&key, &policy(json!("app == "), "Allow"));
    cluster.until("its namespace is closed", || !reaches(x, y) && !reaches(y, x));
    let reasons = told(1).unwrap();
    assert!(reasons.contains("spec.selector") && reasons.contains("fails closed"), "{reasons}");
    // A rule that cannot be read denies; whom the policy is about is known.
    cluster.put(&key, &policy(json!("app == 'y'"), "Refuse"));
    cluster.until("who is not selected is open again", || reaches(y, x));
    assert!(!reaches(x, y), "and who is selected is not");
    let reasons = told(0).unwrap();
    assert!(reasons.contains("spec.ingress[0]") && reasons.contains("Refuse"), "{reasons}");
    // calicoctl asks over the agent's socket: no health server runs.
    let said = cluster.ctl_node(0, &["status", "-o", "json"]);
    assert!(said.contains("NetworkPolicy shop/broken"), "{said}");
    let said = cluster.ctl_node(0, &["config", "HealthEnabled"]);
    assert!(said.contains("HealthEnabled") && said.contains("false"), "{said}");
    let calls = || cluster.logs().matches("object refused").count();
    cluster.until("each agent tells of each version", || calls() == 4);
    cluster.put(&key, &policy(json!("app == 'y'"), "Allow"));
    cluster.until("it can be read", || reaches(x, y) && told(0).is_none() && told(1).is_none());
    cluster.delete(&key);
    assert_eq!(calls(), 4, "each once");
}

/// etcd is killed and comes back: what is in force stays, what changes afterwards is enforced.
fn etcd_away(cluster: &mut Cluster, x: &Pod, y: &Pod) {
    kill(Pid::from_raw(cluster.etcd.pid()), Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(reaches(x, y), "without etcd, traffic goes on");
    cluster.etcd.restart();
    let key = format!("{ROOT}/globalnetworkpolicies/late");
    cluster.put(&key, &denial("late", "y"));
    cluster.until("a policy that comes after etcd is enforced", || !reaches(x, y));
    cluster.delete(&key);
    cluster.until("and goes", || reaches(x, y));
}

/// What happens meanwhile is forgotten before the nodes can ask for it.
fn cut_off(cluster: &Cluster, x: &Pod, y: &Pod) {
    let key = |name: &str| format!("{ROOT}/globalnetworkpolicies/{name}");
    let wep = wep_key("node-a", "shop", "k8s", "x");
    let mut endpoint = cluster.get(&wep).unwrap();
    endpoint["metadata"]["labels"]["app"] = json!("x");
    cluster.put(&wep, &endpoint);
    cluster.put(&key("old"), &denial("old", "y"));
    cluster.until("y is closed", || !reaches(x, y));
    let lists = || cluster.logs().matches("the history of").count();
    let before = lists();
    cluster.way.cut();
    cluster.delete(&key("old"));
    cluster.put(&key("new"), &denial("new", "x"));
    cluster.raw(async |client| {
        let last = client.get("nothing", None).await?.header().unwrap().revision();
        client.compact(last, Some(CompactionOptions::new().with_physical())).await
    });
    std::thread::sleep(Duration::from_secs(1));
    assert!(!reaches(x, y) && reaches(y, x), "cut off, what is in force stays");
    cluster.way.open();
    cluster.until("the policies are those of now", || reaches(x, y) && !reaches(y, x));
    assert!(lists() > before, "they were listed again:\n{}", cluster.logs());
    cluster.delete(&key("new"));
    cluster.until("and changes come again", || reaches(y, x));
}

/// A pod ends while nobody can be told: the runtime is answered, and the records follow.
fn gone_while_cut_off(cluster: &Cluster) {
    let mut z = Cluster::pod("z", 0);
    cluster.add(&mut z);
    let (wep, handle) =
        (wep_key("node-a", "shop", "k8s", "z"), "/calico/ipam/v2/handle/net.c-z".to_owned());
    cluster
        .until("it is written", || cluster.get(&wep).is_some() && cluster.get(&handle).is_some());
    cluster.way.cut();
    let begun = Instant::now();
    cluster.call("DEL", &z).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    cluster.call("DEL", &z).unwrap();
    let routes = cluster.topology.nodes[0].netns.out("ip route show table all");
    assert!(!routes.contains(&z.addresses[0].to_string()), "{routes}");
    assert!(cluster.get(&wep).is_some() && cluster.get(&handle).is_some(), "nobody was told yet");
    cluster.way.open();
    let gone = || cluster.get(&wep).is_none() && cluster.get(&handle).is_none();
    cluster.until("its records go", gone);
}

/// Nothing is left of pods that are gone.
fn all_goes(cluster: &Cluster, pods: &[&Pod]) {
    for pod in pods {
        cluster.call("DEL", pod).unwrap();
        cluster.call("DEL", pod).unwrap();
    }
    cluster.until("no endpoint is left", || {
        cluster.keys(&format!("{ROOT}/workloadendpoints/")).is_empty()
    });
    cluster.until("no address is held", || cluster.keys("/calico/ipam/v2/handle/net.").is_empty());
    // What is left in the blocks is the nodes' own: their ends of the tunnels.
    for key in cluster.keys("/calico/ipam/v2/assignment/") {
        let block = cluster.get(&key).unwrap();
        let held = block["allocations"].as_array().unwrap().iter().filter(|a| !a.is_null()).count();
        let of = |a: &Value| a["handle_id"].as_str().unwrap_or_default().to_owned();
        let handles: Vec<String> = block["attributes"].as_array().unwrap().iter().map(of).collect();
        let tunnels = handles.iter().all(|handle| handle.starts_with("vxlan-tunnel-addr-"));
        assert!(tunnels && held == handles.len(), "{block}");
    }
    for node in &cluster.topology.nodes {
        let links = node.netns.out("ip -o link");
        let routes = node.netns.out("ip route show table all");
        let of_pods = |text: &str, word: &str| text.lines().any(|line| line.contains(word));
        assert!(!of_pods(&links, " cali"), "{links}");
        assert!(!of_pods(&routes, "dev cali"), "{routes}");
        for pod in pods {
            let address = pod.addresses[0].to_string();
            assert!(!routes.split_whitespace().any(|word| word == address), "{routes}");
        }
    }
}
