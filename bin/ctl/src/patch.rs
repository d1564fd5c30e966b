//! `patch`, `label`: one object is changed in place.
//!
//! The change is made here, on what the server has, and checked as a whole before it is written; when somebody else
//! writes meanwhile, it is made again on that.

use anyhow::{Context as _, Result, anyhow, bail};
use api::{Kind, Source, convert};
use http::Method;
use k8s_openapi::api::core::v1;
use serde_json::{Map, Value, json};

use crate::apply::{self, Mode, is_conflict, kind};
use crate::args::{Access, ConfirmArgs, LabelArgs, PatchArgs, PatchType};
use crate::cluster::Cluster;
use crate::print::{self, Out};
use crate::{Outcome, kept, unconfirmed, usage, version, wait};

/// Times that an object is read anew because somebody else wrote it.
const ATTEMPTS: usize = 5;

pub(crate) fn patch(access: &Access, args: &PatchArgs) -> Result<Outcome> {
    let patch: Value = serde_saphyr::from_str(&args.patch)
        .map_err(|error| usage(format!("--patch is neither JSON nor YAML: {error}")))?;
    let change = Change::parse(patch, args.r#type)?;
    wait(async {
        let cluster = Cluster::connect(access).await?;
        version::agree(&cluster, access).await?;
        let target = Target::new(&cluster, (&args.kind, &args.name), args.namespace.as_deref())?;
        let target = Target { confirm: args.confirm, ..target };
        let mut out = Out::new();
        match target.modify(|object| change.apply(object)).await? {
            Modified::Refused(errors) => {
                for error in errors {
                    print::complain(&format!("{}: {error}", target.label()));
                }
                print::complain("nothing was changed");
                return Ok(Outcome::Failed);
            }
            Modified::Unconfirmed(outcome) => return Ok(outcome),
            Modified::Unchanged => out.line(&format!("{} unchanged", target.label()))?,
            Modified::Written(lost) => {
                out.line(&format!("{} patched", target.label()))?;
                if !lost.is_empty() {
                    print::complain(&format!("{}: {}", target.label(), kept::complaint(&lost)));
                }
            }
        }
        out.line(&format!("Successfully patched 1 '{}' resource", target.kind.kind))?;
        out.finish()?;
        Ok(Outcome::Done)
    })
}

/// A label as it is to be; without a value it is to go.
type Wanted<'a> = (&'a str, Option<&'a str>);

fn wanted(args: &LabelArgs) -> Result<Vec<Wanted<'_>>> {
    let mut all: Vec<Wanted<'_>> = Vec::new();
    for text in &args.labels {
        let wanted = match text.split_once('=') {
            Some(_) if args.remove => {
                return Err(usage("want KEY with --remove, without a value"));
            }
            Some((key, value)) => (key, Some(value)),
            None if args.remove => (text.as_str(), None),
            None => return Err(usage(format!("{text:?} has no value: want KEY=VALUE"))),
        };
        if all.iter().any(|(key, _)| *key == wanted.0) {
            return Err(usage(format!("label {:?} is given twice", wanted.0)));
        }
        all.push(wanted);
    }
    Ok(all)
}

