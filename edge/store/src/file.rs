//! The SQLite file: opening, checking, loading, and writing one group of changes.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::storage::{Change, ChangeKind, Object, State, StorageError};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use serde_json::Value;

use crate::migrate::{self, FORMAT};
use crate::{Durability, OpenError, Options};

/// `calico` as a number: SQLite's application id of our files.
const APPLICATION_ID: i64 = 0x6361_6c69;
/// How many changes that memory has let go of may stay in the file.
const SLACK: u64 = 64;
/// The format that a file is made in, before it is migrated.
const NEW: i64 = 1;
/// The code of a deletion.
pub(crate) const DELETED: i64 = 2;

/// The tables of format 1. What came after is in `migrate`.
const TABLES: &str = "
    CREATE TABLE objects (
        key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE history (
        revision INTEGER PRIMARY KEY NOT NULL, key TEXT NOT NULL, change INTEGER NOT NULL,
        value BLOB NOT NULL);
    CREATE TABLE counter (
        id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, floor INTEGER NOT NULL);
    INSERT INTO counter VALUES (0, 0, 0);";

/// An open store file. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct File {
    db: Connection,
    keep: u64,
    /// History up to this revision has been trimmed.
    floor: u64,
}

impl File {
    /// Opens or creates the file and reads everything in it.
    pub(crate) fn open(options: &Options) -> Result<(Self, State), OpenError> {
        let path = options.path.as_path();
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)
                .map_err(|source| OpenError::Prepare { path: path.into(), source })?;
        }
        let prepare = |source| OpenError::Prepare { path: path.into(), source };
        // A file that is there may be somebody else's: its mode waits until it is known for ours.
        if !path.exists() {
            create_private(path).map_err(prepare)?;
        }
        let fail = |error: rusqlite::Error| explain(path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags).map_err(fail)?;
        db.busy_timeout(options.busy_timeout).map_err(fail)?;
        // Exclusive: a second process on the same file is an error. Said before the first look at the file,
        // so that no shared memory file is needed beside it, which a full disk would refuse.
        db.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(fail)?;
        identify(&db, path)?;
        configure(&db, options.durability).map_err(fail)?;
        let fresh = create(&mut db).map_err(fail)?;
        check(&db, path)?;
        make_private(path).map_err(prepare)?;
        let found = migrate::migrate(&mut db).map_err(fail)?;
        if found != FORMAT && !fresh {
            tracing::info!(path = %path.display(), from = found, to = FORMAT, "store file migrated");
        }
        let keep = u64::try_from(options.history.max(1)).unwrap_or(u64::MAX);
        let state = load(&db, options, path)?;
        Ok((Self { db, keep, floor: state.floor }, state))
    }

    /// Writes `changes` durably, all or none. History up to `floor` is no longer wanted.
    pub(crate) fn write(&mut self, changes: &[Change], floor: u64) -> Result<(), StorageError> {
        self.try_write(changes, floor).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StorageError::Full(error.to_string()),
            _ => StorageError::Failed(error.to_string()),
        })
    }

    fn try_write(&mut self, changes: &[Change], wanted: u64) -> Result<(), rusqlite::Error> {
        let Some(last) = changes.last().map(|c| c.object.revision()) else { return Ok(()) };
        let tx = self.db.transaction()?;
        {
            let mut put =
                tx.prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3)")?;
            let mut remove = tx.prepare_cached("DELETE FROM objects WHERE key = ?1")?;
            let mut note = tx.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3, ?4)")?;
            for change in changes {
                let (key, json) = (&**change.object.key(), &**change.object.json());
                let revision = change.object.revision() as i64;
                match change.kind {
                    ChangeKind::Deleted => remove.execute(params![key])?,
                    _ => put.execute(params![key, revision, json])?,
                };
                note.execute(params![revision, key, code(change.kind), json])?;
            }
        }
        // Trimmed in steps, so that the cost is spread over many writes.
        let counted = last.saturating_sub(self.keep);
        let floor = counted.max(wanted);
        // Large objects fill the memory of changes before there are many of them.
        let step = if wanted > counted { SLACK } else { self.keep.div_ceil(8) };
        let trim = floor >= self.floor + step;
        if trim {
            tx.execute("DELETE FROM history WHERE revision <= ?1", params![floor as i64])?;
        }
        let kept = if trim { floor } else { self.floor };
        tx.prepare_cached("UPDATE counter SET revision = ?1, floor = ?2")?
            .execute(params![last as i64, kept as i64])?;
        tx.commit()?;
        self.floor = kept;
        Ok(())
    }
}

fn cannot_create(path: &Path, error: &io::Error) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some(format!("{}: {error}", path.display())))
}

