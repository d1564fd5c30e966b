//! The store by itself: its promises as properties, damaged files, full disks, sudden deaths.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use apiserver::storage::{ChangeKind, Expect, Object, Storage, StorageError, Write};
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{Durability, OpenError, Options, Store};

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.join("store.db"));
    options.durability = Durability::Process;
    options.busy_timeout = std::time::Duration::from_millis(200);
    options
}

fn object(value: u32) -> Value {
    json!({"metadata": {"name": "x"}, "value": value})
}

fn write(key: &str, expect: Expect, value: Option<Value>) -> Write {
    Write { key: key.into(), expect, value }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn put(store: &Store, key: &str, value: u32) -> Result<Arc<Object>, StorageError> {
    let expect = store.get(key).map_or(Expect::Absent, |o| Expect::At(o.revision()));
    block_on(store.commit(vec![write(key, expect, Some(object(value)))])).map(|mut o| o.remove(0))
}

/// Keys and the revisions of their objects.
fn contents(store: &Store, prefix: &str, at: Option<u64>) -> Option<BTreeMap<String, u64>> {
    let listing = store.list(prefix, at).ok()?;
    Some(listing.objects.iter().map(|o| (o.key().to_string(), o.revision())).collect())
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u32),
    Delete(u8),
    Stale(u8),
    Both(u8, u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_u8, any::<u32>()).prop_map(|(k, v)| Step::Put(k, v)),
        3 => (0..6_u8).prop_map(Step::Delete),
        1 => (0..6_u8).prop_map(Step::Stale),
        1 => (0..6_u8, 0..6_u8).prop_map(|(a, b)| Step::Both(a, b)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

fn key(at: u8) -> String {
    format!("{}/{at}", if at.is_multiple_of(2) { "even" } else { "odd" })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any list and the changes after it give every later list; revisions only grow; a refused
    /// transaction leaves no trace; a restart changes nothing.
    #[test]
    fn a_list_and_its_changes_give_every_later_list(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&options(dir.path())).unwrap();
        let mut started = 0;
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        let mut snapshots = vec![(0, model.clone())];
        for step in steps {
            let before = store.revision("");
            match step {
                Step::Put(at, value) => {
                    let revision = put(&store, &key(at), value).unwrap().revision();
                    prop_assert_eq!(revision, before + 1);
                    model.insert(key(at), revision);
                }
                Step::Delete(at) => {
                    let expect = Expect::At(model.get(&key(at)).copied().unwrap_or(1));
                    let done = block_on(store.commit(vec![write(&key(at), expect, None)]));
                    prop_assert_eq!(done.is_ok(), model.remove(&key(at)).is_some());
                }
                Step::Stale(at) => {
                    let done = block_on(store.commit(vec![write(&key(at), Expect::At(u64::MAX), Some(object(1)))]));
                    prop_assert!(done.is_err());
                    prop_assert_eq!(store.revision(""), before);
                }
                Step::Both(a, b) => {
                    // The second write must fail, and take the first one with it.
                    let expect = model.get(&key(a)).map_or(Expect::Absent, |r| Expect::At(*r));
                    let good = write(&key(a), expect, Some(object(2)));
                    let bad = write(&format!("{}x", key(b)), Expect::At(1), None);
                    let failed = matches!(
                        block_on(store.commit(vec![good, bad])), Err(StorageError::Missing { .. }));
                    prop_assert!(failed);
                    prop_assert_eq!(store.revision(""), before);
                }
                Step::Restart => {
                    drop(store);
                    store = Store::open(&options(dir.path())).unwrap();
                    prop_assert_eq!(store.revision(""), before);
                    started = before;
                }
            }
            snapshots.push((store.revision(""), model.clone()));
        }
        for (at, snapshot) in &snapshots {
            if *at >= started {
                prop_assert_eq!(contents(&store, "", Some(*at)), Some(snapshot.clone()));
                let behind = |start: &str| {
                    let odd = snapshot.clone().into_iter().filter(|(k, _)| k.starts_with("odd/"));
                    odd.filter(|(k, _)| k.as_str() > start).take(2).collect::<Vec<_>>()
                };
                for start in ["", "even/2", "odd/", "odd/1", "odd/2", "odd/5", "z"] {
                    let part = store.part(("odd/", start), *at, 2).unwrap();
                    let part: Vec<_> =
                        part.iter().map(|o| (o.key().to_string(), o.revision())).collect();
                    prop_assert_eq!(part, behind(start), "behind {:?} at {}", start, at);
                }
            }
            let mut replayed = snapshot.clone();
            let mut last = *at;
            for change in store.changes("", *at).unwrap().changes {
                prop_assert!(change.object.revision() > last, "order");
                last = change.object.revision();
                let key = change.object.key().to_string();
                let was = match change.kind {
                    ChangeKind::Deleted => replayed.remove(&key),
                    _ => replayed.insert(key, last),
                };
                prop_assert_eq!(was.is_some(), change.kind != ChangeKind::Created);
            }
            prop_assert_eq!(&replayed, &model);
            let odd: BTreeMap<_, _> = model.clone().into_iter().filter(|(k, _)| k.starts_with("odd/")).collect();
            prop_assert_eq!(contents(&store, "odd/", None), Some(odd));
        }
    }
}

#[test]
fn old_history_expires_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = options(dir.path());
    small.history = 16;
    let store = Store::open(&small).unwrap();
    for at in 0..100 {
        put(&store, "a", at).unwrap();
    }
    assert!(matches!(store.changes("", 10), Err(StorageError::Expired { asked: 10, .. })));
    assert_eq!(store.changes("", 90).unwrap().changes.len(), 10);
    drop(store);
    let store = Store::open(&small).unwrap();
    assert_eq!(store.revision(""), 100);
    assert!(matches!(store.changes("", 10), Err(StorageError::Expired { .. })));
    assert_eq!(store.changes("", 90).unwrap().changes.len(), 10, "kept over the restart");
}

