//! One request, one reply, each a JSON document; the plugin closes its sending side after the
//! request, the agent closes the connection after the reply.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What the plugin asks of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `ADD`, `DEL`, `CHECK`, `STATUS` or `GC`.
    pub command: String,
    /// `CNI_CONTAINERID`; empty for STATUS and GC.
    #[serde(default)]
    pub container_id: String,
    /// `CNI_NETNS`; may be empty for DEL.
    #[serde(default)]
    pub netns: String,
    /// `CNI_IFNAME`.
    #[serde(default)]
    pub ifname: String,
    /// `CNI_ARGS`, as given: `K8S_POD_NAMESPACE=...;K8S_POD_NAME=...`.
    #[serde(default)]
    pub args: String,
    /// The network configuration from standard input.
    pub config: Value,
}

impl Request {
    /// One value of `CNI_ARGS`.
    pub fn arg(&self, key: &str) -> Option<&str> {
        let pairs = self.args.split(';').filter_map(|p| p.split_once('='));
        pairs.filter(|(k, _)| *k == key).map(|(_, v)| v).next_back()
    }

    /// Name of the network.
    pub fn network(&self) -> &str {
        self.config.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Version of the specification that the configuration is written in.
    pub fn version(&self) -> &str {
        self.config.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0")
    }
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// ADD worked.
    Added(Added),
    /// The command worked and has no result.
    Done,
    /// It did not.
    Failed(Failure),
}

/// What an ADD made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    /// Name of the interface on the host.
    pub host_ifname: String,
    /// Its MAC address.
    pub host_mac: String,
    /// Name of the interface in the pod.
    pub ifname: String,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU.
    pub mtu: u32,
    /// Path of the pod's namespace.
    pub netns: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Why a command failed, in CNI's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One of the [`codes`].
    pub code: u32,
    /// What went wrong.
    pub msg: String,
    /// More about it; may be empty.
    #[serde(default)]
    pub details: String,
}

/// Error codes of the specification, and ours from 100 up.
pub mod codes {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The container is unknown or is gone.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A variable of the environment is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO_FAILURE: u32 = 5;
    /// What was read is not what it should be.
    pub const DECODING_FAILURE: u32 = 6;
    /// The network configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// Try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: ADD would fail now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// Anything else.
    pub const INTERNAL: u32 = 100;
    /// CHECK found a difference.
    pub const CHECK_FAILED: u32 = 101;
}

impl Failure {
    /// A failure without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The error document of the specification.
    pub fn document(&self, version: &str) -> Value {
        let mut out = json!({"cniVersion": version, "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            out["details"] = json!(self.details);
        }
        out
    }
}

impl Added {
    /// The result document, in the shape of the version of the specification.
    pub fn document(&self, version: &str) -> Value {
        let old = version.starts_with("0.");
        let mut pod = json!({"name": self.ifname, "mac": self.mac, "sandbox": self.netns});
        let mut host = json!({"name": self.host_ifname, "mac": self.host_mac});
        if version == "1.1.0" {
            pod["mtu"] = json!(self.mtu);
            host["mtu"] = json!(self.mtu);
        }
        let ip = |addr: &IpAddr| {
            let mut one = Map::new();
            if old {
                one.insert("version".into(), json!(if addr.is_ipv4() { "4" } else { "6" }));
            }
            let len = if addr.is_ipv4() { 32 } else { 128 };
            one.insert("interface".into(), json!(1));
            one.insert("address".into(), json!(format!("{addr}/{len}")));
            Value::Object(one)
        };
        let ips: Vec<_> = self.addresses.iter().map(ip).collect();
        json!({"cniVersion": version, "interfaces": [host, pod], "ips": ips, "dns": {}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added() -> Added {
        Added {
            host_ifname: "cali0".into(),
            host_mac: "ee:ee:ee:ee:ee:ee".into(),
            ifname: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1450,
            netns: "/run/netns/x".into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn results_by_version() {
        for (version, family, mtu) in [
            ("0.3.1", json!("4"), Value::Null),
            ("1.0.0", Value::Null, Value::Null),
            ("1.1.0", Value::Null, json!(1450)),
        ] {
            let doc = added().document(version);
            assert_eq!(doc["cniVersion"], version);
            assert_eq!(doc["ips"][0]["version"], family, "{version}");
            assert_eq!(doc["interfaces"][1]["mtu"], mtu, "{version}");
            assert_eq!(doc["ips"][1]["address"], "fd00::1/128");
            assert_eq!(doc["interfaces"][1]["sandbox"], "/run/netns/x");
        }
    }

    #[test]
    fn arguments_of_the_runtime() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=x".to_owned();
        let request = Request {
            command: "ADD".into(),
            container_id: "c".into(),
            netns: String::new(),
            ifname: "eth0".into(),
            args,
            config: json!({"name": "net", "cniVersion": "1.0.0"}),
        };
        assert_eq!(request.arg("K8S_POD_NAME"), Some("x"));
        assert_eq!(request.arg("K8S_POD_UID"), None);
        assert_eq!((request.network(), request.version()), ("net", "1.0.0"));
    }
}
