//! Names that cannot be mistaken for each other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Kernel name of an interface: 1 to 15 bytes, no `/`, no whitespace, not `.` or `..`
/// (`dev_valid_name`, net/core/dev.c).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfaceName(Arc<str>);

/// The text is no interface name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no interface name (want 1 to 15 bytes, no '/', ':' or space)")]
pub struct BadIfaceName(String);

impl FromStr for IfaceName {
    type Err = BadIfaceName;
    fn from_str(s: &str) -> Result<Self, BadIfaceName> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if !(1..=15).contains(&s.len()) || s.contains(bad) || matches!(s, "." | "..") {
            return Err(BadIfaceName(s.to_owned()));
        }
        Ok(Self(s.into()))
    }
}

impl IfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.into())
            }
        }
        impl From<String> for $name {
            fn from(s: String) -> Self {
                Self(s.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Name of a node.
    NodeName
);
name!(
    /// Name of a tier.
    TierName
);
name!(
    /// Name of a profile, for example `kns.default`.
    ProfileName
);

/// A pod's interface. Kubernetes pods have exactly one that Calico manages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    /// Namespace of the pod.
    pub namespace: Arc<str>,
    /// Name of the pod.
    pub name: Arc<str>,
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iface_names() {
        for (what, given, ok) in [
            ("longest legal", "abcdefghijklmno", true),
            ("one byte too long", "abcdefghijklmnop", false),
            ("path escape", "../eth0", false),
            ("parent folder", "..", false),
            ("alias separator", "eth0:1", false),
            ("empty", "", false),
        ] {
            assert_eq!(given.parse::<IfaceName>().is_ok(), ok, "{what}: {given:?}");
        }
    }
}
