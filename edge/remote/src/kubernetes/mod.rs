//! A Kubernetes API server that keeps Calico's objects as custom resources of `crd.projectcalico.org/v1`.
//!
//! How reads show the latest: a Kubernetes server does not tell a watcher how far it has come, but for a
//! bookmark each minute, so a revision that is known to be the latest is not one that can be waited for.
//! Instead, what is asked for is asked again: of one object, itself, and then that very state is waited for,
//! which is mostly there already; of a kind, the whole list, which is taken in as it is. In a list, objects
//! that are known are passed over, and of a kind that fits into one page it is one request.

mod ask;
mod convert;
mod group;
mod places;
mod stream;
mod watch;

use std::time::Duration;

use apiserver::storage::Expect;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::{
    Backend, Entry, Known, Latest, RawWrite, RemoteError, Sight, Snapshot, Written,
};
use ask::{Refusal, Trouble, ask};
use places::Place;

pub use group::ApiGroup;

/// For how long a write is tried whose outcome is not known.
const PERSIST: Duration = Duration::from_secs(10);
/// Objects in a page of a listing.
const PAGE: usize = 500;
/// How often a listing is begun anew whose pages the server has forgotten.
const LISTINGS: usize = 3;

/// A connection.
pub(crate) struct Kubernetes {
    client: kube::Client,
    streams: stream::Streams,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    r#continue: Option<String>,
}

/// What says whether an object is known, and no more of it.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow)]
    metadata: OutlineMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutlineMeta<'a> {
    #[serde(borrow)]
    name: &'a str,
    #[serde(borrow, default)]
    namespace: Option<&'a str>,
    #[serde(borrow)]
    resource_version: &'a str,
}

