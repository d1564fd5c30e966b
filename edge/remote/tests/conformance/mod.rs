//! What every datastore does, asked through the client that all of ours use. Nothing here knows which it is.

pub(crate) mod proxy;
pub(crate) mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datastore::{Addresses, Ask, Datastore, Error, Next, Resource, WatchEvent};
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub(crate) const SETS: Resource = Resource::calico("globalnetworksets", "GlobalNetworkSet");
const NAMESPACED: Resource = Resource::calico("networksets", "NetworkSet");
const POLICIES: Resource = Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");
const POOLS: Resource = Resource::calico("ippools", "IPPool");
const BLOCKS: Resource = Resource::calico("ipamblocks", "IPAMBlock");
const HANDLES: Resource = Resource::calico("ipamhandles", "IPAMHandle");

pub(crate) fn set(name: &str, net: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name, "labels": {"suite": "yes"}}, "spec": {"nets": [net]}})
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// The next event that is no bookmark, within a time in which anything comes.
pub(crate) async fn next(
    events: &mut (impl Stream<Item = Result<WatchEvent, Error>> + Unpin),
) -> (&'static str, Value) {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        match event.expect("an event in time").expect("the watch goes on").expect("no error") {
            WatchEvent::Put(object) => return ("put", object),
            WatchEvent::Gone(object) => return ("gone", object),
            WatchEvent::Bookmark(_) => {}
        }
    }
}

/// Everything, on an empty datastore in which Calico's kinds can be kept. Other writers of the same datastore
/// are reached through `elsewhere`.
pub(crate) async fn run(here: &Datastore, elsewhere: &Datastore) {
    one_object_lives_and_dies(here).await;
    what_is_wrong_is_refused(here).await;
    what_is_applied_is_there(here).await;
    a_namespaced_object(here).await;
    a_list_comes_in_pages(here).await;
    a_watch_goes_on_where_a_list_ended(here, elsewhere).await;
    everybody_counts_and_nothing_is_lost(here, elsewhere).await;
    a_slow_watcher_misses_nothing(here, elsewhere).await;
    a_watch_says_how_far_it_has_come(here, elsewhere).await;
    policies_come_back_as_they_were(here, elsewhere).await;
    addresses_are_given_once(here, elsewhere).await;
}

async fn one_object_lives_and_dies(here: &Datastore) {
    let made: Value = here.create(&SETS, None, &set("life", "10.0.0.0/8")).await.unwrap();
    assert!(!text(&made, "/metadata/uid").is_empty());
    assert!(!version(&made).is_empty());
    let again = here.create::<Value>(&SETS, None, &set("life", "10.0.0.0/8")).await;
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    let read: Value = here.get(&SETS, None, "life").await.unwrap().expect("it is there");
    assert_eq!(read["spec"], made["spec"]);
    assert_eq!(version(&read), version(&made), "who writes reads what he wrote");
    let mut changed = read.clone();
    changed["spec"]["nets"] = json!(["10.0.0.0/8", "172.16.0.0/12"]);
    let changed: Value = here.replace(&SETS, None, "life", &changed).await.unwrap();
    assert_ne!(version(&changed), version(&read));
    let stale = here.replace::<Value>(&SETS, None, "life", &read).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let patch = json!({"metadata": {"labels": {"more": "yes"}}});
    let patched = here.patch(&SETS, (None, "life"), None, &patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"], json!({"suite": "yes", "more": "yes"}));
    let uid = text(&patched, "/metadata/uid").to_owned();
    let stale = here.delete(&SETS, "life", (&uid, version(&changed))).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    here.delete(&SETS, "life", (&uid, version(&patched))).await.unwrap();
    assert!(here.get::<Value>(&SETS, None, "life").await.unwrap().is_none());
    let gone = here.delete(&SETS, "life", (&uid, version(&patched))).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    let gone = here.replace::<Value>(&SETS, None, "life", &patched).await;
    assert!(matches!(gone, Err(Error::NotFound(_) | Error::Conflict(_))), "{gone:?}");
}

async fn what_is_wrong_is_refused(here: &Datastore) {
    for wrong in [
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": "wrong"}, "spec": {"nets": 3}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": "WRONG"}, "spec": {}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "wrong"}}),
    ] {
        let error = here.create::<Value>(&SETS, None, &wrong).await.expect_err("it is wrong");
        assert_eq!(error.next(), Next::Refused, "{error}");
    }
    assert!(here.get::<Value>(&SETS, None, "wrong").await.unwrap().is_none(), "nothing is written");
}

