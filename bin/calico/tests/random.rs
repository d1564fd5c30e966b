//! Random sets of policies, applied with kubectl; after each, every connection between all pods must
//! do what the specification says: both families, every protocol, with and without a tunnel. The
//! seeds are fixed: a failure can be had again. `SETS` and `SEED` ask for others (`make soak`).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::Sandbox;
use serde_json::{Value, json};

/// Sets in each kind of cluster, unless the environment says otherwise.
const SETS: u64 = 8;
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
    addresses: Vec<IpAddr>,
    /// Of the rule that is being made: a rule does not mix families.
    v6: bool,
}

/// The network of this length that the address lies in.
fn net_of(address: IpAddr, bits: u32) -> String {
    let network: IpAddr = match address {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() & (u32::MAX << (32 - bits))).into(),
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << (128 - bits))).into(),
    };
    format!("{network}/{bits}")
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

    fn address(&mut self) -> IpAddr {
        let of: Vec<_> =
            self.addresses.iter().filter(|a| a.is_ipv6() == self.v6).copied().collect();
        self.r.pick(&of)
    }

    fn net(&mut self) -> String {
        let (pool, block, one) = if self.v6 { (48, 122, 128) } else { (16, 26, 32) };
        let address = self.address();
        match self.r.below(4) {
            0 => net_of(address, pool),
            1 => net_of(address, block),
            _ => format!("{address}/{one}"),
        }
    }

    /// A Calico rule's end. Ports only where the protocol has some.
    fn end(&mut self, ports: bool) -> Value {
        let mut end = json!({});
        if !ports && self.r.one_in(6) {
            let namespace = self.r.pick(&NAMESPACES);
            return json!({"services": {"name": "every-other", "namespace": namespace}});
        }
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
            json!("signals"),
            json!(9000),
        ])
    }

    fn rule(&mut self, egress: bool) -> Value {
        let action = self.r.pick(&["Allow", "Allow", "Allow", "Deny", "Pass", "Pass", "Log"]);
        let mut rule = json!({"action": action});
        let mut ports = false;
        self.v6 = self.r.one_in(2);
        let icmp = if self.v6 { "ICMPv6" } else { "ICMP" };
        match self.r.below(8) {
            0 => rule["protocol"] = json!(icmp),
            1 | 2 => (rule["protocol"], ports) = (json!("TCP"), self.r.one_in(2)),
            3 => (rule["protocol"], ports) = (json!("UDP"), self.r.one_in(2)),
            4 => (rule["protocol"], ports) = (json!("SCTP"), self.r.one_in(2)),
            5 => rule["notProtocol"] = json!(self.r.pick(&["TCP", "UDP", "SCTP", icmp])),
            _ => (),
        }
        if rule["protocol"] == icmp && self.r.one_in(2) {
            let kind = self.r.pick(&if self.v6 { [128, 1] } else { [8, 3] });
            rule[self.r.pick(&["icmp", "icmp", "notICMP"])] = json!({"type": kind});
        }
        if self.r.one_in(5) {
            rule["ipVersion"] = json!(if self.v6 { 6 } else { 4 });
        }
        if egress || self.r.one_in(4) {
            rule["destination"] = self.end(ports);
            if !egress && rule["destination"].get("services").is_some() {
                rule["destination"] = json!({"selector": "has(app)"}); // of the far end only
            }
        } else if ports {
            rule["destination"] = json!({"ports": self.some(2, Self::port)});
        }
        if !egress || self.r.one_in(4) {
            rule["source"] = self.end(false);
            if egress && rule["source"].get("services").is_some() {
                rule["source"] = json!({"selector": "has(app)"});
            }
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
        if global && self.r.one_in(3) {
            spec["applyOnForward"] = json!(true);
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
                self.v6 = self.r.one_in(2);
                let address = self.address();
                let (pool, one) = if self.v6 { (48, 128) } else { (16, 32) };
                let except = format!("{address}/{one}");
                json!({"ipBlock": {"cidr": net_of(address, pool), "except": [except]}})
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
                json!({"protocol": "SCTP", "port": "signals"}),
                json!({"protocol": "SCTP"}),
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
        "spec": {"nets": self.some(3, |w| {
            w.v6 = w.r.one_in(2);
            w.net()
        })}})
    }

    /// Of a node: policies that apply to what it forwards may select it.
    fn host_endpoint(&mut self, node: usize) -> Value {
        let labels = json!({"app": self.r.pick(&["a", "b", "c"]), "set": "random"});
        let name = format!("k8s-node-{node}");
        json!({"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
            "metadata": {"name": format!("h{node}"), "labels": labels},
            "spec": {"node": name, "interfaceName": self.r.pick(&["eth0", "*"])}})
    }

    /// Up to ten policies and what they refer to: many together leave little to be reached.
    fn set(&mut self) -> Vec<Value> {
        let mut all: Vec<_> = (0..2).map(|i| self.network_set(i)).collect();
        if self.r.one_in(3) {
            all.extend((1..=2).map(|i| self.host_endpoint(i)));
        }
        let (ours, theirs) = (1 + self.r.below(7), self.r.below(4));
        all.extend((0..ours).map(|i| self.calico(i)));
        all.extend((0..theirs).map(|i| self.kubernetes(i)));
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
                {"containerPort": 53, "name": "dns", "protocol": "UDP"},
                {"containerPort": 9000, "name": "signals", "protocol": "SCTP"}]}]}}));
    }
    apply(s, &all);
    s.pods_ready();
}

