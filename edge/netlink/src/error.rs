//! What can go wrong between us and the kernel.

use std::io;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The kernel's own answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", io::Error::from_raw_os_error(*errno), if message.is_empty() { String::new() } else { format!(": {message}") })]
pub struct Refusal {
    /// Error number, positive.
    pub errno: i32,
    /// The kernel's explanation, often empty.
    pub message: String,
}

impl Refusal {
    /// What was to be removed is not there, or its interface is not.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno,
            libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL | libc::ENXIO
        )
    }

    /// What was to be made is there already.
    pub fn is_existing(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// No route leads there: none at all, or one that swallows, refuses or forbids.
    pub fn is_no_route(&self) -> bool {
        matches!(self.errno, libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
    }
}

/// What a call of this crate can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the request; ask differently.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        refusal: Refusal,
    },
    /// The socket failed; open a new one.
    #[error("netlink {call}: {source}")]
    Socket {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The state changed under every one of several dumps; try later.
    #[error("{what}: dump was interrupted by changes {tries} times")]
    Disturbed {
        /// What was dumped.
        what: &'static str,
        /// How often it was tried.
        tries: u32,
    },
    /// The kernel's answer makes no sense to us.
    #[error("{what}: answer of {len} bytes cannot be read")]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// Length of the answer.
        len: usize,
    },
    /// A file of the kernel could not be opened, read or written.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error("cannot enter network namespace: {0}")]
    Netns(nix::Error),
    /// No such interface.
    #[error("interface {0} does not exist")]
    NoLink(String),
    /// The text to store with an interface is too long or holds spaces.
    #[error(
        "{0:?} cannot be stored in an interface alias (want up to 255 bytes in all, no spaces)"
    )]
    BadAlias(String),
}

impl Error {
    pub(crate) fn socket(call: &'static str, source: io::Error) -> Self {
        Self::Socket { call, source }
    }

    /// Whether the thing that the request was about is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_missing(),
            Self::NoLink(_) => true,
            _ => false,
        }
    }
}
