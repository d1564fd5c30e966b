//! calicoctl beyond single objects: long lists, templates, versions, settings, nodes, diagnostics; against the embedded
//! API, etcd, and a Kubernetes API server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod embedded;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use embedded::{Cluster, Said, calico, run};
use serde_json::{Value, json};
use testkit::{ControlPlane, Controllers, Etcd};

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn policy(name: &str, order: usize) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{order: {order}, selector: all()}}\n"
    )
}

fn policies(count: usize) -> String {
    (0..count).map(|at| policy(&format!("p-{at:04}"), at) + "---\n").collect()
}

/// calicoctl with nothing but these variables.
fn ctl(home: &Path, variables: &[(&str, &str)], args: &[&str]) -> Said {
    let mut command = calico(home);
    command.arg("ctl").args(args).envs(variables.iter().copied());
    run(command, "")
}

#[test]
fn lists_of_many_pages() {
    Cluster::each().iter().for_each(pages_on);
}

fn pages_on(cluster: &Cluster) {
    const COUNT: usize = 1203;
    let empty = cluster.ctl("get gnp -A -o yaml").good();
    let none = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicyList\nmetadata: {}\nitems: []\n";
    assert_eq!(empty, none);
    let empty: Value = serde_json::from_str(&cluster.ctl("get gnp -A -o json").good()).unwrap();
    assert_eq!(empty["items"], json!([]));

    let all = policies(COUNT);
    let out = cluster.feed("apply -f -", &all).good();
    assert_eq!(lines(&out).len(), COUNT + 1);
    assert!(out.ends_with("Successfully applied 1203 'GlobalNetworkPolicy' resource(s)\n"));
    let again = cluster.feed("apply -f -", &all.replacen("order: 7,", "order: 7.5,", 1)).good();
    let done = |what: &str| lines(&again).iter().filter(|l| l.ends_with(what)).count();
    assert_eq!((done(" unchanged"), done(" configured")), (COUNT - 1, 1));

    let table = cluster.ctl("get gnp -o wide").good();
    assert_eq!(lines(&table).len(), COUNT + 1);
    let starts: Vec<_> = lines(&table).iter().filter_map(|l| l.find("default")).collect();
    assert!(starts.iter().all(|at| *at == starts[0]), "one table, not one a page");
    assert_eq!(lines(&cluster.ctl("get gnp -o name").good()).len(), COUNT);
    let shown: Value = serde_json::from_str(&cluster.ctl("get gnp -o json").good()).unwrap();
    let items = shown["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
    assert!(names.len() == COUNT && names.is_sorted(), "each once, in order");
    assert!(
        items
            .iter()
            .all(|o| o["kind"] == "GlobalNetworkPolicy" && o["metadata"]["uid"].is_string())
    );
    // What is shown as YAML is the same, and can be given back.
    let yaml = cluster.ctl("get gnp -o yaml").good();
    assert_eq!(yaml.matches("\n- apiVersion: projectcalico.org/v3\n").count(), COUNT);
    let back = cluster.feed("replace -f -", &yaml).good();
    assert_eq!(lines(&back).iter().filter(|l| l.ends_with(" unchanged")).count(), COUNT);
    let one = cluster.ctl("get gnp p-0700 -o json").good();
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap(), items[700]);
    // Several kinds are one document.
    let both: Value = serde_json::from_str(&cluster.ctl("get gnp,tiers -o json").good()).unwrap();
    assert_eq!(both["kind"], "List");
    assert!(both["items"].as_array().unwrap().len() >= COUNT);

    // Of many, those that cannot be written do not keep the others, and each is named.
    cluster
        .feed("create -f -", &policies(COUNT + 2))
        .bad(1, &["document 1203", "exists already", "created 2 out of 1205"]);
    let out = cluster.feed("delete -f -", &policies(COUNT + 2)).good();
    assert!(out.ends_with("Successfully deleted 1205 'GlobalNetworkPolicy' resource(s)\n"));
}

