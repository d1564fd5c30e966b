//! `why`, `policy eval`, `policy matrix`, `policy test`: questions about files or the cluster.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ::explain::{Answer, Asker, Considered, Expectation, Half, Question, Reference, ask_line};
use anyhow::{Context as _, Result, bail};
use api::NumOrString;
use policy::{Verdict, View};
use serde_json::{Value, json};

use crate::args::{
    AboutArgs, Access, ConnectionArgs, EvalArgs, MatrixArgs, ResultOutput, TestArgs, WhyArgs,
};
use crate::cluster::Cluster;
use crate::files::{load_unchecked, read};
use crate::print::{self, Out, Table};
use crate::{Outcome, check, live, wait};

/// What is read from a cluster, beside our own kinds: path, `apiVersion`, kind.
const KUBERNETES: [(&str, &str, &str); 8] = [
    ("/api/v1/nodes", "v1", "Node"),
    ("/api/v1/namespaces", "v1", "Namespace"),
    ("/api/v1/serviceaccounts", "v1", "ServiceAccount"),
    ("/api/v1/pods", "v1", "Pod"),
    ("/api/v1/services", "v1", "Service"),
    ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    ("/apis/networking.k8s.io/v1/networkpolicies", "networking.k8s.io/v1", "NetworkPolicy"),
    (
        "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
    ),
];
/// Our own kinds that decide about packets.
const OURS: [&str; 12] = [
    "IPPool",
    "FelixConfiguration",
    "Tier",
    "Profile",
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "NetworkSet",
    "GlobalNetworkSet",
    "HostEndpoint",
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
];

/// What stands for nodes and pods where there is no Kubernetes.
const OURS_ALONE: [&str; 2] = ["Node", "WorkloadEndpoint"];

/// The objects in question; none if some are bad, which has been told.
fn objects(access: &Access, about: &AboutArgs) -> Result<Option<::explain::Cluster>> {
    if about.files.filename.is_empty() {
        return wait(from_cluster(access)).map(Some);
    }
    let mut cluster = ::explain::Cluster::default();
    let mut bad = Vec::new();
    for mut loaded in load_unchecked(&about.files)? {
        if let Some(object) = &loaded.object
            && let Err(errors) = cluster.add(object.clone())
        {
            loaded.errors = errors;
        }
        if !loaded.errors.is_empty() {
            bad.push(loaded);
        }
    }
    check::tell(&bad);
    tell_problems(&cluster);
    Ok(bad.is_empty().then_some(cluster))
}

/// What is malformed in a running cluster, its agents leave out as well.
async fn from_cluster(access: &Access) -> Result<::explain::Cluster> {
    let connection = Cluster::connect(access).await?;
    let kubernetes = KUBERNETES.map(|(path, version, kind)| (path.into(), version.into(), kind));
    let alone = OURS_ALONE.iter().filter(|_| connection.is_alone());
    let ours = OURS.iter().chain(alone).filter_map(|name| {
        let kind = api::lookup("projectcalico.org/v3", name)?;
        Some((connection.path(kind, None, None), kind.api_version(), kind.kind))
    });
    let mut cluster = ::explain::Cluster::default();
    let all: Vec<(String, String, &str)> = kubernetes.into_iter().chain(ours).collect();
    for (path, version, kind) in all {
        for mut object in connection.list(&path).await?.unwrap_or_default() {
            object["apiVersion"] = version.clone().into();
            object["kind"] = kind.into();
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            for error in cluster.add_stored(object).err().into_iter().flatten() {
                print::complain(&format!("left out: {kind} {name}: {error}"));
            }
        }
    }
    tell_problems(&cluster);
    Ok(cluster)
}

fn tell_problems(cluster: &::explain::Cluster) {
    for problem in &cluster.problems {
        print::complain(&format!("left out: {}: {}", problem.object, problem.error));
    }
}

