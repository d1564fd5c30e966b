//! Looking for what is wrong with a store: the database itself, revisions, keys, history, orphans.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::backup::{beside, unpack};
use crate::file::{self, explain};
use crate::{MaintenanceError, control};

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The last revision.
    pub revision: u64,
    /// How many objects there are.
    pub objects: usize,
    /// How many changes are kept.
    pub changes: usize,
    /// What must not be.
    pub errors: Vec<String>,
    /// What may be, but is odd: objects without what they belong to.
    pub warnings: Vec<String>,
}

/// At most so many lines of each kind: a file that is all wrong is wrong enough.
const LINES: usize = 100;

impl Report {
    fn error(&mut self, text: String) {
        if self.errors.len() < LINES {
            self.errors.push(text);
        }
    }

    fn warning(&mut self, text: String) {
        if self.warnings.len() < LINES {
            self.warnings.push(text);
        }
    }
}

/// Checks the store in `data_dir`; of one that a server runs on, a backup made for it.
pub fn check(data_dir: &Path) -> Result<Report, MaintenanceError> {
    let path = data_dir.join("store.db");
    if !path.exists() {
        return Err(MaintenanceError::Missing { path });
    }
    let copy = beside(&path, &format!("checked-{}", std::process::id()));
    if control::ask_backup(data_dir, &std::path::absolute(&copy).unwrap_or_else(|_| copy.clone()))?
        .is_some()
    {
        let report = check_backup(&copy);
        drop(std::fs::remove_file(&copy));
        return report;
    }
    check_file(&path)
}

/// Checks a backup.
pub fn check_backup(from: &Path) -> Result<Report, MaintenanceError> {
    let database = std::env::temp_dir().join(format!("calico-check-{}.db", uuid::Uuid::new_v4()));
    let report = unpack(from, &database).and_then(|manifest| {
        let mut report = check_file(&database)?;
        if (manifest.revision, manifest.objects) != (report.revision, report.objects as u64) {
            report.error(format!(
                "the manifest says revision {} and {} objects, the database has {} and {}",
                manifest.revision, manifest.objects, report.revision, report.objects
            ));
        }
        Ok(report)
    });
    drop(std::fs::remove_file(&database));
    report
}

/// Checks a database that nobody else has open.
pub(crate) fn check_file(path: &Path) -> Result<Report, MaintenanceError> {
    let sql = |source| MaintenanceError::from(explain(path, source));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(sql)?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(sql)?;
    file::identify(&db, path)?;
    let mut report = Report::default();
    let mut query = db.prepare("PRAGMA integrity_check(100)").map_err(sql)?;
    let verdicts = query.query_map([], |row| row.get::<_, String>(0)).map_err(sql)?;
    for verdict in verdicts {
        match verdict.map_err(sql)? {
            ok if ok == "ok" => {}
            problem => report.error(format!("database: {problem}")),
        }
    }
    if report.errors.is_empty() {
        contents(&db, &mut report).map_err(sql)?;
    }
    Ok(report)
}

fn contents(db: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let counters: i64 = db.query_row("SELECT count(*) FROM counter", [], |row| row.get(0))?;
    if counters != 1 {
        report.error(format!("counter: {counters} rows, wanted 1"));
        return Ok(());
    }
    let (revision, floor) = db.query_row("SELECT revision, floor FROM counter", [], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
    })?;
    report.revision = revision;
    if floor > revision {
        report.error(format!(
            "counter: history begins after {floor}, the last revision is {revision}"
        ));
    }
    let objects = objects(db, report)?;
    history(db, report, floor, &objects)?;
    Ok(())
}

