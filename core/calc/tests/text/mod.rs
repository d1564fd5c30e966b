//! Updates and outputs as JSON lines that people can write and read.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::endpoint::HostTarget;
use model::network::{Block, EncapMode, Node, Pool};
use model::output::{CalcMatch, CalcRule, EndpointTier, Member, Output, PolicyList, SetKind};
use model::policy::{EntityMatch, NetworkSet, NetworkSetId, Profile, ServiceId, Stage, Tier};
use model::update::Backend;
use model::{
    Action, HostEndpoint, NamedPort, Policy, PolicyId, PolicyKind, Port, Protocol, Rule, Update,
    WorkloadEndpoint, WorkloadId,
};
use selector::Selector;
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One object: exactly one of the fields that name a kind is given, and `gone` or its content.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    workload: Option<String>,
    host: Option<String>,
    policy: Option<String>,
    tier: Option<String>,
    profile: Option<String>,
    netset: Option<String>,
    slice: Option<String>,
    node: Option<String>,
    pool: Option<String>,
    block: Option<IpNet>,
    insync: bool,

    gone: bool,
    on: String, // the node of an endpoint
    ips: Vec<IpAddr>,
    iface: Option<String>,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    profiles: Vec<String>,
    ports: Vec<String>,   // name:protocol:port
    r#in: Option<String>, // the tier of a policy
    order: Option<f64>,
    selector: String,
    ingress: Option<Vec<RuleLine>>,
    egress: Option<Vec<RuleLine>>,
    stage: String,
    forward: bool,
    staged: bool,
    everywhere: bool,
    default: String,
    nets: Vec<IpNet>,
    service: String,
    backends: Vec<String>, // address protocol port
    vxlan: Vec<IpAddr>,
    mac: Option<[u8; 6]>,
    cidr: Option<IpNet>,
    vxlan_mode: String,
    ipip_mode: String,
    nat: bool,
    affinity: Option<String>,
    borrowed: BTreeMap<IpAddr, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleLine {
    action: String,
    protocol: Option<String>,
    from: Side,
    to: Side,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Side {
    selector: Option<String>,
    not: Option<String>,
    nets: Vec<IpNet>,
    ports: Vec<Value>, // a number, or a name
    service: Option<String>,
}

/// One line of an input file.
pub(crate) fn update(line: &str) -> Outcome<Update> {
    let mut line: Line = serde_json::from_str(line).map_err(|e| format!("{e} in {line}"))?;
    let there = !line.gone;
    if line.insync {
        return Ok(Update::InSync);
    } else if let Some(name) = line.workload.take() {
        let id = WorkloadId { namespace: split(&name).0.into(), name: split(&name).1.into() };
        let object = line.workload(id.clone())?;
        return Ok(Update::Workload(id, there.then(|| Arc::new(object))));
    } else if let Some(name) = line.host.take() {
        let object = line.host(&name)?;
        return Ok(Update::Host(name.into(), there.then(|| Arc::new(object))));
    } else if let Some(name) = line.policy.take() {
        let object = line.policy(&name)?;
        return Ok(Update::Policy(object.id.clone(), there.then(|| Arc::new(object))));
    } else if let Some(name) = line.profile.take() {
        let (ingress, egress) = (rules(line.ingress)?, rules(line.egress)?);
        let object = Profile { ingress, egress, labels: Arc::new(line.labels) };
        return Ok(Update::Profile(name.into(), there.then(|| Arc::new(object))));
    }
    Ok(if let Some(name) = line.tier {
        let default_action = action(&line.default);
        let object = Tier { name: name.as_str().into(), order: line.order, default_action };
        Update::Tier(name.into(), there.then_some(object))
    } else if let Some(name) = line.netset {
        let id = NetworkSetId { namespace: split(&name).0.into(), name: split(&name).1.into() };
        let profiles = line.profiles.into_iter().map(Into::into).collect();
        let object = NetworkSet { labels: Arc::new(line.labels), profiles, nets: line.nets };
        Update::NetworkSet(id, there.then(|| Arc::new(object)))
    } else if let Some(name) = line.slice {
        let backends = line.backends.iter().map(|b| backend(b)).collect::<Outcome<Vec<_>>>()?;
        let service = service(&line.service);
        Update::ServiceSlice(name.into(), service, there.then(|| Arc::new(backends)))
    } else if let Some(name) = line.node {
        let addresses = line.nets;
        let (vxlan_addresses, vxlan_mac_v4) = (line.vxlan, line.mac);
        let object = Node { addresses, vxlan_addresses, vxlan_mac_v4, ..Node::default() };
        Update::Node(name.into(), there.then(|| Arc::new(object)))
    } else if let Some(name) = line.pool {
        let object = line.cidr.map(|cidr| Pool {
            cidr,
            ipip: mode(&line.ipip_mode),
            vxlan: mode(&line.vxlan_mode),
            nat_outgoing: line.nat,
            disabled: false,
        });
        Update::Pool(name.into(), object.filter(|_| there))
    } else {
        let cidr = line.block.ok_or("no kind is given")?;
        let affinity = line.affinity.map(Into::into);
        let borrowed = line.borrowed.into_iter().map(|(a, n)| (a, n.into())).collect();
        Update::Block(cidr, there.then(|| Arc::new(Block { cidr, affinity, borrowed })))
    })
}

impl Line {
    fn workload(self, id: WorkloadId) -> Outcome<WorkloadEndpoint> {
        Ok(WorkloadEndpoint {
            iface: format!("cali-{}", id.name).parse()?,
            id,
            node: self.on.into(),
            addresses: self.ips,
            labels: Arc::new(self.labels),
            profiles: self.profiles.into_iter().map(Into::into).collect(),
            ports: self.ports.iter().map(|p| port(p)).collect::<Outcome<_>>()?,
            allowed_sources: Vec::new(),
        })
    }

    fn host(self, name: &str) -> Outcome<HostEndpoint> {
        Ok(HostEndpoint {
            name: name.into(),
            node: self.on.into(),
            target: match self.iface {
                Some(iface) => HostTarget::Iface(iface.parse()?),
                None => HostTarget::All,
            },
            addresses: self.ips,
            labels: Arc::new(self.labels),
            profiles: self.profiles.into_iter().map(Into::into).collect(),
            ports: self.ports.iter().map(|p| port(p)).collect::<Outcome<_>>()?,
        })
    }

    fn policy(self, name: &str) -> Outcome<Policy> {
        let (namespace, name) = split(name);
        let kind = match namespace {
            "" => PolicyKind::GlobalNetworkPolicy,
            _ => PolicyKind::NetworkPolicy,
        };
        Ok(Policy {
            id: PolicyId { name: name.into(), namespace: namespace.into(), kind },
            tier: self.r#in.as_deref().unwrap_or("default").into(),
            order: self.order,
            selector: Selector::parse(&self.selector)?,
            applies_ingress: self.ingress.is_some(),
            applies_egress: self.egress.is_some(),
            ingress: rules(self.ingress)?,
            egress: rules(self.egress)?,
            stage: match self.stage.as_str() {
                "pre-dnat" => Stage::PreDnat,
                "untracked" => Stage::Untracked,
                _ => Stage::Normal,
            },
            apply_on_forward: self.forward,
            staged: self.staged,
            everywhere: self.everywhere,
        })
    }
}

impl RuleLine {
    fn rule(self) -> Outcome<Rule> {
        Ok(Rule {
            protocol: self.protocol.as_deref().map(protocol),
            source: self.from.entity()?,
            destination: self.to.entity()?,
            ..Rule::any(action(&self.action))
        })
    }
}

impl Side {
    fn entity(self) -> Outcome<EntityMatch> {
        let selector = |s: Option<String>| s.map(|s| Selector::parse(&s)).transpose();
        let port = |p: Value| match (p.as_u64(), p.as_str()) {
            (Some(n), _) => Port::Range(n as u16, n as u16),
            (_, name) => Port::Named(name.unwrap_or_default().into()),
        };
        Ok(EntityMatch {
            nets: self.nets,
            selector: selector(self.selector)?,
            not_selector: selector(self.not)?,
            ports: self.ports.into_iter().map(port).collect(),
            service: self.service.as_deref().map(service),
            ..EntityMatch::default()
        })
    }
}

fn rules(lines: Option<Vec<RuleLine>>) -> Outcome<Vec<Rule>> {
    lines.unwrap_or_default().into_iter().map(RuleLine::rule).collect()
}

/// `namespace/name`, or a name without a namespace.
fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("", name))
}

