//! The wire contract in its details: what is refused and how, ownership, deletion, custom resources.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use apikit::Running;
use hyper::Request;
use serde_json::{Value, json};

/// A server and a client that sees status codes.
struct Wire {
    server: Running,
    client: kube::Client,
    _dir: tempfile::TempDir,
}

impl Wire {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(dir.path());
        let client = server.client().await;
        Self { server, client, _dir: dir }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        media: &str,
        body: &[u8],
    ) -> (u16, Value, Vec<String>) {
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.body(kube::client::Body::from(body.to_vec())).unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|w| w.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null), warnings)
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (code, value, _) = self.send(method, path, "application/json", text.as_bytes()).await;
        (code, value)
    }

    /// Sends what must succeed.
    async fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let (code, value) = self.json(method, path, body).await;
        assert!((200..300).contains(&code), "{method} {path}: {code} {value}");
        value
    }

    async fn apply(&self, path: &str, manager: &str, force: bool, body: &Value) -> (u16, Value) {
        let path = format!("{path}?fieldManager={manager}&force={force}");
        let (code, value, _) = self
            .send("PATCH", &path, "application/apply-patch+yaml", body.to_string().as_bytes())
            .await;
        (code, value)
    }

    async fn until_gone(&self, path: &str) {
        for _ in 0..200 {
            if self.json("GET", path, &Value::Null).await.0 == 404 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{path} is still there after 5 s");
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn bad_input_is_refused_with_the_reason() {
    let wire = Wire::new().await;
    let long = format!(
        "{{\"metadata\":{{\"name\":\"x\"}},\"data\":{{\"k\":\"{}\"}}}}",
        "x".repeat(4 << 20)
    );
    let deep = format!("{{\"a\":{}", "[".repeat(5_000));
    let cases: &[(&str, &[u8], u16, &str)] = &[
        ("application/json", b"{", 400, "BadRequest"),
        ("application/json", b"\xff\xfe", 400, "BadRequest"),
        ("application/json", b"{\"metadata\":{\"name\":\"a\\u0000\"}}", 422, "Invalid"),
        ("application/json", b"[]", 400, "BadRequest"),
        ("application/json", b"{\"kind\":\"Pod\"}", 400, "BadRequest"),
        ("application/json", b"{\"metadata\":[]}", 400, "BadRequest"),
        ("application/json", b"{\"metadata\":{}}", 422, "Invalid"),
        ("application/json", b"{\"metadata\":{\"name\":\"A_b\"}}", 422, "Invalid"),
        (
            "application/json",
            b"{\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":1}}}",
            400,
            "BadRequest",
        ),
        (
            "application/json",
            b"{\"metadata\":{\"name\":\"a\",\"labels\":{\"-x\":\"1\"}}}",
            422,
            "Invalid",
        ),
        (
            "application/json",
            b"{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\"}}",
            400,
            "BadRequest",
        ),
        (
            "application/json",
            b"{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"5\"}}",
            400,
            "BadRequest",
        ),
        ("application/json", b"{\"metadata\":{\"name\":\"a\"},\"data\":7}", 422, "Invalid"),
        ("application/json", deep.as_bytes(), 400, "BadRequest"),
        ("application/json", long.as_bytes(), 413, "RequestEntityTooLarge"),
        ("text/plain", b"{}", 415, "UnsupportedMediaType"),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff", 400, "BadRequest"),
    ];
    let before = wire.ok("GET", MAPS, &Value::Null).await["metadata"]["resourceVersion"].clone();
    for (media, body, code, reason) in cases {
        let (got, status, _) = wire.send("POST", MAPS, media, body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert!(got == *code || (*code == 422 && got == 400), "{shown}: {got} {status}");
        assert_eq!(status["kind"], "Status", "{shown}");
        if got == *code {
            assert_eq!(status["reason"], *reason, "{shown}: {status}");
        }
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
    let after = wire.ok("GET", MAPS, &Value::Null).await["metadata"]["resourceVersion"].clone();
    assert_eq!(before, after, "something was written");
    for (path, code) in [
        ("/apis/apps/v1/namespaces/default/deployments", 404),
        ("/api/v1/namespaces/default/pods/x/exec", 501),
        ("/api/v1/namespaces/default/pods/x/log", 501),
        ("/api/v1/namespaces/default/pods/x/scale", 404),
    ] {
        let (got, status) = wire.json("GET", path, &Value::Null).await;
        assert_eq!(got, code, "{path}: {status}");
        let message = status["message"].as_str().unwrap();
        assert!(
            message.contains("calico sandbox") || message.contains("pods"),
            "{path}: {message}"
        );
    }
    let (code, _) = wire.json("POST", "/api/v1/namespaces/nowhere/configmaps", &map("a")).await;
    assert_eq!(code, 404);
    wire.server.stop();
}

#[tokio::test]
async fn unknown_and_duplicate_fields() {
    let wire = Wire::new().await;
    let body = br#"{"metadata":{"name":"a"},"data":{"k":"1","k":"2"},"dota":{}}"#;
    let path = |mode: &str| format!("{MAPS}?fieldValidation={mode}&dryRun=All");
    let (code, status, _) = wire.send("POST", &path("Strict"), "application/json", body).await;
    let message = status["message"].as_str().unwrap();
    assert_eq!(code, 400);
    assert!(
        message.contains("duplicate field \"data.k\"")
            && message.contains("unknown field \"dota\""),
        "{message}"
    );
    let (code, made, warnings) = wire.send("POST", &path("Warn"), "application/json", body).await;
    assert_eq!((code, warnings.len()), (201, 2), "{warnings:?}");
    assert_eq!((&made["data"]["k"], &made["dota"]), (&json!("2"), &Value::Null), "pruned");
    let (code, _, warnings) = wire.send("POST", &path("Ignore"), "application/json", body).await;
    assert_eq!((code, warnings.len()), (201, 0));
    assert_eq!(wire.json("GET", &format!("{MAPS}/a"), &Value::Null).await.0, 404, "dry runs");
    wire.server.stop();
}

#[tokio::test]
async fn fields_are_owned_by_who_applied_them() {
    let wire = Wire::new().await;
    let path = format!("{MAPS}/a");
    let with = |data: Value| {
        let mut map = map("a");
        map["data"] = data;
        map
    };
    let (code, _) = wire.apply(&path, "one", false, &with(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, 201);
    let (code, conflict) = wire.apply(&path, "two", false, &with(json!({"x": "2"}))).await;
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")), "{conflict}");
    assert_eq!(conflict["details"]["causes"][0]["field"], ".data.x");
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let (code, forced) = wire.apply(&path, "two", true, &with(json!({"x": "2"}))).await;
    assert_eq!((code, &forced["data"]), (200, &json!({"x": "2", "y": "1"})));
    let (code, less) = wire.apply(&path, "one", false, &with(json!({}))).await;
    assert_eq!(
        (code, &less["data"]),
        (200, &json!({"x": "2"})),
        "y was given up by its only owner"
    );
    let (_, again) = wire.apply(&path, "two", false, &with(json!({"x": "2"}))).await;
    assert_eq!(
        again["metadata"]["resourceVersion"], less["metadata"]["resourceVersion"],
        "nothing to do"
    );
    wire.server.stop();
}

#[tokio::test]
async fn pods_are_bound_once_and_stop_with_grace() {
    let wire = Wire::new().await;
    wire.ok("POST", PODS, &pod("p")).await;
    let binding = |node: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}})
    };
    wire.ok("POST", &format!("{PODS}/p/binding"), &binding("n1")).await;
    let (code, status) = wire.json("POST", &format!("{PODS}/p/binding"), &binding("n2")).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    let mine =
        wire.ok("GET", &format!("{PODS}?fieldSelector=spec.nodeName%3Dn1"), &Value::Null).await;
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
    let status =
        json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}, "spec": {"nodeName": "n3"}});
    let (code, after, _) = wire
        .send(
            "PATCH",
            &format!("{PODS}/p/status"),
            "application/strategic-merge-patch+json",
            status.to_string().as_bytes(),
        )
        .await;
    assert_eq!(
        (code, &after["status"]["podIP"], &after["spec"]["nodeName"]),
        (200, &json!("10.0.0.1"), &json!("n1"))
    );
    let dying = wire.ok("DELETE", &format!("{PODS}/p"), &Value::Null).await;
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 30);
    let sooner = wire.ok("DELETE", &format!("{PODS}/p?gracePeriodSeconds=5"), &Value::Null).await;
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    wire.ok("DELETE", &format!("{PODS}/p"), &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(wire.json("GET", &format!("{PODS}/p"), &Value::Null).await.0, 404);
    wire.ok("POST", PODS, &pod("q")).await;
    wire.ok("DELETE", &format!("{PODS}/q"), &Value::Null).await;
    assert_eq!(wire.json("GET", &format!("{PODS}/q"), &Value::Null).await.0, 404, "never bound");
    wire.server.stop();
}

