//! `why --live`: what this node's kernel does, read back and run, against what policy says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ::explain::{Asker, Here, Question, here};
use anyhow::{Context as _, Result, bail};
use machine::{Met, Run, Table, Way};
use model::{IpVersion, NodeName};
use netlink::route::{Leads, leads};
use netlink::{Socket, address, link};
use nft::Reader;
use policy::{Direction, Packet, Step, Verdict, View};
use serde_json::{Value, json};

use crate::Outcome;
use crate::trace::{Tables, Traced, trace};

/// The table that is ours.
pub(crate) const TABLE: &str = "calico";
/// Where a host's packets to itself leave, and arrive.
const LOOPBACK: &str = "lo";
/// Comments in the kernel are cut behind so many bytes.
const LONGEST_COMMENT: usize = 120;

/// What was found, for each packet that was asked about.
pub(crate) struct Live {
    node: NodeName,
    looks: Vec<Look>,
    tables: BTreeMap<IpVersion, Table>,
}

/// One packet.
struct Look {
    packet: Packet,
    way: Way,
    here: Here,
    run: Run,
    /// Where the two part ways.
    difference: Vec<String>,
    /// What real packets met.
    traced: Option<Traced>,
}

/// This node as its kernel knows it.
struct Kernel {
    socket: Socket,
    names: BTreeMap<u32, String>,
    local: Vec<(String, IpAddr)>,
    reader: Reader,
    tables: BTreeMap<IpVersion, Table>,
}

/// Reads this node's kernel, and asks it the same question; and watches real packets for so many
/// seconds.
pub(crate) fn look(asker: &Asker<'_>, question: &Question, seconds: Option<u64>) -> Result<Live> {
    let mut kernel = Kernel::open()?;
    let node = kernel.node(asker.view())?;
    let packets = asker.packets(question).map_err(anyhow::Error::msg)?;
    let looks = packets.iter().map(|packet| one(&mut kernel, asker, &node, *packet));
    let mut looks: Vec<Look> = looks.collect::<Result<_>>()?;
    if let Some(seconds) = seconds {
        for (look, traced) in looks.iter_mut().zip(trace(&packets, seconds)?) {
            look.traced = Some(traced);
        }
    }
    Ok(Live { looks, node, tables: kernel.tables })
}

fn one(kernel: &mut Kernel, asker: &Asker<'_>, node: &NodeName, packet: Packet) -> Result<Look> {
    let decision = asker.decide(&packet);
    let here = here(asker.view(), &decision, node);
    let way = kernel.way(&packet)?;
    let table = kernel.table(packet.version())?;
    let run = if way.input.is_some() && way.input == way.output {
        let same = packet.source == packet.destination
            || asker
                .view()
                .workload_at(packet.source)
                .is_some_and(|w| w.addresses.contains(&packet.destination));
        if !same {
            bail!(
                "a packet from {} to {} does not pass through this node ({node})",
                packet.source,
                packet.destination
            );
        }
        // A pod's packet to itself never leaves it.
        Run { verdict: machine::Verdict::Accept, met: Vec::new() }
    } else {
        machine::run(table, &asked(&packet), &way)
    };
    let mut look = Look { packet, way, here, run, difference: Vec::new(), traced: None };
    if look.agrees() == Some(false) {
        look.difference = look.find_difference(table);
    }
    Ok(look)
}

fn asked(packet: &Packet) -> machine::Packet {
    machine::Packet {
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol.0,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        icmp: packet.icmp.map(|i| (i.kind, i.code.unwrap_or(0))),
        original: packet.original,
    }
}

impl Kernel {
    fn open() -> Result<Self> {
        let mut socket = Socket::open()?;
        let names: BTreeMap<u32, String> = link::list(&mut socket)?
            .into_iter()
            .map(|link| (link.index, link.name.as_str().to_owned()))
            .collect();
        let local = address::list(&mut socket)?
            .into_iter()
            .filter_map(|a| Some((names.get(&a.index)?.clone(), a.net.addr())))
            .collect();
        let reader = Reader::open()?;
        Ok(Self { socket, names, local, reader, tables: BTreeMap::new() })
    }

    /// The node of the cluster that has one of this machine's addresses.
    fn node(&self, view: &View) -> Result<NodeName> {
        let node = self.local.iter().find_map(|(_, address)| view.node_at(*address));
        node.cloned().context(
            "no node of the cluster has an address of this machine: --live works on a node (in a \
             sandbox: `calico sandbox exec node:NAME -- calicoctl why ... --live`)",
        )
    }

