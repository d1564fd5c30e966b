//! Expectations: tests of policy.

use policy::Verdict;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, verdict};
use crate::ask::{Asker, Question};

/// The words of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Want {
    Allow,
    Deny,
}

/// What somebody expects of one connection. Unknown fields are an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Written")]
pub struct Expectation {
    /// The connection.
    #[serde(flatten)]
    pub question: Question,
    expect: Want,
}

/// As written; flattened fields and unknown ones cannot be told apart by serde.
#[derive(Deserialize)]
struct Written(serde_json::Map<String, serde_json::Value>);

impl TryFrom<Written> for Expectation {
    type Error = String;
    fn try_from(Written(mut map): Written) -> Result<Self, String> {
        let expect = map.remove("expect").ok_or("expect: missing; want allow or deny")?;
        let expect = serde_json::from_value(expect)
            .map_err(|e| format!("expect: {e}; want allow or deny"))?;
        let question = serde_json::from_value(map.into()).map_err(|e| e.to_string())?;
        Ok(Self { question, expect })
    }
}

/// How an expectation fared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The expectation.
    #[serde(flatten)]
    pub expectation: Expectation,
    /// `allow`, `deny`, or nothing where the question has no answer.
    pub got: Option<&'static str>,
    /// Whether that was expected.
    pub pass: bool,
    /// Why.
    #[serde(flatten)]
    pub answer: Option<Answer>,
    /// Why the question has no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Expectation {
    /// Asks.
    pub fn test(&self, asker: &Asker<'_>) -> Report {
        let expectation = self.clone();
        match asker.ask(&self.question, false) {
            Ok(answer) => {
                let want = if self.expect == Want::Allow { Verdict::Allow } else { Verdict::Deny };
                let (got, pass) = (Some(verdict(answer.verdict.0)), answer.verdict.0 == want);
                Report { expectation, got, pass, answer: Some(answer), error: None }
            }
            Err(error) => {
                Report { expectation, got: None, pass: false, answer: None, error: Some(error) }
            }
        }
    }

    /// The word that was expected.
    pub fn wanted(&self) -> &'static str {
        match self.expect {
            Want::Allow => "allow",
            Want::Deny => "deny",
        }
    }
}
