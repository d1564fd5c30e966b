//! What the agent has of etcd: lists and changes without a copy, single objects, and its reports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use datastore::{Datastore, Error, Events, Resource, WatchEvent};
use etcd_client::Client;
use futures_util::StreamExt as _;
use remote::{EtcdOptions, ReportedEndpoint, Reports, datastore_on_etcd};
use serde_json::{Value, json};
use testkit::Etcd;

const SETS: Resource = Resource::calico("globalnetworksets", "GlobalNetworkSet");
const BLOCKS: Resource = Resource::calico("ipamblocks", "IPAMBlock");
const AFFINITIES: Resource = Resource::calico("blockaffinities", "BlockAffinity");
const HANDLES: Resource = Resource::calico("ipamhandles", "IPAMHandle");
const ROOT: &str = "/calico/resources/v3/projectcalico.org";

fn options(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { endpoints: vec![etcd.url().to_owned()], ..EtcdOptions::default() }
}

async fn both(etcd: &Etcd) -> (Datastore, Client) {
    let here = datastore_on_etcd(&options(etcd)).await.unwrap();
    (here, Client::connect([etcd.url()], None).await.unwrap())
}

fn set(name: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name}, "spec": {"nets": ["10.0.0.0/8"]}})
}

fn named(value: &Value) -> &str {
    value["metadata"]["name"].as_str().unwrap()
}

fn version(value: &Value) -> &str {
    value["metadata"]["resourceVersion"].as_str().unwrap()
}

async fn next(events: &mut Events) -> Result<WatchEvent, Error> {
    tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn single_objects() {
    let etcd = Etcd::start();
    let (here, mut raw) = both(&etcd).await;
    let made: Value = here.create(&SETS, None, &set("a")).await.unwrap();
    assert!(matches!(here.create::<Value>(&SETS, None, &set("a")).await, Err(Error::Exists(_))));
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = here.patch(&SETS, (None, "a"), None, &patch).await.unwrap();
    assert!(version(&patched) > version(&made));
    // Somebody else writes: what was read before is stale, what is read now is not.
    let text = patched.to_string().replace("\"b\"", "\"c\"");
    raw.put(format!("{ROOT}/globalnetworksets/a"), text, None).await.unwrap();
    let stale = here.replace::<Value>(&SETS, None, "a", &patched).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let patch = json!({"metadata": {"labels": {"d": "e"}}});
    here.patch(&SETS, (None, "a"), None, &patch).await.unwrap();
    let found: Value = here.get(&SETS, None, "a").await.unwrap().unwrap();
    assert_eq!(found["metadata"]["labels"], json!({"a": "c", "d": "e"}));
    let bad = json!({"spec": {"nets": ["10.0.0.0/40"]}});
    assert!(here.patch(&SETS, (None, "a"), None, &bad).await.is_err(), "the API's checks hold");
    let uid = found["metadata"]["uid"].as_str().unwrap();
    here.delete(&SETS, "a", (uid, version(&found))).await.unwrap();
    assert!(here.get::<Value>(&SETS, None, "a").await.unwrap().is_none());
    let gone = here.patch(&SETS, (None, "a"), None, &patch).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
}

#[tokio::test]
async fn records_of_addresses_are_found_by_name() {
    let etcd = Etcd::start();
    let (here, mut raw) = both(&etcd).await;
    let ipam = "/calico/ipam/v2";
    let block = json!({"cidr": "fd00:1::40/122", "affinity": "host:n", "allocations": [],
        "unallocated": [], "attributes": [], "deleted": false});
    let long = "a-node-with-a-name-".repeat(14);
    for (key, value) in [
        ("assignment/ipv6/block/fd00:1::40-122".to_owned(), block),
        ("host/n-fd00/ipv6/block/2::40-122".into(), json!({"state": "confirmed"})),
        ("host/n/ipv6/block/fd00:1::40-122".into(), json!({"state": "pending"})),
        (format!("host/{long}/ipv4/block/10.0.0.0-26"), json!({"state": "confirmed"})),
        ("handle/net.c1".into(), json!({"block": {"10.0.0.0/26": 1}})),
        ("handle/Net.C1".into(), json!({"block": {"10.0.0.0/26": 2}})),
        ("handle/Other.c1".into(), json!({"block": {"10.0.0.0/26": 3}})),
    ] {
        raw.put(format!("{ipam}/{key}"), value.to_string(), None).await.unwrap();
    }
    let block: Value = here.get(&BLOCKS, None, "fd00-1--40-122").await.unwrap().unwrap();
    assert_eq!(block["spec"]["cidr"], "fd00:1::40/122");
    for affinity in here.list_all::<Value>(&AFFINITIES).await.unwrap() {
        let found: Value = here.get(&AFFINITIES, None, named(&affinity)).await.unwrap().unwrap();
        assert_eq!(found["spec"], affinity["spec"]);
    }
    let handle: Value = here.get(&HANDLES, None, "net.c1").await.unwrap().unwrap();
    assert_eq!(handle["spec"]["block"], json!({"10.0.0.0/26": 1}));
    let handle: Value = here.get(&HANDLES, None, "other.c1").await.unwrap().unwrap();
    assert_eq!(handle["spec"]["handleID"], "Other.c1");
    let spec = json!({"handleID": "New.C1", "block": {}});
    let new = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMHandle",
        "metadata": {"name": "new.c1"}, "spec": spec});
    here.create::<Value>(&HANDLES, None, &new).await.unwrap();
    let handle: Value = here.get(&HANDLES, None, "new.c1").await.unwrap().unwrap();
    assert_eq!(handle["spec"]["handleID"], "New.C1");
    assert!(here.get::<Value>(&HANDLES, None, "net.c2").await.unwrap().is_none());
    assert!(here.get::<Value>(&BLOCKS, None, "10-0-0-0-26").await.unwrap().is_none());
}

