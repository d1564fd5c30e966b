//! Where a Kubernetes API server keeps each kind, and under which name.

/// Calico's kinds, as they are kept.
const STORED: &str = "/apis/crd.projectcalico.org/v1";
const CORE: &str = "/api/v1";

/// Policies may be kept under a name that begins with their tier's.
const POLICIES: [&str; 4] = [
    "networkpolicies",
    "globalnetworkpolicies",
    "stagednetworkpolicies",
    "stagedglobalnetworkpolicies",
];

/// Kinds of Kubernetes itself from which Calico's are made: plural, kind, namespaced.
const SOURCES: [(&str, &str, bool); 4] = [
    ("pods", "Pod", true),
    ("namespaces", "Namespace", false),
    ("serviceaccounts", "ServiceAccount", true),
    ("nodes", "Node", false),
];

/// Where the objects of a kind are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    root: &'static str,
    /// Name in URLs there.
    pub(super) plural: &'static str,
    /// What `kind` says there.
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    /// The kind as Calico's API shows it; none for kinds of Kubernetes itself.
    pub(super) shown: Option<&'static api::Kind>,
}

impl Place {
    /// Of the kind whose keys begin with `kind`, which is `group/resource`.
    pub(super) fn of(kind: &str) -> Option<Self> {
        match kind.split_once('/')? {
            ("projectcalico.org", plural) => {
                let ours = |k: &&api::Kind| k.group == "projectcalico.org" && k.plural == plural;
                let shown =
                    api::kinds().iter().filter(ours).find(|k| k.source == api::Source::Stored)?;
                let (plural, kind) = match shown.kind {
                    // The one kind that has another name there.
                    "IPAMConfiguration" => ("ipamconfigs", "IPAMConfig"),
                    _ => (shown.plural, shown.kind),
                };
                let namespaced = shown.namespaced;
                Some(Self { root: STORED, plural, kind, namespaced, shown: Some(shown) })
            }
            ("core", plural) => {
                let (plural, kind, namespaced) = SOURCES.into_iter().find(|s| s.0 == plural)?;
                Some(Self { root: CORE, plural, kind, namespaced, shown: None })
            }
            _ => None,
        }
    }

    /// The `apiVersion` of objects there.
    pub(super) fn api_version(&self) -> &'static str {
        self.root.trim_start_matches("/apis/").trim_start_matches("/api/")
    }

    /// Whether objects may have another name there than they are shown with.
    pub(super) fn renames(&self) -> bool {
        self.shown.is_some_and(|kind| POLICIES.contains(&kind.plural))
    }

    /// The beginning of the keys of this kind.
    pub(super) fn prefix(&self) -> String {
        match self.shown {
            Some(kind) => format!("projectcalico.org/{}/", kind.plural),
            None => format!("core/{}/", self.plural),
        }
    }

    /// The path of all objects.
    pub(super) fn collection(&self) -> String {
        format!("{}/{}", self.root, self.plural)
    }

    /// The path of the object at a place, `[namespace/]name`.
    pub(super) fn object(&self, raw: &str) -> String {
        let (within, name) = self.within(raw);
        format!("{within}/{}", escape(name))
    }

    /// The path under which an object is made, and its name.
    pub(super) fn within<'a>(&self, raw: &'a str) -> (String, &'a str) {
        match raw.split_once('/').filter(|_| self.namespaced) {
            Some((namespace, name)) => {
                let path =
                    format!("{}/namespaces/{}/{}", self.root, escape(namespace), self.plural);
                (path, name)
            }
            None => (self.collection(), raw),
        }
    }
}

/// What may not stand in a path.
fn escape(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let one = |b: u8| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_kind_has_its_definition() {
        let defined = api::definitions(api::Layout::Stored);
        let name =
            |d: &serde_json::Value| d["spec"]["names"]["plural"].as_str().unwrap().to_owned();
        let mut defined: Vec<String> = defined.iter().map(name).collect();
        let ours = api::kinds().iter().filter(|k| k.group == "projectcalico.org");
        let places = ours.filter_map(|k| Place::of(&format!("projectcalico.org/{}", k.plural)));
        let mut places: Vec<String> = places.map(|place| place.plural.to_owned()).collect();
        defined.sort();
        places.sort();
        assert_eq!(places, defined);
    }

    #[test]
    fn paths() {
        let sets = Place::of("projectcalico.org/networksets").unwrap();
        assert_eq!(
            sets.object("a/b c"),
            "/apis/crd.projectcalico.org/v1/namespaces/a/networksets/b%20c"
        );
        assert_eq!(sets.api_version(), "crd.projectcalico.org/v1");
        let config = Place::of("projectcalico.org/ipamconfigurations").unwrap();
        assert_eq!(config.object("default"), "/apis/crd.projectcalico.org/v1/ipamconfigs/default");
        assert_eq!(config.prefix(), "projectcalico.org/ipamconfigurations/");
        let pods = Place::of("core/pods").unwrap();
        assert_eq!(pods.within("ns/p"), ("/api/v1/namespaces/ns/pods".into(), "p"));
        assert_eq!(pods.api_version(), "v1");
        for none in ["projectcalico.org/profiles", "core/secrets", "core", "apps/deployments"] {
            assert!(Place::of(none).is_none(), "{none}");
        }
    }
}