#[test]
fn templates() {
    Cluster::each().iter().for_each(templates_on);
}

fn templates_on(cluster: &Cluster) {
    cluster.feed("apply -f -", &policies(3)).good();
    let get = |template: &str| {
        let mut command = calico(cluster.home.path());
        command.args(["ctl", "get", "gnp", "-o", template]);
        match &cluster.datastore {
            embedded::Datastore::Embedded(server) => {
                command.env("KUBECONFIG", &server.kubeconfig_file)
            }
            embedded::Datastore::Etcd(etcd) => command.env("ETCD_ENDPOINTS", etcd.url()),
        };
        run(command, "")
    };
    let out =
        get(r#"go-template={{range .items}}{{.metadata.name}}:{{.spec.order}}{{"\n"}}{{end}}"#);
    assert_eq!(out.good(), "p-0000:0\np-0001:1\np-0002:2\n");
    let out = get("go-template={{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{end}}{{end}}");
    assert_eq!(out.good(), "p-0000 p-0001 p-0002 ");
    cluster.file("t", "{{len .items}} of {{.kind}}\n");
    assert_eq!(get("go-template-file=t").good(), "3 of GlobalNetworkPolicyList\n");
    let one = cluster.ctl("get gnp p-0002 -o go-template={{.metadata.name}}").good();
    assert_eq!(one, "p-0002");
    get("go-template={{range .items}}").bad(2, &["the template: line 1", "{{end}}"]);
    get("go-template={{nosuch}}").bad(2, &["no function \"nosuch\""]);
    get("go-template-file=none").bad(1, &["cannot read none"]);
    let failed = get("go-template=a{{index .items 9}}");
    assert_eq!((failed.code, failed.out.as_str()), (Some(1), "a"));
    assert!(failed.err.contains("9 is out of range"), "{}", failed.err);
}

#[test]
fn clusters_of_other_versions() {
    Cluster::each().iter().for_each(versions_on);
}

fn information(version: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {{name: default}}\nspec: {{calicoVersion: {version}}}\n"
    )
}

