//! `crd.projectcalico.org/v1` of a real API server: upstream's form, and what becomes of requests that are
//! refused, lost on their way, or answered by nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datastore::{Datastore, Error, Next, Resource, WatchEvent};
use futures_util::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use remote::ApiGroup;
use serde_json::{Value, json};
use testkit::{ControlPlane, Controllers};
use tower::BoxError;

const SETS: Resource = Resource::calico("globalnetworksets", "GlobalNetworkSet");
const POLICIES: Resource = Resource::calico("globalnetworkpolicies", "GlobalNetworkPolicy");
const KEPT: &str = "/apis/crd.projectcalico.org/v1/globalnetworksets";

/// What happens to a request on its way.
#[derive(Clone, Debug)]
enum Fault {
    /// The server answers this without having done anything.
    Refused(u16, Option<u64>),
    /// It does what it is asked for, and the answer is lost.
    Lost,
    /// The same, and somebody else changes the object at this path before anything else happens.
    LostAndChanged(String),
    /// It never arrives.
    Cut,
}

#[derive(Default)]
struct Faults {
    /// Of which requests (method, part of the URL), how many times.
    rules: Mutex<Vec<(Method, &'static str, usize, Fault)>>,
    seen: Mutex<Vec<(Method, String)>>,
}

impl Faults {
    fn add(&self, method: Method, part: &'static str, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push((method, part, times, fault));
    }

    fn clear(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// How many requests there were since the last time.
    fn seen(&self, method: &Method, part: &str) -> usize {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.iter().filter(|(m, url)| m == method && url.contains(part)).count()
    }

    fn next(&self, method: &Method, url: &str) -> Option<Fault> {
        self.seen.lock().unwrap().push((method.clone(), url.to_owned()));
        let mut rules = self.rules.lock().unwrap();
        let fits = |rule: &&mut (Method, &str, usize, Fault)| {
            rule.0 == *method && url.contains(rule.1) && rule.2 > 0
        };
        let rule = rules.iter_mut().find(fits)?;
        rule.2 -= 1;
        Some(rule.3.clone())
    }
}

/// A client of a cluster whose requests may fail.
fn faulty(cluster: kube::Client, faults: Arc<Faults>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (cluster, faults) = (cluster.clone(), faults.clone());
        async move {
            let lost = || Err(BoxError::from("the connection is gone"));
            let fault = faults.next(request.method(), &request.uri().to_string());
            match fault {
                Some(Fault::Cut) => return lost(),
                Some(Fault::Refused(code, after)) => {
                    let mut response = Response::builder().status(code);
                    if let Some(after) = after {
                        response = response.header("retry-after", after);
                    }
                    let body = Full::from("{}").map_err(BoxError::from).boxed_unsync();
                    return Ok(response.body(body).unwrap());
                }
                _ => {}
            }
            let response = cluster.send(request).await.map_err(BoxError::from)?;
            match fault {
                Some(Fault::Lost) => return lost(),
                Some(Fault::LostAndChanged(path)) => {
                    let body = json!({"spec": {"nets": ["10.99.0.0/16"]}}).to_string();
                    let patch = Request::patch(path)
                        .header("content-type", "application/merge-patch+json")
                        .body(body.into_bytes());
                    cluster.request::<Value>(patch.unwrap()).await.unwrap();
                    return lost();
                }
                _ => {}
            }
            Ok::<_, BoxError>(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
    });
    kube::Client::new(service, "default")
}

/// A cluster, a client of it whose requests may fail, and one whose requests do not.
struct Bed {
    plane: ControlPlane,
    faults: Arc<Faults>,
    here: Datastore,
    elsewhere: Datastore,
}

impl Bed {
    async fn start() -> Self {
        let plane = ControlPlane::start(Controllers::Absent);
        plane.define("v1");
        let cluster = Datastore::connect(Some(&plane.kubeconfig())).await.unwrap().client();
        assert_eq!(ApiGroup::find(&cluster).await.unwrap(), ApiGroup::Stored);
        let faults = Arc::<Faults>::default();
        let over = |client: kube::Client| {
            Datastore::over(remote::client_beside(remote::open_kubernetes(client.clone()), client))
        };
        let here = over(faulty(cluster.clone(), faults.clone()));
        Self { plane, faults, here, elsewhere: over(cluster) }
    }