    fn table(&mut self, version: IpVersion) -> Result<&Table> {
        if !self.tables.contains_key(&version) {
            let read =
                self.reader.table(version, TABLE).context("cannot read the kernel's rules")?;
            // Without a table nothing is asked: the packet passes.
            self.tables.insert(version, read.unwrap_or_default());
        }
        Ok(&self.tables[&version])
    }

    /// By the kernel's own routes, there and back.
    fn way(&mut self, packet: &Packet) -> Result<Way> {
        let mut end = |address: IpAddr| -> Result<Option<String>> {
            match leads(&mut self.socket, address)? {
                Leads::Here => Ok(None),
                Leads::Out(index) => {
                    let name = self.names.get(&index);
                    Ok(Some(name.cloned().context("an interface came while we looked")?))
                }
                Leads::Nowhere => bail!("this node has no route to {address}"),
            }
        };
        let (input, output) = (end(packet.source)?, end(packet.destination)?);
        // Where there is no way to what was translated, the packet was routed no other way than this.
        let before = packet.original.filter(|_| input.is_none());
        let first = before.and_then(|(address, _)| end(address).ok());
        let towards = first.map(|out| out.unwrap_or_else(|| LOOPBACK.to_owned()));
        Ok(Way { input, output, towards, local: self.local.clone() })
    }
}

impl Live {
    pub(crate) fn outcome(&self) -> Outcome {
        let traced = |look: &Look| look.traced.as_ref()?.agrees(look.here.verdict);
        if self.looks.iter().any(|look| traced(look) == Some(false)) {
            return Outcome::Disagree;
        }
        let answers = || self.looks.iter().map(Look::agrees);
        if answers().any(|a| a == Some(false)) {
            Outcome::Disagree
        } else if answers().any(|a| a.is_none()) {
            Outcome::Failed
        } else {
            Outcome::Done
        }
    }

    /// Adds what was found to the answer: to each backend's, where a service was asked about.
    pub(crate) fn join(&self, answer: &mut Value) {
        match answer.get_mut("backends").and_then(Value::as_array_mut) {
            Some(backends) => {
                for (backend, look) in backends.iter_mut().zip(&self.looks) {
                    backend["live"] = self.json(look);
                }
            }
            None => {
                if let Some(look) = self.looks.first() {
                    answer["live"] = self.json(look);
                }
            }
        }
    }

    fn tables(&self, look: &Look) -> Tables<'_> {
        Tables(&self.tables, look.packet.version())
    }

    fn json(&self, look: &Look) -> Value {
        let mut told = look.json(&self.node);
        if let Some(traced) = &look.traced {
            told["trace"] = traced.json(look.here.verdict, &self.tables(look));
        }
        told
    }

    /// For people.
    pub(crate) fn tell(&self) -> String {
        let mut text = String::new();
        for look in &self.looks {
            look.tell(&self.node, &mut text);
            if let Some(traced) = &look.traced {
                traced.tell(look.here.verdict, &self.tables(look), &mut text);
            }
        }
        text
    }
}

