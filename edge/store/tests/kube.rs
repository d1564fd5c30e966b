//! The `kube` crate as a client of the server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use apikit::Running;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::watcher;
use serde_json::json;

fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    for _ in 0..200 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("did not happen in 5 s: {what}");
}

#[tokio::test]
async fn objects_come_and_go_and_watches_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let client = server.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let list = maps.list(&ListParams::default()).await.unwrap();
    let since = list.metadata.resource_version.unwrap();
    let map: ConfigMap = from(json!({"metadata": {"name": "a"}, "data": {"k": "1"}}));
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let again = maps.create(&PostParams::default(), &map).await.unwrap_err();
    assert!(
        matches!(&again, kube::Error::Api(s) if s.code == 409 && s.reason == "AlreadyExists"),
        "{again}"
    );
    let mut changed = made.clone();
    changed.data = Some(BTreeMap::from([("k".into(), "2".into())]));
    let changed = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    let stale = maps.replace("a", &PostParams::default(), &made).await.unwrap_err();
    assert!(
        matches!(&stale, kube::Error::Api(s) if s.code == 409 && s.reason == "Conflict"),
        "{stale}"
    );
    let merged = maps
        .patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"m": "3"}})))
        .await
        .unwrap();
    assert_eq!(merged.data.unwrap().len(), 2);
    assert_ne!(merged.metadata.resource_version, changed.metadata.resource_version);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let gone = maps.get("a").await.unwrap_err();
    assert!(matches!(&gone, kube::Error::Api(s) if s.code == 404), "{gone}");
    let events: Vec<_> = maps
        .watch(&WatchParams::default().timeout(1), &since)
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Added(_) => Some("added"),
            WatchEvent::Modified(_) => Some("modified"),
            WatchEvent::Deleted(_) => Some("deleted"),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(error) => panic!("{error:?}"),
        })
        .collect();
    assert_eq!(kinds, ["added", "modified", "modified", "deleted"]);
    server.stop();
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let nodes: Api<Node> = Api::all(server.client().await);
    for at in 0..7 {
        let node: Node = from(
            json!({"metadata": {"name": format!("n{at}"), "labels": {"odd": (at % 2).to_string()}}}),
        );
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
    let page = nodes.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (3, Some(4)));
    nodes.delete("n4", &DeleteParams::default()).await.unwrap();
    let late: Node = from(json!({"metadata": {"name": "n55"}}));
    nodes.create(&PostParams::default(), &late).await.unwrap();
    let (mut names, mut remaining) = (Vec::new(), Vec::new());
    let mut next = page.metadata.continue_.clone();
    while let Some(token) = next.filter(|t| !t.is_empty()) {
        let more =
            nodes.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap();
        assert_eq!(more.metadata.resource_version, page.metadata.resource_version);
        names.extend(more.items.into_iter().filter_map(|n| n.metadata.name));
        remaining.push(more.metadata.remaining_item_count);
        next = more.metadata.continue_;
    }
    assert_eq!(names, ["n3", "n4", "n5", "n6"], "as of the first page");
    assert_eq!(remaining, [Some(1), None]);
    // A page is full of what passes the filter, and another follows only if there is more of it.
    let mut params = ListParams::default().labels("odd=1").limit(1);
    let mut pages = Vec::new();
    loop {
        let page = nodes.list(&params).await.unwrap();
        pages.push(page.items.into_iter().filter_map(|n| n.metadata.name).collect::<Vec<_>>());
        assert_eq!(page.metadata.remaining_item_count, None, "not counted for a filter");
        let Some(token) = page.metadata.continue_.filter(|t| !t.is_empty()) else { break };
        params = params.continue_token(&token);
    }
    assert_eq!(pages, [["n1"], ["n3"], ["n5"]]);
    let odd = nodes.list(&ListParams::default().labels("odd=1")).await.unwrap();
    assert_eq!(odd.items.len(), 3);
    let one = nodes.list(&ListParams::default().fields("metadata.name=n2")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    server.stop();
}

#[tokio::test]
async fn namespaces_have_an_account_and_take_their_content_along() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let client = server.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "a");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "a");
    let made = namespaces
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "a"}})))
        .await
        .unwrap();
    assert_eq!(made.metadata.labels.unwrap()["kubernetes.io/metadata.name"], "a");
    eventually("the account", || async { accounts.get_opt("default").await.unwrap() }).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}});
    let made = pods.create(&PostParams::default(), &from(pod)).await.unwrap();
    let spec = made.spec.unwrap();
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
    namespaces.delete("a", &DeleteParams::default()).await.unwrap();
    let dying = eventually("the pod is told", || async {
        pods.get("p").await.ok().filter(|p| p.metadata.deletion_timestamp.is_some())
    })
    .await;
    assert_eq!(dying.metadata.deletion_grace_period_seconds, Some(30));
    assert_eq!(
        namespaces.get("a").await.unwrap().status.unwrap().phase.as_deref(),
        Some("Terminating")
    );
    let refused = pods
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})))
        .await
        .unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(s) if s.code == 403), "{refused}");
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    eventually("the namespace goes", || async {
        namespaces.get_opt("a").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(accounts.get_opt("default").await.unwrap().is_none());
    server.stop();
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart_and_sees_the_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    let made = maps
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "a"}})))
        .await
        .unwrap();
    let since = made.metadata.resource_version.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    server.stop();
    let server = Running::start(dir.path());
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "b"}}))).await.unwrap();
    let watch = maps.watch(&WatchParams::default().timeout(1), &since).await.unwrap();
    let events: Vec<_> = watch.try_collect().await.unwrap();
    let seen: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            WatchEvent::Added(map) => Some(("added", map.metadata.name.as_deref()?)),
            WatchEvent::Deleted(map) => Some(("deleted", map.metadata.name.as_deref()?)),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [("deleted", "a"), ("added", "b")]);
    server.stop();
}

#[tokio::test]
async fn a_revision_beyond_the_history_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = store::Options::new(dir.path().join("store.db"));
    options.history = 10;
    let server = Running::with(&options, dir.path());
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    for at in 0..30 {
        let map = from(json!({"metadata": {"generateName": "a-"}, "data": {"at": at.to_string()}}));
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let Err(error) = maps.watch(&WatchParams::default(), "2").await else {
        panic!("a watch from a forgotten revision was opened");
    };
    assert!(
        matches!(&error, kube::Error::Api(s) if s.code == 410 && s.reason == "Expired"),
        "{error}"
    );
    let mut events = Box::pin(watcher(maps.clone(), watcher::Config::default()));
    let mut found = 0;
    loop {
        match events.next().await.unwrap().unwrap() {
            watcher::Event::InitApply(_) => found += 1,
            watcher::Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(found, 30);
    server.stop();
}
