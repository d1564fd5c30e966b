//! Random sets of policies, applied with kubectl; after each, every connection between all pods must
//! do what the specification says. The seeds are fixed: a failure can be had again.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::Sandbox;
use serde_json::{Value, json};

const SETS: u64 = 15;
const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
const TIERS: [&str; 2] = ["security", "platform"];

/// SplitMix64: the same numbers from the same seed, for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True one time in `n`.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// What policies are made about.
struct World {
    r: Random,
    /// Addresses of the pods.
    addresses: Vec<String>,
}

impl World {
    fn selector(&mut self) -> String {
        let r = &mut self.r;
        match r.below(9) {
            0 => "all()".to_owned(),
            1 => format!("app == '{}'", r.pick(&["a", "b", "c"])),
            2 => format!("app != '{}'", r.pick(&["a", "b", "c"])),
            3 => format!("app in {{'{}', 'b'}}", r.pick(&["a", "c"])),
            4 => "has(tier)".to_owned(),
            5 => "!has(tier)".to_owned(),
            6 => format!("tier == 'front' || app == '{}'", r.pick(&["a", "b"])),
            7 => format!("app starts with '{}' && !(tier == 'back')", r.pick(&["a", "b"])),
            _ => "global()".to_owned(),
        }
    }

    fn namespace_selector(&mut self) -> String {
        let r = &mut self.r;
        match r.below(4) {
            0 => "all()".to_owned(),
            1 => format!("kubernetes.io/metadata.name == '{}'", r.pick(&NAMESPACES)),
            2 => "has(warm)".to_owned(),
            _ => format!("kubernetes.io/metadata.name != '{}'", r.pick(&NAMESPACES)),
        }
    }

    fn net(&mut self) -> String {
        let address = self.r.pick(&self.addresses);
        match self.r.below(4) {
            0 => "192.168.0.0/16".to_owned(),
            1 => {
                format!("{}/26", address.rsplit_once('.').map_or("", |(n, _)| n).to_owned() + ".0")
            }
            _ => format!("{address}/32"),
        }
    }

    /// A Calico rule's end. Ports only where the protocol has some.
    fn end(&mut self, ports: bool) -> Value {
        let mut end = json!({});
        match self.r.below(6) {
            0 => (),
            1 => end["nets"] = json!(self.some(2, Self::net)),
            2 => end["notNets"] = json!(self.some(1, Self::net)),
            3 => end["notSelector"] = json!(self.selector().replace("global()", "has(app)")),
            _ => {
                end["selector"] = json!(self.selector().replace("global()", "reputation == 'bad'"));
            }
        }
        if end.get("selector").is_some() && self.r.one_in(2) {
            end["namespaceSelector"] = json!(self.namespace_selector());
        }
        if ports {
            let key = if self.r.one_in(5) { "notPorts" } else { "ports" };
            end[key] = json!(self.some(2, Self::port));
        }
        end
    }

    /// One to `most`, no two alike.
    fn some<T: PartialEq>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut all = Vec::new();
        for _ in 0..=self.r.below(most) {
            let one = make(self);
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }

    fn port(&mut self) -> Value {
        self.r.pick(&[
            json!(80),
            json!("web"),
            json!("79:81"),
            json!(8080),
            json!("8000:8999"),
            json!("dns"),
            json!(53),
        ])
    }

    fn rule(&mut self, egress: bool) -> Value {
        let action = self.r.pick(&["Allow", "Allow", "Deny", "Deny", "Pass", "Log"]);
        let mut rule = json!({"action": action});
        let mut ports = false;
        match self.r.below(6) {
            0 => rule["protocol"] = json!("ICMP"),
            1 | 2 => (rule["protocol"], ports) = (json!("TCP"), self.r.one_in(2)),
            3 => (rule["protocol"], ports) = (json!("UDP"), self.r.one_in(2)),
            4 => rule["notProtocol"] = json!(self.r.pick(&["TCP", "UDP"])),
            _ => (),
        }
        if rule["protocol"] == "ICMP" && self.r.one_in(2) {
            rule["icmp"] = json!({"type": self.r.pick(&[8, 3])});
        }
        if egress || self.r.one_in(4) {
            rule["destination"] = self.end(ports);
        } else if ports {
            rule["destination"] = json!({"ports": self.some(2, Self::port)});
        }
        if !egress || self.r.one_in(4) {
            rule["source"] = self.end(false);
        }
        rule
    }