fn versions_on(cluster: &Cluster) {
    for known in ["v3.29.1", "v3.33.0", "master"] {
        cluster.feed("apply -f - --allow-version-mismatch", &information(known)).good();
        cluster.feed("apply -f -", &policy("a", 1)).good();
    }
    cluster.feed("apply -f -", &information("v3.99.0")).good();
    let why = ["version mismatch", "v3.99.0", "--allow-version-mismatch"];
    for verb in ["apply", "create", "replace", "delete"] {
        cluster.feed(&format!("{verb} -f -"), &policy("b", 1)).bad(1, &why);
    }
    cluster.ctl("label gnp a x=y").bad(1, &why);
    cluster.ctl(r#"patch gnp a -p {"spec":{"order":5}}"#).bad(1, &why);
    cluster.ctl("datastore migrate lock").bad(1, &why);
    // Who only looks may look.
    assert_eq!(lines(&cluster.ctl("get gnp -o name").good()).len(), 1);
    let said = cluster.ctl("version");
    assert!(said.err.contains("newer than what this tool knows"), "{}", said.err);
    assert!(said.good().contains("Cluster Version:   v3.99.0"));
    cluster.feed("apply -f - --allow-version-mismatch", &policy("b", 1)).good();
    cluster.ctl("delete gnp a b --allow-version-mismatch").good();
}

#[test]
fn a_version_is_watched() {
    let cluster = Cluster::start();
    cluster.feed("apply -f -", &information("v3.30.0")).good();
    let embedded::Datastore::Embedded(server) = &cluster.datastore else { unreachable!() };
    let mut command = calico(cluster.home.path());
    command.args(["ctl", "version", "--poll", "20ms"]).env("KUBECONFIG", &server.kubeconfig_file);
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut until = |part: &str| {
        let found = out.find(|line| line.contains(part));
        assert!(found.is_some(), "the output ended before {part:?}");
    };
    until("Cluster Version:   v3.30.0");
    cluster.feed("apply -f -", &information("v3.31.0")).good();
    until("Cluster Version:   v3.31.0");
    child.kill().unwrap();
    child.wait().unwrap();
    cluster.ctl("version --poll 5").bad(2, &["is no time span"]);
}

#[test]
fn where_a_server_is_by_variables() {
    let cluster = Cluster::start();
    cluster.feed("apply -f -", &policy("a", 1)).good();
    let embedded::Datastore::Embedded(server) = &cluster.datastore else { unreachable!() };
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&server.kubeconfig).unwrap();
    let given = kubeconfig.clusters[0].cluster.clone().unwrap();
    let user = serde_json::to_value(kubeconfig.auth_infos[0].auth_info.as_ref().unwrap()).unwrap();
    let (endpoint, token) = (given.server.unwrap(), user["token"].as_str().unwrap().to_owned());
    let ca = cluster.home.path().join("ca.pem");
    // The kubeconfig has it in base64.
    let decode =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut decode = decode.unwrap();
    let authority = given.certificate_authority_data.unwrap();
    decode.stdin.take().unwrap().write_all(authority.as_bytes()).unwrap();
    fs::write(&ca, decode.wait_with_output().unwrap().stdout).unwrap();
    let ca = ca.display().to_string();
    let home = cluster.home.path();
    let get = |variables: &[(&str, &str)]| ctl(home, variables, &["get", "gnp", "-o", "name"]);
    let one = "globalnetworkpolicy.projectcalico.org/a\n";
    let at = ("K8S_API_ENDPOINT", endpoint.as_str());
    for name in ["K8S_TOKEN", "K8S_API_TOKEN", "CALICO_K8S_API_TOKEN"] {
        assert_eq!(get(&[at, (name, &token), ("K8S_CA_FILE", &ca)]).good(), one, "{name}");
    }
    let insecure = ("K8S_INSECURE_SKIP_TLS_VERIFY", "true");
    assert_eq!(get(&[at, ("K8S_TOKEN", &token), insecure]).good(), one);
    get(&[at, ("K8S_TOKEN", &token)]).bad(1, &["cannot reach the cluster"]);
    get(&[at, ("K8S_TOKEN", "wrong"), insecure]).bad(1, &["401"]);
    get(&[at, ("K8S_INSECURE_SKIP_TLS_VERIFY", "perhaps")]).bad(1, &["want true or false"]);
    // Over a kubeconfig, and from the configuration file.
    let file = server.kubeconfig_file.display().to_string();
    get(&[("KUBECONFIG", &file), ("K8S_API_ENDPOINT", "https://127.0.0.1:1")])
        .bad(1, &["cannot reach the cluster"]);
    let several = format!("/nowhere:{file}");
    assert_eq!(get(&[("KUBECONFIG", &several)]).good(), one);
    get(&[("KUBECONFIG", "/nowhere")]).bad(1, &["/nowhere"]);
    let inline = json!({"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "spec": {
        "datastoreType": "kubernetes", "kubeconfigInline": server.kubeconfig}});
    fs::write(home.join("cfg"), inline.to_string()).unwrap();
    let with = |file: &str| ctl(home, &[], &["get", "gnp", "-o", "name", "-c", file]);
    assert_eq!(with("cfg").good(), one);
    with("no-such-file").bad(1, &["no-such-file"]);
    get(&[("KUBECONFIG", &file), ("K8S_CURRENT_CONTEXT", "nosuch")]).bad(1, &["kubeconfig"]);
}

