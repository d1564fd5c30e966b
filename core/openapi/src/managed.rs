//! Field ownership: who set which field, and what server-side apply makes of it.
//!
//! An object carries its owners in `metadata.managedFields`: one entry per manager, operation and subresource, each with a
//! set of field paths. [`apply`] merges a configuration into an object and refuses, unless forced, to change what others
//! own; [`track`] records what any other kind of write changed.

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::diff::{self, Comparison};
use crate::equal::equal_but;
use crate::fieldset::{FieldSet, show};
use crate::schema::Schema;

mod owners;

use owners::{Entry, Operation, Owner, Owners};

/// The owner of what an object held before anyone's fields were tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Where client-side `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A field that cannot be applied because someone else owns it with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner as the message names it: `"x" using v1`.
    pub manager: String,
    /// The field: `.spec.replicas`.
    pub field: String,
    /// The cause's message: `conflict with "x" using v1`.
    pub message: String,
}

/// Why a configuration was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// Others own fields that it changes (HTTP 409).
    #[error("{message}")]
    Conflict {
        /// The whole message, as the API words it.
        message: String,
        /// One per field and owner.
        causes: Vec<Conflict>,
    },
    /// The configuration itself cannot be applied (HTTP 400).
    #[error("{0}")]
    Invalid(String),
}

/// Applies a configuration: the object that results, with its owners, before defaulting and validation.
///
/// `live` is the stored object, or `None` to create it. `now` is the time for the manager's entry (RFC 3339).
///
/// # Errors
/// [`ApplyError::Conflict`] if it would change fields of others and `force` is off; [`ApplyError::Invalid`] if the
/// configuration does not fit the schema or carries owners.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    subresource: &str,
    now: &str,
) -> Result<Value, ApplyError> {
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
    }
    diff::check(&schema.tree, schema.root, applied, &mut Vec::new())
        .map_err(ApplyError::Invalid)?;
    let blank =
        json!({"apiVersion": applied["apiVersion"], "kind": applied["kind"], "metadata": {}});
    let stored = live.unwrap_or(&blank);
    let application = Application {
        schema,
        live: without_owners(stored),
        applied,
        owner: Owner::new(manager, Operation::Apply, "", subresource),
        version: applied["apiVersion"].as_str().unwrap_or_default().to_owned(),
        subresource,
    };
    let mut before = Owners::decode(&stored["metadata"]["managedFields"]).unwrap_or_default();
    if before.is_empty() {
        let written = Write { schema, manager: BEFORE_FIRST_APPLY, subresource, now };
        written.record(&mut before, &blank, &application.live);
    }
    let before = before.map_sets(|set| set.collapsed(&schema.tree, schema.root));
    let (object, mut owners) = match application.run(before.clone(), force) {
        Err(conflicts) if manager == "kubectl" => application.upgrade(before, conflicts),
        done => done,
    }
    .map_err(report)?;
    if object != application.live || live.is_none() {
        owners.set_time(&application.owner, now);
    }
    // A list or map that lost its last entry is null until here, which counts as a change, not as a removal.
    let mut object = object;
    schema.normalize(&mut object);
    if manager == "kubectl" {
        refresh_last_applied(&mut object, applied);
    }
    owners.write(&mut object);
    keep_old_times(stored, &mut object);
    Ok(object)
}

type Conflicts = Vec<(Owner, FieldSet)>;

struct Application<'a> {
    schema: &'a Schema,
    live: Value,
    applied: &'a Value,
    owner: Owner,
    version: String,
    subresource: &'a str,
}

