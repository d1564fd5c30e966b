//! etcd, version 3.

mod direct;
mod feed;
mod layout;
mod link;
mod options;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use apiserver::storage::Expect;
use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchResponse, WatchStream,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use direct::Direct;
pub(crate) use feed::Lists;
pub(crate) use link::Etcd;
pub use options::{EtcdOptions, EtcdTls, Secret};
pub use reports::{ReportedEndpoint, Reports};

use crate::backend::{
    Backend, Batch, Entry, Event, Known, Latest, RawWrite, RemoteError, Snapshot, Watch, Written,
};

/// No single request takes longer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long a write is tried whose outcome is not known.
const PERSIST: Duration = Duration::from_secs(10);
/// Objects in a page of a listing.
const PAGE: i64 = 500;
/// The most that an answer may hold, in bytes: a page of the largest objects that etcd takes.
const ANSWER: usize = 1 << 30;

impl Etcd {
    /// The objects from a position on, as many as a page has.
    async fn page(&self, at: Position) -> Result<Page, RemoteError> {
        let mut kv = self.client().kv_client().max_decoding_message_size(ANSWER);
        let options = GetOptions::new()
            .with_range(at.to.as_str())
            .with_limit(PAGE)
            .with_revision(at.revision.cast_signed());
        let mut answer = in_time(kv.get(at.from.as_str(), Some(options))).await?;
        let revision = if at.revision == 0 { revision(answer.header()) } else { at.revision };
        let more = answer.more();
        let kvs = answer.take_kvs();
        // The key after the last one. What is no text is not ours and cannot be passed over.
        let from = |last: &KeyValue| format!("{}\0", String::from_utf8_lossy(last.key()));
        let next = kvs.last().filter(|_| more).map(from);
        let next = next.map(|from| Position { from, to: at.to, revision });
        Ok(Page { revision, kvs, next })
    }

    async fn try_write(
        &self,
        write: &RawWrite,
        bytes: Option<&[u8]>,
    ) -> Result<Attempt, RemoteError> {
        let key = write.raw.as_bytes();
        let compare = match write.expect {
            Expect::Absent => Compare::version(key, CompareOp::Equal, 0),
            Expect::At(revision) => {
                Compare::mod_revision(key, CompareOp::Equal, revision.cast_signed())
            }
        };
        let operation = match bytes {
            Some(bytes) => TxnOp::put(key, bytes, None),
            None => TxnOp::delete(key, None),
        };
        let txn = Txn::new().when([compare]).and_then([operation]).or_else([TxnOp::get(key, None)]);
        let mut kv = self.client().kv_client();
        let answer = in_time(kv.txn(txn)).await?;
        let revision = revision(answer.header());
        if answer.succeeded() {
            return Ok(Attempt::Done(revision));
        }
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => found
                .kvs()
                .first()
                .map(|kv| (kv.mod_revision().cast_unsigned(), kv.value().to_vec())),
            _ => None,
        });
        Ok(Attempt::Refused { found, upto: revision })
    }
}

/// Where a listing goes on.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    from: String,
    to: String,
    /// All pages are of one revision; 0 before the first.
    revision: u64,
}

impl Position {
    fn start((from, to): (String, String)) -> Self {
        Self { from, to, revision: 0 }
    }
}

/// A part of a listing.
struct Page {
    revision: u64,
    kvs: Vec<KeyValue>,
    next: Option<Position>,
}

/// Reads objects page by page, and holds no more than one of them: for a program that looks once.
#[derive(Clone)]
pub struct Reader {
    etcd: Etcd,
}

/// A listing that has been begun.
#[derive(Debug)]
pub struct Reading {
    plural: String,
    next: Option<Position>,
}

impl Reader {
    pub(crate) fn new(etcd: Etcd) -> Self {
        Self { etcd }
    }

    /// Begins a listing of a kind, by its name in URLs, in one namespace or in all; nothing if etcd does not
    /// keep that kind.
    #[must_use]
    pub fn list(&self, plural: &str, namespace: Option<&str>) -> Option<Reading> {
        let kind = layout::kind(plural)?;
        let range = layout::range_in(plural, namespace.filter(|_| kind.namespaced));
        Some(Reading { plural: plural.to_owned(), next: Some(Position::start(range)) })
    }

