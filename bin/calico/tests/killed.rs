//! Every process of a cluster killed under traffic: what is established goes on, what is denied
//! stays denied, pods are made all the same, and nothing leaks.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::holdings::holdings;
use common::{Sandbox, eventually, inside};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// The longest that an established connection may wait for its echo: a fraction of a second, on a
/// machine that runs other tests at the same time.
const STALL: Duration = Duration::from_millis(900);

const NODES: [&str; 2] = ["k8s-node-1", "k8s-node-2"];

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
}

fn pod(name: &str, app: &str, node: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "c", "ports": [{"containerPort": 80}]}]}})
    .to_string()
}

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients-only}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
";

/// What runs until it is told to stop.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<Result<Figures, String>>)>,
}

/// How often something was done, and how long the slowest took.
#[derive(Debug, Default)]
struct Figures {
    done: u32,
    slowest: Duration,
}

impl Figures {
    fn note(&mut self, begin: Instant) {
        self.done += 1;
        self.slowest = self.slowest.max(begin.elapsed());
    }
}

impl Traffic {
    fn start(s: &Sandbox, servers: &[IpAddr]) -> Self {
        let mut it = Self { stop: Arc::default(), threads: Vec::new() };
        for address in servers {
            let to = SocketAddr::new(*address, 80);
            it.run(s, "default/client", "established", move |stop| established(to, stop));
            it.run(s, "default/client", "allowed", move |stop| allowed(to, stop));
            it.run(s, "default/intruder", "denied", move |stop| denied(to, stop));
        }
        it
    }

    fn run(
        &mut self,
        s: &Sandbox,
        pod: &str,
        what: &'static str,
        work: impl FnOnce(&AtomicBool) -> Result<Figures, String> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.threads.push((what, inside(s.pod_netns(pod), move || work(&stop))));
    }

    /// While nothing has failed.
    fn check(&self, when: &str) {
        for (what, thread) in &self.threads {
            assert!(!thread.is_finished(), "{what} connections have ended after {when}");
        }
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (what, thread) in self.threads.drain(..) {
            let figures = thread.join().unwrap().unwrap_or_else(|e| panic!("{what}: {e}"));
            eprintln!("{what}: {} times, the slowest took {:?}", figures.done, figures.slowest);
            assert!(figures.done > 20, "{what}: only {} times", figures.done);
            assert!(what != "established" || figures.slowest < STALL, "{figures:?}");
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (what, thread) in self.threads.drain(..) {
            eprintln!("{what}: {:?}", thread.join());
        }
    }
}

/// One connection: a number every few milliseconds, each must come back.
fn established(to: SocketAddr, stop: &AtomicBool) -> Result<Figures, String> {
    let failed = |what: &str, e: std::io::Error| format!("{what}: {e}");
    let mut stream = TcpStream::connect(to).map_err(|e| failed("connect", e))?;
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut greeting = vec![0; "default/server-1\n".len()];
    stream.read_exact(&mut greeting).map_err(|e| failed("the name", e))?;
    let mut figures = Figures::default();
    while !stop.load(Ordering::Relaxed) {
        let (begin, sent) = (Instant::now(), figures.done.to_be_bytes());
        stream.write_all(&sent).map_err(|e| failed("send", e))?;
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).map_err(|e| failed("receive", e))?;
        if echo != sent {
            return Err(format!("{echo:?} came back for {sent:?}"));
        }
        figures.note(begin);
        std::thread::sleep(Duration::from_millis(4));
    }
    Ok(figures)
}

/// New connections, each must succeed.
fn allowed(to: SocketAddr, stop: &AtomicBool) -> Result<Figures, String> {
    let mut figures = Figures::default();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10));
        drop(stream.map_err(|e| format!("attempt {}: {e}", figures.done))?);
        figures.note(begin);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(figures)
}

/// New connections, none may succeed.
fn denied(to: SocketAddr, stop: &AtomicBool) -> Result<Figures, String> {
    let mut figures = Figures::default();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        if TcpStream::connect_timeout(&to, Duration::from_millis(100)).is_ok() {
            return Err(format!("attempt {} reached {to}", figures.done));
        }
        figures.note(begin);
    }
    Ok(figures)
}

/// A pod made at a bad time becomes ready, and is under policy.
fn works(s: &Sandbox, name: &str) {
    s.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"), "");
    let name = format!("default/{name}");
    let wanted =
        [("default/client", name.as_str(), true), ("default/intruder", name.as_str(), false)];
    s.expect_probe(&format!("--to {name}"), &wanted, "a pod that was made meanwhile");
}

fn apply(s: &Sandbox, manifest: &str) {
    // The API may be the one that was killed.
    eventually("kubectl apply", || s.ask_kubectl("apply -f -", manifest).done());
}

/// The plugin's process of an ADD on a node whose agent does not answer.
fn plugin_in_add(s: &Sandbox) -> i32 {
    let netns = format!("CNI_NETNS=/run/netns/{}-pod-", s.name);
    s.wait_process(&["calico-cni ", "CNI_COMMAND=ADD ", &netns], None)
}

const SUPERVISOR: &[&str] = &[" supervise "];