#[test]
fn etcd_with_certificates_in_the_configuration_file() {
    let etcd = Etcd::start_with_tls();
    let home = tempfile::tempdir().unwrap();
    let text = |name: &str| fs::read_to_string(etcd.file(name)).unwrap();
    let config = |key: &str| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "spec": {
            "datastoreType": "etcdv3", "etcdEndpoints": etcd.url(), "etcdCACert": text("ca.crt"),
            "etcdCert": text("client.crt"), "etcdKey": key}})
    };
    fs::write(home.path().join("cfg"), config(&text("client.key")).to_string()).unwrap();
    fs::write(home.path().join("bad"), config("hunter2").to_string()).unwrap();
    fs::write(home.path().join("type"), r#"{"spec": {"etcdPassword": ["hunter2"]}}"#).unwrap();
    let get = |file: &str| ctl(home.path(), &[], &["get", "gnp", "-o", "name", "-c", file]);
    assert_eq!(get("cfg").good(), "");
    for file in ["bad", "type"] {
        let said = get(file);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(!said.err.contains("hunter2"), "{}", said.err);
    }
    let said = ctl(
        home.path(),
        &[("DATASTORE_TYPE", "etcdv3"), ("ETCD_DISCOVERY_SRV", "x")],
        &["get", "gnp"],
    );
    said.bad(1, &["ETCD_DISCOVERY_SRV"]);
    // Names of policies need no migration here.
    let moved = ctl(home.path(), &[], &["datastore", "migrate-policy-names", "-c", "cfg"]).good();
    assert!(moved.starts_with("0 policies"), "{moved}");
}

#[test]
fn typing_errors_and_help() {
    let home = tempfile::tempdir().unwrap();
    let say = |args: &[&str]| ctl(home.path(), &[], args);
    say(&["get", "ipool"]).bad(1, &["\"ipool\" is no kind (did you mean ippool?)"]);
    say(&["get", "pods"]).bad(1, &["want one of", "ippools"]);
    say(&["aply", "-f", "x"]).bad(2, &["apply"]);
    say(&["get", "gnp", "--namspace", "x"]).bad(2, &["--namespace"]);
    say(&["node", "diag"]).bad(2, &["diags"]);
    let help = say(&["get", "--help"]).good();
    assert!(help.contains("Examples:\n  calicoctl get policies -A"), "{help}");
    assert!(!help.contains('\u{1b}'), "no colours where there is no terminal");
    // As a plugin of kubectl it answers by that name.
    let plugin = home.path().join("kubectl-calico");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_calico"), &plugin).unwrap();
    let out = Command::new(&plugin).args(["get", "--help"]).output().unwrap();
    let help = String::from_utf8(out.stdout).unwrap();
    assert!(
        help.contains("Usage: kubectl calico get")
            && help.contains("  kubectl calico get policies -A"),
        "{help}"
    );
}

#[test]
fn labels_several_at_a_time() {
    let cluster = Cluster::start();
    let set = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: a}\n";
    cluster.feed("apply -f -", set).good();
    let out = cluster.ctl("label gns a x=1 y=2").good();
    assert_eq!(lines(&out).len(), 2);
    // All of them or none.
    cluster.ctl("label gns a z=3 x=9").bad(1, &["has label x=1 already"]);
    let labels = || {
        let shown = cluster.ctl("get gns a -o json").good();
        serde_json::from_str::<Value>(&shown).unwrap()["metadata"]["labels"].clone()
    };
    assert_eq!(labels(), json!({"x": "1", "y": "2"}));
    cluster.ctl("label gns a x=9 x=8 --overwrite").bad(2, &["given twice"]);
    cluster.ctl("label gns a x y --remove").good();
    assert!(labels().as_object().is_none_or(serde_json::Map::is_empty));
}

#[test]
fn this_kernel_will_do() {
    let home = tempfile::tempdir().unwrap();
    let out = ctl(home.path(), &[], &["node", "checksystem"]).good();
    assert!(out.contains("NF_TABLES ") && out.contains("new enough"), "{out}");
    let rows = ctl(home.path(), &[], &["node", "checksystem", "-o", "json"]).good();
    for row in lines(&rows) {
        let row: Value = serde_json::from_str(row).unwrap();
        let well = row["found"] == "built-in" || row["found"] == "module";
        assert!(well || row["required"] == false, "{row}");
    }
    fs::write(home.path().join("config"), "CONFIG_NF_TABLES=y\n# CONFIG_VETH is not set\n")
        .unwrap();
    let said = ctl(home.path(), &[], &["node", "checksystem", "-f", "config"]);
    assert!(
        said.out.lines().any(|l| l.starts_with("VETH") && l.ends_with("missing")),
        "{}",
        said.out
    );
    said.bad(1, &["does not have what every node needs"]);
    ctl(home.path(), &[], &["node", "checksystem", "-f", "none"]).bad(1, &["cannot read none"]);
}