/// Looks at each object, and at what they need of each other. Returns their revisions.
fn objects(db: &Connection, report: &mut Report) -> Result<BTreeMap<String, u64>, rusqlite::Error> {
    let mut revisions = BTreeMap::new();
    let mut uids = BTreeSet::new();
    let mut owners = Vec::new();
    let mut by_revision: HashMap<u64, String> = HashMap::new();
    let mut query = db.prepare("SELECT key, revision, value FROM objects ORDER BY key")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (key, at) = (row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64);
        if at > report.revision {
            report
                .error(format!("{key}: revision {at} is beyond the last one, {}", report.revision));
        }
        if let Some(other) = by_revision.insert(at, key.clone()) {
            report.error(format!("{key}: revision {at} is that of {other}, too"));
        }
        let bytes = row.get_ref(2)?.as_blob().unwrap_or_default();
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => {
                if let Some(problem) = mismatch(&key, at, &value) {
                    report.error(format!("{key}: {problem}"));
                }
                let metadata = &value["metadata"];
                uids.extend(metadata["uid"].as_str().map(str::to_owned));
                for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
                    let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
                    owners.push((
                        key.clone(),
                        owner["kind"].to_string(),
                        owner["name"].to_string(),
                        uid,
                    ));
                }
            }
            Err(error) => report.error(format!("{key}: not JSON: {error}")),
        }
        revisions.insert(key, at);
    }
    report.objects = revisions.len();
    for (key, kind, name, uid) in owners {
        if !uids.contains(&uid) {
            report.warning(format!("{key}: its owner, {kind} {name}, is not there"));
        }
    }
    for key in revisions.keys() {
        let parts: Vec<_> = key.split('/').collect();
        if let [_, _, namespace, _] = parts[..]
            && !revisions.contains_key(&format!("core/namespaces/{namespace}"))
        {
            report.warning(format!("{key}: its namespace is not there"));
        }
    }
    Ok(revisions)
}

/// What an object says of itself that its place in the table does not.
fn mismatch(key: &str, revision: u64, value: &Value) -> Option<String> {
    let metadata = &value["metadata"];
    let mut parts: Vec<_> = key.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    if metadata.get("name").is_some_and(|own| own != name) {
        return Some(format!("its name is {}", metadata["name"]));
    }
    let namespace = if parts.len() == 3 { parts.pop() } else { None };
    if namespace.is_some_and(|wanted| metadata.get("namespace").is_some_and(|own| own != wanted)) {
        return Some(format!("its namespace is {}", metadata["namespace"]));
    }
    let own = metadata["resourceVersion"].as_str();
    let own = own.filter(|own| *own != revision.to_string())?;
    Some(format!("its resourceVersion is {own:?}, its revision {revision}"))
}

/// History has no gaps, and ends in what the objects are.
fn history(
    db: &Connection,
    report: &mut Report,
    floor: u64,
    objects: &BTreeMap<String, u64>,
) -> Result<(), rusqlite::Error> {
    let mut query = db.prepare(
        "SELECT revision, key, change FROM history WHERE revision > ?1 ORDER BY revision",
    )?;
    let mut rows = query.query([floor as i64])?;
    let (mut last, mut ends) = (floor, BTreeMap::new());
    while let Some(row) = rows.next()? {
        let (at, key) = (row.get::<_, i64>(0)? as u64, row.get::<_, String>(1)?);
        if at != last + 1 {
            report.error(format!("history: revision {at} follows {last}"));
        }
        last = at;
        ends.insert(key, (at, row.get::<_, i64>(2)?));
        report.changes += 1;
    }
    if last != report.revision {
        report
            .error(format!("history: it ends at {last}, the last revision is {}", report.revision));
    }
    for (key, (at, change)) in &ends {
        match (objects.get(key), *change) {
            (None, file::DELETED) => {}
            (Some(revision), change) if change != file::DELETED && revision == at => {}
            (found, _) => report.error(format!(
                "{key}: its last change is at revision {at}, the object is at {}",
                found.map_or("none".to_owned(), u64::to_string)
            )),
        }
    }
    for (key, revision) in objects {
        if *revision > floor && ends.get(key).is_none_or(|(at, _)| at != revision) {
            report.error(format!("{key}: its revision {revision} is not in the history"));
        }
    }
    Ok(())
}
