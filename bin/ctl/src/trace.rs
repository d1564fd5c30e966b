//! `why --trace`: what the kernel does with real packets, rule by rule, beside what policy says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use machine::{Jump, Table};
use model::IpVersion;
use nft::{Fate, TraceEvent, TracedFlow, TracedHeader, TracedPacket, Tracer, Traces};
use policy::{Packet, Verdict};
use serde_json::{Value, json};

/// Packets of one look that are kept.
const MOST: usize = 100;
/// Packets that are told to people event by event; of the rest only how they ended.
const SHOWN: usize = 5;

/// What was seen of the packets that one look asks about.
pub(crate) struct Traced {
    seconds: u64,
    packets: Vec<TracedPacket>,
    more: bool,
}

/// Traces real packets of all the questions at once; the answers are in their order.
pub(crate) fn trace(asked: &[Packet], seconds: u64) -> Result<Vec<Traced>> {
    let flows: Vec<TracedFlow> = asked.iter().map(flow).collect();
    let tracer = Tracer::start(&flows).context("cannot trace packets")?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let Traces { packets, more } = tracer.watch(until, MOST)?;
    let mut all: Vec<Traced> =
        asked.iter().map(|_| Traced { seconds, packets: Vec::new(), more }).collect();
    for packet in packets {
        let is = |flow: &TracedFlow| packet.headers.iter().any(|h| leads_to(h, flow));
        // One that ended before it was translated could have gone to any of them.
        let one = flows.iter().position(is).unwrap_or(0);
        if let Some(traced) = all.get_mut(one) {
            traced.packets.push(packet);
        }
    }
    Ok(all)
}

/// Real packets come from any port.
fn flow(packet: &Packet) -> TracedFlow {
    TracedFlow {
        protocol: packet.protocol,
        source: packet.source,
        source_port: None,
        destination: packet.destination,
        destination_port: packet.destination_port,
        icmp: packet.icmp,
        original: packet.original,
    }
}

fn leads_to(header: &TracedHeader, flow: &TracedFlow) -> bool {
    let port = header.ports.is_none_or(|(_, to)| to == flow.destination_port);
    header.destination == flow.destination && port
}

impl Traced {
    /// Whether the kernel did with each packet what policy says; nothing if none was seen to end.
    pub(crate) fn agrees(&self, expected: Verdict) -> Option<bool> {
        let mut known = self.packets.iter().filter_map(verdict).peekable();
        known.peek()?;
        Some(known.all(|verdict| verdict == expected))
    }

