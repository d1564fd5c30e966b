//! Storage that keeps no copy: one object is read when somebody asks for it, and lists and changes are not
//! read here at all ([`super::Lists`] has them). For the agent, which writes a few objects of many.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use apiserver::storage::{Changes, Expect, Listing, Object, Storage, StorageError, Wanted, Write};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::{OnceCell, watch};

use super::{ANSWER, Etcd, GetOptions, entry, in_time, layout, plural};
use crate::backend::{Backend as _, Entry, RawWrite, RemoteError, Written};
use crate::mirror::{refused, unkept};

/// So many objects are remembered from their being asked for to their being looked at.
const REMEMBERED: usize = 256;
/// What the keys of handles begin with.
const HANDLES: &str = "projectcalico.org/ipamhandles/";

/// See the module.
pub(crate) struct Direct {
    etcd: Etcd,
    seen: Mutex<Seen>,
    /// Where the handles are that do not have the names of their objects: those have no capital letters.
    handles: OnceCell<Mutex<HashMap<String, String>>>,
    told: watch::Sender<u64>,
}

/// What was read last, of the objects that were asked for last.
#[derive(Default)]
struct Seen {
    objects: HashMap<Arc<str>, (String, Arc<Object>)>,
    order: VecDeque<Arc<str>>,
}

impl Seen {
    fn set(&mut self, key: &str, found: Option<(String, Arc<Object>)>) {
        let Some(found) = found else {
            self.objects.remove(key);
            return;
        };
        let key: Arc<str> = key.into();
        if self.objects.insert(key.clone(), found).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.objects.remove(&oldest));
        }
    }
}

impl Direct {
    pub(crate) fn new(etcd: Etcd) -> Self {
        let (seen, handles) = (Mutex::default(), OnceCell::new());
        Self { etcd, seen, handles, told: watch::channel(0).0 }
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the object at a key, and remembers it.
    async fn read(&self, key: &str) -> Result<(), StorageError> {
        let found = self.find(key).await.map_err(refused)?;
        let found = found.map(|entry| {
            let Entry { key, raw, revision, value, .. } = entry;
            self.told
                .send_if_modified(|told| std::mem::replace(told, revision.max(*told)) < revision);
            (String::from(raw), Arc::new(Object::new(key, revision, value)))
        });
        self.seen(|seen| seen.set(key, found));
        Ok(())
    }

    async fn find(&self, key: &str) -> Result<Option<Entry>, RemoteError> {
        let plural = plural(key);
        let mut kv = self.etcd.client().kv_client().max_decoding_message_size(ANSWER);
        let Some(places) = layout::places(plural, key) else {
            // Names that say too little are looked for among all.
            let (from, to) = layout::range(plural);
            let options = GetOptions::new().with_range(to);
            let all = in_time(kv.get(from, Some(options))).await?;
            let mut all = all.kvs().iter().filter_map(|kv| entry(plural, kv));
            return Ok(all.find(|entry| *entry.key == *key));
        };
        for raw in places.into_iter().chain(self.odd_handle(key).await?) {
            let answer = in_time(kv.get(raw, None)).await?;
            let found = answer.kvs().first().and_then(|kv| entry(plural, kv));
            if let Some(found) = found.filter(|entry| *entry.key == *key) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where a handle is whose name does not tell.
    async fn odd_handle(&self, key: &str) -> Result<Option<String>, RemoteError> {
        let Some(name) = key.strip_prefix(HANDLES) else { return Ok(None) };
        let odd = self.handles.get_or_try_init(|| self.odd_handles()).await?;
        Ok(odd.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    async fn odd_handles(&self) -> Result<Mutex<HashMap<String, String>>, RemoteError> {
        let (from, to) = layout::range("ipamhandles");
        let options = GetOptions::new().with_range(to).with_keys_only();
        let mut kv = self.etcd.client().kv_client().max_decoding_message_size(ANSWER);
        let all = in_time(kv.get(from.as_str(), Some(options))).await?;
        let keys = all.kvs().iter().filter_map(|kv| kv.key_str().ok());
        let odd = keys.filter_map(|raw| odd(raw.strip_prefix(&from)?, raw));
        Ok(Mutex::new(odd.collect()))
    }

    /// Notes where a new object is.
    fn note(&self, key: &str, raw: &str) {
        if let (Some(name), Some(odd)) = (key.strip_prefix(HANDLES), self.handles.get())
            && !raw.ends_with(name)
        {
            let mut odd = odd.lock().unwrap_or_else(PoisonError::into_inner);
            odd.insert(name.to_owned(), raw.to_owned());
        }
    }

    async fn commit_one(&self, write: Write) -> Result<Arc<Object>, StorageError> {
        let Write { key, expect, value } = write;
        let kind = key.get(..key.len() - tail(&key)).unwrap_or_default();
        if !self.etcd.keeps(kind) {
            return Err(unkept(&key));
        }
        let raw =
            match (self.seen(|seen| seen.objects.get(&key).map(|(raw, _)| raw.clone())), &value) {
                (Some(raw), _) => raw,
                (None, Some(value)) => {
                    self.etcd.place(&key, value).map_err(StorageError::Invalid)?
                }
                (None, None) => return Err(StorageError::Missing { key: key.to_string() }),
            };
        let sent =
            RawWrite { raw: raw.clone(), expect, value: value.clone(), uid: None, beside: None };
        let written = self.etcd.write(kind, sent).await.map_err(refused)?;
        match written {
            Written::Done { revision, value: made } => {
                self.note(&key, &raw);
                let deleted = value.is_none();
                let revision = revision.unwrap_or_default();
                let value = made.or(value).unwrap_or_else(|| json!({"metadata": {}}));
                let object = Arc::new(Object::new(key.clone(), revision, value));
                let now = (!deleted).then(|| (raw, object.clone()));
                self.seen(|seen| seen.set(&key, now));
                self.told.send_replace(revision);
                Ok(object)
            }
            Written::Refused { found, .. } => {
                // Who tries again finds what was in the way.
                self.read(&key).await?;
                let key = key.to_string();
                Err(match (expect, found) {
                    (Expect::Absent, _) => StorageError::Exists { key },
                    (_, None) => StorageError::Missing { key },
                    (_, Some(found)) => StorageError::Stale { key, found },
                })
            }
        }
    }
}

/// The name of the object of a handle that is called otherwise, and where it is.
fn odd(id: &str, raw: &str) -> Option<(String, String)> {
    let name = ipam::handle_name(id);
    (name != id).then(|| (name, raw.to_owned()))
}

/// The length of what follows `group/resource` in a key.
fn tail(key: &str) -> usize {
    key.splitn(3, '/').nth(2).map_or(0, |name| name.len() + 1)
}

impl Storage for Direct {
    fn settle<'a>(
        &'a self,
        _: &'a str,
        wanted: Wanted<'a>,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            match wanted {
                Wanted::LatestOf(key) => self.read(key).await,
                Wanted::Known | Wanted::Latest => Ok(()),
            }
        })
    }

    fn follows(&self) -> bool {
        false
    }

    fn revision(&self, _: &str) -> u64 {
        *self.told.borrow()
    }

    fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.seen(|seen| seen.objects.get(key).map(|(_, object)| object.clone()))
    }

