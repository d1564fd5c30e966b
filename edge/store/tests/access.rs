//! Who is let in, and what for: certificates, tokens, roles, reviews, the audit log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use apikit::Running;
use apiserver::AuditOptions;
use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// A client and what it sees of the wire.
#[derive(Clone)]
struct Client(kube::Client);

impl Client {
    async fn of(kubeconfig: &str) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        Self(kube::Client::try_from(config).unwrap())
    }

    /// The administrator's kubeconfig with another token.
    async fn with_token(server: &Running, token: &str) -> Self {
        let mut kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig).unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().unwrap();
        user.token = Some(token.to_owned().into());
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        Self(kube::Client::try_from(config).unwrap())
    }

    /// A user by a certificate that the store issues.
    async fn with_certificate(server: &Running, dir: &Path, user: &str, groups: &[&str]) -> Self {
        let file = dir.join(format!("{user}.conf"));
        let groups: Vec<_> = groups.iter().map(|g| (*g).to_owned()).collect();
        let url = format!("https://{}", server.address);
        store::issue(dir, &url, (user, &groups), 1, &file).unwrap();
        Self::of(&std::fs::read_to_string(file).unwrap()).await
    }

    async fn json_patch(&self, path: &str, patch: &Value) -> (u16, Value) {
        let request = Request::builder().method("PATCH").uri(path);
        let request = request.header("content-type", "application/json-patch+json");
        let body = kube::client::Body::from(patch.to_string().into_bytes());
        let response = self.0.send(request.body(body).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn as_user(&self, headers: &[(&str, &str)], line: &str, body: &Value) -> (u16, Value) {
        let (method, path) = line.split_once(' ').unwrap();
        let media = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = Request::builder().method(method).uri(path).header("content-type", media);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(kube::client::Body::from(text.into_bytes())).unwrap();
        let response = self.0.send(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn send(&self, line: &str, body: &Value) -> (u16, Value) {
        self.as_user(&[], line, body).await
    }

    async fn code(&self, line: &str, body: &Value) -> u16 {
        self.send(line, body).await.0
    }

    async fn can(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        let (group, resource) = resource.split_once('/').unwrap_or(("", resource));
        let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace}}});
        let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let (code, answer) = self.send(line, &review).await;
        assert_eq!(code, 201, "{answer}");
        answer["status"]["allowed"].as_bool().unwrap()
    }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn binding(kind: &str, name: &str, role: (&str, &str), subject: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject]})
}

