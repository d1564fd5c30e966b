//! The formats that store files have had, and the way from each to the next.

use rusqlite::{Connection, Transaction};

/// The format of the tables that this program writes.
pub(crate) const FORMAT: i64 = 2;

/// One step: what brings a file of format `n` (from 1 on, in order) to format `n + 1`.
type Step = fn(&Transaction<'_>) -> Result<(), rusqlite::Error>;

const STEPS: [Step; FORMAT as usize - 1] = [add_meta];

/// Brings a file of an older format to this one, in one transaction: a process that dies on the way
/// leaves the old one. Says what the format was.
pub(crate) fn migrate(db: &mut Connection) -> Result<i64, rusqlite::Error> {
    let found: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == FORMAT {
        return Ok(found);
    }
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for (from, step) in (1..).zip(STEPS) {
        if from >= found {
            step(&tx)?;
        }
    }
    tx.pragma_update(None, "user_version", FORMAT)?;
    tx.commit()?;
    Ok(found)
}

/// Format 2: the store has an identity, which a restored one does not share.
fn add_meta(tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    tx.execute_batch(
        "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID",
    )?;
    new_identity(tx)
}

/// Makes the store another one.
pub(crate) fn new_identity(tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let identity = uuid::Uuid::new_v4().to_string();
    tx.execute("INSERT OR REPLACE INTO meta VALUES ('identity', ?1)", [identity]).map(drop)
}

/// Which store it is.
pub(crate) fn identity(db: &Connection) -> Result<String, rusqlite::Error> {
    db.query_row("SELECT value FROM meta WHERE name = 'identity'", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpenError, Options, Store};
    use apiserver::storage::Storage;

    /// A file as the first version wrote it.
    fn first_format(path: &std::path::Path) {
        let db = Connection::open(path).unwrap();
        db.execute_batch(
            r#"CREATE TABLE objects (
                   key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
               CREATE TABLE history (
                   revision INTEGER PRIMARY KEY NOT NULL, key TEXT NOT NULL, change INTEGER NOT NULL,
                   value BLOB NOT NULL);
               CREATE TABLE counter (
                   id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, floor INTEGER NOT NULL);
               INSERT INTO counter VALUES (0, 2, 0);
               INSERT INTO objects VALUES ('core/x/a', 2, CAST('{"metadata":{"name":"a","resourceVersion":"2"},"n":2}' AS BLOB));
               INSERT INTO history VALUES (1, 'core/x/a', 0, CAST('{"metadata":{"name":"a","resourceVersion":"1"},"n":1}' AS BLOB));
               INSERT INTO history VALUES (2, 'core/x/a', 1, CAST('{"metadata":{"name":"a","resourceVersion":"2"},"n":2}' AS BLOB));
               PRAGMA application_id = 1667329129;
               PRAGMA user_version = 1;"#,
        )
        .unwrap();
    }

    #[test]
    fn a_file_of_the_first_format_opens_and_is_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        first_format(&path);
        let store = Store::open(&Options::new(&path)).unwrap();
        assert_eq!(store.revision(""), 2);
        assert_eq!(store.get("core/x/a").unwrap().value()["n"], 2);
        assert_eq!(store.changes("", 0).unwrap().changes.len(), 2);
        drop(store);
        let version = |path: &std::path::Path| -> i64 {
            let db = Connection::open(path).unwrap();
            db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(version(&path), FORMAT);
        let first = identity(&Connection::open(&path).unwrap()).unwrap();
        drop(Store::open(&Options::new(&path)).unwrap());
        assert_eq!(identity(&Connection::open(&path).unwrap()).unwrap(), first, "once");
        let report = crate::check(dir.path()).unwrap();
        assert!(report.errors.is_empty(), "{report:?}");
        // As a new file is.
        let new = dir.path().join("new.db");
        drop(Store::open(&Options::new(&new)).unwrap());
        let tables = |path: &std::path::Path| -> Vec<String> {
            let db = Connection::open(path).unwrap();
            let mut query = db.prepare("SELECT name FROM sqlite_master ORDER BY name").unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(tables(&path), tables(&new));

        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", FORMAT + 1).unwrap();
        drop(newer);
        let error = Store::open(&Options::new(&path)).unwrap_err();
        assert!(
            matches!(error, OpenError::Version { found, .. } if found == FORMAT + 1),
            "{error}"
        );
        assert_eq!(version(&path), FORMAT + 1, "left as it was");
    }
}