    pub(crate) fn json(&self, expected: Verdict, tables: &Tables<'_>) -> Value {
        let packet = |packet: &TracedPacket| {
            let headers = packet.headers.iter().map(header).collect::<Vec<_>>();
            let verdict = verdict(packet);
            json!({
                "verdict": verdict.map_or("unknown", word),
                "agrees": verdict.map(|v| v == expected),
                "ended": ended(packet),
                "headers": headers,
                "events": packet.events.iter().map(|e| tables.json(e)).collect::<Vec<_>>(),
            })
        };
        json!({
            "seconds": self.seconds,
            "more": self.more,
            "agrees": self.agrees(expected),
            "packets": self.packets.iter().map(packet).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub(crate) fn tell(&self, expected: Verdict, tables: &Tables<'_>, text: &mut String) {
        let seconds = self.seconds;
        if self.packets.is_empty() {
            let _ = writeln!(text, "traced for {seconds} s: no such packet came by");
            return;
        }
        for (i, packet) in self.packets.iter().enumerate() {
            let verdict = verdict(packet);
            let _ = write!(text, "packet {}: {}", i + 1, verdict.map_or("unknown", word));
            let way: Vec<String> = packet.headers.iter().map(show).collect();
            let _ = writeln!(text, ", {}", way.join(", then "));
            if i < SHOWN || verdict.is_some_and(|v| v != expected) {
                for event in &packet.events {
                    let _ = writeln!(text, "    {}", tables.line(event));
                }
            }
            if let Some(ended) = ended(packet) {
                let _ = writeln!(text, "  {ended}");
            }
            if verdict.is_some_and(|v| v != expected) {
                let _ = writeln!(text, "  policy says {} on this node", word(expected));
            }
        }
        if self.more {
            let _ = writeln!(text, "there were more packets than these");
        }
    }
}

fn verdict(packet: &TracedPacket) -> Option<Verdict> {
    match packet.fate() {
        Fate::Passed => Some(Verdict::Allow),
        Fate::Ended(_, None) => Some(Verdict::Deny),
        Fate::Ended(_, Some(_)) | Fate::Lost => None,
    }
}

/// What there is to say about an end that is not an answer of our own table.
fn ended(packet: &TracedPacket) -> Option<String> {
    match packet.fate() {
        Fate::Ended(table, None) if table != crate::live::TABLE => {
            Some(format!("dropped by the table {table}, which is not ours"))
        }
        Fate::Ended(table, Some(number)) => {
            Some(format!("taken away by the table {table} (verdict {number})"))
        }
        Fate::Lost => Some("not seen to leave: no rule dropped it".to_owned()),
        Fate::Passed | Fate::Ended(..) => None,
    }
}

fn header(header: &TracedHeader) -> Value {
    json!({
        "from": header.source,
        "to": header.destination,
        "protocol": header.protocol.to_string(),
        "sourcePort": header.ports.map(|p| p.0),
        "port": header.ports.map(|p| p.1),
    })
}

fn show(header: &TracedHeader) -> String {
    let TracedHeader { source, destination, protocol, .. } = header;
    match header.ports {
        Some((from, to)) => {
            format!("{protocol} {source} port {from} to {destination} port {to}")
        }
        None => format!("{protocol} {source} to {destination}"),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// Our tables as read, which know what a rule's number is about.
pub(crate) struct Tables<'a>(pub(crate) &'a BTreeMap<IpVersion, Table>, pub(crate) IpVersion);

impl Tables<'_> {
    /// What is said about the rule and about its chain.
    fn comments(&self, event: &TraceEvent) -> (Option<&str>, Option<&str>) {
        let ours = self.0.get(&self.1).filter(|_| event.table == crate::live::TABLE);
        let Some(chain) = ours.and_then(|table| table.chains.get(&event.chain)) else {
            return (None, None);
        };
        let rule = chain.rules.iter().find(|r| Some(r.handle) == event.handle);
        (rule.and_then(|r| r.comment.as_deref()), chain.comment.as_deref())
    }

    fn json(&self, event: &TraceEvent) -> Value {
        let (comment, chain_comment) = self.comments(event);
        json!({
            "table": event.table,
            "chain": event.chain,
            "chainComment": chain_comment,
            "handle": event.handle,
            "comment": comment,
            "verdict": jump(&event.verdict),
        })
    }

    /// `calico pi-x handle 12: jump y "comment"`
    fn line(&self, event: &TraceEvent) -> String {
        let mut text = format!("{} {}", event.table, event.chain);
        match event.handle {
            Some(handle) => _ = write!(text, " handle {handle}"),
            None => text += " end",
        }
        let _ = write!(text, ": {}", jump(&event.verdict));
        let (rule, chain) = self.comments(event);
        let said: Vec<&str> = [chain, rule].into_iter().flatten().collect();
        if !said.is_empty() {
            let _ = write!(text, " {:?}", said.join(": "));
        }
        text
    }
}

fn jump(verdict: &Jump) -> String {
    match verdict {
        Jump::Accept => "accept".to_owned(),
        Jump::Drop => "drop".to_owned(),
        Jump::Continue => "continue".to_owned(),
        Jump::Return => "return".to_owned(),
        Jump::Jump(to) => format!("jump {to}"),
        Jump::Goto(to) => format!("goto {to}"),
        Jump::Other(number) => format!("verdict {number}"),
    }
}
