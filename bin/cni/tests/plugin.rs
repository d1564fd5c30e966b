//! The binary, called as a runtime calls it, against an agent that says what it is told to say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use cni::protocol::{Added, Failure, Reply, Request, codes};
use serde_json::{Value, json};

/// Runs the plugin; exit code, standard output as JSON (null if empty).
fn call(env: &[(&str, &str)], config: &str) -> (i32, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_calico-cni"))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let document = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    (out.status.code().unwrap(), document)
}

/// Answers one call, and hands back what it was asked.
fn agent(socket: &Path, reply: Reply) -> thread::JoinHandle<Request> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        stream.write_all(&serde_json::to_vec(&reply).unwrap()).unwrap();
        serde_json::from_slice(&text).unwrap()
    })
}

fn env(command: &str) -> Vec<(&str, &str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=x"),
    ]
}

fn config(version: &str, socket: &Path) -> String {
    json!({"cniVersion": version, "name": "net", "type": "calico", "socket": socket}).to_string()
}

#[test]
fn add_prints_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cni.sock");
    let added = Added {
        host_ifname: "cali1".into(),
        host_mac: "ee:ee:ee:ee:ee:ee".into(),
        ifname: "eth0".into(),
        mac: "02:00:00:00:00:01".into(),
        mtu: 1450,
        netns: "/run/netns/x".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    let asked = agent(&socket, Reply::Added(added));
    let (code, result) = call(&env("ADD"), &config("0.3.1", &socket));
    let request = asked.join().unwrap();
    assert_eq!((code, &result["ips"][0]["address"]), (0, &json!("10.0.0.1/32")), "{result}");
    assert_eq!((&*request.command, request.arg("K8S_POD_NAME")), ("ADD", Some("x")));
}

#[test]
fn errors_of_the_agent_come_through() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cni.sock");
    agent(&socket, Reply::Failed(Failure::new(codes::TRY_AGAIN, "not in sync yet")));
    let (code, error) = call(&env("ADD"), &config("1.0.0", &socket));
    let want = json!({"cniVersion": "1.0.0", "code": 11, "msg": "not in sync yet"});
    assert_eq!((code, error), (1, want));
}

#[test]
fn without_an_agent_del_succeeds_and_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cni.sock");
    for (command, want_code, want_error) in
        [("ADD", 1, json!(11)), ("STATUS", 1, json!(50)), ("DEL", 0, Value::Null)]
    {
        let (code, document) = call(&env(command), &config("1.1.0", &socket));
        assert_eq!((code, &document["code"]), (want_code, &want_error), "{command}: {document}");
    }
    let left = cni::spool::waiting(&socket);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1.container_id, "c1");
    assert_eq!(left[0].1.arg("K8S_POD_NAMESPACE"), Some("a"));
}

#[test]
fn version_needs_no_agent() {
    for (stdin, version) in [("", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
        let (code, document) = call(&[("CNI_COMMAND", "VERSION")], stdin);
        assert_eq!((code, &document["cniVersion"]), (0, &json!(version)));
        assert_eq!(document["supportedVersions"].as_array().unwrap().len(), 5);
    }
}

#[test]
fn calls_that_make_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cni.sock");
    let without =
        |name: &str| env("ADD").into_iter().filter(|(k, _)| *k != name).collect::<Vec<_>>();
    let good = config("1.0.0", &socket);
    for (what, env, config, want) in [
        ("no command", without("CNI_COMMAND"), good.clone(), 4),
        ("no container", without("CNI_CONTAINERID"), good.clone(), 4),
        ("no namespace", without("CNI_NETNS"), good.clone(), 4),
        ("no interface", without("CNI_IFNAME"), good.clone(), 4),
        ("other command", env("PING"), good.clone(), 4),
        ("no JSON", env("ADD"), "{".into(), 6),
        ("version of tomorrow", env("ADD"), config("9.0.0", &socket), 1),
        ("GC before its time", env("GC"), good.clone(), 1),
        ("no name", env("ADD"), r#"{"cniVersion":"1.0.0"}"#.into(), 7),
    ] {
        let (code, error) = call(&env, &config);
        assert_eq!((code, &error["code"]), (1, &json!(want)), "{what}: {error}");
    }
}
