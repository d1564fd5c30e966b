//! What becomes of clients when something breaks between them and the data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datastore::{Datastore, Error, Next, WatchEvent};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::proxy::Proxy;
use super::{SETS, set, text, version};

/// In this time everything that has been broken is whole again.
const PATIENCE: Duration = Duration::from_secs(40);

/// A datastore and what can happen to it.
pub(crate) trait Site {
    /// The network between [`Site::here`] and the datastore.
    fn proxy(&self) -> &Proxy;
    /// A client, or a server that makes the API of what is kept elsewhere, behind the proxy.
    fn here(&self) -> Datastore;
    /// Another, before it.
    fn elsewhere(&self) -> Datastore;
    /// The datastore is killed and started again.
    async fn restart(&mut self);
    /// The datastore forgets what there was before.
    async fn forget(&mut self);
}

/// What a client of watches knows: the names that there are, and what each says.
struct View {
    known: Arc<Mutex<BTreeMap<String, String>>>,
    task: JoinHandle<()>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl View {
    fn of(datastore: Datastore) -> Self {
        let known = Arc::default();
        let task = tokio::spawn(follow(datastore, Arc::clone(&known)));
        Self { known, task }
    }

    async fn shows(&self, wanted: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            wanted.iter().map(|(name, net)| ((*name).into(), (*net).into())).collect();
        let until = Instant::now() + PATIENCE;
        while *self.known.lock().unwrap() != wanted {
            let known = self.known.lock().unwrap().clone();
            assert!(Instant::now() < until, "it knows {known:?}, wanted {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// List, then watch from there, again and again as any client does that wants to know everything.
async fn follow(datastore: Datastore, known: Arc<Mutex<BTreeMap<String, String>>>) {
    let mut revision: Option<String> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if revision.is_none() {
            let Ok(page) = datastore.list(&SETS, 10_000, None).await else { continue };
            let read = |item: datastore::Item| entry(&item.read().unwrap());
            *known.lock().unwrap() = page.items.into_iter().map(read).collect();
            revision = Some(page.revision);
        }
        let from = revision.clone().unwrap_or_default();
        let mut events = match datastore.watch(&SETS, &from).await {
            Ok(events) => events,
            Err(error) => {
                if error.next() == Next::Relist {
                    revision = None;
                }
                continue;
            }
        };
        while let Some(event) = events.next().await {
            let object = match event {
                Ok(WatchEvent::Put(object)) => {
                    let (name, net) = entry(&object);
                    known.lock().unwrap().insert(name, net);
                    object
                }
                Ok(WatchEvent::Gone(object)) => {
                    known.lock().unwrap().remove(&entry(&object).0);
                    object
                }
                Ok(WatchEvent::Bookmark(at)) => json!({"metadata": {"resourceVersion": at}}),
                Err(error) => {
                    if error.next() == Next::Relist {
                        revision = None;
                    }
                    break;
                }
            };
            revision = Some(version(&object).to_owned());
        }
    }
}

fn entry(object: &Value) -> (String, String) {
    (text(object, "/metadata/name").to_owned(), text(object, "/spec/nets/0").to_owned())
}

async fn create(datastore: &Datastore, name: &str, net: &str) {
    datastore.create::<Value>(&SETS, None, &set(name, net)).await.unwrap();
}

async fn change(datastore: &Datastore, name: &str, net: &str) {
    let patch = json!({"spec": {"nets": [net]}});
    datastore.patch(&SETS, (None, name), None, &patch).await.unwrap();
}

async fn delete(datastore: &Datastore, name: &str) {
    let now: Value = datastore.get(&SETS, None, name).await.unwrap().unwrap();
    let uid = text(&now, "/metadata/uid");
    datastore.delete(&SETS, name, (uid, version(&now))).await.unwrap();
}

/// Everything, on an empty datastore.
pub(crate) async fn run(site: &mut impl Site) {
    let view = View::of(site.here());
    let elsewhere = site.elsewhere();
    create(&elsewhere, "stays", "10.0.0.0/8").await;
    create(&elsewhere, "goes", "10.0.0.0/8").await;
    view.shows(&[("goes", "10.0.0.0/8"), ("stays", "10.0.0.0/8")]).await;

    // Cut off, and told so: nobody is made to believe that he sees or writes anything.
    site.proxy().cut();
    let refused = site.here().get::<Value>(&SETS, None, "stays").await.expect_err("it is cut off");
    assert_eq!(refused.next(), Next::Retry, "{refused}");
    delete(&elsewhere, "goes").await;
    change(&elsewhere, "stays", "10.1.0.0/16").await;
    create(&elsewhere, "comes", "10.2.0.0/16").await;
    site.proxy().open();
    view.shows(&[("comes", "10.2.0.0/16"), ("stays", "10.1.0.0/16")]).await;

    // Cut off without a word.
    site.proxy().silence();
    delete(&elsewhere, "comes").await;
    let begun = Instant::now();
    let refused = site.here().get::<Value>(&SETS, None, "stays").await.expect_err("nobody answers");
    assert_eq!(refused.next(), Next::Retry, "{refused}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    site.proxy().open();
    view.shows(&[("stays", "10.1.0.0/16")]).await;

    // What happened meanwhile is forgotten.
    site.proxy().cut();
    let elsewhere = site.elsewhere();
    create(&elsewhere, "new", "10.3.0.0/16").await;
    delete(&elsewhere, "stays").await;
    site.forget().await;
    site.proxy().open();
    view.shows(&[("new", "10.3.0.0/16")]).await;
    writes_over_a_restart(site).await;
    let count = counter(&site.here()).await;
    view.shows(&[("counter", &entry(&count).1), ("new", "10.3.0.0/16")]).await;
}

/// Whoever is told that his write was done finds it done, whatever happens; whoever is told that it was not
/// has done nothing. Only who is told nothing does not know.
async fn writes_over_a_restart(site: &mut impl Site) {
    const WRITERS: usize = 3;
    create(&site.elsewhere(), "counter", "10.0.0.0/32").await;
    let mut writers = JoinSet::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for _ in 0..WRITERS {
        let (datastore, stop) = (site.here(), stop.clone());
        writers.spawn(async move {
            let (mut sure, mut unsure) = (0_u32, 0_u32);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match count_one(&datastore).await {
                    Ok(()) => sure += 1,
                    Err(Error::Conflict(_)) => {}
                    Err(error) => {
                        assert_eq!(error.next(), Next::Retry, "{error}");
                        unsure += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            (sure, unsure)
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    site.restart().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut sure, mut unsure) = (0, 0);
    while let Some(done) = writers.join_next().await {
        let (s, u) = done.unwrap();
        (sure, unsure) = (sure + s, unsure + u);
    }
    let counted = number(&counter(&site.elsewhere()).await);
    assert!(sure > 0, "nothing was written at all");
    assert!((sure..=sure + unsure).contains(&counted), "{sure} + {unsure}? but {counted}");
}

async fn counter(datastore: &Datastore) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        match datastore.get::<Value>(&SETS, None, "counter").await {
            Ok(now) => return now.expect("it stays"),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The address is the count.
fn number(object: &Value) -> u32 {
    let address = text(object, "/spec/nets/0").trim_end_matches("/32");
    u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()) - (10 << 24)
}

async fn count_one(datastore: &Datastore) -> Result<(), Error> {
    let mut now: Value = datastore.get(&SETS, None, "counter").await?.expect("it stays");
    let next = std::net::Ipv4Addr::from(number(&now) + 1 + (10 << 24));
    now["spec"]["nets"] = json!([format!("{next}/32")]);
    datastore.replace::<Value>(&SETS, None, "counter", &now).await.map(drop)
}

/// 10,000 objects: written by many at once, listed in pages, followed, deleted.
pub(crate) async fn ten_thousand(here: &Datastore, elsewhere: &Datastore) {
    const ALL: usize = 10_000;
    const AT_ONCE: usize = 32;
    let name = |at: usize| format!("many-{at:05}");
    let mut writers = JoinSet::new();
    for first in 0..AT_ONCE {
        let datastore = elsewhere.clone();
        writers.spawn(async move {
            for at in (first..ALL).step_by(AT_ONCE) {
                create(&datastore, &format!("many-{at:05}"), "10.0.0.0/8").await;
            }
        });
    }
    writers.join_all().await;
    let all: Vec<Value> = here.list_all(&SETS).await.unwrap();
    let names: Vec<&str> = all.iter().map(|object| text(object, "/metadata/name")).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("many-")).count(), ALL);
    let revision = here.list(&SETS, 1, None).await.unwrap().revision;
    let mut events = here.watch(&SETS, &revision).await.unwrap();
    for at in 0..50 {
        change(elsewhere, &name(at), "10.9.0.0/16").await;
    }
    for at in 0..50 {
        let (kind, object) = super::next(&mut events).await;
        assert_eq!((kind, text(&object, "/metadata/name")), ("put", &*name(at)));
    }
}
