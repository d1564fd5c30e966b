//! Changes that lock nodes out, and are taken back: agents of two nodes as processes in network
//! namespaces, against the embedded API, with real packets. The test is its own agent (with
//! `CALICO_AGENT` set) and its own calicoctl (with `CALICO_CTL` set).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, though it brings its own main function"
)]

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datastore::{Datastore, Resource};
use serde_json::{Value, json};
use testkit::{Processes, Server, Topology, tcp_reply};

const NODES: Resource = Resource::core("nodes", "Node");
const POLICIES: Resource = Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");
const HOSTS: Resource = Resource::calico("hostendpoints", "HostEndpoint");
const KUBERNETES: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    plural: "networkpolicies",
    kind: "NetworkPolicy",
};
const NAMES: [&str; 2] = ["node-a", "node-b"];
const PORT: u16 = 8080;

/// On a machine that has other work.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    if std::env::var_os("CALICO_AGENT").is_some() {
        return node::run(std::env::args_os());
    }
    if std::env::var_os("CALICO_CTL").is_some() {
        return ctl::run(std::env::args_os());
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start());
    runtime.block_on(story(&mut cluster));
    println!("lockout: ok");
    ExitCode::SUCCESS
}

struct Cluster {
    agents: Processes,
    folder: tempfile::TempDir,
    topology: Topology,
    api: Datastore,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let topology = Topology::new(2, 1500);
        // The API's address comes and goes; the other is that of an administrator.
        topology.fabric.sh("ip addr add 10.0.0.2/24 dev br0; ip addr add 10.0.0.1/24 dev br0");
        let listener = topology.fabric.run(|| TcpListener::bind("10.0.0.1:6443")).unwrap();
        let storage = store::Store::open(&store::Options::new(folder.path().join("db"))).unwrap();
        let mut options = apiserver::Options::new(folder.path().join("pki"));
        options.names = vec!["10.0.0.1".to_owned()];
        let server = apiserver::Server::new(Arc::new(storage), options).unwrap();
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = format!("https://{}", local.local_addr().unwrap());
        for (file, url) in [("agents", "https://10.0.0.1:6443"), ("ours", &ours)] {
            std::fs::write(folder.path().join(file), server.kubeconfig(url)).unwrap();
        }
        tokio::spawn(server.serve(vec![listener, local], std::future::pending::<()>()));
        let api = Datastore::connect(Some(&folder.path().join("ours"))).await.unwrap();
        let mut it = Self { folder, topology, api, agents: Processes::new(2) };
        for (node, name) in NAMES.iter().enumerate() {
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            it.api.create::<Value>(&NODES, None, &object).await.unwrap();
            let address = it.topology.nodes[node].v4;
            let host = json!({
                "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
                "metadata": {"name": name, "labels": {"is": "host"}},
                "spec": {"node": name, "interfaceName": "eth0", "expectedIPs": [address]},
            });
            it.api.create::<Value>(&POLICIES, None, &policy("open", "Allow")).await.ok();
            it.api.create::<Value>(&HOSTS, None, &host).await.unwrap();
            it.run_agent(node);
        }
        it
    }

    fn run_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(NAMES[node])
    }

    fn run_agent(&mut self, node: usize) {
        let dir = self.run_dir(node);
        std::fs::create_dir_all(&dir).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg("--config-file")
            .arg(dir.join("felix.cfg"))
            .env("CALICO_AGENT", "1")
            .env("NODENAME", NAMES[node])
            .env("KUBECONFIG", self.folder.path().join("agents"))
            .env("CALICO_RUN_DIR", &dir)
            .env("CALICO_LIB_DIR", &dir)
            .env("CALICO_IPV4POOL_CIDR", "10.65.0.0/16")
            .env("FELIX_FAILSAFEINBOUNDHOSTPORTS", "none")
            .env("FELIX_FAILSAFEOUTBOUNDHOSTPORTS", "none")
            .stdin(Stdio::null())
            .stderr(log.unwrap());
        self.agents[node] = Some(self.topology.nodes[node].netns.spawn(&mut command));
    }

    fn kill_agent(&mut self, node: usize) {
        let mut agent = self.agents[node].take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Output and exit code.
    fn ctl(&self, words: &str, files: &[&Value]) -> (String, Option<i32>) {
        let file = self.folder.path().join("given.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": files});
        std::fs::write(&file, list.to_string()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("CALICO_CTL", "1").args(words.split_whitespace());
        if !files.is_empty() {
            command.arg("-f").arg(file);
        }
        let output = command.env("KUBECONFIG", self.folder.path().join("ours")).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout) + &text(&output.stderr), output.status.code())
    }

    /// The document of `calicoctl node status`.
    fn status(&self, node: usize) -> Value {
        let document = testkit::get(&self.run_dir(node).join("status.sock"), "/status");
        serde_json::from_str(&document).unwrap()
    }

    fn apply(&self, within: &str, files: &[&Value]) -> String {
        let (said, code) = self.ctl(&format!("apply --confirm-within {within}"), files);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("calicoctl confirm"), "{said}");
        said
    }

    fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.run_dir(node).join("log")).unwrap_or_default()
    }

    async fn object(&self, resource: &Resource, name: &str) -> Option<Value> {
        let namespace = (*resource == KUBERNETES).then_some("default");
        self.api.get(resource, namespace, name).await.unwrap()
    }

    /// Whether an administrator reaches the node.
    fn reaches(&self, node: usize) -> bool {
        let to = SocketAddr::new(IpAddr::from(self.topology.nodes[node].v4), PORT);
        tcp_reply(&self.topology.fabric, to, Duration::from_millis(500)).is_some()
    }

    fn api_is(&self, there: bool) {
        let word = if there { "add" } else { "del" };
        self.topology.fabric.sh(&format!("ip addr {word} 10.0.0.1/24 dev br0"));
    }

    async fn until(&self, what: &str, good: impl AsyncFn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !good().await {
            assert!(Instant::now() < until, "{what}\n{}\n{}", self.log(0), self.log(1));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The store has what was before the change, and no trace of the change.
    async fn store_is_back(&self, what: &str, before: &Value) {
        let back = async || {
            let open = self.object(&POLICIES, "open").await.unwrap();
            let also = self.object(&POLICIES, "also").await;
            open["spec"] == before["spec"]
                && open["metadata"]["annotations"] == before["metadata"]["annotations"]
                && also.is_none()
        };
        self.until(what, back).await;
    }

    async fn no_files_are_left(&self) {
        let left = |node: usize| {
            let dir = std::fs::read_dir(self.run_dir(node)).unwrap().flatten();
            dir.map(|e| e.file_name()).any(|n| n.to_string_lossy().starts_with("unconfirmed"))
        };
        self.until("the journal is gone", async || !left(0) && !left(1)).await;
    }
}

/// All hosts, both ways.
fn policy(name: &str, action: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"order": 10, "selector": "is == 'host'", "types": ["Ingress", "Egress"],
            "ingress": [{"action": action}], "egress": [{"action": action}]},
    })
}