fn service(name: &str) -> ServiceId {
    ServiceId { namespace: split(name).0.into(), name: split(name).1.into() }
}

fn action(name: &str) -> Action {
    match name {
        "pass" => Action::Pass,
        "deny" => Action::Deny,
        "log" => Action::Log,
        _ => Action::Allow,
    }
}

fn protocol(name: &str) -> Protocol {
    match name {
        "udp" => Protocol::UDP,
        "sctp" => Protocol::SCTP,
        _ => Protocol::TCP,
    }
}

fn mode(name: &str) -> EncapMode {
    match name {
        "always" => EncapMode::Always,
        "cross-subnet" => EncapMode::CrossSubnet,
        _ => EncapMode::Never,
    }
}

fn port(text: &str) -> Outcome<NamedPort> {
    let mut parts = text.split(':');
    let (name, proto) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let port = parts.next().unwrap_or_default().parse()?;
    Ok(NamedPort { name: name.into(), protocol: protocol(proto), port })
}

fn backend(text: &str) -> Outcome<Backend> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [address, proto, port] = parts.as_slice() else { return Err("no backend".into()) };
    Ok(Backend { address: address.parse()?, protocol: protocol(proto), port: port.parse()? })
}

/// One line of an output file.
pub(crate) fn output(output: &Output) -> Value {
    match output {
        Output::Set(id, kind, members) => {
            let kind = if *kind == SetKind::Net { "net" } else { "ip,port" };
            json!({"set": id, "kind": kind, "members": list(members, member)})
        }
        Output::SetDelta { id, added, removed } => {
            json!({"set": id, "added": list(added, member), "removed": list(removed, member)})
        }
        Output::SetGone(id) => json!({"gone": "set", "id": id}),
        Output::Policy(p) => {
            let mut v = json!({"policy": p.id.to_string(), "tier": p.tier.as_str()});
            if p.stage != Stage::Normal {
                v["stage"] = format!("{:?}", p.stage).into();
            }
            if p.staged {
                v["staged"] = true.into();
            }
            v["ingress"] = list(&p.ingress, rule);
            v["egress"] = list(&p.egress, rule);
            v
        }
        Output::PolicyGone(id) => json!({"gone": "policy", "id": id.to_string()}),
        Output::Profile(p) => {
            let (ingress, egress) = (list(&p.ingress, rule), list(&p.egress, rule));
            json!({"profile": p.name.as_str(), "ingress": ingress, "egress": egress})
        }
        Output::ProfileGone(name) => json!({"gone": "profile", "id": name.as_str()}),
        Output::Workload(w) => {
            json!({"workload": w.endpoint.id.to_string(), "tiers": list(&w.tiers, tier)})
        }
        Output::WorkloadGone(id) => json!({"gone": "workload", "id": id.to_string()}),
        Output::Host(h) => json!({
            "host": h.endpoint.name,
            "normal": list(&h.normal, tier),
            "forward": list(&h.forward, tier),
            "pre-dnat": list(&h.pre_dnat, tier),
            "untracked": list(&h.untracked, tier),
        }),
        Output::HostGone(name) => json!({"gone": "host", "id": name}),
        Output::Route(r) => json!({
            "route": r.dst.to_string(),
            "kind": format!("{:?}", r.kind),
            "node": r.node.as_ref().map(model::NodeName::as_str),
            "address": r.node_address,
            "same_subnet": r.same_subnet,
            "encap": format!("{:?}", r.encap),
            "nat": r.nat_outgoing,
        }),
        Output::RouteGone(dst) => json!({"gone": "route", "id": dst.to_string()}),
        Output::Vtep(v) => json!({
            "vtep": v.node.as_str(),
            "family": format!("{:?}", v.version),
            "address": v.address,
            "parent": v.parent,
            "mac": v.mac.map(|b| format!("{b:02x}")).join(":"),
        }),
        Output::VtepGone(node, version) => {
            json!({"gone": "vtep", "id": node.as_str(), "family": format!("{version:?}")})
        }
        Output::ThisNode(node) => {
            json!({"this": list(&node.addresses, |n| n.to_string().into()), "vxlan": node.vxlan_addresses})
        }
        Output::HostAddresses(node, addresses) => {
            json!({"node": node.as_str(), "addresses": addresses})
        }
        Output::InSync => json!("in sync"),
    }
}

