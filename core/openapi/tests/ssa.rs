//! Replays scripts of server-side apply; what they expect was recorded from upstream's own field manager
//! (`dev/kube/ssa`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use openapi::managed::{ApplyError, apply, track};
use openapi::{Schema, Schemas, patch};
use serde_json::Value;

fn schema_of(script: &Value) -> Schema {
    let part = |i: usize| script["gvk"][i].as_str().expect("gvk");
    let (group, version, kind) = (part(0), part(1), part(2));
    let mut schemas = Schemas::builtin();
    if script["schema"].is_object() {
        if script["status"] == true {
            schemas.add_with_status(group, version, kind, script["schema"].clone());
        } else {
            schemas.add(group, version, kind, script["schema"].clone());
        }
    }
    schemas.for_kind(group, version, kind).expect("a schema")
}

/// Times of recorded scripts are the number of the step that set them.
fn time(step: usize) -> String {
    format!("2026-01-01T00:00:{step:02}Z")
}

struct Run {
    schema: Schema,
    live: Option<Value>,
}

impl Run {
    fn step(&mut self, step: &Value, number: usize) -> Result<Value, ApplyError> {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let (manager, subresource, now) = (text("manager"), text("subresource"), time(number));
        let live = self.live.as_ref();
        if step["apply"].is_object() {
            let force = step["force"] == true;
            return apply(&self.schema, live, &step["apply"], manager, force, subresource, &now);
        }
        let mut after = if step["update"].is_object() {
            step["update"].clone()
        } else {
            let mut next = live.cloned().expect("something to merge into");
            patch::merge(&mut next, &step["merge"]);
            next
        };
        track(&self.schema, live, &mut after, manager, subresource, &now);
        Ok(after)
    }
}

fn causes(step: &Value) -> BTreeSet<&str> {
    step["causes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn replay(path: &Path) {
    let script: Value = {
        let text = fs::read_to_string(path).expect("a script");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut run = Run { schema: schema_of(&script), live: None };
    for (number, step) in script["steps"].as_array().expect("steps").iter().enumerate() {
        let place = format!("{} ({}), step {number}", path.display(), script["about"]);
        match run.step(step, number) {
            Ok(object) => {
                assert_eq!(step.get("conflict"), None, "{place}: no conflict, but {object:#}");
                assert_eq!(step.get("invalid"), None, "{place}: not refused");
                let want = step.get("want").expect("want");
                assert!(object == *want, "{place}:\n got {object}\nwant {want}");
                run.live = Some(object);
            }
            Err(ApplyError::Conflict { message, causes: found }) => {
                let fields: Vec<String> =
                    found.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
                let fields: BTreeSet<&str> = fields.iter().map(String::as_str).collect();
                assert_eq!(fields, causes(step), "{place}");
                if fields.len() == 1 {
                    assert_eq!(step["conflict"], message, "{place}");
                }
            }
            Err(ApplyError::Invalid(why)) => assert_eq!(step["invalid"], true, "{place}: {why}"),
        }
    }
}

fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssa").join(folder);
    let mut found: Vec<PathBuf> =
        fs::read_dir(&folder).expect("scripts").map(|e| e.expect("a file").path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "json"));
    found.sort();
    assert!(found.len() > 10, "{}: scripts are missing", folder.display());
    found
}

#[test]
fn scripts_written_by_hand() {
    for path in scripts("") {
        replay(&path);
    }
}

#[test]
fn scripts_made_at_random() {
    for path in scripts("random") {
        replay(&path);
    }
}