/// The nodes cut themselves off from the API, which then is gone as well; they come back.
async fn cut_off_and_back(cluster: &Cluster, before: &Value) {
    cluster.apply("8s", &[&policy("open", "Deny"), &policy("also", "Deny")]);
    let cut = async || !cluster.reaches(0) && !cluster.reaches(1);
    cluster.until("both nodes are cut off", cut).await;
    cluster.api_is(false);
    let kept = |node: usize| {
        std::fs::read_to_string(cluster.run_dir(node).join("unconfirmed.json")).is_ok()
    };
    assert!(kept(0) && kept(1), "in force, so on disk");
    let back = async || cluster.reaches(0) && cluster.reaches(1);
    cluster.until("both nodes go back without the API", back).await;
    let status = cluster.status(0);
    assert_eq!(status["unconfirmed"][0]["phase"], "reverted", "{status}");
    let open = cluster.object(&POLICIES, "open").await.unwrap();
    assert_eq!(open["spec"]["ingress"][0]["action"], "Deny", "the store has not heard of it");
    assert!(cluster.object(&POLICIES, "also").await.is_some());
    cluster.api_is(true);
    cluster.store_is_back("the store follows", before).await;
    cluster.no_files_are_left().await;
}

/// An agent dies before the time is over, and starts after it, cut off.
async fn killed_before_started_after(cluster: &mut Cluster, before: &Value) {
    cluster.apply("8s", &[&policy("open", "Deny"), &policy("also", "Deny")]);
    let cut = async || !cluster.reaches(0) && !cluster.reaches(1);
    cluster.until("both nodes are cut off", cut).await;
    cluster.kill_agent(0);
    cluster.api_is(false);
    cluster.until("the other node goes back", async || cluster.reaches(1)).await;
    assert!(!cluster.reaches(0), "without an agent the kernel stays as it is");
    cluster.run_agent(0);
    cluster.until("the node goes back without the API", async || cluster.reaches(0)).await;
    cluster.api_is(true);
    cluster.store_is_back("the store follows", before).await;
    let until = Instant::now() + PATIENCE;
    let code = loop {
        if let Some(status) = cluster.agents[0].as_mut().unwrap().try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < until, "it works with what was before\n{}", cluster.log(0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(code, Some(129), "it wants to start again\n{}", cluster.log(0));
    cluster.run_agent(0);
    cluster.no_files_are_left().await;
    assert!(cluster.reaches(0) && cluster.reaches(1));
}

/// What is confirmed stays; what waits is not written over.
async fn confirmed_stays(cluster: &Cluster, before: &Value) {
    let mut ordered = policy("open", "Allow");
    ordered["spec"]["order"] = 11.into();
    let said = cluster.apply("6s", &[&ordered, &policy("also", "Allow")]);
    let again = cluster.ctl("apply --confirm-within 6s", &[&policy("open", "Deny")]);
    assert!(again.0.contains("is part of unconfirmed change") && again.1 == Some(1), "{again:?}");
    let confirmed = cluster.ctl("confirm", &[]);
    assert_eq!(confirmed.1, Some(0), "{confirmed:?} {said}");
    tokio::time::sleep(Duration::from_secs(8)).await;
    let open = cluster.object(&POLICIES, "open").await.unwrap();
    assert_eq!(open["spec"]["order"], 11, "{open}");
    assert_eq!(open["metadata"]["annotations"], before["metadata"]["annotations"], "{open}");
    assert!(cluster.object(&POLICIES, "also").await.is_some());
    cluster.no_files_are_left().await;
    let late = cluster.ctl("confirm", &[]);
    assert!(late.0.contains("no change waits") && late.1 == Some(1), "{late:?}");
}

/// A policy of Kubernetes that was created is deleted again, at once when told so.
async fn taken_back_when_told(cluster: &Cluster) {
    let created = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "k", "namespace": "default"}, "spec": {"podSelector": {}},
    });
    let said = cluster.apply("1h", &[&created, &policy("open", "Deny"), &policy("also", "Deny")]);
    assert!(cluster.object(&KUBERNETES, "k").await.is_some());
    let cut = async || !cluster.reaches(0) && !cluster.reaches(1);
    cluster.until("both nodes are cut off", cut).await;
    let id = said.split("calicoctl confirm ").nth(1).unwrap().split_whitespace().next().unwrap();
    let reverted = cluster.ctl(&format!("revert {id}"), &[]);
    assert_eq!(reverted.1, Some(0), "{reverted:?}");
    assert!(cluster.object(&KUBERNETES, "k").await.is_none());
    let also = cluster.object(&POLICIES, "also").await.unwrap();
    assert_eq!(also["spec"]["ingress"][0]["action"], "Allow", "{also}");
    let open = cluster.object(&POLICIES, "open").await.unwrap();
    assert_eq!(open["spec"]["order"], 11, "{open}");
}

