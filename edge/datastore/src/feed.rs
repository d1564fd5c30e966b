//! Reading without the API in between, where the store can be read directly: nothing is held for it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::client::{Page, WatchEvent};
use crate::error::Error;
use crate::kinds::Resource;

/// Changes as they come.
pub type Events = BoxStream<'static, Result<WatchEvent, Error>>;

/// A store that shows objects as the API would, page by page and change by change.
pub trait Feed: Send + Sync + 'static {
    /// Whether objects of this kind come from here.
    fn has(&self, resource: &Resource) -> bool;
    /// One page of a list over all namespaces, of about `limit` objects or of a size that suits the store.
    /// `more` is the token of the page before.
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        limit: u32,
        more: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Page, Error>>;
    /// Changes since a revision.
    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        revision: &'a str,
    ) -> BoxFuture<'a, Result<Events, Error>>;
}

/// One that may be there.
#[derive(Clone, Default)]
pub(crate) struct Shortcut(Option<Arc<dyn Feed>>);

impl Shortcut {
    pub(crate) fn by(feed: Arc<dyn Feed>) -> Self {
        Self(Some(feed))
    }

    /// That of a kind.
    pub(crate) fn of(&self, resource: &Resource) -> Option<&dyn Feed> {
        self.0.as_deref().filter(|feed| feed.has(resource))
    }
}

impl fmt::Debug for Shortcut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shortcut").field(&self.0.is_some()).finish()
    }
}