    /// The next objects, as the API shows them; nothing after the last. All are of one revision.
    ///
    /// # Errors
    /// Of etcd. The listing can be tried again from where it was.
    pub async fn next(&self, reading: &mut Reading) -> Result<Option<Vec<Value>>, RemoteError> {
        let Some(at) = reading.next.clone() else { return Ok(None) };
        let page = self.etcd.page(at).await?;
        reading.next = page.next;
        let entries = page.kvs.iter().filter_map(|kv| entry(&reading.plural, kv));
        Ok(Some(entries.map(shown).collect()))
    }
}

impl Reader {
    /// Keeps every policy under the name that it is shown by, without the prefix that releases before v3.32 gave it.
    /// Says how many were elsewhere. Each is moved in one transaction; what somebody changes meanwhile stays as it is,
    /// and is moved when this is called again.
    ///
    /// # Errors
    /// Of etcd. What has been moved stays moved.
    pub async fn rename_policies(&self) -> Result<usize, RemoteError> {
        let mut moved = 0;
        for plural in layout::named_kinds() {
            let (from, to) = layout::range(plural);
            let mut kv = self.etcd.client().kv_client().max_decoding_message_size(ANSWER);
            let mut from = from;
            loop {
                let options = GetOptions::new().with_range(to.as_str()).with_limit(PAGE);
                let answer = in_time(kv.get(from.as_str(), Some(options))).await?;
                for kept in answer.kvs() {
                    moved += usize::from(self.rename(plural, kept).await?);
                }
                match answer.kvs().last().filter(|_| answer.more()) {
                    Some(last) => from = format!("{}\0", String::from_utf8_lossy(last.key())),
                    None => break,
                }
            }
        }
        Ok(moved)
    }

    async fn rename(&self, plural: &str, kept: &KeyValue) -> Result<bool, RemoteError> {
        let renamed = std::str::from_utf8(kept.key())
            .ok()
            .and_then(|raw| layout::renamed(plural, raw, kept.value()));
        let Some((to, value)) = renamed else { return Ok(false) };
        let unchanged = || Compare::mod_revision(kept.key(), CompareOp::Equal, kept.mod_revision());
        let absent = Compare::version(to.as_str(), CompareOp::Equal, 0);
        let delete = || TxnOp::delete(kept.key(), None);
        let put = TxnOp::put(to.as_str(), value, None);
        let mut kv = self.etcd.client().kv_client();
        let txn = Txn::new().when([unchanged(), absent]).and_then([put, delete()]);
        if in_time(kv.txn(txn)).await?.succeeded() {
            return Ok(true);
        }
        // It is there already: a release that moves them has been interrupted.
        let there = Compare::version(to.as_str(), CompareOp::Greater, 0);
        let txn = Txn::new().when([unchanged(), there]).and_then([delete()]);
        Ok(in_time(kv.txn(txn)).await?.succeeded())
    }
}

impl Reading {
    /// Whether there are no more objects.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.next.is_none()
    }
}

/// As the API shows it, with its revision.
fn shown(entry: Entry) -> Value {
    let Entry { mut value, revision, .. } = entry;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
    value
}

/// One try of a write.
enum Attempt {
    Done(u64),
    /// With the revision and the bytes of what is there.
    Refused {
        found: Option<(u64, Vec<u8>)>,
        upto: u64,
    },
}

/// What the keys of all kinds that are kept here begin with.
const GROUP: &str = "projectcalico.org/";

/// The name in URLs of a key's kind.
fn plural(key: &str) -> &str {
    let rest = key.strip_prefix(GROUP).unwrap_or_default();
    rest.split_once('/').map_or(rest, |(plural, _)| plural)
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision().cast_unsigned())
}

