//! Which resources are served: the built-in ones, the Calico kinds, and those that
//! CustomResourceDefinitions add while the server runs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use openapi::Schemas;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Surface;
use crate::builtin;
use crate::derived::Origins;
use crate::document::Documents;
use crate::schema::Shape;
use crate::storage::Object;
use crate::view::View;

/// Who defined a resource: its rules differ a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Builtin,
    Calico,
    Custom,
}

/// A column that `kubectl get` prints, read from the object by a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `date`, ...
    pub(crate) kind: String,
    /// A path such as `.spec.tier` or `.status.conditions[?(@.type=="Ready")].status`.
    pub(crate) path: String,
    /// 0 is always shown, more only by `-o wide`.
    pub(crate) priority: i64,
}

/// One version of one resource.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) subresources: Vec<&'static str>,
    pub(crate) origin: Origin,
    /// Group and plural under which the objects are stored.
    pub(crate) home: (String, String),
    pub(crate) view: View,
    pub(crate) origins: Origins,
    pub(crate) columns: Vec<Column>,
    pub(crate) fields: Vec<String>,
    pub(crate) shape: Shape,
}

impl Resource {
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Every object of the resource is stored under this.
    pub(crate) fn prefix(&self) -> String {
        let (group, plural) = &self.home;
        let group = if group.is_empty() { "core" } else { group };
        format!("{group}/{plural}/")
    }

    pub(crate) fn key(&self, namespace: Option<&str>, name: &str) -> Arc<str> {
        match namespace {
            Some(namespace) => format!("{}{namespace}/{name}", self.prefix()).into(),
            None => format!("{}{name}", self.prefix()).into(),
        }
    }

    /// Whether a field selector may name `path`.
    pub(crate) fn selectable(&self, path: &str) -> bool {
        path == "metadata.name"
            || (path == "metadata.namespace" && self.namespaced)
            || self.fields.iter().any(|field| field == path)
    }

    /// Whether `metadata.generation` counts changes of the specification.
    pub(crate) fn counts_generations(&self) -> bool {
        const BUILTIN: [&str; 4] =
            ["Pod", "NetworkPolicy", "EndpointSlice", "CustomResourceDefinition"];
        match self.origin {
            Origin::Builtin => BUILTIN.contains(&self.kind.as_str()),
            Origin::Calico | Origin::Custom => self.view != View::CalicoNode,
        }
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// `v1`, or `networking.k8s.io/v1`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// Everything served at one moment. Replaced as a whole when definitions change.
#[derive(Debug)]
pub(crate) struct Registry {
    /// In the order of discovery: built-in groups first.
    pub(crate) resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
    /// The schemas of all of them.
    pub(crate) schemas: Schemas,
    pub(crate) documents: Documents,
    /// Changes whenever a schema does.
    pub(crate) hash: String,
}

impl Registry {
    /// The fixed resources and those of the given CustomResourceDefinitions.
    pub(crate) fn build(fixed: &Fixed, definitions: &[Arc<Object>]) -> Self {
        let mut digest = Sha256::new_with_prefix(env!("CARGO_PKG_VERSION"));
        let mut registry = Self {
            resources: Vec::new(),
            by_path: HashMap::new(),
            schemas: fixed.schemas.clone(),
            documents: Documents::default(),
            hash: String::new(),
        };
        fixed.resources.iter().for_each(|resource| registry.add(resource.clone()));
        for definition in definitions {
            digest.update(definition.revision().to_be_bytes());
            for (resource, schema) in custom(definition.value()) {
                registry.add_custom(resource, schema);
            }
        }
        let digest = digest.finalize();
        let word = |at: usize| digest[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        registry.hash = format!("{:016X}{:016X}", word(0), word(8));
        registry
    }

    /// Adds a resource, unless there is one at its path: what is built in cannot be redefined.
    fn add(&mut self, resource: Arc<Resource>) {
        let path = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        if let Entry::Vacant(free) = self.by_path.entry(path) {
            free.insert(resource.clone());
            self.resources.push(resource);
        }
    }

    fn add_custom(&mut self, mut resource: Resource, schema: Value) {
        let Resource { group, version, kind, plural, status, .. } = &resource;
        if self.find(group, version, plural).is_some() {
            return;
        }
        if *status {
            self.schemas.add_with_status(group, version, kind, schema);
        } else {
            self.schemas.add(group, version, kind, schema);
        }
        resource.shape.schema = self.schemas.for_kind(group, version, kind);
        self.add(Arc::new(resource));
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.resources.iter().find(|r| r.kind == kind && r.api_version() == api_version).cloned()
    }

    /// Groups in order, each with its versions in order of preference.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.resources {
            let at = groups.iter().position(|(group, _)| *group == resource.group);
            let versions = if let Some(at) = at {
                &mut groups[at].1
            } else {
                groups.push((resource.group.clone(), Vec::new()));
                &mut groups.last_mut().expect("just pushed").1
            };
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
            }
        }
        groups
    }

