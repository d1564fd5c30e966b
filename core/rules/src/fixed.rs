//! The parts of a table that are always there: hooks, dispatch, tunnels, NAT-outgoing.
//!
//! A packet's way: `raw-prerouting` checks the source of packets from pods and asks the untracked
//! policy of host endpoints, as `raw-output` does; `mangle-prerouting` asks their policy before
//! destination NAT. What these allow carries our mark, and the policy of the host endpoint that it
//! came by is not asked again. `filter-forward`, `filter-input` and `filter-output` end packets of
//! flows that were cut, accept those of other established flows, and take the rest through the host
//! endpoint of the incoming interface, the source pod, the destination pod and the host endpoint of
//! the outgoing interface. A stage returns to let the packet pass to the next one.
//!
//! What a process of the host sends to a service has been translated when it comes to `filter-output`,
//! but is still about to leave by the interface that leads to the service. It is not judged there:
//! `mangle-postrouting` does that, by the interface that it really leaves by.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{IpVersion, Protocol};

use crate::config::{DenyAction, EndpointToHost, Failsafe, Marks, RulesConfig};
use crate::host::{self, HostHook};
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

const UNKNOWN_POD: &str = "unknown-source";
const FROM_POD: &str = "from-pod";
const TO_POD: &str = "to-pod";
const POD_TO_HOST: &str = "pod-to-host";
const CUT: &str = "cut";

/// Chains whose own drops are about packets of nobody who is known, not about policy.
pub(crate) const NOT_POLICY: [&str; 3] = [UNKNOWN_POD, FROM_POD, TO_POD];