async fn ok(client: &Client, line: &str, body: &Value) -> Value {
    let (code, answer) = client.send(line, body).await;
    assert!((200..300).contains(&code), "{line}: {code} {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_say_who_may_do_what() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let admin = Client(server.client().await);
    let eve = Client::with_certificate(&server, dir.path(), "eve", &["dev"]).await;
    let nobody = json!(null);

    // Known, but without rights beyond those of everybody.
    assert_eq!(eve.code("GET /api", &nobody).await, 200);
    let (code, told) = eve.send(&format!("GET {MAPS}"), &nobody).await;
    assert_eq!((code, told["reason"].as_str()), (403, Some("Forbidden")), "{told}");
    let wanted = "configmaps is forbidden: User \"eve\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    assert_eq!(told["message"], wanted);
    let (_, told) = eve.send("DELETE /apis/projectcalico.org/v3/tiers/default", &nobody).await;
    let wanted = "tiers.projectcalico.org \"default\" is forbidden: User \"eve\" cannot delete resource \"tiers\" in API group \"projectcalico.org\" at the cluster scope";
    assert_eq!(told["message"], wanted);
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let who = ok(&eve, line, &review).await;
    assert_eq!(who["status"]["userInfo"]["username"], "eve");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));

    // In one namespace, by a group.
    let group = json!({"kind": "Group", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"});
    let to_edit = binding("RoleBinding", "devs", ("ClusterRole", "edit"), &group);
    ok(&admin, &format!("POST {RBAC}/namespaces/default/rolebindings"), &to_edit).await;
    assert_eq!(eve.code(&format!("POST {MAPS}"), &map("a")).await, 201);
    assert_eq!(eve.code(&format!("GET {MAPS}?watch=true&timeoutSeconds=1"), &nobody).await, 200);
    assert_eq!(eve.code("GET /api/v1/namespaces/default", &nobody).await, 200);
    for line in [
        "GET /api/v1/configmaps",
        "GET /api/v1/namespaces/kube-system/configmaps",
        "GET /api/v1/namespaces",
        "PUT /api/v1/namespaces/default",
        "GET /apis/rbac.authorization.k8s.io/v1/clusterroles",
    ] {
        assert_eq!(eve.code(line, &nobody).await, 403, "{line}");
    }
    assert!(eve.can("create", "configmaps", "default").await);
    assert!(eve.can("list", "projectcalico.org/networkpolicies", "default").await);
    assert!(!eve.can("create", "configmaps", "kube-system").await);
    assert!(!eve.can("create", "projectcalico.org/globalnetworkpolicies", "").await);
    let rules = json!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"namespace": "default"}});
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = ok(&eve, line, &rules).await;
    assert!(rules["status"]["resourceRules"].as_array().unwrap().len() > 3, "{rules}");

    // One object by its name: also where a list or a watch asks for that one only.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "one-tier", "labels": {"x": "y"}}, "rules": [{"apiGroups": ["projectcalico.org"],
        "resources": ["tiers"], "resourceNames": ["default"], "verbs": ["get", "list"]}]});
    ok(&admin, &format!("POST {RBAC}/clusterroles"), &role).await;
    let all = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "sum"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}});
    ok(&admin, &format!("POST {RBAC}/clusterroles"), &all).await;
    let user = json!({"kind": "User", "name": "eve"});
    let to_sum = binding("ClusterRoleBinding", "eve", ("ClusterRole", "sum"), &user);
    ok(&admin, &format!("POST {RBAC}/clusterrolebindings"), &to_sum).await;
    let tiers = "GET /apis/projectcalico.org/v3/tiers";
    assert_eq!(eve.code(&format!("{tiers}/default"), &nobody).await, 200);
    assert_eq!(eve.code(&format!("{tiers}/kube-admin"), &nobody).await, 403);
    assert_eq!(eve.code(tiers, &nobody).await, 403);
    let one = format!("{tiers}?fieldSelector=metadata.name%3Ddefault");
    assert_eq!(eve.code(&one, &nobody).await, 200);

    // Gone with the binding.
    let line = format!("DELETE {RBAC}/namespaces/default/rolebindings/devs");
    ok(&admin, &line, &nobody).await;
    assert_eq!(eve.code(&format!("GET {MAPS}"), &nobody).await, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_grants_more_than_he_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let admin = Client(server.client().await);
    let eve = Client::with_certificate(&server, dir.path(), "eve", &[]).await;
    let user = json!({"kind": "User", "name": "eve"});
    let mine = binding("RoleBinding", "eve", ("ClusterRole", "admin"), &user);
    ok(&admin, &format!("POST {RBAC}/namespaces/default/rolebindings"), &mine).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let role = |name: &str, resource: &str, verb: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]})
    };
    assert_eq!(eve.code(&format!("POST {roles}"), &role("r", "pods", "get")).await, 201);
    for (resource, verb) in [("nodes", "get"), ("pods", "*"), ("*", "get")] {
        let (code, told) = eve.send(&format!("POST {roles}"), &role("x", resource, verb)).await;
        assert_eq!(code, 403, "{told}");
        let message = told["message"].as_str().unwrap();
        assert!(
            message.contains("attempting to grant RBAC permissions not currently held"),
            "{told}"
        );
    }
    let wider = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    assert_eq!(eve.code(&format!("PATCH {roles}/r"), &wider).await, 403);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(eve.code(&format!("PATCH {roles}/r"), &labels).await, 200);
    let own = binding("RoleBinding", "b", ("Role", "r"), &user);
    assert_eq!(eve.code(&format!("POST {bindings}"), &own).await, 201);
    let all = binding("RoleBinding", "c", ("ClusterRole", "cluster-admin"), &user);
    assert_eq!(eve.code(&format!("POST {bindings}"), &all).await, 403);
    let other = json!({"roleRef": {"name": "cluster-admin"}});
    let (code, told) = admin.send(&format!("PATCH {bindings}/b"), &other).await;
    assert_eq!(code, 422, "{told}");
    assert!(told["message"].as_str().unwrap().contains("cannot change roleRef"), "{told}");
    let bad = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "d"}, "roleRef": {"kind": "Thing", "name": "x"}});
    assert_eq!(admin.code(&format!("POST {bindings}"), &bad).await, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_known_by_certificate_token_and_account() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, "# name\n0123456789abcdef,bob,u-1,\"ops,system:masters\"\n").unwrap();
    let server = Running::configured(dir.path(), |o| o.access.tokens = Some(tokens.clone()));
    let admin = Client(server.client().await);
    let nobody = json!(null);
    let bob = Client::with_token(&server, "0123456789abcdef").await;
    assert_eq!(bob.code("GET /api/v1/nodes", &nobody).await, 200);
    let stranger = Client::with_token(&server, "0123456789abcdeg").await;
    assert_eq!(stranger.code("GET /api/v1/nodes", &nobody).await, 401);
    assert_eq!(stranger.code("GET /healthz", &nobody).await, 200);

    // A certificate of another authority does not get through the handshake.
    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("eve.conf");
    let url = format!("https://{}", server.address);
    let groups = ["system:masters".to_owned()];
    store::issue(other.path(), &url, ("eve", &groups), 1, &file).unwrap();
    let mut forged = Kubeconfig::read_from(&file).unwrap();
    forged.clusters = Kubeconfig::from_yaml(&server.kubeconfig).unwrap().clusters;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(forged, &options).await.unwrap();
    let forged = kube::Client::try_from(config).unwrap();
    assert!(forged.apiserver_version().await.is_err());

    // A service account: known while it lives, with the rights that it is given.
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    ok(&admin, &format!("POST {accounts}"), &account).await;
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = ok(&admin, &format!("POST {accounts}/robot/token"), &request).await;
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let robot = Client::with_token(&server, &token).await;
    assert_eq!(robot.code(&format!("GET {MAPS}"), &nobody).await, 403);
    let subject = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    let reader = binding("ClusterRoleBinding", "robot", ("ClusterRole", "view"), &subject);
    ok(&admin, &format!("POST {RBAC}/clusterrolebindings"), &reader).await;
    assert_eq!(robot.code(&format!("GET {MAPS}"), &nobody).await, 200);
    assert_eq!(robot.code("GET /api/v1/secrets", &nobody).await, 403);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let line = "POST /apis/authentication.k8s.io/v1/tokenreviews";
    let known = ok(&admin, line, &review).await;
    assert_eq!(known["status"]["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(robot.code(line, &review).await, 403);
    ok(&admin, &format!("DELETE {accounts}/robot"), &nobody).await;
    assert_eq!(robot.code(&format!("GET {MAPS}"), &nobody).await, 401, "the account is gone");
    ok(&admin, &format!("POST {accounts}"), &account).await;
    assert_eq!(robot.code(&format!("GET {MAPS}"), &nobody).await, 401, "it is another one");

    // In another's name.
    let as_eve = [("impersonate-user", "eve"), ("impersonate-group", "dev")];
    assert_eq!(admin.as_user(&as_eve, &format!("GET {MAPS}"), &nobody).await.0, 403);
    let eve = Client::with_certificate(&server, dir.path(), "eve", &[]).await;
    let as_admin =
        [("impersonate-user", "kubernetes-admin"), ("impersonate-group", "system:masters")];
    let (code, told) = eve.as_user(&as_admin, &format!("GET {MAPS}"), &nobody).await;
    assert_eq!(code, 403, "{told}");
    assert!(told["message"].as_str().unwrap().contains("cannot impersonate"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let log = AuditOptions::new(&path);
    let server = Running::configured(dir.path(), |o| o.access.audit = Some(log));
    let admin = Client(server.client().await);
    let eve = Client::with_certificate(&server, dir.path(), "eve", &["dev"]).await;
    let stranger = Client::with_token(&server, "0123456789abcdef").await;
    let nobody = json!(null);
    ok(&admin, &format!("POST {MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(eve.code(&format!("GET {MAPS}/secret"), &nobody).await, 403);
    assert_eq!(stranger.code("GET /api/v1/pods", &nobody).await, 401);
    ok(&admin, &format!("GET {MAPS}?watch=true&timeoutSeconds=1"), &nobody).await;
    let as_eve = [("impersonate-user", "eve")];
    assert_eq!(admin.as_user(&as_eve, "GET /api", &nobody).await.0, 200);
    server.stop();
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let find = |what: &dyn Fn(&Value) -> bool| {
        events.iter().find(|e| what(e)).unwrap_or_else(|| panic!("not noted; there is\n{text}"))
    };
    let created = find(&|e| e["verb"] == "create");
    assert_eq!(created["kind"], "Event");
    assert_eq!(created["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(
        (created["level"].as_str(), created["stage"].as_str()),
        (Some("Metadata"), Some("ResponseComplete"))
    );
    assert_eq!(created["requestURI"], format!("{MAPS}?dryRun=All"));
    assert_eq!(created["user"]["username"], "kubernetes-admin");
    let object = json!({"resource": "configmaps", "apiVersion": "v1", "namespace": "default"});
    assert_eq!(created["objectRef"], object);
    assert_eq!(created["responseStatus"]["code"], 201);
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    let refused = find(&|e| e["responseStatus"]["code"] == 403);
    assert_eq!(refused["user"]["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(refused["objectRef"]["name"], "secret");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    let unknown = find(&|e| e["responseStatus"]["code"] == 401);
    assert_eq!(unknown["user"]["username"], "system:anonymous");
    let watches: Vec<_> = events.iter().filter(|e| e["verb"] == "watch").collect();
    let stages: Vec<_> = watches.iter().map(|e| e["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
    assert_eq!(watches[0]["auditID"], watches[1]["auditID"]);
    let other = find(&|e| e["impersonatedUser"]["username"] == "eve");
    assert_eq!(other["user"]["username"], "kubernetes-admin");
    assert!(!text.contains("calico."), "no token is in it");
}

/// A role on everything of Calico's policies but their tiers, and the rights in tiers that are given.
fn tier_role(name: &str, rules: &[(&[&str], &str, &str)]) -> Value {
    let group = "projectcalico.org";
    let mut all = vec![json!({"apiGroups": [group], "verbs": ["*"],
        "resources": ["networkpolicies", "globalnetworkpolicies"]})];
    all.extend(rules.iter().map(|(verbs, resource, name)| {
        json!({"apiGroups": [group], "verbs": verbs, "resources": [resource], "resourceNames": [name]})
    }));
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name}, "rules": all})
}

fn policy(name: &str, tier: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name}, "spec": {"tier": tier}})
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

const GLOBAL: &str = "/apis/projectcalico.org/v3/globalnetworkpolicies";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_given_tier_by_tier() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let admin = Client(server.client().await);
    let eve = Client::with_certificate(&server, dir.path(), "eve", &["dev"]).await;
    let nobody = json!(null);
    for tier in ["ops", "sec"] {
        let tier = json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier",
            "metadata": {"name": tier}, "spec": {"order": 7}});
        ok(&admin, "POST /apis/projectcalico.org/v3/tiers", &tier).await;
    }
    for (name, tier) in [("a", "ops"), ("b", "sec"), ("c", "default")] {
        ok(&admin, &format!("POST {GLOBAL}"), &policy(name, tier)).await;
    }
    let role = tier_role(
        "ops",
        &[
            (&["get"], "tiers", "ops"),
            (&["*"], "tier.globalnetworkpolicies", "ops.*"),
            (&["get", "update", "patch"], "tier.globalnetworkpolicies", "sec.b"),
            (&["create"], "tier.globalnetworkpolicies", "default.mine"),
        ],
    );
    ok(&admin, &format!("POST {RBAC}/clusterroles"), &role).await;
    let user = json!({"kind": "User", "name": "eve"});
    let bound = binding("ClusterRoleBinding", "eve", ("ClusterRole", "ops"), &user);
    ok(&admin, &format!("POST {RBAC}/clusterrolebindings"), &bound).await;

    // Reads show what is in the tiers that he may see.
    let all = ok(&eve, &format!("GET {GLOBAL}"), &nobody).await;
    assert_eq!(names(&all), ["a"]);
    let one = ok(&eve, &format!("GET {GLOBAL}?fieldSelector=spec.tier%3Dops"), &nobody).await;
    assert_eq!(names(&one), ["a"]);
    for query in
        ["fieldSelector=spec.tier%3Dsec", "labelSelector=projectcalico.org/tier+in+(ops,sec)"]
    {
        let (code, told) = eve.send(&format!("GET {GLOBAL}?{query}"), &nobody).await;
        let wanted = "globalnetworkpolicies.projectcalico.org is forbidden: User \"eve\" cannot list globalnetworkpolicies.projectcalico.org in tier \"sec\" (user cannot get tier)";
        assert_eq!((code, told["message"].as_str()), (403, Some(wanted)), "{query}");
    }
    let others = ok(&eve, &format!("GET {GLOBAL}?fieldSelector=spec.tier%21%3Dops"), &nobody).await;
    assert!(names(&others).is_empty(), "{others}");
    assert_eq!(eve.code(&format!("GET {GLOBAL}/a"), &nobody).await, 200);
    assert_eq!(eve.code(&format!("GET {GLOBAL}/b"), &nobody).await, 403, "no get on its tier");
    assert_eq!(eve.code(&format!("GET {GLOBAL}/none"), &nobody).await, 404);

    // Writes, by tier and by name.
    assert_eq!(eve.code(&format!("POST {GLOBAL}"), &policy("d", "ops")).await, 201);
    assert_eq!(eve.code(&format!("POST {GLOBAL}"), &policy("mine", "default")).await, 201);
    let (code, told) = eve.send(&format!("POST {GLOBAL}"), &policy("yours", "default")).await;
    assert_eq!((code, told["details"]["name"].as_str()), (403, Some("yours")), "{told}");

    // From one tier to another takes both.
    let to = |tier: &str| json!({"spec": {"tier": tier}});
    assert_eq!(eve.code(&format!("PATCH {GLOBAL}/d"), &to("sec")).await, 403);
    assert_eq!(eve.code(&format!("PATCH {GLOBAL}/c"), &to("ops")).await, 403);
    assert_eq!(eve.code(&format!("DELETE {GLOBAL}/b"), &nobody).await, 403);
    let see = json!([{"op": "add", "path": "/rules/-", "value": {"apiGroups": ["projectcalico.org"],
        "resources": ["tiers"], "resourceNames": ["sec"], "verbs": ["get"]}}]);
    let (code, told) = admin.json_patch(&format!("{RBAC}/clusterroles/ops"), &see).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(eve.code(&format!("PATCH {GLOBAL}/b"), &to("ops")).await, 200);
    assert_eq!(eve.code(&format!("PATCH {GLOBAL}/b"), &to("sec")).await, 200);
    assert_eq!(eve.code(&format!("PATCH {GLOBAL}/d"), &to("sec")).await, 403, "another name");

    // Deleting many leaves what is in other tiers.
    ok(&eve, &format!("DELETE {GLOBAL}"), &nobody).await;
    let left = ok(&admin, &format!("GET {GLOBAL}"), &nobody).await;
    assert_eq!(names(&left), ["b", "c", "mine"]);
    let (code, told) = eve.send("GET /apis/projectcalico.org/v3/networkpolicies", &nobody).await;
    assert!(code == 403 && told["message"].as_str().unwrap().contains("in any tier"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_nothing_of_tiers_that_one_may_not_see() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let admin = Client(server.client().await);
    let eve = Client::with_certificate(&server, dir.path(), "eve", &["dev"]).await;
    let tier = |name: &str| json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name}});
    ok(&admin, "POST /apis/projectcalico.org/v3/tiers", &tier("ops")).await;
    let role = tier_role(
        "ops",
        &[(&["get"], "tiers", "ops"), (&["watch"], "tier.globalnetworkpolicies", "ops.*")],
    );
    ok(&admin, &format!("POST {RBAC}/clusterroles"), &role).await;
    let user = json!({"kind": "User", "name": "eve"});
    let bound = binding("ClusterRoleBinding", "eve", ("ClusterRole", "ops"), &user);
    ok(&admin, &format!("POST {RBAC}/clusterrolebindings"), &bound).await;

    let request = Request::builder().uri(format!("{GLOBAL}?watch=true&timeoutSeconds=60"));
    let request = request.body(Vec::new()).unwrap();
    let watching = tokio::spawn(async move { eve.0.request_text(request).await.unwrap() });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for (name, tier) in [("seen", "ops"), ("hidden", "default")] {
        ok(&admin, &format!("POST {GLOBAL}"), &policy(name, tier)).await;
    }
    let to = json!({"spec": {"tier": "default", "order": 4711}});
    ok(&admin, &format!("PATCH {GLOBAL}/seen"), &to).await;
    // What comes at its end is for the next watch to tell.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    // A new tier may be one to see: the watch ends, and the next one begins with it.
    ok(&admin, "POST /apis/projectcalico.org/v3/tiers", &tier("later")).await;
    let told = watching.await.unwrap();
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "DELETED"], "{told}");
    assert!(!told.contains("hidden") && !told.contains("4711"), "{told}");
}