#[tokio::test]
async fn finalizers_and_owners() {
    let wire = Wire::new().await;
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let held = wire.ok("POST", MAPS, &held).await;
    wire.ok("DELETE", &format!("{MAPS}/held"), &Value::Null).await;
    let mut dying = wire.ok("GET", &format!("{MAPS}/held"), &Value::Null).await;
    assert!(dying["metadata"]["deletionTimestamp"].is_string());
    dying["metadata"]["finalizers"] = json!([]);
    wire.ok("PUT", &format!("{MAPS}/held"), &dying).await;
    assert_eq!(wire.json("GET", &format!("{MAPS}/held"), &Value::Null).await.0, 404);

    let owned = |name: &str, owner: &Value| {
        let mut map = map(name);
        let about = &owner["metadata"];
        map["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
            "name": about["name"], "uid": about["uid"], "blockOwnerDeletion": true}]);
        map
    };
    let owner = wire.ok("POST", MAPS, &map("owner")).await;
    let child = wire.ok("POST", MAPS, &owned("child", &owner)).await;
    wire.ok("POST", MAPS, &owned("grandchild", &child)).await;
    wire.ok("DELETE", &format!("{MAPS}/owner"), &Value::Null).await;
    wire.until_gone(&format!("{MAPS}/grandchild")).await;
    wire.until_gone(&format!("{MAPS}/child")).await;

    wire.ok("POST", MAPS, &owned("late", &held)).await;
    wire.until_gone(&format!("{MAPS}/late")).await;

    let owner = wire.ok("POST", MAPS, &map("owner")).await;
    wire.ok("POST", MAPS, &owned("child", &owner)).await;
    wire.ok("DELETE", &format!("{MAPS}/owner?propagationPolicy=Foreground"), &Value::Null).await;
    wire.until_gone(&format!("{MAPS}/owner")).await;
    assert_eq!(
        wire.json("GET", &format!("{MAPS}/child"), &Value::Null).await.0,
        404,
        "before its owner"
    );

    let owner = wire.ok("POST", MAPS, &map("owner")).await;
    wire.ok("POST", MAPS, &owned("child", &owner)).await;
    wire.ok("DELETE", &format!("{MAPS}/owner?propagationPolicy=Orphan"), &Value::Null).await;
    wire.until_gone(&format!("{MAPS}/owner")).await;
    let child = wire.ok("GET", &format!("{MAPS}/child"), &Value::Null).await;
    assert_eq!(
        child["metadata"].get("ownerReferences").and_then(Value::as_array).map_or(0, Vec::len),
        0
    );
    wire.server.stop();
}

