//! Many nodes, one store, every interleaving that a seed can think of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use selector::Selector;
use serde_json::Value;

use crate::*;

/// Revision and JSON, by plural and name.
type Objects = BTreeMap<(&'static str, String), (u64, Value)>;

/// A datastore whose every operation lets the others go first, and that fails now and then: before
/// the write, or after it without saying so.
#[derive(Default)]
struct Fake {
    objects: Mutex<Objects>,
    revision: Mutex<u64>,
    dice: Mutex<u64>,
    faults: bool,
}

struct Yield(bool);
impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Fake {
    fn roll(&self, sides: u64) -> u64 {
        let mut dice = self.dice.lock().unwrap();
        *dice =
            dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % sides
    }

    fn write<K: Kind, T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Objects, u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fault = if self.faults { self.roll(12) } else { 9 };
        let failed = || StoreError::Failed(format!("injected at {} {name}", K::KIND));
        if fault == 0 {
            return Err(failed());
        }
        let mut revision = self.revision.lock().unwrap();
        *revision += 1;
        let done = act(&mut self.objects.lock().unwrap(), *revision)?;
        if fault == 1 { Err(failed()) } else { Ok(done) }
    }

    fn stored<K: Kind>((revision, value): &(u64, Value)) -> Stored<K> {
        Stored {
            value: serde_json::from_value(value.clone()).unwrap(),
            uid: String::new(),
            revision: revision.to_string(),
        }
    }

    fn all<K: Kind>(&self) -> Vec<Stored<K>> {
        let objects = self.objects.lock().unwrap();
        objects.iter().filter(|(k, _)| k.0 == K::PLURAL).map(|(_, v)| Self::stored(v)).collect()
    }
}

impl Store for Fake {
    async fn get<K: Kind>(&self, name: &str) -> Result<Option<Stored<K>>, StoreError> {
        Yield(false).await;
        Ok(self.objects.lock().unwrap().get(&(K::PLURAL, name.to_owned())).map(Self::stored))
    }
    async fn list<K: Kind>(&self) -> Result<Vec<Stored<K>>, StoreError> {
        Yield(false).await;
        Ok(self.all())
    }
    async fn create<K: Kind>(&self, value: K) -> Result<Stored<K>, StoreError> {
        Yield(false).await;
        let name = value.name();
        self.write::<K, _>(&name.clone(), |objects, revision| {
            let key = (K::PLURAL, name);
            if objects.contains_key(&key) {
                return Err(StoreError::Exists);
            }
            let entry = (revision, serde_json::to_value(&value).unwrap());
            let stored = Self::stored(&entry);
            objects.insert(key, entry);
            Ok(stored)
        })
    }
    async fn update<K: Kind>(&self, object: Stored<K>) -> Result<Stored<K>, StoreError> {
        Yield(false).await;
        let name = object.value.name();
        self.write::<K, _>(&name.clone(), |objects, revision| {
            let known = objects.get_mut(&(K::PLURAL, name));
            let known = known.filter(|k| k.0.to_string() == object.revision);
            let known = known.ok_or(StoreError::Conflict)?;
            *known = (revision, serde_json::to_value(&object.value).unwrap());
            Ok(Self::stored(known))
        })
    }
    async fn delete<K: Kind>(&self, object: Stored<K>) -> Result<(), StoreError> {
        Yield(false).await;
        let name = object.value.name();
        self.write::<K, _>(&name.clone(), |objects, _| {
            let key = (K::PLURAL, name);
            if objects.get(&key).is_none_or(|k| k.0.to_string() != object.revision) {
                return Err(StoreError::Conflict);
            }
            objects.remove(&key);
            Ok(())
        })
    }
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs the tasks, each time one step of one of them.
fn run(fake: &Fake, mut tasks: Vec<Task<'_>>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut steps = 0;
    while !tasks.is_empty() {
        let at = fake.roll(tasks.len() as u64) as usize;
        if tasks[at].as_mut().poll(&mut context).is_ready() {
            drop(tasks.swap_remove(at));
        }
        steps += 1;
        assert!(steps < 2_000_000, "live lock");
    }
}

fn pool(cidr: &str, block_len: u8) -> Pool {
    Pool {
        name: cidr.into(),
        cidr: cidr.parse().unwrap(),
        block_len,
        disabled: false,
        manual: false,
        uses: vec![Use::Workload],
        nodes: Selector::parse("all()").unwrap(),
        namespaces: None,
    }
}

fn request<'a>(node: &'a str, handle: &'a str, pools: &'a [Pool]) -> Request<'a> {
    let each = |p: &'a Pool| (1, vec![p]);
    Request {
        handle,
        node,
        owner: BTreeMap::from([("node".to_owned(), node.to_owned())]),
        wants: pools.iter().map(each).collect(),
        reserved: &[],
        limits: Limits::default(),
        now: Timestamp::from_second(1_000_000).unwrap(),
    }
}

/// One node: starts and stops pods as the script says. Whoever holds an address twice panics.
async fn node(
    fake: &Fake,
    name: String,
    pools: &[Pool],
    script: Vec<(u8, bool)>,
    held: &Mutex<HashMap<IpAddr, String>>,
) {
    for (pod, start) in script {
        let handle = format!("net.{name}-{pod}");
        let mine = || held.lock().unwrap().values().any(|h| *h == handle);
        if start && !mine() {
            match assign(fake, &request(&name, &handle, pools)).await {
                Ok(got) => {
                    assert_eq!(got.len(), pools.len(), "all or none");
                    let mut held = held.lock().unwrap();
                    for one in got {
                        let before = held.insert(one.address, handle.clone());
                        assert_eq!(before, None, "{} given out twice", one.address);
                    }
                }
                Err(_) => while release_handle(fake, &handle).await.is_err() {},
            }
        } else if !start {
            held.lock().unwrap().retain(|_, h| *h != handle);
            while release_handle(fake, &handle).await.is_err() {}
        }
    }
}

