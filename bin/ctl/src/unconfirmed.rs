//! `--confirm-within`, `confirm`, `revert`: the user's side of `confirm`'s protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use confirm::mark::{
    FEATURE, FEATURE_DELETE, FEATURES, MOST_BYTES, annotation_bytes, kept, unmarked,
};
use confirm::{Decision, Mark, Object};
use http::Method;
use serde_json::Value;

use crate::apply::{Change, Mode, conclude, is_conflict, kind, on_top_of, same};
use crate::args::{Access, SettleArgs};
use crate::cluster::{Cluster, escape};
use crate::print::{self, Out};
use crate::{Outcome, wait};

/// The decision will stand there as well.
const DECISION: usize = 64;

/// So often somebody else may come in between.
const ATTEMPTS: usize = 5;

/// A change of an unconfirmed object by other means ends the waiting for that object.
pub(crate) fn tell(changes: &[Change]) {
    for change in changes {
        if let Some(mark) = change.live.as_ref().and_then(mark) {
            let (label, id) = (change.label(), &mark.transaction);
            print::complain(&format!("{label} was part of unconfirmed change {id}; this stays"));
        }
    }
}

fn mark(object: &Value) -> Option<Mark> {
    Mark::of(object).ok().flatten()
}

/// Writes all changes as one that must be confirmed; all of it or nothing.
pub(crate) async fn send_all(
    cluster: &Cluster,
    mut changes: Vec<Change>,
    mode: Mode,
    window: Duration,
) -> Result<Outcome> {
    for change in &mut changes {
        change.object = unmarked(&change.object);
    }
    let objections = objections(cluster, &changes, mode).await?;
    if !objections.is_empty() {
        for objection in &objections {
            print::complain(objection);
        }
        print::complain("nothing was changed");
        return Ok(Outcome::Failed);
    }
    let unchanged = |c: &Change| {
        let as_it_is = |live| same(&on_top_of(&c.object, live), live);
        mode != Mode::Delete && c.live.as_ref().is_some_and(as_it_is)
    };
    let differs = |c: &&Change| !unchanged(c);
    let different: Vec<&Change> = changes.iter().filter(differs).collect();
    let mut out = Out::new();
    for change in changes.iter().filter(|c| !differs(c)) {
        out.line(&format!("{} unchanged", change.label()))?;
    }
    let kinds = changes.iter().map(|c| c.kind.kind);
    let Some(first) = different.first() else {
        return conclude(out, mode.done(), changes.len(), kinds);
    };
    let (id, lead) = (new_id(), place(first)?);
    for change in &different {
        let mark = Mark {
            transaction: id.clone(),
            within: window.as_secs(),
            lead: lead.clone(),
            decision: None,
            deletes: mode == Mode::Delete,
            previous: Value::Null,
        };
        match send(cluster, change, mark, mode).await {
            Ok(what) => out.line(&format!("{} {what}", change.label()))?,
            Err(error) => {
                out.finish()?;
                print::complain(&format!("{}: {error:#}", change.place));
                return take_back(cluster, &id, &lead).await;
            }
        }
    }
    out.line(&format!(
        "Unconfirmed change {id}: goes back after {} seconds, unless: calicoctl confirm {id}",
        window.as_secs()
    ))?;
    conclude(out, mode.done(), changes.len(), kinds)
}

/// Half of a change is none.
async fn take_back(cluster: &Cluster, id: &str, lead: &Object) -> Result<Outcome> {
    let settled = datastore::settle(&cluster.datastore(), id, lead, Decision::Reverted).await;
    let settled = settled.with_context(|| {
        format!("what was written of change {id} is not taken back yet: the nodes will, in time")
    })?;
    for object in settled.objects {
        print::complain(&format!("{object} taken back"));
    }
    print::complain("nothing was changed");
    Ok(Outcome::Failed)
}

/// Eight digits that no other change has.
fn new_id() -> Arc<str> {
    let random = RandomState::new().hash_one(std::process::id());
    format!("{:08x}", random & 0xffff_ffff).into()
}

