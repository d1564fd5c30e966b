//! Requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryFutureExt as _};
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchParams,
};
use kube::core::Request;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::feed::{Events, Feed, Shortcut};
use crate::kinds::Resource;
use crate::renew;

/// No single request takes longer; watches are bounded by [`WATCH`] instead.
const PATIENCE: Duration = Duration::from_secs(15);

/// Seconds after which the server ends a watch, and we start the next one.
const WATCH: u32 = 280;

/// A connection to the API. Cheap to clone.
#[derive(Clone)]
pub struct Datastore {
    client: kube::Client,
    shortcut: Shortcut,
}

/// An object of a list, not read yet.
#[derive(Debug)]
pub enum Item {
    /// As it came.
    Text(Box<RawValue>),
    /// As JSON.
    Value(Value),
}

impl Item {
    /// Reads it.
    ///
    /// # Errors
    /// It is no `T`.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        match self {
            Self::Text(text) => serde_json::from_str(text.get()),
            Self::Value(value) => serde_json::from_value(value),
        }
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects.
    pub items: Vec<Item>,
    /// Revision of the whole list.
    pub revision: String,
    /// Token for the next page, if there is one.
    pub more: Option<String>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// New or changed.
    Put(Value),
    /// Gone; as it was last.
    Gone(Value),
    /// Nothing happened up to this revision.
    Bookmark(String),
}

#[derive(Deserialize)]
struct RawList {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawListMeta {
    resource_version: String,
    r#continue: Option<String>,
}

impl Datastore {
    /// Connects as the kubeconfig says; without one, as the environment (`KUBECONFIG`, the pod's
    /// service account) says. When the server does not know us any more, both are read again.
    ///
    /// # Errors
    /// [`Error::Config`]. Whether the server answers shows with the first request.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, Error> {
        Ok(Self::over(renew::client(kubeconfig).await?))
    }

