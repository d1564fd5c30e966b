//! The agent and the plugin under two real kubelets with containerd: pods run with addresses of ours, policy is
//! enforced between them, and what ends leaves nothing. Nothing here knows of a sandbox. (`make e2e`)

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{ControlPlane, Controllers, Furniture, Topology};

const PATIENCE: Duration = Duration::from_mins(2);
const NODES: [&str; 2] = ["node-a", "node-b"];

const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "k8s-pod-network", "plugins": [
  {"type": "calico", "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}}]}"#;

const PODS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: c
        image: test.local/busybox:1
        imagePullPolicy: Never
        command: [/bin/sh, -c, 'hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: 'test.local/busybox:1', imagePullPolicy: Never, command: [/bin/sleep, '100000']}
";

/// Only clients on the first node: their pods have the label that is given to them later.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {friend: 'yes'}}}]
    ports: [{port: 8080}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: clients-answer-nobody}
spec:
  selector: app == 'client'
  types: [Ingress]
";

/// Started by the node itself, as a service would be. It must be there before the first pod, or the pod waits.
fn agent(node: &testkit::Node) -> String {
    let programs = programs();
    format!(
        r#"mkdir -p /run/calico
ln -sf {calico} "$FOLDER/calico-node"
env NODENAME="$NAME" KUBECONFIG="$KUBECONFIG" IP={v4}/24 IP6=none CALICO_NETWORKING_BACKEND=vxlan \
  CALICO_IPV4POOL_CIDR=10.244.0.0/16 CALICO_IPV4POOL_IPIP=Never CALICO_IPV4POOL_VXLAN=Always \
  FELIX_IPV6SUPPORT=false FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT FELIX_HEALTHENABLED=true \
  "$FOLDER/calico-node" >"$FOLDER/calico-node.log" 2>&1 &
"#,
        calico = programs.join("calico").display(),
        v4 = node.v4,
    )
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_calico")).parent().unwrap().to_owned()
}

struct Cluster {
    plane: ControlPlane,
    folders: Vec<PathBuf>,
}

impl Cluster {
    fn kubectl(&self, words: &str) -> Result<String, String> {
        self.plane.kubectl(&words.split_whitespace().collect::<Vec<_>>())
    }

    fn json(&self, words: &str) -> Value {
        let said =
            self.kubectl(&format!("{words} -o json")).unwrap_or_else(|e| panic!("{words}: {e}"));
        serde_json::from_str(&said).unwrap()
    }

    fn items(&self, words: &str) -> Vec<Value> {
        self.json(words)["items"].as_array().unwrap().clone()
    }

    fn apply(&self, text: &str) {
        self.plane.kubectl_with(&["apply", "-f", "-"], text).unwrap_or_else(|e| panic!("{e}"));
    }

    /// What went wrong, with the logs of everybody who may know why.
    fn logs(&self) -> String {
        let mut text = self.kubectl("get nodes,pods,events -A -o wide").unwrap_or_else(|e| e);
        for folder in &self.folders {
            for log in ["kubelet.log", "containerd.log", "calico-node.log"] {
                let path = folder.join(log);
                let all = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = all.lines().collect();
                let last = &lines[lines.len().saturating_sub(15)..];
                text += &format!("\n{}:\n{}\n", path.display(), last.join("\n"));
            }
        }
        text + &self.plane.logs()
    }

    fn until<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = check() {
                eprintln!("{what}: after {:.1} s", began.elapsed().as_secs_f64());
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Pods with a label, each with its node and address, once `count` of them are ready.
    fn ready(&self, label: &str, count: usize) -> Vec<Pod> {
        self.until(&format!("{count} pods {label} ready"), || {
            let pods = self.items(&format!("get pods -l {label}"));
            let ready = |p: &&Value| {
                let of_type = |c: &&Value| c["type"] == "Ready";
                let conditions = p["status"]["conditions"].as_array();
                let ready = conditions.and_then(|all| all.iter().find(of_type));
                ready.is_some_and(|c| c["status"] == "True")
                    && p["metadata"]["deletionTimestamp"].is_null()
            };
            let pods: Vec<Pod> = pods.iter().filter(ready).map(Pod::of).collect();
            (pods.len() == count).then_some(pods)
        })
    }

    /// What an HTTP request from a pod to an address brings: the name of the pod that answers.
    fn asks(&self, from: &Pod, to: &str) -> Option<String> {
        let script = format!("printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {to} 8080");
        let said = self.plane.kubectl(&["exec", &from.name, "--", "sh", "-c", &script]);
        let said = said.ok()?;
        said.contains("200 OK").then(|| said.lines().last().unwrap_or_default().to_owned())
    }
}

#[derive(Clone, Debug)]
struct Pod {
    name: String,
    node: String,
    address: String,
}

impl Pod {
    fn of(pod: &Value) -> Self {
        let text =
            |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            name: text("/metadata/name"),
            node: text("/spec/nodeName"),
            address: text("/status/podIP"),
        }
    }
}

/// Addresses that are taken, by the handles that took them.
fn taken(cluster: &Cluster) -> usize {
    let blocks = cluster.items("get ipamblocks.projectcalico.org");
    let used = |block: &Value| {
        let all = block["spec"]["allocations"].as_array().unwrap().clone();
        let attributes = block["spec"]["attributes"].as_array().unwrap().clone();
        let of_pod = |index: &Value| {
            let attribute = index.as_u64().and_then(|i| attributes.get(i as usize).cloned());
            attribute.is_some_and(|a| a["secondary"]["pod"].is_string())
        };
        all.iter().filter(|index| of_pod(index)).count()
    };
    blocks.iter().map(used).sum()
}

#[test]
fn pods_run_and_policy_is_enforced_under_real_kubelets() {
    let topology = Topology::new(2, 1_500);
    topology.fabric.sh("ip addr add 10.0.0.1/24 dev br0");
    let address = "10.0.0.1".parse().unwrap();
    let mut plane = ControlPlane::start_in(&topology.fabric, address, Controllers::Scheduling);
    plane.define("v3");
    let plugin = programs().join("calico-cni");
    let mut folders = Vec::new();
    for (node, name) in topology.nodes.iter().zip(NODES) {
        let commands = agent(node);
        // containerd calls it for every pod.
        let loopback = Path::new("/usr/lib/cni/loopback");
        let plugins = [("calico", plugin.as_path()), ("loopback", loopback)];
        let furniture = Furniture { plugins: &plugins, network: NETWORK, commands: &commands };
        folders.push(plane.join(node, name, &furniture));
    }
    let cluster = Cluster { plane, folders };
    cluster.until("both nodes ready", || {
        let ready =
            cluster.kubectl("wait --for=condition=Ready --timeout=1s node/node-a node/node-b");
        ready.ok()
    });
    cluster.apply(PODS);
    let (web, clients) = (cluster.ready("app=web", 4), cluster.ready("app=client", 2));
    for pod in web.iter().chain(&clients) {
        assert!(pod.address.starts_with("10.244."), "{pod:?}");
    }
    for node in NODES {
        assert_eq!(web.iter().filter(|p| p.node == node).count(), 2, "{web:?}");
    }
    assert_eq!(taken(&cluster), 6, "one address a pod");

    let reach = |want: &dyn Fn(&Pod) -> bool| {
        for (from, to) in clients.iter().flat_map(|c| web.iter().map(move |w| (c, w))) {
            let wanted = want(from).then(|| to.name.clone());
            let what = format!("{} on {} to {} on {}", from.name, from.node, to.name, to.node);
            cluster.until(&what, || (cluster.asks(from, &to.address) == wanted).then_some(()));
        }
    };
    reach(&|_| true);
    let friend = clients.iter().find(|c| c.node == NODES[0]).unwrap();
    cluster.kubectl(&format!("label pod {} friend=yes", friend.name)).unwrap();
    cluster.apply(POLICY);
    reach(&|from| from.name == friend.name);
    // Probes come from the node: they pass, or the pods would no longer be ready by now.
    cluster.ready("app=web", 4);
    cluster.kubectl("delete networkpolicies.networking.k8s.io web").unwrap();
    reach(&|_| true);

    cluster.kubectl("scale deployment web --replicas=1").unwrap();
    cluster.until("addresses come back", || (taken(&cluster) == 3).then_some(()));
    cluster.kubectl("delete daemonset client").unwrap();
    cluster.kubectl("delete deployment web").unwrap();
    cluster.until("all addresses come back", || (taken(&cluster) == 0).then_some(()));
    for (node, name) in topology.nodes.iter().zip(NODES) {
        let left = || node.netns.out("ip -o link").contains(": cali");
        cluster.until(&format!("no interface left on {name}"), || (!left()).then_some(()));
    }
}