pub(crate) fn label(access: &Access, args: &LabelArgs) -> Result<Outcome> {
    let wanted = wanted(args)?;
    wait(async {
        let cluster = Cluster::connect(access).await?;
        version::agree(&cluster, access).await?;
        let target = Target::new(&cluster, (&args.kind, &args.name), args.namespace.as_deref())?;
        let target = Target { confirm: args.confirm, ..target };
        let mut before = Vec::new();
        let modified = target.modify(|object| {
            let labels = &mut object["metadata"]["labels"];
            let old = |key: &str| labels.get(key).and_then(Value::as_str).map(str::to_owned);
            before = wanted.iter().map(|(key, _)| old(key)).collect();
            // All of them, or none.
            for ((key, value), old) in wanted.iter().zip(&before) {
                match (value, old) {
                    (None, None) => bail!("has no label {key}"),
                    (Some(value), Some(old)) if old != value && !args.overwrite => {
                        bail!("has label {key}={old} already: --overwrite replaces it")
                    }
                    _ => {}
                }
            }
            for (key, value) in &wanted {
                match value {
                    None => drop(labels.as_object_mut().and_then(|l| l.shift_remove(*key))),
                    Some(value) => labels[*key] = (*value).into(),
                }
            }
            Ok(())
        });
        match modified.await? {
            Modified::Refused(errors) => {
                for error in errors {
                    print::complain(&format!("{}: {error}", target.label()));
                }
                return Ok(Outcome::Failed);
            }
            Modified::Unconfirmed(outcome) => return Ok(outcome),
            Modified::Written(_) | Modified::Unchanged => {}
        }
        let mut out = Out::new();
        for ((key, value), old) in wanted.iter().zip(&before) {
            let (done, to) = match (value, old) {
                (None, _) => ("removed", "from"),
                (Some(value), Some(old)) if old == value => ("kept", "on"),
                (Some(_), Some(_)) => ("updated", "on"),
                (Some(_), None) => ("set", "on"),
            };
            out.line(&format!("Successfully {done} label {key} {to} {}", target.label()))?;
        }
        out.finish()?;
        Ok(Outcome::Done)
    })
}

/// What `--patch` says.
enum Change {
    Merge(Value),
    Json(json_patch::Patch),
}

impl Change {
    fn parse(patch: Value, form: PatchType) -> Result<Self> {
        match form {
            // No list of these kinds has keys that a strategic patch merges by.
            PatchType::Strategic | PatchType::Merge if patch.is_object() => Ok(Self::Merge(patch)),
            PatchType::Strategic | PatchType::Merge => {
                Err(usage("--patch: want an object, as {\"spec\": {...}}"))
            }
            PatchType::Json => serde_json::from_value(patch).map(Self::Json).map_err(|error| {
                usage(format!("--patch: want a list of operations (RFC 6902): {error}"))
            }),
        }
    }

    fn apply(&self, object: &mut Value) -> Result<()> {
        match self {
            Self::Merge(patch) => openapi::patch::merge(object, patch),
            Self::Json(patch) => json_patch::patch(object, patch)?,
        }
        Ok(())
    }
}

/// How a change went.
pub(crate) enum Modified {
    /// But for these fields.
    Written(Vec<String>),
    /// Written as a change that must be confirmed, or not; all is said.
    Unconfirmed(Outcome),
    Unchanged,
    /// What is wrong with the object as it would be.
    Refused(Vec<String>),
}

/// One object.
pub(crate) struct Target<'a> {
    cluster: &'a Cluster,
    kind: &'static Kind,
    namespace: Option<String>,
    name: &'a str,
    confirm: ConfirmArgs,
}

