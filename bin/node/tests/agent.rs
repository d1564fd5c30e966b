//! Agents of two nodes as processes, in network namespaces, against the embedded API; the plugin
//! called as a runtime calls it. The test is its own agent: started with `CALICO_AGENT` set it
//! runs `node::run`, so that an agent can be killed without killing the test.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, though it brings its own main function"
)]

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cni::protocol::codes;
use datastore::{Datastore, Resource};
use serde_json::{Value, json};
use testkit::{Netns, Processes, Server, Topology, tcp_reply};

const NODES: Resource = Resource::core("nodes", "Node");
const PODS: Resource = Resource::core("pods", "Pod");
const BLOCKS: Resource = Resource::calico("ipamblocks", "IPAMBlock");
const POLICIES: Resource = Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");
const FELIX: Resource = Resource::calico("felixconfigurations", "FelixConfiguration");
const NAMES: [&str; 2] = ["node-a", "node-b"];
const PORT: u16 = 8080;

fn main() -> ExitCode {
    if std::env::var_os("CALICO_AGENT").is_some() {
        return node::run(std::env::args_os());
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start());
    runtime.block_on(story(&mut cluster));
    println!("agent: ok");
    ExitCode::SUCCESS
}

struct Cluster {
    agents: Processes,
    folder: tempfile::TempDir,
    topology: Topology,
    api: Datastore,
    kubeconfig: PathBuf,
}

struct Pod {
    name: &'static str,
    node: usize,
    container: String,
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let topology = Topology::new(2, 1500);
        topology.fabric.sh("ip addr add 10.0.0.1/24 dev br0");
        let listener = topology.fabric.run(|| TcpListener::bind("10.0.0.1:6443")).unwrap();
        let storage = store::Store::open(&store::Options::new(folder.path().join("db"))).unwrap();
        let mut options = apiserver::Options::new(folder.path().join("pki"));
        options.names = vec!["10.0.0.1".to_owned()];
        let server = apiserver::Server::new(Arc::new(storage), options).unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig("https://10.0.0.1:6443")).unwrap();
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = folder.path().join("kubeconfig-test");
        std::fs::write(
            &ours,
            server.kubeconfig(&format!("https://{}", local.local_addr().unwrap())),
        )
        .unwrap();
        tokio::spawn(server.serve(vec![listener, local], std::future::pending::<()>()));
        let api = Datastore::connect(Some(&ours)).await.unwrap();
        for name in NAMES {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            api.create::<Value>(&NODES, None, &node).await.unwrap();
        }
        let mut it = Self { folder, topology, api, kubeconfig, agents: Processes::new(2) };
        it.run_agent(0);
        it.run_agent(1);
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
            .env("KUBECONFIG", &self.kubeconfig)
            .env("CALICO_RUN_DIR", &dir)
            .env("CALICO_LIB_DIR", &dir)
            .env("IP6", "autodetect")
            .env("CALICO_IPV4POOL_CIDR", "10.65.0.0/16")
            .env("CALICO_IPV4POOL_VXLAN", "Always")
            .env("CALICO_IPV6POOL_CIDR", "fd65::/64")
            .env("CALICO_IPV6POOL_VXLAN", "Always")
            .stdin(Stdio::null())
            .stderr(log.unwrap());
        self.agents[node] = Some(self.topology.nodes[node].netns.spawn(&mut command));
    }

    fn kill_agent(&mut self, node: usize) {
        let mut agent = self.agents[node].take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Until the agent ends by itself; its exit code.
    async fn agent_ends(&mut self, node: usize) -> i32 {
        let until = Instant::now() + Duration::from_secs(30);
        let mut agent = self.agents[node].take().unwrap();
        loop {
            if let Some(status) = agent.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < until, "the agent goes on\n{}", self.log(node));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the agent answers to a request on one of its ports; empty if it does not listen there.
    fn http(&self, node: usize, (host, port): (&str, u16), path: &str) -> String {
        let at = SocketAddr::new(host.parse().unwrap(), port);
        self.topology.nodes[node].netns.run(|| {
            let Ok(mut stream) = TcpStream::connect(at) else { return String::new() };
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
        })
    }

    /// Gives the FelixConfiguration of all nodes this spec.
    async fn felix(&self, spec: Value) {
        let mut object: Value = self.api.get(&FELIX, None, "default").await.unwrap().unwrap();
        object["spec"] = spec;
        self.api.replace::<Value>(&FELIX, None, "default", &object).await.unwrap();
    }

    /// Value and source of a parameter that the agent runs with.
    fn parameter(&self, node: usize, name: &str) -> (String, String) {
        let document = self.http(node, ("127.0.0.1", 9099), "/config");
        let document: Value = serde_json::from_str(&document).unwrap_or_default();
        let rows = document["parameters"].as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default();
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        (text("value"), text("source"))
    }

    fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.run_dir(node).join("log")).unwrap_or_default()
    }

    fn call(&self, command: &str, pod: &Pod, uid: &str) -> Result<Value, Value> {
        let socket = self.run_dir(pod.node).join("cni.sock");
        let config =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "calico-cni", "socket": socket});
        let args = format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_UID={uid}", pod.name);
        let env = cni::Env {
            command: Some(command.into()),
            container_id: Some(pod.container.clone()),
            netns: Some(pod.netns.path().display().to_string()),
            ifname: Some("eth0".into()),
            args: Some(args),
            socket: None,
        };
        let mut out = Vec::new();
        let code = cni::run(&env, config.to_string().as_bytes(), &mut out);
        let document = serde_json::from_slice(&out).unwrap_or(Value::Null);
        // ExitCode cannot be compared; its text can.
        if format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS) {
            Ok(document)
        } else {
            Err(document)
        }
    }

    async fn pod(&self, name: &'static str, node: usize, app: &str) -> (Pod, String) {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"nodeName": NAMES[node], "containers": [{"name": "c", "image": "i"}]},
        });
        let made: Value = self.api.create(&PODS, Some("default"), &object).await.unwrap();
        let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
        let container = format!("c-{name}");
        (Pod { name, node, container, netns: Netns::new(), addresses: Vec::new() }, uid)
    }

    /// ADD as a runtime does it: what says "try again" is tried again.
    fn add(&self, pod: &mut Pod, uid: &str) -> Duration {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let started = Instant::now();
            match self.call("ADD", pod, uid) {
                Ok(result) => {
                    let ips = result["ips"].as_array().unwrap();
                    let text = |ip: &Value| ip["address"].as_str().unwrap().to_owned();
                    let one = |ip: &Value| text(ip).split('/').next().unwrap().parse().unwrap();
                    pod.addresses = ips.iter().map(one).collect();
                    return started.elapsed();
                }
                Err(e) if e["code"] == codes::TRY_AGAIN && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(e) => panic!("ADD {}: {e}\n{}", pod.name, self.log(pod.node)),
            }
        }
    }

    /// Every address that the datastore says a pod has.
    async fn allocated(&self) -> Vec<String> {
        let blocks: Vec<Value> = self.api.list_all(&BLOCKS).await.unwrap();
        let attributes = blocks.iter().filter_map(|b| b["spec"]["attributes"].as_array().cloned());
        let pods =
            attributes.flatten().filter_map(|a| a["secondary"]["pod"].as_str().map(str::to_owned));
        let mut pods: Vec<_> = pods.collect();
        pods.sort();
        pods.dedup();
        pods
    }
}

