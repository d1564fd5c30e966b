//! `ipam`'s storage over the API, with a memory of what this node wrote last.
//!
//! The memory saves reads on the way of a pod's start; it is never trusted: every write carries the
//! revision that it was calculated from, and what the server refuses is forgotten here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ipam::{Affinity, Block, Handle, Kind, Store, StoreError, Stored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Datastore;
use crate::error::Error;
use crate::kinds::Resource;

/// Whether reads may be answered from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Remembered,
    Fresh,
}

#[derive(Default)]
struct Memory {
    /// Blocks that this node wrote last.
    blocks: HashMap<String, Stored<Block>>,
    /// The node's claims, once they were listed.
    claims: Option<Vec<Stored<Affinity>>>,
}

#[derive(Clone)]
pub(crate) struct IpamStore {
    datastore: Datastore,
    node: String,
    memory: Arc<Mutex<Memory>>,
    reads: Reads,
}

#[derive(Deserialize)]
struct Wire<K> {
    metadata: WireMeta,
    spec: K,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    name: String,
    uid: String,
    resource_version: String,
}

impl IpamStore {
    pub(crate) fn new(datastore: Datastore, node: &str) -> Self {
        let memory = Arc::default();
        Self { datastore, node: node.to_owned(), memory, reads: Reads::Remembered }
    }

    /// The same memory, but every read asks the server.
    pub(crate) fn fresh(&self) -> Self {
        Self { reads: Reads::Fresh, ..self.clone() }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall<K: Kind>(&self, name: &str) -> Option<Stored<K>> {
        if self.reads == Reads::Fresh {
            return None;
        }
        let memory = self.memory();
        let block = memory.blocks.get(name).filter(|b| !b.value.unallocated.is_empty())?;
        (block as &dyn std::any::Any).downcast_ref::<Stored<K>>().cloned()
    }

    fn recall_all<K: Kind>(&self) -> Option<Vec<Stored<K>>> {
        if self.reads == Reads::Fresh {
            return None;
        }
        let claims = self.memory().claims.clone()?;
        let known = self.promising_first(claims);
        (&known as &dyn std::any::Any).downcast_ref::<Vec<Stored<K>>>().cloned()
    }

    /// Blocks that are known to have a free address come first: what is full is read again by
    /// every request that looks at it, in case that somebody else has freed something.
    fn promising_first(&self, mut claims: Vec<Stored<Affinity>>) -> Vec<Stored<Affinity>> {
        let memory = self.memory();
        let free = |c: &Stored<Affinity>| {
            let block = memory.blocks.get(&ipam::block_name(c.value.cidr));
            block.is_some_and(|b| !b.value.unallocated.is_empty())
        };
        claims.sort_by_cached_key(|c| !free(c));
        claims
    }

    fn remember<K: Kind>(&self, stored: &Stored<K>) {
        let any = stored as &dyn std::any::Any;
        let mut memory = self.memory();
        if let Some(block) = any.downcast_ref::<Stored<Block>>() {
            if block.value.is_of(&self.node) {
                memory.blocks.insert(block.value.name(), block.clone());
            } else {
                memory.blocks.remove(&block.value.name());
            }
        } else if any.is::<Stored<Affinity>>() {
            memory.claims = None;
        }
    }

    fn forget<K: Kind>(&self, name: &str) {
        let mut memory = self.memory();
        if K::PLURAL == Block::PLURAL {
            memory.blocks.remove(name);
        } else if K::PLURAL == Affinity::PLURAL {
            memory.claims = None;
        }
    }

    fn settle<K: Kind>(
        &self,
        name: &str,
        done: Result<Wire<K>, Error>,
    ) -> Result<Stored<K>, StoreError> {
        match done {
            Ok(wire) => {
                let stored = wire.into_stored();
                self.remember(&stored);
                Ok(stored)
            }
            Err(e) => {
                self.forget::<K>(name);
                Err(store_error(e))
            }
        }
    }
}

impl<K> Wire<K> {
    fn into_stored(self) -> Stored<K> {
        Stored {
            value: self.spec,
            uid: self.metadata.uid,
            revision: self.metadata.resource_version,
        }
    }
}

fn resource<K: Kind>() -> Resource {
    Resource::calico(K::PLURAL, K::KIND)
}

fn document<K: Kind>(value: &K, known: Option<&Stored<K>>) -> Value {
    let mut metadata = json!({"name": value.name()});
    if let Some(known) = known {
        metadata["uid"] = json!(known.uid);
        metadata["resourceVersion"] = json!(known.revision);
    }
    let version = resource::<K>().api_version();
    json!({"apiVersion": version, "kind": K::KIND, "metadata": metadata, "spec": value})
}

fn store_error(error: Error) -> StoreError {
    match error {
        Error::Exists(_) => StoreError::Exists,
        Error::Conflict(_) | Error::NotFound(_) => StoreError::Conflict,
        other => StoreError::Failed(other.to_string()),
    }
}

impl Store for IpamStore {
    async fn get<K: Kind>(&self, name: &str) -> Result<Option<Stored<K>>, StoreError> {
        if let Some(known) = self.recall(name) {
            return Ok(Some(known));
        }
        let found = self.datastore.get::<Wire<K>>(&resource::<K>(), None, name).await;
        let Some(mut stored) = found.map_err(store_error)?.map(Wire::into_stored) else {
            self.forget::<K>(name);
            return Ok(None);
        };
        if *stored.value.deleted() {
            // Somebody stopped half way: the mark is the promise, this keeps it.
            self.delete(stored).await?;
            return Ok(None);
        }
        self.remember(&stored);
        Ok(Some(stored))
    }