impl<'a> Target<'a> {
    pub(crate) fn new(
        cluster: &'a Cluster,
        (word, name): (&str, &'a str),
        namespace: Option<&str>,
    ) -> Result<Self> {
        let kind = kind(word)?;
        if matches!(cluster.source(kind), Source::Pod | Source::Namespace) {
            bail!("a {} follows from other objects and cannot be changed here", kind.kind);
        }
        let namespace = kind.namespaced.then(|| namespace.unwrap_or(&cluster.namespace).to_owned());
        Ok(Self { cluster, kind, namespace, name, confirm: ConfirmArgs::default() })
    }

    fn label(&self) -> String {
        let slash = self.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
        format!("{} {slash}{}", self.kind.kind, self.name)
    }

    fn path(&self) -> String {
        self.cluster.path(self.kind, self.namespace.as_deref(), Some(self.name))
    }

    /// Reads it, changes it, checks it, writes it.
    pub(crate) async fn modify(
        &self,
        mut change: impl FnMut(&mut Value) -> Result<()>,
    ) -> Result<Modified> {
        for _ in 0..ATTEMPTS {
            let live = self.cluster.send(Method::GET, &self.path(), None).await?;
            let live = live.ok_or_else(|| anyhow!("does not exist"));
            let live = live.with_context(|| self.label())?;
            let view = self.view(&live)?;
            let mut object = view.clone();
            change(&mut object).with_context(|| self.label())?;
            for fixed in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
                if object.pointer(fixed) != view.pointer(fixed) {
                    bail!("{}: {} cannot be changed", self.label(), fixed[1..].replace('/', "."));
                }
            }
            if object == view {
                return Ok(Modified::Unchanged);
            }
            self.kind.default(&mut object);
            let errors = self.kind.validate(&object, Some(&view));
            if !errors.is_empty() {
                return Ok(Modified::Refused(errors.iter().map(ToString::to_string).collect()));
            }
            if let Some(window) = self.confirm.confirm_within {
                let changes = vec![self.as_change(view, object)];
                let sent = unconfirmed::send_all(self.cluster, changes, Mode::Replace, window);
                return sent.await.map(Modified::Unconfirmed);
            }
            let version = |o: &Value| o.pointer("/metadata/resourceVersion").cloned();
            match self.write(&view, &object).await {
                Ok(Some(kept)) => {
                    let stored = self.cluster.source(self.kind) != Source::Node;
                    let lost = stored.then(|| kept::lost(self.kind, &object, &kept));
                    return Ok(Modified::Written(lost.unwrap_or_default()));
                }
                Ok(None) => bail!("{}: does not exist any more", self.label()),
                Err(error) if is_conflict(&error) && version(&object) == version(&view) => {}
                Err(error) => return Err(error.context(self.label())),
            }
        }
        bail!("{}: somebody else keeps changing it: try again", self.label())
    }

    /// As `replace` would do it, over this version alone.
    fn as_change(&self, before: Value, after: Value) -> apply::Change {
        apply::Change {
            place: self.label(),
            kind: self.kind,
            object: after,
            namespace: self.namespace.clone(),
            name: self.name.to_owned(),
            live: Some(before),
            refused: None,
        }
    }

    /// As users know it.
    fn view(&self, live: &Value) -> Result<Value> {
        if self.cluster.source(self.kind) != Source::Node {
            return Ok(live.clone());
        }
        let node: v1::Node = serde_json::from_value(live.clone())?;
        Ok(serde_json::to_value(convert::node_view(&node))?)
    }

    async fn write(&self, before: &Value, after: &Value) -> Result<Option<Value>> {
        if self.cluster.source(self.kind) != Source::Node {
            return self.cluster.send(Method::PUT, &self.path(), Some(after)).await;
        }
        let metadata = node_metadata(before, after)?;
        let patch = json!({ "metadata": metadata });
        self.cluster.send(Method::PATCH, &self.path(), Some(&patch)).await
    }
}

/// What changes in the labels and annotations of the core Node that keeps a Node.
fn node_metadata(before: &Value, after: &Value) -> Result<Value> {
    let read = |o: &Value| serde_json::from_value::<api::v3::Node>(o.clone());
    let (before, after) = (read(before)?, read(after)?);
    let (old, new) = (convert::annotations_of_node(&before), convert::annotations_of_node(&after));
    let changed = new.into_iter().filter(|(key, value)| old.get(key) != Some(value));
    let annotations: Map<_, _> = changed.map(|(key, value)| (key, json!(value))).collect();
    let (old, new) = (before.labels(), after.labels());
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|k| (k.clone(), Value::Null));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    let labels: Map<_, _> = gone.chain(set.map(|(k, v)| (k.clone(), json!(v)))).collect();
    let version = before.metadata.resource_version.as_deref();
    Ok(json!({ "annotations": annotations, "labels": labels, "resourceVersion": version }))
}
