//! Requests.

use std::path::Path;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchParams,
};
use kube::core::Request;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Error;
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
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects, as they came.
    pub items: Vec<Box<RawValue>>,
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
        Ok(Self { client: renew::client(kubeconfig).await? })
    }

    /// Connects with a ready configuration.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn with(config: kube::Config) -> Result<Self, Error> {
        let client = kube::Client::try_from(config).map_err(|e| Error::Config(e.to_string()))?;
        Ok(Self { client })
    }

    /// Over a client that is there.
    pub fn over(client: kube::Client) -> Self {
        Self { client }
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
        let mut params = ListParams::default().limit(limit);
        params.continue_token = more.map(str::to_owned);
        let request = Request::new(resource.path(None)).list(&params);
        let list: RawList = self.send(&what, request).await?;
        let more = list.metadata.r#continue.filter(|t| !t.is_empty());
        Ok(Page { items: list.items, revision: list.metadata.resource_version, more })
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
                let read = serde_json::from_str(item.get());
                all.push(read.map_err(|e| Error::Decode(format!("list {}", resource.plural), e))?);
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
    pub async fn watch(
        &self,
        resource: &Resource,
        revision: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent, Error>> + Send + use<>, Error> {
        let what = format!("watch {}", resource.plural);
        let params = WatchParams::default().timeout(WATCH);
        let request = Request::new(resource.path(None)).watch(&params, revision);
        let request = request.map_err(|e| Error::Config(format!("{what}: {e}")))?;
        let begin = self.client.request_events::<Value>(request);
        let events = bounded(&what, begin).await?;
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
        (uid, revision): (&str, &str),
    ) -> Result<(), Error> {
        let what = label("delete", resource, name);
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(revision.to_owned()),
        };
        let params = DeleteParams::default().preconditions(preconditions);
        let request = Request::new(resource.path(None)).delete(name, &params);
        self.send::<Value>(&what, request).await.map(drop)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        what: &str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let request = request.map_err(|e| Error::Config(format!("{what}: {e}")))?;
        let text = bounded(what, self.client.request_text(request)).await?;
        serde_json::from_str(&text).map_err(|e| Error::Decode(what.to_owned(), e))
    }
}

fn label(verb: &str, resource: &Resource, name: &str) -> String {
    format!("{verb} {} {name}", resource.kind)
}

async fn bounded<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    if let Ok(done) = tokio::time::timeout(PATIENCE, request).await {
        return done.map_err(|e| Error::of(what, e));
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