#[tokio::test]
async fn lists_and_changes() {
    let etcd = Etcd::start();
    let (here, mut raw) = both(&etcd).await;
    for i in 0..2 {
        here.create::<Value>(&SETS, None, &set(&format!("s{i:02}"))).await.unwrap();
    }
    for i in 0..600 {
        let key = format!("{ROOT}/globalnetworksets/t{i:03}");
        raw.put(key, set(&format!("t{i:03}")).to_string(), None).await.unwrap();
    }
    let first = here.list(&SETS, 500, None).await.unwrap();
    // It comes too late for this list.
    here.create::<Value>(&SETS, None, &set("u")).await.unwrap();
    let second = here.list(&SETS, 500, first.more.as_deref()).await.unwrap();
    assert_eq!([&first, &second].map(|page| page.items.len()), [500, 102]);
    assert!(second.more.is_none() && first.revision == second.revision);

    let mut events = here.watch(&SETS, &second.revision).await.unwrap();
    let WatchEvent::Put(put) = next(&mut events).await.unwrap() else { panic!("a new one") };
    assert_eq!(named(&put), "u");
    raw.delete(format!("{ROOT}/globalnetworksets/s00"), None).await.unwrap();
    let WatchEvent::Gone(gone) = next(&mut events).await.unwrap() else { panic!("one is gone") };
    assert_eq!(named(&gone), "s00");
    assert!(version(&gone).parse::<u64>().unwrap() > version(&put).parse::<u64>().unwrap());
    // What cannot be read is not there.
    raw.put(format!("{ROOT}/globalnetworksets/s01"), "{", None).await.unwrap();
    let WatchEvent::Gone(gone) = next(&mut events).await.unwrap() else { panic!("it is no set") };
    assert_eq!(named(&gone), "s01");

    let revision = version(&gone).parse().unwrap();
    raw.compact(revision, None).await.unwrap();
    let mut late = here.watch(&SETS, &second.revision).await.unwrap();
    assert!(matches!(next(&mut late).await, Err(Error::Gone(_))));
}

#[tokio::test]
async fn reports() {
    let etcd = Etcd::start();
    let mut raw = Client::connect([etcd.url()], None).await.unwrap();
    let reports = Reports::connect(&options(&etcd), "", "n").await.unwrap();
    let root = "/calico/felix/v2/no-region/host/n";
    let (uptime, ttl) = (Duration::from_millis(1_500), Duration::from_mins(1));
    reports.lives("2026-01-01T00:00:00Z", uptime, true, ttl).await.unwrap();
    let status = raw.get(format!("{root}/status"), None).await.unwrap();
    let value: Value = serde_json::from_slice(status.kvs()[0].value()).unwrap();
    assert_eq!(value, json!({"time": "2026-01-01T00:00:00Z", "uptime": 1.5, "first_update": true}));
    let lease = status.kvs()[0].lease();
    assert_ne!(lease, 0);
    let kept = raw.get(format!("{root}/last_reported_status"), None).await.unwrap();
    assert_eq!(kept.kvs()[0].lease(), 0);
    let held = async |raw: &mut Client| {
        let found = raw.get(format!("{root}/status"), None).await.unwrap();
        found.kvs().first().map(etcd_client::KeyValue::lease)
    };
    reports.lives("2026-01-01T00:00:30Z", uptime, false, ttl).await.unwrap();
    assert_eq!(held(&mut raw).await, Some(lease), "it is renewed");
    raw.lease_client().revoke(lease).await.unwrap();
    assert_eq!(held(&mut raw).await, None);
    reports.lives("2026-01-01T00:01:00Z", uptime, false, ttl).await.unwrap();
    assert!(held(&mut raw).await.is_some_and(|new| new != lease), "it is replaced");

    let endpoint = ReportedEndpoint {
        orchestrator: "k8s".into(),
        workload: "shop/web".into(),
        endpoint: "eth0".into(),
    };
    reports.endpoint(&endpoint, Some("up")).await.unwrap();
    assert_eq!(reports.endpoints().await.unwrap(), std::slice::from_ref(&endpoint));
    reports.endpoint(&endpoint, None).await.unwrap();
    assert!(reports.endpoints().await.unwrap().is_empty());
    assert!(Reports::connect(&options(&etcd), "a/b", "n").await.is_err());
}
