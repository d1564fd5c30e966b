//! What a program reads that keeps no copy: the agent, of whose cluster there may be a hundred thousand pods.

use std::collections::VecDeque;

use datastore::{Error, Events, Feed, Item, Page, Resource, WatchEvent};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::{Changes, Etcd, GROUP, Position, entry, layout, shown};
use crate::backend::{Backend as _, Batch, Event, RemoteError, Watch as _};

/// Reads lists and changes as they are in etcd.
pub(crate) struct Lists {
    etcd: Etcd,
}

impl Lists {
    pub(crate) fn new(etcd: Etcd) -> Self {
        Self { etcd }
    }

    /// A page, of a size of its own.
    async fn page(&self, plural: &str, more: Option<&str>) -> Result<Page, Error> {
        let (first, to) = layout::range(plural);
        let (revision, from) = more.and_then(token).unwrap_or((0, first));
        let page = self.etcd.page(Position { from, to, revision }).await;
        let page = page.map_err(|e| failed(format!("list {plural}"), e))?;
        let more = page.next.map(|next| format!("{} {}", next.revision, next.from));
        let items = page.kvs.iter().filter_map(|kv| entry(plural, kv)).map(shown);
        let items = items.map(Item::Value).collect();
        Ok(Page { items, revision: page.revision.to_string(), more })
    }

    async fn changes(&self, plural: &str, after: &str) -> Result<Events, Error> {
        let what = format!("watch {plural}");
        let gone = || Error::Gone(what.clone());
        let after = after.parse().map_err(|_| gone())?;
        let changes = self.etcd.watch(&format!("{GROUP}{plural}"), after).await;
        let changes = changes.map_err(|e| failed(what.clone(), e))?;
        let state = (changes, VecDeque::new(), what);
        Ok(stream::unfold(Some(state), |state| async {
            let (mut changes, mut waiting, what) = state?;
            match next(&mut changes, &mut waiting).await {
                Ok(event) => Some((Ok(event), Some((changes, waiting, what)))),
                Err(error) => Some((Err(failed(what, error)), None)),
            }
        })
        .boxed())
    }
}

/// The next change; others of the same answer wait.
async fn next(
    changes: &mut Changes,
    waiting: &mut VecDeque<WatchEvent>,
) -> Result<WatchEvent, RemoteError> {
    loop {
        if let Some(event) = waiting.pop_front() {
            return Ok(event);
        }
        let Batch { revision, events } = changes.next().await?;
        if events.is_empty() && revision > 0 {
            return Ok(WatchEvent::Bookmark(revision.to_string()));
        }
        let told = events.into_iter().filter_map(|event| told(&changes.plural, event));
        waiting.extend(told);
    }
}

fn told(plural: &str, event: Event) -> Option<WatchEvent> {
    Some(match event {
        Event::Put(entry) => WatchEvent::Put(shown(entry)),
        Event::Gone { raw, revision, last } => {
            // Its place says its name; of old names of policies, only with what it was.
            let last = last.as_deref().unwrap_or(b"{}");
            let bare = || layout::decode(plural, &raw, 0, b"{}");
            let (_, mut value) = layout::decode(plural, &raw, 0, last).or_else(|_| bare()).ok()?;
            value["metadata"]["resourceVersion"] = json!(revision.to_string());
            WatchEvent::Gone(value)
        }
    })
}

/// A revision, and the key to go on from.
fn token(text: &str) -> Option<(u64, String)> {
    let (revision, from) = text.split_once(' ')?;
    Some((revision.parse().ok()?, from.to_owned()))
}

fn failed(what: String, error: RemoteError) -> Error {
    match error {
        RemoteError::Compacted => Error::Gone(what),
        other => Error::Transport { what, message: other.to_string() },
    }
}

impl Feed for Lists {
    fn has(&self, resource: &Resource) -> bool {
        resource.group == "projectcalico.org" && layout::kind(resource.plural).is_some()
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        _: u32,
        more: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(self.page(resource.plural, more))
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        revision: &'a str,
    ) -> BoxFuture<'a, Result<Events, Error>> {
        Box::pin(self.changes(resource.plural, revision))
    }
}