    /// As the server itself keeps it.
    fn kept(&self, resource: &str, name: &str) -> Value {
        let resource = format!("{resource}.crd.projectcalico.org");
        let text = self.plane.kubectl(&["get", &resource, name, "-o", "json"]).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn read(&self, name: &str) -> Value {
        self.here.get(&SETS, None, name).await.unwrap().expect("it is there")
    }
}

fn set(name: &str, net: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name}, "spec": {"nets": [net]}})
}

fn with(mut object: Value, net: &str) -> Value {
    object["spec"]["nets"] = json!([net]);
    object
}

fn identity(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap();
    (text("uid"), text("resourceVersion"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost() {
    let bed = Bed::start().await;
    let (here, faults) = (&bed.here, &bed.faults);
    // It was done: the next try finds that out, and says so.
    faults.add(Method::POST, KEPT, 1, Fault::Lost);
    let made: Value = here.create(&SETS, None, &set("a", "10.0.0.0/8")).await.unwrap();
    assert_eq!(faults.seen(&Method::POST, KEPT), 2);
    assert_eq!(identity(&made), identity(&bed.read("a").await));
    faults.add(Method::DELETE, KEPT, 1, Fault::Lost);
    here.delete(&SETS, "a", identity(&made)).await.unwrap();
    assert!(here.get::<Value>(&SETS, None, "a").await.unwrap().is_none());

    // It never arrived.
    faults.add(Method::POST, KEPT, 2, Fault::Cut);
    here.create::<Value>(&SETS, None, &set("b", "10.0.0.0/8")).await.unwrap();
    // Somebody else's object of that name is not ours, though it says the same.
    faults.add(Method::POST, KEPT, 1, Fault::Cut);
    bed.elsewhere.create::<Value>(&SETS, None, &set("c", "10.0.0.0/8")).await.unwrap();
    let taken = here.create::<Value>(&SETS, None, &set("c", "10.0.0.0/8")).await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");

    // A change was done, and somebody may have changed it since. Nobody knows that it was, not even if what is
    // there is what was to be: somebody else may have written that. It is not said that it was not.
    let path = format!("{KEPT}/b");
    for (fault, wanted, there) in [
        (Fault::Lost, "10.2.0.0/16", "10.2.0.0/16"),
        (Fault::LostAndChanged(path), "10.3.0.0/16", "10.99.0.0/16"),
    ] {
        faults.add(Method::PUT, KEPT, 1, fault);
        let wanted = with(bed.read("b").await, wanted);
        let unsure = here.replace::<Value>(&SETS, None, "b", &wanted).await;
        let unsure = unsure.expect_err("it is not known");
        assert!(!matches!(unsure, Error::Conflict(_)), "{unsure}");
        assert_eq!(unsure.next(), Next::Retry, "{unsure}");
        assert_eq!(bed.read("b").await["spec"]["nets"], json!([there]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_trouble_is_left_alone() {
    let mut bed = Bed::start().await;
    let (here, faults) = (bed.here.clone(), bed.faults.clone());
    let begun = Instant::now();
    faults.add(Method::POST, KEPT, 2, Fault::Refused(429, Some(1)));
    here.create::<Value>(&SETS, None, &set("a", "10.0.0.0/8")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(faults.seen(&Method::POST, KEPT), 3);
    faults.add(Method::POST, KEPT, 1, Fault::Refused(503, None));
    here.create::<Value>(&SETS, None, &set("b", "10.0.0.0/8")).await.unwrap();

    // The history is gone each time that a watch begins: whoever asks for it lists, but not in a hurry.
    faults.add(Method::GET, "watch=true", usize::MAX, Fault::Refused(410, None));
    tokio::task::block_in_place(|| bed.plane.restart("kube-apiserver"));
    let again: Value = bed.elsewhere.create(&SETS, None, &set("c", "10.0.0.0/8")).await.unwrap();
    faults.seen(&Method::GET, KEPT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = faults.seen(&Method::GET, KEPT);
    assert!(asked < 40, "{asked} requests in three seconds");
    assert_eq!(identity(&bed.read("c").await), identity(&again));
    faults.clear();

    // Nobody answers at all.
    for method in [Method::GET, Method::POST, Method::PUT] {
        faults.add(method, "/", usize::MAX, Fault::Cut);
    }
    faults.seen(&Method::GET, "/");
    let refused = here.get::<Value>(&SETS, None, "a").await.expect_err("nobody answers");
    assert_eq!(refused.next(), Next::Retry, "{refused}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = faults.seen(&Method::GET, "/");
    assert!(asked < 20, "{asked} requests while nobody answers");
    faults.clear();
    bed.read("a").await;
}

/// Who is not known any more is refused, and is known again when he is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_come_and_go() {
    let bed = Bed::start().await;
    bed.here.create::<Value>(&SETS, None, &set("a", "10.0.0.0/8")).await.unwrap();
    for code in [401, 403] {
        for method in [Method::GET, Method::POST] {
            bed.faults.add(method, KEPT, usize::MAX, Fault::Refused(code, None));
        }
        let refused = bed.here.get::<Value>(&SETS, None, "a").await.expect_err("he may not");
        assert_eq!(refused.next(), Next::Refused, "{refused}");
        let refused = bed.here.create::<Value>(&SETS, None, &set("b", "10.0.0.0/8")).await;
        assert_eq!(refused.expect_err("he may not").next(), Next::Refused);
        bed.faults.clear();
        bed.read("a").await;
    }
}

/// What others have put into an object is there after we have changed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_kept() {
    let bed = Bed::start().await;
    let field = json!([{"op": "add", "value": {"type": "string"}, "path":
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/fromTheFuture"}]);
    let definition = "globalnetworksets.crd.projectcalico.org";
    let patch = ["patch", "crd", definition, "--type=json", "-p", &field.to_string()];
    bed.plane.kubectl(&patch).unwrap();
    let object = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkSet",
        "metadata": {"name": "theirs", "finalizers": ["example.org/own"], "labels": {"l": "1"},
            "annotations": {"projectcalico.org/metadata": r#"{"finalizers":["projectcalico.org/f"],"labels":{"m":"1"}}"#}},
        "spec": {"nets": ["10.0.0.0/8"], "fromTheFuture": "x"}});
    // A definition takes effect some time after it was written.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        bed.plane.kubectl_with(&["apply", "-f", "-"], &object.to_string()).unwrap();
        if bed.kept("globalnetworksets", "theirs")["spec"]["fromTheFuture"] == "x" {
            break;
        }
        assert!(Instant::now() < until, "the definition does not change");
        std::thread::sleep(Duration::from_millis(100));
    }
    let shown = bed.read("theirs").await;
    assert_eq!(shown["spec"]["fromTheFuture"], "x");
    assert_eq!(shown["metadata"]["finalizers"], json!(["projectcalico.org/f"]));
    assert_eq!(shown["metadata"]["labels"], json!({"l": "1", "m": "1"}));
    let changed = with(shown, "10.1.0.0/16");
    bed.here.replace::<Value>(&SETS, None, "theirs", &changed).await.unwrap();
    let kept = bed.kept("globalnetworksets", "theirs");
    assert_eq!(kept["spec"], json!({"nets": ["10.1.0.0/16"], "fromTheFuture": "x"}));
    assert_eq!(kept["metadata"]["finalizers"], json!(["example.org/own"]));

    // A finalizer of Calico's holds the object, as long as somebody asks through its API.
    let shown = bed.read("theirs").await;
    bed.here.delete(&SETS, "theirs", identity(&shown)).await.unwrap();
    let shown = bed.read("theirs").await;
    assert!(shown["metadata"]["deletionTimestamp"].is_string(), "{shown}");
    assert!(bed.kept("globalnetworksets", "theirs")["metadata"]["deletionTimestamp"].is_null());
    let free = json!({"metadata": {"finalizers": []}});
    bed.here.patch(&SETS, (None, "theirs"), None, &free).await.unwrap();
    let kept = bed.kept("globalnetworksets", "theirs");
    assert!(
        kept["metadata"]["deletionTimestamp"].is_string(),
        "what is left is Kubernetes' affair"
    );
}

/// While a policy is moved from its older name there are two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_moved_is_one() {
    let bed = Bed::start().await;
    let stored = |name: &str, order: u32| {
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": name, "annotations":
                {"projectcalico.org/metadata": r#"{"name":"p","creationTimestamp":null}"#}},
            "spec": {"tier": "default", "order": order, "types": ["Ingress"]}})
        .to_string()
    };
    let apply = |text: &str| bed.plane.kubectl_with(&["apply", "-f", "-"], text).unwrap();
    let order = async || -> String {
        let found: Value = bed.here.get(&POLICIES, None, "p").await.unwrap().unwrap();
        found["spec"]["order"].as_f64().unwrap().to_string()
    };
    apply(&stored("default.p", 1));
    assert_eq!(order().await, "1");
    let all: Vec<Value> = bed.here.list_all(&POLICIES).await.unwrap();
    assert_eq!(all.len(), 1);
    apply(&stored("p", 2));
    let all: Vec<Value> = bed.here.list_all(&POLICIES).await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(order().await, "2");
    let kind = "globalnetworkpolicies.crd.projectcalico.org";
    bed.plane.kubectl(&["delete", kind, "default.p"]).unwrap();
    assert_eq!(order().await, "2");
    let taken = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "p"}, "spec": {"selector": "all()"}});
    let taken = bed.here.create::<Value>(&POLICIES, None, &taken).await;
    assert!(matches!(taken, Err(Error::Exists(_))), "{taken:?}");
}

/// A cluster that lacks a definition has no objects of that kind, until it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_not_defined() {
    let bed = Bed::start().await;
    bed.plane.kubectl(&["delete", "crd", "globalnetworksets.crd.projectcalico.org"]).unwrap();
    let none: Vec<Value> = bed.here.list_all(&SETS).await.unwrap();
    assert!(none.is_empty());
    let refused = bed.here.create::<Value>(&SETS, None, &set("a", "10.0.0.0/8")).await;
    let refused = refused.expect_err("there is no such kind");
    assert!(
        refused.to_string().contains("404") || matches!(refused, Error::NotFound(_)),
        "{refused}"
    );
    bed.plane.define("v1");
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = bed.here.create::<Value>(&SETS, None, &set("a", "10.0.0.0/8")).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bed.read("a").await;
}

/// Credentials that are replaced are read again by whoever is refused with the old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_replaced() {
    let mut bed = Bed::start().await;
    let before: Value = bed.here.create(&SETS, None, &set("a", "10.0.0.0/8")).await.unwrap();
    let kubeconfig = bed.plane.kubeconfig();
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let token = text.split("token: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let tokens = kubeconfig.with_file_name("tokens");
    std::fs::write(&tokens, "another-word,admin,admin,\"system:masters\"\n").unwrap();
    std::fs::write(&kubeconfig, text.replace(token, "another-word")).unwrap();
    tokio::task::block_in_place(|| bed.plane.restart("kube-apiserver"));
    let changed = with(before, "10.1.0.0/16");
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = bed.here.replace::<Value>(&SETS, None, "a", &changed).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(bed.read("a").await["spec"]["nets"], json!(["10.1.0.0/16"]));
    // And with those that are wrong nobody gets in.
    std::fs::write(&kubeconfig, text.replace(token, "no-word")).unwrap();
    let stranger = Datastore::connect(Some(&kubeconfig)).await.unwrap();
    let refused = stranger.get::<Value>(&Resource::core("nodes", "Node"), None, "n").await;
    assert_eq!(refused.expect_err("nobody knows him").next(), Next::Refused);
}

/// Profiles come from namespaces and from service accounts. What happens to one is told though nothing happens
/// to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_several_kinds_comes_at_once() {
    let bed = Bed::start().await;
    let profiles = Resource::calico("profiles", "Profile");
    let revision = bed.here.list(&profiles, 500, None).await.unwrap().revision;
    let mut events = bed.here.watch(&profiles, &revision).await.unwrap();
    bed.plane.kubectl(&["label", "namespace", "default", "team=a"]).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let event = tokio::time::timeout(left, events.next()).await.expect("in time");
        if let WatchEvent::Put(object) = event.expect("it goes on").unwrap()
            && object["metadata"]["name"] == "kns.default"
            && object["spec"]["labelsToApply"]["pcns.team"] == "a"
        {
            break;
        }
    }
}
