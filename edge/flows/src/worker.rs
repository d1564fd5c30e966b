//! The thread that talks to the kernel.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use model::policy::Icmp;
use model::{IfaceName, IpVersion, Protocol};
use netlink::conntrack::{Conntrack, End, Entry, Tuple};
use netlink::route::{Leads, leads};
use netlink::{Result, Socket};
use rules::{Affected, Flow, Place};

use crate::poke::Poker;

/// So many flows are handed over at once.
const CHUNK: usize = 1_024;
/// Up to so many addresses the kernel is asked for one by one; for more it is asked for everything.
const ONE_BY_ONE: usize = 4;
/// Both ends of a TCP connection are told at once, and again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Marks are set a second time after this time.
const MARK_AGAIN: Duration = Duration::from_millis(100);
/// How long the entry of a closed connection stays without a packet.
const REMEMBERED_SECONDS: u32 = 300;
const TIME_WAIT: u8 = 7;

/// What the thread is told to do.
pub(crate) enum Order {
    /// Find the flows.
    Look(Affected),
    /// Set the bit, or clear it.
    Mark(Vec<Entry>, bool),
}

/// What the thread says.
pub(crate) enum News {
    /// Some of the flows.
    Found(Vec<(Entry, Flow)>),
    /// That was all; so long it took.
    Looked(Duration),
    /// The kernel did not do it.
    Failed(String),
}

pub(crate) struct Worker<W> {
    conntrack: Conntrack,
    routes: Socket,
    poker: Poker,
    bit: u32,
    news: SyncSender<News>,
    wake: W,
    /// Connections of TCP that were cut, by when they are told again, and then closed.
    telling: Vec<(Instant, bool, Entry)>,
    /// What the mark was set to, to be set once more.
    marked: HashMap<Tuple, (bool, Entry)>,
    mark_again_at: Option<Instant>,
}

/// The other side has gone.
struct Over;

impl<W: Fn()> Worker<W> {
    pub(crate) fn open(bit: u32, news: SyncSender<News>, wake: W) -> Result<Self> {
        Ok(Self {
            conntrack: Conntrack::open()?,
            routes: Socket::open()?,
            poker: Poker::new(bit),
            bit,
            news,
            wake,
            telling: Vec::new(),
            marked: HashMap::new(),
            mark_again_at: None,
        })
    }