    async fn list<K: Kind>(&self) -> Result<Vec<Stored<K>>, StoreError> {
        if let Some(known) = self.recall_all() {
            return Ok(known);
        }
        let all = self.datastore.list_all::<Wire<K>>(&resource::<K>()).await;
        let all = all.map_err(store_error)?.into_iter().map(Wire::into_stored);
        let all: Vec<_> = all.filter(|s| !*s.value.clone().deleted()).collect();
        if let Some(claims) = (&all as &dyn std::any::Any).downcast_ref::<Vec<Stored<Affinity>>>() {
            let own = claims.iter().filter(|a| a.value.is_of(&self.node)).cloned().collect();
            self.memory().claims = Some(own);
        }
        Ok(all)
    }

    async fn create<K: Kind>(&self, value: K) -> Result<Stored<K>, StoreError> {
        let name = value.name();
        let done = self.datastore.create(&resource::<K>(), None, &document(&value, None)).await;
        self.settle(&name, done)
    }

    async fn update<K: Kind>(&self, object: Stored<K>) -> Result<Stored<K>, StoreError> {
        let name = object.value.name();
        let body = document(&object.value, Some(&object));
        let done = self.datastore.replace(&resource::<K>(), None, &name, &body).await;
        self.settle(&name, done)
    }

    async fn delete<K: Kind>(&self, object: Stored<K>) -> Result<(), StoreError> {
        let name = object.value.name();
        let revision = (object.uid.as_str(), object.revision.as_str());
        let done = self.datastore.delete(&resource::<K>(), &name, revision).await;
        self.forget::<K>(&name);
        done.map_err(store_error)
    }
}

/// What the memory alone says about a request: the same steps, and nothing of it happens. Fails where
/// the server would have to be asked.
pub(crate) struct Rehearsal<'a>(pub(crate) &'a IpamStore);

impl Rehearsal<'_> {
    fn unknown<T>() -> Result<T, StoreError> {
        Err(StoreError::Failed("not known without asking".to_owned()))
    }
}

impl Store for Rehearsal<'_> {
    async fn get<K: Kind>(&self, name: &str) -> Result<Option<Stored<K>>, StoreError> {
        self.0.recall(name).map_or_else(Self::unknown, |known| Ok(Some(known)))
    }

    async fn list<K: Kind>(&self) -> Result<Vec<Stored<K>>, StoreError> {
        self.0.recall_all().map_or_else(Self::unknown, Ok)
    }

    async fn create<K: Kind>(&self, value: K) -> Result<Stored<K>, StoreError> {
        if K::PLURAL != Handle::PLURAL {
            return Self::unknown();
        }
        Ok(Stored { value, uid: String::new(), revision: String::new() })
    }

    async fn update<K: Kind>(&self, object: Stored<K>) -> Result<Stored<K>, StoreError> {
        Ok(object)
    }

    async fn delete<K: Kind>(&self, _: Stored<K>) -> Result<(), StoreError> {
        Self::unknown()
    }
}