fn replies(from: &Pod, to: &Pod) -> Vec<bool> {
    let answer = to.addresses.iter().map(|a| {
        let at = SocketAddr::new(*a, PORT);
        tcp_reply(&from.netns, at, Duration::from_secs(1)).as_deref() == Some(to.name)
    });
    answer.collect()
}

async fn until(what: &str, cluster: &Cluster, good: impl AsyncFn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !good().await {
        assert!(Instant::now() < until, "{what}\n{}\n{}", cluster.log(0), cluster.log(1));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What others do to our tables is undone at once, however often they do it.
async fn others_damage_the_tables(cluster: &Cluster) {
    let node = &cluster.topology.nodes[1].netns;
    let listing =
        || ["ip", "ip6"].map(|f| node.out(&format!("nft -s list chain {f} calico to-pod")));
    // A rule that was written again has another handle.
    let handles = || node.out("nft -s -a list chain ip calico to-pod");
    let wanted = listing();
    for round in 0..3 {
        let before = handles();
        let started = Instant::now();
        node.sh("nft 'flush chain ip calico to-pod; flush chain ip6 calico to-pod'");
        let repaired = async || listing() == wanted && handles() != before;
        until("the tables are repaired", cluster, repaired).await;
        let took = started.elapsed();
        println!("damage {round} repaired after {took:?}");
        // Looking takes longer than the repair.
        assert!(took < Duration::from_secs(1), "{round}: {took:?}\n{}", cluster.log(1));
    }
}

/// A pod is set up while its address is being written. Somebody else takes that address in between:
/// the pod gets another, and nothing of the first stays.
async fn others_take_the_address(cluster: &Cluster, from: &Pod) {
    let (mut before, before_uid) = cluster.pod("before", 0, "x").await;
    cluster.add(&mut before, &before_uid);
    let blocks: Vec<Value> = cluster.api.list_all(&BLOCKS).await.unwrap();
    let of_the_node = |b: &&Value| b["spec"]["affinity"] == format!("host:{}", NAMES[0]);
    let mut stolen = Vec::new();
    for block in blocks.iter().filter(of_the_node) {
        let mut block = block.clone();
        let free = block["spec"]["unallocated"].as_array_mut().unwrap().remove(0);
        let place = u32::try_from(free.as_u64().unwrap()).unwrap();
        let attributes = block["spec"]["attributes"].as_array_mut().unwrap();
        attributes.push(json!({"handle_id": "thief", "secondary": {"node": "elsewhere"}}));
        let attribute = attributes.len() - 1;
        block["spec"]["allocations"][place as usize] = json!(attribute);
        let net: ipnet::IpNet = block["spec"]["cidr"].as_str().unwrap().parse().unwrap();
        stolen.push(match net.addr() {
            IpAddr::V4(first) => IpAddr::V4((first.to_bits() + place).into()),
            IpAddr::V6(first) => IpAddr::V6((first.to_bits() + u128::from(place)).into()),
        });
        let name = block["metadata"]["name"].as_str().unwrap().to_owned();
        cluster.api.replace::<Value>(&BLOCKS, None, &name, &block).await.unwrap();
    }
    assert_eq!(stolen.len(), 2, "a block of each family: {blocks:?}");

    let (mut late, late_uid) = cluster.pod("late", 0, "x").await;
    cluster.add(&mut late, &late_uid);
    assert!(cluster.log(0).contains("others than foreseen"), "{}", cluster.log(0));
    let _server = Server::start(&late.netns, PORT, late.name);
    until("the late pod answers", cluster, async || replies(from, &late) == [true, true]).await;
    let node = &cluster.topology.nodes[0].netns;
    let places = [
        late.netns.out("ip -o addr"),
        node.out("ip route; ip -6 route; ip neigh; ip -6 neigh"),
        node.out("nft list ruleset"),
    ];
    for address in stolen {
        assert!(!late.addresses.contains(&address), "{address} is somebody else's");
        let text = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
        for place in &places {
            let there = place.split(|c| !text(c)).any(|word| word == address.to_string());
            assert!(!there, "{address} is left in\n{place}");
        }
    }
    cluster.call("DEL", &late, &late_uid).unwrap();
    cluster.call("DEL", &before, &before_uid).unwrap();
}

/// A connection that stays.
struct Talk {
    near: TcpStream,
    far: TcpStream,
}

impl Talk {
    /// None if nobody gets through.
    fn begin(from: &Netns, to: &Netns, at: SocketAddr) -> Option<Self> {
        let listener = to.run(|| TcpListener::bind(at)).unwrap();
        let patience = Duration::from_secs(1);
        let near = from.run(|| TcpStream::connect_timeout(&at, patience)).ok()?;
        let (far, _) = listener.accept().unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Some(Self { near, far })
    }

    fn goes_on(&mut self) -> bool {
        let mut byte = [0];
        let there = self.near.write_all(b"?").and_then(|()| self.far.read_exact(&mut byte));
        let back = there.and_then(|()| self.far.write_all(b"!"));
        back.and_then(|()| self.near.read_exact(&mut byte)).is_ok()
    }
}

/// What the rules, the tunnels, the servers and the logs are made from changes under agents that run, and
/// under flows that go on.
async fn live_changes(cluster: &mut Cluster, (pod, uid): (&Pod, &str), far: &Pod) {
    let resource = "FelixConfiguration default".to_owned();
    let level = |cluster: &Cluster| cluster.parameter(0, "LogSeverityScreen");
    assert_eq!(level(cluster), ("Info".into(), "built in".into()), "{}", cluster.log(0));
    cluster.felix(json!({"logSeverityScreen": "Debug"})).await;
    let heard = async || level(cluster) == ("Debug".into(), resource.clone());
    until("the level changes at once", cluster, heard).await;
    cluster.call("STATUS", pod, uid).unwrap();
    let logged = async || cluster.log(0).contains("DEBUG node::server: CNI STATUS");
    until("debug lines are logged", cluster, logged).await;

    // The rules.
    let pids = |c: &Cluster| c.agents.iter().map(|a| a.as_ref().unwrap().id()).collect::<Vec<_>>();
    let started = pids(cluster);
    let mut talk =
        Talk::begin(&pod.netns, &far.netns, SocketAddr::new(far.addresses[0], 9000)).unwrap();
    let host = cluster.topology.nodes[0].addresses()[0];
    let node = &cluster.topology.nodes[0].netns;
    let _server = Server::start(node, PORT, "host");
    let to_host = || {
        let reply = tcp_reply(&pod.netns, (host, PORT), Duration::from_secs(1));
        reply.as_deref() == Some("host")
    };
    let pod_to_host = || node.out("nft -s list chain ip calico pod-to-host");
    let closed = pod_to_host();
    assert!(!to_host(), "endpoint to host is DROP");
    let log = cluster.folder.path().join("felix.log");
    let open = json!({
        "defaultEndpointToHostAction": "ACCEPT", "prometheusMetricsEnabled": true,
        "prometheusMetricsPort": 9191, "healthPort": 9199, "vxlanPort": 8472, "logFilePath": log,
    });
    let changed = Instant::now();
    cluster.felix(open).await;
    until("the host is open", cluster, async || to_host()).await;
    println!("in the kernel {:?} after the change", changed.elapsed());
    assert_ne!(pod_to_host(), closed);
    assert!(talk.goes_on(), "{}", cluster.log(0));

    // The servers.
    for at in [("127.0.0.1", 9191), ("::1", 9191)] {
        let served =
            async || cluster.http(0, at, "/metrics").contains("felix_active_local_endpoints");
        until("metrics are served", cluster, served).await;
    }
    let page = include_str!("../../../docs/reference/metrics.md");
    let served = cluster.http(0, ("127.0.0.1", 9191), "/metrics");
    for family in served.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(page.contains(&format!("| `{name}")), "docs/reference/metrics.md lacks {name}");
    }
    let moved = async || cluster.http(0, ("127.0.0.1", 9199), "/config").contains("9199");
    until("health is served elsewhere", cluster, moved).await;
    assert_eq!(cluster.http(0, ("127.0.0.1", 9099), "/config"), "", "and no longer there");
    let lines = async || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("in force"));
    until("lines go to the file as well", cluster, lines).await;

    // The tunnels.
    for node in &cluster.topology.nodes {
        let port = || node.netns.out("ip -d link show vxlan.calico");
        until("the tunnel has another port", cluster, async || port().contains("dstport 8472"))
            .await;
    }
    until("pods reach each other there", cluster, async || replies(pod, far) == [true, true]).await;
    assert!(talk.goes_on(), "{}", cluster.log(0));

    // And back: what may not begin any more may not go on.
    let with_host = Talk::begin(&pod.netns, node, SocketAddr::new(host, 9001)).unwrap();
    let with_host = RefCell::new(with_host);
    assert!(with_host.borrow_mut().goes_on());
    cluster.felix(json!({})).await;
    until("the host is closed", cluster, async || !to_host()).await;
    until("the flow is cut", cluster, async || !with_host.borrow_mut().goes_on()).await;
    assert_eq!(pod_to_host(), closed);
    let port = ("127.0.0.1", 9191);
    until("no metrics", cluster, async || cluster.http(0, port, "/metrics").is_empty()).await;
    let (value, source) = cluster.parameter(0, "DefaultEndpointToHostAction");
    assert_eq!((&*value, &*source), ("DROP", "built in"));
    until("pods reach each other", cluster, async || replies(pod, far) == [true, true]).await;
    assert!(talk.goes_on(), "{}", cluster.log(0));
    assert_eq!(pids(cluster), started);
    for agent in cluster.agents.iter_mut().flatten() {
        assert!(agent.try_wait().unwrap().is_none(), "an agent has ended");
    }
}

