//! A pod's namespace, its interface (by the CNI plugin, called as a container runtime calls it), and
//! its responder.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::responder::{PortSpec, Transport};
use crate::state::{PodRecord, State};
use crate::{netns, process};

/// What this program is called with to be a responder.
const RESPONDER: [&str; 2] = ["sandbox", "responder"];

/// How the plugin of one node is called.
pub(crate) struct Cni {
    plugin: PathBuf,
    config: Value,
    /// The node's namespace: runtimes run plugins where they run themselves.
    node_netns: String,
}

/// What the plugin is asked about.
struct Attachment<'a> {
    container: &'a str,
    netns: &'a str,
    args: String,
}

impl Cni {
    /// The plugin as the runtime of this node calls it.
    pub(crate) fn of(state: &State, node: &str) -> Result<Self> {
        let socket = state.node_dir(node).join("run/cni.sock");
        Ok(Self::new(process::plugin()?, &socket, state.netns(node)))
    }

    fn new(plugin: PathBuf, socket: &Path, node_netns: String) -> Self {
        let config = json!({
            "cniVersion": "1.1.0", "name": "k8s-pod-network", "type": "calico",
            "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"},
            "socket": socket.display().to_string(),
        });
        Self { plugin, config, node_netns }
    }

    /// Would an ADD work?
    pub(crate) fn status(&self) -> Result<()> {
        self.call("STATUS", None).map(|_| ())
    }

    /// Gives the pod its interface; the addresses that it has now.
    fn add(&self, pod: &PodRecord) -> Result<Vec<IpAddr>> {
        let result = self.call("ADD", Some(&attachment(pod)))?;
        let ips = result["ips"].as_array().context("the plugin's result has no ips")?;
        let address = |ip: &Value| {
            let text = ip["address"].as_str().context("an address of the result is no text")?;
            Ok(text.parse::<ipnet::IpNet>().context("not ADDRESS/LENGTH")?.addr())
        };
        ips.iter().map(address).collect()
    }

    fn del(&self, pod: &PodRecord) -> Result<()> {
        self.call("DEL", Some(&attachment(pod))).map(|_| ())
    }

    fn call(&self, command: &str, of: Option<&Attachment<'_>>) -> Result<Value> {
        let bin = self.plugin.parent().map(Path::as_os_str).unwrap_or_default();
        let mut child = Command::new("ip");
        child
            .args(["netns", "exec", &self.node_netns])
            .arg(&self.plugin)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", bin);
        if let Some(of) = of {
            child
                .env("CNI_CONTAINERID", of.container)
                .env("CNI_NETNS", netns::path(of.netns))
                .env("CNI_IFNAME", "eth0")
                .env("CNI_ARGS", &of.args);
        }
        let mut child = child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.plugin.display()))?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all(self.config.to_string().as_bytes())?;
        drop(stdin);
        let out = child.wait_with_output()?;
        if out.status.success() {
            // DEL and STATUS print nothing.
            return Ok(serde_json::from_slice(&out.stdout).unwrap_or(Value::Null));
        }
        let error: Value = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        bail!(
            "CNI {command}: {}: {} {} {}",
            out.status,
            text("msg"),
            text("details"),
            String::from_utf8_lossy(&out.stderr).trim()
        )
    }
}

fn attachment(pod: &PodRecord) -> Attachment<'_> {
    Attachment {
        container: &pod.container,
        netns: &pod.netns,
        args: format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.container, pod.uid
        ),
    }
}

