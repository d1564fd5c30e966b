//! A cluster as users would write it: for people who read a counterexample, and for `calicoctl`.

use std::net::IpAddr;

use ipnet::IpNet;
use model::endpoint::HostTarget;
use model::policy::{EntityMatch, Icmp, NetworkSet, NetworkSetId, Profile, Stage, Tier};
use model::update::Backend;
use model::{
    Action, HostEndpoint, IpVersion, NamedPort, NodeName, Policy, Port, Protocol, Rule, TierName,
    WorkloadEndpoint,
};
use policy::{Failsafe, NodeView, View};
use selector::Selector;
use serde_json::{Map, Value, json};

const V3: &str = "projectcalico.org/v3";

/// The view as YAML documents that `calicoctl why -f` reads. What a document cannot say is left out: which
/// interfaces a node has beside those of host endpoints,
/// and its addresses but one of each family. Policies of all kinds become global ones.
pub fn yaml(view: &View) -> String {
    let text = |object| serde_saphyr::to_string(&object).expect("an object can be written");
    objects(view).into_iter().map(text).collect::<Vec<_>>().join("---\n")
}

/// The documents of [`yaml`].
pub fn objects(view: &View) -> Vec<Value> {
    let mut all = vec![felix(view)];
    all.extend(view.nodes.iter().map(|(name, node)| of_node(name, node)));
    all.extend(view.tiers.values().map(tier));
    all.extend(view.profiles.iter().map(|(name, p)| profile(name.as_str(), p)));
    all.extend(view.workloads.values().map(|w| workload(w)));
    all.extend(view.hosts.values().map(|h| host(h)));
    all.extend(view.network_sets.iter().map(|(id, set)| network_set(id, set)));
    all.extend(view.policies.values().map(|p| policy(p)));
    for (service, slices) in &view.services {
        let metadata = json!({"namespace": *service.namespace, "name": *service.name});
        all.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}));
        for (i, backend) in slices.values().flat_map(|slice| slice.iter()).enumerate() {
            all.push(slice(&service.namespace, &service.name, i, backend));
        }
    }
    all
}

/// An object without what is null, an empty list or an empty object in its spec.
fn object(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": brief(spec)})
}

fn brief(value: Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, brief(value)));
            Value::Object(kept.filter(|(_, value)| says(value)).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(brief).collect()),
        other => other,
    }
}

fn texts<T: ToString>(things: &[T]) -> Vec<String> {
    things.iter().map(ToString::to_string).collect()
}

fn felix(view: &View) -> Value {
    let port =
        |f: &Failsafe| json!({"protocol": f.protocol.to_string(), "port": f.port, "net": f.net});
    let ports = |list: &[Failsafe]| list.iter().map(port).map(brief).collect::<Vec<_>>();
    let to_host = match view.endpoint_to_host {
        Action::Allow => "Accept",
        Action::Pass | Action::Log => "Return",
        Action::Deny => "Drop",
    };
    // No port is another thing than none said.
    let spec = json!({
        "failsafeInboundHostPorts": ports(&view.failsafe_inbound),
        "failsafeOutboundHostPorts": ports(&view.failsafe_outbound),
        "defaultEndpointToHostAction": to_host,
    });
    let metadata = json!({"name": "default"});
    json!({"apiVersion": V3, "kind": "FelixConfiguration", "metadata": metadata, "spec": spec})
}

fn of_node(name: &NodeName, node: &NodeView) -> Value {
    let all = node.interfaces.iter().flat_map(|(_, addresses)| addresses);
    let first =
        |is: fn(&IpAddr) -> bool| all.clone().find(|a| is(a)).map(|a| IpNet::from(*a).to_string());
    let (v4, v6) = (first(IpAddr::is_ipv4), first(IpAddr::is_ipv6));
    let bgp = json!({"ipv4Address": v4, "ipv6Address": v6});
    object("Node", json!({"name": name.as_str()}), json!({"bgp": bgp}))
}

/// A tier under a name that is nobody's: those that are built in have an order and an action of their own.
fn tier(tier: &Tier) -> Value {
    let spec = json!({"order": tier.order, "defaultAction": action(tier.default_action)});
    object("Tier", json!({"name": tier_name(&tier.name)}), spec)
}

fn tier_name(name: &TierName) -> String {
    match Tier::built_in(name.as_str()) {
        Some(_) => format!("the-{name}"),
        None => name.to_string(),
    }
}

fn profile(name: &str, profile: &Profile) -> Value {
    let spec = json!({
        "ingress": rules(&profile.ingress),
        "egress": rules(&profile.egress),
        "labelsToApply": *profile.labels,
    });
    object("Profile", json!({"name": name}), spec)
}

fn ports(ports: &[NamedPort]) -> Vec<Value> {
    let port = |p: &NamedPort| json!({"name": *p.name, "protocol": p.protocol.to_string(), "port": p.port});
    ports.iter().map(port).collect()
}

fn workload(w: &WorkloadEndpoint) -> Value {
    let networks: Vec<IpNet> = w.addresses.iter().map(|a| IpNet::from(*a)).collect();
    let spec = json!({
        "node": w.node.as_str(), "orchestrator": "k8s", "workload": *w.id.name, "endpoint": "eth0",
        "interfaceName": w.iface.as_str(), "ipNetworks": texts(&networks),
        "profiles": texts(&w.profiles), "ports": ports(&w.ports),
    });
    let metadata = json!({"namespace": *w.id.namespace, "name": *w.id.name, "labels": *w.labels});
    object("WorkloadEndpoint", metadata, spec)
}

