//! Objects by which Calico's servers are installed in a cluster: the API server behind the aggregation layer,
//! the admission webhooks.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// Where and as what a server runs.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The image with the program `calico`.
    pub image: &'a str,
    /// How many of it.
    pub replicas: u32,
    /// The certificate that all of them serve with. Without it each makes its own and tells the cluster: there
    /// can be only one then.
    pub serving: Option<Serving<'a>>,
}

/// A serving certificate, all in PEM.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// The authority that signed it.
    pub authority: &'a str,
    /// The certificate.
    pub certificate: &'a str,
    /// Its key.
    pub key: &'a str,
}

/// Under which name a server is found and told from others.
struct Server<'a> {
    at: Placement<'a>,
    name: &'static str,
    service: &'static str,
    port: u16,
    command: Vec<String>,
}

/// Where the API server is found.
pub const AGGREGATED: (&str, &str) = ("calico-apiserver", "calico-api");
/// Where the webhooks are found.
pub const WEBHOOKS: (&str, &str) = ("kube-system", "calico-webhooks");
/// The object that registers the API server.
pub const API_SERVICE: &str = "v3.projectcalico.org";

const FILES: &str = "/certificates";
const DATA: &str = "/data";

/// Everything for the API server of `projectcalico.org/v3` over `crd.projectcalico.org/v1`.
pub fn aggregation(at: Placement<'_>) -> Vec<Value> {
    let (_, service) = AGGREGATED;
    let port = 5443;
    let own = ["calico", "apiserver", "--delegate"].map(str::to_owned);
    let server = Server {
        at,
        name: "calico-apiserver",
        service,
        port,
        command: command(own.into(), port, at.serving.is_some(), (at.namespace, service)),
    };
    let authority = at.serving.map(|serving| serving.authority);
    let mut all = vec![namespace(at.namespace), server.account()];
    all.extend(server.secret());
    all.extend(server.granted("calico-crds", &storage_rules()));
    all.extend(server.granted(
        "calico-apiserver-registration",
        &[rule("apiregistration.k8s.io", &["apiservices"], &["get", "patch"], &[API_SERVICE])],
    ));
    all.push(server.bound("calico-apiserver-delegate-auth", "system:auth-delegator"));
    all.push(server.reader());
    all.extend(tier_getter());
    all.extend([server.service(), server.deployment(), server.reachable()]);
    all.push(api_service((at.namespace, service, 443), authority));
    all
}

/// Everything for the admission webhooks of native `projectcalico.org/v3`.
pub fn webhooks(at: Placement<'_>) -> Vec<Value> {
    let (_, service) = WEBHOOKS;
    let port = 6443;
    let own = ["calico", "webhooks"].map(str::to_owned);
    let server = Server {
        at,
        name: "calico-webhooks",
        service,
        port,
        command: command(own.into(), port, at.serving.is_some(), (at.namespace, service)),
    };
    let authority = at.serving.map(|serving| serving.authority);
    let mut all = vec![server.account()];
    all.extend(server.secret());
    all.extend(server.granted(
        "calico-webhooks",
        &[
            rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"], &[]),
            rule(
                "admissionregistration.k8s.io",
                &["validatingwebhookconfigurations"],
                &["get", "patch"],
                &["calico-webhooks"],
            ),
        ],
    ));
    all.extend([server.service(), server.deployment()]);
    all.push(webhook_configuration((at.namespace, service, 443), authority));
    all
}

/// Registers the API server at a service: namespace, name and port. `authority` (PEM) signed its certificate.
pub fn api_service(service: (&str, &str, u16), authority: Option<&str>) -> Value {
    let (namespace, name, port) = service;
    let mut spec = json!({
        "group": "projectcalico.org", "version": "v3", "groupPriorityMinimum": 1500, "versionPriority": 200,
        "service": {"namespace": namespace, "name": name, "port": port},
    });
    if let Some(authority) = authority {
        spec["caBundle"] = bundle(authority);
    }
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": API_SERVICE}, "spec": spec})
}

/// Registers the webhooks at a service.
pub fn webhook_configuration(service: (&str, &str, u16), authority: Option<&str>) -> Value {
    let (namespace, name, port) = service;
    let hook = |hook: &str, path: &str, failure: &str, plurals: &[&str]| {
        let mut client =
            json!({"service": {"namespace": namespace, "name": name, "port": port, "path": path}});
        if let Some(authority) = authority {
            client["caBundle"] = bundle(authority);
        }
        json!({"name": hook, "admissionReviewVersions": ["v1"], "clientConfig": client,
            "failurePolicy": failure, "sideEffects": "None", "timeoutSeconds": 10, "matchPolicy": "Equivalent",
            "rules": [{"apiGroups": ["projectcalico.org"], "apiVersions": ["v3"],
                "operations": ["CREATE", "UPDATE", "DELETE"], "resources": plurals, "scope": "*"}]})
    };
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "calico-webhooks"}, "webhooks": [
        hook("tiered-rbac.projectcalico.org", "/rbac", "Fail", &crate::TIERED),
        // Calico's own programs write it as they start: that must not wait for this.
        hook("cluster-info.api.projectcalico.org", "/cluster-info", "Ignore", &["clusterinformations"]),
    ]})
}

