//! Who reaches whom.

use std::collections::HashMap;

use model::{IpVersion, Protocol};
use policy::Verdict;
use serde::Serialize;

use crate::ask::{Asker, Question, between_any};

/// All pairs of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// `namespace/name`, sorted: rows and columns.
    pub pods: Vec<String>,
    /// The protocol that was asked about.
    pub protocol: String,
    /// The port, for protocols that have ports.
    pub port: Option<u16>,
    /// A row a source, a letter a destination: `a` for allow, `d` for deny, `-` where the two have
    /// no address of one family.
    pub verdicts: Vec<String>,
}

/// A pair whose verdict another state of the cluster changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The source, `namespace/name`.
    pub from: String,
    /// The destination.
    pub to: String,
    /// `allow` or `deny`.
    pub now: &'static str,
    /// As `now`, in the other state.
    pub staged: &'static str,
}

impl Matrix {
    /// The pairs that are other in `staged`, of the same pods.
    pub fn changes(&self, staged: &Self) -> Vec<Change> {
        let word = |letter| if letter == 'a' { "allow" } else { "deny" };
        let mut all = Vec::new();
        for (from, rows) in self.pods.iter().zip(self.verdicts.iter().zip(&staged.verdicts)) {
            for (to, (now, then)) in self.pods.iter().zip(rows.0.chars().zip(rows.1.chars())) {
                if now != then {
                    let (from, to) = (from.clone(), to.clone());
                    all.push(Change { from, to, now: word(now), staged: word(then) });
                }
            }
        }
        all
    }
}

/// Everybody to everybody; `question` gives protocol and port. Cost: see [`policy::Judge::reach`]; memory
/// of the answer: a byte a pair.
///
/// # Errors
/// When the question leaves out what is needed.
pub fn matrix(asker: &Asker<'_>, question: &Question) -> Result<Matrix, String> {
    let workloads = &asker.view().workloads;
    let like = between_any(question)?;
    let runs_over = |version| match like.protocol {
        Protocol::ICMP => version == IpVersion::V4,
        Protocol::ICMPV6 => version == IpVersion::V6,
        _ => true,
    };
    // Of each pod the first address of a family, in its own order of families.
    let mut addresses = Vec::new();
    let mut ends = Vec::with_capacity(workloads.len());
    for pod in workloads.values() {
        let mut own: End = Vec::with_capacity(2);
        for address in &pod.addresses {
            let version = IpVersion::of(*address);
            if runs_over(version) && own.iter().all(|(v, _)| *v != version) {
                own.push((version, addresses.len()));
                addresses.push(*address);
            }
        }
        ends.push(own);
    }
    let reach = asker.judge().reach(&addresses, &like);
    // Whose packets stay in one pod: a pod's to itself, and where several have one address.
    let mut same_pod: HashMap<usize, Vec<usize>> = HashMap::new();
    for (number, end) in ends.iter().enumerate() {
        for (_, address) in end {
            same_pod.entry(reach.pod(*address)).or_default().push(number);
        }
    }
    // But for those, pods of one kind say the same.
    let mut rows: HashMap<Vec<(IpVersion, usize)>, Vec<u8>> = HashMap::new();
    let row = |from: &End| {
        let kind = from.iter().map(|(version, at)| (*version, reach.class(*at))).collect();
        let of_kind = rows.entry(kind).or_insert_with(|| {
            ends.iter().map(|to| letter(from, to, |a, b| reach.of_classes(a, b))).collect()
        });
        let mut row = of_kind.clone();
        for to in from.iter().flat_map(|(_, address)| &same_pod[&reach.pod(*address)]) {
            row[*to] = letter(from, &ends[*to], |a, b| reach.verdict(a, b));
        }
        row.into_iter().map(char::from).collect()
    };
    Ok(Matrix {
        pods: workloads.keys().map(ToString::to_string).collect(),
        protocol: like.protocol.to_string(),
        port: question.port,
        verdicts: ends.iter().map(row).collect(),
    })
}

/// A pod's families, in its order, each with the index of an address.
type End = Vec<(IpVersion, usize)>;

/// The verdict of a packet of the first family that both have.
fn letter(from: &End, to: &End, verdict: impl Fn(usize, usize) -> Verdict) -> u8 {
    let same = |version: IpVersion| to.iter().find(|(v, _)| *v == version);
    let pair = from.iter().find_map(|(version, a)| same(*version).map(|(_, b)| (*a, *b)));
    match pair.map(|(from, to)| verdict(from, to)) {
        Some(Verdict::Allow) => b'a',
        Some(Verdict::Deny) => b'd',
        None => b'-',
    }
}
