//! Feeds a generated table (bench/gen_nft.py) through rules and driver into the kernel, then changes
//! one thing at a time. No process is started for any of it.
//!
//! ```text
//! python3 bench/gen_nft.py prod-ip DIR/prod-ip.json && cargo bench -p nft --bench shapes -- prod-ip DIR
//! cargo bench -p nft --bench shapes -- policies 100
//! ```
//! The second form makes 10,000 policies with as many distinct selectors as it says, 50 an endpoint.
//! Figures are CPU time of the one thread that does everything. What of it the kernel took for our
//! messages stands beside: the floor, below which no program comes that sends the same.
#![allow(clippy::print_stdout, reason = "prints its measurements")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::ops::Sub;
use std::sync::Arc;
use std::time::Duration;

use model::output::{
    CalcMatch, CalcPolicy, CalcRule, EndpointTier, LocalWorkload, Member, Output, PolicyList,
    SetKind,
};
use model::policy::Stage;
use model::{
    Action, InSync, PolicyId, PolicyKind, Protocol, WorkloadEndpoint, WorkloadId, output::SetId,
};
use nft::NftDriver;
use rules::{Rules, RulesConfig};
use serde::Deserialize;
use testkit::in_netns;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The file.
#[derive(Deserialize)]
struct Shape {
    sets: Vec<ShapeSet>,
    chains: Vec<ShapeChain>,
}

#[derive(Deserialize)]
struct ShapeSet {
    id: Arc<str>,
    members: Vec<String>,
}

#[derive(Deserialize)]
struct ShapeChain {
    name: Arc<str>,
    rules: Vec<ShapeRule>,
}

#[derive(Deserialize)]
struct ShapeRule {
    set: String,
    dir: String,
    dport: u16,
    action: String,
}

/// What is programmed: sets, policies over them, endpoints under those.
struct Cluster {
    sets: Vec<(SetId, Vec<Member>)>,
    policies: Vec<Arc<CalcPolicy>>,
    endpoints: Vec<Arc<LocalWorkload>>,
}

impl ShapeRule {
    fn rule(&self) -> CalcRule {
        let sets: Vec<SetId> = Some(&self.set)
            .filter(|s| !s.is_empty())
            .map(|s| s.as_str().into())
            .into_iter()
            .collect();
        let ports = vec![(self.dport, self.dport)];
        let (source, destination) = match self.dir.as_str() {
            "src" => (sets, Vec::new()),
            _ => (Vec::new(), sets),
        };
        CalcRule {
            protocol: Some(Protocol::TCP),
            source: CalcMatch { sets: source, ..CalcMatch::default() },
            destination: CalcMatch { sets: destination, ports, ..CalcMatch::default() },
            ..any(if self.action == "drop" { Action::Deny } else { Action::Allow })
        }
    }
}

fn any(action: Action) -> CalcRule {
    CalcRule {
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CalcMatch::default(),
        destination: CalcMatch::default(),
        http: None,
        origin: 0,
    }
}

fn policy(name: &str, ingress: Vec<CalcRule>) -> Arc<CalcPolicy> {
    Arc::new(CalcPolicy {
        id: PolicyId {
            name: name.into(),
            namespace: "".into(),
            kind: PolicyKind::GlobalNetworkPolicy,
        },
        tier: "default".into(),
        stage: Stage::Normal,
        staged: false,
        ingress,
        egress: Vec::new(),
    })
}

fn endpoint(n: usize, policies: &[Arc<CalcPolicy>]) -> Outcome<Arc<LocalWorkload>> {
    let address = std::net::Ipv4Addr::from_bits(0xac10_0000 + u32::try_from(n)?);
    let endpoint = WorkloadEndpoint {
        id: WorkloadId { namespace: "ns".into(), name: format!("pod-{n}").into() },
        node: "here".into(),
        iface: format!("cali{n}").parse()?,
        addresses: vec![address.into()],
        labels: Arc::default(),
        profiles: Vec::new(),
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    };
    let tier = EndpointTier {
        name: "default".into(),
        default_action: Action::Deny,
        ingress: policies.iter().map(|p| p.id.clone()).collect(),
        egress: PolicyList::default(),
    };
    Ok(Arc::new(LocalWorkload { endpoint: Arc::new(endpoint), tiers: vec![tier] }))
}

fn member(text: &str) -> Outcome<Member> {
    let net = text.parse().or_else(|_| text.parse().map(|a: std::net::IpAddr| a.into()))?;
    Ok(Member::Net(net))
}

