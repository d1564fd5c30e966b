//! Who reaches whom.

use policy::Verdict;
use serde::Serialize;

use crate::ask::{Asker, Question};

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

/// Asks for every pair; `question` gives protocol and port.
///
/// # Errors
/// When the question leaves out what is needed.
pub fn matrix(asker: &Asker<'_>, question: &Question) -> Result<Matrix, String> {
    let pods: Vec<String> = asker.view().workloads.keys().map(ToString::to_string).collect();
    let protocol = question.protocol.as_ref().map(api::NumOrString::protocol).transpose()?;
    let mut verdicts = Vec::with_capacity(pods.len());
    for from in &pods {
        let mut row = String::with_capacity(pods.len());
        for to in &pods {
            let one = Question { from: from.clone(), to: to.clone(), ..question.clone() };
            row.push(match asker.ask(&one, false) {
                Ok(answer) if answer.verdict.0 == Verdict::Allow => 'a',
                Ok(_) => 'd',
                Err(error) if error.starts_with("port:") => return Err(error),
                Err(_) => '-',
            });
        }
        verdicts.push(row);
    }
    let protocol = protocol.unwrap_or(model::Protocol::TCP).to_string();
    Ok(Matrix { pods, protocol, port: question.port, verdicts })
}