fn apply(s: &Sandbox, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    s.kubectl("apply -f -", &list.to_string());
}

fn addresses(pod: &Value) -> Vec<IpAddr> {
    let ips = pod["status"]["podIPs"].as_array().unwrap();
    ips.iter().map(|i| i["ip"].as_str().unwrap().parse().unwrap()).collect()
}

/// In each namespace a service of every other pod of the namespace, of one protocol.
fn serve(s: &Sandbox, pods: &[Value]) {
    let mut all = Vec::new();
    for (i, namespace) in NAMESPACES.iter().enumerate() {
        let (name, port) = [("TCP", 80), ("UDP", 53), ("SCTP", 9000)][i];
        let ports = json!([{"name": "p", "protocol": name, "port": port}]);
        all.push(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "every-other", "namespace": namespace},
            "spec": {"ports": ports}}));
        let own = pods.iter().filter(|p| p["metadata"]["namespace"] == *namespace).step_by(2);
        let ends: Vec<_> = own.flat_map(addresses).collect();
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let ends = ends.iter().filter(|a| a.is_ipv6() == v6);
            let ends: Vec<_> = ends.map(|a| json!({"addresses": [a.to_string()]})).collect();
            all.push(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": format!("every-other-{}", family.to_lowercase()),
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": "every-other"}},
                "addressType": family, "ports": ports, "endpoints": ends}));
        }
    }
    apply(s, &all);
}

const PROBES: [&str; 4] =
    ["--port 80", "--port 53 --protocol udp", "--port 9000 --protocol sctp", "--protocol icmp"];

/// Every kind of connection, side by side: most of a probe is waiting for what is denied.
fn agreement(s: &Sandbox, why: &str) -> Vec<Value> {
    std::thread::scope(|scope| {
        let probes = PROBES.map(|words| {
            scope.spawn(move || s.expect_agreement(words, &format!("{words}, {why}")))
        });
        probes.into_iter().flat_map(|p| p.join().unwrap()).collect()
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|e| panic!("{name}={text:?}: {e}, want a number"))
    })
}

/// `seed` is that of the first set, and of what the cluster looks like.
fn check(options: &str, seed: u64) {
    let s = Sandbox::up(options);
    let (sets, seed) = (number("SETS", SETS), seed + number("SEED", 0));
    furnish(&s, &mut Random(seed));
    let pods = s.json("get pods -A");
    let pods = pods["items"].as_array().unwrap();
    serve(&s, pods);
    let all: Vec<_> = pods.iter().flat_map(addresses).collect();
    let (mut allowed, mut denied) = (0, 0);
    for seed in seed..seed + sets {
        let mut world = World { r: Random(1000 + seed), addresses: all.clone(), v6: false };
        let set = world.set();
        apply(&s, &set);
        if world.r.one_in(2) {
            let (pod, app) = (world.r.below(8), world.r.pick(&["a", "b", "c"]));
            let namespace = NAMESPACES[pod % 3];
            s.kubectl(&format!("-n {namespace} label pod pod-{pod} app={app} --overwrite"), "");
        }
        let texts: Vec<_> = set.iter().map(Value::to_string).collect();
        for outcome in agreement(&s, &format!("{options}: set {seed}\n{}\n", texts.join("\n"))) {
            for address in outcome["addresses"].as_array().unwrap() {
                *(if address["expected"] == true { &mut allowed } else { &mut denied }) += 1;
            }
        }
        s.kubectl(
            "delete networkpolicies.networking.k8s.io,networkpolicies.projectcalico.org,networksets -A -l set=random",
            "",
        );
        s.kubectl("delete globalnetworkpolicies,globalnetworksets,hostendpoints -l set=random", "");
    }
    eprintln!("{options}: {sets} sets: {allowed} connections allowed, {denied} denied");
    assert!(allowed > 100 && denied > 100, "one-sided: {allowed} allowed, {denied} denied");
    for outcome in agreement(&s, "all deleted") {
        assert_eq!(outcome["reachable"], true, "{outcome}");
    }
}

#[test]
fn the_kernel_does_what_the_specification_says() {
    check("--nodes 3 --dual-stack", 7);
}

#[test]
fn the_kernel_does_what_the_specification_says_without_a_tunnel() {
    check("--nodes 2 --dual-stack --encap none", 100_007);
}