fn list<T>(items: &[T], text: impl Fn(&T) -> Value) -> Value {
    items.iter().map(text).collect::<Vec<_>>().into()
}

fn member(m: &Member) -> Value {
    match m {
        Member::Net(net) => net.to_string().into(),
        Member::IpPort(address, protocol, port) => format!("{address} {protocol} {port}").into(),
    }
}

fn tier(t: &EndpointTier) -> Value {
    let ids = |ids: &PolicyList| -> Value { ids.iter().map(PolicyId::to_string).collect() };
    json!({
        "tier": t.name.as_str(),
        "default": format!("{:?}", t.default_action),
        "ingress": ids(&t.ingress),
        "egress": ids(&t.egress),
    })
}

fn rule(r: &CalcRule) -> Value {
    let mut v = json!({"action": format!("{:?}", r.action)});
    if let Some(protocol) = r.protocol {
        v["protocol"] = protocol.to_string().into();
    }
    for (side, m) in [("from", &r.source), ("to", &r.destination)] {
        if *m != CalcMatch::default() {
            v[side] = one_side(m);
        }
    }
    v
}

fn one_side(m: &CalcMatch) -> Value {
    let mut v = json!({});
    let mut add = |name: &str, value: Value| {
        if value.as_array().is_some_and(|a| !a.is_empty()) {
            v[name] = value;
        }
    };
    add("nets", list(&m.nets, |n| n.to_string().into()));
    add("sets", list(&m.sets, |s| (&**s).into()));
    add("not_sets", list(&m.not_sets, |s| (&**s).into()));
    add("ports", list(&m.ports, |(a, b)| format!("{a}-{b}").into()));
    add("port_sets", list(&m.port_sets, |s| (&**s).into()));
    add("service_sets", list(&m.service_sets, |s| (&**s).into()));
    v
}