    /// Connects with a ready configuration.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn with(config: kube::Config) -> Result<Self, Error> {
        let client = kube::Client::try_from(config).map_err(|e| Error::Config(e.to_string()))?;
        Ok(Self::over(client))
    }

    /// Over a client that is there.
    pub fn over(client: kube::Client) -> Self {
        Self { client, shortcut: Shortcut::default() }
    }

    /// The same, but that what `feed` has is read from there.
    #[must_use]
    pub fn reading(self, feed: Arc<dyn Feed>) -> Self {
        Self { shortcut: Shortcut::by(feed), ..self }
    }

    /// The client underneath.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// One page of a list over all namespaces. `more` is the token of the page before.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(
        &self,
        resource: &Resource,
        limit: u32,
        more: Option<&str>,
    ) -> Result<Page, Error> {
        let what = format!("list {}", resource.plural);
        if let Some(feed) = self.shortcut.of(resource) {
            return bounded(&what, feed.list(resource, limit, more)).await;
        }
        let mut params = ListParams::default().limit(limit);
        params.continue_token = more.map(str::to_owned);
        let request = Request::new(resource.path(None)).list(&params);
        let list: RawList = self.send(&what, request).await?;
        let more = list.metadata.r#continue.filter(|t| !t.is_empty());
        let items = list.items.into_iter().map(Item::Text).collect();
        Ok(Page { items, revision: list.metadata.resource_version, more })
    }

    /// A whole list, for kinds of which there are few.
    ///
    /// # Errors
    /// [`Error`], also if one object cannot be read as `T`.
    pub async fn list_all<T: DeserializeOwned>(
        &self,
        resource: &Resource,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        let mut more: Option<String> = None;
        loop {
            let page = self.list(resource, 500, more.as_deref()).await?;
            for item in page.items {
                all.push(
                    item.read()
                        .map_err(|e| Error::Decode(format!("list {}", resource.plural), e))?,
                );
            }
            more = page.more;
            if more.is_none() {
                return Ok(all);
            }
        }
    }

    /// Changes since `revision`. The stream ends after some minutes at the latest.
    ///
    /// # Errors
    /// [`Error::Gone`] if that history is not kept any more; others.
    pub async fn watch(&self, resource: &Resource, revision: &str) -> Result<Events, Error> {
        let what = format!("watch {}", resource.plural);
        if let Some(feed) = self.shortcut.of(resource) {
            return bounded(&what, feed.watch(resource, revision)).await;
        }
        let params = WatchParams::default().timeout(WATCH);
        let request = Request::new(resource.path(None)).watch(&params, revision);
        let request = request.map_err(|e| Error::Config(format!("{what}: {e}")))?;
        let begin = self.client.request_events::<Value>(request);
        let events = answered(&what, begin).await?;
        Ok(events.map(move |event| translate(&what, event)).boxed())
    }

    /// One object; `None` if there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let what = label("get", resource, name);
        let request = Request::new(resource.path(namespace)).get(name, &GetParams::default());
        match self.send(&what, request).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A new object.
    ///
    /// # Errors
    /// [`Error::Exists`], others.
    pub async fn create<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        let what = format!("create {}", resource.kind);
        let body = serde_json::to_vec(object).map_err(|e| Error::Decode(what.clone(), e))?;
        let request = Request::new(resource.path(namespace)).create(&PostParams::default(), body);
        self.send(&what, request).await
    }

    /// Replaces an object; the `resourceVersion` in it must be the current one.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`], others.
    pub async fn replace<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        let what = label("replace", resource, name);
        let body = serde_json::to_vec(object).map_err(|e| Error::Decode(what.clone(), e))?;
        let path = resource.path(namespace);
        self.send(&what, Request::new(path).replace(name, &PostParams::default(), body)).await
    }

    /// Merges `patch` into an object, or into its status.
    ///
    /// # Errors
    /// [`Error::NotFound`], others.
    pub async fn patch(
        &self,
        resource: &Resource,
        (namespace, name): (Option<&str>, &str),
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Value, Error> {
        let what = label("patch", resource, name);
        let path = Request::new(resource.path(namespace));
        let params = PatchParams::default();
        let request = match subresource {
            Some(sub) => path.patch_subresource(sub, name, &params, &Patch::Merge(patch)),
            None => path.patch(name, &params, &Patch::Merge(patch)),
        };
        self.send(&what, request).await
    }

    /// Deletes an object, if it is still the one that was read.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`], others.
    pub async fn delete(
        &self,
        resource: &Resource,
        name: &str,
        version: (&str, &str),
    ) -> Result<(), Error> {
        self.delete_in(resource, (None, name), version).await
    }

    /// The same, of an object in a namespace.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub async fn delete_in(
        &self,
        resource: &Resource,
        (namespace, name): (Option<&str>, &str),
        (uid, revision): (&str, &str),
    ) -> Result<(), Error> {
        let what = label("delete", resource, name);
        let preconditions = Preconditions {
            // Objects of other programs may have none.
            uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
            resource_version: Some(revision.to_owned()),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        let request = Request::new(resource.path(namespace)).delete(name, &params);
        self.send::<Value>(&what, request).await.map(drop)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        what: &str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let request = request.map_err(|e| Error::Config(format!("{what}: {e}")))?;
        let text = answered(what, self.client.request_text(request)).await?;
        serde_json::from_str(&text).map_err(|e| Error::Decode(what.to_owned(), e))
    }
}

fn label(verb: &str, resource: &Resource, name: &str) -> String {
    format!("{verb} {} {name}", resource.kind)
}

fn answered<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> impl Future<Output = Result<T, Error>> {
    bounded(what, request.map_err(move |e| Error::of(what, e)))
}

async fn bounded<T>(
    what: &str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    if let Ok(done) = tokio::time::timeout(PATIENCE, request).await {
        return done;
    }
    let message = format!("no answer within {} seconds", PATIENCE.as_secs());
    Err(Error::Transport { what: what.to_owned(), message })
}

fn translate(
    what: &str,
    event: Result<kube::core::WatchEvent<Value>, kube::Error>,
) -> Result<WatchEvent, Error> {
    use kube::core::WatchEvent as From;
    match event.map_err(|e| Error::of(what, e))? {
        From::Added(object) | From::Modified(object) => Ok(WatchEvent::Put(object)),
        From::Deleted(object) => Ok(WatchEvent::Gone(object)),
        From::Bookmark(mark) => Ok(WatchEvent::Bookmark(mark.metadata.resource_version)),
        From::Error(s) => {
            Err(Error::of_status(what.to_owned(), s.code, &s.reason, s.message.clone()))
        }
    }
}