/// What takes a new start, and what is not taken; where each came from.
async fn configuration_changes(cluster: &mut Cluster) {
    // One that nothing reads is no reason for anything.
    cluster.felix(json!({"bpfMapSizeRoute": 1000, "interfacePrefix": "cali,tap"})).await;
    for node in 0..2 {
        assert_eq!(cluster.agent_ends(node).await, 129, "it asks to be started again");
        let said = "starting again with them settings=\"InterfacePrefix\"";
        assert!(cluster.log(node).contains(said), "{}", cluster.log(node));
        cluster.run_agent(node);
    }
    let taken = async || cluster.parameter(0, "InterfacePrefix").0 == "cali,tap";
    until("it was taken", cluster, taken).await;

    // A value that must not be wrong: the file is read before the resources.
    cluster.kill_agent(1);
    let file = cluster.run_dir(1).join("felix.cfg");
    std::fs::write(&file, "[global]\nDefaultEndpointToHostAction = perhaps\n").unwrap();
    cluster.run_agent(1);
    assert_eq!(cluster.agent_ends(1).await, 1);
    let said =
        "DefaultEndpointToHostAction (from: file) must not be wrong: \"perhaps\" is not one of";
    assert!(cluster.log(1).contains(said), "{}", cluster.log(1));
    std::fs::write(&file, "HealthPort = 9299\n").unwrap();
    cluster.run_agent(1);
    let by_file = async || cluster.http(1, ("127.0.0.1", 9299), "/config").contains("9299");
    until("the file wins", cluster, by_file).await;
}

