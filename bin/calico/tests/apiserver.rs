//! `calico apiserver` as a process, over a real etcd, with the real kubectl and with calicoctl.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serving;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serving::{Serving, calico, ctl};
use testkit::{Etcd, kube_program};

const SET: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: ours, labels: {a: b}}\nspec: {nets: [10.0.0.0/8]}\n";

/// An API server, its etcd, and a folder for what is in between.
struct Api {
    folder: tempfile::TempDir,
    etcd: Etcd,
    _server: Serving,
}

impl Api {
    fn start(more: &[&str]) -> Self {
        let (folder, etcd) = (tempfile::tempdir().unwrap(), Etcd::start());
        let server = serve(folder.path(), etcd.url(), more);
        let api = Self { folder, etcd, _server: server };
        ctl(&api.kubeconfig(), &["get", "tiers"]);
        api
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut kubectl = Command::new(kube_program("kubectl"));
        kubectl.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.folder.path());
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        kubectl
    }

    /// What kubectl printed, or why it failed.
    fn kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut child = self.command(args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// What calicoctl prints that asks the etcd itself.
    fn beside(&self, args: &[&str]) -> String {
        let mut command = calico();
        command.arg("ctl").args(args);
        command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", self.etcd.url());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn serve(folder: &Path, etcd: &str, more: &[&str]) -> Serving {
    let mut command = calico();
    command.args(["apiserver", "--listen", "127.0.0.1:0", "--etcd-endpoints", etcd]);
    command.arg("--data-dir").arg(folder).args(more);
    Serving::start(command)
}

#[test]
fn kubectl_and_calicoctl_see_one_etcd() {
    let api = Api::start(&[]);
    let resources = api.kubectl(&["api-resources", "--no-headers", "-o", "name"], "").unwrap();
    assert!(resources.contains("globalnetworkpolicies.projectcalico.org"), "{resources}");
    assert!(!resources.contains("pods"), "{resources}");
    let told = api.kubectl(&["apply", "-f", "-"], SET).unwrap();
    assert!(told.contains("globalnetworkset.projectcalico.org/ours created"), "{told}");
    assert!(api.beside(&["get", "globalnetworksets", "ours", "-o", "yaml"]).contains("10.0.0.0/8"));
    let told = api.kubectl(&["apply", "-f", "-"], SET).unwrap();
    assert!(told.contains("unchanged"), "{told}");

    // What others write shows at once, in tables and to watchers.
    let mut watching = api
        .command(&["get", "globalnetworksets.projectcalico.org", "-w", "-o", "name"])
        .spawn()
        .unwrap();
    let mut seen = BufReader::new(watching.stdout.take().unwrap()).lines();
    let first = seen.next().unwrap().unwrap();
    let theirs = api.folder.path().join("theirs.yaml");
    fs::write(&theirs, SET.replace("ours", "theirs")).unwrap();
    api.beside(&["apply", "-f", theirs.to_str().unwrap()]);
    let second = seen.next().unwrap().unwrap();
    watching.kill().unwrap();
    watching.wait().unwrap();
    let named = |line: &str, name: &str| {
        line.contains(&format!("globalnetworkset.projectcalico.org/{name}"))
    };
    assert!(named(&first, "ours") && named(&second, "theirs"), "{first}\n{second}");
    let table =
        api.kubectl(&["get", "globalnetworksets.projectcalico.org", "-l", "a=b"], "").unwrap();
    assert!(table.contains("ours") && table.contains("theirs"), "{table}");

    // Server-side apply, patches, schemas, deletion.
    let own = SET.replace("10.0.0.0/8", "10.1.0.0/16");
    api.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &own).unwrap();
    let patch = r#"{"metadata":{"labels":{"c":"d"}}}"#;
    let merge =
        ["patch", "globalnetworksets.projectcalico.org", "ours", "--type=merge", "-p", patch];
    api.kubectl(&merge, "").unwrap();
    let now = api.beside(&["get", "globalnetworksets", "ours", "-o", "yaml"]);
    assert!(now.contains("10.1.0.0/16") && now.contains("c: d"), "{now}");
    let told =
        api.kubectl(&["explain", "globalnetworksets.projectcalico.org.spec.nets"], "").unwrap();
    assert!(told.contains("FIELD: nets"), "{told}");
    api.kubectl(&["delete", "globalnetworksets.projectcalico.org", "theirs"], "").unwrap();
    let left = api.beside(&["get", "globalnetworksets", "-o", "name"]);
    assert!(left.contains("ours") && !left.contains("theirs"), "{left}");
}