/// Starts what of a pod does not run: all of it, or what a crash has taken. A container that fails
/// is gone when this returns.
pub(crate) fn make(
    state: &State,
    cni: &Cni,
    node: &str,
    pod: &Pod,
    record: Option<PodRecord>,
) -> Result<PodRecord> {
    let mut record = match record {
        Some(known) if !known.ips.is_empty() && netns::exists(&known.netns) => known,
        other => {
            // As runtimes do: a container whose network was not finished, or was lost, is deleted
            // and another one takes its place.
            if let Some(unfinished) = other {
                remove(state, cni, &unfinished)?;
            }
            connect(state, cni, fresh(state, node, pod))?
        }
    };
    if !record.responder.is_some_and(process::alive) {
        // One that a crash kept from being recorded holds the ports.
        process::stop_inside(&record.netns, |words| {
            words.starts_with(&RESPONDER.map(String::from))
        });
        record.responder = Some(start_responder(state, &record, &ports(pod))?);
        state.save_pod(&record)?;
    }
    Ok(record)
}

/// Gives a new container its namespace and its interface.
fn connect(state: &State, cni: &Cni, mut record: PodRecord) -> Result<PodRecord> {
    // Recorded before it exists: whatever happens now, it can be found again.
    state.save_pod(&record)?;
    netns::add(&record.netns)?;
    netns::ip(&["-n", &record.netns, "link", "set", "lo", "up"])?;
    match cni.add(&record) {
        Ok(ips) => {
            record.ips = ips;
            state.save_pod(&record)?;
            Ok(record)
        }
        Err(error) => {
            remove(state, cni, &record).context("after a failed ADD")?;
            Err(error)
        }
    }
}

fn fresh(state: &State, node: &str, pod: &Pod) -> PodRecord {
    let container = uuid::Uuid::new_v4().simple().to_string();
    PodRecord {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        node: node.to_owned(),
        netns: state.netns(&format!("pod-{}", &container[..12])),
        container,
        ips: Vec::new(),
        responder: None,
    }
}

/// Ends a pod: DEL first, as runtimes do, then its processes and its namespace.
pub(crate) fn remove(state: &State, cni: &Cni, record: &PodRecord) -> Result<()> {
    cni.del(record)?;
    if let Some(pid) = record.responder {
        process::stop(pid, Duration::from_millis(50));
    }
    process::stop_inside(&record.netns, |_| true);
    netns::delete(&record.netns)?;
    state.forget_pod(&record.uid)
}

/// The container ports, once each.
fn ports(pod: &Pod) -> Vec<PortSpec> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let mut ports: Vec<PortSpec> = containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let protocol = match p.protocol.as_deref() {
                None | Some("TCP") => Transport::Tcp,
                Some("UDP") => Transport::Udp,
                Some("SCTP") => Transport::Sctp,
                Some(_) => return None,
            };
            Some(PortSpec { protocol, port: u16::try_from(p.container_port).ok()? })
        })
        .collect();
    ports.sort_by_key(ToString::to_string);
    ports.dedup();
    ports
}

fn start_responder(
    state: &State,
    record: &PodRecord,
    ports: &[PortSpec],
) -> Result<crate::state::Pid> {
    let name = format!("{}/{}", record.namespace, record.name);
    respond(state, &record.netns, &name, ports, &format!("pod-{}", record.uid))
}

/// Starts a responder in a namespace.
pub(crate) fn respond(
    state: &State,
    namespace: &str,
    name: &str,
    ports: &[PortSpec],
    log: &str,
) -> Result<crate::state::Pid> {
    let ports: Vec<OsString> = ports.iter().map(|p| p.to_string().into()).collect();
    let mut words: Vec<&OsStr> = RESPONDER.map(OsStr::new).into();
    words.extend(["--name-to-tell".as_ref(), OsStr::new(name)]);
    for port in &ports {
        words.extend([OsStr::new("--port"), port.as_os_str()]);
    }
    let child = process::start(Some(namespace), process::own(&words)?, &[], &state.log(log))?;
    let pid = i32::try_from(child.id())?;
    // Waited for by a thread of its own, so that it never stays as a zombie of ours.
    std::thread::spawn(move || {
        let mut child = child;
        drop(child.wait());
    });
    process::identify(pid).context("the responder has ended at once")
}