    fn list(&self, prefix: &str, _: Option<u64>) -> Result<Listing, StorageError> {
        Err(StorageError::Failed(format!("{prefix}: lists are read from etcd itself")))
    }

    fn part(
        &self,
        (prefix, _): (&str, &str),
        _: u64,
        _: usize,
    ) -> Result<Vec<Arc<Object>>, StorageError> {
        self.list(prefix, None).map(|listing| listing.objects)
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Arc<Object>>, StorageError>> {
        Box::pin(async move {
            let mut writes = writes.into_iter();
            match (writes.next(), writes.next()) {
                (None, _) => Ok(Vec::new()),
                (Some(write), None) => Ok(vec![self.commit_one(write).await?]),
                _ => Err(StorageError::Failed("one object at a time, wanted several".into())),
            }
        })
    }

    fn changes(&self, _: &str, after: u64) -> Result<Changes, StorageError> {
        Err(StorageError::Expired { asked: after, oldest: *self.told.borrow() })
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for i in 0..2 * REMEMBERED {
            let key = format!("g/r/{i}");
            let object = Arc::new(Object::new(key.as_str().into(), 1, json!({})));
            seen.set(&key, Some((key.clone(), object)));
            seen.set("g/r/none", None);
        }
        assert_eq!((seen.objects.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
        assert!(seen.objects.contains_key("g/r/511") && !seen.objects.contains_key("g/r/0"));
    }

    #[test]
    fn kinds_of_keys() {
        for key in ["projectcalico.org/tiers/a", "projectcalico.org/networksets/n/a"] {
            let kind = &key[..key.len() - tail(key)];
            assert_eq!(kind, key.splitn(3, '/').take(2).collect::<Vec<_>>().join("/"));
        }
    }
}
