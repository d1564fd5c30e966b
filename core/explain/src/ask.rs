//! Questions about one connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use api::NumOrString;
use model::policy::{Icmp, ServiceId};
use model::{IpVersion, Protocol};
use policy::{Decision, Judge, Packet, Verdict, View};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::{Answer, Backend, Words};
use crate::cluster::Cluster;
use crate::reference::Reference;

/// A packet in the words of users. One JSON object; unknown fields are an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// The source.
    pub from: String,
    /// The destination, as routed: after service translation.
    pub to: String,
    /// The destination before service translation, where policy before it is to be judged: an
    /// address, or `address:port` (`[address]:port` with IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_dnat_to: Option<String>,
    /// `TCP` unless it says otherwise: a name or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<NumOrString>,
    /// Destination port; needed for protocols that have ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Source port; 40000 unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// ICMP type; that of an echo request unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code; 0 unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
}

/// Somebody who has many questions about one cluster.
#[derive(Debug)]
pub struct Asker<'a> {
    cluster: &'a Cluster,
    view: &'a View,
    judge: Judge<'a>,
}

impl<'a> Asker<'a> {
    /// `view` is that of `cluster` ([`Cluster::view`]).
    pub fn new(cluster: &'a Cluster, view: &'a View) -> Self {
        Self { cluster, view, judge: Judge::new(view) }
    }

