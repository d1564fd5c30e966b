//! `apply`, `create`, `replace`, `delete`.
//!
//! Input that is wrong changes nothing: everything is read and checked, also against what exists
//! already, and several objects are shown to the server without being kept; only then is anything
//! written. What the cluster's state forbids (an object exists, its namespace does not) is the
//! affair of one object: the others go on, and each failure is named.
//!
//! Of a great many objects, what exists is read as lists, and the server is shown one of each kind: it
//! checks Calico's objects by the rules that have been checked here.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, anyhow, bail};
use api::{Kind, Source};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use serde_json::{Value, json};

use crate::args::{Access, DeleteArgs, WriteArgs};
use crate::cluster::{Cluster, Refused};
use crate::files::{Loaded, load};
use crate::print::{self, Out, Progress};
use crate::{Outcome, check, kept, suggest, unconfirmed, usage, version, wait};

/// Requests on their way at the same time.
const AT_ONCE: usize = 32;
/// Up to so many objects each is shown to the server before anything is written.
const REHEARSED: usize = 200;
/// From so many objects of a kind in a namespace on, what exists is read as a list ...
const LISTED: usize = 50;
/// ... unless that is so many times as long.
const LONGER: usize = 20;

/// What may and must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Either way.
    Apply,
    /// Must not exist.
    Create,
    /// Must exist.
    Replace,
    /// Must exist, and is to go.
    Delete,
}

impl Mode {
    /// What was done, as the last line says it.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Apply => "applied",
            Self::Create => "created",
            Self::Replace => "replaced",
            Self::Delete => "deleted",
        }
    }
}

/// How requests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Earnest {
    /// The server checks them and keeps nothing.
    Rehearsal,
    /// They count.
    Real,
}

impl Earnest {
    fn path(self, path: String) -> String {
        match self {
            Self::Rehearsal => format!("{path}?dryRun=All"),
            Self::Real => path,
        }
    }
}

/// An object on its way to the server.
pub(crate) struct Change {
    pub(crate) place: String,
    pub(crate) kind: &'static Kind,
    pub(crate) object: Value,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) live: Option<Value>,
    /// Why it cannot be written, as things are.
    pub(crate) refused: Option<String>,
}

impl Change {
    pub(crate) fn label(&self) -> String {
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
        version::agree(&cluster, access).await?;
        let default = args.namespace.as_deref().unwrap_or(&cluster.namespace).to_owned();
        let mut changes =
            all.into_iter().map(|l| change(&cluster, l, &default)).collect::<Result<Vec<_>>>()?;
        look(&cluster, &mut changes).await?;
        for change in changes.iter_mut().filter(|c| c.refused.is_none()) {
            change.refused = refusal(change, mode, args.skip_exists);
        }
        if args.skip_exists {
            changes.retain(|c| c.live.is_none());
        }
        let objections = objections(&cluster, &changes, mode).await;
        if !objections.is_empty() {
            for objection in &objections {
                print::complain(objection);
            }
            print::complain("nothing was changed");
            return Ok(Outcome::Failed);
        }
        if let Some(window) = args.confirm.confirm_within {
            return unconfirmed::send_all(&cluster, changes, mode, window).await;
        }
        unconfirmed::tell(&changes);
        send_all(&cluster, &changes, mode).await
    })
}

fn change(cluster: &Cluster, loaded: Loaded, default_namespace: &str) -> Result<Change> {
    let place = loaded.place();
    let name = loaded.name().map(str::to_owned);
    let name = name.with_context(|| format!("{place}: metadata.name: is required"))?;
    let (Some(kind), Some(mut object)) = (loaded.kind, loaded.object) else {
        bail!("{place}: cannot be read");
    };
    let source = cluster.source(kind);
    let refused = matches!(source, Source::Pod | Source::Namespace).then(|| {
        let instead = if source == Source::Pod { "Pod" } else { "Namespace or ServiceAccount" };
        format!(
            "a {} follows from other objects and cannot be written (change the {instead} instead)",
            kind.kind
        )
    });
    let mut namespace = None;
    if kind.namespaced {
        let given = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let given = given.filter(|n| !n.is_empty()).unwrap_or(default_namespace).to_owned();
        object["metadata"]["namespace"] = given.as_str().into();
        namespace = Some(given);
    }
    if source == Source::Stored {
        kind.default(&mut object);
    }
    Ok(Change { place, kind, object, namespace, name, live: None, refused })
}

