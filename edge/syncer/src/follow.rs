//! List, then watch, then list again only if the history is gone.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confirm::Marked;
use datastore::{Backoff, Datastore, Error, Item, Next, WatchEvent};
use futures_util::StreamExt;
use model::{Update, WorkloadId};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::kinds::{self, Kind, Raw, Read, Reader, Seen, gone};

/// Where everything goes. Called from the syncer's tasks: must not block.
pub trait Sink: Send + Sync + 'static {
    /// A change for the calculation.
    fn update(&self, update: Update);
    /// A change for the agent.
    fn seen(&self, seen: Seen);
    /// An object that counts as absent or fails closed, or parts of it, and why; no reasons: it is fine (again), or
    /// gone. `object` is `Kind namespace/name`.
    fn refused(&self, object: &str, reasons: &[String]);
    /// How it goes.
    fn state(&self, state: SyncState);
}

/// How it goes with one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// A list begins.
    Listing(&'static str),
    /// The server answers.
    Connected(&'static str),
    /// It does not; trying again.
    Failing(&'static str, String),
}

/// What is followed on behalf of which node.
#[derive(Clone, Debug)]
pub struct Interests {
    /// The node.
    pub node: String,
    /// How the names of pod interfaces begin.
    pub interface_prefix: String,
    /// There is no Kubernetes: endpoints, nodes and profiles are objects of their own.
    pub alone: bool,
}

/// How long a kind that the server does not know is left alone.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);

/// Follows every kind until dropped.
pub async fn run(datastore: Datastore, interests: Interests, sink: Arc<impl Sink>) {
    let Interests { node, interface_prefix, alone } = interests;
    let reader = Reader { node, interface_prefix };
    let kinds = kinds::followed(alone);
    let missing = Arc::new(AtomicUsize::new(kinds.len()));
    let (name, profile) = api::convert::default_allow_profile();
    sink.update(Update::Profile(name, Some(Arc::new(profile))));
    let mut tasks = JoinSet::new();
    for kind in kinds {
        let follower = Follower {
            datastore: datastore.clone(),
            kind,
            reader: reader.clone(),
            sink: sink.clone(),
            known: HashMap::new(),
            lists: 0,
            missing: Some(missing.clone()),
        };
        tasks.spawn(follower.follow());
    }
    while tasks.join_next().await.is_some() {}
}

/// What was said about an object. There may be hundreds of thousands.
struct Known {
    revision: u64,
    /// The list that it was in last.
    list: u32,
    refused: bool,
    said: Said,
}

/// What is to be taken back when the object is gone.
enum Said {
    Nothing,
    /// A workload of the object's own name.
    Workload,
    Other(Box<Gone>),
}

/// An update and what was seen, both in their gone form.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gone {
    update: Option<Update>,
    seen: Option<Seen>,
}

impl Said {
    fn of(key: &str, gone: Gone) -> Self {
        match gone {
            Gone { update: None, seen: None } => Self::Nothing,
            Gone { update: Some(Update::Workload(id, None)), seen: None }
                if id == workload_id(key) =>
            {
                Self::Workload
            }
            other => Self::Other(Box::new(other)),
        }
    }

    fn gone(self, key: &str) -> Gone {
        match self {
            Self::Nothing => Gone::default(),
            Self::Workload => {
                Gone { update: Some(Update::Workload(workload_id(key), None)), seen: None }
            }
            Self::Other(gone) => *gone,
        }
    }
}

fn workload_id(key: &str) -> WorkloadId {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    WorkloadId { namespace: namespace.into(), name: name.into() }
}

struct Follower<S> {
    datastore: Datastore,
    kind: Kind,
    reader: Reader,
    sink: Arc<S>,
    known: HashMap<Box<str>, Known>,
    /// How many lists have begun.
    lists: u32,
    /// Kinds that were never listed; `None` once this one was.
    missing: Option<Arc<AtomicUsize>>,
}

#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    namespace: String,
    name: String,
    resource_version: String,
}

impl HeadMeta {
    fn key(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    fn revision(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.resource_version.hash(&mut hasher);
        hasher.finish()
    }
}

impl<S: Sink> Follower<S> {
    async fn follow(mut self) {
        let mut backoff = Backoff::default();
        let mut at: Option<String> = None;
        loop {
            let step = match at.take() {
                None => self.list().await,
                Some(revision) => self.watch(revision).await,
            };
            match step {
                Ok(next) => {
                    backoff.reset();
                    at = Some(next);
                }
                Err(Stopped { error, resume }) => {
                    at = resume.filter(|_| error.next() != Next::Relist);
                    self.failed(&error, &mut backoff).await;
                }
            }
        }
    }

    async fn failed(&mut self, error: &Error, backoff: &mut Backoff) {
        let plural = self.kind.resource.plural;
        if matches!(error, Error::NotFound(_)) {
            // A cluster without this kind has no objects of it.
            self.lists = self.lists.wrapping_add(1);
            self.forget_unlisted();
            self.listed();
            tokio::time::sleep(UNKNOWN_KIND).await;
            return;
        }
        tracing::warn!(kind = plural, %error, "following failed, trying again");
        self.sink.state(SyncState::Failing(plural, error.to_string()));
        backoff.wait().await;
    }

