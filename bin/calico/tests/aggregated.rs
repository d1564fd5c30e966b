//! `calico apiserver` behind a real Kubernetes API server: what clients of that one see.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod behind;
mod serving;

use std::fs;
use std::io::{BufRead as _, BufReader};

use behind::{ADDRESS, Ask, Cluster, eventually, kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serving::Serving;
use testkit::{Etcd, Extras};

const SERVICE: (&str, &str) = ("calico-apiserver", "calico-api");
const PORT: u16 = 5443;
const TIERS: &str = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: ops}\nspec: {order: 5}\n---\n\
    apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: sec}\nspec: {order: 6}\n";

/// An API server of ours in a cluster, and where it keeps the objects.
struct Aggregated {
    server: Option<Serving>,
    /// None: the cluster itself, as crd.projectcalico.org/v1.
    etcd: Option<Etcd>,
    cluster: Cluster,
}

impl Aggregated {
    fn over_etcd() -> Self {
        Self::start(|cluster| Some(cluster.netns.run(Etcd::start)))
    }

    fn over_the_cluster() -> Self {
        Self::start(|cluster| {
            cluster.plane.define("v1");
            None
        })
    }

    fn start(store: impl FnOnce(&Cluster) -> Option<Etcd>) -> Self {
        let cluster = Cluster::start(Extras { aggregation: true, ..Extras::default() });
        cluster.install("apiserver.yaml", SERVICE, PORT);
        let mut all = Self { server: None, etcd: store(&cluster), cluster };
        all.restart();
        all
    }

    /// Starts it as the manifest does: by the service account and with the rights that are in there.
    fn restart(&mut self) {
        let kubeconfig = self.cluster.account(SERVICE.0, "calico-apiserver");
        let data = self.cluster.folder.path().join("data");
        let store = match &self.etcd {
            Some(etcd) => format!("--etcd-endpoints={}", etcd.url()),
            None => format!("--kubeconfig={}", kubeconfig.display()),
        };
        let words = [
            "apiserver",
            "--delegate",
            "--register",
            "--answers-ttl=1",
            &format!("--authentication-kubeconfig={}", kubeconfig.display()),
            &format!("--listen={ADDRESS}:{PORT}"),
            &format!("--data-dir={}", data.display()),
            &store,
        ];
        self.server = Some(self.cluster.serve(&words, "apiserver.log"));
        // The cluster's API server learns of it, and its schemas, by and by.
        for words in [["get", "tiers.projectcalico.org"], ["explain", "tiers.projectcalico.org"]] {
            eventually("the API is served", || {
                let seen = self.cluster.kubectl("", &words, "");
                seen.map_err(|told| format!("{told}\n{}", self.cluster.log("apiserver.log")))
            });
        }
    }

    fn authority(&self) -> String {
        fs::read_to_string(self.cluster.folder.path().join("data/pki/ca.crt")).unwrap()
    }

    fn url() -> String {
        format!("https://{ADDRESS}:{PORT}")
    }
}

fn policy(name: &str, tier: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec: {{tier: {tier}}}\n"
    )
}

/// A role of somebody, who may do everything to policies but for their tiers, and there what `rules` say.
fn grant(cluster: &Cluster, user: &str, rules: &[(&str, &str, &str)]) {
    let rule = |(verbs, resource, name): &(&str, &str, &str)| {
        format!(
            "- {{apiGroups: [projectcalico.org], resources: [{resource}], resourceNames: ['{name}'], verbs: [{verbs}]}}\n"
        )
    };
    let rules: String = rules.iter().map(rule).collect();
    let role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {user}}}\nrules:\n\
         - {{apiGroups: [projectcalico.org], resources: [networkpolicies, globalnetworkpolicies], verbs: ['*']}}\n\
         {rules}---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {user}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {user}}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]\n"
    );
    cluster.done(&["apply", "-f", "-"], &role);
}