/// Makes a file, if it is not there, for its owner only: secrets will be in it.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes the file and its log nobody else's to read. SQLite gives the log the mode of the file; one that is
/// left from before gets it here. By name: whoever closes a file loses the locks that his process has on it.
fn make_private(path: &Path) -> io::Result<()> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    match std::fs::set_permissions(Path::new(&log), Permissions::from_mode(0o600)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl File {
    /// Copies the whole database to a file, page by page, and leaves that in rollback mode: one file.
    pub(crate) fn copy(&self, to: &Path) -> Result<(), rusqlite::Error> {
        create_private(to)
            .and_then(|()| make_private(to))
            .map_err(|error| cannot_create(to, &error))?;
        let mut target = Connection::open(to)?;
        target.pragma_update(None, "synchronous", "OFF")?;
        let copy = Backup::new(&self.db, &mut target)?;
        loop {
            match copy.step(-1)? {
                StepResult::Done => break,
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        drop(copy);
        target.pragma_update(None, "journal_mode", "DELETE")
    }
}

/// Refuses files that are not ours, before anything in them is touched.
pub(crate) fn identify(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let fail = |error| explain(path, error);
    let id = number("PRAGMA application_id").map_err(fail)?;
    let version = number("PRAGMA user_version").map_err(fail)?;
    let tables = number("SELECT count(*) FROM sqlite_master").map_err(fail)?;
    if id == 0 && version == 0 && tables == 0 {
        return Ok(());
    }
    if id != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into(), found: id, wanted: APPLICATION_ID });
    }
    if !(NEW..=FORMAT).contains(&version) {
        return Err(OpenError::Version { path: path.into(), found: version, wanted: FORMAT });
    }
    Ok(())
}

fn configure(db: &Connection, durability: Durability) -> Result<(), rusqlite::Error> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    let level = match durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    db.pragma_update(None, "synchronous", level)?;
    db.pragma_update(None, "temp_store", "MEMORY")
}

/// Makes the tables in a new file, in one transaction with the ids that mark it as ours.
/// Says whether the file was new.
fn create(db: &mut Connection) -> Result<bool, rusqlite::Error> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables == 0 {
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", NEW)?;
    }
    tx.commit()?;
    Ok(tables == 0)
}

fn check(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(|error| explain(path, error))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(OpenError::Corrupt { path: path.into(), detail: verdict })
}

fn load(db: &Connection, options: &Options, path: &Path) -> Result<State, OpenError> {
    let fail = |error| explain(path, error);
    let (revision, floor) = db
        .query_row("SELECT revision, floor FROM counter", [], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })
        .map_err(fail)?;
    let mut state = State::new(options.history.max(1), options.history_bytes);
    (state.revision, state.floor) = (revision, floor);
    let mut query = db.prepare("SELECT key, revision, value FROM objects").map_err(fail)?;
    let mut rows = query.query([]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let object = object(row, path, 0, 1, 2)?;
        state.objects.insert(object.key().clone(), object);
    }
    let mut query = db
        .prepare("SELECT key, revision, value, change FROM history WHERE revision > ?1 ORDER BY revision")
        .map_err(fail)?;
    let mut rows = query.query(params![floor as i64]).map_err(fail)?;
    let mut seen: HashMap<Arc<str>, Arc<Object>> = HashMap::new();
    while let Some(row) = rows.next().map_err(fail)? {
        let object = object(row, path, 0, 1, 2)?;
        let kind = kind(row.get(3).map_err(fail)?);
        let previous = match kind {
            ChangeKind::Created => None,
            _ => seen.remove(object.key()),
        };
        if kind != ChangeKind::Deleted {
            seen.insert(object.key().clone(), object.clone());
        }
        let size = row.get_ref(2).map_err(fail)?.as_blob().map_or(0, <[u8]>::len);
        state.remember(Change { kind, object, previous }, size);
    }
    state.known = revision;
    Ok(state)
}

fn object(
    row: &rusqlite::Row<'_>,
    path: &Path,
    key: usize,
    revision: usize,
    value: usize,
) -> Result<Arc<Object>, OpenError> {
    let fail = |error| explain(path, error);
    let key: Arc<str> = row.get::<_, String>(key).map_err(fail)?.into();
    let revision = row.get::<_, i64>(revision).map_err(fail)? as u64;
    let bytes = row.get_ref(value).map_err(fail)?.as_blob().unwrap_or_default();
    let value: Value = serde_json::from_slice(bytes).map_err(|error| OpenError::Corrupt {
        path: path.into(),
        detail: format!("object {key} at revision {revision} is not JSON: {error}"),
    })?;
    Ok(Arc::new(Object::new(key, revision, value)))
}

fn code(kind: ChangeKind) -> i64 {
    match kind {
        ChangeKind::Created => 0,
        ChangeKind::Updated => 1,
        ChangeKind::Deleted => DELETED,
    }
}

fn kind(code: i64) -> ChangeKind {
    match code {
        0 => ChangeKind::Created,
        1 => ChangeKind::Updated,
        _ => ChangeKind::Deleted,
    }
}

pub(crate) fn explain(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_path_buf();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Corrupt { path, detail: source.to_string() }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::DiskFull) => OpenError::Full { path },
        _ => OpenError::Io { path, source },
    }
}
