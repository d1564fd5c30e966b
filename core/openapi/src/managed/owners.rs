//! The owners of one object, and their place in `metadata.managedFields`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::fieldset::FieldSet;

/// The most owners by update that an object keeps; the oldest beyond it become one.
const MOST_UPDATERS: usize = 10;
/// The name of that one.
const ANCIENT: &str = "ancient-changes";

/// Fields that identify an object or that only the server writes: nobody owns them.
const STRIPPED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who owns: applying is one ownership whatever the version, updating is one per version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    manager: String,
    operation: Operation,
    version: String,
    subresource: String,
}

impl Owner {
    pub(super) fn new(
        manager: &str,
        operation: Operation,
        version: &str,
        subresource: &str,
    ) -> Self {
        let version = if operation == Operation::Apply { "" } else { version };
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Self {
            manager: manager.to_owned(),
            operation,
            version: version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.version)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) set: FieldSet,
    pub(super) version: String,
    pub(super) time: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Owners(BTreeMap<Owner, Entry>);

impl Owners {
    /// `None` if the list is malformed; it is then worth nothing as a whole.
    pub(super) fn decode(list: &Value) -> Option<Self> {
        let mut owners = Self::default();
        for entry in list.as_array().into_iter().flatten() {
            let text = |key: &str| entry[key].as_str();
            let operation = match text("operation")? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            let version = text("apiVersion").filter(|v| !v.is_empty())?;
            if text("fieldsType")? != "FieldsV1" {
                return None;
            }
            let set = match &entry["fieldsV1"] {
                Value::Null => FieldSet::default(),
                fields => FieldSet::from_fields(fields)?,
            };
            let owner = Owner {
                manager: text("manager").unwrap_or_default().to_owned(),
                operation,
                version: if operation == Operation::Apply {
                    String::new()
                } else {
                    version.to_owned()
                },
                subresource: text("subresource").unwrap_or_default().to_owned(),
            };
            let time = text("time").map(str::to_owned);
            owners.0.insert(owner, Entry { set, version: version.to_owned(), time });
        }
        Some(owners)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn map_sets(mut self, change: impl Fn(&FieldSet) -> FieldSet) -> Self {
        for entry in self.0.values_mut() {
            entry.set = change(&entry.set);
        }
        self
    }

    pub(super) fn insert(&mut self, owner: Owner, entry: Entry) {
        self.0.insert(owner, entry);
    }

    pub(super) fn remove(&mut self, owner: &Owner) -> Option<Entry> {
        self.0.remove(owner)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Owner, &mut Entry)> {
        self.0.iter_mut()
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &FieldSet> {
        self.0.values().map(|entry| &entry.set)
    }

    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|_, entry| !entry.set.is_empty());
    }

    pub(super) fn set_time(&mut self, owner: &Owner, now: &str) {
        if let Some(entry) = self.0.get_mut(owner) {
            entry.time = Some(now.to_owned());
        }
    }

    pub(super) fn stripped(set: &FieldSet) -> FieldSet {
        set.difference(&FieldSet::of(STRIPPED))
    }

    /// Takes from one owner what nobody owns.
    pub(super) fn strip(&mut self, owner: &Owner) {
        if let Some(entry) = self.0.get_mut(owner) {
            entry.set = Self::stripped(&entry.set);
        }
        self.drop_empty();
    }

    /// Merges the oldest owners by update until there are few enough.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(Option<String>, Owner)> = self
            .0
            .iter()
            .filter(|(owner, _)| owner.operation == Operation::Update)
            .map(|(owner, entry)| (entry.time.clone(), owner.clone()))
            .collect();
        let mut count = updaters.len();
        if count <= MOST_UPDATERS {
            return;
        }
        updaters.sort();
        let mut first: BTreeMap<String, Owner> = BTreeMap::new();
        for (time, owner) in updaters {
            if count <= MOST_UPDATERS {
                break;
            }
            let version = owner.version.clone();
            let bucket = Owner::new(ANCIENT, Operation::Update, &version, "");
            let Some(earlier) = first.get(&version) else {
                first.insert(version, owner);
                continue;
            };
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(earlier)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if let Some(entry) = self.0.remove(&owner)
                && let Some(sum) = self.0.get_mut(&bucket)
            {
                sum.set = sum.set.union(&entry.set);
                sum.time = time;
            }
            count -= 1;
        }
    }

    /// Writes the list into the object, in the API's order; no owners, no list.
    pub(super) fn write(&self, object: &mut Value) {
        let mut sorted: Vec<(&Owner, &Entry)> = self.0.iter().collect();
        sorted.sort_by_key(|(o, e)| {
            (
                o.operation,
                e.time.clone(),
                o.manager.clone(),
                e.version.clone(),
                o.subresource.clone(),
            )
        });
        let list: Vec<Value> =
            sorted.into_iter().map(|(owner, entry)| encode(owner, entry)).collect();
        let Some(object) = object.as_object_mut() else { return };
        let meta = object.entry("metadata").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            if list.is_empty() {
                meta.shift_remove("managedFields");
            } else {
                meta.insert("managedFields".to_owned(), Value::Array(list));
            }
        }
    }
}

fn encode(owner: &Owner, entry: &Entry) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("apiVersion", entry.version.as_str().into());
    put("fieldsType", "FieldsV1".into());
    put("fieldsV1", entry.set.to_fields());
    put("manager", owner.manager.as_str().into());
    put("operation", owner.operation.name().into());
    if !owner.subresource.is_empty() {
        put("subresource", owner.subresource.as_str().into());
    }
    if let Some(time) = &entry.time {
        put("time", time.as_str().into());
    }
    Value::Object(out)
}
