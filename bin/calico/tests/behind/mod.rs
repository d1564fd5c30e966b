//! A real Kubernetes API server in a network namespace of its own, and servers of ours that it finds there.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use testkit::{ControlPlane, Controllers, Extras, Netns};

use super::serving::{Serving, calico};

/// Loopback addresses may not be endpoints of a service.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) netns: Netns,
    pub(crate) folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start(extras: Extras) -> Self {
        let netns = Netns::new();
        netns.sh(&format!("ip address add {ADDRESS}/24 dev lo"));
        let plane = ControlPlane::start_with(&netns, ADDRESS, Controllers::Absent, extras);
        Self { plane, netns, folder: tempfile::tempdir().unwrap() }
    }

    /// What kubectl printed, or why it failed; as `user` unless that is empty.
    pub(crate) fn kubectl(
        &self,
        user: &str,
        words: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let acting = ["--as", user, "--as-group=system:authenticated"];
        let acting = if user.is_empty() { &[] } else { acting.as_slice() };
        self.plane.kubectl_with(&[acting, words].concat(), input)
    }

    pub(crate) fn done(&self, words: &[&str], input: &str) -> String {
        self.kubectl("", words, input).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    pub(crate) fn refused(&self, user: &str, words: &[&str], input: &str, parts: &[&str]) {
        let told = self.kubectl(user, words, input).expect_err("it is refused");
        for part in parts {
            assert!(told.contains(part), "{part:?} is missing in:\n{told}");
        }
    }

    /// Applies a manifest of ours, and says where the service in it leads: there are no pods.
    pub(crate) fn install(&self, manifest: &str, (namespace, service): (&str, &str), port: u16) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(manifest);
        self.done(&["apply", "--server-side", "-f", path.to_str().unwrap()], "");
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": service, "namespace": namespace,
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ADDRESS.to_string()], "conditions": {"ready": true}}]});
        self.done(&["apply", "-f", "-"], &slice.to_string());
    }

    /// A kubeconfig of a service account.
    pub(crate) fn account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.done(&["-n", namespace, "create", "token", name], "");
        let admin = fs::read_to_string(self.plane.kubeconfig()).unwrap();
        let theirs = admin.lines().map(|line| match line.split_once("token: ") {
            Some((before, _)) => format!("{before}token: {}\n", token.trim()),
            None => format!("{line}\n"),
        });
        let path = self.folder.path().join(format!("{namespace}-{name}"));
        fs::write(&path, theirs.collect::<String>()).unwrap();
        path
    }

    /// Runs a program of ours inside.
    pub(crate) fn serve(&self, words: &[&str], log: &str) -> Serving {
        let log = fs::File::create(self.folder.path().join(log)).unwrap();
        let mut command = calico();
        command.args(words).stdout(Stdio::null()).stderr(log);
        Serving::of(self.netns.spawn(&mut command))
    }

    pub(crate) fn log(&self, log: &str) -> String {
        fs::read_to_string(self.folder.path().join(log)).unwrap_or_default()
    }

    /// A kubectl that is not waited for.
    pub(crate) fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut kubectl = Command::new(testkit::kube_program("kubectl"));
        kubectl.args(words).env("KUBECONFIG", self.plane.kubeconfig());
        kubectl.env("HOME", self.folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        kubectl
    }

    /// Sends requests inside, by a client of this kubeconfig.
    pub(crate) fn send(&self, kubeconfig: &str, requests: &[Ask]) -> Vec<(u16, Value)> {
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
                let options = KubeConfigOptions::default();
                let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
                let mut config = config.unwrap();
                // A refusal is an answer.
                config.default_retry = false;
                let client = kube::Client::try_from(config).unwrap();
                let mut answers = Vec::new();
                for ask in requests {
                    answers.push(ask.send(&client).await);
                }
                answers
            })
        })
    }
}

/// One request: method and path, headers, body.
pub(crate) struct Ask<'a>(
    pub(crate) &'a str,
    pub(crate) &'a [(&'a str, &'a str)],
    pub(crate) Vec<u8>,
);

impl Ask<'_> {
    async fn send(&self, client: &kube::Client) -> (u16, Value) {
        let (method, path) = self.0.split_once(' ').unwrap();
        let mut request = hyper::Request::builder().method(method).uri(path);
        for (name, value) in self.1 {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(self.2.clone())).unwrap();
        let response = client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
    }
}

/// Again and again until it holds.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < until, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A kubeconfig without credentials, or with those that are given as lines below `user`.
pub(crate) fn kubeconfig(server: &str, authority: &str, credentials: &str) -> String {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n    certificate-authority-data: {authority}\n\
         users:\n- name: u\n  user: {credentials}\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n"
    )
}
