//! Who reaches whom, measured with real connections from inside the namespaces.

use std::collections::BTreeMap;
use std::io::Read;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use socket2::Socket;

use crate::args::{Output, say};
use crate::matrix;
use crate::responder::raw;
use crate::state::{PodRecord, State};
use crate::{netns, sctp};

/// How long an answer may take. Denied packets are dropped, so every denied pair costs this much;
/// an allowed one answers within a millisecond, or twice that long after a first resolution.
const LIMIT: Duration = Duration::from_millis(900);
/// Connections under way at once from one namespace.
const AT_ONCE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

impl Protocol {
    /// The name in JSON.
    pub(crate) fn name(self, v4: bool) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp if v4 => "ICMP",
            Self::Icmp => "ICMPv6",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only from this pod: `namespace/name`, or a name in namespace `default`.
    #[arg(long)]
    from: Option<String>,
    /// Only to this pod.
    #[arg(long)]
    to: Option<String>,
    /// Port.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Protocol.
    #[arg(long, default_value = "tcp")]
    protocol: Protocol,
    /// `table`, or `json`: one object a line.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// One connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) from: String,
    pub(crate) from_netns: String,
    pub(crate) to: String,
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Normative: the output format of `probe -o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    pub(crate) reachable: bool,
    pub(crate) ms: Option<f64>,
    pub(crate) error: Option<String>,
    pub(crate) address: IpAddr,
}

/// Tries all pairs: namespaces side by side, in each up to a bounded number at once. In order.
pub(crate) fn measure(pairs: &[Pair]) -> Result<Vec<Outcome>> {
    let mut by_source: BTreeMap<&str, Vec<(usize, &Pair)>> = BTreeMap::new();
    for (i, pair) in pairs.iter().enumerate() {
        by_source.entry(&pair.from_netns).or_default().push((i, pair));
    }
    let mut outcomes: Vec<Option<Outcome>> = vec![None; pairs.len()];
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = by_source
            .into_iter()
            .map(|(name, pairs)| {
                scope.spawn(move || netns::inside(name, || Ok(measure_here(&pairs))))
            })
            .collect();
        for thread in threads {
            let found =
                thread.join().map_err(|_| anyhow::anyhow!("a probing thread has panicked"))??;
            for (i, outcome) in found {
                outcomes[i] = Some(outcome);
            }
        }
        Ok(())
    })?;
    outcomes.into_iter().map(|o| o.context("a pair was not measured")).collect()
}

/// From the namespace of the calling thread.
fn measure_here(pairs: &[(usize, &Pair)]) -> Vec<(usize, Outcome)> {
    let mut all = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = chunk
                .iter()
                .map(|(i, pair)| scope.spawn(move || (*i, try_one(pair, *i))))
                .collect();
            all.extend(threads.into_iter().filter_map(|t| t.join().ok()));
        });
    }
    all
}

fn try_one(pair: &Pair, index: usize) -> Outcome {
    let begin = Instant::now();
    let to = SocketAddr::new(pair.address, pair.port);
    let result = match pair.protocol {
        Protocol::Tcp => tcp(to),
        Protocol::Udp => udp(to),
        Protocol::Icmp => icmp(pair.address, index as u16),
        // Ports are told apart by pair: raw sockets see each other's answers.
        Protocol::Sctp => {
            sctp::probe(pair.address, pair.port, 20_000 + (index % 40_000) as u16, LIMIT)
        }
    };
    let ms = (begin.elapsed().as_secs_f64() * 1e5).round() / 100.0;
    Outcome {
        from: pair.from.clone(),
        to: pair.to.clone(),
        protocol: pair.protocol.name(pair.address.is_ipv4()),
        port: (pair.protocol != Protocol::Icmp).then_some(pair.port),
        reachable: result.is_ok(),
        ms: result.is_ok().then_some(ms),
        error: result.err().map(|e| format!("{e:#}")),
        address: pair.address,
    }
}

fn tcp(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut byte = [0];
    let n = stream.read(&mut byte).context("connected, but nothing was said")?;
    anyhow::ensure!(n == 1, "connected, and closed at once");
    Ok(())
}

fn udp(to: SocketAddr) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u8; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(b"who")?;
    let mut buffer = [0; 512];
    socket.recv(&mut buffer).context("no answer")?;
    Ok(())
}

/// One echo request (RFC 792, RFC 4443); for IPv6 the kernel fills in the checksum.
fn icmp(to: IpAddr, id: u16) -> Result<()> {
    let (protocol, request, reply) = if to.is_ipv4() { (1, 8, 0) } else { (58, 128, 129) };
    let socket: Socket = raw(to.is_ipv4(), protocol)?;
    let mut packet = vec![request, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend([0, 1]);
    if to.is_ipv4() {
        let sum: u32 = packet.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let folded = !((sum >> 16) + (sum & 0xffff)) as u16;
        packet[2..4].copy_from_slice(&folded.to_be_bytes());
    }
    socket.send_to(&packet, &SocketAddr::new(to, 0).into())?;
    let end = Instant::now() + LIMIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "no echo reply within {LIMIT:?}");
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [MaybeUninit::uninit(); 512];
        let Ok((bytes, from)) = sctp::receive(&socket, &mut buffer) else { continue };
        let message = sctp::payload(to.is_ipv4(), &bytes);
        let ours = message.first() == Some(&reply) && message.get(4..6) == Some(&id.to_be_bytes());
        if ours && from.ip() == to {
            return Ok(());
        }
    }
}

/// `calico sandbox probe`.
pub(crate) fn command(state: &State, options: &Options) -> Result<ExitCode> {
    state.load()?;
    let pods: Vec<PodRecord> = state.pods()?.into_iter().filter(|p| !p.ips.is_empty()).collect();
    let pick = |given: &Option<String>| -> Result<Vec<&PodRecord>> {
        let Some(given) = given else { return Ok(pods.iter().collect()) };
        let (namespace, name) = given.split_once('/').unwrap_or(("default", given));
        let found = pods.iter().find(|p| p.namespace == namespace && p.name == name);
        match found {
            Some(pod) => Ok(vec![pod]),
            None => bail!("no pod {namespace}/{name} runs here"),
        }
    };
    let (mut sources, mut targets) = (pick(&options.from)?, pick(&options.to)?);
    let full = |p: &PodRecord| format!("{}/{}", p.namespace, p.name);
    sources.sort_by_key(|p| full(p));
    targets.sort_by_key(|p| full(p));
    let mut pairs = Vec::new();
    for from in &sources {
        for to in targets.iter().filter(|t| t.uid != from.uid) {
            for address in &to.ips {
                pairs.push(Pair {
                    from: full(from),
                    from_netns: from.netns.clone(),
                    to: full(to),
                    address: *address,
                    protocol: options.protocol,
                    port: options.port,
                });
            }
        }
    }
    let outcomes = measure(&pairs)?;
    match options.output {
        Output::Json => {
            for outcome in &outcomes {
                say(&serde_json::to_string(outcome)?);
            }
        }
        Output::Table => say(&matrix::of_outcomes(&outcomes)),
    }
    Ok(ExitCode::SUCCESS)
}
