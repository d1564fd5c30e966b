//! One node and its agent, on a store that was filled without asking anybody: the embedded one, or etcd.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apiserver::storage::{Expect, Storage, Write};
use datastore::{Datastore, Resource};
use etcd_client::{Client, GetOptions, Txn, TxnOp};
use serde_json::{Value, json};
use store::Store;
use testkit::{Etcd, Topology};
use tokio::runtime::Runtime;

pub(crate) const NODE: &str = "node1";
const ROOT: &str = "/calico/resources/v3/projectcalico.org";

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Embedded,
    Etcd,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Embedded, Self::Etcd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded store",
            Self::Etcd => "etcd",
        }
    }
}

enum Kept {
    Embedded { store: Arc<Store>, api: Datastore, kubeconfig: PathBuf },
    Etcd { etcd: Etcd, client: Box<Client> },
}

/// See the module.
pub(crate) struct World {
    kept: Kept,
    /// Keys in the embedded store.
    there_already: Mutex<HashSet<String>>,
    agent: Option<Child>,
    pub(crate) topology: Topology,
    /// Its threads are in the node's namespace.
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_agent();
    }
}

impl World {
    pub(crate) fn new(kind: Kind) -> Self {
        let topology = Topology::new(1, 1500);
        let folder = tempfile::tempdir().unwrap();
        let node = &topology.nodes[0].netns;
        let runtime = node.run(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().unwrap()
        });
        let kept = match kind {
            Kind::Etcd => {
                let etcd = node.run(Etcd::start);
                let url = etcd.url().to_owned();
                let connect = async { Client::connect([url], None).await.unwrap() };
                let client = runtime.block_on(async { tokio::spawn(connect).await.unwrap() });
                Kept::Etcd { etcd, client: Box::new(client) }
            }
            Kind::Embedded => {
                let listener = node.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
                let url = format!("https://{}", listener.local_addr().unwrap());
                let mut options = store::Options::new(folder.path().join("db"));
                options.durability = store::Durability::Process;
                let store = Arc::new(Store::open(&options).unwrap());
                let options = apiserver::Options::new(folder.path().join("pki"));
                let server = apiserver::Server::new(store.clone(), options).unwrap();
                let kubeconfig = folder.path().join("kubeconfig");
                fs::write(&kubeconfig, server.kubeconfig(&url)).unwrap();
                runtime.spawn(server.serve(vec![listener], std::future::pending::<()>()));
                let path = kubeconfig.clone();
                let connect = async move { Datastore::connect(Some(&path)).await.unwrap() };
                let api = runtime.block_on(async { tokio::spawn(connect).await.unwrap() });
                Kept::Embedded { store, api, kubeconfig }
            }
        };
        let there_already = Mutex::default();
        Self { kept, there_already, agent: None, topology, runtime, folder }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.kept {
            Kept::Embedded { .. } => Kind::Embedded,
            Kept::Etcd { .. } => Kind::Etcd,
        }
    }

    /// Puts objects there as they are, in the form of `bench/gen_felix.py`.
    pub(crate) fn fill(&self, objects: impl IntoIterator<Item = Value>) {
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            let some: Vec<Value> = objects.by_ref().take(100).collect();
            match &self.kept {
                Kept::Embedded { store, .. } => {
                    let mut known = self.there_already.lock().unwrap();
                    let writes = some.into_iter().filter_map(of_kubernetes).map(|(key, value)| {
                        known.insert(key.clone());
                        Write { key: key.into(), expect: Expect::Absent, value: Some(value) }
                    });
                    self.runtime.block_on(store.commit(writes.collect())).unwrap();
                }
                Kept::Etcd { client, .. } => {
                    let puts = some.iter().map(|object| {
                        let (key, value) = of_etcd(object);
                        TxnOp::put(key, value.to_string(), None)
                    });
                    let txn = Txn::new().and_then(puts.collect::<Vec<_>>());
                    let mut kv = client.kv_client();
                    self.there(async move { drop(kv.txn(txn).await.unwrap()) });
                }
            }
        }
    }

    /// Runs on a thread in the node's namespace.
    fn there<T: Send + 'static>(&self, act: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(self.runtime.spawn(act)).unwrap()
    }

    /// Writes one object anew, or the first time; as a user of the store would.
    pub(crate) fn write(&self, object: &Value) {
        match &self.kept {
            Kept::Etcd { client, .. } => {
                let (key, value) = of_etcd(object);
                let mut kv = client.kv_client();
                self.there(
                    async move { drop(kv.put(key, value.to_string(), None).await.unwrap()) },
                );
            }
            Kept::Embedded { api, .. } => {
                let (key, object) = of_kubernetes(object.clone()).unwrap();
                let api = api.clone();
                let first = self.there_already.lock().unwrap().insert(key.clone());
                self.there(async move {
                    let (resource, namespace, name) = place(&key);
                    let at = (namespace.as_deref(), name.as_str());
                    let metadata = json!({"labels": object["metadata"]["labels"]});
                    let mut patch = json!({"metadata": metadata});
                    // What a pod is made of stays as it is.
                    if !resource.group.is_empty() {
                        patch["spec"] = object["spec"].clone();
                    }
                    if first {
                        api.create::<Value>(&resource, at.0, &object).await.unwrap();
                    } else {
                        api.patch(&resource, at, None, &patch).await.unwrap();
                    }
                });
            }
        }
    }

    pub(crate) fn delete(&self, object: &Value) {
        match &self.kept {
            Kept::Etcd { client, .. } => {
                let (mut kv, key) = (client.kv_client(), of_etcd(object).0);
                self.there(async move { drop(kv.delete(key, None).await.unwrap()) });
            }
            Kept::Embedded { api, .. } => {
                let (key, _) = of_kubernetes(object.clone()).unwrap();
                let api = api.clone();
                self.there_already.lock().unwrap().remove(&key);
                self.there(async move {
                    let (resource, namespace, name) = place(&key);
                    let at = (namespace.as_deref(), name.as_str());
                    let found: Value = api.get(&resource, at.0, at.1).await.unwrap().unwrap();
                    let text = |key: &str| found["metadata"][key].as_str().unwrap();
                    let version = (text("uid"), text("resourceVersion"));
                    api.delete_in(&resource, at, version).await.unwrap();
                });
            }
        }
    }

    pub(crate) fn start_agent(&mut self) -> Started {
        let dir = self.folder.path().join("run");
        fs::create_dir_all(&dir).unwrap();
        let log = dir.join("log");
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
        command
            .args(["node", "--config-file", "/nonexistent"])
            .env("NODENAME", NODE)
            .env("NO_DEFAULT_POOLS", "true")
            .env("CALICO_RUN_DIR", &dir)
            .env("CALICO_LIB_DIR", &dir)
            .env("FELIX_PROGRAMCLUSTERROUTES", "Enabled")
            .stdin(Stdio::null())
            .stderr(file);
        match &self.kept {
            Kept::Embedded { kubeconfig, .. } => command.env("KUBECONFIG", kubeconfig),
            Kept::Etcd { etcd, .. } => {
                command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url())
            }
        };
        let began = Instant::now();
        self.agent = Some(self.topology.nodes[0].netns.spawn(&mut command));
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("first apply done took=") {
                let word: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
                let (took, whole) = (duration(&word), began.elapsed());
                return Started { whole, took, cpu: self.cpu() };
            }
            assert!(began.elapsed() < Duration::from_mins(5), "the agent does not start\n{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// What the agent's threads have used of the processor.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        let of = |path: PathBuf| -> u64 {
            let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
        };
        Duration::from_nanos(tasks.map(|task| of(task.path())).sum())
    }

    /// Until the agent has had nothing to do for a while.
    pub(crate) fn settle(&self) {
        let mut last = self.cpu();
        loop {
            std::thread::sleep(Duration::from_millis(1_500));
            let now = self.cpu();
            if now.saturating_sub(last) < Duration::from_millis(15) {
                return;
            }
            last = now;
        }
    }

    /// A line of the agent's memory, in MiB.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("run/log")).unwrap_or_default()
    }

    /// Reads all pods as fast as the store gives them, in the pages of the agent: how long that takes.
    pub(crate) fn read_all(&self) -> Duration {
        let began = Instant::now();
        match &self.kept {
            Kept::Embedded { api, .. } => {
                let api = api.clone();
                self.there(async move {
                    let (pods, mut more) = (Resource::core("pods", "Pod"), None::<String>);
                    loop {
                        more = api.list(&pods, 100, more.as_deref()).await.unwrap().more;
                        if more.is_none() {
                            break;
                        }
                    }
                });
            }
            Kept::Etcd { client, .. } => {
                let mut kv = client.kv_client();
                self.there(async move {
                    let mut from = format!("{ROOT}/workloadendpoints/");
                    let end = format!("{ROOT}/workloadendpoints0");
                    loop {
                        let options = GetOptions::new().with_range(end.as_str()).with_limit(200);
                        let answer = kv.get(from, Some(options)).await.unwrap();
                        let Some(last) = answer.kvs().last().filter(|_| answer.more()) else {
                            break;
                        };
                        from = format!("{}\0", last.key_str().unwrap());
                    }
                });
            }
        }
        began.elapsed()
    }
}