    /// Types and the rules of each, for both of Calico's policy kinds.
    fn calico_spec(&mut self, global: bool) -> Value {
        let mut spec = json!({"selector": self.selector().replace("global()", "has(app)")});
        if !self.r.one_in(5) {
            spec["order"] = json!(self.r.below(20));
        }
        if global && self.r.one_in(3) {
            spec["namespaceSelector"] = json!(self.namespace_selector());
        }
        let types =
            self.r.pick(&[&["Ingress"][..], &["Ingress"], &["Egress"], &["Ingress", "Egress"]]);
        spec["types"] = json!(types);
        for kind in types {
            let egress = *kind == "Egress";
            spec[kind.to_lowercase()] = json!(self.some(3, |w| w.rule(egress)));
        }
        spec
    }

    fn calico(&mut self, index: usize) -> Value {
        let global = self.r.one_in(2);
        let tier = self.r.pick(&["default", "default", TIERS[0], TIERS[1]]);
        let mut spec = self.calico_spec(global);
        spec["tier"] = json!(tier);
        let name = if tier == "default" { format!("p{index}") } else { format!("{tier}.p{index}") };
        let kind = if global { "GlobalNetworkPolicy" } else { "NetworkPolicy" };
        let mut metadata = json!({"name": name, "labels": {"set": "random"}});
        if !global {
            metadata["namespace"] = json!(self.r.pick(&NAMESPACES));
        }
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
    }

    fn label_selector(&mut self) -> Value {
        let r = &mut self.r;
        match r.below(4) {
            0 => json!({}),
            1 => json!({"matchLabels": {"app": r.pick(&["a", "b", "c"])}}),
            2 => {
                json!({"matchExpressions": [{"key": "tier", "operator": r.pick(&["Exists", "DoesNotExist"])}]})
            }
            _ => {
                json!({"matchExpressions": [{"key": "app", "operator": r.pick(&["In", "NotIn"]), "values": ["a", "b"]}]})
            }
        }
    }

    fn peer(&mut self) -> Value {
        match self.r.below(4) {
            0 => json!({"podSelector": self.label_selector()}),
            1 => {
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.r.pick(&NAMESPACES)}}})
            }
            2 => json!({"namespaceSelector": {}, "podSelector": self.label_selector()}),
            _ => {
                let except = format!("{}/32", self.r.pick(&self.addresses));
                json!({"ipBlock": {"cidr": "192.168.0.0/16", "except": [except]}})
            }
        }
    }

    fn kubernetes_rule(&mut self, peers: &str) -> Value {
        let mut rule = json!({});
        if !self.r.one_in(4) {
            rule[peers] = json!(self.some(2, Self::peer));
        }
        if self.r.one_in(2) {
            let ports = [
                json!({"port": 80}),
                json!({"port": "web"}),
                json!({"port": 79, "endPort": 90}),
                json!({"protocol": "UDP", "port": 53}),
                json!({"protocol": "UDP"}),
            ];
            rule["ports"] = json!(self.some(2, |w| w.r.pick(&ports)));
        }
        rule
    }

    fn kubernetes(&mut self, index: usize) -> Value {
        let types =
            self.r.pick(&[&["Ingress"][..], &["Ingress"], &["Egress"], &["Ingress", "Egress"]]);
        let mut spec = json!({"podSelector": self.label_selector(), "policyTypes": types});
        for kind in types {
            let (rules, peers) =
                if *kind == "Egress" { ("egress", "to") } else { ("ingress", "from") };
            let n = self.r.below(3);
            spec[rules] = json!((0..n).map(|_| self.kubernetes_rule(peers)).collect::<Vec<_>>());
        }
        let namespace = self.r.pick(&NAMESPACES);
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("k{index}"), "namespace": namespace, "labels": {"set": "random"}},
            "spec": spec})
    }

    fn network_set(&mut self, index: usize) -> Value {
        let labels = self.r.pick(&[
            json!({"reputation": "bad"}),
            json!({"app": "a"}),
            json!({"tier": "back"}),
        ]);
        let mut labels = labels;
        labels["set"] = json!("random");
        let mut metadata = json!({"name": format!("s{index}"), "labels": labels});
        let global = self.r.one_in(2);
        if !global {
            metadata["namespace"] = json!(self.r.pick(&NAMESPACES));
        }
        let kind = if global { "GlobalNetworkSet" } else { "NetworkSet" };
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata,
            "spec": {"nets": self.some(3, Self::net)}})
    }

    /// About ten policies and what they refer to.
    fn set(&mut self) -> Vec<Value> {
        let mut all: Vec<_> = (0..2).map(|i| self.network_set(i)).collect();
        all.extend((0..7).map(|i| self.calico(i)));
        all.extend((0..3).map(|i| self.kubernetes(i)));
        all
    }
}

