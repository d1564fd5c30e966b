//! etcd: upstream's layout, and what etcd does when it is in trouble.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use datastore::{Datastore, Error, Next, Resource, WatchEvent};
use etcd_client::{Client, CompactionOptions, PermissionType, RoleRevokePermissionOptions};
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remote::{EtcdOptions, RemoteError, Secret};
use serde_json::{Value, json};
use testkit::Etcd;

const ROOT: &str = "/calico/resources/v3/projectcalico.org";
const SETS: Resource = Resource::calico("globalnetworksets", "GlobalNetworkSet");
const POLICIES: Resource = Resource::calico("networkpolicies", "NetworkPolicy");
const BLOCKS: Resource = Resource::calico("ipamblocks", "IPAMBlock");
const AFFINITIES: Resource = Resource::calico("blockaffinities", "BlockAffinity");

fn options(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { endpoints: vec![etcd.url().into()], ..EtcdOptions::default() }
}

async fn over(options: &EtcdOptions) -> Datastore {
    Datastore::over(remote::client(remote::open_etcd(options).await.unwrap(), "default"))
}

async fn raw(etcd: &Etcd) -> Client {
    Client::connect([etcd.url()], None).await.unwrap()
}

fn set(name: &str, net: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name}, "spec": {"nets": [net]}})
}