/// Where an agent would not go back, nothing is written.
async fn refused_beside_others(cluster: &Cluster) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other",
        "annotations": {"projectcalico.org/IPv4Address": "10.0.0.99/24"}}});
    cluster.api.create::<Value>(&NODES, None, &node).await.unwrap();
    let refused = cluster.ctl("apply --confirm-within 6s", &[&policy("open", "Deny")]);
    assert!(refused.0.contains("would not go back: other") && refused.1 == Some(1), "{refused:?}");
    let open = cluster.object(&POLICIES, "open").await.unwrap();
    assert_eq!(open["spec"]["ingress"][0]["action"], "Allow");
    // A host endpoint of a node that can is none of its business.
    let mut host = cluster.object(&HOSTS, NAMES[0]).await.unwrap();
    host["metadata"] = json!({"name": NAMES[0], "labels": {"is": "host", "and": "more"}});
    cluster.apply("1h", &[&host]);
    assert_eq!(cluster.ctl("revert", &[]).1, Some(0));
    let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": {"name": "p"}, "spec": {"cidr": "10.9.0.0/16"}});
    let refused = cluster.ctl("apply --confirm-within 6s", &[&pool]);
    assert!(refused.0.contains("what decides about packets"), "{refused:?}");
}

async fn story(cluster: &mut Cluster) {
    let servers: Vec<_> =
        (0..2).map(|n| Server::start(&cluster.topology.nodes[n].netns, PORT, NAMES[n])).collect();
    let able = async |name: &str| {
        let node = cluster.object(&NODES, name).await.unwrap();
        node["metadata"]["annotations"]["projectcalico.org/agent-features"]
            == "confirm,confirm-delete"
    };
    cluster
        .until("agents say what they can", async || able("node-a").await && able("node-b").await)
        .await;
    cluster.until("nodes are reached", async || cluster.reaches(0) && cluster.reaches(1)).await;
    let before = cluster.object(&POLICIES, "open").await.unwrap();
    cut_off_and_back(cluster, &before).await;
    println!("cut off and back");
    killed_before_started_after(cluster, &before).await;
    println!("killed before, started after");
    confirmed_stays(cluster, &before).await;
    taken_back_when_told(cluster).await;
    refused_beside_others(cluster).await;
    drop(servers);
}
