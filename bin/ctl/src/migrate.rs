//! `datastore migrate`: everything of ours from one cluster's datastore to another's.

use anyhow::{Context as _, Result, bail};
use api::{Kind, Source};
use http::Method;
use serde_json::Value;

use crate::apply::{self, Mode};
use crate::args::{Access, MigrateImportArgs, WriteArgs};
use crate::cluster::Cluster;
use crate::patch::Target;
use crate::print::{self, Out};
use crate::{Outcome, get, wait};

/// Who says whether agents may change anything.
const READY: (&str, &str) = ("clusterinformation", "default");
/// These come first: the lock, then what others name.
const FIRST: [&str; 3] = ["ClusterInformation", "Tier", "IPPool"];

pub(crate) fn set_ready(access: &Access, ready: bool) -> Result<Outcome> {
    wait(async {
        let cluster = Cluster::connect(access).await?;
        mark(&cluster, ready).await?;
        let mut out = Out::new();
        out.line(if ready {
            "Datastore unlocked: agents give addresses again"
        } else {
            "Datastore locked: agents give no addresses until it is unlocked"
        })?;
        out.finish()?;
        Ok(Outcome::Done)
    })
}

async fn mark(cluster: &Cluster, ready: bool) -> Result<()> {
    let target = Target::new(cluster, READY, None)?;
    target
        .modify(|object| {
            object["spec"]["datastoreReady"] = ready.into();
            Ok(())
        })
        .await
        .context("no agent has ever started in this cluster, or it cannot be written")?;
    Ok(())
}

/// Documents that [`import`] takes, in an order in which they can be created.
pub(crate) fn export(access: &Access) -> Result<Outcome> {
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let at = cluster.path(apply::kind(READY.0)?, None, Some(READY.1));
        let state = cluster.send(Method::GET, &at, None).await?;
        let ready = state.as_ref().map(|s| &s["spec"]["datastoreReady"]);
        if ready != Some(&Value::Bool(false)) {
            bail!(
                "the datastore is not locked: first `calicoctl datastore migrate lock`, so that \
                 agents change nothing meanwhile"
            );
        }
        let mut out = Out::new();
        let mut count = 0;
        for kind in exported() {
            let found = get::all(&cluster, kind).await?;
            for mut object in found {
                get::strip(&mut object);
                strip(&mut object);
                if count > 0 {
                    out.line("---")?;
                }
                out.yaml(&object)?;
                count += 1;
            }
        }
        out.finish()?;
        print::complain(&format!("exported {}", print::count(count, "object")));
        Ok(Outcome::Done)
    })
}

/// Every kind that is kept anywhere by us.
fn exported() -> Vec<&'static Kind> {
    let ours = |k: &&Kind| {
        k.group == "projectcalico.org" && matches!(k.source, Source::Stored | Source::Node)
    };
    let mut kinds: Vec<_> = api::kinds().iter().filter(ours).collect();
    let place = |kind: &Kind| FIRST.iter().position(|k| *k == kind.kind).unwrap_or(FIRST.len());
    kinds.sort_by_key(|kind| (place(kind), kind.source == Source::Node, kind.plural));
    kinds
}

/// Takes away what would bind it to objects of the old cluster.
fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["ownerReferences", "finalizers", "deletionTimestamp"] {
            metadata.remove(key);
        }
    }
}

/// Creates what is exported, or replaces it. What comes first locks the datastore.
pub(crate) fn import(access: &Access, args: MigrateImportArgs) -> Result<Outcome> {
    let args = WriteArgs { files: args.files, namespace: None, skip_exists: false };
    let outcome = apply::write(access, Mode::Apply, &args)?;
    if outcome == Outcome::Done {
        print::complain(
            "the datastore is locked; if all is there: `calicoctl datastore migrate unlock`",
        );
    }
    Ok(outcome)
}