async fn kept(client: &mut Client, key: &str) -> Option<Value> {
    let found = client.get(key, None).await.unwrap();
    found.kvs().first().map(|kv| serde_json::from_slice(kv.value()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_reads_what_we_write_and_we_what_it_writes() {
    let etcd = Etcd::start();
    let (here, mut raw) = (over(&options(&etcd)).await, raw(&etcd).await);
    let policy = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": "ours"}, "spec": {"selector": "all()", "types": ["Ingress"]}});
    let made: Value = here.create(&POLICIES, Some("prod"), &policy).await.unwrap();
    let value = kept(&mut raw, &format!("{ROOT}/networkpolicies/prod/ours")).await.unwrap();
    assert_eq!(value["spec"], made["spec"]);
    assert_eq!(value["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(value["metadata"]["namespace"], "prod");
    let note = json!({"projectcalico.org/metadata": "{\"name\":\"ours\"}"});
    assert_eq!(value["metadata"]["annotations"], note, "the name, as upstream keeps it");
    let written = value["metadata"].as_object().unwrap();
    assert!(!written.contains_key("resourceVersion") && !written.contains_key("managedFields"));

    // As upstream's Go types write it: empty fields, unknown fields, its annotation.
    let theirs = r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"theirs",
        "namespace":"prod","uid":"6a1c6e1c-5a1b-4a8e-9a52-d3d0c4c3a001","creationTimestamp":"2026-01-02T03:04:05Z",
        "annotations":{"projectcalico.org/metadata":"{\"name\":\"theirs\"}"}},
        "spec":{"tier":"default","selector":"all()","types":["Egress"],"egress":[{"action":"Allow","source":{},"destination":{}}],"fromTheFuture":{"a":[1]}}}"#;
    raw.put(format!("{ROOT}/networkpolicies/prod/theirs"), theirs, None).await.unwrap();
    let mut read: Value = here.get(&POLICIES, Some("prod"), "theirs").await.unwrap().unwrap();
    assert_eq!(read["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert!(read["metadata"].get("annotations").is_none());
    read["spec"]["order"] = 5.into();
    here.replace::<Value>(&POLICIES, Some("prod"), "theirs", &read).await.unwrap();
    let value = kept(&mut raw, &format!("{ROOT}/networkpolicies/prod/theirs")).await.unwrap();
    assert_eq!(value["spec"]["order"], 5);
    assert_eq!(value["spec"]["fromTheFuture"], json!({"a": [1]}), "a newer program's");
    assert_eq!(value["metadata"]["uid"], "6a1c6e1c-5a1b-4a8e-9a52-d3d0c4c3a001");
    raw.delete(format!("{ROOT}/networkpolicies/prod/theirs"), None).await.unwrap();
    assert!(here.get::<Value>(&POLICIES, Some("prod"), "theirs").await.unwrap().is_none());

    let block = json!({"cidr": "10.65.0.64/26", "affinity": "host:n1", "strictAffinity": false,
        "allocations": [0, null], "unallocated": [1], "deleted": false, "sequenceNumber": 7,
        "attributes": [{"handle_id": "k8s-pod-network.Ab", "secondary": {"node": "n1"}}]});
    let at = "/calico/ipam/v2/assignment/ipv4/block/10.65.0.64-26";
    raw.put(at, block.to_string(), None).await.unwrap();
    let at = "/calico/ipam/v2/host/n1/ipv4/block/10.65.0.64-26";
    raw.put(at, r#"{"state":"confirmed","deleted":false}"#, None).await.unwrap();
    let read: Value = here.get(&BLOCKS, None, "10-65-0-64-26").await.unwrap().unwrap();
    assert_eq!(read["spec"]["attributes"], block["attributes"]);
    let read: Value = here.get(&AFFINITIES, None, "n1-10-65-0-64-26").await.unwrap().unwrap();
    assert_eq!(read["spec"]["state"], "confirmed");
    assert_eq!(read["spec"]["node"], "n1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_left_alone() {
    let etcd = Etcd::start();
    let (here, mut raw) = (over(&options(&etcd)).await, raw(&etcd).await);
    let bad = [("not-json", "{"), ("list", "[]"), ("nothing", ""), ("a/b", "{}")];
    for (name, value) in bad {
        raw.put(format!("{ROOT}/globalnetworksets/{name}"), value, None).await.unwrap();
    }
    here.create::<Value>(&SETS, None, &set("good", "10.0.0.0/8")).await.unwrap();
    let all: Vec<Value> = here.list_all(&SETS).await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    let taken = here.create::<Value>(&SETS, None, &set("not-json", "10.0.0.0/8")).await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");
    for (name, value) in bad {
        let found = raw.get(format!("{ROOT}/globalnetworksets/{name}"), None).await.unwrap();
        assert_eq!(found.kvs()[0].value(), value.as_bytes(), "{name}");
    }
    for wrong in [set("wrong", "10.0.0.0/99"), set("wrong", "all()"), set("a/b", "10.0.0.0/8")] {
        let error = here.create::<Value>(&SETS, None, &wrong).await.expect_err("it is wrong");
        assert_eq!(error.next(), Next::Refused, "{error}");
    }
}

/// Paused: requests end in bounded time and say so. Killed: what was acknowledged is there. Compacted while a
/// watcher was away: it still sees every object as it is now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_passes() {
    let mut etcd = Etcd::start();
    let here = over(&options(&etcd)).await;
    let made: Value = here.create(&SETS, None, &set("kept", "10.0.0.0/8")).await.unwrap();
    here.create::<Value>(&SETS, None, &set("leaves", "10.0.0.0/8")).await.unwrap();
    let revision = here.list(&SETS, 10, None).await.unwrap().revision;
    let mut events = here.watch(&SETS, &revision).await.unwrap();

    kill(Pid::from_raw(etcd.pid()), Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let refused = here.get::<Value>(&SETS, None, "kept").await.expect_err("nobody answers");
    assert_eq!(refused.next(), Next::Retry, "{refused}");
    let mut change = made.clone();
    change["spec"]["nets"] = json!(["10.7.0.0/16"]);
    let refused = here.replace::<Value>(&SETS, None, "kept", &change).await;
    let refused = refused.expect_err("nobody answers");
    assert_eq!(refused.next(), Next::Retry, "{refused}");
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    kill(Pid::from_raw(etcd.pid()), Signal::SIGCONT).unwrap();
    // The write may have happened, or happen now; who reads again and builds upon that gets through.
    let last = loop {
        let mut now = read(&here, "kept").await;
        now["spec"]["nets"] = json!(["10.8.0.0/16"]);
        match here.replace::<Value>(&SETS, None, "kept", &now).await {
            Ok(written) => break written,
            Err(error) => assert!(matches!(error, Error::Conflict(_)), "{error}"),
        }
    };

    kill(Pid::from_raw(etcd.pid()), Signal::SIGKILL).unwrap();
    let refused = here.get::<Value>(&SETS, None, "kept").await.expect_err("nobody is there");
    assert_eq!(refused.next(), Next::Retry, "{refused}");
    etcd.restart();
    let mut raw = raw(&etcd).await;
    // Before our watch is there again: changes, and their history is thrown away.
    raw.delete(format!("{ROOT}/globalnetworksets/leaves"), None).await.unwrap();
    let put = raw.put(
        format!("{ROOT}/globalnetworksets/new"),
        set("new", "10.9.0.0/16").to_string(),
        None,
    );
    let put = put.await.unwrap().header().unwrap().revision();
    raw.compact(put, Some(CompactionOptions::new().with_physical())).await.unwrap();
    assert_eq!(read(&here, "kept").await["spec"], last["spec"], "what was acknowledged is there");
    let mut seen = std::collections::BTreeMap::new();
    while seen.get("new") != Some(&true) || seen.get("leaves") != Some(&false) {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        let (object, there) = match event.expect("in time").expect("it goes on").unwrap() {
            WatchEvent::Put(object) => (object, true),
            WatchEvent::Gone(object) => (object, false),
            WatchEvent::Bookmark(_) => continue,
        };
        seen.insert(object["metadata"]["name"].as_str().unwrap().to_owned(), there);
    }
    assert_eq!(seen.get("kept"), Some(&true));
    let names: Vec<Value> = here.list_all(&SETS).await.unwrap();
    assert_eq!(names.len(), 2);
}

async fn read(here: &Datastore, name: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match here.get::<Value>(&SETS, None, name).await {
            Ok(found) => return found.expect("it is there"),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_with_passwords_and_rights() {
    let etcd = Etcd::start();
    let mut raw = raw(&etcd).await;
    for (user, role) in [("root", "root"), ("calico", "calico")] {
        raw.role_add(role).await.unwrap();
        raw.user_add(user, "secret-word", None).await.unwrap();
        raw.user_grant_role(user, role).await.unwrap();
    }
    let all = etcd_client::Permission::new(PermissionType::Readwrite, "/calico/").with_prefix();
    raw.role_grant_permission("calico", all).await.unwrap();
    raw.auth_enable().await.unwrap();
    let with = |name: &str, password: &str| EtcdOptions {
        user: Some((name.into(), Secret::Inline(password.into()))),
        ..options(&etcd)
    };
    let right = with("calico", "secret-word");
    assert!(!format!("{right:?}").contains("secret-word"));
    let here = over(&right).await;
    here.create::<Value>(&SETS, None, &set("mine", "10.0.0.0/8")).await.unwrap();

    let wrong = remote::open_etcd(&with("calico", "guess")).await.err().expect("a wrong password");
    assert!(matches!(wrong, RemoteError::Forbidden(_)), "{wrong:?}");
    assert!(!wrong.to_string().contains("guess"), "{wrong}");
    let nobody = over(&options(&etcd)).await;
    let refused = nobody.get::<Value>(&SETS, None, "mine").await.expect_err("no user");
    assert_eq!(refused.next(), Next::Refused, "{refused}");

    let root = etcd_client::ConnectOptions::new().with_user("root", "secret-word");
    let mut root = Client::connect([etcd.url()], Some(root)).await.unwrap();
    let prefix = RoleRevokePermissionOptions::new().with_prefix();
    root.role_revoke_permission("calico", "/calico/", Some(prefix)).await.unwrap();
    let refused = here.create::<Value>(&SETS, None, &set("more", "10.0.0.0/8")).await;
    let refused = refused.expect_err("no rights any more");
    assert_eq!(refused.next(), Next::Refused, "{refused}");
}

/// 10,000 objects, and a client that begins with all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_objects() {
    const ALL: usize = 10_000;
    let etcd = Etcd::start();
    let mut raw = raw(&etcd).await;
    for part in 0..ALL / 100 {
        let put = |at| {
            let name = format!("s-{at:05}");
            let value = set(&name, "10.0.0.0/8").to_string();
            etcd_client::TxnOp::put(format!("{ROOT}/globalnetworksets/{name}"), value, None)
        };
        let puts: Vec<_> = (part * 100..(part + 1) * 100).map(put).collect();
        raw.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
    }
    let here = over(&options(&etcd)).await;
    let all: Vec<Value> = here.list_all(&SETS).await.unwrap();
    assert_eq!(all.len(), ALL);
    // What one transaction wrote comes whole, whatever the watcher's pace.
    let revision = here.list(&SETS, 1, None).await.unwrap().revision;
    let mut events = here.watch(&SETS, &revision).await.unwrap();
    let key = |at: usize| format!("{ROOT}/globalnetworksets/s-{at:05}");
    let deletes: Vec<_> = (0..120).map(|at| etcd_client::TxnOp::delete(key(at), None)).collect();
    raw.txn(etcd_client::Txn::new().and_then(deletes)).await.unwrap();
    let deletes: Vec<_> = (120..240).map(|at| etcd_client::TxnOp::delete(key(at), None)).collect();
    raw.txn(etcd_client::Txn::new().and_then(deletes)).await.unwrap();
    let mut gone = std::collections::BTreeSet::new();
    while gone.len() < 240 {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        if let WatchEvent::Gone(object) = event.expect("in time").expect("it goes on").unwrap() {
            assert!(gone.insert(object["metadata"]["name"].as_str().unwrap().to_owned()));
        }
    }
}

/// What is read page by page is what the API lists, of all namespaces and of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_what_the_api_lists() {
    let etcd = Etcd::start();
    let mut raw = raw(&etcd).await;
    for number in 0..1203 {
        // "a" and "a.b" must not be taken for each other.
        let namespace = if number % 3 == 0 { "a" } else { "a.b" };
        let name = format!("p-{number}");
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace, "uid": name,
                "annotations": {"projectcalico.org/metadata": format!("{{\"name\":\"{name}\"}}")}},
            "spec": {"order": number}});
        let key = format!("{ROOT}/networkpolicies/{namespace}/{name}");
        raw.put(key, value.to_string(), None).await.unwrap();
    }
    let (storage, reader) = remote::open_etcd_to_read(&options(&etcd)).await.unwrap();
    let api = remote::client(storage, "default");
    for (namespace, count) in
        [(None, 1203_usize), (Some("a"), 401), (Some("a.b"), 802), (Some("b"), 0)]
    {
        let mut reading = reader.list("networkpolicies", namespace).unwrap();
        let (mut read, mut pages) = (Vec::new(), 0);
        while let Some(page) = reader.next(&mut reading).await.unwrap() {
            assert!(page.len() <= 500);
            read.extend(page);
            pages += 1;
        }
        assert!(reading.ended());
        assert_eq!((read.len(), pages), (count, count.div_ceil(500).max(1)), "{namespace:?}");
        let path = match namespace {
            None => "/apis/projectcalico.org/v3/networkpolicies".to_owned(),
            Some(n) => format!("/apis/projectcalico.org/v3/namespaces/{n}/networkpolicies"),
        };
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let listed: Value = api.request(request).await.unwrap();
        assert_eq!(json!(read), listed["items"], "{namespace:?}");
    }
    assert!(reader.list("pods", None).is_none());
}

/// A datastore of a release before v3.32, where policies of the default tier are kept under `default.NAME`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_names_of_policies_are_understood_and_dropped() {
    let etcd = Etcd::start();
    let (here, mut raw) = (over(&options(&etcd)).await, raw(&etcd).await);
    let value = |name: &str, order: u32| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "a", "uid": name},
            "spec": {"tier": "default", "order": order, "selector": "all()"}})
    };
    for (kept, order) in [("default.one", 1), ("default.two", 2), ("two", 3), ("three", 4)] {
        let key = format!("{ROOT}/networkpolicies/a/{kept}");
        raw.put(key, value(kept, order).to_string(), None).await.unwrap();
    }
    let mut one: Value = here.get(&POLICIES, Some("a"), "one").await.unwrap().unwrap();
    assert_eq!((&one["metadata"]["name"], &one["spec"]["order"]), (&json!("one"), &json!(1)));
    // A change stays where it was, for agents that look there.
    one["spec"]["order"] = 9.into();
    let _: Value = here.replace(&POLICIES, Some("a"), "one", &one).await.unwrap();
    let kept_one = kept(&mut raw, &format!("{ROOT}/networkpolicies/a/default.one")).await.unwrap();
    assert_eq!(kept_one["spec"]["order"], 9);

    let (_, reader) = remote::open_etcd_to_read(&options(&etcd)).await.unwrap();
    assert_eq!(reader.rename_policies().await.unwrap(), 2);
    assert_eq!(reader.rename_policies().await.unwrap(), 0, "once is enough");
    for (name, order) in [("one", 9), ("two", 3), ("three", 4)] {
        let found = kept(&mut raw, &format!("{ROOT}/networkpolicies/a/{name}")).await.unwrap();
        assert_eq!(
            (&found["metadata"]["name"], &found["spec"]["order"]),
            (&json!(name), &json!(order))
        );
        let found: Value = here.get(&POLICIES, Some("a"), name).await.unwrap().unwrap();
        assert_eq!(found["spec"]["order"], order, "{name}");
    }
    for name in ["default.one", "default.two"] {
        assert_eq!(kept(&mut raw, &format!("{ROOT}/networkpolicies/a/{name}")).await, None);
    }
}