fn furnish(s: &Sandbox, r: &mut Random) {
    let mut all: Vec<Value> = NAMESPACES
        .iter()
        .map(|name| {
            let warm = if *name == "red" { json!({"warm": "yes"}) } else { json!({}) };
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": warm}})
        })
        .collect();
    for (i, tier) in TIERS.iter().enumerate() {
        let action = if i == 0 { "Deny" } else { "Pass" };
        all.push(
            json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": tier},
            "spec": {"order": 100 * (i + 1), "defaultAction": action}}),
        );
    }
    for i in 0..8 {
        let mut labels = json!({"app": r.pick(&["a", "b", "c"])});
        if r.one_in(2) {
            labels["tier"] = json!(r.pick(&["front", "back"]));
        }
        // Named ports mean another number on another pod.
        let web = r.pick(&[80, 8080]);
        let other = if web == 80 { 8080 } else { 80 };
        all.push(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{i}"), "namespace": NAMESPACES[i % 3], "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "c", "ports": [
                {"containerPort": web, "name": "web"}, {"containerPort": other},
                {"containerPort": 53, "name": "dns", "protocol": "UDP"}]}]}}));
    }
    apply(s, &all);
    s.pods_ready();
}

fn apply(s: &Sandbox, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    s.kubectl("apply -f -", &list.to_string());
}

#[test]
fn the_kernel_does_what_the_specification_says() {
    let s = Sandbox::up("--nodes 3");
    let mut r = Random(7);
    furnish(&s, &mut r);
    let pods = s.json("get pods -A");
    let ip = |p: &Value| p["status"]["podIP"].as_str().unwrap().to_owned();
    let addresses: Vec<_> = pods["items"].as_array().unwrap().iter().map(ip).collect();
    let (mut allowed, mut denied) = (0, 0);
    for seed in 0..SETS {
        let mut world = World { r: Random(1000 + seed), addresses: addresses.clone() };
        let set = world.set();
        apply(&s, &set);
        if world.r.one_in(2) {
            let (pod, app) = (world.r.below(8), world.r.pick(&["a", "b", "c"]));
            let namespace = NAMESPACES[pod % 3];
            s.kubectl(&format!("-n {namespace} label pod pod-{pod} app={app} --overwrite"), "");
        }
        for words in ["--port 80", "--port 53 --protocol udp", "--protocol icmp"] {
            let texts: Vec<_> = set.iter().map(Value::to_string).collect();
            let why = format!("set {seed}, {words}\n{}\n", texts.join("\n"));
            for outcome in s.expect_agreement(words, &why) {
                *(if outcome["expected"] == true { &mut allowed } else { &mut denied }) += 1;
            }
        }
        for kinds in [
            "networkpolicies.networking.k8s.io,networkpolicies.projectcalico.org,networksets",
            "globalnetworkpolicies,globalnetworksets",
        ] {
            let everywhere = if kinds.starts_with("global") { "" } else { "-A" };
            s.kubectl(&format!("delete {kinds} {everywhere} -l set=random"), "");
        }
    }
    eprintln!("{SETS} sets: {allowed} connections allowed, {denied} denied");
    assert!(allowed > 100 && denied > 100, "one-sided: {allowed} allowed, {denied} denied");
    for outcome in s.expect_agreement("", "all deleted") {
        assert_eq!(outcome["reachable"], true, "{outcome}");
    }
}