    /// The whole list, page by page, and what is missing from it. Returns its revision.
    async fn list(&mut self) -> Result<String, Stopped> {
        let stop = |error| Stopped { error, resume: None };
        self.sink.state(SyncState::Listing(self.kind.resource.plural));
        self.lists = self.lists.wrapping_add(1);
        let mut more: Option<String> = None;
        loop {
            let page = self.datastore.list(&self.kind.resource, self.kind.page, more.as_deref());
            let page = page.await.map_err(stop)?;
            for item in page.items {
                match item {
                    Item::Text(text) => self.put(Raw::Text(text.get())),
                    Item::Value(value) => self.put(Raw::Value(value)),
                }
            }
            more = page.more;
            if more.is_none() {
                self.forget_unlisted();
                self.listed();
                self.sink.state(SyncState::Connected(self.kind.resource.plural));
                return Ok(page.revision);
            }
        }
    }

    /// Until the watch ends. Returns the revision to go on from.
    async fn watch(&mut self, mut revision: String) -> Result<String, Stopped> {
        let stop = |error, resume: &str| Stopped { error, resume: Some(resume.to_owned()) };
        let watch = self.datastore.watch(&self.kind.resource, &revision);
        let mut events = watch.await.map_err(|e| stop(e, &revision))?;
        self.sink.state(SyncState::Connected(self.kind.resource.plural));
        while let Some(event) = events.next().await {
            match event.map_err(|e| stop(e, &revision))? {
                WatchEvent::Put(object) => {
                    revision_of(&object).clone_into(&mut revision);
                    self.put(Raw::Value(object));
                }
                WatchEvent::Gone(object) => {
                    revision_of(&object).clone_into(&mut revision);
                    if let Ok(head) = Head::deserialize(&object) {
                        self.forget(&head.metadata.key());
                    }
                }
                WatchEvent::Bookmark(at) => revision = at,
            }
        }
        // Servers that end watches at once must not be asked in a tight loop.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(revision)
    }

    /// Takes in one object, if it has a name.
    fn put(&mut self, raw: Raw<'_>) {
        let head = match &raw {
            Raw::Text(text) => serde_json::from_str::<Head>(text),
            Raw::Value(value) => Head::deserialize(value),
        };
        let Ok(Head { metadata: head }) = head else { return };
        let (key, revision) = (head.key(), head.revision());
        let mut was_refused = false;
        if let Some(before) = self.known.get_mut(&*key) {
            before.list = self.lists;
            was_refused = before.refused;
            if before.revision == revision {
                return;
            }
        }
        let mark = raw.mark(&self.kind.resource);
        let (mut read, mut reasons) = match (self.kind.read)(&self.reader, raw) {
            Ok(mut read) => {
                let reasons = std::mem::take(&mut read.errors);
                (read, reasons)
            }
            Err(reason) => (Read::default(), vec![reason]),
        };
        match mark {
            Ok(Some((object, mark))) => {
                let gone = read.update.as_ref().map(gone);
                if mark.deletes {
                    read.update.clone_from(&gone);
                }
                let marked = Marked::new(mark, gone).map(Arc::new);
                read.seen = marked.map(|marked| Seen::Unconfirmed(object, Some(marked)));
            }
            Ok(None) => {}
            Err(reason) => reasons.push(reason),
        }
        if was_refused || !reasons.is_empty() {
            self.refuse(&key, &reasons);
        }
        let gone = Gone {
            update: read.update.as_ref().map(gone),
            seen: read.seen.as_ref().map(Seen::gone),
        };
        if let Some(before) = self.known.remove(&*key) {
            self.take_back(before.said.gone(&key), Some(&gone));
        }
        // First who says something about the update.
        if let Some(seen) = read.seen {
            self.sink.seen(seen);
        }
        if let Some(update) = read.update {
            self.sink.update(update);
        }
        let said = Said::of(&key, gone);
        let known = Known { revision, list: self.lists, refused: !reasons.is_empty(), said };
        self.known.insert(key.into(), known);
    }

    fn refuse(&self, key: &str, reasons: &[String]) {
        let object = format!("{} {key}", self.kind.resource.kind);
        if !reasons.is_empty() {
            tracing::warn!(object, reasons = reasons.join("; "), "object refused");
        }
        self.sink.refused(&object, reasons);
    }

    fn forget(&mut self, key: &str) {
        if let Some(known) = self.known.remove(key) {
            if known.refused {
                self.refuse(key, &[]);
            }
            self.take_back(known.said.gone(key), None);
        }
    }

    /// What was not in the last list is gone.
    fn forget_unlisted(&mut self) {
        let lost = self.known.iter().filter(|(_, known)| known.list != self.lists);
        let lost: Vec<Box<str>> = lost.map(|(key, _)| key.clone()).collect();
        for key in lost {
            self.forget(&key);
        }
    }

    /// Says that what was known is gone, unless the same thing is about to be replaced.
    fn take_back(&self, before: Gone, after: Option<&Gone>) {
        if let Some(seen) = before.seen
            && after.is_none_or(|a| a.seen.as_ref() != Some(&seen))
        {
            self.sink.seen(seen);
        }
        if let Some(update) = before.update
            && after.is_none_or(|a| a.update.as_ref() != Some(&update))
        {
            self.sink.update(update);
        }
    }

    fn listed(&mut self) {
        let Some(missing) = self.missing.take() else { return };
        if missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.sink.update(Update::InSync);
        }
    }
}

/// A list or watch that ended before its time.
struct Stopped {
    error: Error,
    /// From where a watch can go on.
    resume: Option<String>,
}

fn revision_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}
