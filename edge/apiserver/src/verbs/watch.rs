//! watch: what there is, then what changes, from one revision on without a gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answer, read, show};
use crate::api::Api;
use crate::derived;
use crate::negotiate::{Form, form, metadata_only};
use crate::request::Call;
use crate::selectors::Filter;
use crate::status::{ApiError, Result};
use crate::storage::{Change, ChangeKind, Object};
use crate::table;
use crate::tier_rights;
use crate::view::View;

/// How often an idle watch is told the revision.
const BOOKMARK_EVERY: Duration = Duration::from_secs(20);
/// How many foreign changes may pass before a watch is told the revision.
const BOOKMARK_AFTER: u64 = 2_000;
/// The default length of a watch: half an hour to an hour, spread by the time of day.
const DEFAULT_SECONDS: u64 = 1_800;

/// How many events are prepared at a time: a client that reads slowly holds no more of them.
const AHEAD: usize = 256;

/// An event that waits to be sent.
enum Ready {
    Line(Bytes),
    Object(&'static str, Arc<Object>),
}

/// A watch in progress. [`Watch::next`] gives one line at a time.
pub(crate) struct Watch {
    api: Arc<Api>,
    call: Call,
    filter: Filter,
    form: Form,
    bookmarks: bool,
    /// Changes up to this revision have been looked at.
    seen: u64,
    /// The last revision the client was told.
    told: u64,
    /// The revision of the tiers, if he sees only some.
    tiers: Option<u64>,
    ready: VecDeque<Ready>,
    revisions: tokio::sync::watch::Receiver<u64>,
    ends: Instant,
    over: bool,
    headed: bool,
}

/// Opens a watch. Errors that are known at once come as a `Status`, later ones as an `ERROR` event.
pub(crate) fn start(api: &Arc<Api>, call: &Call) -> Result<Answer> {
    let filter = Filter::from_query(&call.query, &call.resource)?;
    let bookmarks = call.query.flag("allowWatchBookmarks")?;
    let initial =
        call.query.get("sendInitialEvents").is_some() && call.query.flag("sendInitialEvents")?;
    if call.query.get("sendInitialEvents").is_some()
        && call.query.get("resourceVersionMatch") != Some("NotOlderThan")
    {
        return Err(ApiError::bad_request(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let from = read::revision(call)?;
    let revisions = api.storage.subscribe();
    let current = derived::revision(&*api.storage, &call.resource);
    if let Some(asked) = from.filter(|asked| *asked > current) {
        return Err(read::too_large(asked, current));
    }
    let default = DEFAULT_SECONDS + current % DEFAULT_SECONDS;
    let seconds = call.query.number("timeoutSeconds")?.filter(|s| *s > 0).unwrap_or(default);
    let mut watch = Watch {
        api: api.clone(),
        call: call.clone(),
        filter,
        form: form(&call.headers)?,
        bookmarks,
        seen: from.unwrap_or(current),
        told: 0,
        tiers: call
            .tiers
            .as_ref()
            .filter(|tiers| tiers.by_rights)
            .map(|_| api.storage.revision(tier_rights::PREFIX)),
        ready: VecDeque::new(),
        revisions,
        ends: Instant::now() + Duration::from_secs(seconds),
        over: false,
        headed: false,
    };
    let state = initial || (from.is_none() && call.query.get("sendInitialEvents").is_none());
    if state {
        watch.initial(initial && bookmarks)?;
    } else {
        // Expiry shows as a refusal of the request, which every client understands.
        drop(derived::changes(&*api.storage, &watch.call, watch.seen)?);
    }
    Ok(Answer::Watch(Box::new(watch)))
}

impl Watch {
    /// The next line, or `None` when the watch is over.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let mut bookmark_at = Instant::now() + BOOKMARK_EVERY;
        loop {
            match self.ready.pop_front() {
                Some(Ready::Line(line)) => return Some(line),
                Some(Ready::Object(kind, object)) => return Some(self.encode(kind, &object)),
                None => {}
            }
            if self.over {
                return None;
            }
            self.revisions.mark_unchanged();
            if self.tiers_changed() {
                // Whoever watches anew sees what he may see now.
                return None;
            }
            let whole = self.collect();
            if !whole || !self.ready.is_empty() {
                continue;
            }
            if self.bookmarks && self.seen > self.told + BOOKMARK_AFTER {
                self.bookmark(false);
                continue;
            }
            tokio::select! {
                changed = self.revisions.changed() => self.over = changed.is_err(),
                () = tokio::time::sleep_until(self.ends) => {
                    self.over = true;
                    if self.bookmarks { self.bookmark(false); }
                }
                () = tokio::time::sleep_until(bookmark_at), if self.bookmarks => {
                    self.bookmark(false);
                    bookmark_at = Instant::now() + BOOKMARK_EVERY;
                }
            }
        }
    }

    /// Whether a tier has come or gone since the watch began that is confined to some of them.
    fn tiers_changed(&mut self) -> bool {
        let Some(seen) = self.tiers else { return false };
        match self.api.storage.changes(tier_rights::PREFIX, seen) {
            Ok(found) => {
                self.tiers = Some(found.upto);
                found.changes.iter().any(|change| change.kind != ChangeKind::Updated)
            }
            Err(_) => true,
        }
    }

    /// Sends what there is now as `ADDED` events.
    fn initial(&mut self, end_marker: bool) -> Result<()> {
        let listing = derived::list(&self.api, &self.call, None)?;
        self.seen = listing.revision;
        for object in &listing.objects {
            if read::named(&self.call, object) && self.matches(object) {
                self.push("ADDED", object.clone());
            }
        }
        if end_marker {
            self.bookmark(true);
        }
        Ok(())
    }

    fn matches(&self, object: &Object) -> bool {
        read::filter_shown(&self.call, &self.filter, object)
    }

    /// Looks at the changes since the last time. Says whether at all of them.
    fn collect(&mut self) -> bool {
        let storage = &*self.api.storage;
        let found = derived::remade(storage, &self.call.resource, self.seen)
            .and_then(|remade| Ok((remade, derived::changes(storage, &self.call, self.seen)?)));
        match found {
            Ok((true, _)) => {
                self.end(&ApiError::expired("how the interfaces of pods are called has changed"));
            }
            Ok((false, found)) => {
                for change in found.changes {
                    // What one transaction wrote goes together.
                    if self.ready.len() >= AHEAD && change.object.revision() > self.seen {
                        return false;
                    }
                    self.consider(&change);
                    self.seen = change.object.revision();
                }
                self.seen = found.upto;
            }
            Err(error) => self.end(&error.into()),
        }
        true
    }

    /// Tells why the watch cannot go on.
    fn end(&mut self, error: &ApiError) {
        let line = line("ERROR", error.status().to_string().as_bytes());
        self.ready.push_back(Ready::Line(line));
        self.over = true;
    }

    /// Turns a change into the event that a watcher of the filtered set sees.
    fn consider(&mut self, change: &Change) {
        let shown = |object: &Arc<Object>| {
            let object = derived::shown(&*self.api.storage, &self.call.resource, object)?;
            (read::named(&self.call, &object) && self.matches(&object)).then_some(object)
        };
        let after = shown(&change.object);
        let before = match (&change.previous, change.kind) {
            (Some(previous), _) => shown(previous),
            (None, ChangeKind::Created) => None,
            // Unknown after a restart: assume it was seen; an extra DELETED does no harm.
            (None, _) => derived::shown(&*self.api.storage, &self.call.resource, &change.object)
                .filter(|object| read::named(&self.call, object)),
        };
        match (change.kind, before, after) {
            (ChangeKind::Updated, None, None) if self.forgot(change) => {
                self.end(&ApiError::expired("what an object was made from is no longer known"));
            }
            (ChangeKind::Updated, Some(_), None) if self.may_not_tell(change) => {
                self.end(&ApiError::expired("in which tier an object was is no longer known"));
            }
            (ChangeKind::Deleted, None, _) | (_, None, None) => {}
            (ChangeKind::Deleted, Some(_), Some(last)) => self.push("DELETED", last),
            (_, None, Some(after)) => self.push("ADDED", after),
            (_, Some(_), Some(after)) => self.push("MODIFIED", after),
            (_, Some(before), None) => {
                // It left the set: its last state in the set, at the revision it left.
                let (key, last) = (before.key().clone(), before.value().clone());
                let last = Object::new(key, change.object.revision(), last);
                self.push("DELETED", Arc::new(last));
            }
        }
    }

    /// Whether something may have been shown before `change` that cannot be named any more: its
    /// source now makes nothing, and what that was is out of reach.
    fn forgot(&self, change: &Change) -> bool {
        let made = derived::shown(&*self.api.storage, &self.call.resource, &change.object);
        change.previous.is_none() && made.is_none()
    }

    /// Whether `change` may have taken an object out of the tiers that the watch is confined to, and what it
    /// was before is not known: what it is now must not be shown.
    fn may_not_tell(&self, change: &Change) -> bool {
        let outside = |tiers: &Arc<tier_rights::Tiers>| !tiers.hold(change.object.value());
        change.previous.is_none() && self.call.tiers.as_ref().is_some_and(outside)
    }

    fn push(&mut self, kind: &'static str, object: Arc<Object>) {
        self.told = object.revision();
        self.ready.push_back(Ready::Object(kind, object));
    }

    fn encode(&mut self, kind: &str, object: &Object) -> Bytes {
        if self.form == Form::Plain && self.call.resource.view == View::Same {
            return line(kind, object.json());
        }
        let shown = show(&self.call, object.value());
        self.encode_shown(kind, &shown)
    }

    fn encode_shown(&mut self, kind: &str, shown: &Value) -> Bytes {
        let text = match self.form {
            Form::Plain => shown.to_string(),
            Form::Metadata => metadata_only(shown).to_string(),
            Form::Table => {
                let include = self.call.query.get("includeObject").unwrap_or("Metadata");
                let columns = !std::mem::replace(&mut self.headed, true);
                let row = std::slice::from_ref(shown);
                table::table(&self.call.resource, row, include, columns).to_string()
            }
        };
        line(kind, text.as_bytes())
    }

    fn bookmark(&mut self, end_of_initial: bool) {
        if self.told == self.seen && !end_of_initial {
            return;
        }
        self.told = self.seen;
        let resource = &self.call.resource;
        let mut object = json!({
            "kind": resource.kind, "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": self.seen.to_string(), "creationTimestamp": null},
        });
        if end_of_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let line = match self.form {
            Form::Table => {
                let mut table = table::table(resource, &[], "None", false);
                table["metadata"] = object["metadata"].clone();
                table["rows"] = json!([{"cells": [], "object": metadata_only(&object)}]);
                line("BOOKMARK", table.to_string().as_bytes())
            }
            _ => self.encode_shown("BOOKMARK", &object),
        };
        self.ready.push_back(Ready::Line(line));
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}