/// How a start went.
pub(crate) struct Started {
    /// From the start of the process until everything is in the kernel.
    pub(crate) whole: Duration,
    /// Of that, since everything is known.
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
}

/// As Rust prints it.
fn duration(text: &str) -> Duration {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.trim_end_matches(unit).parse().unwrap();
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        _ => 1e-9,
    };
    Duration::from_secs_f64(number * scale)
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

/// Where etcd has an object, and as what.
fn of_etcd(object: &Value) -> (String, Value) {
    let kind = text(object, "/kind");
    let mut object = object.clone();
    let namespace = text(&object, "/metadata/namespace");
    let slash = if namespace.is_empty() { "" } else { "/" };
    let mut name = text(&object, "/metadata/name").to_owned();
    if kind == "WorkloadEndpoint" {
        let part = |field: &str| text(&object, &format!("/spec/{field}")).replace('-', "--");
        name = format!("{}-k8s-{}-eth0", part("node"), part("pod"));
    }
    if kind == "IPAMBlock" {
        let cidr = text(&object, "/spec/cidr").replace('/', "-");
        return (format!("/calico/ipam/v2/assignment/ipv4/block/{cidr}"), object["spec"].take());
    }
    let key = format!("{ROOT}/{}/{namespace}{slash}{name}", plural(kind));
    object["metadata"]["name"] = json!(name);
    (key, object)
}

