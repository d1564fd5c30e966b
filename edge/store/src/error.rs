//! Why a store file cannot be opened.

use std::path::PathBuf;

/// The file could not be opened as a store. It was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not SQLite, or damaged.
    #[error(
        "store file {path} is corrupt: {detail}; it was left untouched: restore a copy or move it away"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        detail: String,
    },
    /// An SQLite file, but of another program.
    #[error(
        "{path} is an SQLite file but not a calico store (application id {found:#x}, wanted {wanted:#x})"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The id in the file.
        found: i64,
        /// Our id.
        wanted: i64,
    },
    /// A store written by a version that this one cannot read.
    #[error(
        "store file {path} has format {found}, this program reads format {wanted}: use the version that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The format in the file.
        found: i64,
        /// The format wanted.
        wanted: i64,
    },
    /// Another process has it open.
    #[error("store file {path} is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("store file {path}: the disk is full")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure.
    #[error("cannot open store file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The folder of the file cannot be made, or the writer thread not be started.
    #[error("cannot prepare store file {path}")]
    Prepare {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