fn host(h: &HostEndpoint) -> Value {
    let interface = match &h.target {
        HostTarget::Iface(name) => Some(name.as_str()),
        HostTarget::All => Some("*"),
        HostTarget::ByAddress => None,
    };
    let spec = json!({
        "node": h.node.as_str(), "interfaceName": interface, "expectedIPs": texts(&h.addresses),
        "profiles": texts(&h.profiles), "ports": ports(&h.ports),
    });
    object("HostEndpoint", json!({"name": *h.name, "labels": *h.labels}), spec)
}

/// A set that inherits from a namespace is in it.
fn network_set(id: &NetworkSetId, set: &NetworkSet) -> Value {
    let spec = json!({"nets": texts(&set.nets)});
    let mut metadata = json!({"name": *id.name, "labels": *set.labels});
    match set.profiles.first().and_then(|profile| profile.as_str().strip_prefix("kns.")) {
        None => object("GlobalNetworkSet", metadata, spec),
        Some(namespace) => {
            metadata["namespace"] = namespace.into();
            object("NetworkSet", metadata, spec)
        }
    }
}

fn policy(p: &Policy) -> Value {
    let kind = if p.staged { "StagedGlobalNetworkPolicy" } else { "GlobalNetworkPolicy" };
    let types = [("Ingress", p.applies_ingress), ("Egress", p.applies_egress)];
    let types = types.into_iter().filter(|(_, applies)| *applies);
    let spec = json!({
        "tier": tier_name(&p.tier),
        "order": p.order,
        "selector": p.selector.canonical(),
        "types": types.map(|(name, _)| name).collect::<Vec<_>>(),
        "ingress": if p.applies_ingress { rules(&p.ingress) } else { Vec::new() },
        "egress": if p.applies_egress { rules(&p.egress) } else { Vec::new() },
        "preDNAT": (p.stage == Stage::PreDnat).then_some(true),
        "doNotTrack": (p.stage == Stage::Untracked).then_some(true),
        "applyOnForward": p.apply_on_forward.then_some(true),
    });
    object(kind, json!({"name": *p.id.name}), spec)
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Log => "Log",
        Action::Pass => "Pass",
    }
}

fn rules(rules: &[Rule]) -> Vec<Value> {
    rules.iter().flat_map(by_family).map(|r| rule(&r)).collect()
}

/// A rule with prefixes of both families is two: users may not mix them. Where no prefix of a family is
/// left, or all are excluded, there is none for it: users may not write what matches nothing.
fn by_family(rule: &Rule) -> Vec<Rule> {
    let sides = [&rule.source, &rule.destination];
    let mut nets = sides.into_iter().flat_map(|side| side.nets.iter().chain(&side.not_nets));
    if nets.next().is_none() {
        return vec![rule.clone()];
    }
    let one = |version: IpVersion| {
        let other = if version == IpVersion::V4 { Protocol::ICMPV6 } else { Protocol::ICMP };
        if rule.protocol == Some(other) {
            return None;
        }
        let mut part = Rule { ip_version: Some(version), ..rule.clone() };
        for side in [&mut part.source, &mut part.destination] {
            let listed = !side.nets.is_empty();
            side.nets.retain(|net| IpVersion::of_net(net) == version);
            side.not_nets.retain(|net| IpVersion::of_net(net) == version);
            let excluded = side.not_nets.iter().any(|net| net.prefix_len() == 0);
            if excluded || (listed && side.nets.is_empty()) {
                return None;
            }
        }
        Some(part)
    };
    let families = [IpVersion::V4, IpVersion::V6].into_iter();
    let asked = families.filter(|v| rule.ip_version.is_none_or(|own| own == *v));
    asked.filter_map(one).collect()
}

fn rule(rule: &Rule) -> Value {
    let icmp = |icmp: &Icmp| json!({"type": icmp.kind, "code": icmp.code});
    brief(json!({
        "action": action(rule.action),
        "ipVersion": rule.ip_version.map(|v| if v == IpVersion::V4 { 4 } else { 6 }),
        "protocol": rule.protocol.map(protocol),
        "notProtocol": rule.not_protocol.map(protocol),
        "icmp": rule.icmp.as_ref().map(icmp),
        "notICMP": rule.not_icmp.as_ref().map(icmp),
        "source": side(&rule.source),
        "destination": side(&rule.destination),
    }))
}

fn protocol(protocol: Protocol) -> Value {
    let text = protocol.to_string();
    text.parse::<u8>().map_or(Value::from(text), Value::from)
}

fn side(side: &EntityMatch) -> Value {
    let port = |port: &Port| match port {
        Port::Range(min, max) if min == max => json!(min),
        Port::Range(min, max) => json!(format!("{min}:{max}")),
        Port::Named(name) => json!(**name),
    };
    let ports = |ports: &[Port]| ports.iter().map(port).collect::<Vec<_>>();
    let service = side.service.as_ref();
    json!({
        "nets": texts(&side.nets),
        "notNets": texts(&side.not_nets),
        "selector": side.selector.as_ref().map(Selector::canonical),
        "notSelector": side.not_selector.as_ref().map(Selector::canonical),
        "ports": ports(&side.ports),
        "notPorts": ports(&side.not_ports),
        "services": service.map(|s| json!({"namespace": *s.namespace, "name": *s.name})),
    })
}

/// A slice of one backend.
fn slice(namespace: &str, service: &str, n: usize, backend: &Backend) -> Value {
    let family = if backend.address.is_ipv4() { "IPv4" } else { "IPv6" };
    let protocol = backend.protocol.to_string();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-{n}"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": [{"addresses": [backend.address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": format!("p{n}"), "protocol": protocol, "port": backend.port}],
    })
}
