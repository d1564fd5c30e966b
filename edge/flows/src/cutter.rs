//! The side of the thread that owns the rules.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use netlink::conntrack::Entry;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use rules::{Affected, Flow, Rules, Ruling};

use crate::worker::{News, Order, Worker};

/// Changes that come together count as one: a policy and the next one of the same file.
const SETTLE: Duration = Duration::from_millis(100);
/// After looking, it is not done again for so many times as long: that bounds what it costs.
const REST: u32 = 20;
/// But for no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Chunks of flows that wait to be judged.
const WAITING: usize = 4;
/// More lines than this at once help nobody.
const MOST_LINES: u64 = 1_000;

/// A flow that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The flow.
    pub flow: Flow,
    /// The pod or host endpoint whose policy denies it, where one is known.
    pub endpoint: Option<String>,
    /// The policy and rule, in words.
    pub by: String,
}

/// What is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Flows that were cut.
    pub cut: Gauge,
    /// Flows that were let go on, having been cut.
    pub resumed: Gauge,
    /// Flows that were judged.
    pub judged: Gauge,
    /// Seconds that looking through the kernel's table took.
    pub look_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            cut: Gauge::default(),
            resumed: Gauge::default(),
            judged: Gauge::default(),
            look_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
        }
    }
}

impl Metrics {
    /// Makes them part of what the agent exports.
    pub fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(name, help, gauge.clone());
        };
        gauge("felix_flows_cut", "Established flows cut because policy denies them now", &self.cut);
        gauge("felix_flows_resumed", "Cut flows that policy allows again", &self.resumed);
        gauge("felix_flows_judged", "Established flows judged again", &self.judged);
        registry.register(
            "felix_flows_look_seconds",
            "Seconds to look through connection tracking after a change of policy",
            self.look_seconds.clone(),
        );
    }
}

/// See the crate. Its thread ends with it.
#[derive(Debug)]
pub struct Cutter {
    bit: u32,
    orders: Sender<Order>,
    news: Receiver<News>,
    metrics: Metrics,
    /// Whose flows are to be looked at next.
    wanted: Affected,
    /// Whose flows are being looked at.
    asked: Option<Affected>,
    settled_at: Instant,
    rested_at: Instant,
    on: bool,
    lines: u64,
    looked: Duration,
}

impl Cutter {
    /// Opens its sockets in the network namespace of the calling thread. `bit` is
    /// [`Rules::cut_bit`]; `wake` is called when [`Self::poll`] has something to do.
    ///
    /// # Errors
    /// If the kernel refuses the sockets or there can be no thread.
    pub fn open(bit: u32, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (orders, ordered) = channel();
        let (tell, news) = sync_channel(WAITING);
        // Sockets belong to the namespace of the thread that opens them.
        let worker = Worker::open(bit, tell, wake).map_err(std::io::Error::other)?;
        let thread = std::thread::Builder::new().name("flows".into());
        thread.spawn(move || worker.run(&ordered))?;
        let now = Instant::now();
        Ok(Self {
            bit,
            orders,
            news,
            metrics: Metrics::default(),
            wanted: Affected::default(),
            asked: None,
            settled_at: now,
            rested_at: now,
            on: true,
            lines: 0,
            looked: Duration::ZERO,
        })
    }

    /// Counts in these from now on: those of a cutter before it, say.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Its metrics, to be registered.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Switches cutting off and on. What was cut stays cut; what changed while it was off is looked at
    /// when it is on again.
    pub fn switch(&mut self, on: bool) {
        if on && !self.on {
            self.wanted = Affected::all();
        }
        self.on = on;
    }