/// A program that is put where `PATH` leads.
fn program(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_container_is_started_as_upstream_does() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("kubeconfig"), "").unwrap();
    program(home.path(), "engine", r#"echo "$@" >> args; echo "$ETCD_PASSWORD" >> args"#);
    let run = |variables: &[(&str, &str)], args: &str| {
        let words: Vec<&str> = ["node", "run"].into_iter().chain(args.split_whitespace()).collect();
        ctl(home.path(), variables, &words)
    };
    let kubernetes = [("KUBECONFIG", "kubeconfig")];
    let shown = run(
        &kubernetes,
        "--dryrun --engine docker --name n1 --ip 10.0.0.1 --as 1.10 --no-default-ippools",
    )
    .good();
    let absolute = home.path().join("kubeconfig").canonicalize().unwrap();
    let mount = format!("-v {}:/etc/calico/kubeconfig", absolute.display());
    for part in [
        "docker run --net=host --privileged --name=calico-node -d --restart=always",
        "-e NODENAME=n1",
        "-e IP=10.0.0.1",
        "-e AS=65546",
        "-e NO_DEFAULT_POOLS=true",
        "-e CALICO_NETWORKING_BACKEND=bird",
        "-e DATASTORE_TYPE=kubernetes",
        &mount,
        "-v /var/log/calico:/var/log/calico",
        "-v /lib/modules:/lib/modules",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    let service = run(&kubernetes, "--dryrun --engine podman --init-system --ip autodetect --ip-autodetection-method interface=eth.* --backend none").good();
    for part in [
        "--name=calico-node --rm",
        "podman stop calico-node",
        "-e IP=autodetect",
        "'IP_AUTODETECTION_METHOD=interface=eth.*'",
    ] {
        assert!(service.contains(part), "{part:?} is missing in:\n{service}");
    }
    assert!(!service.contains("--restart"));
    let etcd = [
        ("ETCD_ENDPOINTS", "http://10.0.0.9:2379"),
        ("ETCD_USERNAME", "root"),
        ("ETCD_PASSWORD", "hunter2"),
    ];
    let said = run(&etcd, "--engine ./engine --name n2");
    assert!(!said.out.contains("hunter2"), "a password is not shown: {}", said.out);
    said.good();
    let args = fs::read_to_string(home.path().join("args")).unwrap();
    let args = lines(&args);
    assert_eq!(args[0], "rm -f calico-node");
    assert!(
        args[2].contains("-e ETCD_ENDPOINTS=http://10.0.0.9:2379 -e ETCD_USERNAME=root"),
        "{args:?}"
    );
    assert!(args[2].contains("-e ETCD_PASSWORD ") && args[3] == "hunter2", "{args:?}");
    for (bad, part) in [
        ("--ip fd00::1", "other IP version"),
        ("--ip6 x", "want an address"),
        ("--as 1.2.3", "--as"),
        ("--ip-autodetection-method last", "first-found"),
        ("--backend gobgp", "gobgp"),
    ] {
        run(&kubernetes, &format!("--dryrun {bad}")).bad(2, &[part]);
    }
    run(&[], "--dryrun").bad(1, &["needs a kubeconfig"]);
}

/// The files of an archive.
fn unpack(archive: &Path) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status();
    assert!(done.unwrap().success());
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(folder.path()).unwrap().display().to_string();
            let inside = inside.split_once('/').unwrap().1.to_owned();
            let mut text = String::new();
            fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
            files.insert(inside, text);
        }
    }
    files
}