/// Where the embedded store has an object, and as what: pods, namespaces and nodes are Kubernetes' there.
fn of_kubernetes(object: Value) -> Option<(String, Value)> {
    let name = text(&object, "/metadata/name").to_owned();
    let namespace = text(&object, "/metadata/namespace").to_owned();
    let (key, mut made) = match text(&object, "/kind") {
        "WorkloadEndpoint" => {
            let pod = text(&object, "/spec/pod").to_owned();
            (format!("core/pods/{namespace}/{pod}"), a_pod(&object))
        }
        "Profile" => {
            let name = name.strip_prefix("kns.")?;
            let it = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
                "status": {"phase": "Active"}});
            (format!("core/namespaces/{name}"), it)
        }
        "Node" => {
            let address = text(&object, "/spec/bgp/ipv4Address");
            let notes =
                json!({"projectcalico.org/IPv4Address": address, "projectcalico.org/agent": "x"});
            let it = json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "annotations": notes}});
            (format!("core/nodes/{name}"), it)
        }
        "IPAMBlock" => {
            let name = text(&object, "/spec/cidr").replace(['.', '/'], "-");
            (format!("projectcalico.org/ipamblocks/{name}"), object)
        }
        kind => {
            let slash = if namespace.is_empty() { "" } else { "/" };
            (format!("projectcalico.org/{}/{namespace}{slash}{name}", plural(kind)), object)
        }
    };
    if made["metadata"]["name"].is_null() {
        made["metadata"]["name"] = json!(key.rsplit('/').next());
    }
    made["metadata"]["uid"] = json!(uid(&key));
    Some((key, made))
}

fn uid(key: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    format!("00000000-0000-4000-8000-{:012x}", hasher.finish() & 0xffff_ffff_ffff)
}

fn a_pod(endpoint: &Value) -> Value {
    let labels = endpoint["metadata"]["labels"].as_object().unwrap();
    let own: serde_json::Map<_, _> = labels
        .iter()
        .filter(|(key, _)| !key.starts_with("projectcalico.org/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let address = text(endpoint, "/spec/ipNetworks/0").trim_end_matches("/32").to_owned();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": text(endpoint, "/spec/pod"), "labels": own,
            "namespace": text(endpoint, "/metadata/namespace")},
        "spec": {"nodeName": text(endpoint, "/spec/node"),
            "containers": [{"name": "main", "image": "registry.example.org/team/service:1.2.3"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// The API's place of a key.
fn place(key: &str) -> (Resource, Option<String>, String) {
    const KINDS: [Resource; 3] = [
        Resource::core("pods", "Pod"),
        Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy"),
        Resource::calico("networkpolicies", "NetworkPolicy"),
    ];
    let mut parts = key.split('/').skip(1);
    let plural = parts.next().unwrap();
    let rest: Vec<&str> = parts.collect();
    let resource = *KINDS.iter().find(|kind| kind.plural == plural).unwrap();
    match rest.as_slice() {
        [name] => (resource, None, (*name).to_owned()),
        [namespace, name] => (resource, Some((*namespace).to_owned()), (*name).to_owned()),
        other => panic!("{other:?}"),
    }
}

/// Names of the interfaces of the first local pods.
pub(crate) fn interface(kind: Kind, endpoint: &Value) -> String {
    match kind {
        Kind::Etcd => text(endpoint, "/spec/interfaceName").to_owned(),
        Kind::Embedded => api::convert::interface_name(
            "cali",
            text(endpoint, "/metadata/namespace"),
            text(endpoint, "/spec/pod"),
        ),
    }
}

/// The objects of a generated file.
pub(crate) fn generated(policies: usize) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("felix.jsonl");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/gen_felix.py");
    let mut python = Command::new("python3");
    let done = python.arg(script).arg(policies.to_string()).arg(&file).status();
    assert!(done.is_ok_and(|status| status.success()), "python3 {script} is wanted");
    let text = fs::read_to_string(&file).unwrap();
    let mut seen = HashSet::new();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.inspect(|object| assert!(seen.insert(of_etcd(object).0), "twice: {object}")).collect()
}