impl Cluster {
    /// Every chain stands for a policy of the one endpoint there is.
    fn read(file: File) -> Outcome<Self> {
        let shape: Shape = serde_json::from_reader(BufReader::new(file))?;
        let mut sets = Vec::new();
        for set in shape.sets {
            let members: Outcome<Vec<_>> = set.members.iter().map(|m| member(m)).collect();
            sets.push((set.id, members?));
        }
        let chain = |c: &ShapeChain| policy(&c.name, c.rules.iter().map(ShapeRule::rule).collect());
        let policies: Vec<_> = shape.chains.iter().map(chain).collect();
        let endpoints = vec![endpoint(0, &policies)?];
        Ok(Self { sets, policies, endpoints })
    }

    /// 10,000 policies, each with a set of three members that it shares with others if `selectors`
    /// are fewer; 200 endpoints with 50 policies each.
    fn policies(selectors: u32) -> Outcome<Self> {
        let id = |n: u32| -> SetId { format!("s:{n}").into() };
        let members = |n: u32| {
            let address = move |i| std::net::Ipv4Addr::from_bits(0x0a00_0000 + 3 * n + i);
            (0..3).map(move |i| Member::Net(std::net::IpAddr::V4(address(i)).into())).collect()
        };
        let rule = |n: u32| {
            let sets = vec![id(n % selectors)];
            let source = CalcMatch { sets, ..CalcMatch::default() };
            CalcRule { source, ..any(Action::Allow) }
        };
        let policies: Vec<_> =
            (0..10_000).map(|n| policy(&format!("policy-{n}"), vec![rule(n)])).collect();
        let endpoints: Outcome<Vec<_>> =
            policies.chunks(50).enumerate().map(|(n, some)| endpoint(n, some)).collect();
        let sets = (0..selectors).map(|n| (id(n), members(n))).collect();
        Ok(Self { sets, policies, endpoints: endpoints? })
    }

    fn outputs(&self) -> Vec<Output> {
        let sets = self.sets.iter().map(|(id, m)| Output::Set(id.clone(), SetKind::Net, m.clone()));
        let policies = self.policies.iter().cloned().map(Output::Policy);
        let endpoints = self.endpoints.iter().cloned().map(Output::Workload);
        sets.chain(policies).chain(endpoints).collect()
    }
}

/// CPU time of this thread.
#[derive(Clone, Copy)]
struct Cpu {
    ours: Duration,
    kernel: Duration,
}

impl Cpu {
    #[expect(unsafe_code, reason = "the standard library does not count a thread's time")]
    fn now() -> Self {
        // SAFETY: all zeroes is a valid `rusage`, and the call writes into it only.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0, "getrusage");
            usage
        };
        let span = |t: libc::timeval| {
            Duration::from_micros(t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64)
        };
        Self { ours: span(usage.ru_utime), kernel: span(usage.ru_stime) }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self {
            ours: self.ours.saturating_sub(before.ours),
            kernel: self.kernel.saturating_sub(before.kernel),
        }
    }
}

/// Prints what one of `n` rounds took on average.
fn measure(what: &str, n: u32, mut round: impl FnMut(u32) -> Outcome<()>) -> Outcome<()> {
    let before = Cpu::now();
    (0..n).try_for_each(&mut round)?;
    let took = Cpu::now() - before;
    let (all, kernel) = ((took.ours + took.kernel) / n, took.kernel / n);
    println!("  {what}: {all:?} CPU, {kernel:?} of it in the kernel");
    Ok(())
}

/// A driver over rules that it has brought into the kernel.
struct Node {
    rules: Rules,
    driver: NftDriver,
    sync: InSync,
    wrote: bool, // anything at its start
}

impl Node {
    fn start(outputs: &[Output]) -> Outcome<Self> {
        let rules = Rules::new(RulesConfig::default());
        let (driver, sync) = (NftDriver::open()?, InSync::for_tests());
        let mut node = Self { rules, driver, sync, wrote: false };
        node.wrote = node.apply(outputs)?;
        Ok(node)
    }

    /// Whether the kernel took something.
    fn apply(&mut self, outputs: &[Output]) -> Outcome<bool> {
        self.rules.apply(outputs);
        let report = self.driver.apply(&mut self.rules, Some(&self.sync))?;
        match report.refused.first() {
            None => Ok(report.changed),
            Some(refused) => Err(format!("refused: {refused:?}").into()),
        }
    }

    fn unchanged(self) -> Outcome<Self> {
        if self.wrote { Err("the restart changed something".into()) } else { Ok(self) }
    }

    fn seal(&mut self) -> Outcome<()> {
        self.driver.seal()?.then_some(()).ok_or_else(|| "not sealed".into())
    }

    /// How many sets both families' tables have.
    fn sets(&self) -> usize {
        self.rules.families().iter().map(|v| self.rules.tables().of(*v).sets().len()).sum()
    }

