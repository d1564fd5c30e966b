//! One request to a Kubernetes API server, and what its refusals mean.

use std::error::Error as _;
use std::time::Duration;

use http::{Method, Request, header};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backend::RemoteError;

/// No single request takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server that is too busy is left alone when it does not say.
const PAUSE: Duration = Duration::from_secs(1);
/// Nor is it left alone longer than this because it says so.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A request that was answered with anything but success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    message: String,
    /// For how long the server does not want to hear of us.
    after: Option<Duration>,
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No answer: it may have been performed.
    Silence(String),
    Refusal(Refusal),
}

/// Sends a request and reads the whole answer.
pub(super) async fn ask<T: DeserializeOwned>(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<T, Trouble> {
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Body::from(bytes))
        .map_err(|error| Trouble::Silence(format!("{path}: {error}")))?;
    let answer = async {
        let response = client.send(request).await?;
        let (head, body) = response.into_parts();
        Ok::<_, kube::Error>((head, body.collect_bytes().await?))
    };
    let (head, bytes) = match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(Trouble::Silence(chain(&error))),
        Err(_) => {
            let text = format!("the API server did not answer within {} s", TIMEOUT.as_secs());
            return Err(Trouble::Silence(text));
        }
    };
    if head.status.is_success() {
        return serde_json::from_slice(&bytes)
            .map_err(|error| Trouble::Silence(format!("the answer to {path}: {error}")));
    }
    let seconds = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    Err(Trouble::Refusal(Refusal::read(head.status.as_u16(), &bytes, seconds)))
}

impl Refusal {
    fn read(code: u16, bytes: &[u8], after: Option<Duration>) -> Self {
        let status: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let message = match status["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim().to_owned(),
        };
        let told = status["details"]["retryAfterSeconds"].as_u64().map(Duration::from_secs);
        Self { code, message, after: after.or(told) }
    }

    /// Of an error that comes within a watch.
    pub(super) fn of(status: &kube::core::Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Self { code: status.code, message: status.message.clone(), after }
    }

    /// Whether it says for sure that nothing was done.
    pub(super) fn is_certain(&self) -> bool {
        self.code < 500
    }
}

impl From<Refusal> for RemoteError {
    fn from(Refusal { code, message, after }: Refusal) -> Self {
        let text = format!("the API server answers {code}: {message}");
        let pause = |after: Option<Duration>| after.unwrap_or(PAUSE).min(LONGEST_PAUSE);
        match code {
            401 | 403 => Self::Forbidden(text),
            410 => Self::Compacted,
            504 if message.contains("Too large resource version") => Self::Compacted,
            429 => Self::Throttled { text, after: pause(after) },
            500.. if after.is_some() => Self::Throttled { text, after: pause(after) },
            500.. => Self::Unavailable(text),
            _ => Self::Answer { code, message },
        }
    }
}

impl From<Trouble> for RemoteError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Silence(text) => Self::Unavailable(text),
            Trouble::Refusal(refusal) => refusal.into(),
        }
    }
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &kube::Error) -> String {
    let mut text = format!("the API server: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let read = |code, body: &str, after: Option<u64>| {
            let after = after.map(Duration::from_secs);
            RemoteError::from(Refusal::read(code, body.as_bytes(), after))
        };
        let busy = r#"{"message":"slow down","details":{"retryAfterSeconds":7}}"#;
        let pause = |error| match error {
            RemoteError::Throttled { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(read(429, busy, None)), 7);
        assert_eq!(pause(read(429, busy, Some(3))), 3, "the header is nearer");
        assert_eq!(pause(read(429, "", None)), 1);
        assert_eq!(pause(read(503, "", Some(100_000))), 30);
        assert!(
            matches!(read(500, "<html>", None), RemoteError::Unavailable(t) if t.contains("html"))
        );
        assert!(matches!(read(410, "{}", None), RemoteError::Compacted));
        let large = r#"{"message":"Too large resource version: 9, current: 8"}"#;
        assert!(matches!(read(504, large, Some(1)), RemoteError::Compacted));
        assert!(matches!(read(403, "{}", None), RemoteError::Forbidden(_)));
        let wrong = read(422, r#"{"message":"spec.x is wrong"}"#, None);
        assert!(
            matches!(wrong, RemoteError::Answer { code: 422, message } if message == "spec.x is wrong")
        );
    }
}
