//! The work that goes on behind the requests: objects that every cluster has, namespaces and their
//! content, owners and dependents, endpoint slices. Each controller follows the store's own changes.

mod bootstrap;
mod client;
mod definitions;
mod endpoints;
mod garbage;
mod namespaces;

pub(crate) use definitions::CLEANUP;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Api;
use crate::status::ApiError;
use crate::storage::Change;

/// How long a key that failed waits for its next try.
const RETRY: Duration = Duration::from_millis(500);

/// Makes what every cluster has, before the first request is answered.
pub(crate) async fn prepare(api: &Arc<Api>) -> Result<(), String> {
    bootstrap::prepare(api).await.map_err(|error| error.message)
}

/// Runs all controllers; does not return.
pub(crate) async fn run(api: Arc<Api>) {
    tokio::join!(
        drive(api.clone(), namespaces::Namespaces),
        drive(api.clone(), garbage::Garbage::default()),
        drive(api.clone(), definitions::Definitions),
        drive(api, endpoints::Endpoints),
    );
}

/// A controller: which keys a change touches, and how to bring one key in order.
trait Controller {
    /// Keys touched by a change.
    fn touched(&mut self, api: &Api, change: &Change) -> Vec<String>;
    /// Every key there is work for, at start or after falling behind.
    fn all(&mut self, api: &Api) -> Vec<String>;
    /// Brings one key in order. Errors are tried again.
    async fn settle(&mut self, api: &Arc<Api>, key: &str) -> Result<(), ApiError>;
}

/// Feeds a controller: queued keys coalesce, failing ones wait a little.
async fn drive(api: Arc<Api>, mut controller: impl Controller) {
    let mut revisions = api.storage.subscribe();
    let mut seen = api.storage.revision("");
    let mut queue: BTreeSet<String> = controller.all(&api).into_iter().collect();
    loop {
        let mut again = BTreeSet::new();
        for key in std::mem::take(&mut queue) {
            if let Err(error) = controller.settle(&api, &key).await {
                tracing::debug!(key, error = error.message, "controller tries again");
                again.insert(key);
            }
        }
        queue = again;
        let pause = if queue.is_empty() { Duration::from_hours(1) } else { RETRY };
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
        if let Ok(found) = api.storage.changes("", seen) {
            seen = found.upto;
            queue.extend(found.changes.iter().flat_map(|c| controller.touched(&api, c)));
        } else {
            seen = api.storage.revision("");
            queue.extend(controller.all(&api));
        }
    }
}