#[test]
fn any_process_can_be_killed_at_any_time() {
    let s = Sandbox::up("--nodes 2");
    let empty = holdings(&s, &NODES);
    let pods = [
        pod("client", "client", NODES[0]),
        pod("intruder", "intruder", NODES[0]),
        pod("server-1", "server", NODES[0]),
        pod("server-2", "server", NODES[1]),
    ];
    apply(&s, &format!("{POLICY}---\n{}", pods.join("\n---\n")));
    s.pods_ready();
    let wanted = ["default/server-1", "default/server-2"]
        .map(|to| [("default/client", to, true), ("default/intruder", to, false)])
        .concat();
    s.expect_probe("", &wanted, "before anything is killed");
    let address = |pod: &str| -> IpAddr {
        let ip = s.json(&format!("get pod {pod}"))["status"]["podIP"].clone();
        ip.as_str().unwrap().parse().unwrap()
    };
    let traffic = Traffic::start(&s, &[address("server-1"), address("server-2")]);
    for (what, attack) in ATTACKS {
        let begin = Instant::now();
        attack(&s);
        traffic.check(what);
        eprintln!("{what}: {:?}", begin.elapsed());
    }
    traffic.stop();
    s.kubectl("delete pods --all --timeout=60s", "");
    s.kubectl("delete networkpolicies.networking.k8s.io --all", "");
    eventually("nothing has leaked", || {
        let now = holdings(&s, &NODES);
        if now == empty { Ok(()) } else { Err(format!("{now:#?} instead of {empty:#?}")) }
    });
}

type Attack = (&'static str, fn(&Sandbox));

const ATTACKS: &[Attack] = &[
    ("an agent", kill_an_agent),
    ("the other agent, and a pod deleted", kill_an_agent_while_deleting),
    ("the API", kill_the_api),
    ("the supervisor", kill_the_supervisor),
    ("the plugin in an ADD", kill_the_plugin),
    ("the supervisor in an ADD", kill_the_supervisor_in_an_add),
    ("all at once", kill_all),
    ("a responder", kill_a_responder),
];

fn kill_an_agent(s: &Sandbox) {
    let agent = s.agent(NODES[1]);
    signal(agent, Signal::SIGKILL);
    apply(s, &pod("a", "server", NODES[1]));
    works(s, "a");
    assert_ne!(s.agent(NODES[1]), agent);
}

fn kill_an_agent_while_deleting(s: &Sandbox) {
    apply(s, &pod("b", "server", NODES[0]));
    works(s, "b");
    signal(s.agent(NODES[0]), Signal::SIGKILL);
    s.kubectl("delete pod b --timeout=60s", "");
    apply(s, &pod("b2", "server", NODES[0]));
    works(s, "b2");
}

fn kill_the_api(s: &Sandbox) {
    let api = s.wait_process(&["calico", " api "], None);
    signal(api, Signal::SIGKILL);
    apply(s, &pod("c", "server", NODES[1]));
    works(s, "c");
    s.wait_process(&["calico", " api "], Some(api));
}

fn kill_the_supervisor(s: &Sandbox) {
    let supervisor = s.wait_process(SUPERVISOR, None);
    signal(supervisor, Signal::SIGKILL);
    s.kubectl("delete pod a --wait=false", "");
    apply(s, &pod("d", "server", NODES[0]));
    // Second of the same name: it says what to do.
    let said = s.ask("up");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("calico sandbox resume"), "{}", said.err);
    s.run("resume");
    works(s, "d");
    s.kubectl("wait --for=delete pod a --timeout=60s", "");
    let successor = s.wait_process(SUPERVISOR, Some(supervisor));
    s.run("resume");
    assert_eq!(s.process(SUPERVISOR), Some(successor), "nothing to resume");
}

fn kill_the_plugin(s: &Sandbox) {
    let agent = s.agent(NODES[1]);
    signal(agent, Signal::SIGSTOP);
    apply(s, &pod("e", "server", NODES[1]));
    signal(plugin_in_add(s), Signal::SIGKILL);
    signal(agent, Signal::SIGCONT);
    works(s, "e");
}

fn kill_the_supervisor_in_an_add(s: &Sandbox) {
    let agent = s.agent(NODES[0]);
    signal(agent, Signal::SIGSTOP);
    apply(s, &pod("f", "server", NODES[0]));
    plugin_in_add(s);
    signal(s.wait_process(SUPERVISOR, None), Signal::SIGKILL);
    signal(agent, Signal::SIGCONT);
    s.run("resume");
    works(s, "f");
}

fn kill_all(s: &Sandbox) {
    let mut all =
        vec![s.wait_process(SUPERVISOR, None), s.wait_process(&["calico", " api "], None)];
    all.extend(NODES.map(|n| s.agent(n)));
    for pid in all {
        signal(pid, Signal::SIGKILL);
    }
    s.run("resume");
    apply(s, &pod("g", "server", NODES[0]));
    works(s, "g");
}

fn kill_a_responder(s: &Sandbox) {
    let ip = s.exec("g", &["ip", "-o", "-4", "addr", "show", "eth0"]).out;
    let own = s.exec("g", &["sh", "-c", "ip netns pids $(ip netns identify)"]).out;
    let responder = own.split_whitespace().map(|p| p.parse().unwrap());
    let is_responder = |p: &i32| common::command_line(*p).contains("sandbox responder");
    signal(responder.into_iter().find(is_responder).unwrap(), Signal::SIGKILL);
    s.expect_probe("--to g", &[("default/client", "default/g", true)], "it is started again");
    assert_eq!(s.exec("g", &["ip", "-o", "-4", "addr", "show", "eth0"]).out, ip);
}