    /// Until nobody gives orders any more.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let now = Instant::now();
            let tell_at = self.telling.iter().map(|(at, ..)| *at).min();
            let due = tell_at.into_iter().chain(self.mark_again_at).min();
            let order = match due {
                Some(at) => orders.recv_timeout(at.saturating_duration_since(now)),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let said = match order {
                Ok(Order::Look(affected)) => self.look(&affected),
                Ok(Order::Mark(entries, on)) => self.mark(&entries, on),
                Err(RecvTimeoutError::Timeout) => {
                    self.mark_again(now.max(due.unwrap_or(now))).and_then(|()| self.tell_again())
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if said.is_err() {
                return;
            }
        }
    }

    fn say(&self, news: News) -> std::result::Result<(), Over> {
        self.news.send(news).map_err(|_| Over)?;
        (self.wake)();
        Ok(())
    }

    fn look(&mut self, affected: &Affected) -> std::result::Result<(), Over> {
        let started = Busy::now();
        let mut map = Map { socket: &mut self.routes, known: HashMap::new(), links: None };
        let (mut chunk, mut seen) = (Vec::new(), HashSet::new());
        let (news, wake) = (&self.news, &self.wake);
        let mut over = false;
        let few = affected.addresses().filter(|a| a.len() <= ONE_BY_ONE);
        let searches: Vec<(IpVersion, Option<End>)> = match few {
            Some(addresses) => {
                let ends = addresses.iter().flat_map(|a| [End::Begins(*a), End::Answers(*a)]);
                ends.map(|end| (end.version(), Some(end))).collect()
            }
            None => IpVersion::ALL.into_iter().map(|version| (version, None)).collect(),
        };
        for (version, end) in searches {
            let done = self.conntrack.list(version, end, |entry| {
                let (first, answer) = (entry.original, entry.reply);
                let ends = [first.source, first.destination, answer.source, answer.destination];
                let over_already = entry.tcp_state == Some(TIME_WAIT);
                let left_alone = entry.zoned || entry.expected || over_already || over;
                if left_alone || !affected.concerns(&ends) {
                    return;
                }
                if end.is_some() && !seen.insert(first) {
                    return;
                }
                chunk.push((entry, map.flow(&entry)));
                if chunk.len() == CHUNK {
                    over |= news.send(News::Found(std::mem::take(&mut chunk))).is_err();
                    wake();
                }
            });
            if let Err(error) = done {
                return self.say(News::Failed(error.to_string()));
            }
            if over {
                return Err(Over);
            }
        }
        if !chunk.is_empty() {
            self.say(News::Found(chunk))?;
        }
        self.say(News::Looked(started.elapsed()))
    }

    fn mark(&mut self, entries: &[Entry], on: bool) -> std::result::Result<(), Over> {
        if let Err(error) = self.conntrack.mark(entries, self.bit, on) {
            return self.say(News::Failed(error.to_string()));
        }
        self.marked.extend(entries.iter().map(|entry| (entry.original, (on, *entry))));
        self.mark_again_at.get_or_insert_with(|| Instant::now() + MARK_AGAIN);
        if !on {
            // Both ends of these have been told: the connection is over, whatever policy says now.
            let cleared: HashSet<_> = entries.iter().map(|e| e.original).collect();
            let (told, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.telling)
                .into_iter()
                .partition(|(.., entry)| cleared.contains(&entry.original));
            self.telling = others;
            let told: Vec<_> = told.into_iter().map(|(.., entry)| entry).collect();
            return self.close(&told);
        }
        let at = Instant::now() + TELL_AGAIN;
        for entry in entries.iter().filter(|e| Protocol(e.original.protocol) == Protocol::TCP) {
            self.poker.poke(entry);
            self.telling.push((at, false, *entry));
        }
        Ok(())
    }

    /// A second time, lest the first was lost. And after that the kernel is told that the connection is
    /// over, so that a new one between the same ports is a new flow.
    fn tell_again(&mut self) -> std::result::Result<(), Over> {
        let now = Instant::now();
        let mut closing = Vec::new();
        let poker = &mut self.poker;
        self.telling.retain_mut(|(at, told, entry)| {
            if *at > now {
                return true;
            }
            if *told {
                closing.push(*entry);
                return false;
            }
            poker.poke(entry);
            (*at, *told) = (now + TELL_AGAIN, true);
            true
        });
        self.close(&closing)
    }

    /// Rules of others may change marks packet by packet, and the kernel reads and writes them in two steps: what we
    /// wrote in between is lost.
    fn mark_again(&mut self, now: Instant) -> std::result::Result<(), Over> {
        if self.mark_again_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.mark_again_at = None;
        let all = std::mem::take(&mut self.marked).into_values();
        let (cut, resumed): (Vec<_>, Vec<_>) = all.partition(|(on, _)| *on);
        for (entries, on) in [(cut, true), (resumed, false)] {
            let entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
            if entries.is_empty() {
                continue;
            }
            if let Err(error) = self.conntrack.mark(&entries, self.bit, on) {
                return self.say(News::Failed(error.to_string()));
            }
        }
        Ok(())
    }

    fn close(&mut self, entries: &[Entry]) -> std::result::Result<(), Over> {
        match self.conntrack.close(entries, REMEMBERED_SECONDS) {
            Ok(_) => Ok(()),
            Err(error) => self.say(News::Failed(error.to_string())),
        }
    }
}

/// How long this thread has had a processor; without the kernel's word, the time of day.
struct Busy {
    at: Instant,
    on_cpu: Option<Duration>,
}

impl Busy {
    fn now() -> Self {
        Self { at: Instant::now(), on_cpu: Self::on_cpu() }
    }

    fn on_cpu() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }

    fn elapsed(&self) -> Duration {
        let on_cpu = Self::on_cpu().zip(self.on_cpu).map(|(now, then)| now.saturating_sub(then));
        on_cpu.unwrap_or_else(|| self.at.elapsed())
    }
}

/// Where addresses are: each is asked about once a look.
struct Map<'a> {
    socket: &'a mut Socket,
    known: HashMap<IpAddr, Place>,
    links: Option<HashMap<u32, IfaceName>>,
}

impl Map<'_> {
    fn flow(&mut self, entry: &Entry) -> Flow {
        let (first, answer) = (&entry.original, &entry.reply);
        Flow {
            protocol: Protocol(first.protocol),
            source: first.source,
            source_port: first.source_port,
            sent_to: first.destination,
            sent_port: first.destination_port,
            destination: answer.source,
            destination_port: answer.source_port,
            icmp: first.icmp.map(|(_, kind, code)| Icmp { kind, code: Some(code) }),
            from: self.place(first.source),
            towards: self.place(first.destination),
            to: self.place(answer.source),
        }
    }

    fn place(&mut self, address: IpAddr) -> Place {
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        let place = self.ask(address).unwrap_or(Place::Unknown);
        self.known.insert(address, place.clone());
        place
    }

    fn ask(&mut self, address: IpAddr) -> Option<Place> {
        // A link-local address is one on every link.
        if matches!(address, IpAddr::V6(a) if a.is_unicast_link_local()) {
            return None;
        }
        match leads(self.socket, address).ok()? {
            Leads::Here => Some(Place::Here),
            Leads::Nowhere => None,
            Leads::Out(index) => {
                if self.links.is_none() {
                    let links = netlink::link::list(self.socket).ok()?;
                    self.links = Some(links.into_iter().map(|l| (l.index, l.name)).collect());
                }
                self.links.as_ref()?.get(&index).cloned().map(Place::Behind)
            }
        }
    }
}