/// Puts sets and chains; `hooks` are the places where some host endpoint has a say, with the chain
/// of the `*` host endpoint if that is one of them.
pub(crate) struct Fixed<'a> {
    pub(crate) config: &'a RulesConfig,
    pub(crate) version: IpVersion,
    pub(crate) hooks: BTreeMap<HostHook, Option<Name>>,
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
        let rules = self.raw_output();
        if rules.is_empty() {
            table.remove_chain(&name("raw-output"));
        } else {
            let chain = base(Hook::Output, -300, "before connection tracking", rules);
            table.put_chain(name("raw-output"), chain);
        }
        if self.asks(HostHook::PreDnat) {
            let chain = base(Hook::Prerouting, -150, "before destination NAT", self.pre_dnat());
            table.put_chain(name("mangle-prerouting"), chain);
        } else {
            table.remove_chain(&name("mangle-prerouting"));
        }
        if self.judges_translated() {
            let chain =
                base(Hook::Postrouting, -150, "from this host, translated", self.translated());
            table.put_chain(name("mangle-postrouting"), chain);
        } else {
            table.remove_chain(&name("mangle-postrouting"));
        }
        for hook in HostHook::ALL.into_iter().filter(|hook| !self.asks(*hook)) {
            table.remove_chain(&hook.stage());
            table.remove_set(&name(hook.map()));
        }
    }

    /// Whether some host endpoint has a say there.
    fn asks(&self, hook: HostHook) -> bool {
        self.hooks.contains_key(&hook)
    }

    /// Whether packets that arrive may have been accepted before connection tracking or NAT: they
    /// carry our mark.
    fn early(&self) -> bool {
        self.asks(HostHook::RawIn) || self.asks(HostHook::PreDnat)
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
        for hook in self.hooks.keys() {
            put(hook.map(), spec(&[Iface], true, false, "host endpoints"));
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
        let mut rules: Vec<Rule> = self.early().then(|| self.clear()).into_iter().collect();
        if !self.config.allow_source_spoofing {
            let own =
                named(vec![Load::Iface(Way::In), Load::Addr(Side::Source)], POD_SOURCES, false);
            rules.push(accept().when(own).comment("a pod's own address"));
            rules.extend(self.pods(Way::In, &Verdict::Goto(name(UNKNOWN_POD))));
        }
        if self.config.vxlan {
            rules.push(self.vxlan().then(Statement::Notrack).optional());
        }
        if self.asks(HostHook::RawIn) {
            rules.extend(self.own_tunnels(Side::Source));
            rules.extend(self.host_stage(HostHook::RawIn));
            rules.push(self.untracked());
        }
        rules
    }

    fn raw_output(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let asked = self.asks(HostHook::RawOut);
        rules.extend(asked.then(|| self.clear()));
        if self.config.vxlan {
            rules.push(self.vxlan().then(Statement::Notrack).optional());
        }
        if asked {
            rules.extend(self.own_tunnels(Side::Destination));
            rules.extend(self.host_stage(HostHook::RawOut));
            rules.push(self.untracked());
        }
        rules
    }

    /// What untracked policy allowed is not tracked, and no later policy of the host is asked.
    fn untracked(&self) -> Rule {
        let allowed = Rule::new().when(self.is_accepted(true)).counter();
        allowed.then(Statement::Notrack).comment("allowed by untracked policy")
    }

    /// Whether an earlier stage of the host's policy has accepted the packet.
    fn is_accepted(&self, set: bool) -> Match {
        Match::Mark { mask: self.config.marks().accept, set }
    }

    /// Before destination NAT: the first packet of each flow.
    fn pre_dnat(&self) -> Vec<Rule> {
        let mut rules = vec![Self::established()];
        if self.asks(HostHook::RawIn) {
            let decided = accept().when(self.is_accepted(true));
            rules.push(decided.comment("allowed by untracked policy"));
        }
        rules.extend(self.own_tunnels(Side::Source));
        rules.extend(self.host_stage(HostHook::PreDnat));
        rules
    }

    /// Accepts what an earlier stage has accepted.
    fn accepted_before(&self) -> Rule {
        let Marks { accept, pass } = self.config.marks();
        let clear = Statement::Mark { clear: accept | pass, set: 0 };
        let rule = Rule::new().when(self.is_accepted(true)).then(clear);
        rule.verdict(Verdict::Accept).comment("allowed by an earlier policy")
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

    /// Packets of flows that policy denies now end here; those of other established flows pass. What
    /// still begins (nobody has answered) is asked about by policy every time: if it was marked, that
    /// is for the answer.
    fn begun(&self) -> Vec<Rule> {
        let cut = self.config.cut_bit().map(|bit| {
            let rule = Rule::new().when(Match::FlowMark(bit));
            let rule = rule.when(Match::State(state::ESTABLISHED));
            let rule = rule.verdict(Verdict::Goto(name(CUT)));
            rule.comment("established, and denied since").optional()
        });
        cut.into_iter().chain([Self::established()]).collect()
    }

    /// Tells both ends. Our own resets, and errors, are only related to the flow: they do not come
    /// here. Packets that carry the same bit themselves pass.
    fn cut(&self, bit: u32) -> Vec<Rule> {
        vec![
            accept()
                .when(Match::Mark { mask: bit, set: true })
                .comment("sent to make the cut known"),
            Rule::new().when(proto(Protocol::TCP)).counter().then(Statement::Reset),
            Rule::new().counter().then(deny(self.config)),
        ]
    }

    fn forward(&self) -> Vec<Rule> {
        let mut rules = self.begun();
        let undecided = self.early().then(|| self.is_accepted(false));
        rules.extend(self.host_stage(HostHook::ForwardIn).map(|mut rule| {
            rule.when.extend(undecided);
            rule
        }));
        rules.extend(self.pods(Way::In, &Verdict::Jump(name(FROM_POD))));
        rules.extend(self.pods(Way::Out, &Verdict::Jump(name(TO_POD))));
        rules.extend(self.host_stage(HostHook::ForwardOut));
        rules.push(self.clear());
        rules
    }

    fn input(&self) -> Vec<Rule> {
        let mut rules = self.begun();
        rules.extend(self.pods(Way::In, &Verdict::Goto(name(POD_TO_HOST))));
        rules.extend(self.early().then(|| self.accepted_before()));
        rules.extend(self.tunnels(Side::Source));
        rules.extend(self.host_stage(HostHook::In));
        rules.push(self.clear());
        rules
    }

    /// Whether what the host sends to services is judged when routing is done. An answer that refuses
    /// can not be given there: then all is judged in `filter-output`, by the interface of before.
    fn judges_translated(&self) -> bool {
        self.asks(HostHook::Out) && self.config.deny == DenyAction::Drop
    }

    /// What `filter-output` has left to judge carries the mark that says "on to the next".
    fn translated(&self) -> Vec<Rule> {
        let pass = self.config.marks().pass;
        let others = accept().when(Match::Mark { mask: pass, set: false });
        let mut rules = vec![others.comment("judged before"), Self::established(), self.clear()];
        rules.extend(self.host_stage(HostHook::Out));
        rules.push(self.clear());
        rules
    }

    fn later(&self) -> Rule {
        let Marks { accept, pass } = self.config.marks();
        let rule = Rule::new().when(Match::Translated { not: false });
        let rule = rule.then(Statement::Mark { clear: accept, set: pass });
        rule.verdict(Verdict::Accept).comment("translated: judged by the interface it leaves by")
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = self.begun();
        rules.extend(self.judges_translated().then(|| self.later()));
        let to_pods = self.pods(Way::Out, &Verdict::Accept).into_iter();
        rules.extend(to_pods.map(|r| r.comment("this host reaches its own pods")));
        rules.extend(self.asks(HostHook::RawOut).then(|| self.accepted_before()));
        if self.asks(HostHook::Out) {
            rules.extend(self.tunnels(Side::Destination));
        }
        rules.extend(self.host_stage(HostHook::Out));
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

    /// The kinds of tunnel that are in use, and their packets.
    fn tunnel_kinds(&self) -> impl Iterator<Item = (Rule, &'static str)> {
        let ipip = self.config.ipip && self.version == IpVersion::V4;
        let vxlan = self.config.vxlan.then(|| (self.vxlan(), "VXLAN"));
        let ipip = ipip.then(|| (Rule::new().when(proto(Protocol(4))), "IPIP"));
        vxlan.into_iter().chain(ipip)
    }

    /// Tunnel packets between nodes of the cluster pass.
    fn own_tunnels(&self, far: Side) -> Vec<Rule> {
        let own = |(tunnel, what): (Rule, &str)| {
            let hosts = named(vec![Load::Addr(far)], ALL_HOSTS, false);
            let rule = tunnel.when(hosts).verdict(Verdict::Accept);
            rule.comment(format!("{what} between nodes"))
        };
        self.tunnel_kinds().map(own).collect()
    }

    /// As [`Self::own_tunnels`]; and tunnel packets from others end here.
    fn tunnels(&self, far: Side) -> Vec<Rule> {
        let mut rules = self.own_tunnels(far);
        if far == Side::Source {
            rules.extend(self.tunnel_kinds().map(|(tunnel, what)| {
                let local =
                    Match::Local { side: Side::Destination, on_out_iface: false, not: false };
                let foreign = tunnel.when(local).counter().verdict(Verdict::Drop);
                foreign.comment(format!("{what} from outside the cluster"))
            }));
        }
        rules
    }

    fn host_stage(&self, hook: HostHook) -> Option<Rule> {
        self.asks(hook).then(|| Rule::new().verdict(Verdict::Jump(hook.stage())))
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
        if let Some(bit) = self.config.cut_bit() {
            let chain = Chain::regular("established flows that policy denies now", self.cut(bit));
            table.put_chain(name(CUT), chain);
        } else {
            table.remove_chain(&name(CUT));
        }
        for (hook, wildcard) in &self.hooks {
            table.put_chain(hook.stage(), self.host_dispatch(*hook, wildcard.as_ref()));
        }
        for (n, own, answers) in self.failsafe_chains() {
            if self.hooks.keys().any(|hook| hook.failsafe() == Some(n)) {
                let rules = self.failsafe(own, answers);
                let chain = Chain::regular("ports that stay open", rules);
                table.put_chain(name(n), chain);
            } else {
                table.remove_chain(&name(n));
            }
        }
    }

    /// Name, far end with ports of that end's counterpart, and the same for answers.
    fn failsafe_chains(&self) -> [(&'static str, Ports<'_>, Option<Ports<'_>>); 4] {
        let inbound = |port| Ports { far: Side::Source, port, list: &self.config.failsafe_inbound };
        let outbound =
            |port| Ports { far: Side::Destination, port, list: &self.config.failsafe_outbound };
        let to = Side::Destination;
        // An answer comes from the port.
        let answered = Ports { far: Side::Source, ..outbound(Side::Source) };
        let answering = Ports { far: Side::Destination, ..inbound(Side::Source) };
        [
            (host::FAILSAFE_IN, inbound(to), None),
            (host::FAILSAFE_OUT, outbound(to), None),
            (host::FAILSAFE_RAW_IN, inbound(to), Some(answered)),
            (host::FAILSAFE_RAW_OUT, outbound(to), Some(answering)),
        ]
    }

    /// By name, else the wildcard's, which is no endpoint of the loopback, and one of workloads'
    /// interfaces only where they carry what passes through the host.
    fn host_dispatch(&self, hook: HostHook, wildcard: Option<&Name>) -> Chain {
        let (what, map) = (vec![Load::Iface(hook.way())], name(hook.map()));
        let mut rules = vec![Rule::new().then(Statement::VerdictMap { what, map })];
        if let Some(chain) = wildcard {
            if !hook.sees_pods() {
                rules.extend(self.pods(hook.way(), &Verdict::Return));
            }
            rules.push(Rule::new().when(iface(hook.way(), "lo")).verdict(Verdict::Return));
            rules.push(Rule::new().verdict(Verdict::Goto(chain.clone())));
        }
        Chain::regular("host endpoints by interface", rules)
    }

    fn failsafe(&self, own: Ports<'_>, answers: Option<Ports<'_>>) -> Vec<Rule> {
        // Without neighbour discovery no IPv6 packet leaves the host, and no failsafe port is safe.
        let discovery = (133..=136).filter(|_| self.version == IpVersion::V6).map(|kind| {
            let icmp = Match::Icmp { kind, code: None, not: false };
            accept().when(proto(Protocol::ICMPV6)).when(icmp)
        });
        let ports = [Some(own), answers].into_iter().flatten();
        discovery.chain(ports.flat_map(|ports| ports.rules(self.version))).collect()
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

/// Failsafe ports as conditions: of which side the port is, and which side the far end is.
#[derive(Clone, Copy)]
struct Ports<'a> {
    far: Side,
    port: Side,
    list: &'a [Failsafe],
}

impl Ports<'_> {
    fn rules(self, version: IpVersion) -> impl Iterator<Item = Rule> {
        let Self { far, port: side, list } = self;
        let mine = move |f: &&Failsafe| f.net.is_none_or(|n| IpVersion::of_net(&n) == version);
        list.iter().filter(mine).map(move |f| {
            let port = Match::Ports { side, min: f.port, max: f.port, not: false };
            let rule = accept().when(proto(f.protocol)).when(port);
            match f.net {
                Some(net) => rule.when(Match::Net { side: far, net, not: false }),
                None => rule,
            }
        })
    }
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