/// Finds out what exists.
async fn look(cluster: &Cluster, changes: &mut [Change]) -> Result<()> {
    let mut groups: HashMap<Place, Vec<usize>> = HashMap::new();
    for (at, change) in changes.iter().enumerate().filter(|(_, c)| c.refused.is_none()) {
        let place = (change.kind.group, change.kind.plural, change.namespace.clone());
        groups.entry(place).or_default().push(at);
    }
    let mut single: HashSet<usize> = HashSet::new();
    for members in groups.into_values() {
        if members.len() < LISTED || !look_at_list(cluster, changes, &members).await? {
            single.extend(members);
        }
    }
    let mut progress = Progress::new("looking at what exists:", single.len());
    let wanted = changes.iter().enumerate().filter(|(at, _)| single.contains(at));
    let asked =
        wanted.map(|(at, change)| async move { anyhow::Ok((at, live(cluster, change).await?)) });
    let mut asked = stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    let mut found = Vec::with_capacity(single.len());
    while let Some(one) = asked.try_next().await? {
        progress.step();
        found.push(one);
    }
    drop(asked);
    for (at, live) in found {
        changes[at].live = live;
    }
    Ok(())
}

/// Group, plural and namespace.
type Place = (&'static str, &'static str, Option<String>);

/// The same for objects of one kind in one namespace, by reading all that there are. `false` if they are too many.
async fn look_at_list(
    cluster: &Cluster,
    changes: &mut [Change],
    members: &[usize],
) -> Result<bool> {
    let (kind, namespace) = (changes[members[0]].kind, changes[members[0]].namespace.clone());
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for at in members {
        by_name.entry(changes[*at].name.clone()).or_default().push(*at);
    }
    let mut pages = cluster.pages(kind, namespace.as_deref());
    let mut seen = 0;
    while let Some(page) = pages.next(cluster).await? {
        seen += page.len();
        for object in page {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let Some(wanted) = by_name.get(name) else { continue };
            for at in wanted {
                changes[*at].live = Some(object.clone());
            }
        }
        if seen + pages.remaining() > LONGER * members.len() {
            for at in members {
                changes[*at].live = None;
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// What exists under the name of a change.
async fn live(cluster: &Cluster, change: &Change) -> Result<Option<Value>> {
    if change.refused.is_some() {
        return Ok(None);
    }
    let at = cluster.path(change.kind, change.namespace.as_deref(), Some(&change.name));
    let found = cluster.send(Method::GET, &at, None).await;
    found.with_context(|| change.place.clone())
}

/// Why an object cannot be written, given what exists.
fn refusal(change: &Change, mode: Mode, skip_exists: bool) -> Option<String> {
    match (mode, &change.live) {
        (Mode::Create, Some(_)) if !skip_exists => Some("exists already".to_owned()),
        (Mode::Replace | Mode::Delete, None) => Some("does not exist".to_owned()),
        _ => None,
    }
}

/// What is wrong with the objects themselves.
async fn objections(cluster: &Cluster, changes: &[Change], mode: Mode) -> Vec<String> {
    let mut objections = Vec::new();
    let wanted = || changes.iter().filter(|c| c.refused.is_none());
    for change in
        wanted().filter(|c| cluster.source(c.kind) != Source::Node && mode != Mode::Create)
    {
        if let Some(live) = &change.live {
            let errors = change.kind.validate(&change.object, Some(live));
            objections.extend(errors.into_iter().map(|e| format!("{}: {e}", change.place)));
        }
    }
    // Of an API in this process the same has been asked already.
    if objections.is_empty() && wanted().count() > 1 && !cluster.is_alone() {
        // One by itself is refused or not, but several must not be half accepted.
        let mut kinds = HashSet::new();
        let few = wanted().count() <= REHEARSED;
        let shown = wanted().filter(|change| {
            let ours = change.kind.group == "projectcalico.org";
            few || !ours || kinds.insert(change.kind.plural)
        });
        let rehearse = |change| async move {
            let sent = send(cluster, change, mode, Earnest::Rehearsal).await;
            let error = sent.err().filter(is_bad_input)?;
            Some(format!("{}: {error:#}", change.place))
        };
        let shown: Vec<&Change> = shown.collect();
        let rehearsed = stream::iter(shown).map(rehearse).buffered(AT_ONCE);
        objections.extend(rehearsed.filter_map(std::future::ready).collect::<Vec<_>>().await);
    }
    objections
}

/// Whether the server has refused the object for what it says.
fn is_bad_input(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| matches!(r.code, 400 | 413 | 415 | 422))
}

async fn send_all(cluster: &Cluster, changes: &[Change], mode: Mode) -> Result<Outcome> {
    let mut out = Out::new();
    let mut good = 0;
    let earnest = |change| async move {
        let change: &Change = change;
        match &change.refused {
            Some(why) => (change, Err(anyhow!("{why}"))),
            None => (change, send(cluster, change, mode, Earnest::Real).await),
        }
    };
    let places = changes.iter().map(|c| (c.kind.plural, c.kind.group, &c.namespace, &c.name));
    let mut progress = Progress::new(mode.done(), changes.len());
    let at_once = if places.collect::<HashSet<_>>().len() == changes.len() { AT_ONCE } else { 1 };
    // What follows in a file may need what stands before it, but not what is of the same kind.
    for same in changes.chunk_by(|a, b| std::ptr::eq(a.kind, b.kind)) {
        let mut sent = stream::iter(same).map(earnest).buffered(at_once);
        while let Some((change, sent)) = sent.next().await {
            progress.step();
            match sent {
                Ok(Sent { what, lost }) => {
                    good += 1;
                    out.line(&format!("{} {what}", change.label()))?;
                    if !lost.is_empty() {
                        progress.clear();
                        let why = kept::complaint(&lost);
                        print::complain(&format!("{}: {}: {why}", change.place, change.label()));
                    }
                }
                Err(error) => {
                    progress.clear();
                    print::complain(&format!("{}: {error:#}", change.place));
                }
            }
        }
    }
    drop(progress);
    let kinds = changes.iter().map(|c| c.kind.kind);
    conclude(out, mode.done(), good, kinds)
}

/// The last line, and the outcome.
pub(crate) fn conclude<'a>(
    mut out: Out,
    done: &str,
    good: usize,
    mut kinds: impl ExactSizeIterator<Item = &'a str>,
) -> Result<Outcome> {
    let all = kinds.len();
    let what = match kinds.next() {
        Some(first) if kinds.all(|k| k == first) => format!("'{first}' resource(s)"),
        _ => "resource(s)".to_owned(),
    };
    if good == all {
        out.line(&format!("Successfully {done} {good} {what}"))?;
    }
    out.finish()?;
    if good == all {
        return Ok(Outcome::Done);
    }
    print::complain(&format!("{done} {good} out of {all} {what}"));
    Ok(Outcome::Failed)
}

/// What became of an object.
struct Sent {
    /// In a word.
    what: &'static str,
    /// Fields that were not kept.
    lost: Vec<String>,
}

impl From<&'static str> for Sent {
    fn from(what: &'static str) -> Self {
        Self { what, lost: Vec::new() }
    }
}

/// Writes one object; when somebody else wrote it meanwhile, again on top of that.
async fn send(cluster: &Cluster, change: &Change, mode: Mode, earnest: Earnest) -> Result<Sent> {
    if cluster.source(change.kind) == Source::Node {
        return send_node(cluster, change, earnest).await.map(Sent::from);
    }
    let namespace = change.namespace.as_deref();
    let one = cluster.path(change.kind, namespace, Some(&change.name));
    let sent = |what, kept: Option<&Value>| {
        let lost = kept.map(|kept| kept::lost(change.kind, &change.object, kept));
        Sent { what, lost: lost.unwrap_or_default() }
    };
    let mut live = change.live.clone();
    for _ in 0..5 {
        let Some(existing) = &live else {
            let list = earnest.path(cluster.path(change.kind, namespace, None));
            match cluster.send(Method::POST, &list, Some(&change.object)).await {
                Ok(kept) => return Ok(sent("created", kept.as_ref())),
                Err(error) if is_conflict(&error) && mode == Mode::Apply => {
                    live = cluster.send(Method::GET, &one, None).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
        };
        let object = on_top_of(&change.object, existing);
        if same(&object, existing) {
            return Ok("unchanged".into());
        }
        match cluster.send(Method::PUT, &earnest.path(one.clone()), Some(&object)).await {
            Ok(kept @ Some(_)) => return Ok(sent("configured", kept.as_ref())),
            Ok(None) if mode == Mode::Replace => bail!("does not exist any more"),
            Ok(None) => live = None,
            Err(error) if is_conflict(&error) && own_version(&change.object).is_none() => {
                live = cluster.send(Method::GET, &one, None).await?;
            }
            Err(error) => return Err(error),
        }
    }
    bail!("somebody else keeps changing it: try again")
}

pub(crate) fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.code == 409)
}

fn own_version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

/// The object as it is to be, with what only the server knows taken from what exists.
pub(crate) fn on_top_of(object: &Value, live: &Value) -> Value {
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
pub(crate) fn same(object: &Value, live: &Value) -> bool {
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
async fn send_node(cluster: &Cluster, change: &Change, earnest: Earnest) -> Result<&'static str> {
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
        let one = cluster.path(change.kind, None, Some(&change.name));
        let patch = json!({ "metadata": metadata });
        return match cluster.send(Method::PATCH, &earnest.path(one), Some(&patch)).await? {
            Some(_) => Ok("configured"),
            None => bail!("does not exist any more"),
        };
    }
    metadata["name"] = change.name.as_str().into();
    let core = json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata });
    let list = earnest.path(cluster.path(change.kind, None, None));
    cluster.send(Method::POST, &list, Some(&core)).await?;
    Ok("created")
}