/// Asks about the objects; `Failed` if there is nothing to ask about.
fn asking(
    access: &Access,
    about: &AboutArgs,
    ask: impl FnOnce(&Asker<'_>) -> Result<Outcome>,
) -> Result<Outcome> {
    let Some(cluster) = objects(access, about)? else { return Ok(Outcome::Failed) };
    let view: View = if about.staged { cluster.staged_view() } else { cluster.view() };
    ask(&Asker::new(&cluster, &view))
}

fn protocol(text: &str) -> NumOrString {
    NumOrString::Text(text.to_owned())
}

pub(crate) fn why(access: &Access, args: &WhyArgs) -> Result<Outcome> {
    let (to, port) = Reference::with_port(&args.to)?;
    let ConnectionArgs { port: option, protocol: name } = &args.connection;
    if port.is_some() && option.is_some() && port != *option {
        bail!("{} and --port {} disagree", args.to, option.unwrap_or_default());
    }
    let question = Question {
        from: args.from.clone(),
        to: to.to_string(),
        protocol: Some(protocol(name)),
        port: port.or(*option),
        ..Question::default()
    };
    asking(access, &args.about, |asker| {
        let answer = asker.ask(&question, true).map_err(anyhow::Error::msg)?;
        let ask = args.live || args.trace.is_some();
        let live = if ask { Some(live::look(asker, &question, args.trace)?) } else { None };
        let mut out = Out::new();
        if args.output == ResultOutput::Json {
            let mut told = json!(answer);
            if let Some(live) = &live {
                live.join(&mut told);
            }
            out.line(&told.to_string())?;
        } else {
            out.line(&tell(&question, &answer))?;
            if let Some(live) = &live {
                out.line(&live.tell())?;
            }
        }
        out.finish()?;
        Ok(live.map_or(Outcome::Done, |live| live.outcome()))
    })
}

/// For people: the verdict, then per backend and direction what was looked at.
fn tell(question: &Question, answer: &Answer) -> String {
    let port = question.port.map(|p| format!(" port {p}")).unwrap_or_default();
    let protocol = question.protocol.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut text =
        format!("{}: {} to {}, {protocol}{port}\n", word(answer), question.from, question.to);
    if answer.backends.is_empty() {
        text += &halves(answer);
    }
    for backend in &answer.backends {
        let (to, port) = (backend.to, backend.port);
        let _ = writeln!(text, "{}: backend {to} port {port}", word(&backend.answer));
        text += &halves(&backend.answer);
    }
    text
}

fn word(answer: &Answer) -> &'static str {
    if answer.verdict.0 == Verdict::Allow { "allowed" } else { "denied" }
}

fn halves(answer: &Answer) -> String {
    let mut text = String::new();
    for (direction, half) in [("egress", &answer.egress), ("ingress", &answer.ingress)] {
        let Some(half) = half else { continue };
        let _ = writeln!(text, "  {direction}: {}", half_text(half));
        let mut table = Table::new(["", "AT", "TIER", "POLICY", "RULE", "ACTION", "RESULT"]);
        let looked = answer.considered.iter().filter(|c| c.direction == direction);
        let mut any = false;
        for c in looked {
            any = true;
            table.row(considered(c));
        }
        if any {
            let aligned = table.aligned(None);
            text.extend(aligned.lines().map(|line| format!("    {}\n", line.trim_end())));
        }
    }
    text
}

fn half_text(half: &Half) -> String {
    let verdict = if half.verdict.0 == Verdict::Allow { "allow" } else { "deny" };
    let policy = match (&half.policy, half.rule) {
        (Some(name), Some(rule)) => {
            let slash = half.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
            format!(" by {} {slash}{name}, rule {rule}", half.kind.unwrap_or_default())
        }
        _ => format!(" ({})", half.reason),
    };
    let tier = half.tier.as_ref().map(|t| format!(", tier {t}")).unwrap_or_default();
    format!("{verdict}{policy}{tier}")
}

fn considered(c: &Considered) -> [String; 7] {
    let name = match (&c.policy, &c.profile) {
        (Some(policy), _) => {
            let slash = c.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
            format!("{} {slash}{policy}", c.kind.unwrap_or_default())
        }
        (None, Some(profile)) => format!("profile {profile}"),
        (None, None) => String::new(),
    };
    let result = c.failed.map_or("matches".to_owned(), |field| format!("{field} differs"));
    [
        if c.matched { "*" } else { " " }.to_owned(),
        c.at.clone().unwrap_or_default(),
        c.tier.clone().unwrap_or_default(),
        name,
        c.rule.to_string(),
        c.action.to_owned(),
        result,
    ]
}

pub(crate) fn eval(access: &Access, args: &EvalArgs) -> Result<Outcome> {
    asking(access, &args.about, |asker| {
        let mut out = Out::new();
        let name = args.packets.display();
        let input: Box<dyn BufRead> = if args.packets == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            let file = std::fs::File::open(&args.packets);
            Box::new(BufReader::new(file.with_context(|| format!("cannot read {name}"))?))
        };
        for line in input.split(b'\n') {
            let line = line.with_context(|| format!("cannot read {name}"))?;
            let line = String::from_utf8_lossy(&line);
            if !line.trim().is_empty() {
                out.line(&ask_line(asker, &line))?;
            }
        }
        out.finish()?;
        Ok(Outcome::Done)
    })
}