fn bundle(authority: &str) -> Value {
    json!(ByteString(authority.as_bytes().to_vec()))
}

fn command(mut own: Vec<String>, port: u16, files: bool, service: (&str, &str)) -> Vec<String> {
    own.push(format!("--listen=0.0.0.0:{port}"));
    own.push(format!("--data-dir={DATA}"));
    let (namespace, name) = service;
    own.push(format!("--service={namespace}/{name}"));
    if files {
        own.push(format!("--tls-cert-file={FILES}/tls.crt"));
        own.push(format!("--tls-private-key-file={FILES}/tls.key"));
    } else {
        own.push("--register".to_owned());
    }
    own
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"name": name}}})
}

fn rule(group: &str, resources: &[&str], verbs: &[&str], names: &[&str]) -> Value {
    let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

/// What the API server reads and writes: the stored kinds, and what the others are made from.
fn storage_rules() -> Vec<Value> {
    let stored = crate::definitions(crate::Layout::Stored);
    let plurals: Vec<_> =
        stored.iter().filter_map(|d| d["spec"]["names"]["plural"].as_str()).collect();
    let all = ["create", "delete", "get", "list", "patch", "update", "watch"];
    let read = ["get", "list", "watch"];
    vec![
        rule("crd.projectcalico.org", &plurals, &all, &[]),
        rule("", &["namespaces", "pods", "serviceaccounts"], &read, &[]),
        rule("", &["nodes", "nodes/status"], &["get", "list", "watch", "patch", "update"], &[]),
        rule("networking.k8s.io", &["networkpolicies"], &read, &[]),
    ]
}

/// The garbage collector deletes policies, for which it must know their tiers.
fn tier_getter() -> [Value; 2] {
    let name = "calico-tier-getter";
    let user = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-controller-manager"});
    [
        role(name, &[rule("projectcalico.org", &["tiers"], &["get"], &[])]),
        binding(name, name, &user),
    ]
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": rules})
}

fn binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject]})
}

impl Server<'_> {
    fn metadata(&self) -> Value {
        json!({"name": self.name, "namespace": self.at.namespace, "labels": self.labels()})
    }

    fn labels(&self) -> Value {
        json!({"k8s-app": self.name})
    }

    fn account(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": self.name, "namespace": self.at.namespace}})
    }

    fn subject(&self) -> Value {
        json!({"kind": "ServiceAccount", "name": self.name, "namespace": self.at.namespace})
    }

    fn bound(&self, name: &str, role: &str) -> Value {
        binding(name, role, &self.subject())
    }

    fn granted(&self, name: &str, rules: &[Value]) -> [Value; 2] {
        [role(name, rules), self.bound(name, name)]
    }

    /// May read whose client certificates the cluster trusts.
    fn reader(&self) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "calico-apiserver-auth-reader", "namespace": "kube-system"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
                "name": "extension-apiserver-authentication-reader"},
            "subjects": [self.subject()]})
    }

    fn certificates(&self) -> String {
        format!("{}-certs", self.name)
    }

    fn secret(&self) -> Option<Value> {
        let serving = self.at.serving?;
        Some(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": self.certificates(), "namespace": self.at.namespace},
            "stringData": {"tls.crt": serving.certificate, "tls.key": serving.key}}))
    }

    fn service(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.service, "namespace": self.at.namespace},
            "spec": {"type": "ClusterIP", "selector": self.labels(),
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port}]}})
    }

    /// The API server of Kubernetes must reach it, whatever other policies there are.
    fn reachable(&self) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "allow-apiserver", "namespace": self.at.namespace},
            "spec": {"podSelector": {"matchLabels": self.labels()}, "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"protocol": "TCP", "port": self.port}]}]}})
    }

    fn deployment(&self) -> Value {
        let alone = self.at.serving.is_none();
        let strategy = if alone { "Recreate" } else { "RollingUpdate" };
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(),
            "spec": {"replicas": self.at.replicas, "strategy": {"type": strategy},
                "selector": {"matchLabels": self.labels()},
                "template": {"metadata": {"labels": self.labels()}, "spec": self.pod()}}})
    }

    fn pod(&self) -> Value {
        let mut mounts = vec![json!({"name": "data", "mountPath": DATA})];
        let mut volumes = vec![json!({"name": "data", "emptyDir": {}})];
        if self.at.serving.is_some() {
            mounts.push(json!({"name": "certificates", "mountPath": FILES, "readOnly": true}));
            volumes.push(
                json!({"name": "certificates", "secret": {"secretName": self.certificates()}}),
            );
        }
        let probe = |path: &str| {
            json!({"httpGet": {"path": path, "port": self.port, "scheme": "HTTPS"},
            "periodSeconds": 10, "timeoutSeconds": 5})
        };
        let control = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        json!({
            "serviceAccountName": self.name,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [control("node-role.kubernetes.io/master"), control("node-role.kubernetes.io/control-plane")],
            "securityContext": {"fsGroup": 10001},
            "containers": [{
                "name": self.name, "image": self.at.image, "command": self.command,
                "ports": [{"containerPort": self.port, "protocol": "TCP"}],
                "readinessProbe": probe("/readyz"), "livenessProbe": probe("/livez"),
                "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "runAsNonRoot": true,
                    "privileged": false, "allowPrivilegeEscalation": false,
                    "seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        })
    }
}
