//! `datastore migrate`: everything of ours from one cluster's datastore to another's.

use anyhow::{Context as _, Result, bail};
use api::{Kind, Source};
use http::Method;
use serde_json::{Value, json};

use crate::apply::{self, Mode};
use crate::args::{Access, ConfirmArgs, MigrateImportArgs, WriteArgs};
use crate::cluster::{Cluster, escape};
use crate::patch::Target;
use crate::print::{self, Out};
use crate::{Outcome, get, version, wait};

/// Who says whether agents may change anything.
const READY: (&str, &str) = ("clusterinformation", "default");
/// These come first: the lock, then what others name.
const FIRST: [&str; 3] = ["ClusterInformation", "Tier", "IPPool"];

pub(crate) fn set_ready(access: &Access, ready: bool) -> Result<Outcome> {
    wait(async {
        let cluster = Cluster::connect(access).await?;
        version::agree(&cluster, access).await?;
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
    let args = WriteArgs {
        files: args.files,
        namespace: None,
        skip_exists: false,
        confirm: ConfirmArgs::default(),
    };
    let outcome = apply::write(access, Mode::Apply, &args)?;
    if outcome == Outcome::Done {
        print::complain(
            "the datastore is locked; if all is there: `calicoctl datastore migrate unlock`",
        );
    }
    Ok(outcome)
}

/// Kinds of policy that older releases kept with the name of their tier in front.
const NAMED: [&str; 4] = [
    "networkpolicies",
    "globalnetworkpolicies",
    "stagednetworkpolicies",
    "stagedglobalnetworkpolicies",
];
/// Where Kubernetes keeps them, if it is not in the form that they are shown in.
const CUSTOM: &str = "/apis/crd.projectcalico.org/v1";
const NOTE: &str = "projectcalico.org/metadata";

/// `datastore migrate-policy-names`.
pub(crate) fn policy_names(access: &Access) -> Result<Outcome> {
    wait(async {
        let cluster = Cluster::connect(access).await?;
        version::agree(&cluster, access).await?;
        let moved = match cluster.reader() {
            Some(reader) => reader.rename_policies().await.context("cannot move a policy")?,
            None => rename_custom(&cluster).await?,
        };
        let mut out = Out::new();
        let what = if moved == 1 { "policy" } else { "policies" };
        out.line(&format!("{moved} {what} kept under an older name: moved"))?;
        out.finish()?;
        Ok(Outcome::Done)
    })
}

/// The same for custom resources: a copy under the new name, then the old one goes.
async fn rename_custom(cluster: &Cluster) -> Result<usize> {
    let mut moved = 0;
    for plural in NAMED {
        let all = cluster.list(&format!("{CUSTOM}/{plural}")).await?.unwrap_or_default();
        for object in all {
            let Some(name) = name_without_tier(&object) else { continue };
            let meta = |key: &str| object["metadata"][key].clone();
            let old = print::cell(&object, ".metadata.name");
            let namespace = object["metadata"]["namespace"].as_str();
            let within =
                namespace.map(|n| format!("/namespaces/{}", escape(n))).unwrap_or_default();
            let place = format!("{CUSTOM}{within}/{plural}");
            let copy = json!({
                "apiVersion": "crd.projectcalico.org/v1",
                "kind": object["kind"],
                "metadata": {"name": name, "namespace": meta("namespace"), "labels": meta("labels"),
                    "annotations": meta("annotations")},
                "spec": object["spec"],
            });
            match cluster.send(Method::POST, &place, Some(&copy)).await {
                // A copy that was made before and not finished counts.
                Err(error) if !apply::is_conflict(&error) => return Err(error.context(old)),
                _ => {}
            }
            // What somebody has changed meanwhile stays, and is told.
            let condition = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                "preconditions": {"uid": meta("uid"), "resourceVersion": meta("resourceVersion")}});
            let at = format!("{place}/{}", escape(&old));
            cluster.send(Method::DELETE, &at, Some(&condition)).await.context(old)?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// The name that a custom resource is shown by, if it is kept under another one.
fn name_without_tier(object: &Value) -> Option<String> {
    let kept = object["metadata"]["name"].as_str()?;
    let tier = object["spec"]["tier"].as_str().unwrap_or_default();
    let plain = kept
        .strip_prefix("default.")
        .filter(|rest| !rest.is_empty() && matches!(tier, "" | "default"))?;
    let note = object["metadata"]["annotations"][NOTE].as_str();
    let note = note.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let said = note.as_ref().and_then(|note| note["name"].as_str());
    (said != Some(kept)).then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_their_tier() {
        let object = |name: &str, tier: &str, note: Value| json!({"metadata": {"name": name, "annotations": {NOTE: note}}, "spec": {"tier": tier}});
        for (name, tier, note, want) in [
            ("default.a", "default", Value::Null, Some("a")),
            ("default.a", "", json!("{\"name\":\"a\"}"), Some("a")),
            ("default.a", "default", json!("{\"name\":\"default.a\"}"), None),
            ("default.a", "net", Value::Null, None),
            ("net.a", "net", Value::Null, None),
            ("a", "default", Value::Null, None),
            ("default.", "default", Value::Null, None),
        ] {
            assert_eq!(
                name_without_tier(&object(name, tier, note)).as_deref(),
                want,
                "{name} {tier}"
            );
        }
    }
}