impl Application<'_> {
    fn run(&self, mut owners: Owners, force: bool) -> Result<(Value, Owners), Conflicts> {
        let (tree, root) = (&*self.schema.tree, self.schema.root);
        let merged =
            diff::merge(tree, root, Some(&self.live), Some(self.applied)).unwrap_or(Value::Null);
        let set = diff::fields_of(tree, root, self.applied)
            .without(&reset_fields(self.schema, self.subresource));
        let last = owners.remove(&self.owner);
        let time = last.as_ref().and_then(|e| e.time.clone());
        owners.insert(self.owner.clone(), Entry { set, version: self.version.clone(), time });
        let object = match last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &owners, &last.set),
            _ => merged,
        };
        let comparison = diff::compare(tree, root, &self.live, &object);
        let conflicts = take_over(
            &mut owners,
            Some(&self.owner),
            &comparison,
            &reset_fields(self.schema, self.subresource),
        );
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        owners.strip(&self.owner);
        Ok((object, owners))
    }

    /// Removes what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, owners: &Owners, last: &FieldSet) -> Value {
        let (tree, root) = (&*self.schema.tree, self.schema.root);
        let named = |set: &FieldSet| set.with_named_parents(tree, root);
        let all = named(&diff::fields_of(tree, root, &merged));
        let last = named(last);
        let bare = diff::remove(tree, root, &merged, &last);
        let owned = owners.sets().fold(FieldSet::default(), |sum, set| sum.union(set));
        let held = named(&diff::fields_of(tree, root, &bare)).union(&named(&owned));
        let kept = diff::remove(tree, root, &merged, &all.difference(&held));
        let gone = all.difference(&named(&diff::fields_of(tree, root, &kept)));
        diff::remove(tree, root, &merged, &gone.intersection(&last))
    }

    /// An object under client-side apply passes to server-side apply without conflicts over what was applied last.
    fn upgrade(&self, owners: Owners, conflicts: Conflicts) -> Result<(Value, Owners), Conflicts> {
        let Some(allowed) = self.applied_last() else { return Err(conflicts) };
        let left: Conflicts = conflicts
            .into_iter()
            .map(|(owner, set)| (owner, set.difference(&allowed)))
            .filter(|(_, set)| !set.is_empty())
            .collect();
        if left.is_empty() { self.run(owners, true) } else { Err(left) }
    }

    /// The fields of the last client-side apply that still have their values.
    fn applied_last(&self) -> Option<FieldSet> {
        let text = self.live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
        let last: Value = serde_json::from_str(text).ok()?;
        if last["apiVersion"] != self.applied["apiVersion"] {
            return None;
        }
        let (tree, root) = (&*self.schema.tree, self.schema.root);
        diff::check(tree, root, &last, &mut Vec::new()).ok()?;
        let changed = diff::compare(tree, root, &last, &self.live);
        Some(
            diff::fields_of(tree, root, &last)
                .difference(&changed.written())
                .difference(&changed.removed),
        )
    }
}

/// Takes the fields that changed from all owners but one; what they lose by a new value are conflicts.
fn take_over(
    owners: &mut Owners,
    me: Option<&Owner>,
    comparison: &Comparison,
    ignored: &FieldSet,
) -> Conflicts {
    let written = comparison.written().without(ignored);
    let removed = comparison.removed.without(ignored);
    let mut conflicts = Vec::new();
    for (owner, entry) in owners.iter_mut().filter(|(owner, _)| Some(*owner) != me) {
        let conflict = entry.set.intersection(&written);
        entry.set = entry.set.difference(&conflict).difference(&removed);
        if !conflict.is_empty() {
            conflicts.push((owner.clone(), conflict));
        }
    }
    owners.drop_empty();
    conflicts
}

fn report(conflicts: Conflicts) -> ApplyError {
    let causes: Vec<Conflict> = conflicts
        .iter()
        .flat_map(|(owner, set)| {
            let manager = owner.to_string();
            set.paths().into_iter().map(move |path| Conflict {
                field: show(&path),
                message: format!("conflict with {manager}"),
                manager: manager.clone(),
            })
        })
        .collect();
    let message = if let [only] = &causes[..] {
        format!("Apply failed with 1 conflict: {}: {}", only.message, only.field)
    } else {
        let mut lines = Vec::new();
        for (owner, set) in &conflicts {
            lines.push(format!("conflicts with {owner}:"));
            lines.extend(set.paths().iter().map(|path| format!("- {}", show(path))));
        }
        format!("Apply failed with {} conflicts: {}", causes.len(), lines.join("\n"))
    };
    ApplyError::Conflict { message, causes }
}

