//! Does a rule match a packet? All given fields must.

use std::net::IpAddr;

use ipnet::IpNet;
use model::policy::{EntityMatch, Icmp};
use model::{NamedPort, Port, Protocol, Rule};
use selector::Selector;

use crate::judge::Judge;
use crate::packet::Packet;

/// An end of a packet, and the side of a rule that is about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl End {
    pub(crate) fn of(self, rule: &Rule) -> &EntityMatch {
        match self {
            Self::Source => &rule.source,
            Self::Destination => &rule.destination,
        }
    }
}

/// `Ok` for a match, else the first field that failed.
pub(crate) fn matches(judge: &Judge<'_>, rule: &Rule, packet: &Packet) -> Result<(), &'static str> {
    headers(rule, packet)?;
    side(judge, rule, packet, End::Source)?;
    side(judge, rule, packet, End::Destination)
}

/// The fields that are about neither end.
pub(crate) fn headers(rule: &Rule, packet: &Packet) -> Result<(), &'static str> {
    let icmp = |want: &Icmp| {
        packet.icmp.is_some_and(|got| {
            got.kind == want.kind && want.code.is_none_or(|code| got.code == Some(code))
        })
    };
    check("ipVersion", rule.ip_version.is_none_or(|v| v == packet.version()))?;
    check("protocol", rule.protocol.is_none_or(|p| p == packet.protocol))?;
    check("notProtocol", rule.not_protocol.is_none_or(|p| p != packet.protocol))?;
    check("icmp", rule.icmp.as_ref().is_none_or(icmp))?;
    check("notICMP", !rule.not_icmp.as_ref().is_some_and(icmp))
}

/// The fields that are about one end. What they say depends on that end's address and port, the
/// protocol, and nothing else of the packet.
pub(crate) fn side(
    judge: &Judge<'_>,
    rule: &Rule,
    packet: &Packet,
    end: End,
) -> Result<(), &'static str> {
    match end {
        End::Source => Side::source(judge, rule, packet).matches(),
        End::Destination => Side::destination(judge, rule, packet).matches(),
    }
}

fn check(field: &'static str, holds: bool) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(field) }
}

/// One side of a rule against one side of a packet.
struct Side<'a, 'v> {
    judge: &'a Judge<'v>,
    entity: &'a EntityMatch,
    rule_protocol: Option<Protocol>,
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    names: [&'static str; 7],
    /// A service matches by address and port as a destination, by address alone as a source.
    service_ports: bool,
}

impl<'a, 'v> Side<'a, 'v> {
    fn source(judge: &'a Judge<'v>, rule: &'a Rule, packet: &Packet) -> Self {
        Self {
            judge,
            entity: &rule.source,
            rule_protocol: rule.protocol,
            address: packet.source,
            protocol: packet.protocol,
            port: packet.source_port,
            names: [
                "source.nets",
                "source.notNets",
                "source.selector",
                "source.notSelector",
                "source.ports",
                "source.notPorts",
                "source.services",
            ],
            service_ports: false,
        }
    }

    fn destination(judge: &'a Judge<'v>, rule: &'a Rule, packet: &Packet) -> Self {
        Self {
            judge,
            entity: &rule.destination,
            rule_protocol: rule.protocol,
            address: packet.destination,
            protocol: packet.protocol,
            port: packet.destination_port,
            names: [
                "destination.nets",
                "destination.notNets",
                "destination.selector",
                "destination.notSelector",
                "destination.ports",
                "destination.notPorts",
                "destination.services",
            ],
            service_ports: true,
        }
    }

    fn matches(&self) -> Result<(), &'static str> {
        let [nets, not_nets, selector, not_selector, ports, not_ports, services] = self.names;
        let entity = self.entity;
        check(nets, entity.nets.is_empty() || self.in_any(&entity.nets))?;
        check(not_nets, !self.in_any(&entity.not_nets))?;
        check(selector, entity.selector.as_ref().is_none_or(|s| self.selected(s)))?;
        check(not_selector, !entity.not_selector.as_ref().is_some_and(|s| self.selected(s)))?;
        check(ports, entity.ports.is_empty() || self.on_any(&entity.ports))?;
        check(not_ports, !self.on_any(&entity.not_ports))?;
        check(services, entity.service.is_none() || self.backs_service())
    }

    /// A prefix of the other family contains no address of this one.
    fn in_any(&self, nets: &[IpNet]) -> bool {
        nets.iter().any(|n| n.contains(&self.address))
    }

    /// Whether some pod, host endpoint or network set with this address satisfies `selector`.
    fn selected(&self, selector: &Selector) -> bool {
        let (judge, address) = (self.judge, self.address);
        let picks = |labels: &model::Labels, profiles: &[model::ProfileName]| {
            selector.matches(&judge.view().labels(labels, profiles))
        };
        judge.workloads_at(address).iter().any(|w| picks(&w.labels, &w.profiles))
            || judge.hosts_at(address).iter().any(|h| picks(&h.labels, &h.profiles))
            || judge.sets_at(address).iter().any(|s| picks(&s.labels, &s.profiles))
    }

    fn on_any(&self, ports: &[Port]) -> bool {
        ports.iter().any(|p| match p {
            Port::Range(min, max) => {
                self.protocol.has_ports() && (*min..=*max).contains(&self.port)
            }
            Port::Named(name) => self.on_named(name),
        })
    }

    /// Named ports are those of the endpoints that this side's selector picks.
    fn on_named(&self, name: &str) -> bool {
        let judge = self.judge;
        let listed = |ports: &[NamedPort]| {
            ports.iter().any(|p| {
                *p.name == *name
                    && p.port == self.port
                    && p.protocol == self.protocol
                    && self.rule_protocol.is_none_or(|r| r == p.protocol)
            })
        };
        let picked = |labels: &model::Labels, profiles: &[model::ProfileName]| {
            let selector = self.entity.selector.as_ref();
            selector.is_none_or(|s| s.matches(&judge.view().labels(labels, profiles)))
        };
        let (workloads, hosts) = (judge.workloads_at(self.address), judge.hosts_at(self.address));
        workloads.iter().any(|w| listed(&w.ports) && picked(&w.labels, &w.profiles))
            || hosts.iter().any(|h| listed(&h.ports) && picked(&h.labels, &h.profiles))
    }

    fn backs_service(&self) -> bool {
        let slices = self.entity.service.as_ref().and_then(|s| self.judge.view().services.get(s));
        slices.into_iter().flat_map(|s| s.values()).flat_map(|s| s.iter()).any(|b| {
            b.address == self.address
                && (!self.service_ports || (b.protocol == self.protocol && b.port == self.port))
        })
    }
}