impl Look {
    /// Whether the kernel does what policy says; nothing where that cannot be said.
    fn agrees(&self) -> Option<bool> {
        match self.run.verdict {
            machine::Verdict::Accept => Some(self.here.verdict == Verdict::Allow),
            machine::Verdict::Drop => Some(self.here.verdict == Verdict::Deny),
            machine::Verdict::Unknown(_) => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.run.verdict {
            machine::Verdict::Accept => "allow",
            machine::Verdict::Drop => "deny",
            machine::Verdict::Unknown(_) => "unknown",
        }
    }

    fn unknown(&self) -> Option<&str> {
        match &self.run.verdict {
            machine::Verdict::Unknown(why) => Some(why),
            _ => None,
        }
    }

    fn json(&self, node: &NodeName) -> Value {
        let rule = |met: &Met| {
            json!({
                "hook": met.hook.as_str(),
                "chain": met.chain,
                "handle": met.handle,
                "comment": met.comment,
                "packets": met.counters.map(|c| c.packets),
                "bytes": met.counters.map(|c| c.bytes),
                "matched": met.matched(),
                "did": met.did,
                "failed": met.failed,
            })
        };
        json!({
            "node": node.as_str(),
            "verdict": self.verdict(),
            "expected": word(self.here.verdict),
            "agrees": self.agrees(),
            "unknown": self.unknown(),
            "difference": self.difference,
            "from": self.packet.source,
            "to": self.packet.destination,
            "inputInterface": self.way.input,
            "outputInterface": self.way.output,
            "rules": self.run.met.iter().map(rule).collect::<Vec<_>>(),
        })
    }

    fn tell(&self, node: &NodeName, text: &mut String) {
        let end = |name: &Option<String>, else_: &str| name.clone().unwrap_or(else_.to_owned());
        let (from, to) = (end(&self.way.input, "this host"), end(&self.way.output, "this host"));
        let Packet { source, destination, .. } = self.packet;
        let verdict = self.verdict();
        let _ = writeln!(
            text,
            "kernel of {node}: {verdict}, {source} ({from}) to {destination} ({to})"
        );
        let mut hook = None;
        for met in self.run.met.iter().filter(|m| m.matched()) {
            if hook != Some(met.hook) {
                let _ = writeln!(text, "  {}", met.hook.as_str());
                hook = Some(met.hook);
            }
            let _ = writeln!(text, "    {}", line(met));
        }
        if let Some(why) = self.unknown() {
            let _ = writeln!(text, "  not known: {why}");
        }
        if self.agrees() == Some(false) {
            let want = word(self.here.verdict);
            let _ = writeln!(text, "the kernel disagrees: policy says {want} on this node");
            for line in &self.difference {
                let _ = writeln!(text, "  {line}");
            }
        }
    }

    /// What policy relies on that is not in the kernel's table, or was not reached or did not match.
    fn find_difference(&self, table: &Table) -> Vec<String> {
        let mut lines = Vec::new();
        match self.run.decided().filter(|_| self.verdict() == "deny") {
            Some(met) => lines.push(format!("the kernel denied by {}", line(met))),
            None if table.chains.is_empty() => lines.push(format!("there is no table {TABLE}")),
            None => lines.push("no rule of the kernel denied".to_owned()),
        }
        if let Some(step) = &self.here.decided {
            lines.extend(self.look_for(step, table));
        }
        lines
    }

    /// Looks for the deciding rule of the specification among the kernel's.
    fn look_for(&self, step: &Step, table: &Table) -> Vec<String> {
        let direction = match step.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let tier = step.tier.as_ref().map(ToString::to_string).unwrap_or_default();
        let Some((policy, rule)) = step.policy.as_ref().zip(step.rule) else {
            let reason = step.reason.as_str();
            let at = if tier.is_empty() { String::new() } else { format!(" in tier {tier}") };
            let mut ends = table.chains.values().flat_map(|c| &c.rules);
            let missing = step.policy.is_none()
                && reason == "tier-default"
                && !ends.any(|r| r.comment.as_deref() == Some(&format!("end of tier {tier}")));
            let mut lines = vec![format!("policy decides by {reason}{at} ({direction})")];
            if missing {
                lines.push(format!("no rule of the kernel ends tier {tier}"));
            }
            return lines;
        };
        let mut lines = vec![format!("policy decides by rule {rule} of {policy} ({direction})")];
        let comment = format!("{direction} {policy} tier {tier}");
        let comment = Some(cut(&comment));
        let chains = table.chains.iter().filter(|(_, c)| c.comment.as_deref() == comment);
        let mut any = false;
        for (name, chain) in chains {
            any = true;
            let wanted = format!("rule {rule}");
            let is = |c: &Option<String>| c.as_deref() == Some(&wanted);
            if !chain.rules.iter().any(|r| is(&r.comment)) {
                lines.push(format!("chain {name} has no {wanted}"));
                continue;
            }
            let met = self.run.met.iter().filter(|m| m.chain == *name && is(&m.comment));
            let mut reached = false;
            for met in met {
                reached = true;
                lines.push(line(met));
            }
            if !reached {
                lines.push(format!("the packet did not come to {wanted} in chain {name}"));
            }
        }
        if !any {
            lines.push(format!("no chain is there for {direction} {policy}"));
        }
        lines
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_COMMENT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// `chain handle 12: jump x "comment" (3 packets, 180 bytes)`
fn line(met: &Met) -> String {
    let mut text = met.chain.clone();
    if let Some(handle) = met.handle {
        let _ = write!(text, " handle {handle}");
    }
    let did = match &met.failed {
        Some(why) => format!("no match, {why}"),
        None if met.did.is_empty() => "matches".to_owned(),
        None => met.did.join(", "),
    };
    let _ = write!(text, ": {did}");
    if let Some(comment) = &met.comment {
        let _ = write!(text, " {comment:?}");
    }
    if let Some(counters) = met.counters {
        let _ = write!(text, " ({} packets, {} bytes)", counters.packets, counters.bytes);
    }
    text
}