#[test]
fn the_rules_are_those_of_every_datastore() {
    let api = Api::start(&[]);
    let wrong = SET.replace("10.0.0.0/8", "10.0.0.0/99");
    let told = api.kubectl(&["create", "-f", "-"], &wrong).expect_err("no prefix has 99 bits");
    assert!(told.contains("spec.nets[0]"), "{told}");
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\nspec: {order: 1000000, defaultAction: Deny}\n";
    api.kubectl(&["apply", "-f", "-"], tier).unwrap();
    let told = api.kubectl(&["delete", "tiers.projectcalico.org", "default"], "");
    let told = told.expect_err("that one stays");
    assert!(told.contains("Forbidden"), "{told}");
    let mine = tier.replace("name: default", "name: mine");
    let policy = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: mine.a, namespace: default}\nspec: {tier: mine}\n";
    api.kubectl(&["apply", "-f", "-"], &format!("{mine}---\n{policy}")).unwrap();
    let told = api.kubectl(&["delete", "tiers.projectcalico.org", "mine"], "");
    let told = told.expect_err("it is not empty");
    assert!(told.contains("networkpolicies default/mine.a"), "{told}");
    let delete = |what: &[&str]| api.kubectl(&[&["delete"], what].concat(), "").unwrap();
    delete(&["networkpolicies.projectcalico.org", "mine.a"]);
    delete(&["tiers.projectcalico.org", "mine"]);
    let pods = api.kubectl(&["get", "pods"], "").expect_err("it has none");
    assert!(pods.contains("doesn't have a resource type \"pods\""), "{pods}");
}

#[test]
fn others_than_masters_are_refused_and_it_says_why_it_does_not_start() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "word-of-eve-and-nobody-else,eve,1,\"guests\"\n").unwrap();
    let api = Api::start(&["--token-auth-file", tokens.path().to_str().unwrap()]);
    let admin = api.kubeconfig();
    for (token, part) in
        [("word-of-eve-and-nobody-else", "\"eve\" cannot list"), ("wrong", "Unauthorized")]
    {
        let text = fs::read_to_string(&admin).unwrap();
        let theirs = text.lines().map(|line| match line.split_once("token: ") {
            Some((before, _)) => format!("{before}token: {token}\n"),
            None => format!("{line}\n"),
        });
        let path = api.folder.path().join("theirs");
        fs::write(&path, theirs.collect::<String>()).unwrap();
        let mut command = calico();
        command.arg("ctl").arg("--kubeconfig").arg(&path).args(["get", "tiers"]);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains(part), "{token}: {told}");
    }

    let folder = tempfile::tempdir().unwrap();
    let refused = |etcd: &str, more: &[&str], parts: &[&str]| {
        serve(folder.path(), etcd, more).refused(parts);
    };
    let missing = ["--etcd-ca-cert-file", "/no/such/file"];
    refused("https://127.0.0.1:1", &missing, &["/no/such/file"]);
    refused("ftp://x", &[], &["ftp://x"]);
    let mut usage = calico();
    usage.env("KUBECONFIG", "/nothing/here");
    usage.args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir", "x"]);
    let output = usage.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("--etcd-endpoints"), "{told}");
    let server = serve(folder.path(), api.etcd.url(), &[]);
    ctl(&folder.path().join("kubeconfig"), &["get", "tiers"]);
    assert_eq!(server.end(Signal::SIGTERM).status.code(), Some(0));
}