/// What kubectl does, through the API server of the cluster.
fn kubectl_works(cluster: &Cluster) {
    let ready =
        ["wait", "--for=condition=Available", "--timeout=60s", "apiservice/v3.projectcalico.org"];
    cluster.done(&ready, "");

    // Discovery, schemas, tables.
    let listed = cluster.done(&["api-resources", "--api-group=projectcalico.org"], "");
    assert!(listed.contains("globalnetworkpolicies") && listed.contains("gnp"), "{listed}");
    let told = cluster.done(&["explain", "globalnetworkpolicies.projectcalico.org.spec.tier"], "");
    assert!(told.contains("FIELD: tier"), "{told}");
    eventually("schemas in version 2", || {
        let document = cluster.done(&["get", "--raw", "/openapi/v2"], "");
        let there = document.contains("org.projectcalico.v3.GlobalNetworkPolicy");
        if there { Ok(()) } else { Err("they are not there".to_owned()) }
    });
    cluster.done(&["apply", "-f", "-"], TIERS);
    let table = cluster.done(&["get", "tiers.projectcalico.org"], "");
    assert!(table.starts_with("NAME") && table.contains("ORDER"), "{table}");

    // Created, applied by both ways, patched, watched, deleted.
    let text = policy("p", "ops");
    let told = cluster.done(&["apply", "-f", "-"], &text);
    assert_eq!(told, "networkpolicy.projectcalico.org/p created\n");
    let told = cluster.done(&["apply", "-f", "-"], &text);
    assert_eq!(told, "networkpolicy.projectcalico.org/p unchanged\n");
    let kind = "networkpolicies.projectcalico.org";
    let mut watch = cluster.kubectl_command(&["get", kind, "-w", "-o", "name"]);
    let mut watching = cluster.netns.spawn(&mut watch);
    let mut seen = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert_eq!(seen.next().unwrap().unwrap(), "networkpolicy.projectcalico.org/p");
    cluster.done(&["apply", "--server-side", "-f", "-"], &policy("q", "ops"));
    assert_eq!(seen.next().unwrap().unwrap(), "networkpolicy.projectcalico.org/q");
    watching.kill().unwrap();
    watching.wait().unwrap();
    let owned = cluster
        .done(&["get", kind, "q", "-o", "jsonpath={.metadata.managedFields[0].operation}"], "");
    assert_eq!(owned, "Apply");
    cluster.done(&["patch", kind, "q", "--type=merge", "-p", r#"{"spec":{"order":9}}"#], "");
    let order = cluster.done(&["get", kind, "q", "-o", "jsonpath={.spec.order}"], "");
    assert_eq!(order, "9");
    for selector in ["--field-selector=spec.tier=ops", "-lprojectcalico.org/tier=ops"] {
        assert_eq!(cluster.done(&["get", kind, selector, "-o", "name"], "").lines().count(), 2);
    }
    cluster.done(&["delete", kind, "--all"], "");

    // Refusals reach the client as they are.
    let wrong = policy("p", "ops").replace("tier: ops", "tier: ops, selector: 'a =='");
    cluster.refused("", &["create", "-f", "-"], &wrong, &["spec.selector", "is invalid"]);
    let elsewhere = policy("p", "ops").replace("namespace: default", "namespace: nowhere");
    let told = ["namespaces \"nowhere\" not found"];
    cluster.refused("", &["create", "-f", "-"], &elsewhere, &told);
    let delete = ["delete", "tiers.projectcalico.org", "ops"];
    cluster.done(&delete, "");
    let mine = "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\nspec: {clusterGUID: x}\n";
    let told = ["ClusterInformation is a read-only resource (user: admin)"];
    cluster.refused("", &["create", "-f", "-"], mine, &told);
}

#[test]
fn kubectl_works_through_the_aggregator() {
    let mut all = Aggregated::over_etcd();
    kubectl_works(&all.cluster);

    // Without us the rest goes on; when we are back, so does this.
    drop(all.server.take());
    let cluster = &all.cluster;
    eventually("it is known to be away", || {
        match cluster.kubectl("", &["get", "tiers.projectcalico.org"], "") {
            Ok(seen) => Err(seen),
            Err(told) => Ok(told),
        }
    });
    cluster.done(&["get", "configmaps"], "");
    all.restart();
    let left = all.cluster.done(&["get", "tiers.projectcalico.org", "-o", "name"], "");
    assert!(left.contains("sec") && !left.contains("ops"), "{left}");
}

#[test]
fn kubectl_works_over_the_stored_kinds_of_the_cluster() {
    let all = Aggregated::over_the_cluster();
    kubectl_works(&all.cluster);
    let cluster = &all.cluster;
    let stored = cluster.done(&["get", "tiers.crd.projectcalico.org", "-o", "name"], "");
    assert!(stored.contains("tier.crd.projectcalico.org/sec"), "{stored}");
    cluster.done(&["apply", "-f", "-"], TIERS);
    cluster.done(&["apply", "-f", "-"], &policy("a", "ops"));
    cluster.done(&["apply", "-f", "-"], &policy("b", "sec"));
    grant(cluster, "eve", &[("get", "tiers", "ops"), ("'*'", "tier.networkpolicies", "ops.*")]);
    let words = ["get", "networkpolicies.projectcalico.org", "-o", "name"];
    let seen = eventually("the grant is known", || cluster.kubectl("eve", &words, ""));
    assert_eq!(seen, "networkpolicy.projectcalico.org/a\n");
    let to = ["apply", "-f", "-"];
    cluster.refused("eve", &to, &policy("a", "sec"), &["cannot patch", "in tier \"sec\""]);
}

#[test]
fn rights_are_those_of_the_cluster_tier_by_tier() {
    let all = Aggregated::over_etcd();
    let cluster = &all.cluster;
    cluster.done(&["apply", "-f", "-"], TIERS);
    for (name, tier) in [("a", "ops"), ("b", "sec"), ("c", "default")] {
        cluster.done(&["apply", "-f", "-"], &policy(name, tier));
    }
    let kind = "networkpolicies.projectcalico.org";
    let told = [
        "cannot list resource \"networkpolicies\" in API group \"projectcalico.org\" in the namespace \"default\"",
    ];
    cluster.refused("eve", &["get", kind], "", &told);

    grant(cluster, "eve", &[("get", "tiers", "ops"), ("'*'", "tier.networkpolicies", "ops.*")]);
    let sees = |words: &[&str]| cluster.kubectl("eve", words, "").unwrap();
    eventually("the grant is known", || cluster.kubectl("eve", &["get", kind], ""));
    assert_eq!(sees(&["get", kind, "-o", "name"]), "networkpolicy.projectcalico.org/a\n");
    assert_eq!(sees(&["get", kind, "-A", "-o", "name"]), "networkpolicy.projectcalico.org/a\n");
    let told = [
        "is forbidden: User \"eve\" cannot list networkpolicies.projectcalico.org in tier \"sec\" and namespace \"default\" (user cannot get tier)",
        "Forbidden",
    ];
    cluster.refused("eve", &["get", kind, "-lprojectcalico.org/tier=sec"], "", &told);
    let told = [
        "networkpolicies.projectcalico.org \"b\" is forbidden: User \"eve\" cannot get networkpolicies.projectcalico.org in tier \"sec\"",
    ];
    cluster.refused("eve", &["get", kind, "b"], "", &told);
    let told = cluster.kubectl("eve", &["apply", "-f", "-"], &policy("d", "ops")).unwrap();
    assert!(told.contains("d created"), "{told}");
    let told = ["User \"eve\" cannot create networkpolicies.projectcalico.org in tier \"sec\""];
    cluster.refused("eve", &["create", "-f", "-"], &policy("e", "sec"), &told);
    let to = |tier: &str| format!(r#"{{"spec":{{"tier":"{tier}"}}}}"#);
    for (name, tier, part) in [
        ("a", "sec", "cannot patch networkpolicies.projectcalico.org in tier \"sec\""),
        ("c", "ops", "in tier \"default\""),
    ] {
        let patch = ["patch", kind, name, "--type=merge", "-p", &to(tier)];
        cluster.refused("eve", &patch, "", &[part]);
    }
    cluster.refused("eve", &["delete", kind, "b"], "", &["cannot delete"]);
    sees(&["delete", kind, "--all"]);
    let left = cluster.done(&["get", kind, "-o", "name"], "");
    assert_eq!(left, "networkpolicy.projectcalico.org/b\nnetworkpolicy.projectcalico.org/c\n");

    // What was allowed is not for long when it no longer is.
    cluster.done(&["delete", "clusterrolebinding", "eve"], "");
    eventually("the grant is gone", || match cluster.kubectl("eve", &["get", kind], "") {
        Ok(seen) => Err(seen),
        Err(told) => Ok(told),
    });
}

#[test]
fn who_asks_directly_is_who_the_cluster_says() {
    let all = Aggregated::over_etcd();
    let cluster = &all.cluster;
    let (url, authority) = (Aggregated::url(), all.authority());
    let tiers = "GET /apis/projectcalico.org/v3/tiers";
    let list = || Ask(tiers, &[], Vec::new());
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let by_certificate = |(certificate, key): (String, String)| {
        format!(
            "{{client-certificate-data: {}, client-key-data: {}}}",
            encode(&certificate),
            encode(&key)
        )
    };
    let code = |credentials: &str, headers: &[(&str, &str)]| {
        let answers = cluster
            .send(&kubeconfig(&url, &authority, credentials), &[Ask(tiers, headers, Vec::new())]);
        answers[0].0
    };

    // Headers of front proxies, from one that is none.
    let said = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
    assert_eq!(code("{}", &said), 401);
    let eve = by_certificate(cluster.plane.client_certificate("front-proxy", &["dev"]));
    assert_eq!(code(&eve, &said), 403, "a user's certificate, whatever its name");
    let master = by_certificate(cluster.plane.client_certificate("root", &["system:masters"]));
    assert_eq!(code(&master, &[]), 200);

    // Tokens of the cluster; those that it does not know.
    cluster.done(&["create", "serviceaccount", "robot"], "");
    let robot = cluster.done(&["create", "token", "robot"], "");
    let robot = format!("{{token: {}}}", robot.trim());
    assert_eq!(code(&robot, &[]), 403);
    cluster.done(
        &[
            "create",
            "clusterrole",
            "tiers",
            "--verb=get,list",
            "--resource=tiers.projectcalico.org",
        ],
        "",
    );
    cluster.done(
        &[
            "create",
            "clusterrolebinding",
            "robot",
            "--clusterrole=tiers",
            "--serviceaccount=default:robot",
        ],
        "",
    );
    eventually("the robot may list", || match code(&robot, &[]) {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(code("{token: nonsense-that-nobody-issued}", &[]), 401);
    let health =
        ["GET /livez", "GET /readyz", "GET /healthz"].map(|line| Ask(line, &[], Vec::new()));
    let answers = cluster.send(&kubeconfig(&url, &authority, "{}"), &health);
    assert!(answers.iter().all(|(code, _)| *code == 200), "{answers:?}");

    // Nobody is let in while nobody answers, and nobody waits for ever.
    let pid = Pid::from_raw(cluster.plane.pid("kube-apiserver"));
    kill(pid, Signal::SIGSTOP).unwrap();
    let begun = std::time::Instant::now();
    let answers = cluster
        .send(&kubeconfig(&url, &authority, "{token: another-that-nobody-issued}"), &[list()]);
    kill(pid, Signal::SIGCONT).unwrap();
    let (code_then, told) = &answers[0];
    assert_eq!(*code_then, 503, "{told}");
    assert!(told["message"].as_str().unwrap().contains("whose token it is"), "{told}");
    assert!(begun.elapsed().as_secs() < 20);
    eventually("it answers again", || match code(&robot, &[]) {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    let log = cluster.log("apiserver.log");
    assert!(
        !log.contains("another-that-nobody") && !log.contains(robot.trim()),
        "secrets in {log}"
    );
}
