//! `version`, and whether this tool and a cluster belong together.
//!
//! Upstream's tool refuses to work on a cluster of any other version than its own. This one must not: it takes that
//! tool's place on clusters of all the versions whose data it understands. So reading is never refused, and changing
//! is refused only where the cluster is newer than what this tool knows: it might not understand what it changes.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;

use crate::args::{Access, VersionArgs};
use crate::cluster::Cluster;
use crate::print::{self, Out, cell};
use crate::{Outcome, apply, wait};

/// The newest release of Calico whose data are understood: major and minor.
const KNOWN: (u64, u64) = (3, 33);
/// Our own.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// How a cluster's version stands to what this tool knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Known,
    Newer,
    /// It says none, or one of no release.
    Unsaid,
}

/// Upstream's major is 3 or more; ours is smaller until it can be told apart by more than that.
fn judge(version: &str) -> Verdict {
    let numbers = |text: &str| -> Option<(u64, u64)> {
        let mut parts = text.trim_start_matches('v').split(['.', '-', '+']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let Some(cluster) = numbers(version) else { return Verdict::Unsaid };
    let own = numbers(OWN).unwrap_or_default();
    let newest = if cluster.0 > own.0 { KNOWN } else { own };
    if cluster > newest { Verdict::Newer } else { Verdict::Known }
}

/// Refuses to change a cluster that is newer than this tool.
///
/// # Errors
/// If it is, and the user has not said that it does not matter.
pub(crate) async fn agree(cluster: &Cluster, access: &Access) -> Result<()> {
    if access.allow_version_mismatch {
        return Ok(());
    }
    // If it cannot be asked, what follows says why.
    let Ok(Some(found)) = information(cluster).await else { return Ok(()) };
    let version = cell(&found, ".spec.calicoVersion");
    if judge(&version) == Verdict::Newer {
        bail!(
            "version mismatch: the cluster is of version {version}, and this tool knows clusters up to v{}.{}: nothing was \
             changed (--allow-version-mismatch overrides)",
            KNOWN.0,
            KNOWN.1
        );
    }
    Ok(())
}

async fn information(cluster: &Cluster) -> Result<Option<Value>> {
    let path = cluster.path(apply::kind("clusterinformation")?, None, Some("default"));
    cluster.send(Method::GET, &path, None).await
}

pub(crate) fn version(access: &Access, args: &VersionArgs) -> Result<Outcome> {
    let mut out = Out::new();
    out.line(&format!("Client Version:    v{OWN}"))?;
    if args.client {
        out.finish()?;
        return Ok(Outcome::Done);
    }
    out.line(&format!("Calico API:        v{}.{}", KNOWN.0, KNOWN.1))?;
    out.flush()?;
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let mut shown = Shown::default();
        loop {
            let found = information(&cluster).await;
            let Some(pause) = args.poll.filter(|pause| !pause.is_zero()) else {
                let found = found?;
                shown.show(&mut out, found.as_ref())?;
                out.finish()?;
                return Ok(Outcome::Done);
            };
            match found {
                Ok(found) => shown.show(&mut out, found.as_ref())?,
                Err(error) => {
                    print::complain(&format!("{error:#}"));
                    shown = Shown::default(); // it is shown again when it is known again
                }
            }
            out.flush()?;
            tokio::time::sleep(pause).await;
        }
    })
}

/// What has been shown of a cluster; only what changes is shown again.
#[derive(Default)]
struct Shown {
    version: Option<String>,
    kind: Option<String>,
}

impl Shown {
    fn show(&mut self, out: &mut Out, found: Option<&Value>) -> Result<()> {
        let of = |path: &str| {
            let text = found.map(|object| cell(object, path)).filter(|text| !text.is_empty());
            text.unwrap_or_else(|| "unknown".to_owned())
        };
        let (version, kind) = (of(".spec.calicoVersion"), of(".spec.clusterType"));
        if self.version.as_ref() != Some(&version) {
            out.line(&format!("Cluster Version:   {version}"))?;
            if judge(&version) == Verdict::Newer {
                print::complain(
                    "the cluster is newer than what this tool knows: it is not changed without --allow-version-mismatch",
                );
            }
        }
        if self.kind.as_ref() != Some(&kind) {
            out.line(&format!("Cluster Type:      {kind}"))?;
        }
        (self.version, self.kind) = (Some(version), Some(kind));
        Ok(())
    }
}

/// `1s`, `10m`, `1h30m`, as Go reads them; `0` is none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("{text:?} is no time span: want a number and ms, s, m or h, as 10s or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut all = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        all += number
            * match &rest[..length] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[length..];
    }
    if text.is_empty() {
        return Err(bad());
    }
    Duration::try_from_secs_f64(all).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_known_versions_are_welcome() {
        for (version, verdict) in [
            ("v3.33.1", Verdict::Known),
            ("v3.20.0", Verdict::Known),
            ("3.29.3-17-gabcdef", Verdict::Known),
            ("v3.34.0", Verdict::Newer),
            ("v4.0.0", Verdict::Newer),
            (OWN, Verdict::Known),
            ("", Verdict::Unsaid),
            ("master", Verdict::Unsaid),
            ("v3", Verdict::Unsaid),
        ] {
            assert_eq!(judge(version), verdict, "{version}");
        }
    }

    #[test]
    fn time_spans() {
        for (text, millis) in
            [("0", 0), ("250ms", 250), ("1s", 1000), ("1.5m", 90_000), ("1h30m", 5_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1s2", "1e999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
