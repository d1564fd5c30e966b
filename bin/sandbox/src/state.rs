//! What is known about a sandbox between commands: a folder of files.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How pods' packets travel between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encap {
    Vxlan,
    None,
}

/// What was asked of `up`, and what was chosen then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) nodes: u8,
    pub(crate) dual_stack: bool,
    pub(crate) encap: Encap,
    /// Port of the API on loopback.
    pub(crate) api_port: u16,
}

/// A process that we started: its number may be somebody else's by now, its start time tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pid {
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub(crate) started: u64,
}

/// A pod that runs here, as long as its namespace may exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) container: String,
    pub(crate) netns: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) responder: Option<Pid>,
}

/// One sandbox's folder.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) name: String,
    dir: PathBuf,
}

impl State {
    pub(crate) fn new(parent: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), dir: parent.join(name) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// For processes in the nodes' namespaces.
    pub(crate) fn node_kubeconfig(&self) -> PathBuf {
        self.dir.join("node.kubeconfig")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn log(&self, of: &str) -> PathBuf {
        self.logs().join(format!("{of}.log"))
    }

    /// Where the logs of a start that failed stay: beside the folder, which is removed.
    pub(crate) fn failed_logs(&self) -> PathBuf {
        self.dir.with_extension("failed")
    }

    /// What a command holds that makes or unmakes the sandbox: beside the folder as well.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.with_extension("lock")
    }

    /// Folder that a node's agent has as its run folder.
    pub(crate) fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    pub(crate) fn netns(&self, of: &str) -> String {
        format!("{}-{of}", self.name)
    }

    pub(crate) fn save(&self, spec: &Spec) -> Result<()> {
        self.write("spec.json", spec)
    }

    /// What is up under this name.
    pub(crate) fn load(&self) -> Result<Spec> {
        let spec = self.read("spec.json")?;
        spec.with_context(|| {
            format!("no sandbox {:?} is up: start one with `calico sandbox up`", self.name)
        })
    }

    pub(crate) fn save_pid(&self, of: &str, pid: Pid) -> Result<()> {
        self.write(&format!("pids/{of}.json"), &pid)
    }

    pub(crate) fn pid(&self, of: &str) -> Result<Option<Pid>> {
        self.read(&format!("pids/{of}.json"))
    }

    pub(crate) fn pids(&self) -> Result<Vec<(String, Pid)>> {
        self.all("pids")
    }

    pub(crate) fn save_pod(&self, pod: &PodRecord) -> Result<()> {
        self.write(&format!("pods/{}.json", pod.uid), pod)
    }

    pub(crate) fn pod(&self, uid: &str) -> Result<Option<PodRecord>> {
        self.read(&format!("pods/{uid}.json"))
    }

    pub(crate) fn forget_pod(&self, uid: &str) -> Result<()> {
        match fs::remove_file(self.dir.join(format!("pods/{uid}.json"))) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn pods(&self) -> Result<Vec<PodRecord>> {
        Ok(self.all("pods")?.into_iter().map(|(_, pod)| pod).collect())
    }

    /// A file is there whole or not at all.
    fn write(&self, file: &str, value: &impl Serialize) -> Result<()> {
        let path = self.dir.join(file);
        let parent = path.parent().context("a file stands in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let draft = path.with_extension("new");
        fs::write(&draft, serde_json::to_vec(value)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        let path = self.dir.join(file);
        match fs::read(&path) {
            Ok(bytes) => {
                let parsed = serde_json::from_slice(&bytes);
                Ok(Some(parsed.with_context(|| format!("{} is damaged", path.display()))?))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn all<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<(String, T)>> {
        let entries = match fs::read_dir(self.dir.join(folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => bail!("cannot list {folder}: {e}"),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let (Some(stem), Some("json")) = (
                path.file_stem().and_then(|s| s.to_str()),
                path.extension().and_then(|e| e.to_str()),
            ) else {
                continue;
            };
            if let Some(value) = self.read(&format!("{folder}/{stem}.json"))? {
                found.push((stem.to_owned(), value));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

impl Spec {
    pub(crate) fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| format!("k8s-node-{n}")).collect()
    }

    /// Addresses of the node with this index, from 0: the first node is 10.0.0.10.
    pub(crate) fn node_addresses(&self, index: u8) -> Vec<IpAddr> {
        let v4 = Ipv4Addr::new(10, 0, 0, 10 + index).into();
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(index)).into();
        if self.dual_stack { vec![v4, v6] } else { vec![v4] }
    }
}

/// Where the API listens for nodes.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Port of the API for nodes; one of the ports that host policy never closes.
pub(crate) const API_PORT: u16 = 6443;
/// The host from which administrators log in.
pub(crate) const BASTION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// A host that has nothing to do with the cluster.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
