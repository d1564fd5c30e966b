//! Feeds a generated cluster (bench/gen_calc.py) through the calculation: counts to compare with
//! any other program that reads the same files, CPU time, peak memory, and the distribution of the
//! cost of each class of single change.
//!
//! Times are CPU time of the one thread, inside the calculation alone: neither the reading of files
//! nor what is done with outputs counts. Asking for the time costs a system call, some 0.2 µs of
//! each change. Objects are read twenty at a time, so that they are as near as where they come one by
//! one; memory is that of the calculation with its outputs, of the program itself (the first line
//! says how much), and of twenty objects.
//!
//! ```text
//! python3 bench/gen_calc.py tag250k DIR && cargo bench -p calc --bench shapes -- tag250k DIR
//! ```
//! Without a shape it does nothing: the files are too large to make on the side.
#![allow(clippy::print_stdout, reason = "prints its measurements")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

use calc::Calc;
use model::output::{Output, SetId};
use model::policy::{EntityMatch, NetworkSet, NetworkSetId, Profile, Stage, Tier};
use model::{
    Action, Labels, Policy, PolicyId, PolicyKind, Port, Protocol, Rule, Update, WorkloadEndpoint,
    WorkloadId,
};
use selector::Selector;
use serde::Deserialize;

/// One line of the files.
#[derive(Deserialize)]
struct Line {
    op: String,
    k: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ns: String,
    kind: Option<String>,
    #[serde(default)]
    host: String,
    #[serde(default)]
    labels: BTreeMap<Arc<str>, Arc<str>>,
    ip: Option<std::net::IpAddr>,
    #[serde(default)]
    prof: Vec<String>,
    order: Option<f64>,
    sel: Option<String>,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default, rename = "in")]
    ingress: Vec<RuleLine>,
    #[serde(default)]
    out: Vec<RuleLine>,
    #[serde(default)]
    nets: Vec<ipnet::IpNet>,
    c: Option<String>,
}

#[derive(Deserialize)]
struct RuleLine {
    a: String,
    src: Option<String>,
    dst: Option<String>,
    proto: Option<String>,
    #[serde(default)]
    dports: Vec<u16>,
    #[serde(default)]
    dnets: Vec<ipnet::IpNet>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl RuleLine {
    fn rule(self) -> Outcome<Rule> {
        let selector = |text: Option<String>| text.map(|t| Selector::parse(&t)).transpose();
        let action = if self.a == "Allow" { Action::Allow } else { Action::Deny };
        Ok(Rule {
            protocol: self.proto.map(|p| if p == "udp" { Protocol::UDP } else { Protocol::TCP }),
            source: EntityMatch { selector: selector(self.src)?, ..EntityMatch::default() },
            destination: EntityMatch {
                selector: selector(self.dst)?,
                nets: self.dnets,
                ports: self.dports.into_iter().map(|p| Port::Range(p, p)).collect(),
                ..EntityMatch::default()
            },
            ..Rule::any(action)
        })
    }
}

impl Line {
    fn update(self) -> Outcome<Update> {
        if self.op == "insync" {
            return Ok(Update::InSync);
        }
        let set = self.op == "set";
        let labels: Labels = Arc::new(self.labels);
        Ok(match self.k.as_deref() {
            Some("tier") => {
                let name = self.name.as_str().into();
                let tier = Tier { name, order: self.order, default_action: Action::Deny };
                Update::Tier(tier.name.clone(), set.then_some(tier))
            }
            Some("prof") => {
                let profile = Profile { labels, ..Profile::default() };
                Update::Profile(self.name.into(), set.then(|| Arc::new(profile)))
            }
            Some("wep") => {
                let id =
                    WorkloadId { namespace: self.host.as_str().into(), name: self.name.into() };
                let workload = WorkloadEndpoint {
                    id: id.clone(),
                    node: self.host.into(),
                    iface: "cali0".parse()?,
                    addresses: self.ip.into_iter().collect(),
                    labels,
                    profiles: self.prof.into_iter().map(Into::into).collect(),
                    ports: Vec::new(),
                    allowed_sources: Vec::new(),
                };
                Update::Workload(id, set.then(|| Arc::new(workload)))
            }
            Some("nset") => {
                let id = NetworkSetId { namespace: "".into(), name: self.name.into() };
                let sets = NetworkSet { labels, profiles: Vec::new(), nets: self.nets };
                Update::NetworkSet(id, set.then(|| Arc::new(sets)))
            }
            Some("pol") => {
                let kind = match self.kind.as_deref() {
                    Some("NetworkPolicy") => PolicyKind::NetworkPolicy,
                    _ => PolicyKind::GlobalNetworkPolicy,
                };
                let id = PolicyId { name: self.name.into(), namespace: self.ns.into(), kind };
                if !set {
                    return Ok(Update::Policy(id, None));
                }
                let rules = |lines: Vec<RuleLine>| -> Outcome<Vec<Rule>> {
                    lines.into_iter().map(RuleLine::rule).collect()
                };
                let policy = Policy {
                    id: id.clone(),
                    tier: "default".into(),
                    order: None,
                    selector: Selector::parse(&self.sel.unwrap_or_default())?,
                    applies_ingress: self.types.iter().any(|t| t == "ingress"),
                    applies_egress: self.types.iter().any(|t| t == "egress"),
                    ingress: rules(self.ingress)?,
                    egress: rules(self.out)?,
                    stage: Stage::Normal,
                    apply_on_forward: false,
                    staged: false,
                    everywhere: false,
                };
                Update::Policy(id, Some(Arc::new(policy)))
            }
            other => return Err(format!("unknown kind {other:?}").into()),
        })
    }
}

/// The counts that the comparison is made by.
#[derive(Default)]
struct Tally {
    messages: usize,
    sets: BTreeMap<SetId, usize>,
    policies: BTreeSet<PolicyId>,
    endpoints: BTreeSet<WorkloadId>,
}

impl Tally {
    fn take(&mut self, outputs: &[Output]) {
        self.messages += outputs.len();
        for output in outputs {
            match output {
                Output::Set(id, _, members) => drop(self.sets.insert(id.clone(), members.len())),
                Output::SetDelta { id, added, removed } => {
                    if let Some(n) = self.sets.get_mut(id) {
                        *n = *n + added.len() - removed.len();
                    }
                }
                Output::SetGone(id) => drop(self.sets.remove(id)),
                Output::Policy(p) => drop(self.policies.insert(p.id.clone())),
                Output::PolicyGone(id) => drop(self.policies.remove(id)),
                Output::Workload(w) => drop(self.endpoints.insert(w.endpoint.id.clone())),
                Output::WorkloadGone(id) => drop(self.endpoints.remove(id)),
                _ => (),
            }
        }
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} messages, {} sets, {} members, {} policies, {} endpoints",
            self.messages,
            self.sets.len(),
            self.sets.values().sum::<usize>(),
            self.policies.len(),
            self.endpoints.len()
        );
    }
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [shape, dir] = args.as_slice() else {
        println!("shapes: give a shape and the folder of its files");
        return Ok(());
    };
    let file = |what: &str| File::open(format!("{dir}/{shape}.{what}.jsonl")).map(BufReader::new);
    println!("before everything: {}", memory()?);
    let mut calc = Calc::new("localhost".into());
    let mut tally = Tally::default();
    let mut inside = Duration::ZERO;
    let mut lines = file("snap")?.lines();
    loop {
        let mut updates = Vec::new();
        for line in lines.by_ref().take(20) {
            updates.push(serde_json::from_str::<Line>(&line?)?.update()?);
        }
        if updates.is_empty() {
            break;
        }
        let start = cpu_time();
        for update in updates {
            calc.update(update);
        }
        inside += since(start);
    }
    println!("before the flush: {}", memory()?);
    let start = cpu_time();
    let outputs = calc.flush();
    let flush = since(start);
    println!("{shape} cold: {:?} of CPU ({flush:?} of it in the flush)", inside + flush);
    println!("after the flush: {}", memory()?);
    tally.take(&outputs);
    drop(outputs);
    tally.print("snapshot");
    for what in ["delta", "churn"] {
        replay(&mut calc, &mut tally, file(what)?)?;
        tally.print(what);
    }
    println!("at the end: {}", memory()?);
    Ok(())
}

