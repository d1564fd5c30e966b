//! Restoring a backup: the store goes back, its revisions never do.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::backup::{Manifest, beside, settle, unpack};
use crate::{MaintenanceError, OpenError, Options, Store, check, migrate};

/// How far revisions jump: beyond any that the store may have given out since the backup, so that no
/// client takes what it knows for what there is.
const JUMP: u64 = 1_000_000_000;

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// The revision that the store goes on from.
    pub revision: u64,
    /// Where the store that was there before is now.
    pub replaced: Option<PathBuf>,
}

/// Makes a store in `data_dir` of the backup `from`. A store that is there is put aside if `replace` says
/// so; no server may be running on it. Clients that watched it are told to list anew (410 Gone).
pub fn restore(from: &Path, data_dir: &Path, replace: bool) -> Result<Restored, MaintenanceError> {
    fs::create_dir_all(data_dir).map_err(|source| MaintenanceError::io(data_dir, source))?;
    let path = data_dir.join("store.db");
    if path.exists() && !replace {
        return Err(MaintenanceError::Exists { path });
    }
    // Held, so that no server starts on it meanwhile.
    let (before, standing) = standing(&path)?;
    let partial = beside(&path, "restored");
    let outcome = prepare(from, &partial, before);
    if outcome.is_err() {
        drop(fs::remove_file(&partial));
    }
    let (manifest, revision) = outcome?;
    drop(standing);
    let replaced = if path.exists() { Some(put_aside(&path)?) } else { None };
    settle(&partial, &path)?;
    Ok(Restored { manifest, revision, replaced })
}

/// The revision of the store that is there, and the store itself; a damaged one does not stop us.
fn standing(path: &Path) -> Result<(u64, Option<Store>), MaintenanceError> {
    if !path.exists() {
        return Ok((0, None));
    }
    match Store::open(&Options::new(path)) {
        Ok(store) => Ok((apiserver::storage::Storage::revision(&store, ""), Some(store))),
        Err(OpenError::Corrupt { .. } | OpenError::Foreign { .. } | OpenError::Version { .. }) => {
            Ok((0, None))
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes the database out, checks it, and lets its revisions begin after all that were given out.
fn prepare(from: &Path, to: &Path, before: u64) -> Result<(Manifest, u64), MaintenanceError> {
    let manifest = unpack(from, to)?;
    let report = check::check_file(to)?;
    if let Some(problem) = report.errors.first() {
        let detail = format!("its database is not consistent: {problem}");
        return Err(MaintenanceError::Damaged { path: from.into(), detail });
    }
    let sql = |source| MaintenanceError::Database { path: to.into(), source };
    let mut db = Connection::open(to).map_err(sql)?;
    migrate::migrate(&mut db).map_err(sql)?;
    let revision = manifest.revision.max(before) + JUMP;
    let tx = db.transaction().map_err(sql)?;
    let at = revision as i64;
    tx.execute("UPDATE counter SET revision = ?1, floor = ?1", params![at]).map_err(sql)?;
    tx.execute("DELETE FROM history", []).map_err(sql)?;
    migrate::new_identity(&tx).map_err(sql)?;
    tx.commit().map_err(sql)?;
    drop(db);
    Ok((manifest, revision))
}

/// Moves the store that was there out of the way, with its log, which must not meet another database.
fn put_aside(path: &Path) -> Result<PathBuf, MaintenanceError> {
    let at = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = path.with_file_name(format!("store.db.replaced-{at}"));
    let io = |source| MaintenanceError::io(path, source);
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    for end in ["-wal", "-shm"] {
        if with(path, end).exists() {
            fs::rename(with(path, end), with(&aside, end)).map_err(io)?;
        }
    }
    // Linked, not moved: at no moment is there no store, which a server would take for a new one.
    fs::hard_link(path, &aside).map_err(io)?;
    Ok(aside)
}
