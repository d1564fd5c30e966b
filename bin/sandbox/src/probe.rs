//! Who reaches whom, measured with real connections from inside the namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use policy::{Judge, Packet, Verdict, View};
use serde::Serialize;
use socket2::Socket;

use crate::print::{Output, say, tell};
use crate::responder::raw;
use crate::state::{PodRecord, State};
use crate::{client, matrix, netns, sctp, view};

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

    /// The first packet of a connection.
    fn packet(self, from: IpAddr, to: IpAddr, port: u16) -> Packet {
        let protocol = match self {
            Self::Tcp => model::Protocol::TCP,
            Self::Udp => model::Protocol::UDP,
            Self::Sctp => model::Protocol::SCTP,
            Self::Icmp => return Packet::ping(from, to),
        };
        Packet::to_port(from, to, protocol, port)
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
    /// Ask the policies as well; exit code 1 where a connection does not do what they say.
    #[arg(long)]
    expect: bool,
    /// `table`, or `json`: one object a line.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// A source, a target, and what to try between them: every address of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) from: String,
    pub(crate) from_netns: String,
    /// Addresses of the source: of the right family, the one that the packets will carry.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) to: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Normative: the output format of `probe -o json`. A pair is reachable when every address of the
/// target answers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) protocol: &'static str,
    pub(crate) port: Option<u16>,
    pub(crate) reachable: bool,
    pub(crate) ms: Option<f64>,
    pub(crate) error: Option<String>,
    /// What the policies say, where they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<bool>,
    pub(crate) addresses: Vec<Attempt>,
}

/// One connection.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attempt {
    pub(crate) address: IpAddr,
    pub(crate) protocol: &'static str,
    pub(crate) reachable: bool,
    /// An answer came, if only that nobody listens: policy has let packets pass, both ways.
    pub(crate) answered: bool,
    pub(crate) ms: Option<f64>,
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<bool>,
}

impl Outcome {
    fn of(pair: &Pair, addresses: Vec<Attempt>) -> Self {
        let first = addresses.first().map_or("", |a| a.protocol);
        let failed = addresses.iter().find_map(|a| a.error.clone());
        let slowest = addresses.iter().filter_map(|a| a.ms).reduce(f64::max);
        let reachable = !addresses.is_empty() && addresses.iter().all(|a| a.reachable);
        Self {
            from: pair.from.clone(),
            to: pair.to.clone(),
            protocol: first,
            port: (pair.protocol != Protocol::Icmp).then_some(pair.port),
            reachable,
            ms: slowest.filter(|_| reachable),
            error: failed,
            expected: None,
            addresses,
        }
    }

    /// What the policies say, for a table of what was reached: where an answer came that nobody
    /// listens, they have not said no.
    pub(crate) fn said(&self) -> Option<bool> {
        self.expected.map(|e| if self.as_expected() { self.reachable } else { e })
    }

    /// Whether every connection did what the policies say.
    fn as_expected(&self) -> bool {
        self.addresses.iter().all(|a| a.expected.is_none_or(|e| e == a.answered))
    }
}

/// Tries all pairs: namespaces side by side, in each up to a bounded number at once. In order.
pub(crate) fn measure(pairs: &[Pair]) -> Result<Vec<Outcome>> {
    let mut by_source: BTreeMap<&str, Vec<Try<'_>>> = BTreeMap::new();
    let mut index = fresh();
    for (i, pair) in pairs.iter().enumerate() {
        for address in &pair.addresses {
            let one = Try { of: i, index, address: *address, pair };
            by_source.entry(&pair.from_netns).or_default().push(one);
            index = index.wrapping_add(1);
        }
    }
    let mut attempts: Vec<Vec<Attempt>> = vec![Vec::new(); pairs.len()];
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = by_source
            .into_iter()
            .map(|(name, tries)| {
                scope.spawn(move || netns::inside(name, || Ok(measure_here(&tries))))
            })
            .collect();
        for thread in threads {
            let found =
                thread.join().map_err(|_| anyhow::anyhow!("a probing thread has panicked"))??;
            for (i, attempt) in found {
                attempts[i].push(attempt);
            }
        }
        Ok(())
    })?;
    let both = pairs.iter().zip(attempts);
    Ok(both.map(|(pair, attempts)| Outcome::of(pair, attempts)).collect())
}

/// Where the numbers of echo requests and associations begin. The kernel remembers the flows of the
/// last probe for a while, and what is established passes whatever the policies say now.
fn fresh() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("probe") as u16
}

/// One connection to try.
struct Try<'a> {
    /// Index of the pair.
    of: usize,
    /// Different for each that is tried at the same time.
    index: u16,
    address: IpAddr,
    pair: &'a Pair,
}

/// From the namespace of the calling thread. In order.
fn measure_here(tries: &[Try<'_>]) -> Vec<(usize, Attempt)> {
    let mut all = Vec::with_capacity(tries.len());
    for chunk in tries.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                chunk.iter().map(|one| scope.spawn(move || (one.of, try_one(one)))).collect();
            all.extend(threads.into_iter().filter_map(|t| t.join().ok()));
        });
    }
    all
}

