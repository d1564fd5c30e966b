//! Long lists as a stream, from servers that have that: they need not hold a list in memory to send it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::Request;
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::time::timeout;

use super::places::Place;
use super::{convert, entry};
use crate::backend::{Known, RemoteError, Snapshot};

/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(5);
/// What the bookmark carries after which the list is whole.
const END: &str = "k8s.io/initial-events-end";

/// Whether the server streams lists: it does until it turns out that it does not.
#[derive(Debug, Default)]
pub(super) struct Streams {
    refused: AtomicBool,
}

impl Streams {
    /// The whole of a kind, or nothing where the server has another way to tell it.
    pub(super) async fn list(
        &self,
        client: &kube::Client,
        place: &Place,
        known: &Known<'_>,
    ) -> Option<Snapshot> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let outcome = whole(client, place, known).await;
        if let Err(error) = &outcome {
            tracing::debug!(kind = place.plural, %error, "lists are read in pages");
            // Whether it was only this time does not matter: pages do as well.
            self.refused.store(true, Ordering::Relaxed);
        }
        outcome.ok()
    }
}

async fn whole(
    client: &kube::Client,
    place: &Place,
    known: &Known<'_>,
) -> Result<Snapshot, RemoteError> {
    let path = format!(
        "{}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
         &resourceVersionMatch=NotOlderThan&timeoutSeconds=60",
        place.collection()
    );
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(|error| RemoteError::Failed(error.to_string()))?;
    let silent = |_| RemoteError::Unavailable("nothing comes".into());
    let begun = timeout(SILENCE, client.request_events::<Value>(request)).await;
    let events = begun.map_err(silent)?.map_err(super::watch::explain)?;
    collect(place, known, std::pin::pin!(events)).await
}

async fn collect(
    place: &Place,
    known: &Known<'_>,
    mut events: impl Stream<Item = Result<WatchEvent<Value>, kube::Error>> + Unpin,
) -> Result<Snapshot, RemoteError> {
    let failed = |text: &str| RemoteError::Failed(text.into());
    let mut snapshot = Snapshot::default();
    loop {
        let event = timeout(SILENCE, events.next()).await;
        let event = event.map_err(|_| failed("nothing more comes"))?;
        match event
            .ok_or_else(|| failed("the stream ends early"))?
            .map_err(super::watch::explain)?
        {
            WatchEvent::Added(stored) => {
                let (raw, revision) = convert::whereabouts(&stored).map_err(RemoteError::Failed)?;
                if known(&raw, revision) {
                    snapshot.same.push(raw.into());
                } else {
                    snapshot.entries.extend(entry(place, stored));
                }
            }
            WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key(END) => {
                let revision = mark.metadata.resource_version.parse();
                snapshot.revision = revision.map_err(|_| failed("no revision"))?;
                return Ok(snapshot);
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(super::ask::Refusal::of(&status).into()),
            // Changes come after the end; before it they are not told apart from what there is.
            WatchEvent::Modified(_) | WatchEvent::Deleted(_) => return Err(failed("a change")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use serde_json::json;

    fn event(kind: &str, object: &Value) -> WatchEvent<Value> {
        serde_json::from_value(json!({"type": kind, "object": object})).unwrap()
    }

    fn set(name: &str, revision: &str) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": revision}, "spec": {}})
    }

    fn mark(annotations: &Value) -> Value {
        json!({"kind": "GlobalNetworkSet", "apiVersion": "v1",
            "metadata": {"resourceVersion": "9", "annotations": annotations}})
    }

    #[tokio::test]
    async fn a_list_is_whole_when_it_says_so() {
        let place = Place::of("projectcalico.org/globalnetworksets").unwrap();
        let known = |raw: &str, revision: u64| (raw, revision) == ("b", 4);
        let read = async |events: Vec<_>| {
            collect(&place, &known, stream::iter(events.into_iter().map(Ok))).await
        };
        let both = || vec![event("ADDED", &set("a", "3")), event("ADDED", &set("b", "4"))];
        let mut events = both();
        events.push(event("BOOKMARK", &mark(&json!({}))));
        events.push(event("BOOKMARK", &mark(&json!({END: "true"}))));
        let snapshot = read(events).await.unwrap();
        assert_eq!(snapshot.revision, 9);
        assert_eq!((snapshot.entries.len(), snapshot.same), (1, vec!["b".into()]));
        assert!(read(both()).await.is_err(), "it has ended early");
        let mut events = both();
        events.push(event("DELETED", &set("a", "5")));
        assert!(read(events).await.is_err());
    }
}