async fn story(cluster: &mut Cluster) {
    let (mut x, x_uid) = cluster.pod("x", 0, "x").await;
    let (mut y, y_uid) = cluster.pod("y", 1, "y").await;
    let (mut z, z_uid) = cluster.pod("z", 0, "z").await;
    let took =
        [cluster.add(&mut x, &x_uid), cluster.add(&mut y, &y_uid), cluster.add(&mut z, &z_uid)];
    println!("ADD took {took:?}");
    assert_eq!(x.addresses.len(), 2, "both families: {:?}", x.addresses);
    let _servers = [&x, &y, &z].map(|p| Server::start(&p.netns, PORT, p.name));

    // On one node at once; across nodes as soon as the others have heard of the block.
    assert_eq!(replies(&x, &z), [true, true], "{}", cluster.log(0));
    until("x reaches y by VXLAN", cluster, async || replies(&x, &y) == [true, true]).await;
    cluster.call("CHECK", &x, &x_uid).unwrap();
    assert_eq!(
        cluster.call("ADD", &x, &x_uid).unwrap()["ips"][0]["address"],
        format!("{}/32", x.addresses[0])
    );

    // A policy takes effect, and its end as well.
    let policy = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "deny-y"},
        "spec": {"selector": "app == 'y'", "types": ["Ingress"]},
    });
    cluster.api.create::<Value>(&POLICIES, None, &policy).await.unwrap();
    until("y is isolated", cluster, async || replies(&x, &y) == [false, false]).await;

    others_damage_the_tables(cluster).await;
    assert_eq!(replies(&x, &y), [false, false], "y is isolated again");

    others_take_the_address(cluster, &z).await;

    // The agent dies: traffic and policy stay.
    cluster.kill_agent(0);
    cluster.kill_agent(1);
    assert_eq!(replies(&x, &z), [true, true], "without an agent");
    assert_eq!(replies(&x, &y), [false, false], "without an agent");
    // A DEL meanwhile succeeds and is done later.
    cluster.call("DEL", &z, &z_uid).unwrap();
    cluster.run_agent(0);
    cluster.run_agent(1);
    until("z's addresses are released", cluster, async || cluster.allocated().await == ["x", "y"])
        .await;
    cluster.call("CHECK", &x, &x_uid).unwrap();

    // After the restart everything goes on.
    let (mut w, w_uid) = cluster.pod("w", 1, "w").await;
    cluster.add(&mut w, &w_uid);
    let _server = Server::start(&w.netns, PORT, w.name);
    until("x reaches w", cluster, async || replies(&x, &w) == [true, true]).await;
    assert_eq!(replies(&x, &y), [false, false], "after the restart");

    // A late DEL of an old container does not touch its successor.
    let mut successor =
        Pod { container: "c-w2".into(), netns: Netns::new(), addresses: Vec::new(), ..w };
    cluster.add(&mut successor, &w_uid);
    let _server = Server::start(&successor.netns, PORT, successor.name);
    let (name, node, container) = (successor.name, successor.node, "c-w".to_owned());
    let late = Pod { name, node, container, netns: Netns::new(), addresses: Vec::new() };
    cluster.call("DEL", &late, &w_uid).unwrap();
    until("x reaches the successor", cluster, async || replies(&x, &successor) == [true, true])
        .await;

    live_changes(cluster, (&x, &x_uid), &successor).await;
    configuration_changes(cluster).await;
    until("x reaches the successor", cluster, async || replies(&x, &successor) == [true, true])
        .await;

    for (pod, uid) in [(&x, &x_uid), (&y, &y_uid), (&successor, &w_uid)] {
        cluster.call("DEL", pod, uid).unwrap();
        cluster.call("DEL", pod, uid).unwrap();
    }
    until("all is released", cluster, async || cluster.allocated().await.is_empty()).await;
    for node in 0..2 {
        let links = cluster.topology.nodes[node].netns.out("ip -o link");
        assert!(!links.contains(": cali"), "left behind: {links}");
    }
}
