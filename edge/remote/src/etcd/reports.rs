//! What an agent says about itself: keys beside the objects, some of which vanish unless they are renewed.

use std::time::Duration;

use etcd_client::{Error, GetOptions, PutOptions};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Etcd, EtcdOptions, in_time};
use crate::backend::RemoteError;

/// What the endpoint of a workload is called in reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportedEndpoint {
    /// `k8s`, `cni` or another.
    pub orchestrator: String,
    /// `namespace/pod`, or a container.
    pub workload: String,
    /// The interface inside.
    pub endpoint: String,
}

/// Writes the reports of one node.
pub struct Reports {
    etcd: Etcd,
    /// `/calico/felix/v2/no-region/host/NODE`.
    root: String,
    /// That of the keys that vanish, and how long it lasts.
    lease: Mutex<Option<(i64, Duration)>>,
}

impl Reports {
    /// Of a node, in a region if it is in one.
    ///
    /// # Errors
    /// [`RemoteError`]: of the options.
    pub async fn connect(
        options: &EtcdOptions,
        region: &str,
        node: &str,
    ) -> Result<Self, RemoteError> {
        let region = match region {
            "" => "no-region".to_owned(),
            name if name.contains('/') => {
                return Err(RemoteError::Config(format!("region {name:?}: no slash is wanted")));
            }
            name => format!("region-{name}"),
        };
        let etcd = Etcd::connect(options).await?;
        let root = format!("/calico/felix/v2/{region}/host/{node}");
        Ok(Self { etcd, root, lease: Mutex::new(None) })
    }

    /// The agent lives: one key vanishes `ttl` after the last report, another stays.
    ///
    /// # Errors
    /// etcd's.
    pub async fn lives(
        &self,
        now: &str,
        uptime: Duration,
        first: bool,
        ttl: Duration,
    ) -> Result<(), RemoteError> {
        let report = json!({"time": now, "uptime": uptime.as_secs_f64(), "first_update": first});
        let lease = self.lease(ttl).await?;
        let options = PutOptions::new().with_lease(lease);
        if let Err(error) = self.put("status", &report, Some(options)).await {
            // It may have vanished since.
            *self.lease.lock().await = None;
            return Err(error);
        }
        self.put("last_reported_status", &report, None).await
    }

    /// The lease, renewed; another one if it is gone, or shall last for another time.
    async fn lease(&self, ttl: Duration) -> Result<i64, RemoteError> {
        let mut held = self.lease.lock().await;
        let mut client = self.etcd.client().lease_client();
        if let Some((id, lasts)) = *held {
            if lasts == ttl && renewed(&mut client, id).await? {
                return Ok(id);
            }
            *held = None;
        }
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let granted = in_time(client.grant(seconds, None)).await?;
        *held = Some((granted.id(), ttl));
        Ok(granted.id())
    }

    /// An endpoint is up (or down), or says nothing any more.
    ///
    /// # Errors
    /// etcd's.
    pub async fn endpoint(
        &self,
        endpoint: &ReportedEndpoint,
        status: Option<&str>,
    ) -> Result<(), RemoteError> {
        let key = endpoint.key();
        if let Some(status) = status {
            return self.put(&key, &json!({ "status": status }), None).await;
        }
        let mut kv = self.etcd.client().kv_client();
        in_time(kv.delete(format!("{}/{key}", self.root), None)).await.map(drop)
    }

    /// The endpoints of this node that something was reported of.
    ///
    /// # Errors
    /// etcd's.
    pub async fn endpoints(&self) -> Result<Vec<ReportedEndpoint>, RemoteError> {
        let prefix = format!("{}/workload/", self.root);
        let options = GetOptions::new().with_prefix().with_keys_only();
        let mut kv = self.etcd.client().kv_client();
        let found = in_time(kv.get(prefix.as_str(), Some(options))).await?;
        let keys = found.kvs().iter().filter_map(|kv| kv.key_str().ok());
        let keys = keys.filter_map(|key| ReportedEndpoint::parse(key.strip_prefix(&prefix)?));
        Ok(keys.collect())
    }

    async fn put(
        &self,
        key: &str,
        value: &Value,
        options: Option<PutOptions>,
    ) -> Result<(), RemoteError> {
        let mut kv = self.etcd.client().kv_client();
        let put = kv.put(format!("{}/{key}", self.root), value.to_string(), options);
        in_time(put).await.map(drop)
    }
}

/// Whether the lease still held, and now holds anew.
async fn renewed(client: &mut etcd_client::LeaseClient, id: i64) -> Result<bool, RemoteError> {
    let renewing = async {
        // Asks at once.
        match client.keep_alive(id).await {
            Ok(_) => Ok(true),
            Err(Error::LeaseKeepAliveError(_)) => Ok(false),
            Err(error) => Err(error),
        }
    };
    in_time(renewing).await
}

impl ReportedEndpoint {
    fn key(&self) -> String {
        let [orchestrator, workload, endpoint] =
            [&self.orchestrator, &self.workload, &self.endpoint].map(|part| escaped(part));
        format!("workload/{orchestrator}/{workload}/endpoint/{endpoint}")
    }

    fn parse(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let (orchestrator, workload) = (parts.next()?, parts.next()?);
        let endpoint = parts.next().filter(|part| *part == "endpoint").and(parts.next())?;
        let [orchestrator, workload, endpoint] = [orchestrator, workload, endpoint].map(unescaped);
        parts.next().is_none().then_some(Self {
            orchestrator: orchestrator?,
            workload: workload?,
            endpoint: endpoint?,
        })
    }
}

/// As one part of a path.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b':' | b'=' | b'@' => {
                out.push(char::from(byte));
            }
            other => out.extend(['%', digit(other >> 4), digit(other & 15)]),
        }
    }
    out
}

fn digit(of: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(of)])
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_endpoints() {
        let endpoint = ReportedEndpoint {
            orchestrator: "k8s".into(),
            workload: "shop/web-0%".into(),
            endpoint: "eth0".into(),
        };
        let key = endpoint.key();
        assert_eq!(key, "workload/k8s/shop%2Fweb-0%25/endpoint/eth0");
        assert_eq!(ReportedEndpoint::parse(&key["workload/".len()..]), Some(endpoint));
        for bad in ["k8s/a/endpoint", "k8s/a/b/c", "k8s/%2/endpoint/e", "k8s/a/endpoint/e/f"] {
            assert_eq!(ReportedEndpoint::parse(bad), None, "{bad}");
        }
    }
}