    fn chains(&self) -> usize {
        self.rules.families().iter().map(|v| self.rules.tables().of(*v).chains().len()).sum()
    }

    fn change(&mut self, output: Output) -> Outcome<()> {
        let changed = self.apply(&[output])?;
        changed.then_some(()).ok_or_else(|| "the change changed nothing".into())
    }
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [shape, rest] = args.as_slice() else {
        println!("shapes: give a shape and the folder of its file, or `policies` and a number");
        return Ok(());
    };
    let cluster = match shape.as_str() {
        "policies" => Cluster::policies(rest.parse()?)?,
        _ => Cluster::read(File::open(format!("{rest}/{shape}.json"))?)?,
    };
    println!("{shape} {rest}: {} sets, {} policies", cluster.sets.len(), cluster.policies.len());
    // Everything on the thread that is in the namespace.
    in_netns(move || run(&cluster).expect("every step succeeds"));
    Ok(())
}

fn run(cluster: &Cluster) -> Outcome<()> {
    let outputs = cluster.outputs();
    let start = |what: &str| -> Outcome<Node> {
        let mut node = None;
        measure(what, 1, |_| {
            node = Some(Node::start(&outputs)?);
            Ok(())
        })?;
        Ok(node.ok_or("no node")?)
    };
    drop(start("cold load")?);
    let node = start("restart over it, not sealed, nothing to do")?;
    drop(node.unchanged()?);
    let mut node = start("once more")?.unchanged()?;
    println!("  {} sets, {} chains in the kernel", node.sets(), node.chains());
    measure("sealing", 1, |_| node.seal())?;
    drop(node);
    let mut node = start("restart over it, sealed, nothing to do")?.unchanged()?;
    measure("nothing to do", 3, |_| {
        let changed = node.apply(&outputs)?;
        (!changed).then_some(()).ok_or_else(|| "equal outputs changed something".into())
    })?;
    // Some sets of the files are asked for by no rule.
    let asked: BTreeSet<&SetId> = cluster
        .policies
        .iter()
        .flat_map(|p| &p.ingress)
        .flat_map(|r| r.source.sets.iter().chain(&r.destination.sets))
        .collect();
    let asked: Vec<_> = cluster.sets.iter().filter(|s| asked.contains(&s.0)).collect();
    let members: usize = asked.iter().map(|s| s.1.len()).sum();
    println!("  {} sets are asked for, with {members} members", asked.len());
    let by_size = |set: &&&(SetId, Vec<Member>)| set.1.len();
    let big = asked.iter().max_by_key(by_size).ok_or("no set")?;
    let small = asked.iter().filter(|s| s.1.len() > 1).min_by_key(by_size).ok_or("no set")?;
    for (id, members) in [*small, *big] {
        let what = format!("one member of a set of {}", members.len());
        measure(&what, 200, |n| node.change(one_member(id, n % 2 == 0)))?;
    }
    one_thing(cluster, &mut node)
}

fn one_member(id: &SetId, add: bool) -> Output {
    let member = vec![Member::Net(std::net::IpAddr::from([192, 0, 2, 1]).into())];
    let (added, removed) = if add { (member, vec![]) } else { (vec![], member) };
    Output::SetDelta { id: id.clone(), added, removed }
}

fn one_thing(cluster: &Cluster, node: &mut Node) -> Outcome<()> {
    let old = &cluster.policies[cluster.policies.len() / 2];
    let with = |rule: CalcRule| {
        let mut rules = old.ingress.clone();
        rules[0] = rule;
        Arc::new(CalcPolicy { ingress: rules, ..(**old).clone() })
    };
    let other = with(any(Action::Deny));
    measure("one rule of a policy", 100, |n| {
        node.change(Output::Policy(if n % 2 == 0 { &other } else { old }.clone()))
    })?;
    let policies = &cluster.policies[..cluster.policies.len().min(50)];
    let pod = endpoint(5_000, policies)?;
    measure("one endpoint that comes or goes", 100, |n| {
        let id = pod.endpoint.id.clone();
        node.change(if n % 2 == 0 {
            Output::Workload(pod.clone())
        } else {
            Output::WorkloadGone(id)
        })
    })?;
    let extra = policy("extra", vec![any(Action::Allow)]);
    let first = &cluster.endpoints[0];
    let mut more = (**first).clone();
    let list = &mut more.tiers[0].ingress;
    list.insert(list.len(), extra.id.clone());
    let more = Arc::new(more);
    measure("one policy that comes or goes, on one endpoint", 100, |n| {
        let steps = match n % 2 {
            0 => [Output::Policy(extra.clone()), Output::Workload(more.clone())],
            _ => [Output::Workload(first.clone()), Output::PolicyGone(extra.id.clone())],
        };
        node.apply(&steps).map(drop)
    })
}