/// Server-side apply: it makes, changes, and takes away what its manager had applied, and nothing else.
async fn what_is_applied_is_there(here: &Datastore) {
    let apply = async |nets: Value, labels: Value| -> Value {
        let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": {"name": "applied", "labels": labels}, "spec": {"nets": nets}});
        let request =
            http::Request::patch(format!("{}/applied?fieldManager=suite", SETS.path(None)))
                .header("content-type", "application/apply-patch+yaml")
                .body(object.to_string().into_bytes());
        here.client().request(request.unwrap()).await.unwrap()
    };
    let made = apply(json!(["10.0.0.0/8", "10.1.0.0/16"]), json!({"a": "1"})).await;
    assert_eq!(made["spec"]["nets"], json!(["10.0.0.0/8", "10.1.0.0/16"]));
    let theirs = json!({"metadata": {"labels": {"theirs": "1"}}});
    let patched = here.patch(&SETS, (None, "applied"), None, &theirs).await.unwrap();
    let again = apply(json!(["10.0.0.0/8", "10.1.0.0/16"]), json!({"a": "1"})).await;
    assert_eq!(version(&again), version(&patched), "nothing new");
    let less = apply(json!(["10.1.0.0/16"]), json!({})).await;
    assert_eq!(less["spec"]["nets"], json!(["10.1.0.0/16"]));
    assert_eq!(less["metadata"]["labels"], json!({"theirs": "1"}));
    here.delete(&SETS, "applied", (text(&less, "/metadata/uid"), version(&less))).await.unwrap();
}

async fn a_namespaced_object(here: &Datastore) {
    let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet",
        "metadata": {"name": "own"}, "spec": {"nets": ["10.1.0.0/16"]}});
    let made: Value = here.create(&NAMESPACED, Some("default"), &object).await.unwrap();
    assert_eq!(text(&made, "/metadata/namespace"), "default");
    let all: Vec<Value> = here.list_all(&NAMESPACED).await.unwrap();
    assert_eq!(all.iter().filter(|o| text(o, "/metadata/name") == "own").count(), 1);
    assert!(here.get::<Value>(&NAMESPACED, Some("kube-system"), "own").await.unwrap().is_none());
}