/// What the store says is in use, by handle.
fn in_use(fake: &Fake) -> BTreeMap<IpAddr, String> {
    let blocks = fake.all::<Block>();
    for block in &blocks {
        block.value.check().unwrap();
    }
    let handle = |a: &Attribute| a.handle.clone().unwrap();
    blocks.iter().flat_map(|b| b.value.allocated().map(move |(ip, a)| (ip, handle(a)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Nothing is given out twice, nothing leaks, whatever the order and whatever fails.
    #[test]
    fn nodes_share_pools(
        seed in any::<u64>(),
        faults in any::<bool>(),
        scripts in prop::collection::vec(
            prop::collection::vec((0u8..4, any::<bool>()), 1..12), 1..5),
    ) {
        let fake = Fake { dice: Mutex::new(seed), faults, ..Fake::default() };
        let pools = [pool("10.0.0.0/29", 31), pool("fd00::/125", 127)];
        let held = Mutex::new(HashMap::new());
        let tasks = scripts.into_iter().enumerate().map(|(i, script)| {
            Box::pin(node(&fake, format!("n{i}"), &pools, script, &held)) as Task<'_>
        });
        run(&fake, tasks.collect());
        let held = held.into_inner().unwrap();
        prop_assert_eq!(in_use(&fake), held.clone().into_iter().collect());
        let handles: BTreeSet<_> = fake.all::<Handle>().into_iter().map(|h| h.value.id).collect();
        let wanted: BTreeSet<_> = held.values().cloned().collect();
        prop_assert_eq!(handles, wanted);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

#[test]
fn at_the_block_limit_nothing_is_borrowed() {
    let (fake, pools) = (Fake::default(), [pool("10.0.0.0/28", 31)]);
    let limits = Limits { max_blocks: 1, ..Limits::default() };
    let get = |handle: &'static str| {
        let request = Request { limits, ..request("a", handle, &pools) };
        block_on(assign(&fake, &request))
    };
    get("h1").unwrap();
    get("h2").unwrap();
    assert!(matches!(get("h3"), Err(AssignError::BlockLimit(1))));
}

#[test]
fn a_full_pool_is_borrowed_from_unless_affinity_is_strict() {
    let (fake, pools) = (Fake::default(), [pool("10.0.0.0/31", 31)]);
    block_on(assign(&fake, &request("a", "h1", &pools))).unwrap();
    let strict = Limits { strict_affinity: true, ..Limits::default() };
    let refused = Request { limits: strict, ..request("b", "h2", &pools) };
    assert!(matches!(block_on(assign(&fake, &refused)), Err(AssignError::Exhausted(_))));
    let lent = block_on(assign(&fake, &request("b", "h2", &pools))).unwrap();
    let block = &fake.all::<Block>()[0].value;
    assert!(block.is_of("a") && block.addresses_of("h2") == [lent[0].address]);
}

#[test]
fn an_empty_block_of_another_node_is_taken_over_after_a_minute() {
    let (fake, pools) = (Fake::default(), [pool("10.0.0.0/31", 31)]);
    let strict = Limits { strict_affinity: true, ..Limits::default() };
    block_on(assign(&fake, &request("a", "h1", &pools))).unwrap();
    block_on(release_handle(&fake, "h1")).unwrap();
    let early = Request { limits: strict, ..request("b", "h2", &pools) };
    assert!(block_on(assign(&fake, &early)).is_err());
    let now = early.now + SignedDuration::from_secs(61);
    block_on(assign(&fake, &Request { now, ..early })).unwrap();
    let affinities = fake.all::<Affinity>();
    assert_eq!(affinities.len(), 1);
    assert!(affinities[0].value.is_of("b"));
}

#[test]
fn one_family_without_room_gives_nothing_back_but_everything() {
    let (fake, pools) = (Fake::default(), [pool("10.0.0.0/30", 31), pool("fd00::/127", 127)]);
    block_on(assign(&fake, &request("a", "h1", &pools))).unwrap();
    block_on(assign(&fake, &request("a", "h2", &pools))).unwrap();
    assert!(block_on(assign(&fake, &request("a", "h3", &pools))).is_err());
    assert_eq!(in_use(&fake).len(), 4);
    assert!(fake.all::<Handle>().iter().all(|h| h.value.id != "h3"));
}

#[test]
fn an_address_that_is_asked_for() {
    let (fake, pools) = (Fake::default(), [pool("10.0.0.0/28", 30)]);
    let addr: IpAddr = "10.0.0.6".parse().unwrap();
    let get = |handle: &'static str, addr| {
        block_on(assign_exact(&fake, &request("a", handle, &pools), &pools, addr))
    };
    assert_eq!(get("h1", addr).unwrap().block, "10.0.0.4/30".parse().unwrap());
    assert!(matches!(get("h2", addr), Err(AssignError::Block(BlockError::Taken(_)))));
    let outside = "10.9.0.1".parse().unwrap();
    assert!(matches!(get("h2", outside), Err(AssignError::NoPool(_))));
    assert_eq!(block_on(release_handle(&fake, "h1")).unwrap(), 1);
    get("h2", addr).unwrap();
}