/// Records in `after` who changed what, for every write but server-side apply. `before` is `None` on creation.
///
/// `after` is the object as it will be stored, defaults included. Owners that it carries count (a client may edit them;
/// an empty list forgets them all), except in a write to a subresource; without any, those of `before` do.
pub fn track(
    schema: &Schema,
    before: Option<&Value>,
    after: &mut Value,
    manager: &str,
    subresource: &str,
    now: &str,
) {
    let blank = json!({"apiVersion": after["apiVersion"], "kind": after["kind"], "metadata": {}});
    let stored = before.unwrap_or(&blank);
    let mut owners = starting_owners(stored, after, subresource)
        .map_sets(|set| set.collapsed(&schema.tree, schema.root));
    // An object whose owners were forgotten is tracked again from its next server-side apply on.
    let exists = stored["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty());
    if !(owners.is_empty() && exists) {
        let write = Write { schema, manager, subresource, now };
        write.record(&mut owners, stored, after);
    }
    owners.write(after);
    keep_old_times(stored, after);
}

/// A write other than server-side apply.
struct Write<'a> {
    schema: &'a Schema,
    manager: &'a str,
    subresource: &'a str,
    now: &'a str,
}

impl Write<'_> {
    /// Gives what changed from `old` to `new` to the manager.
    fn record(&self, owners: &mut Owners, old: &Value, new: &Value) {
        let ignored = reset_fields(self.schema, self.subresource);
        let comparison = diff::compare(&self.schema.tree, self.schema.root, old, new);
        take_over(owners, None, &comparison, &ignored);
        let written = Owners::stripped(&comparison.written().without(&ignored));
        if !written.is_empty() {
            let version = new["apiVersion"].as_str().unwrap_or_default().to_owned();
            let owner = Owner::new(self.manager, Operation::Update, &version, self.subresource);
            let set =
                owners.remove(&owner).map_or_else(|| written.clone(), |e| e.set.union(&written));
            owners.insert(owner, Entry { set, version, time: Some(self.now.to_owned()) });
        }
        owners.cap();
    }
}

fn starting_owners(stored: &Value, after: &Value, subresource: &str) -> Owners {
    let kept = || Owners::decode(&stored["metadata"]["managedFields"]).unwrap_or_default();
    if !subresource.is_empty() {
        return kept();
    }
    let given = &after["metadata"]["managedFields"];
    let reset = given.as_array().is_some_and(|list| match list.as_slice() {
        [] => true,
        [one] => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    });
    if reset {
        return Owners::default();
    }
    Owners::decode(given).filter(|owners| !owners.is_empty()).unwrap_or_else(kept)
}

/// The fields that a write to this endpoint cannot change.
fn reset_fields(schema: &Schema, subresource: &str) -> FieldSet {
    match subresource {
        "" if schema.has_status() => FieldSet::of(&[&["status"]]),
        "status" => FieldSet::of(&[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ]),
        _ => FieldSet::default(),
    }
}

fn without_owners(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.shift_remove("managedFields");
    }
    object
}

/// A write that changes nothing but times changes nothing.
fn keep_old_times(before: &Value, after: &mut Value) {
    if equal_but(before, after, &[&["metadata", "managedFields", "time"]]) {
        after["metadata"]["managedFields"] = before["metadata"]["managedFields"].clone();
        if after["metadata"]["managedFields"].is_null()
            && let Some(meta) = after["metadata"].as_object_mut()
        {
            meta.shift_remove("managedFields");
        }
    }
}

/// Keeps the annotation of client-side apply true, so that one can go back to it.
fn refresh_last_applied(object: &mut Value, applied: &Value) {
    let annotation = object["metadata"]["annotations"].get(LAST_APPLIED);
    if annotation.and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut configuration = applied.clone();
    if let Some(annotations) =
        configuration["metadata"].get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.shift_remove(LAST_APPLIED);
    }
    configuration.sort_all_objects();
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(format!("{configuration}\n"));
}