#[tokio::test]
async fn services_get_addresses_and_slices() {
    let wire = Wire::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    let made = wire.ok("POST", services, &service).await;
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.96."), "{address}");
    let mut taken = service.clone();
    taken["metadata"]["name"] = "other".into();
    taken["spec"]["clusterIP"] = address.into();
    assert_eq!(wire.json("POST", services, &taken).await.0, 422);
    let mut p = pod("p");
    p["metadata"]["labels"] = json!({"app": "web"});
    p["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    wire.ok("POST", PODS, &p).await;
    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    wire.send(
        "PATCH",
        &format!("{PODS}/p/status"),
        "application/merge-patch+json",
        status.to_string().as_bytes(),
    )
    .await;
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-ipv4";
    let mut found = Value::Null;
    for _ in 0..200 {
        found = wire.json("GET", slice, &Value::Null).await.1;
        if found["endpoints"][0]["conditions"]["ready"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(found["endpoints"][0]["addresses"], json!(["10.0.0.9"]), "{found}");
    assert_eq!(found["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    wire.ok("DELETE", &format!("{services}/web"), &Value::Null).await;
    wire.until_gone(slice).await;
    wire.server.stop();
}

#[tokio::test]
async fn custom_resources_are_served() {
    let wire = Wire::new().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"}}},
        "status": {"type": "object", "properties": {"seen": {"type": "integer"}}}}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]}]}});
    let made = wire.ok("POST", definitions, &definition).await;
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget =
        json!({"metadata": {"name": "w"}, "spec": {"size": 3, "other": 1}, "status": {"seen": 1}});
    let made = wire.ok("POST", widgets, &widget).await;
    assert_eq!(made["spec"], json!({"size": 3, "color": "red"}), "pruned and defaulted");
    assert_eq!(made.get("status"), None);
    let small = json!({"metadata": {"name": "x"}, "spec": {"size": 0}});
    let (code, status) = wire.json("POST", widgets, &small).await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["field"]),
        (422, &json!("spec.size")),
        "{status}"
    );
    let patch = json!({"status": {"seen": 2}, "spec": {"size": 9}}).to_string();
    let (_, after, _) = wire
        .send(
            "PATCH",
            &format!("{widgets}/w/status"),
            "application/merge-patch+json",
            patch.as_bytes(),
        )
        .await;
    assert_eq!((&after["status"]["seen"], &after["spec"]["size"]), (&json!(2), &json!(3)));
    assert_eq!(after["metadata"]["generation"], 1);
    let (_, after, _) = wire
        .send("PATCH", &format!("{widgets}/w"), "application/merge-patch+json", patch.as_bytes())
        .await;
    assert_eq!(
        (&after["metadata"]["generation"], &after["status"]["seen"]),
        (&json!(2), &json!(2))
    );
    let resources = wire.ok("GET", "/apis/example.com/v1", &Value::Null).await;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
    let document = wire.ok("GET", "/openapi/v3/apis/example.com/v1", &Value::Null).await;
    assert!(document["paths"].as_object().unwrap().keys().any(|path| path.contains("widgets")));
    wire.ok("DELETE", &format!("{definitions}/widgets.example.com"), &Value::Null).await;
    wire.until_gone(widgets).await;
    let again = wire.ok("POST", definitions, &definition).await;
    assert!(again["metadata"]["deletionTimestamp"].is_null());
    let list = wire.ok("GET", widgets, &Value::Null).await;
    assert_eq!(list["items"], json!([]), "its objects went with the definition");
    wire.server.stop();
}

