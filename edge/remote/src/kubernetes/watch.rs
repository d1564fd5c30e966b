//! The changes of a kind as a Kubernetes API server tells them.

use std::time::Duration;

use datastore::Backoff;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::Request;
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::ask::{Refusal, chain};
use super::places::Place;
use super::{convert, entry};
use crate::backend::{Batch, Event, RemoteError, Watch};

/// Seconds after which the server ends a watch, and the next one begins; a random part more.
const SECONDS: u64 = 240;
/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// A server sends a bookmark each minute. When nothing has come for twice as long, nothing will.
const SILENCE: Duration = Duration::from_secs(130);
/// A watch that ends earlier than this without a word is not begun anew at once.
const SHORTEST: Duration = Duration::from_secs(1);

type Events = BoxStream<'static, Result<WatchEvent<Value>, kube::Error>>;

/// The changes of a kind. What ends in good order is begun anew.
pub(crate) struct Changes {
    client: kube::Client,
    place: Place,
    /// The last revision that was told.
    seen: u64,
    events: Option<Events>,
    opened: Instant,
    /// When something came the last time.
    heard: Instant,
}

impl Changes {
    pub(super) fn new(client: kube::Client, place: Place, after: u64) -> Self {
        let now = Instant::now();
        Self { client, place, seen: after, events: None, opened: now, heard: now }
    }

    /// Begins where the last one ended.
    pub(super) async fn open(&mut self) -> Result<(), RemoteError> {
        let length = Duration::from_secs(SECONDS);
        // Half to whole of it: not everybody comes back at once.
        let seconds = Backoff::new(length, length).next_wait().as_secs();
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
            self.place.collection(),
            self.seen
        );
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| RemoteError::Failed(error.to_string()))?;
        let begun = timeout(BEGIN, self.client.request_events::<Value>(request)).await;
        let silent = || RemoteError::Unavailable("the API server does not begin a watch".into());
        let events = begun.map_err(|_| silent())?.map_err(explain)?;
        self.events = Some(events.boxed());
        self.opened = Instant::now();
        self.heard = self.opened;
        Ok(())
    }

    fn take(&mut self, event: WatchEvent<Value>) -> Result<Batch, RemoteError> {
        let (event, revision) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let (_, revision) = convert::whereabouts(&object).map_err(RemoteError::Failed)?;
                (entry(&self.place, object).map(Event::Put), revision)
            }
            WatchEvent::Deleted(object) => {
                let (raw, revision) = convert::whereabouts(&object).map_err(RemoteError::Failed)?;
                (Some(Event::Gone { raw: raw.into(), revision, last: None }), revision)
            }
            WatchEvent::Bookmark(mark) => {
                let revision = mark.metadata.resource_version.parse();
                (None, revision.unwrap_or(self.seen))
            }
            WatchEvent::Error(status) => return Err(Refusal::of(&status).into()),
        };
        self.seen = revision;
        Ok(Batch { revision, events: event.into_iter().collect() })
    }
}

pub(super) fn explain(error: kube::Error) -> RemoteError {
    match error {
        kube::Error::Api(status) => Refusal::of(&status).into(),
        other => RemoteError::Unavailable(chain(&other)),
    }
}

impl Watch for Changes {
    async fn next(&mut self) -> Result<Batch, RemoteError> {
        loop {
            let Some(events) = &mut self.events else {
                self.open().await?;
                continue;
            };
            match timeout_at(self.heard + SILENCE, events.next()).await {
                Ok(Some(event)) => {
                    self.heard = Instant::now();
                    let batch = event.map_err(explain).and_then(|event| self.take(event));
                    if batch.is_err() {
                        self.events = None;
                    }
                    return batch;
                }
                Ok(None) => {
                    self.events = None;
                    if self.opened.elapsed() < SHORTEST {
                        let text = "the API server ended a watch as soon as it had begun";
                        return Err(RemoteError::Unavailable(text.into()));
                    }
                }
                Err(_) => {
                    self.events = None;
                    let text = "the API server says nothing more on a watch";
                    return Err(RemoteError::Unavailable(text.into()));
                }
            }
        }
    }
}