fn archive_of(home: &Path, said: Said) -> BTreeMap<String, String> {
    let out = said.good();
    let path = home.join(out.trim().strip_prefix("Diagnostics written to ").unwrap());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else can read it");
    unpack(&path)
}

#[test]
fn a_node_is_diagnosed_with_parts_missing_and_without_secrets() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("logs/cni")).unwrap();
    fs::create_dir_all(at("bin")).unwrap();
    fs::create_dir_all(at("out")).unwrap();
    fs::write(at("logs/felix.log"), "policy is in force\ntoken=hunter2\n").unwrap();
    fs::write(at("logs/cni/cni.log"), "ADD\n").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", at("logs/link")).unwrap();
    program(&at("bin"), "nft", "echo \"table ip calico { }\"");
    program(&at("bin"), "ip", "echo 'no such command' >&2; exit 1");
    // An agent that answers each question once.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        for body in [
            json!({"node": "n1", "live": true}),
            json!({"parameters": [{"name": "PrometheusMetricsPort", "value": "1"}, {"name": "ApiToken", "value": "hunter2"}]}),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            let body = body.to_string();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .unwrap();
        }
    });
    let mut command = calico(home.path());
    command.args([
        "ctl",
        "node",
        "diags",
        "--log-dir",
        "logs",
        "--output-dir",
        "out",
        "--port",
        &port,
    ]);
    command.env("PATH", at("bin"));
    let files = archive_of(home.path(), run(command, ""));
    server.join().unwrap();
    let of = |path: &str| files.get(path).map_or("", String::as_str);
    assert!(of("agent/status.yaml").contains("node: n1"), "{files:?}");
    assert_eq!(of("logs/felix.log"), "policy is in force\ntoken=<removed>\n");
    assert_eq!((of("logs/cni/cni.log"), files.get("logs/link")), ("ADD\n", None));
    assert_eq!(of("nftables/ruleset.txt"), "table ip calico { }\n");
    assert!(of("kernel/settings.txt").contains("net.ipv4.ip_forward = "));
    assert!(of("kernel/proc/version").contains("Linux"));
    let missing = of("not-collected.txt");
    for part in [
        "ipset list: is not installed",
        "ip -d -s link: exit status: 1: no such command",
        "agent/metrics: ",
    ] {
        assert!(missing.contains(part), "{part:?} is missing in:\n{missing}");
    }
    assert!(files.values().all(|text| !text.contains("hunter2")));
}

/// calicoctl with a control plane.
fn on_plane(plane: &ControlPlane, home: &Path, args: &[&str], input: &str) -> Said {
    let mut command = calico(home);
    command.arg("ctl").args(args).env("KUBECONFIG", plane.kubeconfig());
    run(command, input)
}

#[test]
fn a_kubernetes_cluster() {
    let plane = ControlPlane::start(Controllers::Absent);
    plane.define("v3");
    let home = tempfile::tempdir().unwrap();
    let say = |args: &[&str], input: &str| on_plane(&plane, home.path(), args, input);
    // More than are shown to the server one by one.
    let out = say(&["apply", "-f", "-"], &policies(600)).good();
    assert!(out.ends_with("Successfully applied 600 'GlobalNetworkPolicy' resource(s)\n"), "{out}");
    let again = say(&["apply", "-f", "-"], &policies(600)).good();
    assert_eq!(lines(&again).iter().filter(|l| l.ends_with(" unchanged")).count(), 600);
    let names = say(&["get", "gnp", "-o", "name"], "").good();
    let listed =
        plane.kubectl(&["get", "globalnetworkpolicies.projectcalico.org", "-o", "name"]).unwrap();
    assert_eq!(names, listed);
    let yaml = say(&["get", "gnp", "p-0599", "-o", "yaml", "--export"], "").good();
    assert!(!yaml.contains("managedFields") && !yaml.contains("uid"), "{yaml}");

    diagnosed(&plane, home.path());
    renamed(&plane, home.path());
}

