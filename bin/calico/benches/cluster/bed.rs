//! A cluster to measure: nodes and pods in network namespaces, the embedded API, real agents.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datastore::{Datastore, Resource};
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::{NamedNetns, Topology};
use tokio::runtime::Runtime;

use crate::report::note;

pub(crate) const NODES: Resource = Resource::core("nodes", "Node");
pub(crate) const PODS: Resource = Resource::core("pods", "Pod");
pub(crate) const POLICIES: Resource =
    Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");

/// How many groups of pods and policies there are: `app=app-0` to `app=app-99`.
pub(crate) const APPS: usize = 100;

/// Requests to the API at a time, when much is to be made.
const AT_A_TIME: usize = 32;

/// How nodes reach each other's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    Vxlan,
    Routes,
}

pub(crate) struct Bed {
    agents: Vec<Option<Child>>,
    pub(crate) api: Datastore,
    kubeconfig: PathBuf,
    between: Between,
    pub(crate) topology: Topology,
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
}

/// A pod that exists in the API and as a network namespace.
pub(crate) struct Pod {
    name: String,
    node: usize,
    uid: String,
    pub(crate) netns: NamedNetns,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        for agent in self.agents.iter_mut().flatten() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Bed {
    pub(crate) fn new(nodes: usize, between: Between) -> Self {
        let me = std::process::id();
        testkit::sh(&format!("prlimit --pid {me} --nofile=$(ulimit -Hn):"));
        let folder = tempfile::tempdir().unwrap();
        let topology = Topology::new(u8::try_from(nodes).unwrap(), 1500);
        topology.fabric.sh("ip addr add 10.0.0.1/24 dev br0");
        let inside = topology.fabric.run(|| TcpListener::bind("10.0.0.1:6443")).unwrap();
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = store::Options::new(folder.path().join("db"));
        // As a sandbox has it. Otherwise every write would wait for this machine's disk.
        options.durability = store::Durability::Process;
        let storage = store::Store::open(&options).unwrap();
        let mut options = apiserver::Options::new(folder.path().join("pki"));
        options.names = vec!["10.0.0.1".to_owned()];
        let server = apiserver::Server::new(Arc::new(storage), options).unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig("https://10.0.0.1:6443")).unwrap();
        let ours = folder.path().join("kubeconfig-local");
        let url = format!("https://{}", local.local_addr().unwrap());
        std::fs::write(&ours, server.kubeconfig(&url)).unwrap();
        let runtime = Runtime::new().unwrap();
        runtime.spawn(server.serve(vec![inside, local], std::future::pending::<()>()));
        let api = runtime.block_on(Datastore::connect(Some(&ours))).unwrap();
        let agents = (0..nodes).map(|_| None).collect();
        let mut it = Self { agents, api, kubeconfig, between, topology, runtime, folder };
        it.make(NODES, None, (0..nodes).map(|n| node(&node_name(n))).collect());
        for n in 0..nodes {
            it.start_agent(n);
        }
        it
    }