    /// What is asked about.
    pub fn view(&self) -> &'a View {
        self.view
    }

    /// Answers; with everything that was considered if `all`.
    ///
    /// # Errors
    /// When the question names something that does not exist, or leaves out what is needed: a
    /// sentence for the user.
    pub fn ask(&self, question: &Question, all: bool) -> Result<Answer, String> {
        let packets = self.packets(question)?;
        if matches!(question.to.parse(), Ok(Reference::Service(_))) {
            return self.of_backends(&packets, all);
        }
        let packet = packets.first().ok_or("to: nothing is there")?;
        Ok(self.answer(packet, all))
    }

    /// The packets that are asked about: one, or one a backend of a service.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn packets(&self, question: &Question) -> Result<Vec<Packet>, String> {
        let from: Reference = question.from.parse().map_err(|e| format!("from: {e}"))?;
        let to: Reference = question.to.parse().map_err(|e| format!("to: {e}"))?;
        let protocol = protocol(question)?;
        let sources = self.addresses(&from).map_err(|e| format!("from: {e}"))?;
        if let Reference::Service(service) = &to {
            return self.to_service(question, protocol, &sources, service);
        }
        let destinations = self.addresses(&to).map_err(|e| format!("to: {e}"))?;
        Ok(vec![packet(question, protocol, &sources, &destinations, question.port)?])
    }

    /// The specification's whole word about a packet.
    pub fn decide(&self, packet: &Packet) -> Decision {
        self.judge.evaluate(packet)
    }

    fn answer(&self, packet: &Packet, all: bool) -> Answer {
        let decision = if all { self.judge.evaluate(packet) } else { self.judge.decide(packet) };
        Answer::of(&decision, self.cluster, all)
    }

    pub(crate) fn judge(&self) -> &Judge<'a> {
        &self.judge
    }

    fn to_service(
        &self,
        question: &Question,
        protocol: Protocol,
        sources: &[IpAddr],
        service: &ServiceId,
    ) -> Result<Vec<Packet>, String> {
        let backends = self.backends(service, protocol, question.port)?;
        if backends.is_empty() {
            let port = question.port.map(|p| format!(" on port {p}")).unwrap_or_default();
            return Err(format!(
                "to: service:{}/{} has no ready {protocol} backend{port}",
                service.namespace, service.name
            ));
        }
        let to = |(address, port)| packet(question, protocol, sources, &[address], Some(port));
        backends.into_iter().map(to).collect()
    }

    /// Of several backends the first that is denied tells.
    fn of_backends(&self, packets: &[Packet], all: bool) -> Result<Answer, String> {
        let one = |packet: &Packet| Backend {
            to: packet.destination,
            port: packet.destination_port,
            answer: self.answer(packet, all),
        };
        let backends: Vec<Backend> = packets.iter().map(one).collect();
        let denied = backends.iter().find(|b| b.answer.verdict == Words(Verdict::Deny));
        let told = denied.or(backends.first()).ok_or("to: there is no backend")?;
        let told = told.answer.clone();
        Ok(Answer { considered: Vec::new(), backends, ..told })
    }

    /// Addresses and ports behind a service's port; without a port, behind all of them.
    fn backends(
        &self,
        id: &ServiceId,
        protocol: Protocol,
        port: Option<u16>,
    ) -> Result<Vec<(IpAddr, u16)>, String> {
        let slices = self.cluster.slices.get(id).map(Vec::as_slice).unwrap_or_default();
        let service = self.cluster.services.get(id);
        if service.is_none() && slices.is_empty() {
            return Err(format!("to: there is no service {}/{}", id.namespace, id.name));
        }
        // A service's port leads to the slices' ports of the same name.
        let ports = service.and_then(|s| s.spec.as_ref()?.ports.as_ref());
        let named = match (ports, port) {
            (Some(ports), Some(port)) => {
                let is = |p: &&k8s_openapi::api::core::v1::ServicePort| {
                    p.port == i32::from(port)
                        && p.protocol.as_deref().unwrap_or("TCP") == protocol.to_string()
                };
                let found = ports.iter().find(is);
                let found = found.ok_or_else(|| {
                    format!(
                        "to: service {}/{} has no port {port} for {protocol}",
                        id.namespace, id.name
                    )
                })?;
                Some(found.name.clone().unwrap_or_default())
            }
            _ => None,
        };
        let mut found = Vec::new();
        for slice in slices {
            let mut slice = slice.clone();
            if let (Some(name), Some(ports)) = (&named, &mut slice.ports) {
                ports.retain(|p| p.name.as_deref().unwrap_or_default() == name);
            }
            let backends = api::convert::endpoint_slice(&slice).map(|(_, b)| b).unwrap_or_default();
            let wanted = |p: u16| named.is_some() || port.is_none_or(|want| want == p);
            let fit = backends.iter().filter(|b| b.protocol == protocol && wanted(b.port));
            found.extend(fit.map(|b| (b.address, b.port)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The addresses of one end, its own first family first.
    fn addresses(&self, end: &Reference) -> Result<Vec<IpAddr>, String> {
        let found = match end {
            Reference::Address(address) => vec![*address],
            Reference::Pod(id) => match self.view.workloads.get(id) {
                Some(pod) => pod.addresses.clone(),
                None => self
                    .cluster
                    .host_pods
                    .get(id)
                    .cloned()
                    .ok_or_else(|| format!("there is no pod {id}"))?,
            },
            Reference::Node(name) => {
                let node = self.view.nodes.get(name);
                let node = node.ok_or_else(|| format!("there is no node {name}"))?;
                node.interfaces.iter().flat_map(|(_, a)| a).copied().collect()
            }
            Reference::Host(name) => {
                let host = self.view.hosts.get(name);
                let host = host.ok_or_else(|| format!("there is no host endpoint {name}"))?;
                self.of_host(host)
            }
            Reference::Service(_) => return Err("a service cannot be a source".into()),
        };
        if found.is_empty() {
            return Err(format!("{end} has no address"));
        }
        Ok(found)
    }

    /// The addresses that a host endpoint expects, else those of its interface.
    fn of_host(&self, host: &model::HostEndpoint) -> Vec<IpAddr> {
        if !host.addresses.is_empty() {
            return host.addresses.clone();
        }
        let interfaces = self.view.nodes.get(&host.node).into_iter().flat_map(|n| &n.interfaces);
        let is = |name: &model::IfaceName| match &host.target {
            model::endpoint::HostTarget::Iface(want) => want == name,
            _ => true,
        };
        interfaces.filter(|(name, _)| is(name)).flat_map(|(_, a)| a).copied().collect()
    }
}

fn protocol(question: &Question) -> Result<Protocol, String> {
    let given = question.protocol.as_ref().map(NumOrString::protocol);
    given.transpose().map(|p| p.unwrap_or(Protocol::TCP)).map_err(|e| format!("protocol: {e}"))
}

/// The packet of the first family that both ends have and the protocol allows.
fn packet(
    question: &Question,
    protocol: Protocol,
    sources: &[IpAddr],
    destinations: &[IpAddr],
    port: Option<u16>,
) -> Result<Packet, String> {
    let fits = |a: &IpAddr| match protocol {
        Protocol::ICMP => a.is_ipv4(),
        Protocol::ICMPV6 => a.is_ipv6(),
        _ => true,
    };
    let ends = sources.iter().filter(|a| fits(a)).find_map(|s| {
        let same = |d: &&IpAddr| IpVersion::of(**d) == IpVersion::of(*s);
        destinations.iter().find(same).map(|d| (*s, *d))
    });
    let Some((source, destination)) = ends else {
        return Err(format!(
            "{} and {} have no address of one family that {protocol} runs over",
            question.from, question.to
        ));
    };
    let destination_port = match (protocol.has_ports(), port) {
        (true, Some(port)) => port,
        (true, None) => return Err(format!("port: {protocol} needs one")),
        (false, None) => 0,
        (false, Some(_)) => return Err(format!("port: {protocol} has none")),
    };
    let is_icmp = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    if !is_icmp && (question.icmp_type.is_some() || question.icmp_code.is_some()) {
        return Err(format!("icmpType, icmpCode: {protocol} has none"));
    }
    let echo = if protocol == Protocol::ICMP { 8 } else { 128 };
    let icmp = is_icmp.then(|| Icmp {
        kind: question.icmp_type.unwrap_or(echo),
        code: Some(question.icmp_code.unwrap_or(0)),
    });
    let source_port = match (protocol.has_ports(), question.source_port) {
        (true, port) => port.unwrap_or(40_000),
        (false, None) => 0,
        (false, Some(_)) => return Err(format!("sourcePort: {protocol} has none")),
    };
    let original = original(question, destination, destination_port)?;
    Ok(Packet { source, destination, protocol, source_port, destination_port, icmp, original })
}

/// The destination before translation; its port is that of the destination unless it has one.
fn original(
    question: &Question,
    destination: IpAddr,
    port: u16,
) -> Result<Option<(IpAddr, u16)>, String> {
    let Some(text) = &question.pre_dnat_to else { return Ok(None) };
    let with_port = text.parse::<SocketAddr>().map(|a| (a.ip(), a.port()));
    let (address, port) = with_port
        .or_else(|_| text.parse::<IpAddr>().map(|address| (address, port)))
        .map_err(|_| format!("preDnatTo: want an address or address:port, not {text:?}"))?;
    if IpVersion::of(address) != IpVersion::of(destination) {
        return Err(format!("preDnatTo: {address} is not of the family of {destination}"));
    }
    Ok(Some((address, port)))
}

/// A packet as the question has it, between any ends.
pub(crate) fn between_any(question: &Question) -> Result<Packet, String> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    packet(question, protocol(question)?, &any, &any, question.port)
}

/// One line of a batch: a [`Question`] in JSON in, an [`Answer`] or `{"error":...}` out.
pub fn ask_line(asker: &Asker<'_>, line: &str) -> String {
    let answer = serde_json::from_str::<Question>(line)
        .map_err(|e| e.to_string())
        .and_then(|question| asker.ask(&question, false));
    match answer {
        Ok(answer) => json!(answer).to_string(),
        Err(error) => json!({ "error": error }).to_string(),
    }
}
