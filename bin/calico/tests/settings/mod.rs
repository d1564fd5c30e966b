//! What is configured, and what an agent says of itself.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::embedded::Cluster;

#[test]
fn parameters_are_explained() {
    let calico = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_calico"));
        let output = command.args(["ctl", "config", "explain"]).args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    for name in ["VXLANPort", "vxlanport", "FELIX_VXLANPORT"] {
        let (code, out, _) = calico(&[name]);
        assert_eq!(code, 0);
        for part in ["a whole number from 1 to 65535", "4789", "FELIX_VXLANPORT", "spec.vxlanPort"]
        {
            assert!(out.contains(part), "{part:?} in {out}");
        }
    }
    let (code, out, _) = calico(&["interfacePrefix", "-o", "json"]);
    let facts: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &facts["default"], &facts["stopsIfBad"]), (0, &json!("cali"), &json!(true)));
    for (name, parts) in [
        ("vxlanPort", ["a change", "at once"]),
        ("interfacePrefix", ["a change", "the agent ends, to be started again"]),
        ("bpfMapSizeRoute", ["a change", "never: nothing reads it"]),
        ("nodename", ["lower case", "when the agent starts"]),
        ("TYPHA_SERVERPORT", ["Typha", "0 to 65535"]),
        ("AUTO_HOST_ENDPOINTS", ["spec.controllers.node.hostEndpoint.autoCreate", "Disabled"]),
        ("CALICO_ROUTER_ID", ["BGP", "hash"]),
    ] {
        let (code, out, _) = calico(&[name]);
        assert!(code == 0 && parts.iter().all(|part| out.contains(part)), "{name}: {out}");
    }
    let (code, out, _) = calico(&["DATASTORE_TYPE", "-o", "json"]);
    let all: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let programs: Vec<_> = all.iter().map(|row| row["component"].as_str().unwrap()).collect();
    assert_eq!((code, programs), (0, vec!["node", "controllers"]), "each that has it");
    let (code, out, _) = calico(&[]);
    assert!(code == 0 && out.lines().count() > 280, "{out}");
    let (code, out, err) = calico(&["VXLANPart"]);
    assert!(
        code == 1 && out.is_empty() && err.contains("there is") && err.contains("VXLANPort"),
        "{err}"
    );
}

/// Answers one request as the agent's health server does.
fn agent(document: &'static str, status: Value) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let read = stream.read(&mut head).unwrap();
        assert!(head[..read].starts_with(format!("GET /{document} HTTP/1.").as_bytes()));
        let body = status.to_string();
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    port
}

#[test]
fn node_status() {
    let cluster = Cluster::start();
    let mut status = json!({
        "node": "node-1", "version": "v1", "live": true, "ready": true, "inSync": true,
        "datastore": {"connected": true}, "components": [], "refused": [],
    });
    let good =
        cluster.ctl(&format!("node status --port {}", agent("status", status.clone()))).good();
    assert!(good.contains("| node-1 | v1      | yes  | yes   | yes     | connected |"), "{good}");
    status["ready"] = false.into();
    status["refused"] = json!([{"object": "GlobalNetworkPolicy p", "reasons": ["too large"]}]);
    let said = cluster.ctl(&format!("node status --port {}", agent("status", status)));
    said.bad(1, &["not programmed, denied instead: GlobalNetworkPolicy p: too large"]);
    cluster.ctl("node status --port 1").bad(1, &["no agent answers on 127.0.0.1:1"]);
}

#[test]
fn node_config() {
    let cluster = Cluster::start();
    let of = |name: &str, value: &str, source: &str| json!({"component": "agent", "name": name, "value": value, "source": source, "given": source != "built in"});
    let mut variable = of("NODENAME", "n1", "environment");
    variable["component"] = "node".into();
    let document = json!({
        "parameters": [of("VXLANPort", "4790", "environment"), of("VXLANVNI", "4096", "built in"), variable],
        "problems": [{"name": "NOSUCH", "source": "file", "message": "is no parameter"}],
    });
    let ask = |args: &str| {
        let port = agent("config", document.clone());
        cluster.ctl(&format!("node config {args} --port {port}"))
    };
    let all = ask("");
    assert!(all.err.contains("left out: NOSUCH (from: file): is no parameter"), "{}", all.err);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&all.good())[3..7], ["VXLANPort", "4790", "environment", "VXLANVNI"]);
    let given = ["VXLANPort", "4790", "environment", "NODENAME", "n1", "environment"];
    assert_eq!(words(&ask("--given").good())[3..], given);
    assert_eq!(words(&ask("nodename").good())[3..], ["NODENAME", "n1", "environment"]);
    assert_eq!(words(&ask("vxlanVNI").good())[3..], ["VXLANVNI", "4096", "built", "in"]);
    let one: Value = serde_json::from_str(&ask("FELIX_VXLANPORT -o json").good()).unwrap();
    assert_eq!(one["value"], "4790");
    cluster.ctl("node config vxlanPart --port 1").bad(1, &["there is", "VXLANPort"]);
    let port = agent("config", Value::Null);
    cluster.ctl(&format!("node config --port {port}")).bad(1, &["waits for the datastore"]);
}
