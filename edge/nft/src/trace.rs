//! What the kernel does with real packets, rule by rule.
//!
//! A table of its own marks the packets of some flows, at every hook and before everybody else, and the
//! kernel tells of each rule that a marked packet meets, in whatever table. The table belongs to a
//! socket of ours: when that closes, however this process ends, the kernel removes it.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use ipnet::IpNet;
use machine::Jump;
use model::policy::Icmp;
use model::{IpVersion, Protocol};
use rules::Match;
use rules::object::Side;

use crate::driver::NftError;
use crate::encode::{TABLE, family};
use crate::expr::Expressions;
use crate::read::jump;
use crate::socket::Socket;
use crate::wire::{Attributes, Buffer, Message, flag, msg};

/// Ours alone, and gone with our socket; Linux knows it since 5.12.
const OWNED: u32 = 0x2;
/// Before everybody else, but behind the reassembly of fragments.
const FIRST: i32 = -399;
/// Behind the translation of what the host itself sends.
const TRANSLATED: i32 = -99;
/// Chains of the table in the order in which a packet meets some of them: name, hook, priority.
const CHAINS: [(&str, u32, i32); 6] = [
    ("prerouting", 0, FIRST),
    ("output", 3, FIRST),
    ("output-translated", 3, TRANSLATED),
    ("forward", 2, FIRST),
    ("input", 1, FIRST),
    ("postrouting", 4, FIRST),
];
/// The first of them after which nothing follows.
const LAST: usize = 4;
/// Events of one packet that are kept: chains that branch again and again are no loop, but come close.
const MOST_EVENTS: usize = 2_000;

/// A flow whose packets are traced, in the direction in which it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedFlow {
    /// The protocol.
    pub protocol: Protocol,
    /// Who began.
    pub source: IpAddr,
    /// Its port; nothing for any.
    pub source_port: Option<u16>,
    /// Where to, as translated.
    pub destination: IpAddr,
    /// The port there, where the protocol has ports.
    pub destination_port: u16,
    /// Type and code, of ICMP.
    pub icmp: Option<Icmp>,
    /// Where to before translation, if that is known.
    pub original: Option<(IpAddr, u16)>,
}

impl TracedFlow {
    fn version(&self) -> IpVersion {
        IpVersion::of(self.source)
    }

    /// Conditions that its packets meet, before and after translation.
    fn conditions(&self) -> impl Iterator<Item = Vec<Match>> {
        let translated = (self.destination, self.destination_port);
        let ends = self.original.filter(|sent| *sent != translated).into_iter();
        ends.chain([translated]).map(|(to, port)| self.condition(to, port))
    }

    fn condition(&self, to: IpAddr, to_port: u16) -> Vec<Match> {
        let net = |side, a: IpAddr| Match::Net { side, net: IpNet::from(a), not: false };
        let port = |side, p| Match::Ports { side, min: p, max: p, not: false };
        let mut all = vec![net(Side::Source, self.source), net(Side::Destination, to)];
        all.push(Match::Proto { proto: self.protocol, not: false });
        if self.protocol.has_ports() {
            all.push(port(Side::Destination, to_port));
            all.extend(self.source_port.map(|p| port(Side::Source, p)));
        }
        all.extend(self.icmp.map(|i| Match::Icmp { kind: i.kind, code: i.code, not: false }));
        all
    }
}

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedHeader {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Ports, where there are any.
    pub ports: Option<(u16, u16)>,
}

/// What happened to a packet at one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The kernel's number of the rule; nothing where a chain ended.
    pub handle: Option<u64>,
    /// What followed.
    pub verdict: Jump,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passed every table.
    Passed,
    /// It ended in that table; else than by a drop if there is a number.
    Ended(String, Option<i32>),
    /// It was not seen at the last hook, nor dropped by a rule.
    Lost,
}

/// A packet that was traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TracedPacket {
    /// Its headers: as it came, and whenever they had changed.
    pub headers: Vec<TracedHeader>,
    /// Everything that happened to it.
    pub events: Vec<TraceEvent>,
    /// The last rule of ours that it met: the chain's place among them, and the rule's number.
    mark: (usize, u64),
}

impl TracedPacket {
    /// What became of it.
    pub fn fate(&self) -> Fate {
        let end = self.events.iter().rev().find_map(|event| match event.verdict {
            Jump::Drop => Some(Fate::Ended(event.table.clone(), None)),
            Jump::Other(number) => Some(Fate::Ended(event.table.clone(), Some(number))),
            _ => None,
        });
        end.unwrap_or(if self.mark.0 >= LAST { Fate::Passed } else { Fate::Lost })
    }
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// The packets in the order in which they came.
    pub packets: Vec<TracedPacket>,
    /// There was more than was kept, or than the kernel could tell.
    pub more: bool,
}

/// Tracing, for as long as this lives.
#[derive(Debug)]
pub struct Tracer {
    /// The table is its own.
    _owner: Socket,
    events: Socket,
    name: String,
}

impl Tracer {
    /// Begins to trace the packets of the flows, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses: it may be too old, or tracing may not be allowed.
    pub fn start(flows: &[TracedFlow]) -> Result<Self, NftError> {
        let mut owner = Socket::open()?;
        let events = Socket::traces()?;
        let name = format!("{TABLE}-trace-{}", owner.port());
        let mut out = Buffer::default();
        out.frame(true, 1);
        for version in IpVersion::ALL {
            if flows.iter().any(|flow| flow.version() == version) {
                put_table(&mut out, version, &name, flows);
            }
        }
        out.frame(false, 3);
        if let Some(refusal) = owner.transact(&out.bytes)?.into_iter().next() {
            let object = format!("table {name}, which tracing needs");
            return Err(NftError::Needed { object, error: refusal.error });
        }
        Ok(Self { _owner: owner, events, name })
    }

