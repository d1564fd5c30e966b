//! Two agents on a Kubernetes API server that keeps Calico's kinds as `crd.projectcalico.org/v1`, as upstream's
//! manifests define them: pods get addresses, policies written in that form are enforced.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use datastore::{Datastore, Resource};
use serde_json::{Value, json};
use testkit::{ControlPlane, Controllers, Netns, Processes, Server, Topology, tcp_reply};
use tokio::runtime::Runtime;

const CALICO: &str = env!("CARGO_BIN_EXE_calico");
const NAMES: [&str; 2] = ["node-a", "node-b"];
const PORT: u16 = 8080;
const NODES: Resource = Resource::core("nodes", "Node");
const PODS: Resource = Resource::core("pods", "Pod");
const POLICIES: Resource = of_v1("globalnetworkpolicies", "GlobalNetworkPolicy");
const POOLS: Resource = of_v1("ippools", "IPPool");
const BLOCKS: Resource = of_v1("ipamblocks", "IPAMBlock");

const fn of_v1(plural: &'static str, kind: &'static str) -> Resource {
    Resource { group: "crd.projectcalico.org", version: "v1", plural, kind }
}

struct Cluster {
    agents: Processes,
    folder: tempfile::TempDir,
    topology: Topology,
    plane: ControlPlane,
    /// Its threads are where the API server is.
    runtime: Runtime,
    api: Datastore,
}

struct Pod {
    name: &'static str,
    node: usize,
    uid: String,
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Cluster {
    fn start() -> Self {
        let topology = Topology::new(2, 1500);
        topology.fabric.sh("ip addr add 10.0.0.1/24 dev br0");
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let plane = ControlPlane::start_in(&topology.fabric, address, Controllers::Absent);
        plane.define("v1");
        let runtime = topology.fabric.run(|| Runtime::new().unwrap());
        let kubeconfig = plane.kubeconfig();
        let api = runtime.block_on(async {
            let connect = async move { Datastore::connect(Some(&kubeconfig)).await.unwrap() };
            tokio::spawn(connect).await.unwrap()
        });
        let folder = tempfile::tempdir().unwrap();
        Self { folder, topology, plane, runtime, api, agents: Processes::new(2) }
    }

    fn ask<T: Send + 'static>(&self, act: impl AsyncFnOnce(Datastore) -> T + Send + 'static) -> T {
        let api = self.api.clone();
        self.topology.fabric.run(|| self.runtime.block_on(act(api)))
    }

    fn create(&self, resource: Resource, namespace: Option<&'static str>, object: Value) -> Value {
        self.ask(async move |api| api.create(&resource, namespace, &object).await.unwrap())
    }

    fn run_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(NAMES[node])
    }

    fn run_agent(&mut self, node: usize) {
        let dir = self.run_dir(node);
        std::fs::create_dir_all(&dir).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log"));
        let mut command = Command::new(CALICO);
        command
            .args(["node", "--config-file", "/nonexistent"])
            .env("NODENAME", NAMES[node])
            .env("KUBECONFIG", self.plane.kubeconfig())
            .env("CALICO_RUN_DIR", &dir)
            .env("CALICO_LIB_DIR", &dir)
            .env("NO_DEFAULT_POOLS", "true")
            .stdin(Stdio::null())
            .stderr(log.unwrap());
        self.agents[node] = Some(self.topology.nodes[node].netns.spawn(&mut command));
    }

    fn logs(&self) -> String {
        let read = |node: usize| {
            std::fs::read_to_string(self.run_dir(node).join("log")).unwrap_or_default()
        };
        format!("{}\n{}", read(0), read(1))
    }

    fn until(&self, what: &str, good: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !good() {
            assert!(Instant::now() < until, "{what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn pod(&self, name: &'static str, node: usize) -> Pod {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": NAMES[node], "containers": [{"name": "c", "image": "i"}]}});
        let made = self.create(PODS, Some("default"), object);
        let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
        let mut pod = Pod { name, node, uid, netns: Netns::new(), addresses: Vec::new() };
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            match self.call("ADD", &pod) {
                Ok(result) => {
                    let ips = result["ips"].as_array().unwrap().iter();
                    let text = ips.map(|ip| ip["address"].as_str().unwrap().split('/').next());
                    pod.addresses = text.map(|a| a.unwrap().parse().unwrap()).collect();
                    return pod;
                }
                Err(e) => assert!(Instant::now() < until, "ADD {name}: {e}\n{}", self.logs()),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn call(&self, command: &str, pod: &Pod) -> Result<Value, Value> {
        use std::io::Write as _;
        let socket = self.run_dir(pod.node).join("cni.sock");
        let config =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "calico-cni", "socket": socket});
        let args =
            format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_UID={}", pod.name, pod.uid);
        let mut plugin = Command::new(Path::new(CALICO).with_file_name("calico-cni"));
        plugin
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("c-{}", pod.name))
            .env("CNI_NETNS", pod.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = plugin.spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(document) } else { Err(document) }
    }
}

