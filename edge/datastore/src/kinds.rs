//! Where kinds live in the API.

/// A kind of object, as a place in the API's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name.
    pub plural: &'static str,
    /// Kind.
    pub kind: &'static str,
}

impl Resource {
    /// A kind of the core group.
    pub const fn core(plural: &'static str, kind: &'static str) -> Self {
        Self { group: "", version: "v1", plural, kind }
    }

    /// A kind of `projectcalico.org/v3`.
    pub const fn calico(plural: &'static str, kind: &'static str) -> Self {
        Self { group: "projectcalico.org", version: "v3", plural, kind }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection; of one namespace if one is given.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let version = self.api_version();
        match namespace {
            Some(ns) => format!("/{root}/{version}/namespaces/{ns}/{}", self.plural),
            None => format!("/{root}/{version}/{}", self.plural),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(Resource::core("pods", "Pod").path(Some("a")), "/api/v1/namespaces/a/pods");
        let pools = Resource::calico("ippools", "IPPool");
        assert_eq!(pools.path(None), "/apis/projectcalico.org/v3/ippools");
    }
}
