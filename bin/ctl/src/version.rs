//! `version`.

use anyhow::Result;
use http::Method;

use crate::args::{Access, VersionArgs};
use crate::cluster::Cluster;
use crate::print::{Out, cell};
use crate::{Outcome, wait};

pub(crate) fn version(access: &Access, args: &VersionArgs) -> Result<Outcome> {
    let mut out = Out::new();
    out.line(&format!("Client Version:    v{}", env!("CARGO_PKG_VERSION")))?;
    if !args.client {
        let found = wait(async {
            let cluster = Cluster::connect(access).await?;
            let path = "/apis/projectcalico.org/v3/clusterinformations/default";
            cluster.send(Method::GET, path, None).await
        })?;
        let of = |path: &str| {
            let text = found.as_ref().map(|o| cell(o, path)).unwrap_or_default();
            if text.is_empty() { "unknown".to_owned() } else { text }
        };
        out.line(&format!("Cluster Version:   {}", of(".spec.calicoVersion")))?;
        out.line(&format!("Cluster Type:      {}", of(".spec.clusterType")))?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}
