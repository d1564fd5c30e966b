//! What can go wrong, by what to do next.

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait, then the same again.
    Retry,
    /// Read again, then decide.
    Reread,
    /// List again: the history that was asked for is gone.
    Relist,
    /// Give up: the request is wrong or not allowed.
    Refused,
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable kubeconfig or service account.
    #[error("datastore configuration: {0}")]
    Config(String),
    /// There is one already.
    #[error("{0} exists already")]
    Exists(String),
    /// It was changed since it was read.
    #[error("{0} was changed meanwhile")]
    Conflict(String),
    /// There is none.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The history is gone (410).
    #[error("the history of {0} is gone")]
    Gone(String),
    /// The server says no.
    #[error("{what}: the server answers {code}: {message}")]
    Api {
        /// The request.
        what: String,
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The server cannot be reached, or broke off.
    #[error("{what}: {message}")]
    Transport {
        /// The request.
        what: String,
        /// Why.
        message: String,
    },
    /// The answer cannot be read.
    #[error("{0}: the answer cannot be read")]
    Decode(String, #[source] serde_json::Error),
}

impl Error {
    /// The one place that decides.
    pub fn next(&self) -> Next {
        match self {
            Self::Exists(_) | Self::Conflict(_) => Next::Reread,
            Self::Gone(_) => Next::Relist,
            Self::Api { code, .. } if *code >= 500 || *code == 429 => Next::Retry,
            Self::Transport { .. } => Next::Retry,
            Self::Config(_) | Self::NotFound(_) | Self::Api { .. } | Self::Decode(..) => {
                Next::Refused
            }
        }
    }

    /// In our words.
    pub(crate) fn of(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) => {
                Self::of_status(what, status.code, &status.reason, status.message.clone())
            }
            kube::Error::SerdeError(e) => Self::Decode(what, e),
            other => Self::Transport { what, message: chain(&other) },
        }
    }

    pub(crate) fn of_status(what: String, code: u16, reason: &str, message: String) -> Self {
        match (code, reason) {
            (409, "AlreadyExists") => Self::Exists(what),
            (409, _) => Self::Conflict(what),
            (404, _) => Self::NotFound(what),
            (410, _) => Self::Gone(what),
            (504, _) if message.contains("Too large resource version") => Self::Gone(what),
            _ => Self::Api { what, code, message },
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = e.source();
    }
    text
}