#[test]
fn history_is_bounded_in_bytes_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = options(dir.path());
    small.history_bytes = 10_000;
    let store = Store::open(&small).unwrap();
    let large = |expect| {
        let value = json!({"metadata": {"name": "l"}, "text": "x".repeat(3_000)});
        vec![write("l", expect, Some(value))]
    };
    block_on(store.commit(large(Expect::Absent))).unwrap();
    for at in 1..20 {
        block_on(store.commit(large(Expect::At(at)))).unwrap();
    }
    assert_eq!(store.changes("", 17).unwrap().changes.len(), 3);
    assert!(matches!(store.changes("", 16), Err(StorageError::Expired { oldest: 17, .. })));
    drop(store);
    let store = Store::open(&small).unwrap();
    assert_eq!(store.changes("", 17).unwrap().changes.len(), 3, "kept over the restart");
    assert!(matches!(store.changes("", 16), Err(StorageError::Expired { .. })));
}

#[test]
fn concurrent_writers_of_one_object_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&options(dir.path())).unwrap());
    put(&store, "n", 0).unwrap();
    let add = |store: Arc<Store>| {
        move || {
            for _ in 0..100 {
                loop {
                    let now = store.get("n").unwrap();
                    let value = now.value()["value"].as_u64().unwrap() as u32 + 1;
                    let write = write("n", Expect::At(now.revision()), Some(object(value)));
                    if block_on(store.commit(vec![write])).is_ok() {
                        break;
                    }
                }
            }
        }
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(add(store.clone()))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.get("n").unwrap().value()["value"], 400);
    assert_eq!(store.revision(""), 401);
}

#[test]
fn files_that_are_no_store_of_ours_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let refused = |what: &str| {
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&options(dir.path())).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), before, "{what}: the file was touched");
        assert!(error.to_string().contains("store.db"), "{error}");
        error
    };
    std::fs::write(&path, b"this is not a database, but a text of some length".repeat(50)).unwrap();
    assert!(matches!(refused("text"), OpenError::Corrupt { .. }));
    std::fs::remove_file(&path).unwrap();

    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
    drop(foreign);
    assert!(matches!(refused("foreign"), OpenError::Foreign { .. }));
    std::fs::remove_file(&path).unwrap();

    drop(Store::open(&options(dir.path())).unwrap());
    let later = rusqlite::Connection::open(&path).unwrap();
    later.pragma_update(None, "user_version", 99).unwrap();
    drop(later);
    assert!(matches!(refused("later"), OpenError::Version { found: 99, .. }));
    std::fs::remove_file(&path).unwrap();

    let store = Store::open(&options(dir.path())).unwrap();
    for at in 0..200 {
        put(&store, &format!("k{at}"), at).unwrap();
    }
    assert!(matches!(Store::open(&options(dir.path())), Err(OpenError::InUse { .. })));
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let length = bytes.len();
    assert!(length > 20_000, "{length}");
    bytes[8_192..length - 4_096].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(refused("damaged"), OpenError::Corrupt { .. }));
}

/// On a file system of a few hundred kilobytes.
#[test]
fn a_full_disk_is_said_and_the_old_data_stays() {
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mount = mount.to_str().unwrap().to_owned();
    run("mount", &["-t", "tmpfs", "-o", "size=600k", "tmpfs", &mount]);
    let outcome = std::panic::catch_unwind(|| fill(Path::new(&mount)));
    run("umount", &[&mount]);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn fill(dir: &Path) {
    let store = Store::open(&options(dir)).unwrap();
    let text = "x".repeat(10_000);
    let mut kept = 0;
    let error = loop {
        let value = json!({"metadata": {"name": "x"}, "text": text});
        let write = write(&format!("k{kept}"), Expect::Absent, Some(value));
        match block_on(store.commit(vec![write])) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1_000, "the disk does not fill");
    };
    assert!(matches!(&error, StorageError::Full(_)), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(store.revision(""), kept);
    assert_eq!(store.list("", None).unwrap().objects.len() as u64, kept);
    assert!(store.get(&format!("k{kept}")).is_none());
    drop(store);
    let again = Store::open(&options(dir)).unwrap();
    assert_eq!(again.list("", None).unwrap().objects.len() as u64, kept);
}