fn reaches(from: &Pod, to: &Pod) -> bool {
    let at = SocketAddr::new(to.addresses[0], PORT);
    tcp_reply(&from.netns, at, Duration::from_millis(700)).as_deref() == Some(to.name)
}

#[test]
fn a_cluster_on_custom_resources_of_v1() {
    let mut cluster = Cluster::start();
    for name in NAMES {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        cluster.create(NODES, None, node);
    }
    let pool = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool",
        "metadata": {"name": "pool"}, "spec": {"cidr": "10.65.0.0/16", "blockSize": 26,
            "ipipMode": "Never", "vxlanMode": "Always", "natOutgoing": true, "nodeSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"]}});
    cluster.create(POOLS, None, pool);
    cluster.run_agent(0);
    cluster.run_agent(1);
    let (x, y) = (cluster.pod("x", 0), cluster.pod("y", 1));
    let _servers = [&x, &y].map(|pod| Server::start(&pod.netns, PORT, pod.name));
    cluster.until("x reaches y", || reaches(&x, &y));

    let blocks =
        |cluster: &Cluster| cluster.ask(async |api| api.list_all::<Value>(&BLOCKS).await.unwrap());
    let found = blocks(&cluster);
    let affine = found.iter().filter_map(|block| block["spec"]["affinity"].as_str());
    let mut affine: Vec<&str> = affine.collect();
    affine.sort_unstable();
    assert_eq!(affine, ["host:node-a", "host:node-b"], "kept as upstream keeps them: {found:?}");

    let denial = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.no-y",
            "annotations": {"projectcalico.org/metadata": "{\"creationTimestamp\":null}"}},
        "spec": {"tier": "default", "order": 10, "selector": "app == 'y'", "types": ["Ingress"],
            "ingress": [{"action": "Deny", "source": {}, "destination": {}}]}});
    let made = cluster.create(POLICIES, None, denial);
    cluster.until("a policy in that form is enforced", || !reaches(&x, &y));
    assert!(reaches(&y, &x), "the other way is open");

    let mut agent = cluster.agents[1].take().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let text = |key: &str| made["metadata"][key].as_str().unwrap().to_owned();
    let version = (text("uid"), text("resourceVersion"));
    cluster.ask(async move |api| {
        api.delete(&POLICIES, "default.no-y", (&version.0, &version.1)).await.unwrap();
    });
    cluster.run_agent(1);
    cluster.until("what was deleted meanwhile is gone", || reaches(&x, &y));
    for pod in [&x, &y] {
        cluster.call("DEL", pod).unwrap();
    }
    let held = || {
        let attributes = |block: &Value| block["spec"]["attributes"].as_array().cloned();
        let all = blocks(&cluster).iter().filter_map(attributes).flatten().collect::<Vec<_>>();
        all.iter().any(|attribute| attribute["secondary"]["pod"].is_string())
    };
    cluster.until("their addresses are given back", || !held());
}
