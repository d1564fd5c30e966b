//! Two agents on a real etcd, with the plugin as a runtime calls it, calicoctl beside them, and what upstream's
//! other programs would write put into etcd as they write it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::{Etcd, Netns, Server, Topology, tcp_reply};
use tokio::runtime::Runtime;

const CALICO: &str = env!("CARGO_BIN_EXE_calico");
const NAMES: [&str; 2] = ["node-a", "node-b"];
const PORT: u16 = 8080;
const ROOT: &str = "/calico/resources/v3/projectcalico.org";
const SOON: Duration = Duration::from_secs(30);

/// The way from the nodes, at 10.0.0.1:2379, to `port` of this machine.
fn way(topology: &Topology, port: u16) {
    topology.fabric.sh("ip addr add 10.0.0.1/24 dev br0");
    let listener = topology.fabric.run(|| TcpListener::bind("10.0.0.1:2379")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(there) = TcpStream::connect(("127.0.0.1", port)) {
                carry(&stream, &there);
            }
        }
    });
}

/// Carries bytes both ways until either side ends.
fn carry(here: &TcpStream, there: &TcpStream) {
    for (from, to) in [(here, there), (there, here)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = from.shutdown(std::net::Shutdown::Both);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}

struct Cluster {
    folder: tempfile::TempDir,
    topology: Topology,
    etcd: Etcd,
    runtime: Runtime,
    agents: Vec<Option<Child>>,
}

struct Pod {
    name: &'static str,
    node: usize,
    container: String,
    /// What the runtime calls it by; nothing for a container that is no pod.
    args: String,
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for agent in self.agents.iter_mut().flatten() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Cluster {
    fn start() -> Self {
        let topology = Topology::new(2, 1500);
        let etcd = Etcd::start();
        let port = etcd.url().rsplit(':').next().unwrap().parse().unwrap();
        way(&topology, port);
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        Self { folder, topology, etcd, runtime, agents: vec![None, None] }
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
            .args(["node", "--config-file"])
            .arg(dir.join("felix.cfg"))
            .env_remove("KUBECONFIG")
            .env("NODENAME", NAMES[node])
            .env("DATASTORE_TYPE", "etcdv3")
            .env("CALICO_RUN_DIR", &dir)
            .env("CALICO_LIB_DIR", &dir)
            .env("NO_DEFAULT_POOLS", "true")
            .env("FELIX_REPORTINGINTERVALSECS", "1")
            .env("FELIX_REPORTINGTTLSECS", "3")
            .env("FELIX_ENDPOINTREPORTINGENABLED", "true")
            .stdin(Stdio::null())
            .stderr(log.unwrap());
        if node == 0 {
            command.env("ETCD_ENDPOINTS", "http://10.0.0.1:2379");
        } else {
            // As an agent without the start script of upstream's image is told.
            std::fs::write(dir.join("felix.cfg"), "EtcdAddr = 10.0.0.1:2379\n").unwrap();
        }
        self.agents[node] = Some(self.topology.nodes[node].netns.spawn(&mut command));
    }

    fn kill_agent(&mut self, node: usize) {
        let mut agent = self.agents[node].take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    fn logs(&self) -> String {
        let read = |node: usize| {
            std::fs::read_to_string(self.run_dir(node).join("log")).unwrap_or_default()
        };
        format!("{}\n{}", read(0), read(1))
    }

    fn until(&self, what: &str, good: impl Fn() -> bool) {
        let until = Instant::now() + SOON;
        while !good() {
            assert!(Instant::now() < until, "{what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    // etcd, as other programs use it

    fn raw<T>(&self, act: impl AsyncFnOnce(&mut Client) -> Result<T, etcd_client::Error>) -> T {
        self.runtime.block_on(async {
            let mut client = Client::connect([self.etcd.url()], None).await.unwrap();
            act(&mut client).await.unwrap()
        })
    }

    fn put(&self, key: &str, value: &Value) {
        self.raw(async |client| client.put(key, value.to_string(), None).await);
    }

    fn get(&self, key: &str) -> Option<Value> {
        let answer = self.raw(async |client| client.get(key, None).await);
        let kv = answer.kvs().first()?;
        Some(serde_json::from_slice(kv.value()).unwrap())
    }

    fn lease_of(&self, key: &str) -> Option<i64> {
        let answer = self.raw(async |client| client.get(key, None).await);
        answer.kvs().first().map(etcd_client::KeyValue::lease)
    }

    fn delete(&self, key: &str) {
        self.raw(async |client| client.delete(key, None).await);
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let answer = self.raw(async |client| client.get(prefix, Some(options)).await);
        answer.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    }

    // the tools

    fn ctl(&self, args: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut command = Command::new(CALICO);
        command.arg("ctl").args(args).env("DATASTORE_TYPE", "etcdv3");
        command.env("ETCD_ENDPOINTS", self.etcd.url());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let [out, err] = [&output.stdout, &output.stderr]
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{args:?}: {err}");
        out
    }

    fn pod(name: &'static str, node: usize) -> Pod {
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
        let container = format!("c-{name}");
        Pod { name, node, container, args, netns: Netns::new(), addresses: Vec::new() }
    }

    fn call(&self, command: &str, pod: &Pod) -> Result<Value, Value> {
        use std::io::Write as _;
        let socket = self.run_dir(pod.node).join("cni.sock");
        let config =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "calico-cni", "socket": socket});
        let mut plugin = Command::new(Path::new(CALICO).with_file_name("calico-cni"));
        plugin
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.container)
            .env("CNI_NETNS", pod.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", &pod.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = plugin.spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(document) } else { Err(document) }
    }

    /// ADD as a runtime does it: what fails is tried again.
    fn add(&self, pod: &mut Pod) {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            match self.call("ADD", pod) {
                Ok(result) => {
                    let ips = result["ips"].as_array().unwrap().iter();
                    let text = ips.map(|ip| ip["address"].as_str().unwrap().split('/').next());
                    pod.addresses = text.map(|a| a.unwrap().parse().unwrap()).collect();
                    return;
                }
                Err(e) => {
                    assert!(Instant::now() < until, "ADD {}: {e}\n{}", pod.name, self.logs());
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }
}

fn reaches(from: &Pod, to: &Pod) -> bool {
    let at = SocketAddr::new(to.addresses[0], PORT);
    tcp_reply(&from.netns, at, Duration::from_millis(700)).as_deref() == Some(to.name)
}

fn wep_key(node: &str, namespace: &str, orchestrator: &str, workload: &str) -> String {
    let node = node.replace('-', "--");
    let workload = workload.replace('-', "--");
    format!("{ROOT}/workloadendpoints/{namespace}/{node}-{orchestrator}-{workload}-eth0")
}

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
    containers(&cluster, &x);
    etcd_away(&mut cluster, &x, &y);
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

/// etcd is killed and comes back: what is in force stays.
fn etcd_away(cluster: &mut Cluster, x: &Pod, y: &Pod) {
    kill(Pid::from_raw(cluster.etcd.pid()), Signal::SIGKILL).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(reaches(x, y), "without etcd, traffic goes on");
    cluster.etcd.restart();
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
}
