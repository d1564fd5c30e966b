//! `apply`, `create`, `replace`, `delete`.
//!
//! Three steps, so that nothing is half applied: everything is read and checked; what exists
//! already is fetched, and what it forbids is told; only then is anything written.

use anyhow::{Context as _, Result, bail};
use api::{Kind, Source};
use http::Method;
use serde_json::{Value, json};

use crate::args::{Access, DeleteArgs, WriteArgs};
use crate::cluster::{Cluster, Refused, path};
use crate::files::{Loaded, load};
use crate::print::{self, Out};
use crate::{Outcome, check, wait};

/// What may and must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Either way.
    Apply,
    /// Must not exist.
    Create,
    /// Must exist.
    Replace,
}

/// An object on its way to the server.
struct Change {
    place: String,
    kind: &'static Kind,
    object: Value,
    namespace: Option<String>,
    name: String,
    live: Option<Value>,
}

impl Change {
    fn label(&self) -> String {
        let slash = self.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        format!("{} {slash}{}", self.kind.kind, self.name)
    }
}

pub(crate) fn write(access: &Access, mode: Mode, args: &WriteArgs) -> Result<Outcome> {
    let all = load(&args.files)?;
    if all.iter().any(|l| !l.errors.is_empty()) {
        check::tell(&all);
        print::complain("nothing was changed");
        return Ok(Outcome::Failed);
    }
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let default = args.namespace.as_deref().unwrap_or(&cluster.namespace).to_owned();
        let mut changes =
            all.into_iter().map(|l| change(l, &default)).collect::<Result<Vec<_>>>()?;
        let mut objections = Vec::new();
        for change in &mut changes {
            change.live = fetch(&cluster, change.kind, change.namespace.as_deref(), &change.name)
                .await
                .with_context(|| change.place.clone())?;
            objections.extend(object_to(change, mode, args.skip_exists));
        }
        if !objections.is_empty() {
            for objection in &objections {
                print::complain(objection);
            }
            print::complain("nothing was changed");
            return Ok(Outcome::Failed);
        }
        send_all(&cluster, &changes, args.skip_exists).await
    })
}

fn change(loaded: Loaded, default_namespace: &str) -> Result<Change> {
    let place = loaded.place();
    let name = loaded.name().map(str::to_owned);
    let name = name.with_context(|| format!("{place}: metadata.name: is required"))?;
    let (Some(kind), Some(mut object)) = (loaded.kind, loaded.object) else {
        bail!("{place}: cannot be read");
    };
    if matches!(kind.source, Source::Pod | Source::Namespace) {
        bail!(
            "{place}: a {} follows from other objects and cannot be written (change the {} instead)",
            kind.kind,
            if kind.source == Source::Pod { "Pod" } else { "Namespace or ServiceAccount" },
        );
    }
    let mut namespace = None;
    if kind.namespaced {
        let given = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let given = given.filter(|n| !n.is_empty()).unwrap_or(default_namespace).to_owned();
        object["metadata"]["namespace"] = given.as_str().into();
        namespace = Some(given);
    }
    if kind.source == Source::Stored {
        kind.default(&mut object);
    }
    Ok(Change { place, kind, object, namespace, name, live: None })
}

async fn fetch(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>> {
    cluster.send(Method::GET, &path(kind, namespace, Some(name)), None).await
}

/// What speaks against a change, given what exists.
fn object_to(change: &Change, mode: Mode, skip_exists: bool) -> Vec<String> {
    let Change { place, live, .. } = change;
    match (mode, live) {
        (Mode::Create, Some(_)) if !skip_exists => vec![format!("{place}: exists already")],
        (Mode::Replace, None) => vec![format!("{place}: does not exist")],
        (Mode::Apply | Mode::Replace, Some(live)) if change.kind.source != Source::Node => {
            let errors = change.kind.validate(&change.object, Some(live));
            errors.into_iter().map(|e| format!("{place}: {e}")).collect()
        }
        _ => Vec::new(),
    }
}

async fn send_all(cluster: &Cluster, changes: &[Change], skip_exists: bool) -> Result<Outcome> {
    let mut out = Out::new();
    let mut failed = false;
    for change in changes {
        if skip_exists && change.live.is_some() {
            out.line(&format!("{} exists already", change.label()))?;
            continue;
        }
        match send(cluster, change).await {
            Ok(what) => out.line(&format!("{} {what}", change.label()))?,
            Err(error) => {
                failed = true;
                print::complain(&format!("{}: {error:#}", change.place));
            }
        }
    }
    out.finish()?;
    Ok(if failed { Outcome::Failed } else { Outcome::Done })
}

/// Writes one object; when somebody else wrote it meanwhile, again on top of that.
async fn send(cluster: &Cluster, change: &Change) -> Result<&'static str> {
    if change.kind.source == Source::Node {
        return send_node(cluster, change).await;
    }
    let namespace = change.namespace.as_deref();
    let one = path(change.kind, namespace, Some(&change.name));
    let mut live = change.live.clone();
    for _ in 0..5 {
        let Some(existing) = &live else {
            let list = path(change.kind, namespace, None);
            return match cluster.send(Method::POST, &list, Some(&change.object)).await {
                Ok(Some(_)) => Ok("created"),
                Ok(None) => bail!("the server does not serve {}", change.kind.plural),
                Err(error) => Err(error),
            };
        };
        let object = on_top_of(&change.object, existing);
        if same(&object, existing) {
            return Ok("unchanged");
        }
        match cluster.send(Method::PUT, &one, Some(&object)).await {
            Ok(Some(_)) => return Ok("configured"),
            Ok(None) => live = None,
            Err(error) if is_conflict(&error) && own_version(&change.object).is_none() => {
                live = cluster.send(Method::GET, &one, None).await?;
            }
            Err(error) => return Err(error),
        }
    }
    bail!("somebody else keeps changing it: try again")
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.code == 409)
}