/// Waits for an answer, but not for ever.
async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, RemoteError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(explain),
        Err(_) => Err(RemoteError::Unavailable(format!(
            "etcd did not answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

/// What etcd says with the code of an invalid request to somebody whom it does not know.
const NOBODY: [&str; 3] = ["authentication failed", "auth token", "user name is empty"];

/// By the code of gRPC, whose numbers are part of the protocol.
fn explain(error: Error) -> RemoteError {
    const INVALID: i32 = 3;
    const FORBIDDEN: i32 = 7;
    const EXHAUSTED: i32 = 8;
    const PRECONDITION: i32 = 9;
    const OUT_OF_RANGE: i32 = 11;
    const UNAUTHENTICATED: i32 = 16;
    match error {
        Error::GRpcStatus(status) => {
            let text = format!("etcd: {}", status.message());
            match i32::from(status.code()) {
                OUT_OF_RANGE if text.contains("compacted") => RemoteError::Compacted,
                EXHAUSTED if text.contains("space exceeded") => RemoteError::Full(text),
                FORBIDDEN | UNAUTHENTICATED => RemoteError::Forbidden(text),
                INVALID if NOBODY.iter().any(|words| text.contains(words)) => {
                    RemoteError::Forbidden(text)
                }
                INVALID | OUT_OF_RANGE | PRECONDITION => RemoteError::Failed(text),
                _ => RemoteError::Unavailable(text),
            }
        }
        Error::InvalidUri(error) => RemoteError::Config(format!("etcd endpoint: {error}")),
        Error::InvalidArgs(text) => RemoteError::Config(format!("etcd: {text}")),
        Error::TransportError(error) => {
            let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
            RemoteError::Unavailable(format!("etcd: {error}{}", cause.unwrap_or_default()))
        }
        other => RemoteError::Unavailable(format!("etcd: {other}")),
    }
}

/// An object, or nothing if it cannot be read: that is said, and it is left alone.
fn entry(plural: &str, kv: &KeyValue) -> Option<Entry> {
    let raw = std::str::from_utf8(kv.key()).ok()?;
    match layout::decode(plural, raw, kv.create_revision().cast_unsigned(), kv.value()) {
        Ok((key, value)) => Some(Entry {
            key: key.into(),
            raw: raw.into(),
            revision: kv.mod_revision().cast_unsigned(),
            value,
            beside: None,
        }),
        Err(error) => {
            tracing::warn!(key = raw, error, "an object in etcd cannot be read");
            None
        }
    }
}

impl Backend for Etcd {
    type Watch = Changes;

    fn keeps(&self, kind: &str) -> bool {
        kind.starts_with(GROUP) && layout::kind(plural(kind)).is_some()
    }

    fn place(&self, key: &str, value: &Value) -> Result<String, String> {
        layout::place(plural(key), key, value)
    }

    async fn list(&self, kind: &str, known: &Known<'_>) -> Result<Snapshot, RemoteError> {
        let plural = plural(kind);
        let mut at = Some(Position::start(layout::range(plural)));
        let mut snapshot = Snapshot::default();
        while let Some(position) = at {
            let page = self.page(position).await?;
            snapshot.revision = page.revision;
            for kv in &page.kvs {
                let raw = std::str::from_utf8(kv.key()).unwrap_or_default();
                if known(raw, kv.mod_revision().cast_unsigned()) {
                    snapshot.same.push(raw.into());
                } else {
                    snapshot.entries.extend(entry(plural, kv));
                }
            }
            at = page.next;
        }
        Ok(snapshot)
    }

    async fn watch(&self, kind: &str, after: u64) -> Result<Changes, RemoteError> {
        let (plural, mut clients) = (plural(kind), self.clients());
        let client = clients.borrow_and_update().clone();
        let stream = changes(&client, plural, after).await?;
        Ok(Changes { _etcd: self.clone(), clients, plural: plural.into(), upto: after, stream })
    }

    async fn latest(&self, kind: &str, _: u64, _: &Known<'_>) -> Result<Latest, RemoteError> {
        // One key is enough: what is asked for is the revision of the whole.
        let (from, _) = layout::range(plural(kind));
        let options = GetOptions::new().with_keys_only();
        let answer = in_time(self.client().kv_client().get(from, Some(options))).await?;
        Ok(Latest::At(revision(answer.header())))
    }

    async fn write(&self, kind: &str, write: RawWrite) -> Result<Written, RemoteError> {
        let bytes = write.value.as_ref().map(|value| layout::encode(plural(kind), value));
        let done = |revision| Written::Done { revision: Some(revision), value: None };
        let end = Instant::now() + PERSIST;
        let mut backoff =
            datastore::Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut doubt = false;
        loop {
            match self.try_write(&write, bytes.as_deref()).await {
                Ok(Attempt::Done(revision)) => return Ok(done(revision)),
                Ok(Attempt::Refused { found, upto }) => {
                    let kept = found.as_ref().map(|(_, bytes)| bytes);
                    match write.expect {
                        // Others may have written the very same: two that count may both have come to three.
                        Expect::At(_) if doubt && bytes.is_some() => {
                            let text = "etcd did not answer, and the object has changed since";
                            return Err(RemoteError::Unknown(text.into()));
                        }
                        // The try that was not answered was performed: its result is there.
                        _ if doubt && kept == bytes.as_ref() => {
                            return Ok(done(found.map_or(upto, |(revision, _)| revision)));
                        }
                        _ => {}
                    }
                    let found = found.map(|(revision, _)| revision);
                    return Ok(Written::Refused { found, upto });
                }
                Err(RemoteError::Unavailable(text)) => {
                    doubt = true;
                    if Instant::now() >= end {
                        return Err(RemoteError::Unknown(text));
                    }
                    backoff.wait().await;
                }
                // A try before may have been performed.
                Err(error) if doubt => return Err(RemoteError::Unknown(error.to_string())),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The changes of a kind. They go on from where they were when the credentials are replaced.
pub(crate) struct Changes {
    /// New credentials are looked for as long as this is held.
    _etcd: Etcd,
    /// The client whose stream this is has been seen here.
    clients: watch::Receiver<Arc<Client>>,
    plural: Box<str>,
    /// Up to this revision all is told.
    upto: u64,
    stream: WatchStream,
}

/// Opens the stream of a kind's changes after a revision.
async fn changes(client: &Client, plural: &str, after: u64) -> Result<WatchStream, RemoteError> {
    let (from, to) = layout::range(plural);
    let mut options = WatchOptions::new()
        .with_range(to)
        .with_start_revision(after.cast_signed() + 1)
        .with_progress_notify();
    // Where the key alone does not say the name.
    if layout::named_kinds().contains(&plural) {
        options = options.with_prev_key();
    }
    let mut client = client.watch_client().max_decoding_message_size(ANSWER);
    in_time(client.watch(from, Some(options))).await
}

impl Changes {
    /// The next answer, of whichever client there is now.
    async fn answer(&mut self) -> Result<WatchResponse, RemoteError> {
        loop {
            // Seen only once its stream is there: this may be dropped before.
            let mut clients = self.clients.clone();
            tokio::select! {
                answer = self.stream.message() => {
                    let ended = || RemoteError::Unavailable("etcd ended the watch".into());
                    return answer.map_err(explain)?.ok_or_else(ended);
                }
                Ok(()) = clients.changed() => {
                    let client = clients.borrow_and_update().clone();
                    self.stream = changes(&client, &self.plural, self.upto).await?;
                    self.clients = clients;
                }
            }
        }
    }
}

fn gone(kv: &KeyValue, last: Option<&KeyValue>) -> Option<Event> {
    let raw = std::str::from_utf8(kv.key()).ok()?.into();
    let last = last.map(|kv| kv.value().into());
    Some(Event::Gone { raw, revision: kv.mod_revision().cast_unsigned(), last })
}

impl Watch for Changes {
    async fn next(&mut self) -> Result<Batch, RemoteError> {
        let answer = self.answer().await?;
        if answer.compact_revision() > 0 {
            return Err(RemoteError::Compacted);
        }
        if answer.canceled() {
            let why = answer.cancel_reason().to_owned();
            if why.contains("permission denied") {
                return Err(RemoteError::Forbidden(format!("etcd: {why}")));
            }
            return Err(RemoteError::Unavailable(format!("etcd ended the watch: {why}")));
        }
        // The first answer only says that the watch is there: changes since may still be on their way.
        if answer.created() {
            return Ok(Batch::default());
        }
        let events = answer.events().iter().filter_map(|event| {
            let kv = event.kv()?;
            match event.event_type() {
                // What cannot be read any more is not there, as in a list.
                EventType::Put => {
                    entry(&self.plural, kv).map(Event::Put).or_else(|| gone(kv, event.prev_kv()))
                }
                EventType::Delete => gone(kv, event.prev_kv()),
            }
        });
        let events: Vec<Event> = events.collect();
        let last = answer.events().iter().filter_map(|e| e.kv()).map(KeyValue::mod_revision).max();
        // With changes, the header may be ahead of what this watch has been sent.
        let reached = last.map_or_else(|| revision(answer.header()), i64::cast_unsigned);
        self.upto = self.upto.max(reached);
        Ok(Batch { revision: reached, events })
    }

    async fn poke(&mut self) -> Result<(), RemoteError> {
        self.stream.request_progress().await.map_err(explain)
    }
}