    /// What happens to packets of the flows until then, or until so many have come.
    ///
    /// # Errors
    /// When the kernel cannot be heard.
    pub fn watch(self, until: Instant, most: usize) -> Result<Traces, NftError> {
        let mut all = Collected { most, traces: Traces::default(), by_id: HashMap::new() };
        while !all.traces.more && self.wait(until)? {
            let whole = self.events.drain(|message| all.take(&message, &self.name))?;
            all.traces.more |= !whole;
        }
        Ok(all.traces)
    }

    /// Whether something came in time.
    fn wait(&self, until: Instant) -> io::Result<bool> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, so that the last part of a millisecond is not spent in a loop.
            let left = i32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
            let fd = self.events.as_fd().as_raw_fd();
            let mut asked = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: the pointer is to one pollfd, which lives beyond the call.
            match unsafe { libc::poll(&raw mut asked, 1, left) } {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
    }
}

fn put_table(out: &mut Buffer, version: IpVersion, name: &str, flows: &[TracedFlow]) {
    out.begin(msg::NEW_TABLE, flag::CREATE, family(version), 2);
    out.text(1, name);
    out.be32(2, OWNED);
    out.end();
    for (chain, hook, priority) in CHAINS {
        out.begin(msg::NEW_CHAIN, flag::CREATE, family(version), 2);
        out.text(1, name);
        out.text(3, chain);
        let nest = out.nest(4);
        out.be32(1, hook);
        out.be32(2, priority as u32);
        out.close(nest);
        out.be32(5, 1); // policy accept
        out.text(7, "filter");
        out.end();
        let ours = flows.iter().filter(|flow| flow.version() == version);
        for conditions in ours.flat_map(TracedFlow::conditions) {
            let mut expressions = Expressions::new(version);
            for condition in &conditions {
                expressions.condition(condition, 0);
            }
            expressions.trace();
            out.begin(msg::NEW_RULE, flag::CREATE | flag::APPEND, family(version), 2);
            out.text(1, name);
            out.text(2, chain);
            out.bytes(4 | 0x8000, &expressions.finish());
            out.end();
        }
    }
}

struct Collected {
    most: usize,
    traces: Traces,
    /// The last packet of each of the kernel's numbers, which it uses again.
    by_id: HashMap<u32, usize>,
}

impl Collected {
    fn take(&mut self, message: &Message<'_>, own: &str) {
        let Some((id, event, header)) = event(message) else { return };
        let mark = event.handle.filter(|_| event.table == own).and_then(|handle| {
            let chain = CHAINS.iter().position(|(chain, ..)| *chain == event.chain)?;
            Some((chain, handle))
        });
        let last = self.by_id.get(&id).map(|i| self.traces.packets[*i].mark);
        match (mark, last) {
            // Somebody else traces, too.
            (None, None) => return,
            // A packet meets our rules in order: this is another one of the same number.
            (Some(mark), last) if last.is_none_or(|last| mark <= last) => {
                if self.traces.packets.len() == self.most {
                    self.traces.more = true;
                    return;
                }
                self.by_id.insert(id, self.traces.packets.len());
                self.traces.packets.push(TracedPacket::default());
            }
            _ => {}
        }
        let packet = &mut self.traces.packets[self.by_id[&id]];
        packet.mark = mark.unwrap_or(packet.mark);
        if let Some(header) = header
            && packet.headers.last() != Some(&header)
        {
            packet.headers.push(header);
        }
        if event.table != own && packet.events.len() < MOST_EVENTS {
            packet.events.push(event);
        }
    }
}

/// The packet's number, what happened, and its headers where the kernel tells them.
fn event(message: &Message<'_>) -> Option<(u32, TraceEvent, Option<TracedHeader>)> {
    const POLICY: u32 = 1;
    if message.number() != Some(msg::TRACE) {
        return None;
    }
    let all = message.attributes();
    let verdict = match all.get(5) {
        Some(verdict) => match jump(&Attributes(verdict)) {
            // A drop may carry an error for whoever sent the packet.
            Jump::Other(number) if number > 0 && number.trailing_zeros() >= 8 => Jump::Drop,
            other => other,
        },
        None if all.be32(4) == Some(POLICY) => match all.be32(16) {
            Some(0) => Jump::Drop,
            _ => Jump::Accept,
        },
        None => Jump::Return,
    };
    let event = TraceEvent {
        table: all.text(1)?.to_owned(),
        chain: all.text(2)?.to_owned(),
        handle: all.be64(3),
        verdict,
    };
    Some((all.be32(6)?, event, header(&all)))
}

fn header(all: &Attributes<'_>) -> Option<TracedHeader> {
    let network = all.get(8)?;
    let four = |at: usize| <[u8; 4]>::try_from(network.get(at..at + 4)?).ok().map(IpAddr::from);
    let sixteen =
        |at: usize| <[u8; 16]>::try_from(network.get(at..at + 16)?).ok().map(IpAddr::from);
    let (source, destination, protocol) = match network.first()? >> 4 {
        4 => (four(12)?, four(16)?, *network.get(9)?),
        6 => (sixteen(8)?, sixteen(24)?, *network.get(6)?),
        _ => return None,
    };
    let protocol = Protocol(protocol);
    let ports = all.get(9).filter(|_| protocol.has_ports()).and_then(|transport| {
        let port = |at: usize| transport.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
        Some((port(0)?, port(2)?))
    });
    Some(TracedHeader { source, destination, protocol, ports })
}

/// Reads anything as if it came from the kernel: for the fuzz target.
pub(crate) fn read_anything(message: &Message<'_>) {
    drop(event(message));
}
