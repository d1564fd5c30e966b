//! Agents of two nodes on a real etcd, with the plugin as a runtime calls it and calicoctl beside them.

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use serde_json::{Value, json};
use testkit::{Etcd, Netns, Processes, Topology, tcp_reply};
use tokio::runtime::Runtime;

const CALICO: &str = env!("CARGO_BIN_EXE_calico");
pub(crate) const NAMES: [&str; 2] = ["node-a", "node-b"];
pub(crate) const PORT: u16 = 8080;
pub(crate) const ROOT: &str = "/calico/resources/v3/projectcalico.org";
const SOON: Duration = Duration::from_secs(30);

/// The way from the nodes, at 10.0.0.1:2379, to a port of this machine.
#[derive(Clone, Default)]
pub(crate) struct Way(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Way {
    fn start(topology: &Topology, port: u16) -> Self {
        topology.fabric.sh("ip addr add 10.0.0.1/24 dev br0");
        let listener = topology.fabric.run(|| TcpListener::bind("10.0.0.1:2379")).unwrap();
        let it = Self::default();
        let line = it.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut line = line.0.lock().unwrap();
                if let (false, Ok(there)) = (line.cut, TcpStream::connect(("127.0.0.1", port))) {
                    carry(&stream, &there);
                    line.streams.extend([stream, there]);
                }
            }
        });
        it
    }

    /// Connections end, new ones at once.
    pub(crate) fn cut(&self) {
        let mut line = self.0.lock().unwrap();
        line.cut = true;
        for stream in line.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn open(&self) {
        self.0.lock().unwrap().cut = false;
    }
}

/// Carries bytes both ways until either side ends.
fn carry(here: &TcpStream, there: &TcpStream) {
    for (from, to) in [(here, there), (there, here)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

pub(crate) struct Cluster {
    pub(crate) agents: Processes,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) topology: Topology,
    pub(crate) etcd: Etcd,
    pub(crate) way: Way,
    runtime: Runtime,
    /// Variables of the agents besides.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) node: usize,
    pub(crate) container: String,
    /// What the runtime calls it by; nothing for a container that is no pod.
    pub(crate) args: String,
    pub(crate) netns: Netns,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let topology = Topology::new(2, 1500);
        let etcd = Etcd::start();
        let port = etcd.url().rsplit(':').next().unwrap().parse().unwrap();
        let way = Way::start(&topology, port);
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        Self {
            folder,
            topology,
            etcd,
            way,
            runtime,
            agents: Processes::new(2),
            environment: Vec::new(),
        }
    }

    pub(crate) fn run_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(NAMES[node])
    }

    pub(crate) fn run_agent(&mut self, node: usize) {
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
            .envs(self.environment.iter().copied())
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

    pub(crate) fn kill_agent(&mut self, node: usize) {
        let mut agent = self.agents[node].take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub(crate) fn logs(&self) -> String {
        let read = |node: usize| {
            std::fs::read_to_string(self.run_dir(node).join("log")).unwrap_or_default()
        };
        format!("{}\n{}", read(0), read(1))
    }

    pub(crate) fn until(&self, what: &str, good: impl Fn() -> bool) {
        let until = Instant::now() + SOON;
        while !good() {
            assert!(Instant::now() < until, "{what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    // etcd, as other programs use it

    pub(crate) fn raw<T>(
        &self,
        act: impl AsyncFnOnce(&mut Client) -> Result<T, etcd_client::Error>,
    ) -> T {
        self.runtime.block_on(async {
            let mut client = Client::connect([self.etcd.url()], None).await.unwrap();
            act(&mut client).await.unwrap()
        })
    }

    pub(crate) fn put(&self, key: &str, value: &Value) {
        self.raw(async |client| client.put(key, value.to_string(), None).await);
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        let answer = self.raw(async |client| client.get(key, None).await);
        let kv = answer.kvs().first()?;
        Some(serde_json::from_slice(kv.value()).unwrap())
    }

    pub(crate) fn lease_of(&self, key: &str) -> Option<i64> {
        let answer = self.raw(async |client| client.get(key, None).await);
        answer.kvs().first().map(etcd_client::KeyValue::lease)
    }

    pub(crate) fn delete(&self, key: &str) {
        self.raw(async |client| client.delete(key, None).await);
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let answer = self.raw(async |client| client.get(prefix, Some(options)).await);
        answer.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    }

    // the tools

    /// What calicoctl printed; it must succeed.
    pub(crate) fn ctl(&self, args: &[&str], input: &str) -> String {
        self.ask_ctl(args, input).unwrap_or_else(|said| panic!("{args:?}: {said}"))
    }

    /// What calicoctl printed; an error if it failed.
    pub(crate) fn ask_ctl(&self, args: &[&str], input: &str) -> Result<String, String> {
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
        if output.status.success() { Ok(out) } else { Err(out + &err) }
    }

    /// The document of `calicoctl node status`.
    pub(crate) fn status(&self, node: usize) -> Value {
        let document = testkit::get(&self.run_dir(node).join("status.sock"), "/status");
        serde_json::from_str(&document).unwrap()
    }

    /// What `calicoctl node` prints on a node of this cluster.
    pub(crate) fn ctl_node(&self, node: usize, args: &[&str]) -> String {
        let folder = self.run_dir(node).display().to_string();
        self.ctl(&[&["node"], args, &["--run-dir", &folder]].concat(), "")
    }

    pub(crate) fn pod(name: &'static str, node: usize) -> Pod {
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
        let container = format!("c-{name}");
        Pod { name, node, container, args, netns: Netns::new(), addresses: Vec::new() }
    }

    pub(crate) fn call(&self, command: &str, pod: &Pod) -> Result<Value, Value> {
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
    pub(crate) fn add(&self, pod: &mut Pod) {
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

pub(crate) fn reaches(from: &Pod, to: &Pod) -> bool {
    let at = SocketAddr::new(to.addresses[0], PORT);
    tcp_reply(&from.netns, at, Duration::from_millis(700)).as_deref() == Some(to.name)
}

pub(crate) fn wep_key(node: &str, namespace: &str, orchestrator: &str, workload: &str) -> String {
    let node = node.replace('-', "--");
    let workload = workload.replace('-', "--");
    format!("{ROOT}/workloadendpoints/{namespace}/{node}-{orchestrator}-{workload}-eth0")
}