    fn run_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(node_name(node))
    }

    pub(crate) fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.run_dir(node).join("log")).unwrap_or_default()
    }

    pub(crate) fn start_agent(&mut self, node: usize) {
        let dir = self.run_dir(node);
        std::fs::create_dir_all(&dir).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log"));
        let (vxlan, routes) = match self.between {
            Between::Vxlan => ("Always", "EnabledIPIPOnly"),
            Between::Routes => ("Never", "Enabled"),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
        command
            .arg("node")
            .env("NODENAME", node_name(node))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("CALICO_RUN_DIR", &dir)
            .env("CALICO_LIB_DIR", &dir)
            .env("CALICO_IPV4POOL_CIDR", "10.65.0.0/16")
            .env("CALICO_IPV4POOL_IPIP", "Never")
            .env("CALICO_IPV4POOL_VXLAN", vxlan)
            .env("FELIX_PROGRAMCLUSTERROUTES", routes)
            .env("IP", format!("{}/24", self.topology.nodes[node].v4))
            .stdin(Stdio::null())
            .stderr(log.unwrap());
        self.agents[node] = Some(self.topology.nodes[node].netns.spawn(&mut command));
    }

    pub(crate) fn agent(&self, node: usize) -> u32 {
        self.agents[node].as_ref().unwrap().id()
    }

    pub(crate) fn signal_agents(&self, signal: Signal) {
        for node in 0..self.agents.len() {
            kill(Pid::from_raw(self.agent(node).cast_signed()), signal).unwrap();
        }
    }

    pub(crate) fn kill_agent(&mut self, node: usize) {
        let mut agent = self.agents[node].take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Creates many objects.
    pub(crate) fn make(
        &self,
        kind: Resource,
        namespace: Option<&str>,
        all: Vec<Value>,
    ) -> Vec<Value> {
        let create = |object: Value| async move {
            self.api.create::<Value>(&kind, namespace, &object).await.unwrap()
        };
        let all = futures_util::stream::iter(all).map(create).buffered(AT_A_TIME);
        self.runtime.block_on(all.collect())
    }

    /// `count` policies over all groups: ingress from the next group only, egress to anywhere.
    pub(crate) fn policies(&self, count: usize) {
        note(&format!("{count} policies"));
        let policy = |i: usize| {
            let from = format!("app == 'app-{}'", (i + 1) % APPS);
            json!({
                "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
                "metadata": {"name": format!("standing-{i}")},
                "spec": {
                    "order": 1000 + i,
                    "selector": format!("app == 'app-{}'", i % APPS),
                    "types": ["Ingress", "Egress"],
                    "ingress": [{
                        "action": "Allow", "protocol": "TCP", "source": {"selector": from},
                        "destination": {"ports": [1000 + i]},
                    }],
                    "egress": [{"action": "Allow"}],
                },
            })
        };
        self.make(POLICIES, None, (0..count).map(policy).collect());
    }

    /// Makes pods on a node: in the API, and a namespace of its own for each. Not yet attached.
    pub(crate) fn pods(&self, node: usize, prefix: &str, count: usize) -> Vec<Pod> {
        note(&format!("{count} pods"));
        let object = |i: usize| pod(&format!("{prefix}-{i}"), &node_name(node), i % APPS);
        let made = self.make(PODS, Some("default"), (0..count).map(object).collect());
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let one = |v: Value| Pod {
            name: text(&v["metadata"]["name"]),
            node,
            uid: text(&v["metadata"]["uid"]),
            netns: NamedNetns::new("bench-"),
            addresses: Vec::new(),
        };
        made.into_iter().map(one).collect()
    }

    /// Pods as above, attached.
    pub(crate) fn attached(&self, node: usize, prefix: &str, count: usize) -> Vec<Pod> {
        let mut pods = self.pods(node, prefix, count);
        for pod in &mut pods {
            self.add(pod);
        }
        pods
    }

    /// ADD as a runtime calls it; what says "try again" is tried again. How long the call took that
    /// succeeded, from before the plugin's start to after its end.
    pub(crate) fn add(&self, pod: &mut Pod) -> Duration {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            match self.call("ADD", pod) {
                (took, Ok(result)) => {
                    let ips = result["ips"].as_array().unwrap().iter();
                    let text = ips.map(|ip| ip["address"].as_str().unwrap().split('/').next());
                    pod.addresses = text.map(|a| a.unwrap().parse().unwrap()).collect();
                    return took;
                }
                (_, Err(e)) => {
                    let log = || self.log(pod.node);
                    assert!(Instant::now() < until, "ADD {}: {e}\n{}", pod.name, log());
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    pub(crate) fn del(&self, pod: &Pod) -> Duration {
        let (took, result) = self.call("DEL", pod);
        result.unwrap();
        took
    }

    fn call(&self, command: &str, pod: &Pod) -> (Duration, Result<Value, Value>) {
        let socket = self.run_dir(pod.node).join("cni.sock");
        let config =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "calico-cni", "socket": socket});
        let config = config.to_string();
        let args =
            format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_UID={}", pod.name, pod.uid);
        let mut plugin =
            Command::new(Path::new(env!("CARGO_BIN_EXE_calico")).with_file_name("calico-cni"));
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
        let started = Instant::now();
        let mut child = plugin.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, config.as_bytes()).unwrap();
        drop(stdin);
        let done = child.wait_with_output().unwrap();
        let took = started.elapsed();
        let document = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
        (took, if done.status.success() { Ok(document) } else { Err(document) })
    }

    /// Waits until an agent has nothing to do for two seconds.
    pub(crate) fn settle(&self, node: usize) {
        let used = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.agent(node))).unwrap();
            let after_name = stat.rsplit_once(") ").unwrap().1;
            let ticks = after_name.split(' ').skip(11).take(2).map(|t| t.parse::<u64>().unwrap());
            ticks.sum::<u64>()
        };
        let (mut quiet, mut last) = (0, used());
        while quiet < 8 {
            std::thread::sleep(Duration::from_millis(250));
            let now = used();
            quiet = if now <= last + 1 { quiet + 1 } else { 0 };
            last = now;
        }
    }
}

pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number}")
}

pub(crate) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

/// A pod of about the size that they have.
pub(crate) fn pod(name: &str, node: &str, app: usize) -> Value {
    let variable =
        |i: usize| json!({"name": format!("SETTING_{i}"), "value": "a value of a setting"});
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                "app": format!("app-{app}"),
                "app.kubernetes.io/name": format!("app-{app}"),
                "pod-template-hash": "7d4b8c6f95",
            },
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
        },
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "main", "image": "registry.example.org/team/service:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": (0..12).map(variable).collect::<Vec<_>>(),
                "livenessProbe": probe, "readinessProbe": probe,
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/service"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": format!("config-{app}")}}],
        },
    })
}