fn place(change: &Change) -> Result<Object> {
    let it = Object {
        group: change.kind.group.to_owned(),
        kind: change.kind.kind.to_owned(),
        namespace: change.namespace.clone().unwrap_or_default(),
        name: change.name.clone(),
    };
    if it.guarded().is_none() {
        bail!(
            "{}: --confirm-within is for what decides about packets, not for a {}",
            change.place,
            change.kind.kind
        );
    }
    Ok(it)
}

/// Writes one object with its mark, over the version that the mark remembers.
async fn send(
    cluster: &Cluster,
    change: &Change,
    mut mark: Mark,
    mode: Mode,
) -> Result<&'static str> {
    let namespace = change.namespace.as_deref();
    let one = cluster.path(change.kind, namespace, Some(&change.name));
    let mut live = change.live.clone();
    for _ in 0..ATTEMPTS {
        if let Some(other) = live.as_ref().and_then(self::mark) {
            bail!("{}", waits(&other));
        }
        let mut object = match &live {
            // It stays until its end is confirmed.
            Some(live) if mode == Mode::Delete => live.clone(),
            Some(live) => on_top_of(&change.object, live),
            None if mode == Mode::Delete => bail!("does not exist any more"),
            None => change.object.clone(),
        };
        mark.previous = live.as_ref().map(kept).unwrap_or_default();
        if let Some(previous) = mark.previous.as_object_mut() {
            // Objects in a list may come without it.
            for key in ["apiVersion", "kind"] {
                previous.insert(key.to_owned(), change.object[key].clone());
            }
        }
        mark.put_on(&mut object);
        let bytes = annotation_bytes(&object);
        if bytes + DECISION > MOST_BYTES {
            bail!(
                "cannot be remembered: its annotations would have {bytes} bytes, of {MOST_BYTES}"
            );
        }
        let sent = if live.is_some() {
            cluster.send(Method::PUT, &one, Some(&object)).await
        } else {
            let list = cluster.path(change.kind, namespace, None);
            cluster.send(Method::POST, &list, Some(&object)).await
        };
        match sent {
            Ok(Some(_)) => {
                return Ok(match (mode, live) {
                    (Mode::Delete, _) => "deleted",
                    (_, Some(_)) => "configured",
                    (_, None) => "created",
                });
            }
            Ok(None) if mode == Mode::Replace => bail!("does not exist any more"),
            Err(error) if !is_conflict(&error) || mode == Mode::Create => return Err(error),
            Ok(None) | Err(_) => live = cluster.send(Method::GET, &one, None).await?,
        }
    }
    bail!("somebody else keeps changing it: try again")
}

fn waits(mark: &Mark) -> String {
    let id = &mark.transaction;
    format!("is part of unconfirmed change {id}: first calicoctl confirm {id}, or revert")
}

/// Why nothing can be written.
async fn objections(cluster: &Cluster, changes: &[Change], mode: Mode) -> Result<Vec<String>> {
    let mut objections = Vec::new();
    let mut places = BTreeSet::new();
    for change in changes {
        match place(change) {
            Ok(place) if !places.insert(place.clone()) => {
                objections.push(format!("{}: {place} is there twice", change.place));
            }
            Ok(_) => {}
            Err(error) => objections.push(error.to_string()),
        }
        let unable = change.refused.clone();
        let waiting = change.live.as_ref().and_then(mark).map(|mark| waits(&mark));
        objections.extend(unable.or(waiting).map(|why| format!("{}: {why}", change.place)));
    }
    if objections.is_empty() {
        objections.extend(unable(cluster, changes, mode).await?);
    }
    Ok(objections)
}