async fn a_list_comes_in_pages(here: &Datastore) {
    for at in 0..25 {
        here.create::<Value>(&SETS, None, &set(&format!("page-{at:02}"), "10.2.0.0/16"))
            .await
            .unwrap();
    }
    let (mut names, mut more, mut sizes, mut revisions) =
        (Vec::new(), None, Vec::new(), Vec::new());
    loop {
        let page = here.list(&SETS, 10, more.as_deref()).await.unwrap();
        sizes.push(page.items.len());
        revisions.push(page.revision.clone());
        for item in page.items {
            let item: Value = item.read().unwrap();
            names.push(text(&item, "/metadata/name").to_owned());
        }
        if more.is_none() {
            // It comes too late for the rest of this list.
            here.create::<Value>(&SETS, None, &set("page-99", "10.2.0.0/16")).await.unwrap();
        }
        more = page.more;
        if more.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert!(names.is_sorted() && !names.contains(&"page-99".to_owned()), "{names:?}");
    revisions.dedup();
    assert_eq!(revisions.len(), 1, "all pages show one state: {revisions:?}");
}

async fn a_watch_goes_on_where_a_list_ended(here: &Datastore, elsewhere: &Datastore) {
    let begun = here.list(&SETS, 500, None).await.unwrap().revision;
    let mut live = here.watch(&SETS, &begun).await.unwrap();
    let made: Value = elsewhere.create(&SETS, None, &set("seen", "10.3.0.0/16")).await.unwrap();
    let mut change = made.clone();
    change["spec"]["nets"] = json!(["10.4.0.0/16"]);
    let changed: Value = elsewhere.replace(&SETS, None, "seen", &change).await.unwrap();
    let uid = text(&made, "/metadata/uid");
    elsewhere.delete(&SETS, "seen", (uid, version(&changed))).await.unwrap();
    let mut late = here.watch(&SETS, &begun).await.unwrap();
    for (which, events) in [("live", &mut live), ("late", &mut late)] {
        let (kind, object) = next(events).await;
        assert_eq!((kind, &object["spec"]), ("put", &made["spec"]), "{which}");
        assert_eq!(version(&object), version(&made), "{which}");
        let (kind, object) = next(events).await;
        assert_eq!((kind, &object["spec"]), ("put", &changed["spec"]), "{which}");
        let (kind, object) = next(events).await;
        assert_eq!((kind, text(&object, "/metadata/name")), ("gone", "seen"), "{which}");
    }
    let mut rest = here.watch(&SETS, version(&changed)).await.unwrap();
    assert_eq!(next(&mut rest).await.0, "gone", "only what came after");
}

/// Compare-and-swap: of many who add one to the same number none is lost.
async fn everybody_counts_and_nothing_is_lost(here: &Datastore, elsewhere: &Datastore) {
    const WRITERS: usize = 6;
    const EACH: usize = 10;
    let mut object = set("counter", "10.5.0.0/16");
    object["metadata"]["annotations"] = json!({"count": "0"});
    here.create::<Value>(&SETS, None, &object).await.unwrap();
    let mut writers = JoinSet::new();
    for at in 0..WRITERS {
        let datastore = if at % 2 == 0 { here.clone() } else { elsewhere.clone() };
        writers.spawn(async move {
            for _ in 0..EACH {
                loop {
                    let mut now: Value =
                        datastore.get(&SETS, None, "counter").await.unwrap().unwrap();
                    let count: u32 = text(&now, "/metadata/annotations/count").parse().unwrap();
                    now["metadata"]["annotations"]["count"] = (count + 1).to_string().into();
                    match datastore.replace::<Value>(&SETS, None, "counter", &now).await {
                        Ok(_) => break,
                        Err(Error::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    for datastore in [here, elsewhere] {
        let now: Value = datastore.get(&SETS, None, "counter").await.unwrap().unwrap();
        assert_eq!(text(&now, "/metadata/annotations/count"), (WRITERS * EACH).to_string());
    }
}

async fn a_slow_watcher_misses_nothing(here: &Datastore, elsewhere: &Datastore) {
    const CHANGES: usize = 400;
    let mut now: Value = here.create(&SETS, None, &set("busy", "10.6.0.0/16")).await.unwrap();
    let mut events = here.watch(&SETS, version(&now)).await.unwrap();
    for at in 0..CHANGES {
        now["metadata"]["annotations"] = json!({"at": at.to_string(), "padding": "x".repeat(2000)});
        now = elsewhere.replace(&SETS, None, "busy", &now).await.unwrap();
    }
    // It reads only now.
    for at in 0..CHANGES {
        let (kind, object) = next(&mut events).await;
        assert_eq!((kind, text(&object, "/metadata/annotations/at")), ("put", &*at.to_string()));
    }
}

/// A watcher to whom nothing happens learns how far he has come, and may go on from there.
async fn a_watch_says_how_far_it_has_come(here: &Datastore, elsewhere: &Datastore) {
    let begun = here.list(&SETS, 1, None).await.unwrap().revision;
    let path = format!(
        "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds=4&labelSelector=none%3Dof-them&resourceVersion={begun}",
        SETS.path(None)
    );
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let events = here.client().request_events::<Value>(request).await.unwrap();
    let made: Value = elsewhere.create(&SETS, None, &set("other", "10.8.0.0/16")).await.unwrap();
    let mut events = std::pin::pin!(events);
    let mut last = None;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            kube::core::WatchEvent::Bookmark(mark) => last = Some(mark.metadata.resource_version),
            other => panic!("{other:?}"),
        }
    }
    let last = last.expect("a bookmark before the end");
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert!(number(&last) >= number(version(&made)), "{last}");
    let uid = text(&made, "/metadata/uid");
    elsewhere.delete(&SETS, "other", (uid, version(&made))).await.unwrap();
    let mut events = here.watch(&SETS, &last).await.unwrap();
    let (kind, object) = next(&mut events).await;
    assert_eq!((kind, text(&object, "/metadata/name")), ("gone", "other"), "only what came after");
}

async fn policies_come_back_as_they_were(here: &Datastore, elsewhere: &Datastore) {
    let policy = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "kept", "annotations": {"note": "mine"}, "labels": {"a": "b"}},
        "spec": {"tier": "default", "order": 12.25, "selector": "role == 'db'", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "TCP",
                "source": {"nets": ["10.0.0.0/8"]}, "destination": {"ports": [5432, "6000:6010"]}}]}});
    here.create::<Value>(&POLICIES, None, &policy).await.unwrap();
    let read: Value = elsewhere.get(&POLICIES, None, "kept").await.unwrap().unwrap();
    assert_eq!(read["spec"]["ingress"], policy["spec"]["ingress"]);
    assert_eq!(read["spec"]["order"], policy["spec"]["order"]);
    assert_eq!(read["metadata"]["annotations"], policy["metadata"]["annotations"]);
    assert_eq!(read["metadata"]["labels"]["a"], "b");
}

/// Address management of several nodes at once, in objects that upstream reads.
async fn addresses_are_given_once(here: &Datastore, elsewhere: &Datastore) {
    const PODS: usize = 8;
    for (name, cidr, size) in [("four", "10.9.0.0/26", 29), ("six", "fd09::/122", 125)] {
        let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
            "metadata": {"name": name}, "spec": {"cidr": cidr, "blockSize": size}});
        here.create::<Value>(&POOLS, None, &pool).await.unwrap();
    }
    let ask = |node: usize, pod: usize| Ask {
        handle: format!("k8s-pod-network.Node{node}-{pod}"),
        owner: BTreeMap::from([("pod".to_owned(), format!("p-{node}-{pod}"))]),
        ..Ask::default()
    };
    let node = |at: usize, datastore: &Datastore| {
        Arc::new(Addresses::new(datastore.clone(), &format!("node-{at}")))
    };
    let nodes = [node(0, here), node(1, elsewhere), node(2, here)];
    let mut asked = JoinSet::new();
    for (at, node) in nodes.iter().enumerate() {
        for pod in 0..PODS {
            let (node, ask) = (node.clone(), ask(at, pod));
            asked.spawn(async move { node.assign(&ask, None).await });
        }
    }
    let mut given = std::collections::BTreeSet::new();
    while let Some(done) = asked.join_next().await {
        for address in done.unwrap().unwrap() {
            assert!(given.insert(address), "{address} was given twice");
        }
    }
    assert_eq!(given.len(), nodes.len() * PODS * 2);
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(node.held_by_node().await.unwrap().len(), PODS);
        for pod in 0..PODS {
            let handle = ask(at, pod).handle;
            assert_eq!(node.release(&handle).await.unwrap(), 2, "{handle}");
            assert_eq!(node.release(&handle).await.unwrap(), 0, "{handle} again");
        }
    }
    let handles: Vec<Value> = here.list_all(&HANDLES).await.unwrap();
    assert!(handles.is_empty(), "{handles:?}");
    let blocks: Vec<Value> = elsewhere.list_all(&BLOCKS).await.unwrap();
    let free = |block: &Value| {
        block["spec"]["allocations"].as_array().is_some_and(|all| all.iter().all(Value::is_null))
    };
    assert!(blocks.iter().all(free), "{blocks:?}");
}
