//! The parts of a table that are always there: hooks, dispatch, tunnels, NAT-outgoing.
//!
//! A packet's way: `raw-prerouting` checks the source of packets from pods; `filter-forward`,
//! `filter-input` and `filter-output` accept packets of established flows with their first rule and
//! take the others through the host endpoint of the incoming interface, the source pod, the
//! destination pod and the host endpoint of the outgoing interface. A stage returns to let the
//! packet pass to the next one.

use std::sync::Arc;

use model::{IpVersion, Protocol};

use crate::config::{EndpointToHost, Failsafe, RulesConfig};
use crate::host;
use crate::object::{
    Base, Chain, Field, Hook, Key, Load, Match, Name, OnRefusal, Rule, SetRef, SetSpec, Side,
    Statement, Verdict, Way, state,
};
use crate::rule::deny;
use crate::table::Table;

pub(crate) const POD_SOURCES: &str = "pod-sources";
pub(crate) const POD_EXTRA_SOURCES: &str = "pod-extra-sources";
pub(crate) const FROM_PODS: &str = "from-pods";
pub(crate) const TO_PODS: &str = "to-pods";
pub(crate) const ALL_HOSTS: &str = "all-hosts";
pub(crate) const ALL_POOLS: &str = "all-pools";
pub(crate) const NAT_POOLS: &str = "nat-outgoing-pools";
/// Dispatch maps of host endpoints: in, out, forwarded in, forwarded out.
pub(crate) const HOST_MAPS: [&str; 4] = ["host-in", "host-out", "host-fwd-in", "host-fwd-out"];

const UNKNOWN_POD: &str = "unknown-source";
const FROM_POD: &str = "from-pod";
const TO_POD: &str = "to-pod";
const POD_TO_HOST: &str = "pod-to-host";

/// Puts sets and chains; `wildcard` has the chain of the `*` host endpoint for each of
/// [`HOST_MAPS`], `hosts` says whether there is any host endpoint.
pub(crate) struct Fixed<'a> {
    pub(crate) config: &'a RulesConfig,
    pub(crate) version: IpVersion,
    pub(crate) hosts: bool,
    pub(crate) wildcard: [Option<Name>; 4],
}

fn name(text: &str) -> Name {
    text.into()
}

fn iface(way: Way, pattern: &str) -> Match {
    Match::Iface { way, name: pattern.into(), not: false }
}

fn proto(proto: Protocol) -> Match {
    Match::Proto { proto, not: false }
}

fn named(what: Vec<Load>, set: &str, not: bool) -> Match {
    Match::InSet { what, set: SetRef::Named(set.into()), not }
}

fn accept() -> Rule {
    Rule::new().verdict(Verdict::Accept)
}

fn base(hook: Hook, priority: i32, comment: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        base: Some(Base { hook, priority, nat: false }),
        rules,
        comment: Some(comment.into()),
        on_refusal: OnRefusal::Omit,
    }
}

fn spec(key: &[Field], verdicts: bool, interval: bool, comment: &str) -> SetSpec {
    SetSpec { key: key.to_vec(), interval, verdicts, size: None, comment: comment.into() }
}