impl Kubernetes {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, streams: stream::Streams::default() }
    }

    async fn page(&self, place: &Place, more: Option<&str>) -> Result<List, Trouble> {
        let more = more.map(|token| format!("&continue={token}")).unwrap_or_default();
        let path = format!("{}?limit={PAGE}{more}", place.collection());
        ask(&self.client, Method::GET, &path, None).await
    }

    /// All objects, unless the first page shows that everything is known.
    async fn pages(
        &self,
        place: &Place,
        reached: Option<u64>,
        known: &Known<'_>,
    ) -> Result<Latest, RemoteError> {
        let mut snapshot = Snapshot::default();
        let mut more: Option<String> = None;
        loop {
            let list = match self.page(place, more.as_deref()).await {
                // Its definition is not there. It may come.
                Err(Trouble::Refusal(refusal)) if refusal.code == 404 => {
                    snapshot.revision = reached.unwrap_or_default().max(1);
                    return Ok(Latest::All(snapshot));
                }
                outcome => outcome?,
            };
            if snapshot.revision == 0 {
                let revision = list.metadata.resource_version.parse();
                snapshot.revision = revision
                    .map_err(|_| RemoteError::Failed("a list without a revision".into()))?;
            }
            more = list.metadata.r#continue.filter(|token| !token.is_empty());
            if more.is_some() && reached.is_some_and(|reached| reached >= snapshot.revision) {
                return Ok(Latest::At(snapshot.revision));
            }
            if more.is_some()
                && reached.is_none()
                && let Some(whole) = self.streams.list(&self.client, place, known).await
            {
                return Ok(Latest::All(whole));
            }
            list.items.iter().for_each(|item| take(place, item, known, &mut snapshot));
            if more.is_none() {
                return Ok(Latest::All(snapshot));
            }
        }
    }

    async fn whole(
        &self,
        kind: &str,
        reached: Option<u64>,
        known: &Known<'_>,
    ) -> Result<Latest, RemoteError> {
        let place = place(kind)?;
        for _ in 1..LISTINGS {
            match self.pages(&place, reached, known).await {
                Err(RemoteError::Compacted) => {}
                outcome => return outcome,
            }
        }
        self.pages(&place, reached, known).await
    }

    async fn try_write(&self, place: &Place, write: &RawWrite) -> Result<Value, Trouble> {
        let Some(value) = &write.value else {
            let Expect::At(revision) = write.expect else {
                return Err(Trouble::Silence("a deletion of nothing".into()));
            };
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                "preconditions": {"resourceVersion": revision.to_string()}});
            let path = place.object(&write.raw);
            return ask(&self.client, Method::DELETE, &path, Some(&options)).await;
        };
        let mut stored = convert::stored(place, &write.raw, value, write.beside.as_ref());
        match write.expect {
            Expect::Absent => {
                let (within, _) = place.within(&write.raw);
                ask(&self.client, Method::POST, &within, Some(&stored)).await
            }
            Expect::At(revision) => {
                stored["metadata"]["resourceVersion"] = revision.to_string().into();
                let path = place.object(&write.raw);
                ask(&self.client, Method::PUT, &path, Some(&stored)).await
            }
        }
    }

    /// What has become of a write that was done.
    async fn done(&self, place: &Place, write: &RawWrite, answer: Value) -> Written {
        let Some(wanted) = &write.value else {
            return Written::Done { revision: None, value: None };
        };
        let found = match convert::shown(place, answer) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    kind = place.plural,
                    at = write.raw,
                    error,
                    "an answer that makes no sense"
                );
                return Written::Done { revision: None, value: None };
            }
        };
        if found.value.get("spec") != wanted.get("spec") {
            tracing::warn!(
                kind = place.plural,
                at = write.raw,
                "the definition of this cluster does not know every field that was written"
            );
        }
        if wanted.get("status").is_some_and(|status| found.value.get("status") != Some(status))
            && let Some(after) = self.write_status(place, write, found.revision).await
        {
            return Written::Done { revision: Some(after.revision), value: Some(after.value) };
        }
        Written::Done { revision: Some(found.revision), value: Some(found.value) }
    }

    /// Where the definition has the status as a resource of its own, an ordinary write leaves it alone.
    async fn write_status(
        &self,
        place: &Place,
        write: &RawWrite,
        revision: u64,
    ) -> Option<convert::Found> {
        let value = write.value.as_ref()?;
        let mut stored = convert::stored(place, &write.raw, value, write.beside.as_ref());
        stored["metadata"]["resourceVersion"] = revision.to_string().into();
        let path = format!("{}/status", place.object(&write.raw));
        let answer = ask(&self.client, Method::PUT, &path, Some(&stored)).await;
        let shown = answer
            .map_err(RemoteError::from)
            .and_then(|answer| convert::shown(place, answer).map_err(RemoteError::Failed));
        shown
            .inspect_err(|error| {
                tracing::warn!(kind = place.plural, at = write.raw, %error, "a status was not written");
            })
            .ok()
    }

    /// The object at a place as it is now.
    async fn find(&self, place: &Place, raw: &str) -> Result<Option<Value>, RemoteError> {
        match ask(&self.client, Method::GET, &place.object(raw), None).await {
            Ok(found) => Ok(Some(found)),
            Err(Trouble::Refusal(Refusal { code: 404, .. })) => Ok(None),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Looks why a write is refused. With `doubt`, a try before may have been performed.
    async fn judge(
        &self,
        place: &Place,
        write: &RawWrite,
        doubt: bool,
    ) -> Result<Written, RemoteError> {
        let found = match self.find(place, &write.raw).await {
            Err(error) if doubt => return Err(RemoteError::Unknown(error.to_string())),
            outcome => outcome?,
        };
        let unknown = |what: &str| Err(RemoteError::Unknown(format!("{what}: {}", write.raw)));
        let gone = Written::Done { revision: None, value: None };
        let Some(found) = found else {
            return match (&write.value, doubt) {
                (None, true) => Ok(gone),
                (Some(_), true) => unknown("no answer to a write, and the object is gone"),
                (_, false) => Ok(Written::Refused { found: None, upto: 0 }),
            };
        };
        let given = convert::given_uid(&found);
        let now = convert::shown(place, found).map_err(RemoteError::Failed)?;
        let refused = Written::Refused { found: Some(now.revision), upto: 0 };
        if !doubt {
            return Ok(refused);
        }
        match (&write.value, write.expect) {
            (None, _) if now.value["metadata"]["uid"].as_str() != write.uid.as_deref() => Ok(gone),
            (None, _) => Ok(refused),
            // Whose object it is shows by the uid that was given to it when it was made.
            (Some(value), Expect::Absent)
                if given.as_deref() != value["metadata"]["uid"].as_str() =>
            {
                Ok(refused)
            }
            (Some(_), Expect::Absent) => {
                Ok(Written::Done { revision: Some(now.revision), value: Some(now.value) })
            }
            // Others may have written the very same: two that count may both have come to three.
            (Some(_), Expect::At(_)) => {
                unknown("no answer to a write, and the object has changed since")
            }
        }
    }
}

fn place(kind: &str) -> Result<Place, RemoteError> {
    Place::of(kind).ok_or_else(|| RemoteError::Failed(format!("{kind}: no such kind is kept here")))
}

/// Takes an object of a list.
fn take(place: &Place, item: &RawValue, known: &Known<'_>, snapshot: &mut Snapshot) {
    if let Ok(Outline { metadata }) = serde_json::from_str::<Outline<'_>>(item.get())
        && let Ok(revision) = metadata.resource_version.parse()
    {
        let raw = match metadata.namespace {
            Some(namespace) => format!("{namespace}/{}", metadata.name),
            None => metadata.name.to_owned(),
        };
        if known(&raw, revision) {
            snapshot.same.push(raw.into());
            return;
        }
    }
    match serde_json::from_str(item.get()) {
        Ok(stored) => snapshot.entries.extend(entry(place, stored)),
        Err(error) => tracing::warn!(kind = place.plural, %error, "an object cannot be read"),
    }
}

/// An object, or nothing if it cannot be read: that is said, and it is left alone.
fn entry(place: &Place, stored: Value) -> Option<Entry> {
    let name = stored["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match convert::shown(place, stored) {
        Ok(found) => Some(Entry {
            key: found.key.into(),
            raw: found.raw.into(),
            revision: found.revision,
            value: found.value,
            beside: found.beside,
        }),
        Err(error) => {
            tracing::warn!(kind = place.plural, name, error, "an object cannot be read");
            None
        }
    }
}

impl Backend for Kubernetes {
    type Watch = watch::Changes;

    fn keeps(&self, kind: &str) -> bool {
        Place::of(kind).is_some()
    }

    fn place(&self, key: &str, _: &Value) -> Result<String, String> {
        raw(key).map(str::to_owned).ok_or_else(|| format!("{key}: no name"))
    }

    async fn list(&self, kind: &str, known: &Known<'_>) -> Result<Snapshot, RemoteError> {
        match self.whole(kind, None, known).await? {
            Latest::All(snapshot) => Ok(snapshot),
            Latest::At(_) => Err(RemoteError::Failed("a list of nothing".into())),
        }
    }

    async fn watch(&self, kind: &str, after: u64) -> Result<watch::Changes, RemoteError> {
        let mut changes = watch::Changes::new(self.client.clone(), place(kind)?, after);
        changes.open().await?;
        Ok(changes)
    }

    async fn latest(
        &self,
        kind: &str,
        reached: u64,
        known: &Known<'_>,
    ) -> Result<Latest, RemoteError> {
        self.whole(kind, Some(reached), known).await
    }

    async fn look(&self, key: &str, at: Option<String>) -> Result<Option<Sight>, RemoteError> {
        let Some(place) = key.match_indices('/').nth(1).and_then(|(end, _)| Place::of(&key[..end]))
        else {
            return Ok(None);
        };
        let Some(raw) = at.or_else(|| raw(key).map(str::to_owned)) else { return Ok(None) };
        let found = self.find(&place, &raw).await?;
        let revision = found.as_ref().map(convert::whereabouts).transpose();
        let revision = revision.map_err(RemoteError::Failed)?.map(|(_, revision)| revision);
        Ok(Some(Sight { raw, revision }))
    }

    async fn write(&self, kind: &str, write: RawWrite) -> Result<Written, RemoteError> {
        let place = place(kind)?;
        let end = Instant::now() + PERSIST;
        let mut backoff =
            datastore::Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut doubt = false;
        loop {
            let error: RemoteError = match self.try_write(&place, &write).await {
                Ok(answer) => return Ok(self.done(&place, &write, answer).await),
                Err(Trouble::Refusal(refusal)) if is_judged(&refusal, &write) => {
                    return self.judge(&place, &write, doubt).await;
                }
                Err(trouble) => {
                    doubt |= !matches!(&trouble, Trouble::Refusal(refusal) if refusal.is_certain());
                    trouble.into()
                }
            };
            let pause = match &error {
                RemoteError::Unavailable(_) => backoff.next_wait(),
                RemoteError::Throttled { after, .. } => *after + backoff.next_wait(),
                RemoteError::Compacted => return Err(RemoteError::Failed(error.to_string())),
                // A try before may have been performed.
                _ if doubt => return Err(RemoteError::Unknown(error.to_string())),
                _ => return Err(error),
            };
            if Instant::now() + pause >= end {
                let text = error.to_string();
                return Err(if doubt { RemoteError::Unknown(text) } else { error });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether a refusal says that the condition of a write does not hold. That what is to be made cannot be found
/// says that its kind or its namespace is not there.
fn is_judged(refusal: &Refusal, write: &RawWrite) -> bool {
    refusal.code == 409 || (refusal.code == 404 && write.expect != Expect::Absent)
}

/// `[namespace/]name` of a key.
fn raw(key: &str) -> Option<&str> {
    key.splitn(3, '/').nth(2).filter(|raw| !raw.is_empty())
}