fn try_one(one: &Try<'_>) -> Attempt {
    let begin = Instant::now();
    let to = SocketAddr::new(one.address, one.pair.port);
    let result = match one.pair.protocol {
        Protocol::Tcp => tcp(to),
        Protocol::Udp => udp(to),
        Protocol::Icmp => icmp(to.ip(), one.index),
        // Ports are told apart by connection: raw sockets see each other's answers.
        Protocol::Sctp => sctp::probe(to.ip(), to.port(), 20_000 + one.index % 40_000, LIMIT),
    };
    let refused = |e: &anyhow::Error| {
        let cause = e.downcast_ref::<std::io::Error>();
        cause.is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    let ms = (begin.elapsed().as_secs_f64() * 1e5).round() / 100.0;
    Attempt {
        address: one.address,
        protocol: one.pair.protocol.name(to.is_ipv4()),
        reachable: result.is_ok(),
        answered: result.as_ref().map_or_else(refused, |()| true),
        ms: result.is_ok().then_some(ms),
        error: result.err().map(|e| format!("{e:#}")),
        expected: None,
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
    let spec = state.load()?;
    let pairs = pairs(state, options)?;
    tell_of_absent(state)?;
    let mut outcomes = measure(&pairs)?;
    if options.expect {
        let view = client::runtime()?.block_on(async {
            let client = client::connect(&state.kubeconfig()).await?;
            view::read(&client, &spec).await.context("cannot read the policies")
        })?;
        expect(&view, &pairs, &mut outcomes);
    }
    match options.output {
        Output::Json => {
            for outcome in &outcomes {
                say(&serde_json::to_string(outcome)?);
            }
        }
        Output::Table => say(&matrix::of_outcomes(&outcomes)),
    }
    let wrong = outcomes.iter().filter(|o| !o.as_expected()).count();
    if wrong > 0 {
        tell(&format!("calico sandbox: {wrong} pairs do not do what the policies say"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says which pods of the API do not run yet and so are not probed: a table without them would
/// look as if they did not matter.
fn tell_of_absent(state: &State) -> Result<()> {
    let runs: BTreeSet<String> =
        state.pods()?.into_iter().filter(|p| !p.ips.is_empty()).map(|p| p.uid).collect();
    let listed = client::runtime()?.block_on(async {
        let client = client::connect(&state.kubeconfig()).await?;
        let pods: Api<Pod> = Api::all(client);
        // Probes work without the API.
        anyhow::Ok(tokio::time::timeout(LIMIT, pods.list(&ListParams::default())).await)
    })?;
    let Ok(Ok(listed)) = listed else { return Ok(()) };
    let absent = listed.items.iter().filter(|p| {
        let phase = p.status.as_ref().and_then(|s| s.phase.as_deref());
        let on_host = p.spec.as_ref().and_then(|s| s.host_network) == Some(true);
        let wanted = !on_host && p.metadata.deletion_timestamp.is_none();
        wanted
            && !matches!(phase, Some("Succeeded" | "Failed"))
            && !p.uid().is_some_and(|u| runs.contains(&u))
    });
    let absent: Vec<_> =
        absent.map(|p| format!("{}/{}", p.namespace().unwrap_or_default(), p.name_any())).collect();
    if !absent.is_empty() {
        tell(&format!(
            "calico sandbox: not running yet, so not probed: {} (`kubectl wait --for=condition=Ready pod --all -A` waits)",
            absent.join(", ")
        ));
    } else if runs.len() < 2 {
        tell(
            "calico sandbox: a probe needs two pods: `kubectl run NAME --image=any --port=80` makes one",
        );
    }
    Ok(())
}

/// Every pod that was asked about to every other, sorted by name.
fn pairs(state: &State, options: &Options) -> Result<Vec<Pair>> {
    let mut pods: Vec<PodRecord> =
        state.pods()?.into_iter().filter(|p| !p.ips.is_empty()).collect();
    let full = |p: &PodRecord| format!("{}/{}", p.namespace, p.name);
    pods.sort_by_key(full);
    let pick = |given: &Option<String>| -> Result<Vec<&PodRecord>> {
        let Some(given) = given else { return Ok(pods.iter().collect()) };
        let (namespace, name) = given.split_once('/').unwrap_or(("default", given));
        let found = pods.iter().find(|p| p.namespace == namespace && p.name == name);
        Ok(vec![found.with_context(|| format!("no pod {namespace}/{name} runs here"))?])
    };
    let (sources, targets) = (pick(&options.from)?, pick(&options.to)?);
    let mut pairs = Vec::new();
    for from in &sources {
        for to in targets.iter().filter(|t| t.uid != from.uid) {
            pairs.push(Pair {
                from: full(from),
                from_netns: from.netns.clone(),
                sources: from.ips.clone(),
                to: full(to),
                addresses: to.ips.clone(),
                protocol: options.protocol,
                port: options.port,
            });
        }
    }
    Ok(pairs)
}

/// Writes beside each outcome what the policies say.
fn expect(view: &View, pairs: &[Pair], outcomes: &mut [Outcome]) {
    let judge = Judge::new(view);
    for (pair, outcome) in pairs.iter().zip(outcomes) {
        for attempt in &mut outcome.addresses {
            let to = attempt.address;
            let source = pair.sources.iter().find(|s| s.is_ipv4() == to.is_ipv4());
            attempt.expected = source.map(|from| {
                let packet = pair.protocol.packet(*from, to, pair.port);
                judge.evaluate(&packet).verdict == Verdict::Allow
            });
        }
        outcome.expected =
            outcome.addresses.iter().map(|a| a.expected).reduce(|a, b| Some(a? && b?)).flatten();
    }
}