/// What a change cost, and what it said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    time: Duration,
    items: usize,
}

/// One change and one flush at a time, by class.
fn replay(calc: &mut Calc, tally: &mut Tally, lines: impl BufRead) -> Outcome<()> {
    let mut costs: BTreeMap<String, Vec<Cost>> = BTreeMap::new();
    for line in lines.lines() {
        let mut line: Line = serde_json::from_str(&line?)?;
        let class = line.c.take().unwrap_or_default();
        let update = line.update()?;
        let start = cpu_time();
        calc.update(update);
        let outputs = calc.flush();
        let time = since(start);
        costs.entry(class).or_default().push(Cost { time, items: items(&outputs) });
        tally.take(&outputs);
    }
    for (class, mut costs) in costs {
        costs.sort_unstable();
        let at = |percent: usize| costs[(costs.len() - 1) * percent / 100].time;
        let total: Duration = costs.iter().map(|c| c.time).sum();
        let mean = total / costs.len() as u32;
        let said: usize = costs.iter().map(|c| c.items).sum();
        println!(
            "  {class}: p50 {:?}, p90 {:?}, p99 {:?}, mean {mean:?}; {:.1} items a change; \
             1,000 a second are {:.2} % of a core",
            at(50),
            at(90),
            at(99),
            said as f64 / costs.len() as f64,
            mean.as_secs_f64() * 1000.0 * 100.0,
        );
        if class != "churn" {
            let base =
                if class.starts_with("remote") || class.starts_with("netset") { 20 } else { 100 };
            let bar = |c: &Cost| {
                let beyond = c.items.saturating_sub(10) as u64;
                Duration::from_nanos(base * 1000 + 200 * beyond)
            };
            let within = costs.iter().filter(|c| c.time <= bar(c)).count();
            println!(
                "    {base} µs, and 0.2 µs for each item beyond ten: {:.1} % are within",
                within as f64 * 100.0 / costs.len() as f64
            );
        }
    }
    Ok(())
}

/// Things that outputs say: members of sets, and everything else that has a name.
fn items(outputs: &[Output]) -> usize {
    let of = |output: &Output| match output {
        Output::Set(_, _, members) => 1 + members.len(),
        Output::SetDelta { added, removed, .. } => added.len() + removed.len(),
        _ => 1,
    };
    outputs.iter().map(of).sum()
}

fn since(start: Duration) -> Duration {
    cpu_time().saturating_sub(start)
}

/// CPU time of this thread.
#[expect(unsafe_code, reason = "the standard library does not have this clock")]
fn cpu_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux, and `now` is a valid place for the answer.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    assert_eq!(done, 0, "clock_gettime");
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Resident memory, now and at its peak.
fn memory() -> Outcome<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines = status.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS"));
    Ok(lines
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", "))
}