pub(crate) fn delete(access: &Access, args: &DeleteArgs) -> Result<Outcome> {
    let mut targets: Vec<(&'static Kind, Option<String>, String)> = Vec::new();
    match &args.kind {
        Some(_) if !args.files.filename.is_empty() => {
            return Err(usage("want either a kind with names or -f, not both"));
        }
        Some(word) => {
            let kind = kind(word)?;
            if args.names.is_empty() {
                return Err(usage(format!("want the name of the {} to delete", kind.kind)));
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
    wait(async {
        let cluster = Cluster::connect(access).await?;
        version::agree(&cluster, access).await?;
        if let Some(window) = args.confirm.confirm_within {
            let changes = doomed(&cluster, targets, args.skip_not_exists).await?;
            return unconfirmed::send_all(&cluster, changes, Mode::Delete, window).await;
        }
        let mut out = Out::new();
        let mut good = 0;
        let mut progress = Progress::new("deleted", targets.len());
        let each = |(kind, namespace, name): &(&'static Kind, Option<String>, String)| {
            let namespace = namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
            let slash = if kind.namespaced { format!("{namespace}/") } else { String::new() };
            let label = format!("{} {slash}{name}", kind.kind);
            let at = cluster.path(kind, Some(&namespace), Some(name));
            let (kind, cluster) = (*kind, &cluster);
            async move { (label, remove(cluster, kind, &at).await) }
        };
        for same in targets.chunk_by(|a, b| std::ptr::eq(a.0, b.0)) {
            let mut removed = stream::iter(same).map(each).buffered(AT_ONCE);
            while let Some((label, removed)) = removed.next().await {
                progress.step();
                if !matches!(removed, Ok(true)) {
                    progress.clear();
                }
                match removed {
                    Ok(true) => {
                        good += 1;
                        out.line(&format!("{label} deleted"))?;
                    }
                    Ok(false) if args.skip_not_exists => {
                        good += 1;
                        out.line(&format!("{label} does not exist"))?;
                    }
                    Ok(false) => print::complain(&format!("{label}: does not exist")),
                    Err(error) => print::complain(&format!("{label}: {error:#}")),
                }
            }
        }
        drop(progress);
        conclude(out, "deleted", good, targets.iter().map(|t| t.0.kind))
    })
}

/// What exists of what is to go.
async fn doomed(
    cluster: &Cluster,
    targets: Vec<(&'static Kind, Option<String>, String)>,
    skip: bool,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (kind, namespace, name) in targets {
        let namespace =
            kind.namespaced.then(|| namespace.unwrap_or_else(|| cluster.namespace.clone()));
        let slash = namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        let mut change = Change {
            place: format!("{} {slash}{name}", kind.kind),
            kind,
            object: json!({"apiVersion": kind.api_version(), "kind": kind.kind}),
            namespace,
            name,
            live: None,
            refused: None,
        };
        change.live = live(cluster, &change).await?;
        if skip && change.live.is_none() {
            continue;
        }
        change.refused = refusal(&change, Mode::Delete, false);
        changes.push(change);
    }
    Ok(changes)
}

/// Deletes one object. Says whether it was there.
async fn remove(cluster: &Cluster, kind: &Kind, at: &str) -> Result<bool> {
    if matches!(cluster.source(kind), Source::Pod | Source::Namespace | Source::Node) {
        bail!("a {} follows from other objects and cannot be deleted here", kind.kind);
    }
    Ok(cluster.send(Method::DELETE, at, None).await?.is_some())
}

/// The kind that a word means.
pub(crate) fn kind(word: &str) -> Result<&'static Kind> {
    api::by_word(word).with_context(|| {
        let words = api::kinds().iter().flat_map(|kind| {
            [kind.plural, kind.singular].into_iter().chain(kind.short.iter().copied())
        });
        if let Some(close) = suggest::closest(word, words) {
            return format!("{word:?} is no kind (did you mean {close}?)");
        }
        let mut known: Vec<&str> = api::kinds().iter().map(|k| k.plural).collect();
        known.sort_unstable();
        known.dedup();
        format!("{word:?} is no kind (want one of {})", known.join(", "))
    })
}