impl Fixed<'_> {
    /// Puts everything into the table.
    pub(crate) fn put(&self, table: &mut Table) {
        self.sets(table);
        self.dispatch(table);
        let mut put = |n: &str, chain: Chain| table.put_chain(name(n), chain);
        put("raw-prerouting", base(Hook::Prerouting, -300, "source check", self.prerouting()));
        put("filter-forward", base(Hook::Forward, 0, "through this host", self.forward()));
        put("filter-input", base(Hook::Input, 0, "to this host", self.input()));
        put("filter-output", base(Hook::Output, 0, "from this host", self.output()));
        let mut nat = base(Hook::Postrouting, 100, "NAT-outgoing", self.postrouting());
        nat.base = Some(Base { hook: Hook::Postrouting, priority: 100, nat: true });
        put("nat-postrouting", nat);
        if self.config.vxlan {
            let rules = vec![self.vxlan().then(Statement::Notrack).optional()];
            put("raw-output", base(Hook::Output, -300, "no tracking of tunnels", rules));
        }
    }

    /// Takes away what is there for host endpoints only.
    pub(crate) fn remove_hosts(table: &mut Table) {
        for (which, map) in HOST_MAPS.into_iter().enumerate() {
            table.remove_chain(&host_stage_name(which));
            table.remove_set(&name(map));
        }
        for chain in ["failsafe-in", "failsafe-out"] {
            table.remove_chain(&name(chain));
        }
    }

    fn sets(&self, table: &mut Table) {
        use Field::{Addr, Iface};
        let mut put = |n: &str, s: SetSpec| table.put_set(name(n), s);
        put(POD_SOURCES, spec(&[Iface, Addr], false, false, "addresses that pods may send from"));
        put(POD_EXTRA_SOURCES, spec(&[Iface], true, false, "pods with allowed source prefixes"));
        put(FROM_PODS, spec(&[Iface], true, false, "egress policy of each pod"));
        put(TO_PODS, spec(&[Iface], true, false, "ingress policy of each pod"));
        put(ALL_HOSTS, spec(&[Addr], false, false, "addresses of the cluster's nodes"));
        put(ALL_POOLS, spec(&[Addr], false, true, "all pools"));
        put(NAT_POOLS, spec(&[Addr], false, true, "pools with NAT-outgoing"));
        if self.hosts {
            for map in HOST_MAPS {
                put(map, spec(&[Iface], true, false, "host endpoints"));
            }
        }
    }

    fn prefixes(&self) -> impl Iterator<Item = String> {
        self.config.interface_prefixes.iter().map(|p| format!("{p}*"))
    }

    /// Jumps (or goes) to `chain` for packets by workload interfaces.
    fn pods(&self, way: Way, verdict: &Verdict) -> Vec<Rule> {
        let to = |p: String| Rule::new().when(iface(way, &p)).verdict(verdict.clone());
        self.prefixes().map(to).collect()
    }

    fn prerouting(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.config.allow_source_spoofing {
            let own =
                named(vec![Load::Iface(Way::In), Load::Addr(Side::Source)], POD_SOURCES, false);
            rules.push(accept().when(own).comment("a pod's own address"));
            rules.extend(self.pods(Way::In, &Verdict::Goto(name(UNKNOWN_POD))));
        }
        if self.config.vxlan {
            rules.push(self.vxlan().then(Statement::Notrack).optional());
        }
        rules
    }

    fn vxlan(&self) -> Rule {
        let port = self.config.vxlan_port;
        Rule::new().when(proto(Protocol::UDP)).when(Match::Ports {
            side: Side::Destination,
            min: port,
            max: port,
            not: false,
        })
    }

    fn established() -> Rule {
        accept().when(Match::State(state::ESTABLISHED | state::RELATED))
    }

    fn forward(&self) -> Vec<Rule> {
        let mut rules = vec![Self::established()];
        rules.extend(self.host_stage(2));
        rules.extend(self.pods(Way::In, &Verdict::Jump(name(FROM_POD))));
        rules.extend(self.pods(Way::Out, &Verdict::Jump(name(TO_POD))));
        rules.extend(self.host_stage(3));
        rules.push(self.clear());
        rules
    }

    fn input(&self) -> Vec<Rule> {
        let mut rules = vec![Self::established()];
        rules.extend(self.pods(Way::In, &Verdict::Goto(name(POD_TO_HOST))));
        rules.extend(self.tunnels(Side::Source));
        rules.extend(self.host_stage(0));
        rules.push(self.clear());
        rules
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = vec![Self::established()];
        let to_pods = self.pods(Way::Out, &Verdict::Accept).into_iter();
        rules.extend(to_pods.map(|r| r.comment("this host reaches its own pods")));
        if self.hosts {
            rules.extend(self.tunnels(Side::Destination));
        }
        rules.extend(self.host_stage(1));
        rules.push(self.clear());
        rules
    }

    /// The mark leaves as it came, but for our own bits.
    fn clear(&self) -> Rule {
        let marks = self.config.marks();
        let ours = marks.accept | marks.pass;
        let set = Match::Mark { mask: ours, set: true };
        Rule::new().when(set).then(Statement::Mark { clear: ours, set: 0 })
    }

    /// Tunnel packets between nodes of the cluster pass; from others they end here.
    fn tunnels(&self, far: Side) -> Vec<Rule> {
        let kinds = [
            (self.config.vxlan, self.vxlan(), "VXLAN"),
            (
                self.config.ipip && self.version == IpVersion::V4,
                Rule::new().when(proto(Protocol(4))),
                "IPIP",
            ),
        ];
        let mut rules = Vec::new();
        for (_, tunnel, what) in kinds.into_iter().filter(|(enabled, ..)| *enabled) {
            let hosts = named(vec![Load::Addr(far)], ALL_HOSTS, false);
            let own = tunnel.clone().when(hosts).verdict(Verdict::Accept);
            rules.push(own.comment(format!("{what} between nodes")));
            if far == Side::Source {
                let local =
                    Match::Local { side: Side::Destination, on_out_iface: false, not: false };
                let foreign = tunnel.when(local).counter().verdict(Verdict::Drop);
                rules.push(foreign.comment(format!("{what} from outside the cluster")));
            }
        }
        rules
    }

    fn host_stage(&self, which: usize) -> Option<Rule> {
        self.hosts.then(|| Rule::new().verdict(Verdict::Jump(host_stage_name(which))))
    }

    fn dispatch(&self, table: &mut Table) {
        let way_in = vec![Load::Iface(Way::In)];
        let way_out = vec![Load::Iface(Way::Out)];
        let vmap = |what: &[Load], map: &str| {
            Rule::new().then(Statement::VerdictMap { what: what.to_vec(), map: map.into() })
        };
        let unknown = || Rule::new().counter().verdict(Verdict::Drop).comment("unknown pod");
        let mut from = self.no_tunnels();
        from.extend([vmap(&way_in, FROM_PODS), unknown()]);
        table.put_chain(name(FROM_POD), Chain::regular("egress policy of the source pod", from));
        let to = vec![vmap(&way_out, TO_PODS), unknown()];
        table.put_chain(name(TO_POD), Chain::regular("ingress policy of the destination pod", to));
        let chain = Chain::regular("pods to their own host", self.pod_to_host());
        table.put_chain(name(POD_TO_HOST), chain);
        let chain =
            Chain::regular("packets with another source than the pod's", self.unknown_source());
        table.put_chain(name(UNKNOWN_POD), chain);
        if self.hosts {
            for (which, map) in HOST_MAPS.into_iter().enumerate() {
                let what = if which.is_multiple_of(2) { &way_in } else { &way_out };
                let chain = self.host_dispatch(which, vmap(what, map), what);
                table.put_chain(host_stage_name(which), chain);
            }
            let lists = [
                ("failsafe-in", Side::Source, &self.config.failsafe_inbound),
                ("failsafe-out", Side::Destination, &self.config.failsafe_outbound),
            ];
            for (n, far, list) in lists {
                let chain = Chain::regular("ports that stay open", self.failsafe(far, list));
                table.put_chain(name(n), chain);
            }
        }
    }

    /// By name, else the wildcard's, which is no endpoint of the loopback, and one of workloads'
    /// interfaces only where they carry what passes through the host.
    fn host_dispatch(&self, which: usize, by_name: Rule, what: &[Load]) -> Chain {
        let way = if which.is_multiple_of(2) { Way::In } else { Way::Out };
        let mut rules = vec![by_name];
        debug_assert_eq!(what, [Load::Iface(way)]);
        if let Some(chain) = &self.wildcard[which] {
            if !host::is_forward(which) {
                rules.extend(self.pods(way, &Verdict::Return));
            }
            rules.push(Rule::new().when(iface(way, "lo")).verdict(Verdict::Return));
            rules.push(Rule::new().verdict(Verdict::Goto(chain.clone())));
        }
        Chain::regular("host endpoints by interface", rules)
    }

    fn failsafe(&self, far: Side, list: &[Failsafe]) -> Vec<Rule> {
        let mine = |f: &&Failsafe| f.net.is_none_or(|n| IpVersion::of_net(&n) == self.version);
        let rule = |f: &Failsafe| {
            let (side, min, max) = (Side::Destination, f.port, f.port);
            let port = Match::Ports { side, min, max, not: false };
            let rule = accept().when(proto(f.protocol)).when(port);
            match f.net {
                Some(net) => rule.when(Match::Net { side: far, net, not: false }),
                None => rule,
            }
        };
        // Without neighbour discovery no IPv6 packet leaves the host, and no failsafe port is safe.
        let discovery = (133..=136).filter(|_| self.version == IpVersion::V6).map(|kind| {
            let icmp = Match::Icmp { kind, code: None, not: false };
            accept().when(proto(Protocol::ICMPV6)).when(icmp)
        });
        discovery.chain(list.iter().filter(mine).map(rule)).collect()
    }

    /// Pods may not open tunnels by themselves.
    fn no_tunnels(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.config.allow_vxlan_from_workloads {
            let rule = self.vxlan().counter().verdict(Verdict::Drop);
            rules.push(rule.comment("VXLAN from a pod"));
        }
        if !self.config.allow_ipip_from_workloads {
            let rule = Rule::new().when(proto(Protocol(4))).counter().verdict(Verdict::Drop);
            rules.push(rule.comment("IPIP from a pod"));
        }
        rules
    }

    fn pod_to_host(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.version == IpVersion::V6 {
            for kind in [130, 131, 132, 133, 135, 136] {
                let icmp = Match::Icmp { kind, code: None, not: false };
                rules.push(accept().when(proto(Protocol::ICMPV6)).when(icmp));
            }
        }
        rules.push(Rule::new().verdict(Verdict::Jump(name(FROM_POD))));
        rules.push(match self.config.endpoint_to_host {
            EndpointToHost::Drop => {
                Rule::new().counter().then(deny(self.config)).comment("endpoint to host")
            }
            EndpointToHost::Return | EndpointToHost::Accept => self.clear(),
        });
        rules
    }

    /// Extra prefixes of a pod; on IPv6 also what neighbour discovery sends from.
    fn unknown_source(&self) -> Vec<Rule> {
        let what = vec![Load::Iface(Way::In)];
        let extra = Statement::VerdictMap { what, map: name(POD_EXTRA_SOURCES) };
        let mut rules = vec![Rule::new().then(extra)];
        if self.version == IpVersion::V6 {
            let from = |net: &str| Match::Net {
                side: Side::Source,
                net: net.parse().expect("a literal prefix"),
                not: false,
            };
            rules.push(accept().when(from("fe80::/10")));
            rules.push(accept().when(proto(Protocol::ICMPV6)).when(from("::/128")));
        }
        rules.push(Rule::new().counter().verdict(Verdict::Drop).comment("forged source"));
        rules
    }

    fn postrouting(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let ours = |a: &&std::net::IpAddr| IpVersion::of(**a) == self.version;
        let to = self.config.nat_addresses.iter().find(ours);
        let nat = |ports| match to {
            Some(to) => Statement::Snat { to: *to, ports },
            None => Statement::Masquerade { ports },
        };
        let mut out = Rule::new();
        if let Some(pattern) = &self.config.nat_interface {
            out = out.when(iface(Way::Out, &pattern.replace('+', "*")));
        }
        out = out.when(named(vec![Load::Addr(Side::Source)], NAT_POOLS, false));
        out = out.when(named(vec![Load::Addr(Side::Destination)], ALL_POOLS, true));
        if self.config.nat_excludes_hosts {
            out = out.when(named(vec![Load::Addr(Side::Destination)], ALL_HOSTS, true));
        }
        let out = |when: Option<Match>, ports| {
            let rule = when.into_iter().fold(out.clone(), Rule::when);
            rule.counter().then(nat(ports)).comment("out of the cluster").optional()
        };
        if let ports @ Some(_) = self.config.nat_ports {
            // Of other protocols the kernel would take the range for something else.
            let with_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
            rules.extend(with_ports.map(|p| out(Some(proto(p)), ports)));
        }
        rules.push(out(None, None));
        for device in self.config.vxlan_devices.iter().filter(|_| self.config.vxlan) {
            rules.push(Self::tunnel_source(device));
        }
        rules
    }

    /// Traffic of the host itself goes into the tunnel with the tunnel's address, else the answer
    /// would come back another way.
    fn tunnel_source(device: &Arc<str>) -> Rule {
        let local = |on_out_iface, not| Match::Local { side: Side::Source, on_out_iface, not };
        let rule = Rule::new().when(iface(Way::Out, device));
        let rule = rule.when(local(true, true)).when(local(false, false)).counter();
        rule.then(Statement::Masquerade { ports: None }).comment("host into the tunnel").optional()
    }
}

fn host_stage_name(which: usize) -> Name {
    format!("{}-hook", HOST_MAPS[which]).into()
}

/// A pod's extra source prefixes.
pub(crate) fn extra_sources(nets: Vec<ipnet::IpNet>) -> Vec<Rule> {
    let m = crate::rule::in_nets(Side::Source, nets, false);
    m.map(|m| accept().when(m)).into_iter().collect()
}

/// Elements of the set of addresses that a pod may send from.
pub(crate) fn source_key(iface: &model::IfaceName, address: std::net::IpAddr) -> Key {
    Key::IfaceAddr(iface.clone(), address)
}