pub(crate) fn matrix(access: &Access, args: &MatrixArgs) -> Result<Outcome> {
    let ConnectionArgs { port, protocol: name } = &args.connection;
    let question = Question { protocol: Some(protocol(name)), port: *port, ..Question::default() };
    if args.about.staged {
        return staged(access, args, &question);
    }
    asking(access, &args.about, |asker| {
        let matrix = ::explain::matrix(asker, &question).map_err(anyhow::Error::msg)?;
        let mut out = Out::new();
        if args.output == ResultOutput::Json {
            // A letter a pair can be much: not once more as a tree.
            out.line(&serde_json::to_string(&matrix)?)?;
        } else {
            let numbers = (1..=matrix.pods.len()).map(|n| n.to_string());
            let mut table = Table::new(["FROM".to_owned()].into_iter().chain(numbers));
            for (i, (pod, row)) in matrix.pods.iter().zip(&matrix.verdicts).enumerate() {
                let cells = row.chars().map(|c| match c {
                    'a' => "yes".to_owned(),
                    _ => "-".to_owned(),
                });
                table.row([format!("{} {pod}", i + 1)].into_iter().chain(cells));
            }
            out.table(&table)?;
            if matrix.pods.is_empty() {
                print::complain("there are no pods with addresses");
            }
        }
        out.finish()?;
        Ok(Outcome::Done)
    })
}

/// What staged policies would change, if they were in force.
fn staged(access: &Access, args: &MatrixArgs, question: &Question) -> Result<Outcome> {
    let Some(cluster) = objects(access, &args.about)? else { return Ok(Outcome::Failed) };
    let matrix = |view: &View| {
        let matrix = ::explain::matrix(&Asker::new(&cluster, view), question);
        matrix.map_err(anyhow::Error::msg)
    };
    let (now, staged) = (matrix(&cluster.view())?, matrix(&cluster.staged_view())?);
    let changes = now.changes(&staged);
    let mut out = Out::new();
    if args.output == ResultOutput::Json {
        let mut whole = json!(now);
        whole["staged"] = json!(staged.verdicts);
        whole["changes"] = json!(changes);
        out.line(&whole.to_string())?;
    } else {
        let mut table = Table::new(["FROM", "TO", "NOW", "STAGED"]);
        for change in &changes {
            let cells = [&change.from, &change.to, change.now, change.staged];
            table.row(cells.map(str::to_owned));
        }
        if !changes.is_empty() {
            out.table(&table)?;
        }
        let pairs = now.pods.len() * now.pods.len();
        out.line(&format!("{} of {pairs} pairs would change", changes.len()))?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}

pub(crate) fn test(access: &Access, args: &TestArgs) -> Result<Outcome> {
    let Some(expectations) = expectations(args)? else { return Ok(Outcome::Failed) };
    asking(access, &args.about, |asker| {
        let reports: Vec<_> = expectations.iter().map(|e| e.test(asker)).collect();
        let failed = reports.iter().filter(|r| !r.pass).count();
        let mut out = Out::new();
        for report in &reports {
            if args.output == ResultOutput::Json {
                out.line(&json!(report).to_string())?;
                continue;
            }
            let question = &report.expectation.question;
            let port = question.port.map(|p| format!(":{p}")).unwrap_or_default();
            let got = match (&report.got, &report.error) {
                (Some(got), _) => (*got).to_owned(),
                (None, error) => error.clone().unwrap_or_default(),
            };
            out.line(&format!(
                "{} {} -> {}{port}: want {}, got {got}",
                if report.pass { "ok  " } else { "FAIL" },
                question.from,
                question.to,
                report.expectation.wanted(),
            ))?;
        }
        if args.output == ResultOutput::Text {
            out.line(&format!("{} met, {failed} not met", reports.len() - failed))?;
        }
        out.finish()?;
        Ok(if failed == 0 { Outcome::Done } else { Outcome::Failed })
    })
}

/// From YAML or JSON: documents that are an expectation, or a list of them. All errors are told.
fn expectations(args: &TestArgs) -> Result<Option<Vec<Expectation>>> {
    let mut all = Vec::new();
    let mut bad = false;
    for path in &args.tests {
        let (file, text) = read(path)?;
        let before = all.len();
        for document in api::yaml::documents(&text) {
            let number = document.number;
            let items = match document.object {
                Ok(Value::Array(items)) => items,
                Ok(other) => vec![other],
                Err(error) => {
                    bad = true;
                    print::complain(&format!("{file}: document {number}: {error}"));
                    continue;
                }
            };
            for (i, item) in items.into_iter().enumerate() {
                match serde_json::from_value(item) {
                    Ok(expectation) => all.push(expectation),
                    Err(error) => {
                        bad = true;
                        let place = format!("{file}: document {number}: expectation {}", i + 1);
                        print::complain(&format!("{place}: {error}"));
                    }
                }
            }
        }
        if all.len() == before && !bad {
            bail!("{file}: holds no expectation");
        }
    }
    Ok((!bad).then_some(all))
}