    /// To be called when the kernel has what the rules want. Returns what was cut, and when to call
    /// again at the latest.
    pub fn poll(&mut self, rules: &mut Rules) -> (Vec<Cut>, Option<Duration>) {
        let now = Instant::now();
        let affected = rules.take_affected();
        if !affected.is_empty() {
            if self.wanted.is_empty() {
                self.settled_at = now + SETTLE;
            }
            self.wanted.merge(affected);
        }
        let mut cuts = Vec::new();
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Found(found) if self.on => self.judge(&found, rules, &mut cuts),
                News::Found(_) => {}
                News::Looked(took) => {
                    self.metrics.look_seconds.observe(took.as_secs_f64());
                    self.looked += took;
                    self.asked = None;
                    self.rested_at = now + (took * REST).min(LONGEST_REST);
                    self.end_of_lines();
                }
                News::Failed(error) => {
                    tracing::warn!(error, "established flows could not be looked at");
                    self.wanted.merge(self.asked.take().unwrap_or_else(Affected::all));
                    self.rested_at = now + TRY_AGAIN;
                }
            }
        }
        (cuts, self.go_on(now))
    }

    /// Whether nothing is to be looked at and nothing is being looked at.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.asked.is_none()
    }

    /// The processor's time that looking has taken so far.
    pub fn looked(&self) -> Duration {
        self.looked
    }

    /// Gives the next order, or says when.
    fn go_on(&mut self, now: Instant) -> Option<Duration> {
        if !self.on {
            self.wanted = Affected::default();
        }
        if self.wanted.is_empty() || self.asked.is_some() {
            return None;
        }
        let due = self.settled_at.max(self.rested_at);
        if due > now {
            return Some(due - now);
        }
        let wanted = std::mem::take(&mut self.wanted);
        self.asked = Some(wanted.clone());
        if self.orders.send(Order::Look(wanted)).is_err() {
            tracing::error!("the thread that looks at flows has ended");
        }
        None
    }

    fn judge(&mut self, found: &[(Entry, Flow)], rules: &Rules, cuts: &mut Vec<Cut>) {
        let (mut cut, mut resume) = (Vec::new(), Vec::new());
        let rulings = rules.rulings(found.iter().map(|(_, flow)| flow));
        for ((entry, flow), (ruling, endpoint)) in found.iter().zip(rulings) {
            let is_cut = entry.mark & self.bit != 0;
            match ruling {
                Ruling::Denied { by, .. } if !is_cut => {
                    cut.push(*entry);
                    cuts.push(Cut { flow: flow.clone(), endpoint, by });
                }
                Ruling::Passes if is_cut => resume.push(*entry),
                _ => {}
            }
        }
        self.metrics.judged.inc_by(found.len() as i64);
        self.metrics.cut.inc_by(cut.len() as i64);
        self.metrics.resumed.inc_by(resume.len() as i64);
        let first = cuts.len() - cut.len();
        for cut in &cuts[first..] {
            self.line(cut);
        }
        for (entries, on) in [(cut, true), (resume, false)] {
            if !entries.is_empty() {
                // If the thread has ended, go_on says so.
                let _ = self.orders.send(Order::Mark(entries, on));
            }
        }
    }

    fn line(&mut self, cut: &Cut) {
        self.lines += 1;
        if self.lines > MOST_LINES {
            return;
        }
        let Cut { flow, endpoint, by } = cut;
        let sent = (flow.sent_to, flow.sent_port) != (flow.destination, flow.destination_port);
        tracing::info!(
            endpoint = endpoint.as_deref().unwrap_or("host endpoint"),
            protocol = %flow.protocol,
            from = %SocketAddr::new(flow.source, flow.source_port),
            to = %SocketAddr::new(flow.destination, flow.destination_port),
            sent_to = sent.then(|| SocketAddr::new(flow.sent_to, flow.sent_port).to_string()),
            by,
            "established flow cut: policy denies it now"
        );
    }

    fn end_of_lines(&mut self) {
        let more = std::mem::take(&mut self.lines).saturating_sub(MOST_LINES);
        if more > 0 {
            tracing::info!(more, "established flows cut, too many to be named");
        }
    }
}