fn own_version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

/// The object as it is to be, with what only the server knows taken from what exists.
fn on_top_of(object: &Value, live: &Value) -> Value {
    let mut object = object.clone();
    for key in ["resourceVersion", "uid", "finalizers", "ownerReferences"] {
        if object["metadata"].get(key).is_none()
            && let Some(value) = live.pointer(&format!("/metadata/{key}"))
        {
            object["metadata"][key] = value.clone();
        }
    }
    if object.get("status").is_none()
        && let Some(status) = live.get("status")
    {
        object["status"] = status.clone();
    }
    object
}

/// Whether writing would change nothing.
fn same(object: &Value, live: &Value) -> bool {
    let meta = |o: &Value, key: &str| match o.pointer(&format!("/metadata/{key}")) {
        None | Some(Value::Null) => json!({}),
        Some(value) => value.clone(),
    };
    object.get("spec") == live.get("spec")
        && meta(object, "labels") == meta(live, "labels")
        && meta(object, "annotations") == meta(live, "annotations")
        && meta(object, "finalizers") == meta(live, "finalizers")
        && own_version(object) == own_version(live)
}

/// A Node is kept in the annotations and labels of the core Node.
async fn send_node(cluster: &Cluster, change: &Change) -> Result<&'static str> {
    let node: api::v3::Node = serde_json::from_value(change.object.clone())?;
    let notes = api::convert::annotations_of_node(&node);
    // Facts that the agent of the node publishes stay unless the file says otherwise.
    let given = notes.into_iter().filter_map(|(key, value)| Some((key, Value::from(value?))));
    let annotations: serde_json::Map<_, _> = given.collect();
    let mut metadata = json!({ "annotations": annotations });
    if !node.labels().is_empty() {
        metadata["labels"] = json!(node.labels());
    }
    if change.live.is_some() {
        let one = path(change.kind, None, Some(&change.name));
        let patch = json!({ "metadata": metadata });
        cluster.send(Method::PATCH, &one, Some(&patch)).await?;
        return Ok("configured");
    }
    metadata["name"] = change.name.as_str().into();
    let core = json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata });
    cluster.send(Method::POST, &path(change.kind, None, None), Some(&core)).await?;
    Ok("created")
}

pub(crate) fn delete(access: &Access, args: &DeleteArgs) -> Result<Outcome> {
    let mut targets: Vec<(&'static Kind, Option<String>, String)> = Vec::new();
    match &args.kind {
        Some(_) if !args.files.filename.is_empty() => {
            bail!("want either a kind with names or -f, not both");
        }
        Some(word) => {
            let kind = kind(word)?;
            if args.names.is_empty() {
                bail!("want the name of the {} to delete", kind.kind);
            }
            targets.extend(args.names.iter().map(|n| (kind, args.namespace.clone(), n.clone())));
        }
        None => {
            for loaded in load(&args.files)? {
                // What is to go needs a kind and a name; the rest of it may be invalid.
                let (Some(kind), Some(name)) = (loaded.kind, loaded.name()) else {
                    check::tell(&[loaded]);
                    print::complain("nothing was deleted");
                    return Ok(Outcome::Failed);
                };
                let namespace = loaded.namespace().map(str::to_owned);
                targets.push((kind, namespace.or_else(|| args.namespace.clone()), name.to_owned()));
            }
        }
    }
    if let Some((kind, ..)) = targets
        .iter()
        .find(|t| matches!(t.0.source, Source::Pod | Source::Namespace | Source::Node))
    {
        bail!("a {} follows from other objects and cannot be deleted here", kind.kind);
    }
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let mut out = Out::new();
        let mut failed = false;
        for (kind, namespace, name) in targets {
            let namespace = namespace.or_else(|| Some(cluster.namespace.clone()));
            let at = path(kind, namespace.as_deref(), Some(&name));
            let slash = namespace.filter(|_| kind.namespaced).map(|n| format!("{n}/"));
            let label = format!("{} {}{name}", kind.kind, slash.unwrap_or_default());
            match cluster.send(Method::DELETE, &at, None).await {
                Ok(Some(_)) => out.line(&format!("{label} deleted"))?,
                Ok(None) if args.skip_not_exists => out.line(&format!("{label} does not exist"))?,
                Ok(None) => {
                    failed = true;
                    print::complain(&format!("{label}: does not exist"));
                }
                Err(error) => {
                    failed = true;
                    print::complain(&format!("{label}: {error:#}"));
                }
            }
        }
        out.finish()?;
        Ok(if failed { Outcome::Failed } else { Outcome::Done })
    })
}

/// The kind that a word means.
pub(crate) fn kind(word: &str) -> Result<&'static Kind> {
    api::by_word(word).with_context(|| {
        let known: Vec<&str> = api::kinds().iter().map(|k| k.plural).collect();
        format!("{word:?} is no kind (want one of {})", known.join(", "))
    })
}