    /// One resource per place of storage: the views of others are left out.
    pub(crate) fn stored(&self) -> Vec<Arc<Resource>> {
        let mut seen = std::collections::HashSet::new();
        let own = |r: &&Arc<Resource>| r.home == (r.group.clone(), r.plural.clone());
        self.resources.iter().filter(own).filter(|r| seen.insert(r.home.clone())).cloned().collect()
    }
}

/// What is served whatever the store holds.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) resources: Vec<Arc<Resource>>,
    schemas: Schemas,
}

impl Fixed {
    /// What the surface shows: Kubernetes' own kinds that we serve, Calico's, and the operator's; or
    /// Calico's alone.
    pub(crate) fn new(surface: Surface) -> Self {
        let mut schemas = Schemas::builtin();
        builtin::add_schemas(&mut schemas);
        let mut resources: Vec<_> = match surface {
            Surface::Cluster => builtin::kubernetes().chain(builtin::calico()).collect(),
            Surface::Calico => builtin::calico_alone().collect(),
            Surface::Beside => builtin::calico_beside().collect(),
        };
        for resource in &mut resources {
            let Resource { group, version, kind, .. } = &*resource;
            resource.shape.schema = schemas.for_kind(group, version, kind);
        }
        Self { resources: resources.into_iter().map(Arc::new).collect(), schemas }
    }
}

/// The resources that a CustomResourceDefinition adds, with their schemas: one per served version.
fn custom(definition: &Value) -> Vec<(Resource, Value)> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let (group, names) = (text(&spec["group"]), &spec["names"]);
    let mut versions: Vec<&Value> =
        spec["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true).collect();
    versions.sort_by_key(|v| std::cmp::Reverse(priority(v["name"].as_str().unwrap_or_default())));
    let resource = |version: &&Value| Resource {
        group: group.clone(),
        version: text(&version["name"]),
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        plural: text(&names["plural"]),
        singular: text(&names["singular"]),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"]["status"].is_object(),
        subresources: Vec::new(),
        origin: Origin::Custom,
        home: (group.clone(), text(&names["plural"])),
        view: View::Version,
        origins: Origins::Stored,
        columns: columns(&version["additionalPrinterColumns"]),
        fields: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        shape: Shape::default(),
    };
    versions.iter().map(|v| (resource(v), v["schema"]["openAPIV3Schema"].clone())).collect()
}

fn columns(declared: &Value) -> Vec<Column> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let column = |c: &Value| Column {
        name: text(&c["name"]),
        kind: text(&c["type"]),
        path: text(&c["jsonPath"]),
        priority: c["priority"].as_i64().unwrap_or(0),
    };
    declared.as_array().into_iter().flatten().map(column).collect()
}

/// Orders versions: v2 over v1 over v1beta2 over v1alpha1 over anything else.
fn priority(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(digits);
    let Ok(major) = major.parse() else { return (0, 0, 0) };
    let number = |text: &str| text.parse().unwrap_or(0);
    match stage {
        "" => (3, major, 0),
        _ if stage.starts_with("beta") => (2, major, number(&stage[4..])),
        _ if stage.starts_with("alpha") => (1, major, number(&stage[5..])),
        _ => (0, 0, 0),
    }
}
