//! Backups: the whole store in one file. A line of JSON that says what follows, then the SQLite database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::migrate::{self, FORMAT};
use crate::{MaintenanceError, Options, Store, control};

/// The word by which a backup is known, and the version of its layout.
const KIND: &str = "calico-store-backup";
const VERSION: u32 = 1;
/// The longest first line that is read.
const LINE: u64 = 4_096;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    kind: String,
    version: u32,
    /// The format of the database in it.
    pub format: i64,
    /// The store that it is of.
    pub identity: String,
    /// The last revision in it.
    pub revision: u64,
    /// How many objects are in it.
    pub objects: u64,
    /// The size of the database in bytes, and its SHA-256.
    pub size: u64,
    /// See `size`.
    pub sha256: String,
    /// When it was made.
    pub created: String,
    /// The version of the program that made it.
    pub program: String,
}

/// Backs up the store in `data_dir` to the file `to`, which must not be there. A server that runs on it
/// does it itself and goes on serving.
pub fn backup(data_dir: &Path, to: &Path) -> Result<Manifest, MaintenanceError> {
    let to = std::path::absolute(to).map_err(|source| MaintenanceError::io(to, source))?;
    if let Some(answer) = control::ask_backup(data_dir, &to)? {
        return Ok(answer);
    }
    let path = data_dir.join("store.db");
    if !path.exists() {
        return Err(MaintenanceError::Missing { path });
    }
    Store::open(&Options::new(path))?.backup(&to)
}

impl Store {
    /// Writes a backup to the file `to`, which must not be there. Writes wait while pages are copied.
    pub fn backup(&self, to: &Path) -> Result<Manifest, MaintenanceError> {
        if to.exists() {
            return Err(MaintenanceError::Exists { path: to.into() });
        }
        let (copy, partial) = (beside(to, "copy"), beside(to, "partial"));
        let outcome = self
            .copy(&copy)
            .and_then(|()| pack(&copy, &partial))
            .and_then(|manifest| settle(&partial, to).map(|()| manifest));
        for left in [&copy, &partial] {
            drop(fs::remove_file(left));
        }
        outcome
    }
}

/// A file that is being made, in the folder of the one that it becomes.
pub(crate) fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// Puts a whole file in its place.
pub(crate) fn settle(from: &Path, to: &Path) -> Result<(), MaintenanceError> {
    let io = |source| MaintenanceError::io(to, source);
    File::open(from).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(from, to).map_err(io)?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Makes a backup of a copied database.
fn pack(database: &Path, to: &Path) -> Result<Manifest, MaintenanceError> {
    let io = |source| MaintenanceError::io(to, source);
    let (revision, objects, identity) = facts(database)?;
    let (size, sha256) = digest(File::open(database).map_err(io)?).map_err(io)?;
    let manifest = Manifest {
        kind: KIND.into(),
        version: VERSION,
        format: FORMAT,
        identity,
        revision,
        objects,
        size,
        sha256,
        created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        program: env!("CARGO_PKG_VERSION").into(),
    };
    let line = serde_json::to_string(&manifest).map_err(io::Error::other).map_err(io)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(to).map_err(io)?;
    let mut write = || {
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")?;
        io::copy(&mut File::open(database)?, &mut file)
    };
    write().map_err(io)?;
    Ok(manifest)
}

fn facts(database: &Path) -> Result<(u64, u64, String), MaintenanceError> {
    let sql = |source| MaintenanceError::Database { path: database.into(), source };
    let db = Connection::open(database).map_err(sql)?;
    let number =
        |query: &str| db.query_row(query, [], |row| row.get::<_, i64>(0)).map(|n| n as u64);
    let revision = number("SELECT revision FROM counter").map_err(sql)?;
    let objects = number("SELECT count(*) FROM objects").map_err(sql)?;
    Ok((revision, objects, migrate::identity(&db).map_err(sql)?))
}

/// Size and SHA-256 of what is left to read.
fn digest(mut from: impl Read) -> io::Result<(u64, String)> {
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            let hex: Vec<_> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok((size, hex.concat()));
        }
        size += read as u64;
        hash.update(&buffer[..read]);
    }
}

/// Takes the database out of a backup, if the backup is whole and of a version known here.
pub(crate) fn unpack(from: &Path, to: &Path) -> Result<Manifest, MaintenanceError> {
    let io = |source| MaintenanceError::io(from, source);
    let damaged = |detail: String| MaintenanceError::Damaged { path: from.into(), detail };
    let mut reader = BufReader::new(File::open(from).map_err(io)?);
    let mut line = Vec::new();
    reader.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(io)?;
    let manifest: serde_json::Value = serde_json::from_slice(&line)
        .map_err(|_| damaged("it does not begin with the manifest of a backup".into()))?;
    if manifest["kind"] != KIND {
        return Err(damaged(format!("its manifest is of kind {}, not {KIND}", manifest["kind"])));
    }
    // Before the rest, which a newer version may say in another way.
    let number = |field: &str| manifest[field].as_i64().unwrap_or(i64::MAX);
    for (what, found, wanted) in
        [("layout", number("version"), i64::from(VERSION)), ("format", number("format"), FORMAT)]
    {
        if found > wanted {
            let program = manifest["program"].as_str().unwrap_or("unknown").to_owned();
            return Err(MaintenanceError::Newer {
                path: from.into(),
                what,
                found,
                wanted,
                program,
            });
        }
    }
    let manifest: Manifest = serde_json::from_value(manifest)
        .map_err(|error| damaged(format!("its manifest is not whole: {error}")))?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut out = options.open(to).map_err(|source| MaintenanceError::io(to, source))?;
    io::copy(&mut reader, &mut out).map_err(io)?;
    let (size, sha256) = File::open(to).and_then(digest).map_err(io)?;
    if size != manifest.size {
        return Err(damaged(format!(
            "it holds a database of {size} bytes, its manifest says {}",
            manifest.size
        )));
    }
    if sha256 != manifest.sha256 {
        return Err(damaged(format!(
            "the checksum of its database is {sha256}, its manifest says {}",
            manifest.sha256
        )));
    }
    Ok(manifest)
}