/// What a cluster's archive holds, and what not.
fn diagnosed(plane: &ControlPlane, home: &Path) {
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "calico-system"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "calico-system"}, "stringData": {"a": "hunter2"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "calico-system"},
            "data": {"config": "etcd_endpoints: here\npassword: hunter2\n"}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node", "namespace": "calico-system"},
            "spec": {"selector": {"matchLabels": {"k8s-app": "calico-node"}}, "template": {
                "metadata": {"labels": {"k8s-app": "calico-node"}}, "spec": {"containers": [{"name": "calico-node", "image": "x"}]}}}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "calico-node-a", "namespace": "calico-system", "labels": {"k8s-app": "calico-node"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "calico-node", "image": "x",
                "env": [{"name": "ETCD_PASSWORD", "value": "hunter2"}, {"name": "IP", "value": "autodetect"}]}]}},
    ]});
    plane.kubectl_with(&["apply", "-f", "-"], &objects.to_string()).unwrap();
    let status = json!({"status": {"containerStatuses": [{"name": "calico-node", "image": "x", "imageID": "", "ready": false, "restartCount": 1}]}});
    let patch = [
        "patch",
        "pod",
        "calico-node-a",
        "-n",
        "calico-system",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ];
    plane.kubectl(&patch).unwrap();
    let said = on_plane(plane, home, &["cluster", "diags", "--since", "1h", "--max-logs", "1"], "");
    assert!(said.err.contains("could not be collected"), "{said:?}");
    let files = archive_of(home, said);
    let of = |path: &str| files.get(path).map_or("", String::as_str);
    assert_eq!(
        of("calico/globalnetworkpolicies.yaml").matches("\nkind: GlobalNetworkPolicy\n").count(),
        600
    );
    assert!(of("version.yaml").contains("gitVersion: v1."), "{}", of("version.yaml"));
    assert!(of("namespaces/calico-system/configmaps.yaml").contains("etcd_endpoints: here"));
    assert!(of("namespaces/calico-system/pods.yaml").contains("value: autodetect"));
    assert!(of("namespaces/calico-system/daemonsets.yaml").contains("calico-node"));
    // Nobody runs pods here: that there is no log is told, of this and of the one before.
    let missing = of("not-collected.txt");
    for log in ["calico-node.log", "calico-node.previous.log"] {
        let path = format!("logs/n1/calico-system/calico-node-a/{log}: ");
        assert!(missing.contains(&path), "{path:?} is missing in:\n{missing}");
    }
    assert!(files.keys().all(|name| !name.contains("secrets")));
    for (name, text) in &files {
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{name}: {text}");
    }
    let kept = on_plane(
        plane,
        home,
        &["cluster", "diags", "--skip-temp-dir-cleanup", "--output-dir", "/nowhere"],
        "",
    );
    kept.bad(1, &["/nowhere"]);
}

/// Policies that older releases kept under the name of their tier.
fn renamed(plane: &ControlPlane, home: &Path) {
    plane.define("v1");
    let old = |name: &str, tier: &str| {
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": name, "annotations": {"a": "b"}}, "spec": {"tier": tier, "order": 3}})
    };
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        old("default.one", "default"), old("net.two", "net"), old("three", "default")]});
    plane.kubectl_with(&["create", "-f", "-"], &objects.to_string()).unwrap();
    let migrate = || on_plane(plane, home, &["datastore", "migrate-policy-names"], "").good();
    assert!(migrate().starts_with("1 policy "));
    let shown = plane.kubectl(&["get", "globalnetworkpolicies.crd.projectcalico.org", "-o",
        "jsonpath={range .items[*]}{.metadata.name}={.spec.order}{.metadata.annotations.a} {end}"]).unwrap();
    assert_eq!(shown, "net.two=3b one=3b three=3b ");
    assert!(migrate().starts_with("0 policies "));
}
