//! Why a store file cannot be opened.

use std::path::{Path, PathBuf};

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
        "store file {path} has format {found}, this program reads formats up to {wanted}: use the version that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The format in the file.
        found: i64,
        /// The newest format that can be read.
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

/// Why a store was not backed up, restored or checked.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no store.
    #[error("{path} is not there: is this the folder of a store?")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file is there that would be overwritten.
    #[error("{path} is there already; nothing was changed")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A backup is not whole, or not a backup.
    #[error("backup {path} cannot be used: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A backup of a newer version.
    #[error(
        "backup {path} has {what} {found}, this program reads up to {wanted}: use calico {program}, which made it, or newer"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is newer.
        what: &'static str,
        /// The number in the file.
        found: i64,
        /// The number that can be read.
        wanted: i64,
        /// The version of the program that made it.
        program: String,
    },
    /// A database inside a backup, or a copy of one.
    #[error("cannot use the database {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The server that runs on the store did not do it.
    #[error("the server: {0}")]
    Refused(String),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl MaintenanceError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