#[tokio::test]
async fn calico_kinds_are_checked_and_nodes_are_one() {
    let wire = Wire::new().await;
    let policies = "/apis/projectcalico.org/v3/globalnetworkpolicies";
    let bad = json!({"metadata": {"name": "p"}, "spec": {"selector": "a ==", "ingress": [{"action": "Maybe"}]}});
    let (code, status) = wire.json("POST", policies, &bad).await;
    assert_eq!(code, 422, "{status}");
    let good = json!({"metadata": {"name": "p"}, "spec": {"selector": "a == 'b'", "ingress": [{"action": "Allow"}]}});
    let made = wire.ok("POST", policies, &good).await;
    assert_eq!(made["spec"]["tier"], "default");
    let listed = wire
        .ok("GET", &format!("{policies}?fieldSelector=spec.tier%3Ddefault"), &Value::Null)
        .await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let tiers = wire.ok("GET", "/apis/projectcalico.org/v3/tiers", &Value::Null).await;
    assert_eq!(tiers["items"].as_array().unwrap().len(), 3);
    let nodes = "/apis/projectcalico.org/v3/nodes";
    let (code, _) = wire
        .apply(
            &format!("{nodes}/n"),
            "test",
            false,
            &json!({"apiVersion": "projectcalico.org/v3", "kind": "Node",
            "metadata": {"name": "n"}, "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}}}),
        )
        .await;
    assert_eq!(code, 201);
    let core = wire.ok("GET", "/api/v1/nodes/n", &Value::Null).await;
    assert_eq!(core["metadata"]["annotations"]["projectcalico.org/IPv4Address"], "10.0.0.1/24");
    let patch =
        json!({"metadata": {"annotations": {"projectcalico.org/ASNumber": "64512"}}}).to_string();
    wire.send(
        "PATCH",
        "/api/v1/nodes/n/status",
        "application/strategic-merge-patch+json",
        patch.as_bytes(),
    )
    .await;
    let node = wire.ok("GET", &format!("{nodes}/n"), &Value::Null).await;
    assert_eq!(node["spec"]["bgp"], json!({"ipv4Address": "10.0.0.1/24", "asNumber": 64512}));
    wire.server.stop();
}