/// The nodes that would not go back.
async fn unable(cluster: &Cluster, changes: &[Change], mode: Mode) -> Result<Option<String>> {
    let word = if mode == Mode::Delete { FEATURE_DELETE } else { FEATURE };

    let nodes = cluster.list(&cluster.path(kind("node")?, None, None)).await?.unwrap_or_default();
    let name = |n: &Value| n["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let able = |n: &&Value| {
        let features = n["metadata"]["annotations"][FEATURES].as_str().unwrap_or_default();
        features.split(',').any(|found| found.trim() == word)
    };
    if !nodes.iter().any(|n| able(&n)) {
        let why = "no node runs an agent that would go back: --confirm-within cannot be kept";
        return Ok(Some(why.to_owned()));
    }
    let mut touched = Some(BTreeSet::new());
    for change in changes {
        // Any agent may carry out the end: one that does not know of deletions would keep the object.
        let nodes = if mode == Mode::Delete { None } else { nodes_of(cluster, change).await? };
        match nodes {
            Some(more) => touched.iter_mut().for_each(|all| all.extend(more.iter().cloned())),
            None => touched = None,
        }
    }
    let concerns = |n: &String| touched.as_ref().is_none_or(|t| t.contains(n));
    let unable = nodes.iter().filter(|n| !able(n)).map(name).filter(concerns);
    let unable: Vec<_> = unable.collect();
    Ok((!unable.is_empty()).then(|| {
        format!(
            "the agents of these nodes would not go back: {} (they lack {word:?} in the \
             annotation {FEATURES})",
            unable.join(", ")
        )
    }))
}

/// The nodes on which an object decides; `None`: perhaps on all.
async fn nodes_of(cluster: &Cluster, change: &Change) -> Result<Option<BTreeSet<String>>> {
    match (change.kind.kind, &change.namespace) {
        ("HostEndpoint", _) => {
            let forms = [Some(&change.object), change.live.as_ref()];
            let node = |o: &Value| o["spec"]["node"].as_str().map(str::to_owned);
            Ok(Some(forms.into_iter().flatten().filter_map(node).collect()))
        }
        ("NetworkPolicy", Some(namespace)) => {
            let path = format!("/api/v1/namespaces/{}/pods", escape(namespace));
            let Some(pods) = cluster.list(&path).await? else { return Ok(None) };
            let node = |p: &Value| p["spec"]["nodeName"].as_str().map(str::to_owned);
            Ok(Some(pods.iter().filter_map(node).collect()))
        }
        _ => Ok(None),
    }
}

/// `confirm`, `revert`.
pub(crate) fn settle(access: &Access, wanted: Decision, args: &SettleArgs) -> Result<Outcome> {
    wait(async {
        let datastore = Cluster::connect(access).await?.datastore();
        let found = datastore::unconfirmed(&datastore).await?;
        let changes: BTreeMap<_, _> =
            found.into_iter().map(|(_, mark)| (mark.transaction, mark.lead)).collect();
        let (id, lead) = chosen(&changes, args.change.as_deref())?;
        let settled = datastore::settle(&datastore, id, lead, wanted).await?;
        let decision = settled.decision.unwrap_or(wanted);
        let mut out = Out::new();
        for object in &settled.objects {
            out.line(&format!("{object} {}", word(decision)))?;
        }
        if decision == wanted {
            out.line(&format!("Change {id} {}", word(wanted)))?;
            out.finish()?;
            return Ok(Outcome::Done);
        }
        out.finish()?;
        print::complain(&format!("too late: change {id} was {} before", word(decision)));
        Ok(Outcome::Failed)
    })
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Confirmed => "confirmed",
        Decision::Reverted => "reverted",
    }
}

fn chosen<'a>(
    changes: &'a BTreeMap<Arc<str>, Object>,
    given: Option<&'a str>,
) -> Result<(&'a str, &'a Object)> {
    let all = || changes.keys().map(|id| &**id).collect::<Vec<_>>().join(", ");
    match (given, changes.len()) {
        (Some(id), _) => {
            let lead = changes.get(id).ok_or_else(|| match changes.len() {
                0 => anyhow!("no change waits any more; {id} was confirmed or reverted"),
                _ => anyhow!("{id} is no change that waits (want one of {})", all()),
            })?;
            Ok((id, lead))
        }
        (None, 1) => changes
            .iter()
            .next()
            .map(|(id, lead)| (&**id, lead))
            .context("no change waits for a confirmation"),
        (None, 0) => bail!("no change waits for a confirmation"),
        (None, _) => bail!("several changes wait: name one of {}", all()),
    }
}
